"""Features of frozen models: computed once for each image and view, kept on the disk, shared by tasks and runs.

extract.py      `FrozenFeatures`: a frozen model, its images as jobs, and batches of what is missing
store.py        `FeatureStore`: one file for each key, bounded in size, safe under kills and several processes
pooled.py       vectors: what a classifier's head reads, for all images of a source
neighbours.py   vectors compared: the nearest images' classes
logistic_regression.py    the best linear head on them
"""
