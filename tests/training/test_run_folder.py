"""What a run leaves behind, and what the loop does with each option."""

import json
import math
import sys
import threading
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from regard.errors import RegardError
from regard.files import remove_leftovers
from regard.mixers import MIXERS
from regard.models import build
from regard.recipes import load_recipe, read_recipe
from regard.training import Bar, Run, default_run_folder, load_classifier, train
from regard.training.metrics_log import MetricsLog

# Loss of the first ten steps of `vit-digits` with seed 0 and batches of 64.
GOLDEN_LOSSES = [2.387026, 2.483897, 2.60666, 2.371522, 2.351575, 2.358012, 2.252335, 2.259922, 2.178144, 2.194552]


TINY = (
    *("model.depth=1", "model.embed_dim=16", "model.num_heads=2", "train.batch_size=64", "train.device=cpu"),
    "train.evaluate_every=1",  # however long it takes
)


def losses(run: Run) -> list[float]:
    return [record["loss"] for record in run.history() if record["kind"] == "train"]


def weights(run: Run) -> dict[str, torch.Tensor]:
    return load_file(run.weights_file)


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], *, rtol: float = 0.0, atol: float = 0.0) -> None:
    assert a.keys() == b.keys()
    for name, tensor in a.items():
        torch.testing.assert_close(tensor, b[name], rtol=rtol, atol=atol, msg=lambda text, name=name: f"{name}: {text}")


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> dict[str, torch.Tensor]:
    """The weights of the run without any option."""
    folder = tmp_path_factory.mktemp("plain") / "run"
    train(load_recipe("vit-digits", [*TINY, "train.max_steps=6"]), folder)
    return weights(Run(folder))


