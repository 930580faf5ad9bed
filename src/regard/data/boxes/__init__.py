"""Images with boxes: the journey of one annotation from its file to a batch.

coco_json.py      the JSON file, read into columns: annotation 7 is row 7 of `boxes_xywh`, whatever stands there
coco.py           columns -> the `Objects` of each image: boxes clipped to it, labels counted from 0
yolo.py, voc.py   the same from text files and from XML; digit_scenes.py makes its own images and boxes
sources.py        `DetectionSource`: image i and its `Objects`; `DetectionData`: a training and a validation split
cache.py          a source whose large images are resized, and one whose decoded images stay in memory
mosaic.py         in training alone: an image enlarged, reduced, or in a mosaic of four, and its boxes likewise
transforms.py     resized, flipped, cropped, normalised; boxes in pixels of the image that the model sees
batches.py        `DetectionSample`: no crowds, boxes as (cx, cy, w, h) in [0, 1];
                  `DetectionBatch`: padded images, and a mask of the pixels that are no padding
"""
