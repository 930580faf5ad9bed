"""`regard scale`: what it prints, what it writes, and its errors."""

import json
import re

import pytest

import regard.compare.scale


class Watch:
    """Answers at once: each call takes as many microseconds as there are tokens, a training step three times that."""

    def __init__(self, settings):
        self.settings = settings

    def ask(self, request):
        seconds = 1e-6 * request["side"] ** 2 * (3 if request["step"] == "training" else 1)
        return {"seconds": [seconds * (1 + 0.01 * number) for number in range(request["samples"])]}

    def close(self):
        pass


@pytest.fixture(autouse=True)
def scripted(monkeypatch):
    monkeypatch.setattr(regard.compare.scale, "_worker", Watch)
    monkeypatch.setattr(regard.compare.scale, "busy_cores", lambda: 0.0)
    monkeypatch.setattr(regard.compare.scale, "MOST", 6)


def test_it_prints_curves_and_what_follows_and_writes_files(regard, tmp_path):
    told = regard(
        "scale",
        "--mixers",
        "attention, conv",
        "--max-tokens",
        784,
        "--embed-dim",
        12,
        "--step",
        "both",
        "--device",
        "cpu",
        "--out",
        tmp_path / "out",
        "--json",
        tmp_path / "more" / "scale.json",
    )
    assert told.status == 0, told.err
    assert (
        told.out.count("forward pass, ms") == told.out.count("training step, ms") == 2
    )  # the first curves, and the last
    first, last = told.out.index("first curves, after"), told.out.rindex("training step")
    assert first < last
    assert re.search(r"784 +0\.7\d+ +0\.7\d+", told.out)
    assert "Slope of a forward pass at the largest number of tokens measured: attention 1.00 (" in told.out
    assert "A training step costs less than attention’s: conv: " in told.out
    assert told.out.splitlines()[-1] == f"page: {tmp_path / 'out' / 'scale.html'}"
    held = json.loads((tmp_path / "more" / "scale.json").read_text(encoding="utf-8"))
    assert held == json.loads((tmp_path / "out" / "scale.json").read_text(encoding="utf-8"))
    assert held["command"].startswith("regard scale --mixers 'attention, conv' --max-tokens 784 --embed-dim 12 --step")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--mixers", "atention"], ["scale: unknown mixer 'atention'; did you mean 'attention'?"]),
        (["--mixers", "conv,conv"], ["name each mixer once"]),
        (["--step", "foward"], ["unknown step 'foward'; did you mean 'forward'?"]),
        (["--max-tokens", 10], ["--max-tokens is 10; it must be at least 49"]),
        (["--embed-dim", 10], ["--embed-dim is 10; it must be a multiple of 3"]),
        (["--seconds", 0], ["--seconds is 0"]),
        (["--threads", 0], ["--threads is 0"]),
        (["--device", "gpu"], ["unknown device 'gpu'; did you mean 'cuda'?"]),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(regard, tmp_path, arguments, parts):
    regard("scale", *arguments, "--out", tmp_path / "out", "--json", tmp_path / "scale.json").fails(*parts)
    assert not [*tmp_path.iterdir()]


def test_a_folder_with_something_in_it(regard, tmp_path):
    (tmp_path / "mine").touch()
    regard("scale", "--mixers", "none", "--out", tmp_path).fails(f"{tmp_path}: exists already")
    regard("scale", "--mixers", "none", "--json", tmp_path).fails(f"{tmp_path}: is a folder; --json names a file")