@pytest.mark.shape_checks
def test_the_folder_and_its_summary(trained, recipe):
    run = trained("run", "seed=5", "train.max_steps=45", "train.evaluate_every=2")
    names = {path.name for path in run.path.iterdir()}
    expected = {"recipe.toml", "metadata.json", "model.safetensors", "best.safetensors", "metrics.jsonl"}
    assert names - {"tensorboard"} == expected | {"summary.json", "state"}
    assert {path.name for path in (run.path / "state").iterdir()} == {"latest", "step-45"}
    resolved = recipe("seed=5", "train.max_steps=45", "train.evaluate_every=2")
    assert run.recipe() == resolved.model_copy(update={"claim": None})

    summary = json.loads(run.summary_file.read_text(encoding="utf-8"))
    assert summary == run.summary()
    wanted = {"accuracy", "top5", "loss", "seconds", "steps", "images_per_second", "peak_memory_mb", "parameters"}
    assert wanted | {"versions", "machine", "seed", "processes"} <= summary.keys()
    assert summary["steps"] == 45
    assert summary["seed"] == 5
    assert summary["processes"] == 1
    assert summary["skipped_images"] == 0
    assert summary["parameters"] == sum(tensor.numel() for tensor in weights(run).values()) == 3818
    assert summary["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert summary["machine"]["cores"] >= 1
    assert 10 < summary["peak_memory_mb"] < 1e5
    assert 0 < summary["seconds"] < 900
    assert 0 < 45 * 64 / summary["images_per_second"] <= summary["seconds"] + 0.01
    assert 0 <= summary["accuracy"] <= summary["top5"] <= 1

    # 1,347 images to train on are 21 batches of 64; every second epoch is evaluated, and the end.
    evaluations = [record for record in run.history() if record["kind"] == "val"]
    assert [record["step"] for record in evaluations] == [42, 45]
    assert evaluations[-1].keys() == {"kind", "step", "epoch", "accuracy", "top5", "loss"}
    assert {key: evaluations[-1][key] for key in ("accuracy", "top5", "loss")} == {
        key: summary[key] for key in ("accuracy", "top5", "loss")
    }
    steps = [record for record in run.history() if record["kind"] == "train"]
    assert [record["step"] for record in steps] == list(range(1, 46))
    assert steps[20].keys() == {"kind", "step", "epoch", "loss", "lr", "grad_norm"}
    assert steps[20]["epoch"] == 1.0
    best = max(evaluations, key=lambda record: record["accuracy"])
    assert summary["best"] == {"accuracy": best["accuracy"], "step": best["step"]}


def test_metadata_are_enough_to_predict(trained):
    run = trained("run")
    metadata = run.metadata()
    assert metadata["class_names"] == list("0123456789")
    assert metadata["model"]["config"]["num_classes"] == 10
    assert metadata["preprocessing"]["img_size"] == [8, 8]
    assert metadata["versions"]["torch"] == run.summary()["versions"]["torch"]
    classifier = load_classifier(run.path)
    same(classifier.model.state_dict(), weights(run))
    assert not classifier.model.training


def test_last_and_best_are_apart(trained, monkeypatch):
    scores = iter([0.2, 0.9, 0.5, 0.4, 0.1, 0.3])
    monkeypatch.setattr(
        "regard.tasks.ClassificationTask.metrics", lambda self, shares: {"accuracy": next(scores), "loss": 1.0}
    )
    constant = ("train.warmup=0", "train.final_lr=1")
    run = trained("run", "train.max_steps=84", *constant)
    assert [record["step"] for record in run.history() if record["kind"] == "val"] == [21, 42, 63, 84]
    assert run.summary()["best"] == {"accuracy": 0.9, "step": 42}
    assert run.summary()["accuracy"] == 0.4
    half = trained("half", "train.max_steps=42", *constant)
    same(load_file(run.best_file), weights(half))
    assert not torch.equal(weights(run)["head.weight"], weights(half)["head.weight"])
    same(load_classifier(run.path, weights="best").model.state_dict(), weights(half))


def test_of_equal_evaluations_the_first_is_the_best(trained, monkeypatch):
    monkeypatch.setattr(
        "regard.tasks.ClassificationTask.metrics", lambda self, shares: {"accuracy": 0.5, "top5": 0.5, "loss": 1.0}
    )
    run = trained("run", "train.max_steps=50")
    assert run.summary()["best"] == {"accuracy": 0.5, "step": 21}


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        (["train.max_steps=50"], [21, 42, 50]),
        (["train.max_steps=50", "train.save_every_steps=20"], [20, 40, 50]),
        (["train.max_steps=21"], [21]),
    ],
)
def test_states_are_saved_when_asked_for(recipe, tmp_path, monkeypatch, settings, steps):
    from regard.training.state import State

    saved = []
    save = State.save

    def record(self, progress):
        save(self, progress)
        saved.append(progress.step)
        assert self.latest == tmp_path / "run" / "state" / f"step-{progress.step}"
        assert [path.name for path in self.folder.glob("step-*")] == [f"step-{progress.step}"]

    monkeypatch.setattr(State, "save", record)
    train(recipe(*settings), tmp_path / "run")
    assert sorted(set(saved)) == steps


def test_ten_steps_give_the_golden_losses(tmp_path):
    recipe = load_recipe("vit-digits", ["train.max_steps=10", "train.batch_size=64", "train.device=cpu"])
    train(recipe, tmp_path / "run")
    found = losses(Run(tmp_path / "run"))
    torch.testing.assert_close(found, GOLDEN_LOSSES, rtol=1e-3, atol=0)


def test_the_same_recipe_gives_the_same_run(trained, compare_runs):
    one, two, other = trained("one"), trained("two"), trained("three", "seed=1")
    compare_runs(one.path, two.path)
    assert losses(one) != losses(other)


@pytest.mark.parametrize(
    "settings",
    [
        ["train.label_smoothing=0.1"],
        ["augment.mixup=0.4"],
        ["augment.cutmix=1.0"],
        ["augment.mixup=0.4", "augment.cutmix=1.0"],
        ["augment.rand_augment=2"],
        ["augment.flip=true", "augment.crop_scale=0.6", "augment.erase=0.5"],
        ["model.drop_path=0.5", "model.depth=2"],
        ["train.precision=bf16"],
        ["train.ema_decay=0.9"],
    ],
    ids=lambda settings: settings[0],
)
def test_an_option_changes_the_training_and_is_deterministic(trained, plain, settings, compare_runs):
    one, two = trained("one", *settings), trained("two", *settings)
    compare_runs(one.path, two.path)
    assert not torch.equal(weights(one)["head.weight"], plain["head.weight"])
    assert all(map(math.isfinite, losses(one)))


