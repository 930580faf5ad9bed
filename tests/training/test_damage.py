"""Every file of a run folder is flipped, cut, removed or swapped, one at a time: the right result, or one line."""

import random
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from regard import evaluate
from regard.compare import contender, write_report
from regard.errors import RegardError
from regard.recipes import load_recipe
from regard.training import Bar, Run, load_predictor, resumed_recipe, train

IMAGES = (
    *("model.depth=1", "model.embed_dim=16", "model.num_heads=2", "train.batch_size=64", "train.device=cpu"),
    *("train.max_steps=6", "train.save_every_steps=2", "train.evaluate_every_steps=2", "train.ema_decay=0.5"),
)
TEXT = (
    *("model.depth=1", "model.embed_dim=16", "model.num_heads=2", "model.context=16", "train.batch_size=4"),
    *("train.device=cpu", "train.max_steps=3", "train.epochs=none", "train.max_minutes=none"),
)
WAYS = ("flip", "cut", "remove", "swap")


class Killed(Exception):  # noqa: N818
    """Stands for a kill."""


def killed(recipe, folder: Path, step: int) -> Path:
    """A run of `recipe` that was killed before the record of a step."""

    class Stop(Bar):
        def update(self, share: float, text: str) -> None:
            if text.startswith("epoch") and (folder / "state" / "latest").exists():
                raise Killed

    with pytest.raises(Killed):
        train(recipe, folder, bar=Stop(visible=False))
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    """A run that was killed after its first state, one that nothing disturbed, and another one of another seed."""
    home = tmp_path_factory.mktemp("damage")
    recipe = load_recipe("vit-digits", IMAGES)
    train(recipe, home / "whole")
    train(load_recipe("vit-digits", [*IMAGES, "seed=1"]), home / "other")
    return {"whole": home / "whole", "other": home / "other", "killed": killed(recipe, home / "killed", 3)}


def files_of(run: Path) -> list[Path]:
    found = [path.relative_to(run) for path in run.rglob("*") if path.is_file()]
    return sorted(path for path in found if path.parts[0] != "tensorboard" and "random_states" not in path.name)


def damage(run: Path, file: Path, way: str, draw: random.Random, other: Path) -> str:
    """What was done to a file of a copy of a run."""
    path, content = run / file, bytearray((run / file).read_bytes())
    if way == "remove" or (way == "swap" and not (other / file).is_file()):
        path.unlink()
    elif way == "swap":
        path.write_bytes((other / file).read_bytes())
    elif way == "cut":
        path.write_bytes(content[: draw.randrange(len(content))])
    else:
        place = draw.randrange(len(content))
        content[place] ^= 1 << draw.randrange(8)
        path.write_bytes(content)
        return f"{file}: bit of byte {place}"
    return f"{file}: {way}"


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(tensor, b[name]) for name, tensor in a.items())


def one_line(error: RegardError) -> None:
    assert str(error)
    assert "\n" not in str(error)


def check_resumed(run: Path, whole: Path, what: str) -> None:
    states = {path.name for path in (run / "state").glob("step-*")}
    before = {file: (run / file).read_bytes() for file in files_of(run)}
    try:
        train(resumed_recipe(Run.open(run)), run, resume=True, bar=Bar(visible=False))
    except RegardError as error:
        one_line(error)
        assert {path.name for path in (run / "state").glob("step-*")} >= states, what
        assert {file: (run / file).read_bytes() for file in files_of(run)}.items() >= {
            file: content for file, content in before.items() if file.parts[0] != "metrics.jsonl"
        }.items(), what
        return
    assert same(load_file(run / "model.safetensors"), load_file(whole / "model.safetensors")), what
    assert same(load_file(run / "best.safetensors"), load_file(whole / "best.safetensors")), what
    steps = [record["step"] for record in Run(run).history() if record["kind"] == "train"]
    assert set(steps) <= {1, 2, 3, 4, 5, 6}
    assert steps[-1] == 6


def check_used(run: Path, whole: Path, what: str) -> None:
    """Predictions, and an evaluation on what was held out, are those of the run as it was, or one line."""
    wanted = load_predictor(whole)
    for weights in ("model", "best"):
        try:
            found = load_predictor(run, weights=weights)
        except RegardError as error:
            one_line(error)
            continue
        reference = load_predictor(whole, weights=weights)
        assert same(found.model.state_dict(), reference.model.state_dict()), what
        assert found.class_names == wanted.class_names, what
        assert found.preprocessing == wanted.preprocessing, what
    try:
        measured = evaluate(run, device="cpu")
    except RegardError as error:
        one_line(error)
        return
    assert measured.metrics() == evaluate(whole, device="cpu").metrics(), what


