"""A comparison goes on when a training fails, and its report holds what has ended, at any moment."""

import json
import re
import sys
from pathlib import Path

import pytest

import regard
from regard.api.training import Comparison
from regard.cli.main import main
from regard.compare import Contender, Cost, Failure, compare
from regard.compare.contender import reason_of
from regard.compare.plan import order_of
from regard.errors import RegardError
from regard.recipes import load_recipe
from regard.tasks import ClassificationTask
from regard.training import Run, train

TINY = ("model.depth=1", "model.embed_dim=16", "model.num_heads=2", "train.batch_size=64", "train.device=cpu")
SETTINGS = [word for setting in (*TINY, "train.max_steps=2") for word in ("--set", setting)]


def recipe():
    return load_recipe("vit-digits", [*TINY, "train.max_steps=2"])


@pytest.fixture(autouse=True)
def free(monkeypatch):
    """Without the cost, which takes a process for each mixer, and without pictures, which take longer than all else."""
    monkeypatch.setattr(
        "regard.compare.experiment.measure_all", lambda runs, **_: {name: Cost(1e-6, 2.0, 64) for name in runs}
    )
    monkeypatch.setattr("regard.compare.classification._mixing_svg", lambda *_: "")
    monkeypatch.setattr("regard.compare.report._plots", lambda *_: [])


@pytest.fixture
def fails(monkeypatch):
    """fails({"conv-seed-0": error}): these trainings end with the error."""

    def arrange(errors: dict[str, BaseException], tell=lambda path: None) -> None:
        def training(recipe, path: Path, **options):
            tell(path)
            if path.name in errors:
                raise errors[path.name]
            return train(recipe, path, **options)

        monkeypatch.setattr("regard.compare.experiment.train", training)

    return arrange


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    """command(*arguments) -> status, out, err of `regard compare` into tmp_path/out."""
    for name, value in {"COLUMNS": "160", "NO_COLOR": "1", "TERM": "dumb"}.items():
        monkeypatch.setenv(name, value)

    def run(*arguments, again=False):
        given = [
            "regard",
            "compare",
            "--out",
            str(tmp_path / "out"),
            *map(str, arguments),
            *([] if again else SETTINGS),
        ]
        monkeypatch.setattr(sys, "argv", given)
        status = 0
        try:
            main()
        except SystemExit as end:
            status = end.code or 0
        return (status, *capsys.readouterr())

    return run


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RegardError("step 3: the loss is nan"), "step 3: the loss is nan"),
        (MemoryError(), "MemoryError: MemoryError"),
        (RuntimeError("out of\n  memory"), "RuntimeError: out of memory"),
        (OSError(28, "No space left on device"), "OSError: [Errno 28] No space left on device"),
    ],
)
def test_one_that_fails_does_not_end_the_others(fails, tmp_path, capsys, error, reason):
    fails({"conv-seed-0": error, "conv-seed-1": error, "none-seed-1": error})
    conv, none = compare(recipe(), ["conv", "none"], 2, tmp_path / "out")
    assert conv == Contender(
        "conv",
        *((), none.metric, (), None, None, None, None),
        (Failure("conv, seed 0", reason), Failure("conv, seed 1", reason)),
    )
    assert none.runs == (tmp_path / "out" / "none-seed-0",)
    assert none.scores == (Run(none.runs[0]).summary()["accuracy"],)
    assert none.failures == (Failure("none, seed 1", reason),)
    assert none.cost is not None
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("failed: ")]
    assert told == [f"failed: {what}: {reason}" for what in ("conv, seed 0", "conv, seed 1", "none, seed 1")]


def test_a_loss_that_is_not_finite_is_named(monkeypatch, tmp_path):
    loss = ClassificationTask.loss

    def diverging(task, model, batch):
        return loss(task, model, batch) * (float("nan") if model.blocks[0].mixer.name == "conv" else 1)

    monkeypatch.setattr(ClassificationTask, "loss", diverging)
    conv, none = compare(recipe(), ["conv", "none"], 1, tmp_path / "out")
    (failure,) = conv.failures
    assert failure.what == "conv, seed 0"
    assert failure.reason.startswith("step 1: the loss is nan")
    assert (len(none.runs), none.failures) == (1, ())


def test_what_fails_in_an_unforeseen_way_when_tried_is_trained_and_fails_alone(monkeypatch, tmp_path):
    loss = ClassificationTask.loss

    def broken(task, model, batch):
        if model.blocks[0].mixer.name == "conv":
            raise IndexError("shapes")
        return loss(task, model, batch)

    monkeypatch.setattr(ClassificationTask, "loss", broken)
    conv, none = compare(recipe(), ["conv", "none"], 1, tmp_path / "out")
    assert [str(failure) for failure in conv.failures] == ["conv, seed 0: IndexError: shapes"]
    assert none.failures == ()


