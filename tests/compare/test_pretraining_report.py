"""The report of a pre-training: what its features know, and pictures of what it sees."""

import base64
import html as escaping
import io
import json
import re
import shutil
import statistics

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from huggingface_hub import ModelCard
from PIL import Image
from safetensors.torch import load_file

from regard.compare import contender, write_report
from regard.compare.cost import Subject
from regard.compare.label_efficiency import FILE
from regard.compare.newest_state import learner_of, minutes_at, progress_of
from regard.compare.planning import Wishes, make_plan
from regard.compare.pretraining import PretrainingView, paid_sentence
from regard.compare.pretraining_pictures import Pictures, as_bright_as, nearest_by_cosine, spread
from regard.compare.task_views import task_view_of
from regard.errors import RegardError
from regard.losses import normalised_patches
from regard.ops import patches_of
from regard.recipes import load_recipe, parse_recipe
from regard.tasks import create_task
from regard.training import Run, load_classifier, train
from regard.training.model_card import model_card
from regard.weights import read_safetensors

MODEL = {"name": "vit_pico_patch2_8", "img_size": 16, "patch_size": 4, "in_chans": 1, "depth": 1, "embed_dim": 32}


def recipe(tmp=None, *, data="digits", steps=4, train=None, **pretrain):
    """A tiny pre-training; with `tmp` its features are kept there."""
    values = {
        "task": "pretraining",
        "model": MODEL,
        "data": {"address": data},
        "train": {"max_steps": steps, "batch_size": 16, "device": "cpu", "evaluate_every_steps": 2, **(train or {})},
        "pretrain": pretrain,
    }
    return parse_recipe(values if tmp is None else {**values, "features": {"folder": str(tmp / "features")}})


@pytest.fixture(scope="module")
def distilled(tmp_path_factory):
    """A student of a run that knows the digits' classes."""
    tmp = tmp_path_factory.mktemp("distilled")
    settings = ("train.max_steps=2", "train.device=cpu", "model.depth=1", "model.embed_dim=32")
    train(load_recipe("vit-digits", settings), tmp / "teacher")
    weights = {"pooled_weight": 0.7, "pixels_weight": 1.3, "logits_weight": 0.2}
    train(recipe(tmp, teacher=str(tmp / "teacher"), **weights), tmp / "run")
    return tmp / "run"


@pytest.fixture(scope="module")
def masked(tmp_path_factory):
    """A masked autoencoder, whose weights are averaged."""
    path = tmp_path_factory.mktemp("masked") / "run"
    train(recipe(method="mae", train={"ema_decay": 0.5}), path)
    return path


@pytest.fixture(scope="module")
def unlabelled(tmp_path_factory):
    """SimMIM on images in one folder."""
    tmp = tmp_path_factory.mktemp("unlabelled")
    (tmp / "images").mkdir()
    random = np.random.default_rng(0)
    for number in range(30):
        pixels = random.integers(0, 256, (20, 20), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp / "images" / f"image-{number}.png")
    train(recipe(data=f"folder:{tmp / 'images'}", method="simmim", steps=2), tmp / "run")
    return tmp / "run"


@pytest.fixture
def report(tmp_path):
    def write(*runs):
        path = tmp_path / "report.html"
        contenders = [contender(f"{run.parent.name}", [run], with_cost=False) for run in runs]
        write_report(path, title="A report", contenders=contenders)
        return path.read_text(encoding="utf-8")

    return write


def plain(html):
    html = re.sub(r"<(style|script|svg).*?</\1>", " ", html, flags=re.DOTALL)
    return " ".join(escaping.unescape(re.sub(r"<[^>]*>", "", html)).split())


def cells(html, which):
    table = re.search(rf'<table class="{which}".*?</table>', html, re.DOTALL).group()
    return [
        [escaping.unescape(re.sub(r"<[^>]*>", "", cell)) for cell in re.findall(r"<t[hd].*?</t[hd]>", row, re.DOTALL)]
        for row in table.split("</tr>")[:-1]
    ]


def pixels(uri):
    return torch.from_numpy(np.array(Image.open(io.BytesIO(base64.b64decode(uri.partition("base64,")[2])))))


def changed(run, tmp_path):
    """A copy of a run that a test may change."""
    return Run(shutil.copytree(run, tmp_path / run.parent.name / "run"))


