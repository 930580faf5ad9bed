"""`attention@weights=RUN`: contenders that begin from a run, under which names, and what is said of it."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import save_file
from torch import Tensor

from regard.api.comparing import Comparison
from regard.cli.main import main
from regard.compare import Cost, compare
from regard.compare.aliases import Alias, place_of
from regard.compare.fairness import began_from_others, fairness_of
from regard.compare.going_on import GoingOn
from regard.compare.own_weights import contender_names, minutes_of, require_same_weights
from regard.compare.plan import Plan
from regard.compare.planning import Wishes, make_plan
from regard.compare.schema import Record
from regard.compare.wording import chart_names
from regard.errors import RegardError
from regard.files import write_json
from regard.recipes import load_recipe
from regard.training import Run, train
from regard.weights import read_safetensors

TINY = ("model.depth=1", "model.embed_dim=16", "model.num_heads=2", "train.batch_size=64", "train.device=cpu")
ONE = Wishes(seeds=1)


def recipe(*settings: str):
    return load_recipe("vit-digits", [*TINY, "train.max_steps=2", *settings])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "pre-1"
    train(recipe("seed=7"), path)
    return path


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """runs/pre-1, the current folder's own."""
    shutil.copytree(trained, tmp_path / "runs" / "pre-1")
    return tmp_path / "runs" / "pre-1"


