"""Images with several classes: figures against scikit-learn, thresholds, and the classifier in use."""

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    f1_score,
    multilabel_confusion_matrix,
    precision_recall_curve,
    precision_score,
    recall_score,
)

from regard.data import ImageSource, InMemoryImages, Preprocessing
from regard.errors import RegardError
from regard.tasks import Classifier, Evaluation, LabelThresholds, MultiLabelEvaluation
from regard.tasks.classification.calibration import held_for_thresholds, measured_thresholds
from regard.tasks.features.logistic_regression import logistic_regression

NAMES = ("cat", "dog", "bird")


def evaluation(images: int = 200, thresholds=(0.3, 0.5, 0.8), seed: int = 0) -> MultiLabelEvaluation:
    """Logits that say something about the labels, of unequal classes."""
    torch.manual_seed(seed)
    labels = (torch.rand(images, 3) < torch.tensor([0.5, 0.2, 0.1])).long()
    logits = 2 * labels + 1.5 * torch.randn(images, 3) - 1
    return MultiLabelEvaluation(logits, labels, tuple(map(str, range(images))), NAMES, (), thresholds)


def test_the_figures_are_scikit_learns():
    found = evaluation()
    truth, predicted, p = found.labels.numpy(), found.predicted.numpy(), found.logits.double().sigmoid().numpy()
    assert np.array_equal(predicted, p >= [0.3, 0.5, 0.8])
    metrics = found.metrics()
    assert metrics["map"] == pytest.approx(average_precision_score(truth, p, average="macro"))
    assert metrics["f1"] == pytest.approx(f1_score(truth, predicted, average="macro"))
    assert metrics["exact_match"] == (truth == predicted).all(1).mean()
    loss = -(truth * np.log(p) + (1 - truth) * np.log(1 - p)).mean()
    assert metrics["loss"] == pytest.approx(loss)
    assert np.array_equal(found.confusion().numpy(), multilabel_confusion_matrix(truth, predicted))
    rows = found.details()["per_class"]
    assert [row["name"] for row in rows] == list(NAMES)
    assert [row["images"] for row in rows] == truth.sum(0).tolist()
    assert [row["threshold"] for row in rows] == [0.3, 0.5, 0.8]
    for name, theirs in (("f1", f1_score), ("precision", precision_score), ("recall", recall_score)):
        assert [row[name] for row in rows] == pytest.approx(theirs(truth, predicted, average=None).tolist())
    assert [row["ap"] for row in rows] == pytest.approx(average_precision_score(truth, p, average=None).tolist())


def test_a_class_that_no_image_has_is_left_out():
    found = evaluation()
    found.labels[:, 2] = 0
    rows = found.per_class()
    assert (rows[2].images, rows[2].ap) == (0, None)
    assert found.metrics()["map"] == pytest.approx((rows[0].ap + rows[1].ap) / 2)
    found.labels.zero_()
    assert np.isnan(found.metrics()["map"])


def test_numbers_that_are_not_finite_are_named_and_count_as_wrong():
    found = evaluation(40)
    found.logits[3, 1] = float("nan")
    assert found.not_finite == ("3",)
    assert np.isnan(found.metrics()["loss"])
    assert 0 < found.metrics()["map"] < 1


def test_the_surest_errors_come_first():
    logits = torch.tensor([[5.0, -5.0], [2.0, 4.0], [-1.0, -6.0], [3.0, -3.0]])
    labels = torch.tensor([[1, 0], [1, 0], [1, 1], [1, 0]])
    found = MultiLabelEvaluation(logits, labels, tuple("abcd"), ("cat", "dog"), (), (0.5, 0.5))
    assert found.mistakes() == [2, 1]


def test_shards_join():
    whole = evaluation(30)
    parts = [
        MultiLabelEvaluation(whole.logits[i::2], whole.labels[i::2], whole.names[i::2], NAMES, ("x",), whole.thresholds)
        for i in range(2)
    ]
    joined = Evaluation.joined(parts)
    assert isinstance(joined, MultiLabelEvaluation)
    assert joined.metrics() == pytest.approx(whole.metrics())
    assert joined.skipped == ("x", "x")


