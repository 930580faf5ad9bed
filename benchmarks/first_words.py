"""How long until something is said: `import regard`, and the first line of every command that needs no data.

Run: .venv/bin/python benchmarks/first_words.py
Seconds on the clock until the first line, and of the processor until the end; the least of three tries.
Wanted: the import in 0.1 s, each command's first line in 2 s.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from peer import save

PYTHON = [sys.executable]
REGARD = [*PYTHON, "-m", "regard"]
TINY = ["--set", "train.max_steps=2", "--set", "train.device=cpu"]
TRIES = 3


def commands(folder: Path) -> dict[str, list[str]]:
    """Each sub-command as it is typed, so that it has something to say; those that train do so for two steps."""
    run, new = str(folder / "run"), str(folder / "new")
    image = str(folder / "digits" / "7" / "000.png")
    typed = {
        "--help": [],
        "models": [],
        "mixers": [],
        "recipes": [],
        "doctor": [],
        "data list": [],
        "data check": ["digits"],
        "data make": ["digits", new],
        "train": ["vit-digits", "--out", new, *TINY],
        "evaluate": [run],
        "predict": [run, image],
        "explain": [run, image, "-o", new],
        "generate": [run, "--prompt", "x"],  # a classifier writes nothing: its first line says so
        "compare": ["--mixers", "attention,fourier", "--seeds", "1", "--out", new, *TINY],
        "demo": ["--out", new, "--set", "train.max_steps=2", "--detector-minutes", "0", "--no-open"],
        "convert": [run, str(folder / "new.safetensors"), "--to", "timm"],
        "push": [run],  # without a repository: its first line says so
    }
    return {name: [*REGARD, *name.split(), *more] for name, more in typed.items()}


def first_line(command: list[str], folder: Path) -> dict[str, float | str]:
    """Seconds until the first line on stdout or stderr, processor seconds until the end, and the line."""
    environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1", "PYTHONUNBUFFERED": "1"}
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=pipe, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        line = b""
        while not line.strip() and (line := process.stdout.readline()):
            pass
        seconds = time.perf_counter() - start
        process.stdout.read()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": round(seconds, 3), "processor_seconds": round(processor, 3), "says": line.decode().strip()[:100]}


def main() -> None:
    results = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        quiet = {"cwd": folder, "check": True, "stdout": subprocess.DEVNULL}
        subprocess.run([*REGARD, "data", "make", "digits", "digits"], **quiet)  # type: ignore[call-overload]
        subprocess.run([*REGARD, "train", "vit-digits", "--out", "run", *TINY], **quiet)  # type: ignore[call-overload]
        ways = {"nothing": [*PYTHON, "-c", "print()"], "import regard": [*PYTHON, "-c", "import regard; print(1)"]}
        for way, command in {**ways, **commands(folder)}.items():
            tries = []
            for _ in range(TRIES):
                subprocess.run(["rm", "-rf", str(folder / "new"), str(folder / "new.safetensors")], check=True)
                tries.append(first_line(command, folder))
            best = min(tries, key=lambda one: one["seconds"])
            results[way] = best
            print(f"{way:14} {best['seconds']:6.2f} s, processor {best['processor_seconds']:6.2f} s: {best['says']}")
    took = results["import regard"]["seconds"] - results["nothing"]["seconds"]  # type: ignore[operator]
    late = [way for way, one in results.items() if one["seconds"] > 2]  # type: ignore[operator]
    print(f"import regard: {took:.3f} s; after 2 s say their first line: {', '.join(late) or 'none'}")
    print(f"saved to {save('first_words', {'import_seconds': took, 'tries': TRIES, 'commands': results})}")


if __name__ == "__main__":
    main()
