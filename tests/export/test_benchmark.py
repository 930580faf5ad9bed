"""`regard benchmark`: contenders, what is said of them, and what is refused."""

import json
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

import pytest
from tests_of_export import command

import regard
from regard import RegardError
from regard.api import benchmarking
from regard.api.benchmark_process import Process

GOLDEN = Path(__file__).parent.parent / "golden_runs"
RUN = GOLDEN / "classification"


class Timed(Process):
    """In the place of a process: the seconds that its engine takes."""

    wanted: ClassVar[list] = []
    seconds_of: ClassVar[dict] = {}

    def __init__(self, name, wanted, threads):
        if name not in self.seconds_of:
            raise RegardError(f"{name}: cannot")
        self.name, self.first_answer_seconds = name, 2.5
        self.wanted.append(wanted)

    def seconds(self, place, calls):
        return self.seconds_of[self.name][place]

    def memory_mb(self):
        return 100.0

    def end(self):
        self.wanted.append("ended")


@pytest.fixture
def timed(monkeypatch):
    def use(**seconds):
        named = {name.replace("_fp32", " fp32"): found for name, found in seconds.items()}
        monkeypatch.setattr(Timed, "seconds_of", named)
        monkeypatch.setattr(Timed, "wanted", [])
        monkeypatch.setattr(benchmarking, "Process", Timed)
        monkeypatch.setattr(benchmarking, "_load_average", lambda: 0.0)
        return Timed.wanted

    return use


def test_what_is_said(timed):
    wanted = timed(torch_fp32=(0.004, 0.008), optimize_fp32=(0.002, 0.016))
    found = regard.benchmark(RUN, engines=["torch", "optimize"], precisions=["fp32"], batches=[1, 8], threads=1)
    one, other = found.contenders
    assert [one.name, other.name] == ["torch fp32", "optimize fp32"]
    assert one.milliseconds == pytest.approx({1: 4, 8: 1})
    assert other.milliseconds == pytest.approx({1: 2, 8: 2})
    assert other.times_as_fast[1].value == pytest.approx(2)
    assert one.memory_mb == 100
    assert one.first_answer_seconds == 2.5
    assert (one.metric, found.images_are) == ("accuracy", "held-out")
    assert one.score == other.score == regard.evaluate(RUN, device="cpu").metrics()["accuracy"]
    assert found.sentence == ("for a batch of 1 use optimize fp32; for a batch of 8 use torch fp32 (on this machine)")
    assert [one["engine"] for one in wanted[:2]] == ["torch", "optimize"]
    assert wanted[2:] == ["ended", "ended"]
    assert json.loads(json.dumps(found.to_dict()))["verdicts"]["1"]["use"] == "optimize fp32"


def test_what_cannot_be_told_and_what_is_left_out(timed):
    timed(torch_fp32=(0.004,))
    found = regard.benchmark(RUN, engines=["torch", "optimize"], precisions=["fp32"], accuracy=False)
    assert found.sentence == "use torch fp32 on this machine"
    assert found.contenders[1].fault == "optimize fp32: cannot"
    assert found.contenders[0].score is None
    timed(torch_fp32=(0.004,), optimize_fp32=(0.00405,))
    found = regard.benchmark(RUN, engines=["torch", "optimize"], precisions=["fp32"], accuracy=False)
    assert found.sentence == "cannot tell between torch fp32 and optimize fp32 on this machine"
    timed()
    with pytest.raises(RegardError, match="nothing could be timed: torch fp32: cannot"):
        regard.benchmark(RUN, engines=["torch"], precisions=["fp32"], accuracy=False)


def test_a_run_that_is_named_twice_has_two_names(timed):
    timed(**{f"{RUN} torch fp32": (1,), f"{RUN} torch fp32 (2)": (1,)})
    found = regard.benchmark([RUN, RUN], engines=["torch"], precisions=["fp32"], accuracy=False)
    assert [one.name for one in found.contenders] == [f"{RUN} torch fp32", f"{RUN} torch fp32 (2)"]
    assert found.verdicts[1].use is None


