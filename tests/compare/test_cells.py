"""Cells are files: killed and gone on with, made elsewhere, damaged; and each is trained once."""

import json
import shutil
import sys

import numpy as np
import pytest

import regard
from regard.api.comparing import Comparison, without_looking
from regard.cli.main import main
from regard.compare.cells import read_cell
from regard.compare.contender import Cost
from regard.compare.experiment import Fatal
from regard.compare.plan import Plan
from regard.compare.planning import Wishes, make_plan
from regard.errors import RegardError
from regard.recipes import load_recipe
from regard.tasks import ClassificationTask
from regard.training import Run, train

TINY = ("model.depth=1", "model.embed_dim=16", "model.num_heads=2", "train.batch_size=64", "train.device=cpu")
SETTINGS = [word for setting in (*TINY, "train.max_steps=3") for word in ("--set", setting)]


def recipe(*settings: str):
    return load_recipe("vit-digits", [*TINY, "train.max_steps=3", *settings])


@pytest.fixture(autouse=True)
def free(monkeypatch):
    """Without costs and pages, which take longer than all else."""
    monkeypatch.setattr(
        "regard.compare.experiment.measure_all", lambda runs, **_: {name: Cost(1e-6, 2.0, 64) for name in runs}
    )
    monkeypatch.setattr("regard.compare.report.Report.write_comparison", lambda *_, **__: [])


@pytest.fixture
def trained(monkeypatch) -> list[str]:
    """The cells that are trained, in order; `stop` in it is where the process is killed."""
    places: list[str] = []

    def training(recipe, path, **options):
        places.append(path.name)
        return train(recipe, path, **options)

    monkeypatch.setattr("regard.compare.experiment.train", training)
    return places


@pytest.fixture
def command(monkeypatch, capsys):
    """command(*arguments) -> status, out, err of `regard compare`."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["regard", "compare", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "160")
        capsys.readouterr()
        status = 0
        try:
            main()
        except SystemExit as end:
            status = end.code or 0
        return (status, *capsys.readouterr())

    return run


def compared(folder, *names, seeds=2, **wishes):
    comparison = Comparison(recipe(), list(names), seeds, folder, wishes=Wishes(seeds=seeds, **wishes))
    comparison.run("vit-digits")
    return comparison


def results(folder):
    return {path.parent.name: path.read_bytes() for path in folder.glob("*/test.npz")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A comparison of two mixers with two seeds that was never interrupted, without its report."""
    from regard.compare.going_on import GoingOn, begin
    from regard.training import Bar

    folder = tmp_path_factory.mktemp("whole") / "out"
    plan = make_plan(recipe(), ["conv", "none"], Wishes(seeds=2))
    begin(folder, plan, is_new=True)
    patch = pytest.MonkeyPatch()
    patch.setattr("regard.compare.experiment.measure_all", lambda runs, **_: {})
    GoingOn(folder, plan, bar=Bar(parts=9, visible=False)).run()
    patch.undo()
    return folder


def test_a_cell_holds_what_the_run_makes_of_each_image(whole):
    plan = Plan.read(whole)
    assert len(results(whole)) == 4
    for name, seed in plan.order:
        cell, summary = read_cell(whole, plan, name, seed), Run(whole / f"{name}-seed-{seed}").summary()
        arrays = cell.arrays(whole)
        assert (cell.status, cell.step, cell.score) == ("done", 3, summary["accuracy"])
        assert (len(arrays["id"]), len(set(arrays["id"].tolist()))) == (450, 450)
        np.testing.assert_array_equal(arrays["right"], arrays["label"] == arrays["prediction"])
        assert arrays["right"].mean() == pytest.approx(summary["accuracy"], abs=1e-12)
        assert arrays["log_loss"].mean() == pytest.approx(summary["loss"], abs=1e-6)
        assert set(cell.seconds) == {"steps", "evaluation", "saving", "compile", "wall"}
        assert 0 < cell.seconds["steps"] < cell.seconds["wall"]
    first, second = (read_cell(whole, plan, "conv", seed).arrays(whole)["id"] for seed in (0, 1))
    np.testing.assert_array_equal(first, second)


def test_the_test_part_is_read_once(whole):
    for folder in whole.glob("*-seed-*"):
        assert [record["step"] for record in Run(folder).history() if record["kind"] == "val"] == [3]


