"""Every command and every piece of Python that the README shows runs, in the order in which it is shown."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from regard.cli.main import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands() -> list[list[str]]:
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line.strip()]


def run(command: list[str], folder: Path) -> str:
    """In a process of its own."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def shortened(command: list[str], folder: Path) -> list[str]:
    """What learns or looks for minutes is shown as it is meant, and tried with a few steps or images."""
    if {"seq2seq-numbers", "next-token", "detr-small", "sasa-digits"} & {*command}:
        return [*command, "--set", f"train.{'epochs=1' if command[1] == 'compare' else 'max_steps=10'}"]
    if any(word.startswith("train.max_minutes=") for word in command):
        return [*command, "--set", "train.max_minutes=0.1"]
    if "finetune-digits" in command:
        return [*command, "--data", few_images(folder)]
    if "--knn" in command:
        return [few_images(folder) if word == "digits" else word for word in command]
    return command


def few_images(folder: Path) -> str:
    """The address of six images a class of those that the README has made by then."""
    for digit in range(10):
        (folder / "few" / str(digit)).mkdir(parents=True, exist_ok=True)
        for image in sorted((folder / "my-images" / str(digit)).iterdir())[:6]:
            shutil.copy(image, folder / "few" / str(digit))
    return "folder:few"


def run_here(command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """In this process, which has imported everything already."""
    monkeypatch.setattr(sys, "argv", command)
    status: object = 0
    try:
        main()
    except SystemExit as end:
        status = end.code
    assert not status, f"{shlex.join(command)}\n{''.join(capsys.readouterr())}"


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_the_readmes_commands_and_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first of each sub-command, and the first block of Python, are run as they are typed; the others in here."""
    monkeypatch.chdir(tmp_path)
    tried: set[str] = set()
    shown = [command for command in commands() if command[0] == "regard"]
    assert {command[1] for command in shown} >= {"data", "train", "evaluate", "predict", "explain", "compare", "doctor"}
    for command in shown:
        if command[1] in tried:
            run_here(shortened(command, tmp_path), monkeypatch, capsys)
        else:
            run([sys.executable, "-m", *shortened(command, tmp_path)], tmp_path)
        tried.add(command[1])
    assert (tmp_path / "pictures" / "000-mixing.png").stat().st_size > 10_000
    assert (tmp_path / "pictures" / "512.png").stat().st_size > 10_000
    assert (tmp_path / "found" / "predictions.json").exists()
    assert (tmp_path / "measured" / "confusion.png").stat().st_size > 10_000
    assert (tmp_path / "runs/comparison/report.html").stat().st_size > 50_000
    summary = json.loads((tmp_path / "runs/mine/summary.json").read_text(encoding="utf-8"))
    assert 0 < summary["seconds"] < 600
    first, *others = blocks("python")
    run([sys.executable, "-c", first], tmp_path)
    for block in others:
        alone: dict[str, Any] = {"__name__": "__main__"}
        exec(compile(block, "README.md", "exec"), alone)


@pytest.mark.slow
def test_the_demo_that_make_runs(tmp_path: Path) -> None:
    """With a budget of one epoch a mixer, in the place of the recipe's forty, and a few seconds for the detector."""
    if shutil.which("make") is None:
        pytest.skip("there is no make")
    assert run(["make", "--no-print-directory", "--dry-run", "demo"], ROOT).splitlines()[-1].endswith("/regard demo")
    out = tmp_path / "demo"
    short = ["--set", "train.epochs=1", "--detector-minutes", "0.05"]
    told = run([sys.executable, "-m", "regard", "demo", *short, "--out", str(out)], tmp_path)
    report = (out / "report.html").read_text(encoding="utf-8")
    for mixer in ("attention", "local", "performer", "fourier", "mlp", "conv", "lstm", "none"):
        assert mixer in told
        assert mixer in report
    assert "Box refinement, layer by layer" in report
    assert "detector: AP " in told
    assert "http" not in re.findall(r'(?:src|href)="([^"]*)', report)


def test_no_other_command_is_shown() -> None:
    assert {command[0] for command in commands()} == {"make", "pip", "regard"}
