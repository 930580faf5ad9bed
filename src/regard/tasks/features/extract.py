"""Features of a frozen model: computed once for each image and view, in batches, and read from the store after that."""

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

import torch
import torch.distributed
from jaxtyping import Float32
from torch import Tensor, nn

from regard.data import BadImage, OnBadImage
from regard.errors import NOT_FINITE, RegardError
from regard.ops.precision import has_bf16
from regard.tasks.features.store import VERSION, FeatureStore, file_size, key, to_stderr

Dtype = Literal["fp16", "fp32"]
Precision = Literal["auto", "fp32", "bf16"]
DTYPES: dict[str, torch.dtype] = {"fp16": torch.float16, "fp32": torch.float32}
# Of one batch: enough to keep the processor or GPU at work.
PIXELS_ON_CPU, PIXELS_ON_GPU = 2**19, 2**23
MOST_WAITING = 4  # batches' worth of images that wait for others of their size

T = TypeVar("T")
Compute = Callable[[Tensor], Tensor | Sequence[Tensor]]


@runtime_checkable
class ShowsProgress(Protocol):
    """A progress bar, such as `regard.training.Bar`."""

    def __enter__(self) -> Any: ...
    def __exit__(self, *raised: Any) -> None: ...
    def update(self, fraction: float, text: str) -> None: ...


@dataclass(frozen=True)
class Job:
    """One view of one image."""

    digest: str
    """Of the image file's bytes: `source.digest(index)`."""
    view: str
    """Which flip, crop or scale it is; "" for the image as prediction sees it."""
    name: str
    """What to call it in a message."""
    prepare: Callable[[], Tensor]
    """Reads the image: float (channels, height, width). Raises BadImage."""


def weights_hash(module: nn.Module, about: object = "", *, without: tuple[str, ...] = ()) -> str:
    """A hash of a module's tensors, but for those whose names begin with one of `without`, and of what it computes.

    about: what the tensors do not say, such as the configuration.
    """
    found = hashlib.blake2b(f"{type(module).__name__} {about!r}".encode(), digest_size=16)
    for name, tensor in sorted(module.state_dict().items()):
        if not name.startswith(without):
            found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


class FrozenFeatures:
    """What `compute` makes of images with a frozen `module`: vectors, maps, or several maps for each image.

    compute: images of one size (batch, channels, height, width) -> (batch, ...), or a sequence of such tensors.
    weights: `weights_hash` of what does not learn. preprocessing: plain values that say how `Job.prepare` makes its
    tensor, and what else changes the features. dtype: in which they are kept. precision: in which they are computed;
    `auto` is bf16 where the device has instructions for it. Features in bf16 are within 2% of those in fp32, as the
    norm of the difference. store: None keeps them in memory.
    """

    def __init__(
        self,
        module: nn.Module,
        compute: Compute,
        *,
        weights: str,
        preprocessing: Mapping[str, object],
        dtype: Dtype = "fp16",
        precision: Precision = "auto",
        store: FeatureStore | None = None,
    ) -> None:
        self.module, self.compute, self.weights = module, compute, weights
        self.preprocessing, self.dtype, self.precision, self.store = dict(preprocessing), dtype, precision, store
        self._in_memory: dict[str, list[Tensor]] = {}

    @property
    def device(self) -> torch.device:
        return next(self.module.parameters()).device

    @property
    def half(self) -> bool:
        return self.precision == "bf16" or (self.precision == "auto" and has_bf16(self.device))

    def key(self, job: Job) -> str:
        precision = "bf16" if self.half else "fp32"
        return key(self.weights, self.preprocessing, job.digest, job.view, self.dtype, precision, VERSION)

    def fill(
        self,
        jobs: Sequence[Job],
        name: str = "features",
        *,
        on_bad_image: OnBadImage = "stop",
        progress: ShowsProgress | None = None,
    ) -> list[str]:
        """Computes what is not there yet. Returns why images were left out, which `on_bad_image="skip"` allows.

        Where torch.distributed is at work each process computes its shard, and all go on together. Raises BadImage,
        and RegardError for numbers that are not finite and for features that have no room.
        """
        (missing,) = reserve([(self, jobs)])
        reasons = _in_all_processes(lambda: self._fill(missing, name, on_bad_image, progress))
        return [reason for of_one in reasons for reason in of_one]

    def load(self, job: Job) -> Tensor:
        """The features of a job, for one tensor an image; computed again if they are gone. Raises BadImage."""
        (only,) = self.levels(job)
        return only

    def levels(self, job: Job) -> list[Tensor]:
        """The same for several tensors an image."""
        found = self._get(self.key(job))
        if found is None:
            ((_, found),) = self._computed([(job, job.prepare())])
            self._put(self.key(job), found)
        return found

    def _fill(
        self, missing: Mapping[str, Job], name: str, on_bad_image: OnBadImage, progress: ShowsProgress | None
    ) -> list[str]:
        rank, world_size = _process()
        mine = list(missing.values())[rank::world_size]
        skipped: list[str] = []
        if not mine:
            return skipped
        started, done = time.monotonic(), 0
        with progress or _Silent() as shown:
            for batch in _of_equal_size(_readable(mine, on_bad_image, skipped), self._most_pixels):
                for job, tensors in self._computed(batch):
                    self._put(self.key(job), tensors)
                done += len(batch)
                rate = done / max(time.monotonic() - started, 1e-9)
                text = f"{name}: {done + len(skipped):,} of {len(mine):,}, {rate:.3g} images/s"
                shown.update((done + len(skipped)) / len(mine), text)
        return skipped

    def _computed(self, batch: Sequence[tuple[Job, Tensor]]) -> Iterator[tuple[Job, list[Tensor]]]:
        """Each job of a batch with its features. RegardError for numbers that are not finite, or too large for fp16."""
        with _evaluating(self.module), torch.inference_mode():
            images = torch.stack([image for _, image in batch]).to(self.device)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
                found = self.compute(images)
            levels = [level.float().cpu() for level in ([found] if isinstance(found, Tensor) else found)]
        for number, (job, _) in enumerate(batch):
            exact = [level[number] for level in levels]
            if not all(level.isfinite().all() for level in exact):
                raise RegardError(f"{job.name}: {NOT_FINITE}")
            kept = [level.to(DTYPES[self.dtype]).clone() for level in exact]  # outside, so that autograd takes them
            if not all(level.isfinite().all() for level in kept):
                raise RegardError(f"{job.name}: its features are too large for fp16; set features.dtype to fp32")
            yield job, kept

    def _bytes_each(self, jobs: Iterable[Job]) -> int:
        """Of a file: by the features of one black image of the size of the first that can be read."""
        for _, image in _readable(jobs, "skip", []):
            ((_, black),) = self._computed([(Job("", "", "a black image", image.clone), torch.zeros_like(image))])
            return file_size(black)
        return 0

    @property
    def _most_pixels(self) -> int:
        return PIXELS_ON_CPU if self.device.type == "cpu" else PIXELS_ON_GPU

    def _has(self, found: str) -> bool:
        return found in self._in_memory if self.store is None else self.store.has(found)

    def _get(self, found: str) -> list[Tensor] | None:
        return self._in_memory.get(found) if self.store is None else self.store.get(found)

    def _put(self, found: str, tensors: list[Tensor]) -> None:
        if self.store is None:
            self._in_memory[found] = tensors
        else:
            self.store.put(found, tensors)


