"""What the checks of arguments cost: attention, local attention and a training step against another checkout.

Run: .venv/bin/python benchmarks/checks.py --before PATH [--rounds 200] [--only attention]
PATH is a checkout of the commit to compare with (git worktree add PATH COMMIT). Each checkout has a process of its own;
the two take turns, and every other round runs in reverse. A row is the median over the rounds of after / before, and of
the difference in microseconds a call. float32, one thread, batch 1 unless the row says otherwise.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[1]
TURN = 2e-3
"""Seconds that one turn takes at least: short calls are repeated."""


def cases() -> dict[str, Callable[[], object]]:
    """In the worker: what is timed, by name. It uses nothing that the other checkout might not have."""
    import torch

    from regard.models import ViT
    from regard.models.presets import PRESETS
    from regard.ops import attention, local_attention

    torch.set_num_threads(1)
    torch.manual_seed(0)
    found: dict[str, Callable[[], object]] = {}

    def add(name: str, call: Callable[..., Any], *tensors: torch.Tensor) -> None:
        def values() -> object:
            with torch.no_grad():
                return call(*tensors)

        leaves = [part.clone().requires_grad_() for part in tensors]

        def gradients() -> object:
            out = call(*leaves)
            return torch.autograd.grad(out.sum(), leaves)

        found[name] = values
        found[f"{name}, with gradients"] = gradients

    for tokens in (8, 17, 65, 196, 197, 784):
        add(f"attention, {tokens} tokens", attention, *torch.randn(3, 1, 3, tokens, 64))
    keys = torch.arange(196)[None, None, None] < 150
    add("attention, 196 tokens, mask", lambda q, k, v: attention(q, k, v, mask=keys), *torch.randn(3, 1, 3, 196, 64))
    add(
        "attention, 196 tokens, causal",
        lambda q, k, v: attention(q, k, v, is_causal=True),
        *torch.randn(3, 1, 3, 196, 64),
    )
    rows, cols = torch.randn(7, 16), torch.randn(7, 16)
    for side in (4, 7, 14, 28, 56):
        for impl in ("native", "blocked") if side < 56 else ("native",):

            def local(q: Any, k: Any, v: Any, impl: str = impl) -> Any:
                return local_attention(q, k, v, window=7, rel_rows=rows, rel_cols=cols, impl=impl)

            add(f"local attention, {side} x {side}, {impl}", local, *torch.randn(3, 1, 4, side, side, 32))
    prefix = tuple(torch.randn(3, 1, 4, 1, 32))
    add(
        "local attention, 14 x 14, native, prefix",
        lambda q, k, v: local_attention(q, k, v, window=7, rel_rows=rows, rel_cols=cols, prefix=prefix)[0],
        *torch.randn(3, 1, 4, 14, 14, 32),
    )
    for mixer in ("attention", "local"):
        found[f"training step of vit-digits, batch 128, {mixer}"] = _step(torch, ViT, PRESETS, mixer)
    return found


def _step(torch: Any, vit: Any, presets: Any, mixer: str) -> Callable[[], object]:
    from dataclasses import replace

    options = {"window": 3} if mixer == "local" else {}
    model = vit(replace(presets["vit_pico_patch2_8"], in_chans=1, num_classes=10, mixer=mixer, mixer_options=options))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    images, labels = torch.randn(128, 1, 8, 8), torch.arange(128) % 10

    def step() -> object:
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        return optimizer.step()

    return step


def work() -> None:
    """Answers each line "name repetitions" with the seconds of a call."""
    found = cases()
    print(json.dumps(list(found)), flush=True)
    for line in sys.stdin:
        name, repetitions = json.loads(line)
        call = found[name]
        start = time.perf_counter()
        for _ in range(repetitions):
            call()
        print((time.perf_counter() - start) / repetitions, flush=True)


class Worker:
    """A checkout in a process of its own."""

    def __init__(self, checkout: Path) -> None:
        # Freed memory is kept: fresh pages cost more than what is measured, and not the same in both processes.
        kept = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**33), "OMP_NUM_THREADS": "1"}
        environment = os.environ | kept | {"PYTHONPATH": str(checkout / "src")}
        command = [sys.executable, __file__, "--work", "--before", "."]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=checkout
        )
        self.names: list[str] = json.loads(self._read())

    def seconds(self, name: str, repetitions: int) -> float:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([name, repetitions]) + "\n")
        self.process.stdin.flush()
        return float(self._read())

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def _read(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("a worker ended; its error stands above")
        return line


def compared(before: Worker, after: Worker, name: str, rounds: int) -> dict[str, object]:
    once = min(before.seconds(name, 3), before.seconds(name, 3))
    after.seconds(name, 3)
    repetitions = max(1, round(TURN / once))
    pairs = []
    for turn in range(rounds):
        order = [before, after] if turn % 2 == 0 else [after, before]
        taken = {worker: worker.seconds(name, repetitions) for worker in order}
        pairs.append((taken[before], taken[after]))
    return {
        "case": name,
        "before_us": round(statistics.median(old for old, _ in pairs) * 1e6, 1),
        "ratio": round(statistics.median(new / old for old, new in pairs), 4),
        "more_us": round(statistics.median(new - old for old, new in pairs) * 1e6, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, required=True, help="a checkout of the commit to compare with")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--only", default="", help="cases whose names hold this")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work()
        return
    from peer import save

    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=options.before, capture_output=True, text=True, check=False
    ).stdout.strip()
    before, after = Worker(options.before.resolve()), Worker(HERE)
    rows = []
    for name in before.names:
        if options.only in name:
            rows.append(compared(before, after, name, options.rounds))
            print("{case:55} {before_us:10.1f} us  x {ratio:.4f}  {more_us:+8.2f} us".format(**rows[-1]), flush=True)
    for worker in (before, after):
        worker.close()
    if not options.only:
        print(f"saved to {save('checks', {'before': commit, 'rounds': options.rounds, 'rows': rows})}")


if __name__ == "__main__":
    main()
