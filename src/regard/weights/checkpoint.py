"""Files of `torch.save`, read with torch's restricted unpickler: nothing in them is run.

A training writes more than weights: its arguments, figures, paths. The classes of these are not imported: a stand-in
takes what the file says of an object, and holds nothing. A file that names any other class or function is refused.
"""

import re
import warnings
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from regard.errors import RegardError, one_line


class StandIn:
    """An object of a training that is no weights; how it was made and what was in it is dropped."""

    def __new__(cls, *_: Any) -> "StandIn":
        return super().__new__(cls)

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass


def _table(*_: Any) -> OrderedDict[Any, Any]:
    return OrderedDict()


_LIGHTNING = ("pytorch_lightning", "lightning.pytorch", "lightning_fabric", "lightning.fabric")
# By what torch's unpickler accepts: tables take items, other objects take a state. Each is a class or function by name.
_STAND_INS: dict[Callable[..., Any], tuple[str, ...]] = {
    StandIn: (
        "argparse.Namespace",
        "types.SimpleNamespace",
        *(f"builtins.{name}" for name in ("bool", "dict", "float", "int", "list", "object", "str", "tuple")),
        *(f"datetime.{name}" for name in ("date", "datetime", "timedelta", "timezone")),
        *(
            f"pathlib{local}.{name}"
            for local in ("", "._local")
            for name in ("Path", "PosixPath", "PurePath", "PurePosixPath", "PureWindowsPath", "WindowsPath")
        ),
        *(f"numpy{core}.multiarray.{name}" for core in (".core", "._core") for name in ("_reconstruct", "scalar")),
        *(f"numpy.{name}" for name in ("dtype", "ndarray")),
        *(f"numpy.{kind}{bits}" for kind in ("float", "int") for bits in (16, 32, 64)),
        "torch.torch_version.TorchVersion",
        "typing.Any",
        *(f"omegaconf.{name}" for name in ("dictconfig.DictConfig", "listconfig.ListConfig")),
        *(f"omegaconf.base.{name}" for name in ("ContainerMetadata", "Metadata", "SCMode")),
        *(f"omegaconf.nodes.{kind}Node" for kind in ("Any", "Boolean", "Bytes", "Float", "Integer", "Path", "String")),
        *(f"{package}.callbacks.model_checkpoint.ModelCheckpoint" for package in _LIGHTNING[:2]),
        "mmengine.logging.history_buffer.HistoryBuffer",
    ),
    OrderedDict: (  # subclasses of dict
        *(f"{package}.utilities.{name}.AttributeDict" for package in _LIGHTNING for name in ("data", "parsing")),
        "easydict.EasyDict",
        "mmengine.config.config.ConfigDict",
        "yacs.config.CfgNode",
    ),
    _table: ("collections.defaultdict",),
}
_NAMED = re.compile(r"Unsupported global: GLOBAL (\S+)|unsupported GLOBAL (\S+) whose module")


def not_weights(file: Path) -> str | None:
    """What a download has left in the place of weights: a web page, or a pointer of Git LFS; None for anything else."""
    with file.open("rb") as opened:
        start = opened.read(100).lstrip()
    if start.startswith(b"version https://git-lfs"):
        return "is a pointer of Git LFS, which stands for the file; `git lfs pull` brings the file itself"
    if start[:5].lower() in (b"<html", b"<!doc"):
        return "is a web page, so that its download went wrong; open the address in a browser, and save the file anew"
    return None


def load_checkpoint(file: Path) -> object:
    """What `torch.save` wrote, with stand-ins for what is no weights. RegardError for damage, code, or another kind."""
    harmless = [(stand_in, name) for stand_in, names in _STAND_INS.items() for name in names]
    try:
        with torch.serialization.safe_globals(harmless), warnings.catch_warnings():  # type: ignore[arg-type]
            warnings.simplefilter("ignore")  # torch's on its own sparse, quantized and old tensors
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # on damaged bytes an unpickler raises whatever its parsing ran into
        raise _refusal(file, str(error) or type(error).__name__) from None


def _refusal(file: Path, said: str) -> RegardError:
    """The reason in our words: torch advises to switch its own protection off."""
    if "TorchScript" in said:
        return RegardError(
            f"{file}: is a program of TorchScript, which is not run; save its state_dict() with torch.save"
        )
    named = _NAMED.search(said)
    if named:
        what = named[1] or named[2]
        kind = "a whole model or another object" if what[0].isalpha() else "an object"
        return RegardError(
            f"{file}: is no PyTorch checkpoint that holds only weights: it needs {what[:100]}, so that {kind} would be "
            "made by running code; save the model's state_dict() alone"
        )
    if other := not_weights(file):
        return RegardError(f"{file}: {other}")
    reason = said.partition("WeightsUnpickler error: ")[2] or said
    reason = one_line(ValueError(reason.partition("Check the documentation")[0]), 150)
    advice = any(word in reason for word in ("weights_only", "safe_globals", "torch.load", "C++ stack"))
    return RegardError(
        f"{file}: is no safetensors file, and no PyTorch checkpoint that holds only weights: "
        f"{'it is damaged or of another kind' if advice else reason}"
    )
