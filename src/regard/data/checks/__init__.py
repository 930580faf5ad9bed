"""Checks of opened data: issues, and a summary of how much data there is. They open nothing.

issue.py             `Issue`: an error or a warning, what is wrong, and where
images.py, texts.py  images with labels; pairs of texts, and running text
boxes.py             images with boxes, by way of box_geometry.py (boxes that cannot be right), coco_ids.py (ids
                     that repeat or lead nowhere) and image_files.py (missing, unreadable, of another size)
suspect_images.py    `Suspect`: an image that should be looked at, and its picture
"""
