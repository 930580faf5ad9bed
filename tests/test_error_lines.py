"""What an error offers and how it is cut: hints only where a name is near, and like compared with like."""

import pytest
import torch

from regard.errors import first_few, first_of, is_out_of_memory, nearest, of_the_machine, one_line, unknown

KEYS = [
    "data",
    "data.address",
    "data.root",
    "model",
    "model.name",
    "seed",
    "train",
    "train.batch_size",
    "train.clip_grad",
    "train.ema_decay",
    "train.epochs",
    "train.lr",
    "train.weight_decay",
]
FIELDS = ["class_token", "depth", "drop_path", "embed_dim", "img_size", "layer_scale", "num_heads", "pool"]


@pytest.mark.parametrize(
    ("name", "known", "near"),
    [
        ("train.epoch", KEYS, "train.epochs"),
        # Initials, in both directions, and beginnings.
        ("train.learning_rate", KEYS, "train.lr"),
        ("train.bs", KEYS, "train.batch_size"),
        ("train.ema", KEYS, "train.ema_decay"),
        # A key without a section, or with the wrong one.
        ("lr", KEYS, "train.lr"),
        ("learning_rate", KEYS, "train.lr"),
        ("epoch", KEYS, "train.epochs"),
        ("trian", KEYS, "train"),
        ("trian.epochs", KEYS, "train.epochs"),
        ("train.seed", KEYS, "seed"),
        ("data.batch_size", KEYS, "train.batch_size"),
        # What they share is the section alone, or a few letters.
        ("train.xyz", KEYS, None),
        ("train.dropout", KEYS, None),
        ("data.path", KEYS, None),
        ("foo", KEYS, None),
        ("features_only", FIELDS, None),
        # What others call it.
        ("num_layers", FIELDS, "depth"),
        ("hidden_size", FIELDS, "embed_dim"),
        ("drop_path_rate", FIELDS, "drop_path"),
        ("init_values", FIELDS, "layer_scale"),
        ("num_layers", ["width"], None),
        # Names with a number or a tag behind the dot.
        ("block.1", ["blocks.0", "blocks.1", "blocks.11"], "blocks.1"),
        ("blocks.12", ["blocks.1", "blocks.2", "blocks.11"], None),
        ("vit_bse_patch16_224.deit", ["vit_base_patch16_224.deit", "vit_tiny_patch16_224.deit"], "vit_base"),
        ("vit_base", ["fnet_base", "vit_base_patch16_224.deit"], "vit_base"),
        ("cifar10", ["CIFAR10", "CIFAR100"], "CIFAR10"),
        ("x", [], None),
        ("", KEYS, None),
    ],
)
def test_a_hint_is_near_or_absent(name, known, near):
    found = nearest(name, known)
    assert len(found) == (near is not None)
    assert all(other.startswith(near) for other in found)
    assert ("did you mean" in str(unknown("key", name, known))) == (near is not None)


def test_names_of_another_kind_come_second():
    error = unknown("mixer", "locl", ["local", "conv"], then=["local_mini", "a_model"])
    assert str(error) == "unknown mixer 'locl'; did you mean 'local'? Known: conv, local, a_model, local_mini"
    error = unknown("mixer", "a_modl", ["local", "conv"], where="mine.toml", then=["local_mini", "a_model"])
    assert str(error).startswith("mine.toml: unknown mixer 'a_modl'; did you mean 'a_model'? Known: conv")


def test_another_librarys_error_is_one_line():
    assert one_line(ValueError("first\n  second\n")) == "first second"
    assert one_line(ValueError(" \n")) == "ValueError"
    assert one_line(ValueError("x" * 1000)) == "x" * 300


def test_lists_are_cut():
    assert first_few(["a", "b"], 2) == "a, b"
    assert first_few(["a", "b", "c", "d"]) == "a, b, c and 1 more"
    assert first_of(["line 3 is empty"], "more lines") == "line 3 is empty"
    assert first_of(["line 3 is empty", "x", "y"], "more lines") == "line 3 is empty (and 2 more lines)"


def test_what_comes_from_the_machine_is_told_from_what_is_a_fault_of_ours():
    with pytest.raises(RuntimeError) as no_room:
        torch.empty(10**15)
    for error in (
        no_room.value,
        torch.OutOfMemoryError("CUDA out of memory."),
        MemoryError(),
        RuntimeError("bad alloc"),
    ):
        assert is_out_of_memory(error)
        assert of_the_machine(error).startswith("the memory is too small (")
    for error in (ValueError("out of memory"), RuntimeError("mat1 and mat2 shapes cannot be multiplied")):
        assert not is_out_of_memory(error)
        assert of_the_machine(error) is None
