"""Files of the Hugging Face hub: from the user's folder, the hub's cache, or the network."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

from regard.errors import RegardError, one_line
from regard.files import cache_folder

PREFIX = "hf-hub:"
ADDRESS = "https://huggingface.co"


@dataclass(frozen=True)
class HubFile:
    """A file of a repository: the first of `names` that exists."""

    repo: str
    names: tuple[str, ...] = ("model.safetensors", "pytorch_model.bin")
    revision: str | None = None

    @classmethod
    def parse(cls, address: str) -> "HubFile":
        """`hf-hub:OWNER/NAME` or `hf-hub:OWNER/NAME@REVISION`. RegardError for another form."""
        repo, _, revision = address.removeprefix(PREFIX).partition("@")
        if repo.count("/") != 1 or not all(repo.split("/")):
            raise RegardError(f"{address}: a hub name is {PREFIX}OWNER/NAME")
        return cls(repo, revision=revision or None)

    @property
    def folder(self) -> Path:
        """Where a file that was downloaded by hand is looked for first."""
        return weights_folder() / self.repo.replace("/", "--")

    def fetch(self, instead: str = "") -> Path:
        """The local path of the file, which is downloaded if needed.

        RegardError if that fails: it gives the address to download by hand, the place to put the file, and `instead`,
        another way to get such weights.
        """
        in_folder = self._in_folder()
        return self._download(instead) if in_folder is None else in_folder

    def at_hand(self) -> Path | None:
        """The local path of the file, without the network; None if it is in neither the user's folder nor the cache."""
        from huggingface_hub import try_to_load_from_cache

        found = (try_to_load_from_cache(self.repo, name, revision=self.revision) for name in self.names)
        return self._in_folder() or next((Path(path) for path in found if isinstance(path, str)), None)

    def answers(self, seconds: float) -> bool:
        """Whether the hub has the file, and says so within some seconds; one try, and none where the hub is off."""
        from huggingface_hub import get_hf_file_metadata, hf_hub_url

        answered = []

        def ask() -> None:  # resolving a name has no time limit of its own
            with suppress(Exception):
                get_hf_file_metadata(hf_hub_url(self.repo, self.names[0], revision=self.revision), timeout=seconds)
                answered.append(True)

        if not _is_offline():
            with quiet_client():
                asking = Thread(target=ask, daemon=True)
                asking.start()
                asking.join(seconds)
        return bool(answered)

    @property
    def url(self) -> str:
        """Where the file can be downloaded by hand."""
        return f"{ADDRESS}/{self.repo}/resolve/{self.revision or 'main'}/{self.names[0]}"

    def _in_folder(self) -> Path | None:
        return next((self.folder / name for name in self.names if (self.folder / name).is_file()), None)

    def _download(self, instead: str) -> Path:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        reason: Exception | None = None
        for name in self.names:
            try:
                with quiet_client():
                    return Path(hf_hub_download(self.repo, name, revision=self.revision))
            except LocalEntryNotFoundError as error:  # no network, and not in the cache
                reason = reason or error.__cause__ or error  # type: ignore[assignment]
                if not _is_offline():
                    break
            except EntryNotFoundError as error:
                reason = error
            except Exception as error:  # a hub's client raises its own errors, those of HTTP, and the system's
                reason = error
                break
        raise RegardError(
            f"{PREFIX}{self.repo}: cannot be downloaded ({one_line(reason)}); download {self.url} by hand, and save it "
            f"as {self.folder / self.names[0]}{'; ' + instead if instead else ''}"
        ) from None


def fetch_folder(address: str) -> Path:
    """The folder of all files of a repository, `hf-hub:OWNER/NAME`. RegardError if they cannot be downloaded."""
    from huggingface_hub import snapshot_download

    file = HubFile.parse(address)
    if file.folder.is_dir():
        return file.folder
    try:
        with quiet_client():
            return Path(snapshot_download(file.repo, revision=file.revision))
    except Exception as error:  # as in HubFile
        raise RegardError(
            f"{address}: cannot be downloaded ({one_line(error)}); download all of {ADDRESS}/{file.repo} by hand "
            f"and save it in {file.folder}"
        ) from None


@contextmanager
def quiet_client() -> Iterator[None]:
    """Within, the hub's client does not log each attempt that fails; the error at the end says it once."""
    log = logging.getLogger("huggingface_hub")
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(before)


def weights_folder() -> Path:
    """`regard/weights` in the user's cache folder."""
    return cache_folder() / "weights"


def _is_offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)