def test_a_cost_that_cannot_be_measured_is_missing_and_not_zero(monkeypatch, tmp_path):
    def measure_all(runs, *, failed, **_):
        for name, run in runs.items():
            failed(name, RegardError(f"{run.name}: no compiler"))
        return {}

    monkeypatch.setattr("regard.compare.experiment.measure_all", measure_all)
    (none,) = compare(recipe(), ["none"], 1, tmp_path / "out")
    assert none.cost is None
    assert none.failures == (Failure("none, cost", "none-seed-0: no compiler"),)


def test_the_command_reports_the_rest(fails, command, tmp_path):
    fails({"conv-seed-0": MemoryError("<b>no</b> room"), "conv-seed-1": RegardError("x"), "fourier-seed-1": OSError()})
    status, out, err = command(
        *("--mixers", "conv,none,fourier", "--seeds", 2, "--json", tmp_path / "found.json"),
    )
    assert status == 0
    lines = err.splitlines()
    assert "failed: conv, seed 0: MemoryError: <b>no</b> room" in lines
    assert "Traceback" not in err
    named = [line.split()[1] for line in out.splitlines() if line.startswith("│")]
    assert named == ["none", "fourier"]
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "MemoryError: &lt;b&gt;no&lt;/b&gt; room" in page
    assert "OSError: OSError" in page
    assert "is not over" not in page
    text = (tmp_path / "found.json").read_text(encoding="utf-8")
    assert text.strip() in page
    found = json.loads(text)
    assert found["over"] is True
    status_of = {(one["contender"], one["seed"]): one["status"] for one in found["cells"]}
    assert status_of == {
        ("conv", 0): "cannot_run",
        ("conv", 1): "cannot_run",
        ("none", 0): "done",
        ("none", 1): "done",
        ("fourier", 0): "done",
        ("fourier", 1): "missing",
    }
    conv = found["contenders"][0]
    assert [conv[key] for key in ("name", "mean", "low", "parameters")] == ["conv", None, None, None]
    assert conv["cost"]["images_per_s"] is None
    # What an error of the system ended is tried again.
    fails({})
    assert command("--json", tmp_path / "again.json", again=True)[0] == 0
    again = json.loads((tmp_path / "again.json").read_text(encoding="utf-8"))
    assert {one["status"] for one in again["cells"] if one["contender"] == "fourier"} == {"done"}


def test_where_all_fail_there_is_one_line(fails, command, tmp_path):
    fails({"conv-seed-0": RegardError("no"), "none-seed-0": RegardError("none either")})
    status, out, err = command("--mixers", "conv,none", "--seeds", 1)
    assert (status, out) == (3, "")
    assert err.splitlines()[-1] == f"error: {tmp_path / 'out'}: no training ended well: conv, seed 0: no (and 1 more)"
    assert not (tmp_path / "out" / "report.html").exists()


def test_the_page_holds_what_has_ended_at_any_moment(fails, tmp_path, monkeypatch):
    """So that a kill leaves it."""
    monkeypatch.setattr("regard.api.comparing.REPORTING", float("inf"))
    page, seen = tmp_path / "out" / "report.html", []

    def look(path: Path) -> None:
        text = page.read_text(encoding="utf-8") if page.exists() else ""
        seen.append((re.findall(r"(\d) of (?:at most )?4 trainings (?:is|are) done", text), "is not over" in text))

    failing = [f"{name}-seed-{seed}" for name, seed in order_of(["conv", "none"], {}, 0, 2)][2]
    fails({failing: RegardError("x")}, look)
    comparison = Comparison(recipe(), ["conv", "none"], 2, tmp_path / "out")
    comparison.run("vit-digits", [])
    assert [(found[:1], going) for found, going in seen] == [
        ([], False),
        (["1"], True),
        (["2"], True),
        (["2"], True),
    ]
    text = page.read_text(encoding="utf-8")
    assert "is not over" not in text
    assert text.count('<details class="folded" id="contender-') == 2


def test_each_contender_is_looked_at_once(monkeypatch, tmp_path):
    from regard.compare.classification import ClassificationView

    section, looked_at = ClassificationView.section, []

    def counted(view, contender):
        looked_at.append(contender.name)
        return section(view, contender)

    monkeypatch.setattr(ClassificationView, "section", counted)
    Comparison(recipe(), ["conv", "none"], 2, tmp_path / "out").run("vit-digits", [])
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert sorted(looked_at) == ["conv", "none"]
    assert page.count("(the run with seed 0, as in all that follows)") == 2


