"""`regard compare` and `regard train` on data that is text, in this process."""

import sys

import pytest

from regard.api.training import recipe_for
from regard.cli.main import main
from regard.compare import Cost
from regard.errors import RegardError
from regard.training import Run

SMALL = ("model.embed_dim=12", "model.num_heads=2", "model.depth=1", "train.max_steps=2", "train.batch_size=7")


@pytest.fixture
def command(monkeypatch, capsys):
    """command(*words) -> (status, output, errors) of `regard WORDS` with tiny models."""
    monkeypatch.setattr(
        "regard.compare.experiment.measure_all", lambda runs, **_: {name: Cost(2.5e-5, 2.0, 7) for name in runs}
    )
    for name, value in {"COLUMNS": "160", "NO_COLOR": "1", "TERM": "dumb"}.items():
        monkeypatch.setenv(name, value)

    def run(*words):
        settings = [word for setting in (*SMALL, "train.device=cpu") for word in ("--set", setting)]
        monkeypatch.setattr(sys, "argv", ["regard", *map(str, words), *settings])
        capsys.readouterr()
        status = 0
        try:
            main()
        except SystemExit as end:
            status = end.code or 0
        return status, *capsys.readouterr()

    return run


@pytest.mark.parametrize(
    ("data", "recipe"),
    [
        (None, "vit-digits"),
        ("digits", "vit-digits"),
        ("folder:x", "small-images"),
        ("torchvision:MNIST", "small-images"),
        ("numbers", "seq2seq-numbers"),
        ("pairs:x.tsv", "seq2seq-numbers"),
        ("pydoc", "next-token"),
        ("text:x.txt", "next-token"),
    ],
)
def test_the_data_choose_the_recipe(data, recipe):
    assert recipe_for(data) == recipe


def test_data_of_no_known_kind_choose_none():
    with pytest.raises(RegardError, match="did you mean 'numbers'"):
        recipe_for("number")


def cells(out, name):
    """Of the table's row that begins with a name."""
    return next(line for line in out.splitlines() if line.startswith(f"│ {name} ")).replace("│", " ").split()


def test_compare_of_pairs(command, pairs_file, tmp_path):
    out_folder = tmp_path / "out"
    words = (
        "compare",
        "--data",
        f"pairs:{pairs_file}",
        "--mixers",
        "none,recurrent_mini",
        "--seeds",
        "1",
        "--out",
        out_folder,
    )
    status, out, _ = command(*words)
    assert status == 0
    summary = Run.open(out_folder / "none-seed-0").summary()
    assert cells(out, "none")[:4] == [
        "none",
        f"{summary['exact_match']:.1%}",
        f"{summary['parameters']:,}",
        f"{summary['flops'] / 1e6:.2f}",
    ]
    assert cells(out, "recurrent_mini")[4:6] == ["25", "2.0"]
    assert "exact match" in out
    assert "µs/pair" in out
    html = (out_folder / "report.html").read_text(encoding="utf-8")
    assert "<title>Which model?</title>" in html
    assert "regard compare --mixers none,recurrent_mini --recipe seq2seq-numbers --seeds 1 --data pairs:" in html


def test_compare_of_all_that_can_go_on_with_a_text(command, text_file, tmp_path):
    status, out, err = command(
        *(
            "compare",
            "--data",
            f"text:{text_file}",
            "--set",
            "model.context=23",
            "--seeds",
            "1",
            "--out",
            tmp_path / "out",
        )
    )
    assert status == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "attention-seed-0",
        "performer-seed-0",
        "report.html",
        "plan.json",
        "costs.json",
    }
    left_out = "Left out, since the recipe cannot train them: local, fourier, mlp, conv, lstm, none: cannot be causal"
    assert left_out in err
    html = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert left_out in html
    assert "<title>Which token mixer?</title>" in html
    bits = Run.open(tmp_path / "out" / "performer-seed-0").summary()["bits_per_byte"]
    assert cells(out, "performer")[1] == f"{bits:.3f}"
    assert "µs/window" in out


def test_a_mixer_that_cannot_serve_is_listed_and_the_rest_goes_on(command, pairs_file, tmp_path):
    words = ("compare", "--data", f"pairs:{pairs_file}", "--mixers", "attention,none,fourier", "--seeds", 2)
    status, out, err = command(*words, "--out", tmp_path / "out", "--set", "data.val_fraction=0.1")
    assert status == 0, err
    assert "fourier cannot run: fourier: does not support a mask (tried on a batch of 8 pairs)\n" in err
    assert {path.name.partition("-")[0] for path in (tmp_path / "out").glob("*-seed-*")} == {"attention", "none"}
    html = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "does not support a mask (tried on a batch of 8 pairs)" in html
    assert cells(out, "attention")[0] == "attention"


def test_a_recipe_for_other_data_is_one_line(command, pairs_file, tmp_path):
    words = ("compare", "--data", f"pairs:{pairs_file}", "--recipe", "next-token", "--out", tmp_path / "out")
    status, _, err = command(*words)
    assert status == 2
    assert err.startswith(f"error: data address 'pairs:{pairs_file}' gives pairs of texts; text can come from")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("recipe", "metric", "unit"),
    [("seq2seq-numbers", "exact_match", "pairs"), ("next-token", "bits_per_byte", "windows")],
)
def test_train_tells_the_metrics_of_its_task(command, pairs_file, text_file, tmp_path, recipe, metric, unit):
    data = f"pairs:{pairs_file}" if unit == "pairs" else f"text:{text_file}"
    status, out, err = command("train", recipe, "--data", data, "--out", tmp_path / "run")
    assert status == 0
    summary = Run.open(tmp_path / "run").summary()
    first, *others = out.splitlines()
    assert first.startswith(f"{metric} {summary[metric]:.4f}, loss {summary['loss']:.4f} after 2 steps in ")
    assert first.endswith(f"({summary[f'{unit}_per_second']:.0f} {unit}/s)")
    assert others == [f"run: {tmp_path / 'run'}", f"report: {tmp_path / 'run' / 'report.html'}"]
    assert "skipped" not in err
