"""Packages that an export or an engine needs, and that are extras of this one."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from regard.errors import RegardError

EXTRAS = {"onnx": ("onnx", "onnxruntime", "onnxscript"), "openvino": ("openvino",), "int8": ("nncf",)}
"""The extra's name -> the packages that it installs."""


def need(package: str, what_for: str, extra: str | None = None) -> Any:
    """The imported package. RegardError with the command that installs it, where it is missing.

    extra: the one that brings all that is needed; unless given, the smallest that brings the package.
    """
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.partition(".")[0] != package:
            raise  # what is missing is another package
        extra = extra or next(name for name, packages in EXTRAS.items() if package in packages)
        raise RegardError(f"{what_for} needs the package {package}: pip install 'regard[{extra}]'") from None


@contextmanager
def silent() -> Iterator[None]:
    """Within, other libraries log and warn of nothing: what is wrong comes as an exception."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def installed(package: str) -> str | None:
    """The version of a package, None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
