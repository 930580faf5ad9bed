"""Tiny runs of the tasks on text, records of comparisons that were never made, and a browser."""

import base64
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from itertools import combinations
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest

from regard.compare.schema import Record
from regard.recipes import Recipe, load_recipe
from regard.training import train

SMALL = ("model.embed_dim=12", "train.device=cpu", "train.max_steps=2", "train.batch_size=7")
WORDS = ("een", "twee", "drie", "vier", "vijf", "zes", "zeven", "acht", "negen", "tien", "elf", "twaalf", "dertien")


@pytest.fixture(scope="session")
def pairs_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Words and how many letters they have, 169 pairs."""
    file = tmp_path_factory.mktemp("pairs") / "words.tsv"
    lines = [f"{first} {second}\t{len(first)}{len(second)}" for first in WORDS for second in WORDS]
    file.write_text("\n".join(lines), encoding="utf-8")
    return file


@pytest.fixture(scope="session")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("text") / "words.txt"
    file.write_text(" ".join(f"{first} & {second}.\n" for first in WORDS for second in WORDS), encoding="utf-8")
    return file


@pytest.fixture(scope="session")
def pairs_recipe(pairs_file: Path) -> Callable[..., Recipe]:
    """pairs_recipe(*settings): a tiny Transformer that reads the pairs, 17 of which are held out."""

    def recipe(*settings: str) -> Recipe:
        model = ("model.num_heads=2", "model.depth=1", "model.decoder_depth=1")
        return load_recipe(
            "seq2seq-numbers", [*SMALL, *model, "data.val_fraction=0.1", *settings], address=f"pairs:{pairs_file}"
        )

    return recipe


@pytest.fixture(scope="session")
def text_recipe(text_file: Path) -> Callable[..., Recipe]:
    """text_recipe(*settings): a tiny language model of the text, with a context of 23 bytes."""

    def recipe(*settings: str) -> Recipe:
        model = ("model.num_heads=2", "model.depth=1", "model.context=23", "data.tokenizer=bytes")
        return load_recipe("next-token", [*SMALL, *model, *settings], address=f"text:{text_file}")

    return recipe


@pytest.fixture(scope="session")
def numbers_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on numbers in five languages, 20 of them held out in each."""
    path = tmp_path_factory.mktemp("numbers") / "run"
    model = ("model.num_heads=2", "model.depth=1", "model.decoder_depth=1")
    train(load_recipe("seq2seq-numbers", [*SMALL, *model, "data.val_fraction=0.0002"]), path)
    return path


@pytest.fixture(scope="session")
def pairs_run(tmp_path_factory: pytest.TempPathFactory, pairs_recipe: Callable[..., Recipe]) -> Path:
    path = tmp_path_factory.mktemp("pairs-run") / "run"
    train(pairs_recipe(), path)
    return path


@pytest.fixture(scope="session")
def recurrent_run(tmp_path_factory: pytest.TempPathFactory, pairs_file: Path) -> Path:
    path = tmp_path_factory.mktemp("recurrent-run") / "run"
    settings = [*SMALL, "model.name=recurrent_mini", "data.val_fraction=0.1"]
    train(load_recipe("seq2seq-numbers", settings, address=f"pairs:{pairs_file}"), path)
    return path


@pytest.fixture(scope="session")
def text_run(tmp_path_factory: pytest.TempPathFactory, text_recipe: Callable[..., Recipe]) -> Path:
    path = tmp_path_factory.mktemp("text-run") / "run"
    train(text_recipe(), path)
    return path


NAMES = ("conv", "attention", "local", "performer", "mlp", "fourier", "lstm", "none")


@pytest.fixture(scope="session")
def record() -> Callable[..., Record]:
    """record(names, seeds, ...): a comparison on 450 images whose figures are drawn, not measured."""
    return drawn_record


