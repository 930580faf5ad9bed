"""Weights from wherever they are: other sizes, both sides of what does not fit, files that are not what they say."""

import io
import json
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.testing import assert_close

import regard
from regard.errors import RegardError
from regard.models import ViT, ViTConfig
from regard.ops import resample_positions
from regard.weights import written_as

SIZES = {"img_size": 21, "patch_size": 7, "num_classes": 11, "embed_dim": 24, "depth": 2, "num_heads": 3}
FORMATS = ["regard", "timm", "transformers", "torchvision", "google"]


def vit(**changed) -> ViT:
    torch.manual_seed(len(changed))
    model = ViT(ViTConfig(**{**SIZES, **changed})).eval()
    torch.nn.init.normal_(model.pos_embed.table)
    return model


def state_in(format_, model=None):
    return written_as((model or vit()).state_dict(), format_, num_heads=3)


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize(("size", "grid"), [(35, (5, 5)), ((21, 49), (3, 7)), ((14, 7), (2, 1))])
def test_another_image_size(format_, size, grid):
    old, new = vit(), vit(img_size=size)
    loaded = regard.load_weights(new, state_in(format_))
    assert loaded.format == format_
    assert loaded.notes == (f"pos_embed.table: resampled from 3 × 3 to {grid[0]} × {grid[1]} patches",)
    wanted = resample_positions(old.pos_embed.table, (3, 3), grid, prefix=1)
    assert_close(new.pos_embed.table, wanted, rtol=0, atol=0)


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize(("channels", "how"), [(1, "summed"), (5, "repeated")])
def test_another_number_of_channels(format_, channels, how):
    """A grey picture in all channels gives what it gave in three."""
    old, new = vit(), vit(in_chans=channels)
    loaded = regard.load_weights(new, state_in(format_))
    assert loaded.notes == (f"patch_embed.proj.weight: {how} from 3 to {channels} channels",)
    grey = torch.rand(2, 1, 21, 21)
    if channels == 1:
        assert_close(new(grey), old(grey.expand(-1, 3, -1, -1)), rtol=0, atol=1e-5)
    else:
        weight = old.patch_embed.proj.weight
        assert_close(new.patch_embed.proj.weight[:, 3:], weight[:, :2] * 3 / 5, rtol=0, atol=1e-6)


@pytest.mark.parametrize("format_", FORMATS)
def test_another_number_of_classes(format_, caplog):
    old, new = vit(), vit(num_classes=4)
    before = new.head.weight.clone()
    loaded = regard.load_weights(new, state_in(format_))
    assert loaded.notes == ("head: is dropped: it has 11 classes, the model has 4",)
    assert "it has 11 classes" in caplog.text
    assert torch.equal(new.head.weight, before)
    assert torch.equal(new.norm.weight, old.norm.weight)


def test_a_head_that_one_of_them_has():
    features = vit(num_classes=0)
    assert regard.load_weights(features, state_in("timm")).notes == ("head: is dropped: the model has no head",)
    notes = regard.load_weights(vit(), state_in("timm", features)).notes
    assert notes == ("head: stays as it is: the file has no weights for it",)


def test_a_run_that_was_no_square(tmp_path):
    old, new = vit(img_size=(14, 56)), vit(img_size=(28, 28))
    save_file(old.state_dict(), tmp_path / "model.safetensors")
    config = {"img_size": [14, 56], "patch_size": 7}
    (tmp_path / "metadata.json").write_text(json.dumps({"model": {"config": config}}))
    loaded = regard.load_weights(new, tmp_path)
    assert loaded.notes == ("pos_embed.table: resampled from 2 × 8 to 4 × 4 patches",)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth", ".bin"])
def test_every_kind_of_file(suffix, tmp_path):
    file, old, new = tmp_path / f"weights{suffix}", vit(), vit(img_size=21)
    if suffix == ".safetensors":
        save_file(state_in("timm"), file)
    else:
        torch.save({"model": state_in("timm")}, file)
    assert str(regard.load_weights(new, str(file))) == f"{file}: timm's ViT (timm)"
    assert all(torch.equal(a, b) for a, b in zip(new.state_dict().values(), old.state_dict().values(), strict=True))