def test_the_same_again_trains_nothing(whole, tmp_path, trained):
    folder = tmp_path / "out"
    shutil.copytree(whole, folder)
    before = results(folder)
    comparison = compared(folder, "conv", "none")
    assert trained == []
    assert results(folder) == before
    assert [(one.name, len(one.runs)) for one in comparison.contenders] == [("conv", 2), ("none", 2)]
    assert Comparison.of(folder).run()[0].scores == comparison.contenders[0].scores
    assert trained == []


def test_killed_after_any_cell_it_ends_with_the_same_to_the_bit(whole, tmp_path, monkeypatch, trained):
    from regard.compare import experiment

    counting = experiment.train
    for killed_after in (1, 3):
        folder = tmp_path / f"out{killed_after}"
        trained.clear()

        def stopping(recipe, path, killed_after=killed_after, **options):
            if len(trained) == killed_after:
                raise KeyboardInterrupt
            return counting(recipe, path, **options)

        monkeypatch.setattr("regard.compare.experiment.train", stopping)
        with pytest.raises(KeyboardInterrupt):
            compared(folder, "conv", "none")
        assert len(results(folder)) == killed_after
        monkeypatch.setattr("regard.compare.experiment.train", counting)
        Comparison.of(folder).run()
        assert len(trained) == len(set(trained)) == 4
        assert results(folder) == results(whole)


def test_killed_within_a_cell_it_goes_on_from_its_state(whole, tmp_path, monkeypatch):
    folder, calls, loss = tmp_path / "out", [], ClassificationTask.loss

    def dying(task, model, batch):
        calls.append(1)
        if len(calls) == 5 and not (folder / "later").exists():
            raise KeyboardInterrupt
        return loss(task, model, batch)

    plan = make_plan(recipe("train.save_every_steps=1"), ["conv", "none"], Wishes(seeds=2))
    from regard.compare.experiment import run_cell
    from regard.compare.going_on import begin

    begin(folder, plan, is_new=True)
    monkeypatch.setattr(ClassificationTask, "loss", lambda *a: dying(*a))
    calls += [1, 1]
    with pytest.raises(KeyboardInterrupt):
        run_cell(folder, plan, "conv", 1)
    (folder / "later").touch()
    calls.clear()
    cell = run_cell(folder, plan, "conv", 1)
    assert (cell.status, cell.step, len(calls)) == ("done", 3, 1)  # two of three steps were kept
    assert results(folder)["conv-seed-1"] == results(whole)["conv-seed-1"]


@pytest.mark.parametrize(("name", "told"), [("cell.json", "is damaged"), ("test.npz", "is not as it was written")])
def test_a_damaged_file_is_named_and_its_cell_trained_again(whole, tmp_path, trained, command, name, told):
    folder = tmp_path / "out"
    shutil.copytree(whole, folder)
    file = folder / "none-seed-1" / name
    file.write_bytes(file.read_bytes().replace(b"0", b"1", 1) if name == "cell.json" else b"PK")
    status, _, err = command("--out", folder)
    assert status == 0
    (line,) = [line for line in err.splitlines() if str(file) in line]
    assert told in line
    assert line.endswith("none with seed 1 is trained again")
    assert trained == ["none-seed-1"]
    assert results(folder) == results(whole)


def test_another_comparison_in_the_folder_is_refused(whole, command, trained, tmp_path):
    common = ("--out", whole, "--seeds", 2)
    before = sorted(whole.rglob("*"))
    for arguments, parts in (
        (("--mixers", "fourier,mlp", *SETTINGS), ["holds another comparison", "conv, none", "--out"]),
        (("--mixers", "conv,none", "--margin", 2, *SETTINGS), ["margin: 1.0 -> 2.0", "--amend"]),
        (("--mixers", "conv,none,mlp", *SETTINGS), ["contenders: conv, none -> conv, none, mlp", "--amend"]),
        (
            ("--mixers", "conv,none", *SETTINGS, "--set", "data.split_seed=3"),
            ["holds another comparison: its data are"],
        ),
        (("--mixers", "conv,none", *SETTINGS, "--set", "train.lr=0.1"), ["train.lr 0.003 -> 0.1", "--amend"]),
    ):
        status, out, err = command(*common, *arguments)
        assert (status, out) == (2, "")
        (line,) = err.splitlines()
        assert all(part in line for part in parts), line
    assert sorted(whole.rglob("*")) == before
    assert trained == []


