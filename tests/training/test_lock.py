"""A run folder belongs to one training."""

import subprocess
from pathlib import Path

import pytest
from PIL import Image

from regard.errors import RegardError
from regard.files import LOCK, locked
from regard.training import Run, train

LONG = ("train.max_steps=100000000", "train.epochs=none")


def wait_for(process: subprocess.Popen, reached) -> None:
    while not reached():
        assert process.poll() is None, process.stderr and process.stderr.read()


@pytest.mark.slow
def test_of_two_trainings_into_one_new_folder_one_runs(tiny_train, tmp_path):
    """Started at once, in processes of their own."""
    path = tmp_path / "run"
    started = [
        subprocess.Popen(**tiny_train(path, "train.max_steps=6", f"seed={seed}"), stderr=subprocess.PIPE)
        for seed in (1, 2)
    ]
    said = [process.communicate()[1] for process in started]
    assert sorted(process.returncode for process in started) == [0, 1]
    loser = next(text for process, text in zip(started, said, strict=True) if process.returncode)
    error = [line for line in loser.splitlines() if line.startswith("error:")]
    assert len(error) == 1
    assert "is writing into this folder" in error[0] or "exists already" in error[0]
    winner = next(seed for process, seed in zip(started, (1, 2), strict=True) if not process.returncode)
    assert Run(path).recipe().seed == Run(path).summary()["seed"] == winner
    assert not (path / LOCK).exists()


@pytest.mark.slow
def test_a_run_that_is_being_trained_is_not_resumed(tiny_train, command, steps_of, tmp_path):
    path = tmp_path / "run"
    with subprocess.Popen(**tiny_train(path, *LONG), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        wait_for(process, lambda: bool(steps_of(path)))
        for arguments in (("--resume", path), ("vit-digits", "--out", path)):
            other = subprocess.run(**command("train", *arguments), capture_output=True, check=False)
            assert other.returncode == 1
            assert f"another process (process {process.pid}) is writing into this folder" in other.stderr
            assert "Traceback" not in other.stderr
        process.kill()
        process.communicate()
    with locked(path):  # free as soon as its process is gone
        pass


def test_the_folder_is_locked_before_the_data_are_opened(recipe, tmp_path, monkeypatch):
    seen = []
    task = regard_task(monkeypatch, lambda: seen.append((tmp_path / "run" / LOCK).exists()))
    train(recipe("train.max_steps=1"), tmp_path / "run", then=lambda: seen.append((tmp_path / "run" / LOCK).exists()))
    assert task
    assert seen == [True, True]
    assert not (tmp_path / "run" / LOCK).exists()


def regard_task(monkeypatch, hook):
    import regard.training.session as session

    create = session.create_task

    def watched(recipe):
        hook()
        return create(recipe)

    monkeypatch.setattr(session, "create_task", watched)
    return create


def test_a_folder_that_is_locked_is_refused_and_left_alone(recipe, tmp_path):
    path = tmp_path / "run"
    path.mkdir()
    with locked(path), pytest.raises(RegardError, match=r"another process .* is writing into this folder"):
        train(recipe(), path)
    assert list(path.iterdir()) == []
    assert train(recipe("train.max_steps=1"), path)["steps"] == 1


def test_a_lock_that_a_killed_training_left_is_no_content(recipe, tmp_path):
    path = tmp_path / "run"
    path.mkdir()
    (path / LOCK).write_text("process 1\n", encoding="utf-8")
    assert train(recipe("train.max_steps=1"), path)["steps"] == 1


def test_a_folder_made_for_nothing_goes_again(recipe, tmp_path):
    (tmp_path / "there").mkdir()
    for path in (tmp_path / "a" / "b" / "run", tmp_path / "there"):
        with pytest.raises(RegardError, match="no such folder"):
            train(recipe("data.address=folder:nowhere"), path)
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
    assert list((tmp_path / "there").iterdir()) == []


def test_a_report_that_fails_loses_no_run(recipe, tmp_path, monkeypatch):
    import regard.compare
    from regard.api.training import train_run

    def broken(*_, **__):
        raise ZeroDivisionError("no\npicture")

    told: list[str] = []
    monkeypatch.setattr(regard.compare, "contender", broken)
    run, summary = train_run("x", recipe("train.max_steps=2"), tmp_path / "run", tell=told.append)
    assert summary == run.summary()
    assert run.weights_file.exists()
    assert not run.report_file.exists()
    assert len(told) == 1
    assert "no picture" in told[0]
    assert "\n" not in told[0]


def test_data_that_cannot_be_read_leave_no_run(recipe, tmp_path):
    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        Image.new("L", (8, 8)).save(tmp_path / "data" / name / "0.png")
    (tmp_path / "data" / "a" / "1.png").write_bytes(b"no image")
    with pytest.raises(RegardError, match=r"1\.png"):
        train(recipe(f"data.address=folder:{tmp_path / 'data'}"), Path(tmp_path / "run"))
    assert not (tmp_path / "run").exists()