def test_a_page_of_distillation_says_what_was_done(distilled, report):
    html = report(distilled)
    text = plain(html)
    for words in (
        "was trained on 1347 images of digits, without labels, for 4 steps, and tested on 450 images that it had not",
        "10 classes, which measure the features; nothing is learned from them",
        "distillation: the student learns what a frozen teacher sees in the images",
        f"{distilled.parent / 'teacher'}, with 10 classes; it sees each training image at 8 × 8 pixels",
        "0.7 × that of the pooled features + 1.3 × that of the patches + 0.2 × T² KL(teacher ‖ student) of the classes",
        "The training used no label; its teacher had learned from some.",
        "the model’s map has 4 × 4 places, the teacher’s 4 × 4",
        "regard pretrain --resume",
        "among 1347",
    ):
        assert words in text
    assert "Began from" not in text
    assert "What it draws in hidden patches" not in text
    assert len(html.encode()) < 300_000
    assert not re.search(r'(src|href)="(?!data:|#)', html)
    assert "<script" not in html


def test_accuracies_against_minutes_are_those_of_the_evaluations(distilled, report):
    run = Run(distilled)
    first, last = [one for one in run.history() if one["kind"] == "val"]
    progress = progress_of(run)
    assert progress.prepared_seconds > 0
    assert minutes_at(progress, 4) == (progress.prepared_seconds + progress.training_seconds) / 60
    assert minutes_at(progress, 2) == (progress.prepared_seconds + progress.training_seconds / 2) / 60
    table = cells(report(distilled), "plain")
    assert table[0] == ["measured by", *(f"after {minutes_at(progress, step):.3g} minutes" for step in (2, 4))]
    assert table[1:] == [
        [words, *(f"{100 * one[name]:.1f}" for one in (first, last))]
        for words, name in (("nearest neighbours", "knn"), ("linear head", "linear"), ("its own head", "accuracy"))
    ]


def test_neighbours_are_those_of_highest_cosine(distilled, report):
    task, classifier = create_task(Run(distilled).recipe()), load_classifier(distilled)
    model, data = classifier.model, task.data

    def features(source):
        images = torch.stack([classifier.prepare(source.read(i)) for i in range(len(source))])
        return F.normalize(model.forward_head(model.forward_features(images), pre_logits=True), dim=1)

    with torch.no_grad():
        similarity = (features(data.val) @ features(data.train).T).double()
    found = Pictures(task, classifier).neighbours()
    assert len(found) == 10
    numbers = spread(len(data.val), 10)
    for one, number in zip(found, numbers, strict=True):
        assert (one.image.name, one.image.label) == (data.val.name(number), str(data.val.labels[number]))
        places = [next(i for i in range(len(data.train)) if data.train.name(i) == n.name) for n in one.nearest]
        assert [n.label for n in one.nearest] == [str(data.train.labels[i]) for i in places]
        values = similarity[number]
        assert torch.allclose(values[places], values.topk(5).values, atol=1e-6)
    html = report(distilled)
    same = sum(near.label == one.image.label for one in found for near in one.nearest)
    assert html.count('<figure class="same">') == same
    assert html.count('<figure class="other">') == 50 - same
    assert html.count("<figcaption") > 60
    assert f"{same} of 50 have the same" in plain(html)
    alts = re.findall(r'<img[^>]* alt="([^"]*)"', html)
    assert len(alts) == html.count("<img") == 60 + 18
    assert f"held-out image {data.val.name(numbers[0])}, {data.val.labels[numbers[0]]}" in alts
    assert all(alts)


def test_nearest_by_cosine_does_not_look_at_lengths():
    known = torch.tensor([[10.0, 0.0], [0.0, 1.0], [0.1, 0.1]])
    assert nearest_by_cosine(known, torch.tensor([[1.0, 1.0], [0.0, 9.0]]), 2)[:, 0].tolist() == [2, 1]
    assert nearest_by_cosine(known, known, 5).shape == (3, 3)


def test_held_out_images_are_spread_over_all():
    assert spread(100, 4) == [12, 37, 62, 87]
    assert spread(3, 10) == [0, 1, 2]
    assert spread(0, 10) == []


def test_each_model_has_its_own_map(distilled):
    task = create_task(Run(distilled).recipe())
    maps = Pictures(task, load_classifier(distilled)).maps()
    assert len(maps) == 6
    assert {tuple(pixels(one.student).shape) for one in maps} == {(4, 4, 3)}
    assert {tuple(pixels(one.teacher).shape) for one in maps} == {(4, 4, 3)}
    assert all(one.student != one.teacher for one in maps)
    assert len({one.student for one in maps}) == 6
    again = Pictures(task, load_classifier(distilled)).maps()
    assert again == maps


