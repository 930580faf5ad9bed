"""Pictures of detectors: what is counted is drawn, and nothing else."""

import numpy as np
import pytest
import torch

from regard.explain import confusion_figure, pr_figure, queries_figure, save_png
from regard.explain.detection_pictures import KINDS, kinds_of
from regard.tasks import PrecisionRecall


def texts(figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_the_confusion_has_every_count_and_name(tmp_path):
    confusion = torch.tensor([[3, 0, 1], [0, 5, 0], [2, 0, 0]])
    figure = confusion_figure(confusion, ("ant", "bee"))
    assert sorted(texts(figure)) == ["1", "2", "3", "5"]
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == ["ant", "bee", "background"]
    save_png(figure, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 3_000


def test_many_classes_are_not_written_out(tmp_path):
    figure = confusion_figure(torch.eye(92, dtype=torch.int64), [f"class {index}" for index in range(91)])
    assert not texts(figure)
    save_png(figure, tmp_path / "a.png")


@pytest.mark.parametrize("count", [0, 1, 30])
def test_precision_and_recall(count, tmp_path):
    recall = np.linspace(0, 1, 101)
    figure = pr_figure(PrecisionRecall(recall, {f"class {i}": 1 - recall / (i + 1) for i in range(count)}))
    lines = figure.axes[0].get_lines()
    assert len(lines) == (min(count, 24) + 1 if count else 0)  # the classes that can be told apart, and the mean
    if count == 1:
        assert lines[-1].get_ydata() == pytest.approx(1 - recall)
    save_png(figure, tmp_path / "a.png")


def test_the_ground_of_a_panel_is_the_pages():
    """Ink that a dark page turns to white would not be seen on white."""
    one = torch.eye(3, dtype=torch.int64)
    recall = np.linspace(0, 1, 101)
    for figure in (
        confusion_figure(one, ("ant", "bee")),
        pr_figure(PrecisionRecall(recall, {"ant": 1 - recall})),
        queries_figure([torch.rand(5, 4)]),
    ):
        assert [axes.patch.get_alpha() for axes in figure.axes] == [0]


def test_a_panel_a_query(tmp_path):
    figure = queries_figure([torch.rand(17, 4) for _ in range(11)])
    assert [axes.get_title() for axes in figure.axes] == [f"query {number}" for number in range(11)]
    assert all(len(axes.collections[0].get_offsets()) == 17 for axes in figure.axes)
    save_png(figure, tmp_path / "a.png")


def test_the_colours_of_boxes_are_those_of_detrs_figure():
    boxes = torch.tensor([[0.1, 0.2, 0.1, 0.1], [0.5, 0.5, 0.6, 0.3], [0.7, 0.4, 0.2, 0.9], [0.5, 0.5, 0.4, 0.4]])
    assert [KINDS[kind] for kind in kinds_of(boxes)] == [
        "small",
        "large horizontal",
        "large vertical",
        "large horizontal",
    ]
    (points,) = queries_figure([boxes]).axes[0].collections
    assert points.get_offsets().data == pytest.approx(boxes[:, :2].numpy())
    green, red, blue, as_red = points.get_facecolors()[:, :3].argmax(1)
    assert (red, green, blue, as_red) == (0, 1, 2, 0)
