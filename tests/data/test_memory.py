"""Memory that may be taken: what a container allows, shared by the processes of a node; and caches that keep to it."""

from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch

import regard.data.images.cache as cache
import regard.data.images.folder as folder
import regard.data.memory as memory
from regard.data import cached, no_room_for
from regard.data.boxes.cache import CachedDetectionSource
from regard.data.boxes.sources import DetectionSource, Objects
from regard.data.images.folder import FolderImages
from regard.data.memory import available_memory, room_in_shared_memory

GB = 2**30


@pytest.fixture(autouse=True)
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host of 64 free GB without control groups; the folder in which tests lay theirs."""
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=64 * GB))
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    monkeypatch.setattr(memory, "OWN_GROUPS", tmp_path / "own")
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    return tmp_path


def write(folder: Path, **values: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in values.items():
        (folder / name.replace("__", ".")).write_text(f"{value}\n")


def test_without_a_container_the_machine_counts(host):
    assert available_memory() == 64 * GB
    write(host, memory__max="max", memory__current=5 * GB)
    assert available_memory() == 64 * GB


def test_the_limit_of_a_container_counts(host):
    write(host, memory__max=8 * GB, memory__current=5 * GB, memory__stat=f"anon 1\ninactive_file {GB}")
    assert available_memory() == 4 * GB  # of the 5 GB, 1 is of files that can be read again
    write(host, memory__current=9 * GB, memory__stat="")
    assert available_memory() == 0


def test_the_limit_of_version_1_and_of_groups_around_count(host):
    (host / "own").write_text("5:cpu:/\n4:memory:/docker/abc\n0::/slice/unit\n")
    write(host / "memory/docker/abc", memory__limit_in_bytes=2**63 - 4096, memory__usage_in_bytes=GB)
    assert available_memory() == 64 * GB
    write(host / "memory/docker", memory__limit_in_bytes=7 * GB, memory__usage_in_bytes=GB)
    assert available_memory() == 6 * GB
    write(host / "slice", memory__max=3 * GB, memory__current=GB)
    assert available_memory() == 2 * GB


def test_processes_of_a_node_share(monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert available_memory() == 8 * GB
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "many")
    assert available_memory() == 64 * GB


def test_shared_memory_has_its_own_room(monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(memory.shutil, "disk_usage", lambda path: usage(64 * 2**20, 0, 64 * 2**20))
    assert room_in_shared_memory() == 64 * 2**20
    monkeypatch.undo()
    monkeypatch.setattr(memory, "SHARED_MEMORY", Path("/no/such/folder"))  # as on macOS
    monkeypatch.setattr(memory, "available_memory", lambda: 7)
    assert room_in_shared_memory() == 7


class Images(DetectionSource):
    def __init__(self, height: int, width: int) -> None:
        nothing = Objects(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0), torch.zeros(0) > 0)
        self.objects, self.image_ids, self.sizes = [nothing] * 4, range(1, 5), [(height, width)] * 4

    def read(self, index):
        return torch.full((3, *self.sizes[index]), index, dtype=torch.uint8)

    def name(self, index):
        return f"image {index}"


def test_a_cache_is_in_shared_memory_only_for_workers(monkeypatch):
    source = Images(10, 20)
    monkeypatch.setattr(cache, "room_in_shared_memory", lambda: pytest.fail("looked at without workers"))
    kept = cached(source, 3)
    assert isinstance(kept, CachedDetectionSource)
    assert not kept.cache.pixels.is_shared()
    monkeypatch.setattr(cache, "room_in_shared_memory", lambda: GB)
    kept = cached(source, 3, num_workers=2)
    assert isinstance(kept, CachedDetectionSource)
    assert kept.cache.pixels.is_shared()
    assert [kept.read(index).unique().tolist() for index in range(4)] == [[0], [1], [2], [3]]


def test_a_cache_that_does_not_fit_is_left_out_with_a_word(monkeypatch):
    source = Images(2048, 2048)  # 48 MB
    monkeypatch.setattr(cache, "room_in_shared_memory", lambda: 64 * 2**20)
    assert no_room_for(source, 3) == ""
    assert cached(source, 3, num_workers=2) is source
    assert no_room_for(source, 3, num_workers=2) == (
        "the decoded images are not cached: they take 48 MB, and may take 26 MB of shared memory (/dev/shm), which "
        "worker processes need"
    )
    monkeypatch.setattr(cache, "available_memory", lambda: 100 * 2**20)
    assert no_room_for(source, 3).endswith("they take 48 MB, and may take 40 MB of memory")


def test_a_folder_is_cached_only_where_it_fits(monkeypatch, tmp_path):
    from PIL import Image

    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    for available, is_cached in ((100 * 48, True), (48, False)):
        monkeypatch.setattr(folder, "available_memory", lambda available=available: available)
        source = FolderImages((tmp_path / "a.png",), (0,), 3, folder_bytes=48)
        assert (source.read(0) is source.read(0)) == is_cached
