"""A run that is killed at any moment and resumed ends as one that never was, to the bit."""

import random
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from regard.errors import RegardError
from regard.training import Run, train

# All that could depend on where a run stopped: averages, draws of the batch and of the model, workers, states in the
# middle of an epoch (21 steps), evaluations before and after them.
SETTINGS = (
    *("train.max_steps=50", "train.save_every_steps=6", "train.ema_decay=0.9", "train.accumulate=2"),
    *("augment.mixup=0.3", "augment.cutmix=0.5", "model.drop_path=0.3", "model.depth=2"),
)


class Stop(Exception):  # noqa: N818 - it is no error
    """Stands for a kill where the test is in the same process."""


@pytest.fixture
def stopped(recipe, tmp_path, monkeypatch):
    """stopped(step, *settings) -> a run that was broken off before that step's record."""

    def run(step: int, *settings: str) -> Path:
        from regard.training.metrics_log import MetricsLog

        write = MetricsLog.write

        def stop(self, kind, at, epoch, **figures):
            if at == step:
                raise Stop
            write(self, kind, at, epoch, **figures)

        with monkeypatch.context() as patch:
            patch.setattr(MetricsLog, "write", stop)
            with pytest.raises(Stop):
                train(recipe(*settings), tmp_path / "run")
        return tmp_path / "run"

    return run


def number_of(state: str) -> int:
    return int(state.removeprefix("step-"))


def resume(path: Path) -> dict[str, object]:
    return train(Run.open(path).recipe(), path, resume=True)


@pytest.mark.slow
def test_killed_at_random_moments(command, tiny_train, kill_when, steps_of, compare_runs, tmp_path):
    never, killed = tmp_path / "never", tmp_path / "killed"
    subprocess.run(**tiny_train(never, *SETTINGS), check=True, capture_output=True)

    for number, moment in enumerate(sorted(random.Random(20).sample(range(1, 26), 3))):
        how = command("train", "--resume", killed) if number else tiny_train(killed, *SETTINGS)
        kill_when(how, lambda moment=moment: max(steps_of(killed), default=0) >= moment)
        assert steps_of(killed)[-1] < 50
        assert not (killed / "summary.json").exists()

    def saving() -> bool:
        """A state is being written: its folder is there, and the pointer does not name it yet."""
        pointer = killed / "state" / "latest"
        named = number_of(pointer.read_text(encoding="utf-8").strip()) if pointer.exists() else 0
        return any(number_of(folder.name) > named for folder in (killed / "state").glob("step-*"))

    kill_when(command("train", "--resume", killed), saving)
    subprocess.run(**command("train", "--resume", killed), check=True, capture_output=True)
    compare_runs(never, killed)
    assert [folder.name for folder in (killed / "state").glob("step-*")] == ["step-50"]
    assert not [file for file in killed.iterdir() if file.name.startswith(".")]


@pytest.fixture(scope="module")
def never(recipe, tmp_path_factory) -> Path:
    """A run that nothing disturbed."""
    path = tmp_path_factory.mktemp("never") / "run"
    train(recipe(*SETTINGS), path)
    return path


@pytest.mark.parametrize("step", [1, 7, 22, 50])
def test_broken_off_at_a_step(never, stopped, compare_runs, step):
    run = stopped(step, *SETTINGS)
    # Every draw follows from the seed and the step, whatever the generators held, and nothing of theirs is restored.
    for file in run.glob("state/step-*/random_states_*.pkl"):
        file.write_bytes(b"")
    torch.manual_seed(99)
    random.seed(99)
    assert resume(run)["steps"] == 50
    compare_runs(never, run)


@pytest.fixture(scope="module")
def whole(recipe, tmp_path_factory) -> Path:
    """A run that nothing disturbed, of the recipe of `broken`."""
    path = tmp_path_factory.mktemp("whole") / "run"
    train(recipe("train.max_steps=9", "train.save_every_steps=4", "train.ema_decay=0.9"), path)
    return path


@pytest.fixture
def broken(stopped):
    """A run of the same recipe with a state of step 4, broken off before step 7."""
    return stopped(7, "train.max_steps=9", "train.save_every_steps=4", "train.ema_decay=0.9")


