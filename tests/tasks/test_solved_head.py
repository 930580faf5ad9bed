"""A head that begins as logistic regression on the features of a model which then learns as a whole."""

import torch
from torch.testing import assert_close

from regard.data import evaluation_transform
from regard.recipes import load_recipe
from regard.tasks import ClassificationTask
from regard.tasks.features.logistic_regression import logistic_regression

SETTINGS = ("model.depth=1", "train.batch_size=8", "data.per_class=7", "model.drop_path=0.1")


def begun(*settings):
    torch.manual_seed(0)
    task = ClassificationTask(load_recipe("vit-digits", [*SETTINGS, *settings]))
    model = task.build_model()
    before = model.head.weight.detach().clone()
    next(iter(task.training_loader(task.order(rank=0, world_size=1))))
    return task, model, before


def test_the_head_is_the_best_one_on_the_features_of_the_training_images():
    task, model, before = begun("train.solve_head=true")
    prepare = evaluation_transform(task.preprocessing)
    images = torch.stack([prepare(task.train.read(index)) for index in range(len(task.train))])
    was_training = model.training
    with torch.no_grad():
        features = model.eval().forward_head(model.forward_features(images), pre_logits=True)
    weight, bias = logistic_regression(features, torch.tensor(task.train.labels), 10)
    assert_close(model.head.weight, weight, rtol=1e-3, atol=1e-4)
    assert_close(model.head.bias, bias, rtol=1e-3, atol=1e-4)
    assert not torch.equal(model.head.weight, before)
    assert was_training
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_without_the_key_the_head_stays():
    _, model, before = begun()
    assert torch.equal(model.head.weight, before)