def test_thresholds_have_the_largest_f1_and_rare_classes_share_one():
    found = evaluation(150, seed=1)
    found.labels[5:, 2] = 0
    measured = measured_thresholds(found)
    p, truth = found.probabilities.numpy(), found.labels.numpy()
    for index in range(2):
        precision, recall, thresholds = precision_recall_curve(truth[:, index], p[:, index])
        f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
        assert f1_score(truth[:, index], p[:, index] >= measured.thresholds[index]) == pytest.approx(f1.max())
        assert measured.thresholds[index] in thresholds
    assert measured.pooled == ("bird",)
    assert measured.thresholds[2] == measured.threshold
    every = [f1_score(truth.ravel(), p.ravel() >= t) for t in np.unique(p)]
    assert f1_score(truth.ravel(), p.ravel() >= measured.threshold) == pytest.approx(max(every))
    assert (measured.images, measured.source) == (150, "measured")
    assert LabelThresholds.from_dict(measured.to_dict(), NAMES, "here") == measured
    assert "1 of 3 classes, in fewer than 10, take" in str(measured)


def test_with_too_few_labels_the_threshold_is_a_half():
    found = measured_thresholds(evaluation(12))
    assert (found.thresholds, found.source, found.images) == ((0.5, 0.5, 0.5), "default", 12)
    assert found.pooled == NAMES
    assert str(found).startswith("probability 0.5 by default")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"thresholds": {"cat": 0.5}}, "a number for each class"),
        ({"thresholds": {"cat": 0.5, "dog": 2, "bird": 0.1}}, "'dog' must be from 0 to 1, got 2"),
        ({"threshold": None}, "'threshold' must be from 0 to 1"),
        ({"pooled": ["fish"]}, "pooled must be names of classes"),
        ({"images": -1}, "images must be a whole number"),
        ({"source": "guessed"}, "source must be measured or default"),
    ],
)
def test_damaged_thresholds_are_an_error(change, said):
    values = {**LabelThresholds.default(NAMES).to_dict(), **change}
    with pytest.raises(RegardError, match=f"^here: calibration.*{said}"):
        LabelThresholds.from_dict(values, NAMES, "here")


class Many(ImageSource):
    """Nothing but labels."""

    def __init__(self, labels):
        self.labels, self.num_classes = labels, 3

    def read(self, index):
        raise AssertionError

    def name(self, index):
        return str(index)


def test_what_thresholds_are_measured_on_is_held_out_of_training():
    source = Many(tuple((index % 3,) for index in range(300)))
    kept, held, number = held_for_thresholds(source, 0.1, 5, "here")
    assert number == len(held) == 30
    assert sorted([kept.name(i) for i in range(270)] + [held.name(i) for i in range(30)], key=int) == [
        str(index) for index in range(300)
    ]
    assert kept.num_classes == held.num_classes == 3
    assert held_for_thresholds(source, 0.0, 5, "here") == (source, None, 0)
    few = Many(tuple((index % 3,) for index in range(60)))
    assert held_for_thresholds(few, 0.1, 5, "here") == (few, None, 6)