def open_store(folder: str | Path | None, max_gb: float, progress: ShowsProgress | None) -> FeatureStore:
    """The store of a folder, None for the user's own; what it has to say stands above the progress bar."""
    return FeatureStore(folder, max_gb=max_gb, tell=getattr(progress, "tell", to_stderr))


def reserve(parts: Sequence[tuple[FrozenFeatures, Sequence[Job]]]) -> list[dict[str, Job]]:
    """Makes room for what is missing of all parts, which share one store, and returns it by key, part by part.

    No process writes before all have looked: all find the same missing. RegardError, in all processes and before the
    images are computed, where it cannot fit under `features.max_gb`, or on the disk and in memory.
    """
    held: list[str] = []
    missing: list[dict[str, Job]] = []
    for frozen, jobs in parts:
        by_key = {frozen.key(job): job for job in jobs}
        lacking = {found: job for found, job in by_key.items() if not frozen._has(found)}
        missing.append(lacking)
        held += by_key.keys() - lacking.keys()
    _in_all_processes(lambda: _make_room([frozen for frozen, _ in parts], missing, held))
    return missing


def _make_room(parts: Sequence[FrozenFeatures], missing: Sequence[Mapping[str, Job]], held: Sequence[str]) -> None:
    store = parts[0].store
    if store is None:
        return
    needed = sum(
        len(lacking) * part._bytes_each(lacking.values()) for part, lacking in zip(parts, missing, strict=True)
    )
    if needed:
        store.reserve(needed, held)


def _readable(jobs: Iterable[Job], on_bad_image: OnBadImage, skipped: list[str]) -> Iterator[tuple[Job, Tensor]]:
    """Jobs with their images. The reasons of those that cannot be read go to `skipped`, or are raised."""
    for job in jobs:
        try:
            yield job, job.prepare()
        except BadImage as error:
            if on_bad_image == "stop":
                raise
            skipped.append(str(error))


def _of_equal_size(
    images: Iterable[tuple[Job, Float32[Tensor, "channels _ _"]]], most_pixels: int
) -> Iterator[list[tuple[Job, Tensor]]]:
    """Batches of images of one size, of at most `most_pixels`, or of one image that has more.

    An image waits for others of its size; where too many wait, those of the most frequent size go.
    """
    waiting: dict[tuple[int, ...], list[tuple[Job, Tensor]]] = {}
    pixels = 0
    for job, image in images:
        size = image.shape[1] * image.shape[2]
        of_size = waiting.setdefault(tuple(image.shape), [])
        of_size.append((job, image))
        pixels += size
        if (len(of_size) + 1) * size > most_pixels:
            pixels -= len(of_size) * size
            yield waiting.pop(tuple(image.shape))
        elif pixels > MOST_WAITING * most_pixels:
            largest = max(waiting, key=lambda shape: len(waiting[shape]))
            pixels -= len(waiting[largest]) * largest[1] * largest[2]
            yield waiting.pop(largest)
    yield from waiting.values()


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Within, all of a module is in evaluation mode; after, each part is as it was."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True


class _Silent:
    def __enter__(self) -> "_Silent":
        return self

    def __exit__(self, *raised: Any) -> None:
        pass

    def update(self, fraction: float, text: str) -> None:
        pass


def _process() -> tuple[int, int]:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def _in_all_processes(work: Callable[[], T]) -> list[T]:
    """What `work` gives in each process, in all of them. The first RegardError of any is raised in all: none waits for
    one that has stopped."""
    _, world_size = _process()
    if world_size == 1:
        return [work()]
    mine: tuple[T | None, RegardError | None]
    try:
        mine = work(), None
    except RegardError as raised:
        mine = None, raised
    found: list[Any] = [None] * world_size
    torch.distributed.all_gather_object(found, mine)
    for _, error in found:
        if error is not None:
            raise error
    return [result for result, _ in found]
