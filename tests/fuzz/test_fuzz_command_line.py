"""Misuse of every command: exit status 0, 1 or 2, one line for 1, no traceback, and nothing raw on the terminal."""

import os
import random
import re
import shutil
import sys
from pathlib import Path

import pytest
import typer
from PIL import Image

from regard.cli.main import app, main
from regard.errors import RegardError

RUNS = Path(__file__).parents[1] / "golden_runs"
# What would train for minutes, or list without a look at its arguments.
LEFT_OUT = {("demo",), ("models",), ("mixers",), ("recipes",), ("doctor",), ("data", "list"), ("data", "make")}
ODD = (
    *("", " ", "-", "--", "-1", "0", "1e400", "nan", "inf", "9" * 400, "true", "none", "None", "=", "a=b", "=1"),
    *("\x1b[31mred", "a\nb", "a\tb", "\u202egnp.a", "caf\udce9", "名前.png", "$\\frac{$", "%s%n", "{0}", "[bold]"),
    *("/", "/dev/null", "/dev/zero", "..", "~", "~nobody-here/a", "x" * 300, "a/" * 200, "\\\\server\\share", "a\x07"),
    *("cpu", "cuda:99", "gpu", "tpu:x", "best", "auto", "digits", "folder:", "folder:/", "coco:", ":", "a:b:c", "no:x"),
    *("vit-digits", "detr-small", "vit_base_patch16_224", "attention,attention", "all,none", "local", "train.lr=-1"),
    *("model.depth=1000000000000", "data.mean=[nan]", "seed=true", "train={}", "a.b.c=1", "train.lr=none", "timm"),
    *("0,0", "[1, 2", "yolo:/", "voc:.", "text:", "hf-hub:", "local-dir:", "torchvision:", "matrix", "1,1,1"),
)


def commands(group, path=()):
    """(words, parameters) of each command."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        elif (*path, name) not in LEFT_OUT:
            yield (*path, name), command.params


@pytest.fixture
def things(tmp_path, monkeypatch):
    """Files and folders of every kind to be named, in the folder that the commands run in."""
    Image.effect_noise((16, 16), 90).save(tmp_path / "a.png")
    (tmp_path / "bad.png").write_bytes(b"no image")
    (tmp_path / "empty.json").write_bytes(b"")
    (tmp_path / "list.json").write_text("[1, 2]", encoding="utf-8")
    (tmp_path / "bad.toml").write_text("[model\n", encoding="utf-8")
    (tmp_path / "lines.txt").write_bytes(b"vier\nacht\n\xff\n")
    (tmp_path / "folder").mkdir()
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png")).write_bytes((tmp_path / "a.png").read_bytes())
    os.mkfifo(tmp_path / "pipe")
    for task in ("classification", "detection", "seq2seq", "next_token"):
        shutil.copytree(RUNS / task, tmp_path / task)
    (tmp_path / "classification" / "model.safetensors").write_bytes(b"cut short")

    def stop(*_, **__):
        raise RegardError("this would begin now")

    monkeypatch.setattr("regard.api.training.train_run", stop)
    monkeypatch.setattr("regard.api.training.Comparison.run", stop)
    monkeypatch.setattr("regard.training.push_to_hub.push_run", stop)
    for name in ("CUDA_VISIBLE_DEVICES", "HF_HUB_OFFLINE"):
        monkeypatch.setenv(name, "" if name.startswith("CUDA") else "1")
    monkeypatch.chdir(tmp_path)
    return sorted(path.name for path in tmp_path.iterdir())


def misused(draw, words, parameters, things):
    """A command line of one command, with arguments and options of every kind."""
    pool = [*ODD, *things, *things]
    line = list(words)
    for parameter in parameters:
        is_option = parameter.param_type_name == "option"
        if draw.random() > (0.25 if is_option else 0.95):
            continue
        if is_option:
            line.append(draw.choice(parameter.opts))
        if not getattr(parameter, "is_flag", False):
            choices = getattr(getattr(parameter, "type", None), "choices", None)
            sound = str(draw.choice(list(choices))) if choices else str(draw.choice([1, 2, 0.5]))
            line += [sound if is_option and draw.random() < 0.5 else draw.choice(pool)]
            line += [draw.choice(things) for _ in range(draw.choice([0, 0, 1, 2])) if not is_option]
    if draw.random() < 0.1:
        line.insert(draw.randrange(len(line) + 1), draw.choice(["--no-such", "-Z", "--out=", "--json=1", *ODD]))
    return line


def test_no_command_line_gives_a_traceback(fuzz_cases, things, monkeypatch, capsys):
    for name, value in {"COLUMNS": "160", "NO_COLOR": "1", "TERM": "dumb"}.items():
        monkeypatch.setenv(name, value)
    known = sorted(commands(typer.main.get_command(app)))
    for seed in fuzz_cases:
        draw = random.Random(seed)
        line = misused(draw, *known[seed % len(known)], things)
        monkeypatch.setattr(sys, "argv", ["regard", *line])
        capsys.readouterr()
        status: object = 0
        try:
            main()
        except SystemExit as end:
            status = end.code or 0
        except BaseException as error:
            raise AssertionError(f"case {seed}: {line}") from error
        out, err = capsys.readouterr()
        said = f"case {seed}: {line}: {status}: {err}"
        assert status in (0, 1, 2), said
        assert "Traceback" not in err, said
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", out + err), said
        if status == 1:
            errors = [
                text for text in err.splitlines() if not text.startswith("warning: ") and "passed over" not in text
            ]
            assert errors, said
            assert all(text.startswith("error: ") for text in errors), said