def test_what_was_visible_stays_in_the_drawing(masked, report):
    task = create_task(Run(masked).recipe())
    drawings = Pictures(task, load_classifier(masked)).drawings(learner_of(Run(masked), task))
    assert len(drawings) == 5
    for one in drawings:
        image, visible, drawn = (pixels(uri) for uri in (one.image.uri, one.visible, one.drawn))
        patches = [patches_of(seen.permute(2, 0, 1)[None].float(), 4)[0] for seen in (image, visible, drawn)]
        hidden = (patches[1] == 127).all(1)
        assert hidden.sum() == 12  # 75% of 16
        assert torch.equal(patches[0][~hidden], patches[1][~hidden])
        assert torch.equal(patches[0][~hidden], patches[2][~hidden])
        assert not torch.equal(patches[0][hidden], patches[2][hidden])
        # Each patch has the true one's mean, but for what is cut off at black and white.
        assert (patches[0].mean(1) - patches[2].mean(1)).abs().max() < 40
    text = plain(report(masked))
    assert "MAE: the model gets the visible patches alone" in text
    assert "the true patch’s mean and deviation are put back here" in text
    assert "75% of them, each with a mean of 0 and a deviation of 1" in text


def test_the_mean_and_the_deviation_of_a_patch_return():
    torch.manual_seed(0)
    true = 3 * torch.randn(2, 5, 16) + 7
    torch.testing.assert_close(as_bright_as(normalised_patches(true), true), true, atol=1e-4, rtol=1e-4)


def test_the_learner_is_the_model_that_was_saved(masked, unlabelled):
    for path in (masked, unlabelled):
        run = Run(path)
        learner = learner_of(run, create_task(run.recipe()))
        saved = read_safetensors(run.weights_file)
        own = learner.vit.state_dict()
        assert own.keys() == saved.keys()
        assert all(torch.equal(own[name], saved[name]) for name in own)
        assert not learner.training
    state = load_file(next(masked.glob("state/step-*")) / "model.safetensors")
    learner = learner_of(Run(masked), create_task(Run(masked).recipe()))
    assert not torch.equal(learner.decoder_head.weight, state["decoder_head.weight"])  # it is the average's


def test_a_page_without_labels_says_what_they_would_show(unlabelled, report):
    html = report(unlabelled)
    text = plain(html)
    for words in (
        "With labels (class folders, or csv:PATH) this would be a chart",
        "22 images of folder:",
        "mean absolute difference in the hidden patches (60% of them)",
        "SimMIM: mask tokens stand for the hidden patches",
        "Held-out images; what is left of them when 60% of the patches are hidden",
    ):
        assert words in text
    assert "label-efficiency" not in text
    assert "put back" not in text
    assert 'class="same"' not in html
    assert 'class="other"' not in html
    assert "have the same" not in text
    assert re.search(r"neighbour 1, training image image-\d+\.png\"", html)


def test_without_states_a_page_has_no_drawings_and_epochs(masked, tmp_path, report):
    run = changed(masked, tmp_path)
    shutil.rmtree(run.path / "state")
    html = report(run.path)
    assert "only a state holds its decoder" in plain(html)
    assert cells(html, "plain")[0][1].endswith(" epochs")
    assert "The run’s states were deleted" in plain(html)
    with pytest.raises(RegardError, match="is gone, and with it the decoder"):
        learner_of(run, create_task(run.recipe()))
    assert progress_of(run) is None


def test_a_damaged_state_costs_the_drawings_alone(masked, tmp_path, report):
    run = changed(masked, tmp_path)
    next(run.path.glob("state/step-*/average.safetensors")).write_bytes(b"damaged")
    text = plain(report(run.path))
    assert "average.safetensors is not as it was written" in text
    assert "Feature maps" in text


def efficiency(**changes):
    curves = [
        {"name": "pre-trained", "scores": [[0.5, 0.25, 0.75], [0.9, 0.8, 0.85]]},
        {"name": "from scratch", "scores": [[0.1, 0.2, 0.3], [0.4, 0.4, 0.4]]},
        {"name": "linear head on /some/where/teacher", "scores": [[0.3, 0.3, 0.3], [0.6, 0.6, 0.6]]},
    ]
    steps = {"1": 100, "10": 250}
    return {"labels": [1, 10], "draws": 3, "steps": steps, "seconds": 90.0, "curves": curves, **changes}


