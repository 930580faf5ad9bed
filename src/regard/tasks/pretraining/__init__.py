"""Pre-training: images teach a model before anybody has named a class.

The journey of a step, from images to a loss:

    task.py         the data, the student, and which of the ways below teaches it; what a trained student is used with
    teacher.py      a name of the catalogue or a run -> a frozen model with its preprocessing and classes
    distill.py      views of the images -> the teacher's features of them, from the store -> the loss of distillation
    masked.py       images with hidden patches -> the loss of MAE and SimMIM; a moving average as the teacher
    batches.py      images, and what is to be learned of them, in batches
    evaluation.py   held-out images -> the loss, and with labels nearest neighbours and a linear head on the features
    paid.py         a run that began from weights -> whether it made them better
    memory.py       what a training will take, said before it starts
"""