def test_both_sides_of_what_does_not_fit():
    state = state_in("timm")
    del state["blocks.1.norm1.weight"]
    state["neck.weight"] = torch.zeros(1)
    state["norm.weight"] = torch.zeros(25)
    model = vit(num_classes=3)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(RegardError) as caught:
        regard.load_weights(model, state)
    message = str(caught.value)
    assert "1 missing from the file: blocks.1.norm1.weight" in message
    assert "1 not in the model: neck.weight" in message
    assert "norm.weight (25,) (24,)" in message
    assert "\n" not in message
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_long_lists_are_cut():
    with pytest.raises(RegardError) as caught:
        regard.load_weights(vit(depth=20), state_in("timm"))
    assert "216 missing from the file: blocks.10.* (12), blocks.11.* (12)" in str(caught.value)
    assert "and 12 more" in str(caught.value)


def test_what_is_ignored_is_named():
    state = {**state_in("timm"), "neck.weight": torch.zeros(1)}
    del state["norm.bias"]
    with pytest.raises(RegardError, match="name what may be missing"):
        regard.load_weights(vit(), state, strict=False)
    with pytest.raises(RegardError, match="ignore needs strict=False"):
        regard.load_weights(vit(), state, ignore=["neck."])
    with pytest.raises(RegardError, match=r"1 missing from the file: norm\.bias$"):
        regard.load_weights(vit(), state, strict=False, ignore=["neck."])
    loaded = regard.load_weights(vit(), state, strict=False, ignore=["neck.", "norm."])
    assert "norm.bias: ignored" in loaded.notes


def test_an_unknown_format():
    with pytest.raises(RegardError, match="unknown format 'timn'; did you mean 'timm'"):
        regard.load_weights(vit(), state_in("timm"), format="timn")
    with pytest.raises(RegardError, match="does not match this model"):
        regard.load_weights(vit(), state_in("timm"), format="torchvision")


class Hostile:
    """A pickle that would write a file when it is read."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".safetensors", ".npz"])
@pytest.mark.parametrize("packed", ["pickle", "torch", "numpy"])
def test_no_code_in_a_file_is_run(suffix, packed, tmp_path):
    ran, file = tmp_path / "ran", tmp_path / f"weights{suffix}"
    if packed == "pickle":
        file.write_bytes(pickle.dumps({"head.weight": Hostile(ran)}))
    elif packed == "torch":
        torch.save({"head.weight": Hostile(ran)}, file)
    else:
        with file.open("wb") as stream:
            np.savez(stream, **{"head.weight": np.array([Hostile(ran)], dtype=object)})
    with pytest.raises(RegardError, match=f"weights{suffix}"):
        regard.load_weights(vit(), file)
    assert not ran.exists()


def safetensors_claiming(header: dict | None, length: int | None = None) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text


def npz_claiming(shape: str) -> bytes:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    array = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode()
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("head.weight.npy", array)
    return stream.getvalue()


def bomb() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(50_000_000))
    return stream.getvalue()


HUGE = {"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 4 * 10**12]}


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("cut.safetensors", safetensors_claiming(HUGE | {"shape": [2]}), "cut short"),
        ("huge.safetensors", safetensors_claiming({"head.weight": HUGE}), "cut short"),
        ("header.safetensors", safetensors_claiming({}, length=2**62), "cut short"),
        ("empty.safetensors", b"", "cut short"),
        ("text.pt", b"not weights", "no PyTorch checkpoint"),
        ("bomb.pt", bomb(), "weights do not compress so far"),
        ("bomb.npz", bomb(), "weights do not compress so far"),
        ("huge.npz", npz_claiming("(1000000, 1000000)"), "more than the file holds"),
        ("text.npz", b"not weights", "no .npz of numbers"),
    ],
)
def test_a_file_that_is_not_what_it_says(name, content, says, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RegardError, match=says) as caught:
        regard.load_weights(vit(), tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_tensor_that_claims_more_than_is_stored(tmp_path):
    torch.save({"head.weight": torch.zeros(1).expand(10**6, 10**6)}, tmp_path / "wide.pt")
    with pytest.raises(RegardError, match="claims to be"):
        regard.load_weights(vit(), tmp_path / "wide.pt")


def test_a_truncated_safetensors_file(tmp_path):
    save_file(vit().state_dict(), tmp_path / "whole.safetensors")
    whole = (tmp_path / "whole.safetensors").read_bytes()
    (tmp_path / "part.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RegardError, match=r"part\.safetensors: is cut short"):
        regard.load_weights(vit(), tmp_path / "part.safetensors")


def test_what_is_not_there(tmp_path):
    with pytest.raises(RegardError, match=r"nothing\.pt: is missing"):
        regard.load_weights(vit(), tmp_path / "nothing.pt")
    with pytest.raises(RegardError, match=r"holds neither model\.safetensors nor"):
        regard.load_weights(vit(), tmp_path)