def test_a_plan_that_was_edited_needs_amend(whole, tmp_path, command):
    folder = tmp_path / "out"
    shutil.copytree(whole, folder)
    file = folder / "plan.json"
    file.write_text(file.read_text(encoding="utf-8").replace('"margin": 1.0', '"margin": 3.0'), encoding="utf-8")
    status, _, err = command("--out", folder)
    assert (status, len(err.splitlines())) == (2, 1)
    assert "was changed after the comparison began" in err
    assert "--amend" in err
    status, _, err = command("--out", folder, "--amend", "--json", tmp_path / "record.json")
    assert status == 0
    record = json.loads((tmp_path / "record.json").read_text(encoding="utf-8"))
    assert record["plan"]["margin"] == 3.0
    assert record["plan"]["amended"] == ["plan.json was edited after the first training"]


def test_an_amended_plan_trains_what_is_new(whole, tmp_path, command, trained):
    folder = tmp_path / "out"
    shutil.copytree(whole, folder)
    arguments = ("--mixers", "conv,none,mlp", "--seeds", 2, "--out", folder, "--amend", *SETTINGS)
    assert command(*arguments)[0] == 0
    assert sorted(trained) == ["mlp-seed-0", "mlp-seed-1"]
    assert Plan.read(folder).amended == ["contenders: conv, none -> conv, none, mlp"]


def test_one_cell_for_a_scheduler_and_its_collection(whole, tmp_path, command, trained):
    common = ("--mixers", "conv,none", "--seeds", 2, *SETTINGS)
    for place, cell in (("a", "conv:0"), ("b", "none:1")):
        status, out, _ = command(*common, "--out", tmp_path / "far" / place, "--contender", cell)
        assert status == 0
        assert out.startswith(f"{cell.replace(':', ', seed ')}: accuracy 0.")
    assert trained == ["conv-seed-0", "none-seed-1"]
    folder = tmp_path / "here"
    status, _, err = command(*common, "--out", folder, "--collect", tmp_path / "far")
    assert (status, "2 cells taken over" in err) == (0, True)
    assert len(trained) == 2
    assert results(folder).items() <= results(whole).items()
    assert command("--out", folder)[0] == 0
    assert sorted(trained) == ["conv-seed-0", "conv-seed-1", "none-seed-0", "none-seed-1"]
    assert results(folder) == results(whole)
    status, _, err = command(*common, "--out", folder, "--contender", "conv:7")
    assert (status, "the plan has seeds from 0 to 1" in err) == (2, True)
    status, _, err = command(*common, "--out", folder, "--contender", "lstm:0")
    assert (status, "lstm: is no contender of this comparison; those are conv, none" in err) == (2, True)


def test_a_disk_that_fills_ends_it_with_one_line(tmp_path, monkeypatch, command, trained):
    folder, written = tmp_path / "out", []
    from regard.compare import cells

    write = cells.write_json

    def full(path, values):
        written.append(path)
        if len(written) == 2:
            raise RegardError(
                f"{path}: could not be saved, and is as it was before: [Errno 28] No space left on device"
            )
        write(path, values)

    monkeypatch.setattr("regard.compare.cells.write_json", full)
    status, _, err = command("--mixers", "conv,none", "--seeds", 2, "--out", folder, *SETTINGS)
    assert status == 1
    assert err.splitlines()[-1].startswith(f"error: {folder}: {written[1]}: could not be saved")
    assert f"`regard compare --out {folder}` goes on with the rest" in err
    assert len(list(folder.glob("*/cell.json"))) == 1
    monkeypatch.undo()
    assert Fatal.status == 1


