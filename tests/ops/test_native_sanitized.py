"""The C++ path of local attention under AddressSanitizer and UBSan: native_fuzz.cpp calls it with random cases.

`make sanitize` does it for smaller vectors too, as other processors have them.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

CASES = 2000
WATCHED = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fopenmp", "-std=c++17")
VECTORS = {"native": ["-march=native"], "avx2": ["-mavx2", "-mfma"], "sse": []}
# Fresh memory is full of NaN, so that a result of it shows. Leaks are no matter here: a thread keeps its memory.
OPTIONS = {"ASAN_OPTIONS": "detect_leaks=0:malloc_fill_byte=255:max_malloc_fill_size=1000000000"}


@pytest.fixture
def compiler(tmp_path):
    found = shutil.which("g++") or shutil.which("c++")
    if found is None:
        pytest.skip("no compiler")
    (tmp_path / "empty.cpp").write_text("int main() {}")
    empty = [found, *WATCHED, str(tmp_path / "empty.cpp"), "-o", str(tmp_path / "empty")]
    for command in (empty, [str(tmp_path / "empty")]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"no sanitizers: {(done.stderr.strip() or 'they do not run here').splitlines()[0]}")
    return found


@pytest.mark.slow
@pytest.mark.parametrize("vectors", VECTORS if os.environ.get("REGARD_SANITIZE") == "all" else ["native"])
def test_no_case_reads_or_writes_beyond_its_tensors(vectors, compiler, tmp_path):
    if vectors == "avx2" and "avx2" not in Path("/proc/cpuinfo").read_text():
        pytest.skip("no AVX2")
    source, program = Path(__file__).with_name("native_fuzz.cpp"), tmp_path / "native_fuzz"
    subprocess.run([compiler, "-O1", *WATCHED, *VECTORS[vectors], str(source), "-o", str(program)], check=True)
    command, environment = [str(program), "0", str(CASES)], {**os.environ, **OPTIONS}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    counts = [int(part.split()[0]) for part in done.stdout.split(",")]
    assert sum(counts) == CASES
    assert min(counts) > CASES // 5