def drawn_record(
    names: tuple[str, ...] = NAMES,
    seeds: int = 5,
    *,
    best: float = 0.982,
    step: float = 0.006,
    larger_is_better: bool = True,
    metric: str = "accuracy",
    picked: str | None = "",
    **changes: Any,
) -> Record:
    """A contender's mean is `step` worse than that of the one before. `picked`: the first, unless given."""
    random, is_proportion = np.random.default_rng(0), metric in ("accuracy", "exact_match")
    sign, half = (-1 if larger_is_better else 1), 0.012
    scores = {
        name: [float(best + sign * step * place + 0.003 * random.standard_normal()) for _ in range(seeds)]
        for place, name in enumerate(names)
    }
    mean = {name: float(np.mean(of)) for name, of in scores.items()}
    cells = [
        {"contender": name, "seed": seed, "status": "done", "step": 400, "score": score, "load": 0.1}
        | {"seconds": {"steps": 20.0 + seed, "evaluation": 1.5, "saving": 0.2, "compile": 0.0}}
        | {"test_file": f"cells/{name}-seed-{seed}/test.npz"}
        for name, of in scores.items()
        for seed, score in enumerate(of)
    ]
    contenders, learning = [], []
    for place, name in enumerate(names):
        rate = 11_000 / (1 + 0.4 * place)
        cost = {
            "latency_ms": {
                "p50": 1 + place,
                "p95": 1.2 + place,
                "p99": 1.9 + place,
                "low": 0.95 + place,
                "high": 1.1 + place,
            },
            "images_per_s": {"median": rate, "low": 0.97 * rate, "high": 1.04 * rate},
            "training_images_per_s": {"median": rate / 3, "low": 0.32 * rate, "high": 0.35 * rate},
            "peak_mb": 20.0 + 5 * place,
            "inference_mb": 4.0 + place,
        }
        contenders.append(
            {
                "name": name,
                "mean": mean[name],
                "low": mean[name] - half,
                "high": min(mean[name] + half, 1.0 if is_proportion else 99.0),
            }
            | {"seed_part": 0.001, "image_part": 0.005, "interaction": 0.001, "parameters": 151_050 + 9_000 * place}
            | {"flops": {"formula": 4.9e6 * (1 + place), "counted": 4.9e6 * (1 + place)}, "cost": cost}
            | {"state": "in" if place == 0 else "out" if place > 2 else "unknown"}
        )
        for seed in range(seeds):
            at = np.linspace(0.1, 20, 40)
            loss = 2.3 * np.exp(-at / (3 + place)) + 0.02 * random.random(40)
            score = mean[name] - sign * -1 * 0.6 * np.exp(-at / (2 + place))
            learning.append(
                {"contender": name, "seed": seed, "score": list(zip(at.tolist(), score.tolist(), strict=True))}
                | {"loss": list(zip(at.tolist(), loss.tolist(), strict=True))}
            )
    pairs = []
    for a, b in combinations(names, 2):
        difference = mean[a] - mean[b]
        is_known = abs(difference) > half and seeds > 1
        verdict = ("better" if (difference > 0) == larger_is_better else "worse") if is_known else "cannot tell"
        pairs.append(
            {"a": a, "b": b, "difference": difference, "low": difference - half, "high": difference + half, "df": 11.5}
            | {"p": 0.001 if is_known else 0.2, "p_holm": 0.02 if is_known else 1.0, "verdict": verdict}
            | {"p_outperform": 0.9, "needs": None if is_known else {"seeds": 8, "images": 1900, "minutes": 4.2}}
        )
    taken = names[0] if picked == "" else picked
    sentence = (
        f"Take `{taken}`: with 95% confidence none of the others is more than 1 point better, and it is the cheapest "
        "of which that is known (87 µs an image; attention 112)."
        if taken
        else "Cannot tell yet: `mlp` is cheaper and may be as good; 3 more seeds (about 4 minutes) or 1,900 images "
        "would decide."
    )
    values: dict[str, Any] = {
        "metric": {"name": metric, "words": metric.replace("_", " "), "larger_is_better": larger_is_better}
        | {"is_proportion": is_proportion},
        "plan": {"hash": "0123456789abcdef", "contenders": names, "recipe": {"task": "classification", "seed": 0}}
        | {"recipe_name": "vit-digits", "looks": [3, 5, 8, 12], "budget": "steps=400", "until": "minutes=15"}
        | {"order": [(name, seed) for seed in range(seeds) for name in names]},
        "data": {"address": "digits", "n_train": 1347, "n_test": 450, "fingerprint": "fedcba"},
        "machine": {"processor": "a processor", "cores": 2, "threads": 1, "memory_gb": 8, "accelerator": "none"}
        | {"system": "Linux"},
        "versions": {"regard": "0.0", "torch": "2.14.1"},
        "commit": "5595e9e",
        "command": "regard compare --data digits --mixers all",
        "written": "2026-11-29",
        "stopped": "It ended after the look at 5 seeds, when the answer was known.",
        "cells": cells,
        "learning": learning,
        "contenders": contenders,
        "pairs": pairs,
        "recommendation": {"name": taken, "sentence": sentence, "rule": "in order of cost, the first that is in."},
        "measurement": {"load": 0.1, "batch_size": 64, "rounds": 30},
        "fairness": [
            {"what": "the same images, order and augmentation for all of a seed", "holds": True},
            {"what": "tuned alike", "holds": False, "note": "nothing was tuned"},
        ],
    }
    return Record.model_validate(values | changes)


