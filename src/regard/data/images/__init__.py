"""Images with labels: the journey of one image file to a batch.

walk.py           the image files below a folder, at any depth, and what was passed over
folder.py         finds PATH/CLASS/image.jpg, which becomes sample i; reads its header, not yet its pixels
folder_layout.py  which folders are classes, and which are parts; unlabelled.py: images without classes
csv_table.py      a CSV file as rows, whatever its encoding; csv_rows.py: rows -> files with their labels, and what is
                  odd; csv_classes.py: these as samples, split as the file says, or by seed
torchvision.py, digits.py    the same for torchvision's sets and for scikit-learn's digits
sources.py        `ImageSource`: read(i), labels[i], name(i); `ImageClasses`: a training and a validation split
labels.py         one class, or the classes of a multi-label image; stratify.py: a split of such a set
per_class.py      so many images of each class, drawn by a seed
names.py, doubles.py    class names in one form of Unicode; files with the same bytes, on one side of a split
paths.py          the file that a stated path means
files.py, pixels.py     opens and decodes the file: upright, 8 bits, grey or RGB, uint8 (channels, height, width);
                  or `BadImage`
transforms.py     resizes, crops, in training changes at random, and normalises: float32 (channels, *img_size)
batches.py        `Sample`, or `Skipped` for a bad file; then `Batch`
"""
