"""On which grid the source's positions lay: a square, unless something at hand says otherwise."""

import json

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch.testing import assert_close

import regard
from regard.errors import RegardError
from regard.models import ViT, ViTConfig
from regard.weights import written_as

SIZES = {"patch_size": 2, "num_classes": 3, "embed_dim": 8, "depth": 1, "num_heads": 2}


def vit(rows: int, columns: int, **changed) -> ViT:
    model = ViT(ViTConfig(img_size=(2 * rows, 2 * columns), **{**SIZES, **changed})).eval()
    if model.pos_embed is not None:
        torch.nn.init.normal_(model.pos_embed.table)
    return model


def interpolated(table, old, new, prefix=1):
    """In float64, as the definition has it."""
    image = table[:, prefix:].double().unflatten(1, old).permute(0, 3, 1, 2)
    new_image = F.interpolate(image, size=new, mode="bicubic", antialias=True, align_corners=False)
    return torch.cat([table[:, :prefix].double(), new_image.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)


@pytest.mark.parametrize("format_", ["regard", "timm", "transformers", "google"])
def test_a_square_of_equal_product(format_):
    """576 positions are 24 × 24, not 18 × 32 as the model's."""
    old, new = vit(24, 24), vit(18, 32)
    loaded = regard.load_weights(new, written_as(old.state_dict(), format_, num_heads=2))
    note = "pos_embed.table: resampled from 24 × 24 to 18 × 32 patches; grid=(rows, columns) says otherwise"
    assert loaded.notes == (note,)
    wanted = interpolated(old.pos_embed.table.detach(), (24, 24), (18, 32))
    assert_close(new.pos_embed.table.double(), wanted, rtol=0, atol=1e-5)
    assert not torch.allclose(new.pos_embed.table, old.pos_embed.table, atol=1)


@pytest.mark.parametrize(
    ("old", "new"), [((18, 32), (24, 24)), ((18, 32), (18, 32)), ((4, 9), (9, 4)), ((3, 7), (7, 3))]
)
def test_the_grid_as_the_caller_says(old, new):
    theirs, ours = vit(*old), vit(*new)
    loaded = regard.load_weights(ours, theirs.state_dict(), grid=old)
    assert_close(
        ours.pos_embed.table.double(), interpolated(theirs.pos_embed.table.detach(), old, new), rtol=0, atol=1e-5
    )
    assert ("says otherwise" in str(loaded)) is False
    assert len(loaded.notes) == (old != new)


def test_what_cannot_be_known_is_asked_for():
    with pytest.raises(RegardError, match=r"pos_embed\.table is for 21 patches.*grid=\(rows, columns\)"):
        regard.load_weights(vit(4, 5), vit(3, 7).state_dict())
    with pytest.raises(RegardError, match=r"is for 21 patches, grid=\(4, 5\) has 20"):
        regard.load_weights(vit(4, 5), vit(3, 7).state_dict(), grid=(4, 5))
    for grid in ((3,), (3, -7), (3, 7, 1), [0, 21], (True, 21)):
        with pytest.raises(RegardError, match="grid must be two whole numbers above 0"):
            regard.load_weights(vit(4, 5), vit(3, 7).state_dict(), grid=grid)


def test_a_grid_that_is_no_square_and_as_large_as_the_models_is_taken_with_a_word():
    old, new = vit(3, 7), vit(3, 7)
    loaded = regard.load_weights(new, old.state_dict())
    assert loaded.notes == (
        "pos_embed.table: taken as 3 × 7 patches, as the model's are; grid=(rows, columns) says otherwise",
    )
    assert torch.equal(new.pos_embed.table, old.pos_embed.table)


@pytest.mark.parametrize(
    ("file", "config"),
    [
        ("metadata.json", {"model": {"config": {"img_size": [4, 16], "patch_size": 2}}}),
        ("config.json", {"model_args": {"img_size": [4, 16], "patch_size": 2}}),
        ("config.json", {"image_size": [4, 16], "patch_size": 2}),
        ("config.json", {"patch_size": 2, "pretrained_cfg": {"input_size": [3, 4, 16]}}),
    ],
)
def test_the_grid_as_a_file_beside_the_weights_says(file, config, tmp_path):
    old, new = vit(2, 8), vit(4, 4)
    save_file(old.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / file).write_text(json.dumps(config))
    for source in (tmp_path, f"local-dir:{tmp_path}"):
        loaded = regard.load_weights(new, source)
        assert loaded.notes == ("pos_embed.table: resampled from 2 × 8 to 4 × 4 patches",)
    wanted = interpolated(old.pos_embed.table.detach(), (2, 8), (4, 4))
    assert_close(new.pos_embed.table.double(), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "config", ["{", '{"image_size": "x", "patch_size": 0}', '{"model_args": 3}', "[]", "[" * 10**5]
)
def test_a_file_beside_the_weights_that_says_nothing(config, tmp_path):
    old, new = vit(4, 4), vit(2, 8)
    save_file(old.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(config)
    assert "resampled from 4 × 4 to 2 × 8" in str(regard.load_weights(new, tmp_path))


@pytest.mark.parametrize("with_class_token", [True, False])
@pytest.mark.parametrize(("old", "new"), [((4, 4), (2, 8)), ((4, 4), (6, 6)), ((4, 4), (1, 17))])
def test_tables_with_and_without_a_row_for_the_class_token(old, new, with_class_token):
    """timm's `no_embed_class` has rows for patches alone; 17 rows for 17 patches of the model are 16 and a token."""
    theirs, ours = vit(*old), vit(*new)
    state = written_as(theirs.state_dict(), "timm")
    table = theirs.pos_embed.table.detach().clone()
    state["pos_embed"] = table if with_class_token else table[:, 1:]
    if not with_class_token:
        table[:, :1] = 0
    regard.load_weights(ours, state)
    assert_close(ours.pos_embed.table.double(), interpolated(table, old, new), rtol=0, atol=1e-5)


def test_registers_keep_their_rows():
    old, new = vit(4, 4, num_registers=4), vit(2, 8, num_registers=4)
    regard.load_weights(new, old.state_dict())
    wanted = interpolated(old.pos_embed.table.detach(), (4, 4), (2, 8), prefix=5)
    assert_close(new.pos_embed.table.double(), wanted, rtol=0, atol=1e-5)
    with pytest.raises(RegardError, match=r"reg_token \(1, 4, 8\) \(1, 2, 8\)"):
        regard.load_weights(vit(4, 4, num_registers=2), old.state_dict())
    with pytest.raises(RegardError, match="1 not in the model: cls_token"):
        regard.load_weights(vit(4, 4, pool="avg"), vit(4, 4).state_dict())


MIXER = {"mixer": "mlp", "pool": "avg", "positions": "none"}


def test_matrices_over_tokens_cannot_be_resampled():
    """16 tokens of 4 × 4 are not those of 2 × 8, though the matrix has the same shape."""
    old = vit(4, 4, **MIXER)
    for grid, told in (((2, 8), "2 × 8"), ((3, 3), "3 × 3")):
        with pytest.raises(RegardError, match=rf"mixes 4 × 4 patches, the model has {told}; .* cannot be resampled"):
            regard.load_weights(vit(*grid, **MIXER), old.state_dict())
    long, same = vit(2, 8, **MIXER), vit(2, 8, **MIXER)
    regard.load_weights(same, long.state_dict(), grid=(2, 8))
    weights = [model.blocks[0].mixer.mlp.fc1.weight for model in (same, long)]
    assert torch.equal(*weights)


def test_a_patch_of_another_size_is_said():
    with pytest.raises(RegardError, match=r"patch_embed\.proj\.weight \(8, 3, 2, 2\) \(8, 3, 4, 4\)"):
        regard.load_weights(ViT(ViTConfig(img_size=16, **{**SIZES, "patch_size": 4})), vit(4, 4).state_dict())
    flat = vit(4, 4).state_dict()
    flat["patch_embed.proj.weight"] = flat["patch_embed.proj.weight"].flatten(1)
    with pytest.raises(RegardError, match=r"patch_embed\.proj\.weight \(8, 12\) \(8, 3, 2, 2\)"):
        regard.load_weights(vit(4, 4), flat)