@pytest.mark.parametrize("looks", [False, True])
def test_a_budget_of_minutes_is_of_steps_alone(tmp_path, looks):
    settings = ["train.evaluate_every_steps=1"] if looks else []
    plan = make_plan(
        without_looking(load_recipe("vit-digits", [*TINY, *settings]), settings),
        ["none"],
        Wishes(seeds=1, budget="minutes=0.003"),
    )
    from regard.compare.experiment import run_cell
    from regard.compare.going_on import begin

    begin(tmp_path / "out", plan, is_new=True)
    cell = run_cell(tmp_path / "out", plan, "none", 0)
    assert cell.status == "done", cell.reason
    history = Run(tmp_path / "out" / "none-seed-0").history()
    assert (sum(record["kind"] == "val" for record in history) > 1) == looks
    spent, steps = cell.seconds["steps"], cell.step
    assert spent >= 0.18
    last = max(spent / steps * 20, 0.1)  # one step, on a machine with other work
    assert spent <= 0.18 + last


def test_planted_contenders_are_listed_with_step_and_reason(tmp_path, monkeypatch, command):
    calls, loss = [], ClassificationTask.loss

    def planted(task, model, batch):
        if model.blocks[0].mixer.name == "mlp":
            raise RegardError("mlp: it mixes 16 tokens, and there are 49")
        if model.blocks[0].mixer.name == "conv" and model.training:
            calls.append(1)
            if len(calls) == 8:  # the first is a trial
                return loss(task, model, batch) * float("nan")
        return loss(task, model, batch)

    monkeypatch.setattr(ClassificationTask, "loss", planted)
    settings = [word for setting in (*TINY, "train.max_steps=9") for word in ("--set", setting)]
    status, _, err = command(
        *("--mixers", "conv,mlp,none,fourier", "--seeds", 1, "--out", tmp_path / "out", "--json", tmp_path / "r.json"),
        *settings,
    )
    assert status == 0, err
    cells = {cell["contender"]: cell for cell in json.loads((tmp_path / "r.json").read_text("utf-8"))["cells"]}
    assert [(name, cells[name]["status"]) for name in ("conv", "mlp", "none")] == [
        ("conv", "diverged"),
        ("mlp", "cannot_run"),
        ("none", "done"),
    ]
    assert cells["conv"]["step"] == 7
    assert cells["conv"]["reason"].startswith("step 7: the loss is nan")
    assert cells["mlp"]["reason"].startswith("mlp: it mixes 16 tokens")
    assert "mlp cannot run: mlp: it mixes 16 tokens" in err
    assert "no verdict on mixers" in err


def test_where_nobody_can_be_trained_the_status_is_3(tmp_path, monkeypatch, command):
    def broken(task, model, batch):
        raise RegardError("no")

    monkeypatch.setattr(ClassificationTask, "loss", broken)
    status, _, err = command("--mixers", "conv,none", "--seeds", 2, "--out", tmp_path / "out", *SETTINGS)
    assert (status, len(err.splitlines())) == (3, 1)
    assert "no contender can be trained: conv: no" in err
    assert not (tmp_path / "out").exists()


def test_a_plan_is_printed_and_trains_nothing(tmp_path, command, trained):
    status, out, _ = command("--mixers", "conv,none", "--plan", "--out", tmp_path / "out", *SETTINGS)
    assert (status, trained, (tmp_path / "out").exists()) == (0, [], False)
    assert "2 contenders, 6 to 24 cells (epochs=40,steps=3 each, 1 thread a cell, 1 at once): about" in out
    assert "disk: about" in out
    assert "450 test samples find a difference of" in out
    status, out, _ = command("--mixers", "conv,none", "--plan", "--seeds", 1, "--out", tmp_path / "out", *SETTINGS)
    assert "gives no verdict on mixers" in out


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--budget", "minutes=0.00001"], ["is under one step of none"]),
        (["--budget", "steps=0.5"], ["under one step"]),
        (["--budget", "flops=10"], ["flops=10 is under one step of none, which takes"]),
        (["--budget", "hours=3"], ["unknown budget 'hours'", "epochs, flops, minutes, steps"]),
        (["--until", "tomorrow"], ["unknown until 'tomorrow'"]),
        (["--margin", -1], ["margin is -1"]),
        (["--cost", "price"], ["unknown cost 'price'"]),
        (["--seeds", "many"], ["--seeds many: is a number, or auto"]),
        (["--jobs", 0], ["jobs must be at least 1"]),
        (
            ["--set", "data.val_fraction=0.001", "--mixers", "none,conv,mlp,fourier,attention,performer"],
            ["has 10 test images", "needs"],
        ),
        (["--mixers", "none@cpy"], ["after @ comes copy", "labels=0.1"]),
        (["--mixers", "none@labels=2"], ["labels=2: it is a fraction"]),
        (["--contender", "none"], ["is NAME:SEED"]),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path, command, arguments, parts):
    status, out, err = command("--mixers", "none", "--out", tmp_path / "out", *SETTINGS, *arguments)
    assert (status, out, len(err.splitlines())) == (2, "", 1), err
    assert all(part in err for part in parts), err
    assert not (tmp_path / "out").exists()


