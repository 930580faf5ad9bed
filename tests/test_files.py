"""Names that are not UTF-8, folders that belong to one process, and where the cache is."""

import json
import math
import os
import subprocess
import sys

import pytest

from regard.errors import RegardError
from regard.files import cache_folder, json_text, locked, printable, write_json

NOT_UTF8 = os.fsdecode(b"caf\xe9.jpg")


def test_a_name_that_is_not_utf8_is_written_and_read_back(tmp_path):
    values = {NOT_UTF8: ["é", NOT_UTF8]}
    write_json(tmp_path / "a.json", values)
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == values
    assert os.fsencode(json.loads(json_text(NOT_UTF8))) == b"caf\xe9.jpg"
    assert printable(NOT_UTF8) == "caf\\udce9.jpg"
    printable(NOT_UTF8).encode()
    assert printable("café") == "café"


def test_a_folder_belongs_to_one_process(tmp_path):
    code = "import sys; from pathlib import Path; from regard.files import locked\nwith locked(Path(sys.argv[1])): pass"
    command = [sys.executable, "-c", code, str(tmp_path)]
    with locked(tmp_path):
        other = subprocess.run(command, capture_output=True, text=True)
        assert other.returncode != 0
        assert f"another process (process {os.getpid()}) is writing into this folder" in other.stderr
    assert subprocess.run(command).returncode == 0


def test_the_lock_of_a_killed_process_is_free(tmp_path):
    code = (
        "import os, signal, sys; from pathlib import Path; from regard.files import locked\n"
        "with locked(Path(sys.argv[1])): os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)]).returncode == -9
    with locked(tmp_path):
        pass


def test_a_folder_that_cannot_be_locked_is_one_line(tmp_path):
    (tmp_path / ".lock").mkdir()
    with pytest.raises(RegardError, match="cannot be locked"), locked(tmp_path):
        pass


def test_the_cache_folder_without_a_home(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr("pathlib.Path.home", no_home)
    with pytest.raises(RegardError, match="set XDG_CACHE_HOME"):
        cache_folder()
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert str(cache_folder()) == "/somewhere/regard"


def test_a_number_that_is_not_finite_is_null(tmp_path):
    values = {"loss": math.nan, "curve": [1.5, math.inf, (-math.inf, "NaN")], "deep": {"a": {"b": math.nan}}, "n": 3}
    write_json(tmp_path / "a.json", values)
    text = (tmp_path / "a.json").read_text(encoding="utf-8")

    def refuse(word: str) -> None:
        raise AssertionError(word)

    read = json.loads(text, parse_constant=refuse)  # as readers of other languages do
    assert read == {"loss": None, "curve": [1.5, None, [None, "NaN"]], "deep": {"a": {"b": None}}, "n": 3}
    assert math.isnan(values["loss"])


def test_a_lock_file_that_was_removed_in_between_locks_nothing(tmp_path, monkeypatch):
    """Another process opened the file, the holder removed it and let go, and only then the other locked it."""
    from filelock import FileLock

    acquire, removed = FileLock.acquire, []

    def acquire_late(lock, *args, **kwargs):
        found = acquire(lock, *args, **kwargs)
        if not removed:
            removed.append((tmp_path / ".lock").unlink())
        return found

    monkeypatch.setattr(FileLock, "acquire", acquire_late)
    with locked(tmp_path):
        assert (tmp_path / ".lock").exists()
        monkeypatch.undo()
        with pytest.raises(RegardError, match="another process"), locked(tmp_path):
            pass