def test_label_efficiency_is_a_chart_and_a_table(distilled, tmp_path, report):
    run = changed(distilled, tmp_path)
    (run.path / FILE).write_text(json.dumps(efficiency()), encoding="utf-8")
    html = report(run.path)
    assert cells(html, "plain efficiency") == [
        ["labels a class", "1", "10"],
        ["pre-trained", "50.025.0–75.0", "85.080.0–90.0"],
        ["from scratch", "20.010.0–30.0", "40.040.0–40.0"],
        ["linear head on /some/where/teacher", "30.030.0–30.0", "60.060.0–60.0"],
    ]
    text = plain(html)
    assert "the least and the largest of 3 draws. The trainings had 100, 250 steps. All of it took 1.5 minutes." in text
    assert "--label-efficiency" not in text
    figure = re.search(r'<figure role="img" aria-label="Accuracy against labels a class.*?</figure>', html, re.DOTALL)
    assert f"pre-trained: {100 * statistics.median([0.5, 0.25, 0.75]):.1f} with 1" in figure.group()
    assert "linear head on" in figure.group()
    assert "/some/where" not in figure.group().partition(">")[2]


@pytest.mark.parametrize(
    ("contents", "reason"),
    [
        ({"scores": {}, "seconds": 3.0}, "the measurement did not end"),
        (efficiency(labels=[1]), "each needs a list of draws for each of 1 numbers of labels"),
        (efficiency(labels="many"), "labels: Input should be a valid list"),
        (efficiency(curves=[]), "at least one of each"),
        ([1], "Input should be"),
    ],
)
def test_a_file_of_label_efficiency_that_is_not_whole_is_told(distilled, tmp_path, report, contents, reason):
    run = changed(distilled, tmp_path)
    (run.path / FILE).write_text(json.dumps(contents), encoding="utf-8")
    text = plain(report(run.path))
    assert f"{FILE}: " in text
    assert reason in text
    assert "Nearest neighbours" in text


def test_whether_it_paid_is_a_sentence():
    found = {"linear_before": 0.5, "linear_after": 0.75, "won": 30, "lost": 5, "p": 0.001, "verdict": "paid"}
    assert paid_sentence(None, None) == ""
    assert paid_sentence("a-run", None) == "It began from a-run: without labels nobody can tell whether it paid."
    assert paid_sentence("a-run", found) == (
        "It began from a-run: a linear head on the features finds 0.500 of the classes before and 0.750 now (30 images "
        "won, 5 lost, p = 0.001): it paid."
    )


def test_a_run_that_begins_from_another_says_whether_it_paid(masked, tmp_path, report):
    train(recipe(teacher="self", start=str(masked), steps=2), tmp_path / "run")
    text = plain(report(tmp_path / "run"))
    assert f"It began from {masked}: a linear head on the features finds" in text
    assert re.search(rf"Began from ?{re.escape(str(masked))} ", text)
    assert "self-distillation: the student sees a part of each image" in text
    assert "Huber’s function of the differences in the hidden patches" in text


def test_two_runs_have_one_page(distilled, masked, report):
    html = report(distilled, masked)
    assert html.count('<ol class="neighbours">') == 2
    assert "What it draws in hidden patches" in html


def test_its_cost_can_be_measured(masked):
    subject = Subject(masked)
    subject.infer()
    subject.step()
    assert subject.model.num_classes == 0


def test_pre_trainings_are_not_compared_by_their_losses():
    with pytest.raises(RegardError, match="losses of pre-trainings cannot be compared; compare classifiers that begin"):
        make_plan(recipe(method="mae"), ["attention", "conv"], Wishes(seeds=2))


def test_its_card_on_the_hub(masked):
    card = ModelCard(model_card(Run(masked), "somebody/mine", license="mit"))
    assert card.data.pipeline_tag == "image-feature-extraction"
    assert {one.metric_name for one in card.data.eval_results} == {
        "accuracy of the 20 nearest neighbours",
        "accuracy of a linear head on the features",
    }
    assert 'features = model.model(model.prepare("picture.png")[None])' in card.text


def test_the_view_is_of_pretraining(masked):
    view = task_view_of(create_task(Run(masked).recipe()))
    assert isinstance(view, PretrainingView)
    assert view.num_held_out is None