def test_interrupted_it_reports_what_has_ended(fails, command, tmp_path):
    fails({"none-seed-1": KeyboardInterrupt()})
    status, out, err = command("--mixers", "conv,none", "--seeds", 2)
    assert status == 130
    assert [line.split()[1] for line in out.splitlines() if line.startswith("│")] == ["conv", "none"]
    assert out.splitlines()[-1] == f"report: {tmp_path / 'out' / 'report.html'}"
    assert err.splitlines()[-1].startswith("error: interrupted")
    ended = [f"{name}-seed-{seed}" for name, seed in order_of(["conv", "none"], {}, 0, 2)].index("none-seed-1")
    assert f"{ended} of 4 trainings" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_a_report_that_cannot_be_made_ends_no_comparison(monkeypatch, command, tmp_path):
    from regard.compare.classification import ClassificationView

    def section(view, contender):
        if contender.name == "conv":
            raise ValueError("no\npicture")
        return original(view, contender)

    original = ClassificationView.section
    monkeypatch.setattr(ClassificationView, "section", section)
    status, out, err = command("--mixers", "conv,none", "--seeds", 1)
    assert (status, "report: " in out) == (1, True)
    assert "error: conv, report: ValueError: no picture;" in err
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "What it does cannot be shown: ValueError: no picture" in page
    assert "<h3>Confusion matrix</h3>" in page  # of the other

    monkeypatch.setattr("regard.compare.report.values_of", lambda *_: 1 / 0)
    again = Comparison(recipe(), ["none"], 1, tmp_path / "again")
    assert [one.name for one in again.run("vit-digits", [])] == ["none"]
    assert [str(failure) for failure in again.failures] == ["report: ZeroDivisionError: division by zero"]


def test_from_python(fails, tmp_path, caplog):
    fails({"conv-seed-1": RegardError("no")})
    found = regard.compare_mixers(
        ["conv", "none"], seeds=3, out=tmp_path / "out", epochs=1, depth=1, max_steps=1, batch_size=64, device="cpu"
    )
    assert [(one.name, len(one.runs)) for one in found] == [("conv", 2), ("none", 3)]
    assert [str(failure) for failure in found[0].failures] == ["conv, seed 1: no"]
    fails({f"none-seed-{seed}": RegardError("no") for seed in range(3)})
    with pytest.raises(RegardError, match=r"no training ended well: none, seed 0: no \(and 2 more\)"):
        regard.compare_mixers(["none"], seeds=3, out=tmp_path / "all", max_steps=1, device="cpu")


def test_two_comparisons_do_not_share_a_folder(monkeypatch, tmp_path):
    """The folder is taken before the first training, and not only looked at before the trials."""
    from regard.compare import planning

    out, try_out = tmp_path / "out", planning.try_out

    def another_begins(one):
        out.mkdir(exist_ok=True)
        return try_out(one)

    monkeypatch.setattr(planning, "try_out", another_begins)
    with pytest.raises(RegardError, match="exists already; choose another folder with --out"):
        compare(recipe(), ["none"], 1, out)
    assert list(out.iterdir()) == []


def test_an_empty_folder_may_be_there(fails, tmp_path):
    fails({})
    (tmp_path / "out").mkdir()
    assert len(compare(recipe(), ["none"], 1, tmp_path / "out")) == 1


def test_a_reason_is_one_line():
    assert reason_of(RegardError("a: b")) == "a: b"
    assert reason_of(ValueError("a\n b")) == "ValueError: a b"
    assert reason_of(KeyError("x")) == "KeyError: 'x'"
    assert reason_of(ValueError()) == "ValueError: ValueError"


def test_a_training_outlives_its_report(monkeypatch, capsys, tmp_path, caplog):
    """Weights and figures are there, one line says what the report lacks, and the status is not 0."""
    from regard.compare.classification import ClassificationView

    def section(view, contender):
        raise ValueError("no\npicture")

    monkeypatch.setattr(ClassificationView, "section", section)
    monkeypatch.setattr(sys, "argv", ["regard", "train", "vit-digits", "--out", str(tmp_path / "run"), *SETTINGS])
    with pytest.raises(SystemExit) as end:
        main()
    out, err = capsys.readouterr()
    assert end.value.code == 1
    assert f"run: {tmp_path / 'run'}\n" in out
    assert err.splitlines()[-1] == (
        f"error: {tmp_path / 'run'}: is trained, but its report is not whole: ValueError: no picture"
    )
    assert "What it does cannot be shown: ValueError: no picture" in Run(tmp_path / "run").report_file.read_text(
        "utf-8"
    )
    assert regard.load(tmp_path / "run").class_names == tuple("0123456789")
    assert Run.open(tmp_path / "run").summary()["steps"] == 2

    monkeypatch.setattr("regard.compare.report.columns_of", lambda *_: 1 / 0)
    model = regard.train("vit-digits", out=tmp_path / "other", max_steps=1, depth=1, device="cpu")
    assert model.class_names == tuple("0123456789")
    assert "its report is not whole: ZeroDivisionError: division by zero" in caplog.text
    assert not (tmp_path / "other" / "report.html").exists()