@pytest.mark.parametrize("rand_augment", [0, 2])
def test_workers_do_not_change_what_is_trained(trained, compare_runs, rand_augment):
    settings = (f"augment.rand_augment={rand_augment}", "train.max_steps=3")
    compare_runs(trained("none", *settings).path, trained("two", *settings, "data.num_workers=2").path)


def test_accumulation_changes_nothing(trained):
    # Without the bias of keys, whose gradient is zero but for rounding, which Adam then makes large.
    exact = "model.mixer_options.attention.qkv_bias=false"
    whole, parts = trained("whole", exact), trained("parts", exact, "train.accumulate=4")
    torch.testing.assert_close(losses(parts), losses(whole), rtol=1e-5, atol=0)
    same(weights(parts), weights(whole), rtol=1e-4, atol=1e-5)
    norms = [[r["grad_norm"] for r in run.history() if r["kind"] == "train"] for run in (whole, parts)]
    torch.testing.assert_close(norms[1], norms[0], rtol=1e-4, atol=0)


def test_a_batch_that_cannot_be_cut_is_an_error(recipe, tmp_path):
    with pytest.raises(RegardError, match="batch_size 64 cannot be cut into 3 equal micro-batches"):
        train(recipe("train.accumulate=3"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_checkpointing_changes_nothing(trained):
    plain = trained("plain", "model.drop_path=0.2")
    less = trained("less", "model.drop_path=0.2", "train.gradient_checkpointing=true")
    torch.testing.assert_close(losses(less), losses(plain), rtol=1e-6, atol=0)
    same(weights(less), weights(plain), rtol=1e-5, atol=1e-6)


def test_checkpointing_recomputes_the_blocks(recipe, monkeypatch):
    from regard.tasks import create_task

    calls = []
    model = create_task(recipe("train.gradient_checkpointing=true")).build_model()
    model.blocks[0].register_forward_pre_hook(lambda *_: calls.append(1))
    model(torch.rand(2, 1, 8, 8)).sum().backward()
    assert len(calls) == 2


def test_bf16_computes_in_bf16_and_keeps_float32_weights(recipe, trained, monkeypatch):
    from regard.layers import Block

    seen = set()
    forward = Block.forward

    def record(self, x, **inputs):
        out = forward(self, x, **inputs)
        if torch.is_grad_enabled():
            seen.add(self.mlp.fc1(x).dtype)
        return out

    monkeypatch.setattr(Block, "forward", record)
    run = trained("run", "train.precision=bf16")
    assert seen == {torch.bfloat16}
    assert {tensor.dtype for tensor in weights(run).values()} == {torch.float32}


def test_clipping_bounds_the_step(recipe, tmp_path, monkeypatch):
    norms = []
    step = torch.optim.AdamW.step

    def record(self, *arguments, **named):
        grads = [p.grad for group in self.param_groups for p in group["params"]]
        norms.append(torch.linalg.vector_norm(torch.stack([grad.norm() for grad in grads])).item())
        return step(self, *arguments, **named)

    monkeypatch.setattr(torch.optim.AdamW, "step", record)
    train(recipe("train.clip_grad=0.01"), tmp_path / "clipped")
    # What is logged is the norm before clipping.
    logged = [record["grad_norm"] for record in Run(tmp_path / "clipped").history() if record["kind"] == "train"]
    assert min(logged) > 0.1
    torch.testing.assert_close(norms, [0.01] * 6, rtol=1e-3, atol=0)
    norms.clear()
    train(recipe("train.clip_grad=0"), tmp_path / "free")
    logged = [record["grad_norm"] for record in Run(tmp_path / "free").history() if record["kind"] == "train"]
    torch.testing.assert_close(norms, logged, rtol=1e-5, atol=0)


@pytest.mark.parametrize("mixer", MIXERS)
def test_the_loss_of_every_mixer_falls(trained, mixer):
    run = trained("run", f"model.mixer={mixer}", "train.max_steps=42", "train.lr=0.01", "model.embed_dim=32")
    assert sum(losses(run)[-5:]) < 0.97 * sum(losses(run)[:5])


@pytest.mark.skipif(find_spec("tensorboard") is None, reason="needs the extra `tensorboard`")
def test_tensorboard_gets_the_same_figures(trained):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = trained("run")
    events = EventAccumulator(str(run.path / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {
        *("train/loss", "train/lr", "train/grad_norm"),
        *("val/accuracy", "val/top5", "val/loss"),
    }
    scalars = events.Scalars("train/loss")
    assert [event.step for event in scalars] == list(range(1, 7))
    torch.testing.assert_close([event.value for event in scalars], losses(run), rtol=1e-6, atol=0)


def test_figures_are_written_by_the_thread_that_trains(tmp_path):
    """A lock between two threads that Ctrl-C leaves taken would be waited for, for ever, when the run ends."""
    before = threading.active_count()
    with MetricsLog(Run(tmp_path), 0, main=True) as log:
        log.write("train", 1, 0.1, loss=2.0)
        assert threading.active_count() == before


def test_without_tensorboard_nothing_is_missing(trained, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto.event_pb2", None)
    run = trained("run")
    assert not (run.path / "tensorboard").exists()
    assert len(run.history()) == 7


def test_a_folder_that_is_there_is_left_alone(recipe, trained, tmp_path):
    run = trained("run")
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    with pytest.raises(RegardError, match=r"run: exists already; go on with `regard train --resume .*run`, or choose"):
        train(recipe(), run.path)
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before

    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    for path in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(RegardError, match="exists already; choose another folder with --out"):
            train(recipe(), path)
    assert (tmp_path / "notes.txt").read_text(encoding="utf-8") == "mine"


def test_an_empty_folder_is_taken(recipe, tmp_path):
    (tmp_path / "run").mkdir()
    train(recipe(), tmp_path / "run")
    assert Run.open(tmp_path / "run").summary()["steps"] == 6


def test_names_of_new_run_folders(tmp_path):
    assert default_run_folder("digits", tmp_path) == tmp_path / "digits-1"
    (tmp_path / "digits-1").mkdir()
    (tmp_path / "digits-3").mkdir()
    assert default_run_folder("digits", tmp_path) == tmp_path / "digits-2"


def test_no_folder_is_made_for_what_cannot_be_built(recipe, tmp_path):
    for setting in ("model.mixer=atention", "model.patch_size=3", "data.address=folder:nowhere", "data.mean=[1,2,3]"):
        with pytest.raises(RegardError):
            train(recipe(setting), tmp_path / "run")
        assert not (tmp_path / "run").exists(), setting


def test_the_model_of_a_recipe_is_the_presets(recipe):
    config = recipe().model.config(num_classes=10)
    assert (config.embed_dim, config.depth, config.num_heads, config.patch_size) == (16, 1, 2, 2)
    assert sum(p.numel() for p in build(config).parameters()) == 3818


def test_the_history_passes_over_a_half_written_line(trained):
    run = trained("run")
    whole = run.history()
    with run.metrics_file.open("a", encoding="utf-8") as file:
        file.write('{"kind": "train", "st')
    assert run.history() == whole


def test_a_bar_is_drawn_on_a_terminal_and_lines_elsewhere(recipe, tmp_path):
    import io

    from rich.console import Console

    for terminal in (True, False):
        text = io.StringIO()
        console = Console(file=text, force_terminal=terminal, width=120)
        train(recipe(), tmp_path / f"run-{terminal}", bar=Bar(console=console).part(0, "my run"))
        assert "my run" in text.getvalue()
        assert ("left" in text.getvalue()) == terminal


def test_recipe_toml_is_complete(trained):
    run = trained("run", "model.mixer=local")
    recipe = read_recipe(run.recipe_file)
    assert recipe.model.config(num_classes=10).mixer == "local"
    assert recipe.claim is None
    assert isinstance(run.path, Path)


def test_what_a_killed_process_leaves_is_removed(tmp_path):
    """Its own file beside the whole one, and the one that safetensors renames when it is done."""
    for name in (".model.safetensors.4711", ".tmpi3N4xy", "model.safetensors", ".keep"):
        (tmp_path / name).touch()
    remove_leftovers(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"model.safetensors", ".keep"}