def test_runs_of_ones_own_are_tested_and_not_trained(whole, tmp_path, command, trained):
    runs = ",".join(str(whole / f"{name}-seed-{seed}") for name in ("conv", "none") for seed in (0, 1))
    status, _, err = command("--runs", runs, "--out", tmp_path / "out", "--json", tmp_path / "r.json")
    assert (status, trained) == (0, []), err
    record = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    plan = Plan.read(whole)
    expected = {(name, seed): read_cell(whole, plan, name, seed).score for name, seed in plan.order}
    assert {(cell["contender"], cell["seed"]): cell["score"] for cell in record["cells"]} == expected
    assert len(record["pairs"]) == 1
    other = tmp_path / "other"
    train(recipe("data.split_seed=5"), other)
    status, _, err = command("--runs", f"{runs},{other}", "--out", tmp_path / "more")
    assert (status, "was not held to the same test samples" in err) == (2, True)


def test_cells_can_be_cleaned_to_their_results(whole, tmp_path, command, trained):
    folder = tmp_path / "out"
    shutil.copytree(whole, folder)
    status, out, _ = command("--out", folder, "--clean")
    assert (status, "MB of weights and states removed" in out) == (0, True)
    kept = {path.name for path in (folder / "conv-seed-0").iterdir()}
    assert kept == {"cell.json", "test.npz", "recipe.toml", "metadata.json", "metrics.jsonl", "summary.json"}
    assert command("--out", folder)[0] == 0
    assert trained == []


def test_a_copy_has_seeds_of_its_own_and_wrong_labels_are_exchanged(tmp_path):
    plan = make_plan(recipe(), ["none", "none@copy", "none@labels=0.1"], Wishes(seeds=2))
    assert plan.recipe("none@copy", 1).seed == plan.recipe("none", 1).seed + 1_000_003
    task, wrong = (ClassificationTask(plan.recipe(name, 0)) for name in ("none", "none@labels=0.1"))
    pairs = list(zip(task.train.labels, wrong.train.labels, strict=True))
    assert sorted(task.train.labels) == sorted(wrong.train.labels)
    assert 0.07 * len(pairs) < sum(a != b for a, b in pairs) <= 0.1 * len(pairs) + 1
    assert task.data.val.labels == wrong.data.val.labels


def test_validation_is_split_off_with_patience_alone():
    assert make_plan(recipe(), ["none"], Wishes(seeds=1)).data | {"fingerprint": ""} == {
        "address": "digits",
        "fingerprint": "",
        "n_train": 1347,
        "n_val": 0,
        "n_test": 450,
    }
    data = make_plan(recipe("train.patience=2"), ["none"], Wishes(seeds=1)).data
    assert (data["n_val"], data["n_train"] + data["n_val"], data["n_test"]) == (135, 1347, 450)


@pytest.mark.slow
def test_jobs_change_no_result(whole, tmp_path, monkeypatch):
    folder = tmp_path / "out"
    comparison = Comparison(recipe(), ["conv", "none"], 2, folder, jobs=2)
    comparison.run("vit-digits")
    assert results(folder) == results(whole)


def test_from_python(tmp_path):
    found = regard.compare_mixers(
        ["conv", "none"], out=tmp_path / "out", seeds=2, margin=2, budget="steps=2", depth=1, device="cpu"
    )
    assert [(one.name, len(one.runs)) for one in found] == [("conv", 2), ("none", 2)]
    assert found.record.plan.margin == 2
    assert found.record.plan.budget == "steps=2"
    assert found.verdict("none", "conv") in ("better", "worse", "as good", "cannot tell")
    assert found.sentence == found.record.recommendation.sentence