def check_reported(run: Path, what: str) -> None:
    try:
        found = contender("run", [run], with_cost=False)
        write_report(run / "report.html", title="t", contenders=[found], command="")
    except RegardError as error:
        one_line(error)
        return
    assert (run / "report.html").stat().st_size > 10_000, what


def cases(run: Path, seed: int, count: int) -> list[tuple[Path, str, random.Random]]:
    """Each file in each way in turn, `count` times in all."""
    every = [(file, way) for file in files_of(run) for way in WAYS]
    draw = random.Random(seed)
    draw.shuffle(every)
    return [(*every[number % len(every)], random.Random(seed * 1000 + number)) for number in range(count)]


@pytest.mark.parametrize(
    ("seed", "count"), [(1, 12), pytest.param(2, 150, marks=pytest.mark.slow)], ids=["some", "many"]
)
def test_a_damaged_run_is_resumed_rightly_or_not_at_all(runs, tmp_path, seed, count):
    for number, (file, way, draw) in enumerate(cases(runs["killed"], seed, count)):
        run = Path(shutil.copytree(runs["killed"], tmp_path / str(number) / "run"))
        what = damage(run, file, way, draw, runs["other"])
        check_resumed(run, runs["whole"], what)
        shutil.rmtree(run)


@pytest.mark.parametrize(
    ("seed", "count"), [(3, 12), pytest.param(4, 110, marks=pytest.mark.slow)], ids=["some", "many"]
)
def test_a_damaged_run_is_used_rightly_or_not_at_all(runs, tmp_path, seed, count):
    for number, (file, way, draw) in enumerate(cases(runs["whole"], seed, count)):
        run = Path(shutil.copytree(runs["whole"], tmp_path / str(number) / "run"))
        what = damage(run, file, way, draw, runs["other"])
        check_used(run, runs["whole"], what)
        if number % 10 == 0:
            check_reported(run, what)
        shutil.rmtree(run)


@pytest.mark.slow
def test_a_damaged_run_of_text(tmp_path):
    recipe = load_recipe("next-token", TEXT)
    train(recipe, tmp_path / "whole")
    for number, (file, way, draw) in enumerate(cases(tmp_path / "whole", 5, 24)):
        run = Path(shutil.copytree(tmp_path / "whole", tmp_path / str(number) / "run"))
        what = damage(run, file, way, draw, tmp_path / "nowhere")
        try:
            train(resumed_recipe(Run.open(run)), run, resume=True, bar=Bar(visible=False))
        except RegardError as error:
            one_line(error)
        else:
            wanted = load_file(tmp_path / "whole" / "model.safetensors")
            assert same(load_file(run / "model.safetensors"), wanted), what


def test_a_flipped_bit_in_the_weights_is_seen(runs, tmp_path):
    run = Path(shutil.copytree(runs["whole"], tmp_path / "run"))
    content = bytearray((run / "model.safetensors").read_bytes())
    content[-5] ^= 1
    (run / "model.safetensors").write_bytes(content)
    with pytest.raises(RegardError, match=r"model.safetensors: is damaged: its checksum is not the one"):
        load_predictor(run)


def test_weights_of_another_run_are_seen(runs, tmp_path):
    run = Path(shutil.copytree(runs["whole"], tmp_path / "run"))
    shutil.copy(runs["other"] / "model.safetensors", run)
    with pytest.raises(RegardError, match=r"model.safetensors: are the weights of another run"):
        load_predictor(run)


def test_metadata_that_were_edited_need_their_checksum_taken_out(runs, tmp_path):
    run = Run(Path(shutil.copytree(runs["whole"], tmp_path / "run")))
    text = run.metadata_file.read_text(encoding="utf-8").replace('"0",', '"zero",', 1)
    run.metadata_file.write_text(text, encoding="utf-8")
    with pytest.raises(RegardError, match=r'metadata.json: is damaged, or was edited: .* take the line "checksum" out'):
        load_predictor(run.path)
    lines = [line for line in text.splitlines() if '"checksum"' not in line]
    run.metadata_file.write_text("\n".join(lines).replace(",\n}", "\n}"), encoding="utf-8")
    assert load_predictor(run.path).class_names[0] == "zero"
