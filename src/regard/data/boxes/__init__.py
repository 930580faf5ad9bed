"""Images with boxes: the journey of one annotation from its file to a batch.

coco_layout.py    where the files of each part lie, and the folders that their images may be in
coco_lists.py     the JSON file and its three lists; coco_values.py: what one value of it means, as exports write it
coco_json.py      the lists, read into columns: annotation 7 of those that can be read is row 7 of `boxes_xywh`
coco.py           columns -> the `Objects` of each image: boxes clipped to it, labels counted from 0
yolo.py, voc.py   the same from text files (yolo_config.py: their data.yaml) and from XML;
                  digit_scenes.py makes its own images and boxes
fix_coco.py       what was read, written so that nothing has to be said of it
sources.py        `DetectionSource`: image i and its `Objects`; `DetectionData`: a training and a validation split
cache.py          a source whose large images are resized, and one whose decoded images stay in memory
mosaic.py         in training alone: an image enlarged, reduced, or in a mosaic of four, and its boxes likewise
transforms.py     resized, flipped, cropped, normalised; boxes in pixels of the image that the model sees
batches.py        `DetectionSample`: no crowds, boxes as (cx, cy, w, h) in [0, 1];
                  `DetectionBatch`: padded images, and a mask of the pixels that are no padding
"""