class Brightness(torch.nn.Module):
    """Logits that follow from an image's mean."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor([4.0, -4.0, 1.0]))

    def forward(self, images):
        return self.scale * images.mean((1, 2, 3), keepdim=True)[:, :, 0, 0]


@pytest.fixture
def classifier() -> Classifier:
    pre = Preprocessing((4, 4), 1, (0.5,), (0.5,), "bilinear", 1.0)
    return Classifier(Brightness(), NAMES, pre, LabelThresholds(NAMES, (0.6, 0.9, 0.7), 0.5, (), 9, "measured"))


def test_a_prediction_has_the_classes_that_are_probable_enough(classifier):
    bright, dark, middle = (Image.new("L", (4, 4), value) for value in (255, 0, 128))
    found = classifier([bright, dark, middle])
    assert [one.labels for one in found] == [("cat", "bird"), ("dog",), ()]
    assert found[0].class_names == ("cat", "bird", "dog")
    assert found[0].probabilities == pytest.approx([0.98201, 0.73106, 0.01799], abs=1e-4)
    assert found[0].thresholds == (0.6, 0.7, 0.9)
    assert found[0].label == "cat"
    assert found[0].top(2) == [("cat", found[0].score), ("bird", found[0].probabilities[1])]
    assert classifier(middle, threshold=0.4).labels == ("cat", "bird", "dog")
    assert classifier(bright, threshold=0.8).labels == ("cat",)
    assert found[0]._repr_html_().count("✓") == 2
    with pytest.raises(RegardError, match="threshold is 2; it must be a number between 0 and 1"):
        classifier(bright, threshold=2)
    with pytest.raises(RegardError, match="threshold is 'high'; it must be auto, or a number"):
        classifier(bright, threshold="high")


def test_one_class_for_each_image_is_as_before(classifier):
    one = Classifier(Brightness(), NAMES, classifier.preprocessing)
    found = one(Image.new("L", (4, 4), 255))
    assert (found.labels, found.thresholds) == (("cat",), None)
    assert sum(found.probabilities) == pytest.approx(1.0)
    with pytest.raises(RegardError, match="threshold is for models whose images may have several classes"):
        one(Image.new("L", (4, 4)), threshold=0.5)


def test_data_of_one_class_an_image_are_measured_as_rows(classifier):
    images = torch.tensor([255, 0, 255], dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 4, 4)
    found = classifier.evaluate(InMemoryImages(images, (1, 0, 1), "x"), class_names=("dog", "cat"))
    assert isinstance(found, MultiLabelEvaluation)
    assert found.labels.tolist() == [[1, 0, 0], [0, 1, 0], [1, 0, 0]]
    assert found.per_class()[0].recall == 1.0
    with pytest.raises(RegardError, match="classes that the model does not know: fish"):
        classifier.evaluate(InMemoryImages(images, (1, 0, 1), "x"), class_names=("dog", "fish"))
    source = InMemoryImages(images, (1, 0, 1), "x")
    source.labels, source.num_classes = ((0, 1), (), (1,)), 2
    assert classifier.evaluate(source, class_names=("dog", "cat")).labels.tolist() == [[1, 1, 0], [0, 0, 0], [1, 0, 0]]
    one = Classifier(Brightness(), NAMES, classifier.preprocessing)
    with pytest.raises(RegardError, match="the images have several labels, and the model was trained to give one"):
        one.evaluate(source, class_names=("dog", "cat"))


def test_balanced_accuracy_is_scikit_learns():
    torch.manual_seed(3)
    labels = torch.tensor([0] * 60 + [1] * 9 + [3] * 3)
    logits = torch.randn(72, 4) + 1.5 * torch.nn.functional.one_hot(labels, 4)
    logits[:, 2] = -9.0  # a class without images, which is never predicted
    found = Evaluation(logits, labels, tuple(map(str, range(72))), ("a", "b", "c", "d"))
    details = found.details()
    assert details["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, found.predicted))
    assert [row["images"] for row in details["per_class"]] == [60, 9, 0, 3]
    assert [row["recall"] for row in details["per_class"]] == pytest.approx(
        recall_score(labels, found.predicted, labels=range(4), average=None, zero_division=0).tolist()
    )
    logits[0] = float("nan")
    assert found.details()["balanced_accuracy"] <= details["balanced_accuracy"]


@pytest.mark.parametrize("weighted", [False, True])
def test_the_solved_head_is_scikit_learns_with_weights_and_with_several_labels(weighted):
    from regard.losses import balanced_weights

    torch.manual_seed(0)
    labels = torch.tensor([0] * 150 + [1] * 30 + [2] * 8)
    features = torch.randn(188, 6) + 0.8 * torch.randn(3, 6)[labels]
    how = "balanced" if weighted else None
    weights = balanced_weights(labels, 3) if weighted else None
    weight, bias = logistic_regression(features, labels, 3, weights=weights)
    theirs = LogisticRegression(max_iter=5000, tol=1e-8, class_weight=how).fit(features.numpy(), labels.numpy())
    wanted = torch.tensor(theirs.predict_proba(features.numpy())).float()
    torch.testing.assert_close((features @ weight.T + bias).softmax(1), wanted, rtol=0, atol=2e-3)
    having = (features[:, :3] + 0.5 * torch.randn(188, 3) > torch.tensor([0.0, 1.0, 1.8])).long()
    weights = balanced_weights(having, 3) if weighted else None
    weight, bias = logistic_regression(features, having, 3, weights=weights)
    for index in range(3):
        one = LogisticRegression(max_iter=5000, tol=1e-8, class_weight=how).fit(features.numpy(), having[:, index])
        wanted = torch.tensor(one.predict_proba(features.numpy())[:, 1]).float()
        torch.testing.assert_close((features @ weight[index] + bias[index]).sigmoid(), wanted, rtol=0, atol=2e-3)