class Tab:
    """One page. `evaluate` runs JavaScript in it that is no part of the page, whatever the page's policy."""

    def __init__(self, to_browser: int, answers: BinaryIO) -> None:
        self._to, self._from = to_browser, answers
        self._number = 0
        self.log: list[str] = []
        """What the browser or the page's own script said."""
        self.requests: list[str] = []
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Log", "Network", "Runtime"):
            self._ask(f"{domain}.enable")

    def open(self, file: Path) -> list[str]:
        """Loads the file, and returns what the browser complains about."""
        self.log, self.requests = [], []
        self._ask("Page.navigate", url=file.as_uri())
        while self._read().get("method") != "Page.loadEventFired":
            pass
        self.evaluate("document.title")  # whatever was logged while it was loaded has come by now
        return self.log

    def evaluate(self, expression: str) -> Any:
        result = self._ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def screen(self, width: int, height: int = 800, *, dark: bool = False) -> None:
        """The size of the window in pixels, and whether its user prefers dark pages."""
        self._ask(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._ask("Emulation.setEmulatedMedia", features=[scheme])

    def press(self, key: str) -> None:
        """A key on the element with the focus: "Enter", "Tab"."""
        code = {"Enter": 13, "Tab": 9, " ": 32}[key]
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            self._ask(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                windowsVirtualKeyCode=code,
                **(text if kind == "keyDown" else {}),
            )

    def serious(self) -> list[str]:
        """What axe finds serious or critical: for whom the page is hard to read or to reach, with where."""
        axe = Path(str(import_module("axe_playwright_python").__file__)).with_name("axe.min.js")
        self.evaluate(axe.read_text(encoding="utf-8") + "; 0")
        found, held = self.evaluate("axe.run().then(found => [found.violations, found.passes.length])")
        assert held > 5
        return [
            f"{one['id']}: {node['html'][:100]}: {node['failureSummary']}"
            for one in found
            if one["impact"] in ("serious", "critical")
            for node in one["nodes"]
        ]

    def picture(self, file: Path, *, whole: bool = True) -> None:
        """A PNG of the page."""
        found = self._ask("Page.captureScreenshot", captureBeyondViewport=whole)
        file.write_bytes(base64.b64decode(found["data"]))

    def _ask(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if hasattr(self, "_session"):
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while (answer := self._read()).get("id") != self._number:
            pass
        assert "error" not in answer, answer
        return answer["result"]

    def _read(self) -> dict[str, Any]:
        letters = bytearray()
        while (letter := self._from.read(1)) != b"\0":
            assert letter, "the browser is gone"
            letters += letter
        message = json.loads(letters)
        match message.get("method"):
            case "Log.entryAdded":
                self.log.append(message["params"]["entry"]["text"])
            case "Runtime.consoleAPICalled" | "Runtime.exceptionThrown":
                self.log.append(json.dumps(message["params"]))
            case "Network.requestWillBeSent":
                self.requests.append(message["params"]["request"]["url"])
        return message


@pytest.fixture(scope="session")
def browser() -> Callable[[Path], AbstractContextManager[Tab]]:
    """`with browser(profile) as tab`: Chromium with a profile in that folder."""
    return started


@contextmanager
def started(profile: Path) -> Iterator[Tab]:
    """Skips the test where there is no Chromium."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("there is no Chromium")
    # It reads commands from its file 3 and writes answers to 4, where a start through Python can put them.
    (read_3, to_browser), (from_browser, write_4) = os.pipe(), os.pipe()
    launcher = (
        "import os, sys; from fcntl import F_DUPFD, fcntl; read, write = (fcntl(int(end), F_DUPFD, 10) for end in "
        "sys.argv[1:3]); os.dup2(read, 3); os.dup2(write, 4); os.execv(sys.argv[3], sys.argv[3:])"
    )
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe")
    process = subprocess.Popen(
        [sys.executable, "-c", launcher, str(read_3), str(write_4), program, *options, f"--user-data-dir={profile}"],
        pass_fds=(read_3, write_4),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(read_3)
    os.close(write_4)
    try:
        with os.fdopen(from_browser, "rb") as answers:
            yield Tab(to_browser, answers)
    finally:
        os.close(to_browser)
        process.kill()
        process.wait()
