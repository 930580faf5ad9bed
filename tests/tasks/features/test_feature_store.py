"""The store of features: what it keeps, what counts as absent, what leaves, and what it says without room."""

import errno
import multiprocessing
import os
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from regard.errors import RegardError
from regard.tasks.features import store as module
from regard.tasks.features.store import FeatureStore, key

FORK = multiprocessing.get_context("fork") if hasattr(os, "fork") else None
KB = 2**-20  # of a GB


def key_of(number: object) -> str:
    return key("weights", {"size": 8}, str(number), "", "fp16", "fp32", "1")


@pytest.fixture
def said():
    return []


@pytest.fixture
def new_store(tmp_path, said):
    def make(**options):
        return FeatureStore(tmp_path / "store", tell=said.append, **options)

    return make


def files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_what_was_put_is_found_by_another_process(new_store):
    tensors = [torch.randn(3, 2, 5).half(), torch.arange(4.0)]
    new_store().put(key_of(1), tensors)
    store = new_store()
    assert store.has(key_of(1))
    found = store.get(key_of(1))
    assert [t.dtype for t in found] == [torch.float16, torch.float32]
    assert all(torch.equal(a, b) for a, b in zip(found, tensors, strict=True))
    assert not store.has(key_of(2))
    assert store.get(key_of(2)) is None
    (file,) = files_in(store.folder)
    assert file.relative_to(store.folder).as_posix() == f"{key_of(1)[:2]}/{key_of(1)}.safetensors"


def test_a_key_depends_on_all_that_features_are_made_of():
    parts = ["weights", {"size": (8, 8)}, "digest", "flip", "fp16", "bf16", "1"]
    others = ["other", {"size": (8, 9)}, "changed", "", "fp32", "fp32", "2"]
    keys = {key(*parts)} | {key(*[*parts[:i], other, *parts[i + 1 :]]) for i, other in enumerate(others)}
    assert len(keys) == 8
    assert key(*parts) == key("weights", {"size": [8, 8]}, *parts[2:]), "a table of JSON has lists"
    assert all(len(found) == 64 for found in keys)


@pytest.mark.parametrize("damage", ["cut", "bit", "empty", "other", "renamed", "folder"])
def test_a_damaged_entry_is_absent_and_replaced(new_store, damage):
    store = new_store()
    store.put(key_of(1), [torch.arange(32.0)])
    (file,) = files_in(store.folder)
    data = bytearray(file.read_bytes())
    if damage == "cut":
        file.write_bytes(data[:-10])
    elif damage == "bit":
        data[-3] ^= 1
        file.write_bytes(data)
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage == "other":
        file.write_bytes(b"\xff" * 300)
    elif damage == "folder":
        file.unlink()
        file.mkdir()
    else:
        key_of_other = key_of(2)
        place = store.folder / key_of_other[:2] / f"{key_of_other}.safetensors"
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(data)
        assert not store.has(key_of_other)
        assert store.get(key_of_other) is None
        return
    store = new_store()
    assert store.get(key_of(1)) is None
    assert store.has(key_of(1)) == (damage == "bit"), "a flipped bit is seen when the features are read"
    store.put(key_of(1), [torch.arange(32.0) + 1])
    assert torch.equal(store.get(key_of(1))[0], torch.arange(32.0) + 1)


@pytest.mark.skipif(FORK is None, reason="processes are forked")
def test_a_kill_in_the_middle_of_writing_leaves_nothing_that_counts(new_store, monkeypatch):
    def killed():
        monkeypatch.setattr(
            Path, "write_bytes", lambda self, data: (_write(self, data[:-5]), os.kill(os.getpid(), signal.SIGKILL))
        )
        new_store().put(key_of(1), [torch.arange(32.0)])

    process = FORK.Process(target=killed)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    store = new_store()
    (leftover,) = files_in(store.folder)
    assert leftover.name.startswith(".")
    assert not store.has(key_of(1))
    store.put(key_of(1), [torch.arange(32.0)])
    store.reserve(1, [])
    assert leftover.exists(), "another process may be at work on it"
    os.utime(leftover, (0, 0))
    store.reserve(1, [])
    assert [file.name for file in files_in(store.folder)] == [f"{key_of(1)}.safetensors"]


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)