@pytest.fixture(autouse=True)
def free(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without costs and pictures, which take longer than all else."""
    monkeypatch.setattr(
        "regard.compare.experiment.measure_all", lambda runs, **_: {name: Cost(1e-6, 2.0, 64) for name in runs}
    )
    monkeypatch.setattr("regard.compare.classification._mixing_svg", lambda *_: "")
    monkeypatch.setattr("regard.compare.report._plots", lambda *_: [])
    monkeypatch.chdir(tmp_path)


def change(run: Path, to: Callable[[str, Tensor], Tensor | None]) -> None:
    """Other weights under the same name: `to(name, tensor)` instead of each, or None to leave it out."""
    file = run / "model.safetensors"
    found = {name: to(name, tensor) for name, tensor in read_safetensors(file).items()}
    save_file({name: tensor for name, tensor in found.items() if tensor is not None}, file)


def test_weights_come_last_since_a_path_may_hold_anything():
    assert Alias.of("attention@copy2@labels=0.5@weights=a@b=c@copy/d") == Alias("attention", 2, 0.5, "a@b=c@copy/d")
    for empty in ("attention@weights=", "attention@weights= "):
        with pytest.raises(RegardError, match="after weights= comes what it begins from: a run, a file"):
            Alias.of(empty)
    with pytest.raises(RegardError, match=r"or, last, weights=RUN \(begins from it\), each once; got 'weights'"):
        Alias.of("attention@weights")


def test_names_are_short_fit_a_folder_and_stay_apart(tmp_path):
    names = ["attention", "attention@weights=runs/pre-1", "conv@weights=./runs/../runs/pre-1/"]
    assert contender_names(names) == ["attention", "attention@weights=pre-1", "conv@weights=pre-1"]
    two = ["attention@weights=a/pre", f"attention@weights={tmp_path}/b/pre", "attention@weights=c"]
    assert contender_names(two) == ["attention@weights=a-pre", "attention@weights=b-pre", "attention@weights=c"]
    alike = contender_names(["attention@weights=a/b-c", "attention@weights=x/a-b/c", "attention@weights=y/a-b/c"])
    assert len(set(alike)) == 3
    odd = ["attention@weights=a/x@b:c d", "attention@weights=hf-hub:timm/vit_tiny.x", f"none@weights={'n' * 99}"]
    assert contender_names(odd) == [
        "attention@weights=x-b-c-d",
        "attention@weights=vit_tiny.x",
        f"none@weights={'n' * 40}",
    ]
    assert contender_names(["none@weights=runs/pre/best.safetensors"]) == ["none@weights=pre-best.safetensors"]
    assert contender_names(["attention@weights=dinov2_vits14"]) == ["attention@weights=dinov2_vits14"]
    assert place_of("dinov2_vits14") == "dinov2_vits14"
    assert place_of("local-dir:a") == f"local-dir:{tmp_path / 'a'}"
    assert len(set(contender_names(["attention@weights=/x/" + "n" * 50, "attention@weights=/x/m" + "n" * 50]))) == 2


def test_charts_tell_long_names_apart(record):
    names = ("attention", "attention@weights=pretrain-photos-1", "attention@weights=distill-photos-1", "x" * 30)
    found = chart_names(record(names), 20)
    assert found["attention"] == "attention"
    assert found["x" * 30] == "x" * 19 + "…"
    assert len(set(found.values())) == 4
    assert max(map(len, found.values())) == 20
    assert chart_names(record(names[:2]), 20)[names[1]] == "attention@…-photos-1"
    short = ("none@weights=pre-1", "conv")
    assert chart_names(record(short), 18) == dict(zip(short, short, strict=True))
    assert chart_names(record(("attention@weights=pre-1", "conv")), 20)["attention@weights=pre-1"] == "attention@pre-1"


def test_a_contender_begins_where_the_run_ended(run, monkeypatch):
    first = {}
    loss = "regard.tasks.classification.task.ClassificationTask.loss"
    from regard.tasks import ClassificationTask

    original = ClassificationTask.loss

    def seen(task, model, batch):
        first.setdefault(task.recipe.model.weights, model.head.weight.detach().clone())
        return original(task, model, batch)

    monkeypatch.setattr(loss, seen)
    plain, begun = compare(recipe(), ["attention", "attention@weights=runs/pre-1"], 1, Path("out"))
    assert begun.name == "attention@weights=pre-1"
    assert begun.runs == (Path("out/attention@weights=pre-1-seed-0"),)
    own = Run.open(begun.runs[0]).recipe()
    assert own.model.weights == str(run)
    assert len(own.model.weights_hash) == 64
    assert not own.model.reset_head
    assert Run.open(plain.runs[0]).recipe().model.weights is None
    assert first[str(run)].equal(read_safetensors(run / "model.safetensors")["head.weight"])
    assert not first[None].equal(first[str(run)])
    assert Run.open(begun.runs[0]).metadata()["preprocessing"] == Run.open(run).metadata()["preprocessing"]


def test_the_page_and_the_record_say_it(run):
    names = ["attention", "attention@weights=runs/pre-1"]
    comparison = Comparison(recipe(), names, 1, "out")
    comparison.run("vit-digits", [])
    found = comparison.record
    assert isinstance(found, Record)
    assert {one.name: one.weights for one in found.contenders} == {
        "attention": "",
        "attention@weights=pre-1": "runs/pre-1",
    }
    minutes = found.contenders[1].weights_minutes
    assert minutes == pytest.approx(Run.open(run).summary()["seconds"] / 60)
    (check,) = (one for one in found.fairness if one.what.startswith("All begin from"))
    assert not check.holds
    assert check.note.startswith("attention@weights=pre-1 began from runs/pre-1 (a run of ")
    assert check.note.endswith(" minutes); what these weights took is in no budget")
    assert f"{check.note}." in found.notes
    assert "--mixers attention,attention@weights=runs/pre-1" in found.command
    assert check.note in comparison.report_file.read_text(encoding="utf-8")
    assert found.title == "Which weights to begin from?"
    plain = make_plan(recipe(), ["attention", "conv"], ONE)
    (check,) = (one for one in fairness_of(GoingOn(Path("plain"), plain)) if one.what == check.what)
    assert (check.holds, check.note, began_from_others(plain)) == (True, "", "")


def test_a_head_of_other_classes_is_left_out(run):
    names = ["attention@weights=runs/pre-1", "attention@weights=runs/pre-1/model.safetensors"]
    for name in names:  # a run knows its classes; a file only how many they are
        entry = make_plan(recipe(), [name], ONE).contenders[0]
        assert "reset_head" not in entry.recipe["model"]
    metadata = {**Run.open(run).metadata(), "class_names": [f"number {n}" for n in range(10)]}
    del metadata["checksum"]
    write_json(run / "metadata.json", metadata)
    assert make_plan(recipe(), names[:1], ONE).contenders[0].recipe["model"]["reset_head"] is True
    (run / "metadata.json").unlink()
    change(run, lambda name, tensor: tensor[:4].clone() if name.startswith("head.") else tensor)
    assert make_plan(recipe(), names[1:], ONE).contenders[0].recipe["model"]["reset_head"] is True
    # And a backbone without a head: what a pre-training leaves.
    change(run, lambda name, tensor: None if name.startswith("head.") else tensor)
    assert "reset_head" not in make_plan(recipe(), names[1:], ONE).contenders[0].recipe["model"]


def test_what_a_run_does_not_say_is_not_told(run):
    assert minutes_of("runs/pre-1/model.safetensors") == minutes_of("runs/pre-1") > 0
    for text in ("{}", '{"seconds": "long"}', "[]", '{"seconds": 0}', "{"):
        (run / "summary.json").write_text(text)
        assert minutes_of("runs/pre-1") is None
    assert minutes_of("dinov2_vits14") is None


@pytest.mark.parametrize(
    ("name", "settings", "told"),
    [
        (
            "attention@weights=runs/none",
            (),
            "^attention@weights=runs/none: runs/none is no run, no file, and no weights",
        ),
        ("attention@weights=dinov2_vits15", (), "did you mean 'dinov2_vits14"),
        ("attention@weights=runs", (), "^attention@weights=runs: .*runs: holds neither model.safetensors nor"),
        ("conv@weights=runs/pre-1", (), "^conv@weights=runs/pre-1: .*does not match this model: .*missing"),
        (
            "attention@weights=runs/pre-1",
            ("model.embed_dim=32", "model.depth=2"),
            r"does not match this model.*; its model has embed_dim 16 \(here 32\), depth 1 \(here 2\)$",
        ),
    ],
)
def test_weights_that_do_not_serve_are_one_line_before_any_training(run, monkeypatch, name, settings, told):
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a training has begun")

    monkeypatch.setattr("regard.compare.experiment.train", refuse)
    with pytest.raises(RegardError, match=told) as caught:
        Comparison(recipe(*settings), ["none", name], 1, "out").run("vit-digits", [])
    assert "\n" not in str(caught.value)
    assert not Path("out").exists()


def test_a_task_without_weights_and_the_same_weights_twice(run, text_recipe):
    with pytest.raises(RegardError, match=r"^attention@weights=runs/pre-1: models of images begin from weights; a rec"):
        make_plan(text_recipe(), ["attention@weights=runs/pre-1"], ONE)
    with pytest.raises(RegardError, match="name each mixer once"):
        make_plan(recipe(), ["attention@weights=runs/pre-1", f"attention@weights={run}"], ONE)


def test_other_weights_under_the_same_name_are_noticed(run, monkeypatch, capsys):
    names = ["attention", "attention@weights=runs/pre-1"]
    words = [word for setting in (*TINY, "train.max_steps=2") for word in ("--set", setting)]

    def command(*given: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["regard", "compare", "--out", "out", *given])
        with pytest.raises(SystemExit) as end:
            main()
        return int(end.value.code or 0), " ".join("".join(capsys.readouterr()).split())

    begin = ("--mixers", ",".join(names), "--recipe", "vit-digits", "--seeds", "1", *words, "--json", "found.json")
    status, out = command(*begin)
    assert status == 0
    assert "attention@weights=pre-1 began from runs/pre-1" in out
    assert json.loads(Path("found.json").read_text())["contenders"][1]["weights"] == "runs/pre-1"
    assert command(*begin)[0] == command()[0] == 0  # gone on with: nothing has changed
    change(run, lambda name, tensor: tensor + 1)
    status, err = command(*begin)
    assert (status, "recipe of attention@weights=pre-1: model.weights_hash" in err) == (2, True)
    plan = Plan.read(Path("out"))
    monkeypatch.chdir("out")  # from wherever it is gone on with
    for names_of in (None, ["attention@weights=pre-1"]):
        with pytest.raises(RegardError, match=r"pre-1: .*pre-1 holds other weights than when the comparison began"):
            require_same_weights(plan, names_of)
    require_same_weights(plan, ["attention"])
    with pytest.raises(RegardError, match="holds other weights"):
        Comparison.of(Path()).run()
    with pytest.raises(RegardError, match="holds other weights"):
        Comparison.of(Path()).one_cell("attention@weights=pre-1", 0)
    shutil.rmtree(run)
    with pytest.raises(RegardError, match="is not there any more as it was when the comparison began"):
        require_same_weights(plan)


def test_a_plan_of_before_is_read(run):
    plan = make_plan(recipe(), ["attention", "none"], ONE)
    Path("old").mkdir()
    plan.write(Path("old"))
    values = json.loads(Path("old/plan.json").read_text())
    for one in values["contenders"]:
        del one["weights"], one["weights_minutes"]
    Path("old/plan.json").write_text(json.dumps(values))
    assert Plan.read(Path("old")) == plan
    begun = make_plan(recipe(), ["attention@weights=runs/pre-1", "attention"], ONE)
    assert begun.recipe_of_all().model.weights is None