def test_what_a_kill_while_saving_leaves_is_no_hindrance(whole, broken, compare_runs):
    half = broken / "state" / "step-8"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"\0\0")
    (broken / ".model.safetensors.99999").write_bytes(b"\0\0")
    (broken / "state" / ".latest.99999").write_bytes(b"st")
    (broken / "model.safetensors").unlink(missing_ok=True)
    with (broken / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"kind": "train", "step": 7, "los')
    resume(broken)
    compare_runs(whole, broken)
    assert {file.name for file in (broken / "state").iterdir()} == {"latest", "step-9"}
    assert not [file for file in broken.iterdir() if file.name.startswith(".")]


def test_a_state_that_was_replaced_but_not_removed_goes(whole, broken, compare_runs):
    # Killed after the pointer moved on, before the former state was removed.
    shutil.copytree(broken / "state" / "step-4", broken / "state" / "step-2")
    resume(broken)
    assert [folder.name for folder in (broken / "state").glob("step-*")] == ["step-9"]
    compare_runs(whole, broken)


def test_broken_off_before_the_first_state(stopped, trained, compare_runs):
    run = stopped(3, "train.save_every_steps=4")
    assert not (run / "state").exists()
    assert [record["step"] for record in Run(run).history()] == [1, 2]
    resume(run)
    compare_runs(trained("never", "train.save_every_steps=4").path, run)


def test_the_clock_goes_on(stopped):
    run = stopped(7, "train.max_steps=9", "train.save_every_steps=4")
    file = run / "state" / "step-4" / "progress.json"
    text = file.read_text(encoding="utf-8")
    seconds = text.partition('"seconds": ')[2].partition(",")[0]
    file.write_text(text.replace(f'"seconds": {seconds}', '"seconds": 1000.0'), encoding="utf-8")
    assert resume(run)["seconds"] > 1000


def test_an_ended_run_is_left_as_it_is(whole, tmp_path):
    whole = Path(shutil.copytree(whole, tmp_path / "run"))
    before = {path: path.read_bytes() for path in whole.rglob("*.safetensors")}
    state = (whole / "state" / "step-9" / "optimizer.bin").read_bytes()
    history, summary = Run(whole).history(), Run(whole).summary()
    again = resume(whole)
    kept = ("accuracy", "top5", "loss", "best", "seconds", "steps", "epochs", "images_per_second", "parameters", "seed")
    assert {key: again[key] for key in kept} == {key: summary[key] for key in kept}
    assert again == Run(whole).summary()
    assert {path: path.read_bytes() for path in whole.rglob("*.safetensors")} == before
    assert (whole / "state" / "step-9" / "optimizer.bin").read_bytes() == state
    assert Run(whole).history() == history


@pytest.mark.parametrize(
    ("file", "size"),
    [
        ("model.safetensors", 4),
        ("model.safetensors", 5000),
        ("optimizer.bin", 0),
        ("optimizer.bin", 2),
        ("optimizer.bin", 5000),
        ("average.safetensors", 5000),
        ("progress.json", 20),
    ],
)
def test_a_state_cut_short_is_one_line(broken, file, size):
    path = broken / "state" / "step-4" / file
    path.write_bytes(path.read_bytes()[:size])
    damaged = r"state/step-4: is cut short or damaged, or does not match this model: ."
    with pytest.raises(RegardError, match=damaged) as caught:
        resume(broken)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.bin", "average.safetensors", "progress.json"])
def test_a_state_without_one_of_its_files_is_one_line(broken, file):
    (broken / "state" / "step-4" / file).unlink()
    with pytest.raises(RegardError, match=r"state/step-4: ") as caught:
        resume(broken)
    assert "\n" not in str(caught.value)


def test_a_pointer_to_nowhere_is_one_line(broken):
    (broken / "state" / "latest").write_text("step-5\n", encoding="utf-8")
    with pytest.raises(RegardError, match=r"state/step-5: ") as caught:
        resume(broken)
    assert "\n" not in str(caught.value)


def test_a_state_of_another_model_is_one_line(broken):
    recipe = (broken / "recipe.toml").read_text(encoding="utf-8")
    (broken / "recipe.toml").write_text(recipe.replace("embed_dim = 16", "embed_dim = 32"), encoding="utf-8")
    with pytest.raises(
        RegardError, match=r"state/step-4: is cut short or damaged, or does not match this model"
    ) as caught:
        resume(broken)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda path: None, "is not a folder"),
        (lambda path: path.mkdir(), r"holds no run \(there is no recipe.toml\)"),
        (lambda path: path.write_text("x", encoding="utf-8"), "is not a folder"),
    ],
)
def test_a_folder_that_is_no_run(tmp_path, make, told):
    make(tmp_path / "thing")
    with pytest.raises(RegardError, match=f"thing: {told}; `regard train RECIPE --out RUN` makes one"):
        Run.open(tmp_path / "thing")


def test_a_run_that_has_not_ended_says_so(broken):
    with pytest.raises(RegardError, match=r"has not ended; `regard train --resume .*run` goes on with it"):
        Run.open(broken).summary()