@pytest.mark.skipif(FORK is None, reason="processes are forked")
def test_two_processes_fill_one_store(new_store):
    def fill(first):
        store = new_store()
        for number in range(40):
            store.put(key_of(number), [torch.full((16,), float(number))])
            assert store.get(key_of((number + first) % 40)) is not False

    both = [FORK.Process(target=fill, args=(first,)) for first in (0, 20)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    store = new_store()
    for number in range(40):
        assert torch.equal(store.get(key_of(number))[0], torch.full((16,), float(number)))
    assert len(files_in(store.folder)) == 40, "nothing is left beside the entries"


def test_the_oldest_leave_first_and_never_what_is_in_use(new_store):
    tensors = [torch.zeros(256)]  # a file of 1.2 kB
    old = new_store()
    for number in range(6):
        old.put(key_of(number), tensors)
        file = old.folder / key_of(number)[:2] / f"{key_of(number)}.safetensors"
        os.utime(file, (1e9 + number, 1e9 + number))
    size = file.stat().st_size
    store = new_store(max_gb=6.5 * size / 2**30)
    assert store.get(key_of(0)) is not None, "the oldest, but it is in use now"
    for number in range(6, 9):
        store.put(key_of(number), tensors)
    kept = {number for number in range(9) if new_store().has(key_of(number))}
    assert kept == {0, 4, 5, 6, 7, 8}
    assert sum(f.stat().st_size for f in files_in(store.folder)) <= store.max_bytes


def test_another_run_finds_what_was_used_last(new_store):
    for number in range(3):
        new_store().put(key_of(number), [torch.zeros(256)])
        os.utime(files_in(new_store().folder / key_of(number)[:2])[-1], (1e9 + number, 1e9 + number))
    assert new_store().has(key_of(0)), "it counts as used now"
    size = files_in(new_store().folder)[0].stat().st_size
    new_store(max_gb=3.5 * size / 2**30).put(key_of(3), [torch.zeros(256)])
    assert [new_store().has(key_of(number)) for number in range(4)] == [True, False, True, True]


def test_foreign_files_are_neither_read_nor_counted_nor_deleted(new_store):
    store = new_store()
    store.put(key_of(1), [torch.zeros(256)])
    os.utime(files_in(store.folder)[0], (1e9, 1e9))
    folder = store.folder / key_of(1)[:2]
    strange = [store.folder / "notes.txt", folder / "photo.jpg", folder / "abc.safetensors", store.folder / "zz" / "a"]
    strange.append(folder / f"{'0' * 64}.safetensors.part")
    for file in strange:
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"x" * 100_000)
        os.utime(file, (1e8, 1e8))
    (folder / f"{key_of(1)[:2]}{'0' * 62}.safetensors").symlink_to(strange[0])
    smaller = new_store(max_gb=2.5 * KB)
    smaller.put(key_of(2), [torch.zeros(256)])
    smaller.put(key_of(3), [torch.zeros(256)])
    assert not smaller.has(key_of(1)), "the bound is 2.5 kB: one of its own has left"
    assert all(file.read_bytes() == b"x" * 100_000 for file in strange)


def test_what_cannot_fit_under_the_bound_is_said_before(new_store):
    store = new_store(max_gb=100 * KB)
    for number in range(3):
        store.put(key_of(number), [torch.zeros(256)])
    held = [key_of(number) for number in range(3)]
    store.reserve(90 * 2**10, held)
    with pytest.raises(
        RegardError,
        match=r"^features: this run needs 0\.11 MB of them, and the store may hold 0\.098 MB; set features\.max_gb to "
        r"0\.00011 or more, or lower features\.views.*features\.folder",
    ):
        store.reserve(110 * 2**10, held)
    assert all(store.has(number) for number in held)


def full_disk(monkeypatch, after=0, code=errno.ENOSPC):
    """Writing fails from the `after`-th file on."""
    written, write = [], Path.write_bytes

    def refuse(self, data):
        if len(written) >= after:
            write(self, data[:10])
            raise OSError(code, os.strerror(code))
        written.append(self)
        return write(self, data)

    monkeypatch.setattr(Path, "write_bytes", refuse)


@pytest.mark.parametrize(("code", "why"), [(errno.ENOSPC, "the disk is full"), (errno.EACCES, "Permission denied")])
def test_a_full_disk_is_said_once_and_the_rest_is_in_memory(new_store, said, monkeypatch, code, why):
    full_disk(monkeypatch, after=1, code=code)
    store = new_store()
    for number in range(4):
        store.put(key_of(number), [torch.full((4,), float(number))])
    line = f"features: {store.folder} cannot be written to ({why}); the rest of this run's features is kept in memory"
    assert said == [line]
    assert len(files_in(store.folder)) == 1
    for number in range(4):
        assert store.has(key_of(number))
        assert torch.equal(store.get(key_of(number))[0], torch.full((4,), float(number)))
    assert not new_store().has(key_of(2)), "memory ends with the run"


def test_without_room_on_disk_and_in_memory_it_says_how_much_is_missing(new_store, monkeypatch):
    monkeypatch.setattr(module, "available_memory", lambda: 10 * 2**20)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda folder: SimpleNamespace(free=20 * 2**20))
    store = new_store()
    keys = r"set features\.folder to .*features\.views.*features\.max_gb"
    with pytest.raises(RegardError, match=rf"15 MB are missing; {keys}"):
        store.reserve(40 * 2**20, [])  # 20 MB of the disk and half of the memory
    store.reserve(25 * 2**20, [])
    full_disk(monkeypatch)
    monkeypatch.setattr(module, "available_memory", lambda: 2**12)
    with pytest.raises(RegardError, match=rf"25 MB are missing; {keys}"):
        store.put(key_of(1), [torch.zeros(1024)])


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RegardError, match=r"features\.folder: .*file is not a folder"):
        FeatureStore(tmp_path / "file")


def test_the_usual_folder_is_in_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert FeatureStore().folder == tmp_path / "regard" / "features"
    assert not FeatureStore().folder.exists(), "made when the first entry is written"
