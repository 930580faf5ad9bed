"""Predictions as annotations that labelling tools open, and that are trained on once they are corrected.

uncertainty.py   how sure a model is of an image: those that are worth a look come first
formats.py       the text of each format: COCO's JSON, YOLO's and VOC's files, CSV
folder.py        a folder with the annotations and their images, whole or not there
"""
