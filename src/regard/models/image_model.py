"""What users of timm and DINOv2 call on an image model: its head, its features, and what its weights came with."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from regard.errors import RegardError

# What comes after the features, and may become another by `reset_classifier`.
_HEADS = ("fc_norm", "head", "head_dist")
# How an image of another aspect gets the model's size: our word, and timm's.
CROP_MODES = {"crop": "center", "squash": "squash", "letterbox": "border"}


class ImageModel(nn.Module):
    """The base of `ViT` and `SASAResNet`: timm's methods, by means of a model's configuration and its intermediates."""

    gradient_checkpointing = False
    """Recompute each block in the backward pass instead of keeping its activations."""
    config: Any
    head: nn.Module
    final_feature: str
    """The name of the intermediate that `forward_features` returns."""
    _came_with: Mapping[str, Any] = {}

    @property
    def feature_info(self) -> list[dict[str, Any]]:
        """A dict for each feature that `forward_intermediates` can return, in the order of computation.

        `module` is its name, `num_chs` its number of channels, `reduction` its stride in pixels of the image.
        """
        raise NotImplementedError

    def intermediates(
        self, images: Float[Tensor, "batch in_chans height width"], names: Sequence[str] | None = None
    ) -> dict[str, Tensor]:
        """The named intermediates of one forward pass."""
        raise NotImplementedError

    def init_weights(self, module: nn.Module) -> None:
        """Initialises the weights of one module, as the constructor does."""
        raise NotImplementedError

    @property
    def num_features(self) -> int:
        """Channels of what the head reads."""
        return int(self.feature_info[-1]["num_chs"])

    def forward_features(
        self, images: Float[Tensor, "batch in_chans height width"]
    ) -> Float[Tensor, " batch *features"]:
        """What `forward_head` takes."""
        raise NotImplementedError

    def forward_head(self, features: Float[Tensor, " batch *features"], pre_logits: bool = False) -> Tensor:
        """Logits, or with `pre_logits` what the head reads."""
        raise NotImplementedError

    @property
    def num_classes(self) -> int:
        """Classes of the head; 0 where there is none, and the pooled features come out."""
        return int(self.config.num_classes)

    @property
    def pretrained_cfg(self) -> dict[str, Any]:
        """What is known about the weights, with timm's keys; without weights of the catalogue, about the model only.

        `input_size` (channels, height, width), `num_classes`; and where known `architecture`, `tag`, `mean`, `std`,
        `crop_pct`, `interpolation`, `label_names`, `hf_hub_id`, `url`, `license`, `paper`.
        """
        size = self.config.img_size
        size = (size, size) if isinstance(size, int) else tuple(size)
        return {
            "input_size": (self.config.in_chans, *size),
            "num_classes": self.num_classes,
            "classifier": "head",
            **self._came_with,
        }

    @pretrained_cfg.setter
    def pretrained_cfg(self, values: Mapping[str, Any]) -> None:
        self._came_with = dict(values)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recomputes each block in the backward pass, or keeps its activations."""
        self.gradient_checkpointing = enable

    def get_classifier(self) -> nn.Module:
        """The head: a linear map, or the identity where there are no classes."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Puts a new head with random weights in place; with 0 classes there is none, and the pooled features come out.

        global_pool: a value of the configuration's `pool`, where another one is wanted. The configuration changes
        with the head, so that the model can be saved and loaded. RegardError for a value that the model does not have.
        """
        changes: dict[str, Any] = {"num_classes": num_classes}
        if global_pool is not None and hasattr(self.config, "pool"):
            changes |= {"pool": global_pool, "class_token": hasattr(self, "cls_token")}
        elif global_pool not in (None, "avg"):
            raise RegardError(f"reset_classifier: a {type(self).__name__} pools by 'avg' alone, got {global_pool!r}")
        try:
            config = TypeAdapter(type(self.config)).validate_python({**vars(self.config), **changes})
        except ValidationError as error:
            first = error.errors()[0]
            raise RegardError(f"reset_classifier: {first['loc'][0]}: {first['msg']}, got {first['input']!r}") from None
        with torch.device("meta"):
            fresh = type(self)(config)
        like = next(self.parameters())
        for name in _HEADS:
            if not hasattr(fresh, name):
                self._modules.pop(name, None)
            elif name != "fc_norm" or _shapes(getattr(self, name)) != _shapes(getattr(fresh, name)):
                module = getattr(fresh, name).to_empty(device=like.device).to(like.dtype)
                if not isinstance(module, nn.Identity):
                    module.reset_parameters()
                    module.apply(self.init_weights)
                setattr(self, name, module)
        self.config = config

    def forward_intermediates(
        self,
        x: Float[Tensor, "batch in_chans height width"],
        indices: int | Sequence[int] | None = None,
        return_prefix_tokens: bool = False,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: Literal["NCHW", "NLC"] = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """The features of `forward_features`, and those of chosen layers: (features, [feature, ...]), as timm's.

        indices: entries of `feature_info` (the last n for a number n, all of them unless given); they come in the order
        of computation. NCHW: (batch, channels, rows, columns); NLC: (batch, rows · columns, channels).
        return_prefix_tokens: of a model that has some, each feature is (feature, prefix (batch, prefix, channels)).
        norm: each is normalised by the last norm. `stop_early` spares timm time, and changes nothing here.
        intermediates_only: the list alone. RegardError for a layer or a format that is not there.
        """
        if output_fmt not in ("NCHW", "NLC"):
            raise RegardError(f"forward_intermediates: output_fmt is {output_fmt!r}; it must be 'NCHW' or 'NLC'")
        modules = [info["module"] for info in self.feature_info]
        names = [modules[i] for i in _chosen(indices, len(modules))]
        found = self.intermediates(x, list(dict.fromkeys([*names, self.final_feature])))
        features: list[Any] = []
        for name in names:
            pixels, prefix = self._pixels_and_prefix(found[name], x, norm)
            pixels = pixels if output_fmt == "NCHW" else pixels.flatten(2).transpose(1, 2)
            features.append((pixels, prefix) if return_prefix_tokens and prefix is not None else pixels)
        return features if intermediates_only else (found[self.final_feature], features)

    def pixels_of(
        self, features: Float[Tensor, " batch *features"], images: Float[Tensor, "batch in_chans height width"]
    ) -> Float[Tensor, "batch channels rows columns"]:
        """What `forward_features` gave for these images as a map, without prefix tokens."""
        return self._pixels_and_prefix(features, images, norm=False)[0]

    def _pixels_and_prefix(self, feature: Tensor, images: Tensor, norm: bool) -> tuple[Tensor, Tensor | None]:
        """An intermediate as (batch, channels, rows, columns), and its tokens that stand for no patch."""
        return feature, None


class TokenModel(ImageModel):
    """An image model whose features are tokens: a prefix, then the patches row by row."""

    final_feature = "features"
    grid: Any
    patch_embed: Any
    norm: nn.Module

    @property
    def feature_info(self) -> list[dict[str, Any]]:
        config = self.config
        return [
            {"module": f"blocks.{i}", "num_chs": config.embed_dim, "reduction": config.patch_size}
            for i in range(config.depth)
        ]

    def get_intermediate_layers(
        self,
        x: Float[Tensor, "batch in_chans height width"],
        n: int | Sequence[int] = 1,
        reshape: bool = False,
        return_class_token: bool = False,
        norm: bool = True,
        *,
        return_prefix_tokens: bool = False,
    ) -> tuple[Any, ...]:
        """The patches after the last n blocks, or after the blocks `n` = [i, ...], as DINOv2's method of this name.

        Each is (batch, patches, embed_dim); with `reshape` (batch, embed_dim, rows, columns); with
        `return_class_token` (patches, class token (batch, embed_dim)); with `return_prefix_tokens`, which is timm's,
        (patches, prefix (batch, prefix, embed_dim)). The last norm is applied, unless `norm` is False (timm's default).
        RegardError for a block or class token that is not there.
        """
        if return_class_token and not hasattr(self, "cls_token"):
            raise RegardError("get_intermediate_layers: there is no class token; call it without return_class_token")
        found = self.forward_intermediates(
            x,
            n,
            return_prefix_tokens=return_class_token or return_prefix_tokens,
            norm=norm,
            output_fmt="NCHW" if reshape else "NLC",
            intermediates_only=True,
        )
        return tuple((patches, prefix[:, 0]) for patches, prefix in found) if return_class_token else tuple(found)

    def _pixels_and_prefix(self, feature: Tensor, images: Tensor, norm: bool) -> tuple[Tensor, Tensor | None]:
        tokens = self.norm(feature) if norm else feature
        prefix = self.grid.prefix
        grid = self.patch_embed.grid(*images.shape[-2:], prefix=prefix)
        pixels = tokens[:, prefix:].transpose(1, 2).unflatten(2, (grid.height, grid.width)).contiguous()
        return pixels, tokens[:, :prefix] if prefix else None


class StageModel(ImageModel):
    """An image model whose features are maps of pixels, one a stage."""

    blocks: Any
    stem: Any

    @property
    def final_feature(self) -> str:  # type: ignore[override] # the name depends on the depth
        return f"blocks.{len(self.blocks) - 1}"

    @property
    def feature_info(self) -> list[dict[str, Any]]:
        depths = self.config.depths
        ends = [sum(depths[: stage + 1]) - 1 for stage in range(len(depths))]
        return [
            {
                "module": f"blocks.{end}",
                "num_chs": self.blocks[end].conv3.out_channels,
                "reduction": self.stem.reduction * 2**stage,
            }
            for stage, end in enumerate(ends)
        ]


def _chosen(indices: int | Sequence[int] | None, number: int) -> list[int]:
    """Indices from 0, in order. RegardError for one that is not there."""
    if indices is None:
        return list(range(number))
    if isinstance(indices, int):
        if not 0 < indices <= number:
            raise RegardError(f"intermediates: the last {indices} of {number} features; it must be 1 to {number}")
        return list(range(number - indices, number))
    wrong = [i for i in indices if not -number <= i < number]
    if wrong:
        raise RegardError(
            f"intermediates: there is no feature {wrong[0]}; they are 0 to {number - 1}, or -1 to -{number}"
        )
    return sorted({i % number for i in indices})


def _shapes(module: nn.Module) -> list[torch.Size]:
    return [parameter.shape for parameter in module.parameters()]


def cfg_of_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What a run's metadata knows of its images and classes, under timm's names."""
    known = {"architecture": metadata["model"]["name"], "label_names": tuple(metadata.get("class_names", ()))}
    images = metadata.get("preprocessing", {})
    if "crop_fraction" in images:
        known |= {
            "input_size": (images["channels"], *images["img_size"]),
            "mean": tuple(images["mean"]),
            "std": tuple(images["std"]),
            "crop_pct": images["crop_fraction"],
            "interpolation": images["interpolation"],
        }
        if images.get("resize", "crop") != "crop":
            known["crop_mode"] = CROP_MODES[images["resize"]]
    return known