def test_a_busy_machine_is_a_warning(timed, monkeypatch):
    timed(torch_fp32=(1,))
    monkeypatch.setattr(benchmarking, "_load_average", lambda: 99.0)
    found = regard.benchmark(RUN, engines=["torch"], precisions=["fp32"], accuracy=False)
    assert found.warnings[0].startswith("the machine is busy (load average 99.0")


@pytest.mark.slow
def test_a_process_answers_and_ends():
    wanted = {"source": str(RUN), "engine": "torch", "precision": "fp32", "weights": "model", "threads": 1}
    process = Process("a", {**wanted, "batches": [1, 2], "images": []}, 1)
    try:
        assert process.first_answer_seconds > process.seconds(0, 3) > 0
        assert process.seconds(1, 1) > 0
        assert 50 < process.memory_mb() < 4000
    finally:
        process.end()
    with pytest.raises(RegardError, match=r"^a: nowhere: is not a folder"):
        Process("a", {**wanted, "source": "nowhere", "batches": [1], "images": []}, 1)
    with pytest.raises(RegardError, match=r"^a: its process ended \(KeyError"):
        Process("a", {"threads": 1}, 1)


@pytest.mark.parametrize(
    ("sources", "options", "told"),
    [
        (RUN, {"engines": ["opnvino"]}, "did you mean 'openvino'"),
        (RUN, {"engines": ["onnx"], "precisions": ["bf16"]}, "onnx has fp32"),
        (RUN, {"precisions": ["fp64"]}, "Known: bf16, fp32"),
        (RUN, {"turns": 5}, "--turns 5: must be a number from 6"),
        (RUN, {"batches": [0]}, "--batch 0"),
        (RUN, {"batches": []}, "the size of a batch"),
        (RUN, {"threads": 0}, "--threads 0"),
        ([], {}, "name a run or an exported file"),
        ("nowhere", {}, "is not a folder and no pretrained model"),
        (GOLDEN / "seq2seq", {}, "reads texts"),
    ],
)
def test_what_is_refused(sources, options, told):
    with pytest.raises(RegardError) as caught:
        regard.benchmark(sources, **options)
    assert told in str(caught.value)


def test_an_engine_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(RegardError, match=r"needs the package openvino: pip install 'regard\[openvino\]'"):
        regard.benchmark(RUN, engines=["openvino"], precisions=["fp32"])


@pytest.mark.slow
@pytest.mark.skipif(find_spec("onnxscript") is None or find_spec("onnxruntime") is None, reason="needs regard[onnx]")
def test_the_command(tmp_path):
    shutil.copytree(RUN, tmp_path / "run")

    def done_in_folder(*words):
        done = command(*words, cwd=tmp_path, COLUMNS="120")
        assert done.returncode == 0, done.stderr
        return done

    done_in_folder("export", "run", "-o", "a.onnx")
    shutil.copy(tmp_path / "a.onnx", tmp_path / "b.onnx")
    done = done_in_folder(
        *("benchmark", "run", "a.onnx", "b.onnx", "--engines", "torch,onnx", "--precision", "fp32", "--turns", "6"),
        *("--threads", "1", "--end-to-end", "--batch", "1,3", "-o", "out"),
    )
    assert "use " in done.stdout or "cannot tell between" in done.stdout
    found = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    assert [one["name"] for one in found["contenders"]] == ["run torch fp32", "run onnx fp32", "a.onnx", "b.onnx"]
    assert len({one["score"] for one in found["contenders"]}) == 1
    assert all(one["fault"] is None for one in found["contenders"])
    assert all(one["milliseconds"].keys() == {"1", "3"} for one in found["contenders"])
    assert all(one["first_answer_seconds"] > 0.5 for one in found["contenders"])
    assert len((tmp_path / "out" / "benchmark.csv").read_text().splitlines()) == 9
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == sorted(path.name for path in RUN.iterdir())
