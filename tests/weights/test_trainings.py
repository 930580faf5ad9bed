"""Files of other trainings: the right state dict among all that they hold, with a word, and nothing that is run."""

import argparse
import collections
import datetime
import os
import pathlib
import pickle
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import regard
from regard.errors import RegardError
from regard.models import ViT, ViTConfig
from regard.weights import read_weights, written_as

SIZES = {"img_size": 21, "patch_size": 7, "num_classes": 11, "embed_dim": 24, "depth": 2, "num_heads": 3}
PLAIN, AVERAGED = 0.0, 1.0  # what is added to each weight, which tells where it was taken from


def vit(**changed) -> ViT:
    return ViT(ViTConfig(**{**SIZES, **changed})).eval()


@pytest.fixture(scope="module")
def source():
    torch.manual_seed(0)
    return vit()


def named(model, prefix="", plus=0.0):
    return {f"{prefix}{name}": tensor + plus for name, tensor in written_as(model.state_dict(), "timm").items()}


OPTIMIZER = {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]}
ARGS = argparse.Namespace(model="vit", lr=np.float64(0.1), nested=argparse.Namespace(a=[1, (2, None)]))
DINO_HEAD = {"mlp.0.weight": torch.zeros(2, 24)}


def with_head(state, prefix):
    return {**state, **{f"{prefix}{name}": tensor for name, tensor in DINO_HEAD.items()}}


# What the training saved; what is added to the weights that are right; what the notes name.
TRAININGS = {
    "timm": (
        lambda m: {
            "epoch": 9,
            "arch": "vit",
            "state_dict": named(m),
            "state_dict_ema": named(m, plus=AVERAGED),
            "optimizer": OPTIMIZER,
            "args": ARGS,
            "amp_scaler": {"scale": 65536.0},
            "metric": np.float64(81.2),
            "version": 2,
        },
        AVERAGED,
        ["'state_dict_ema'"],
    ),
    "timm without an average": (
        lambda m: {"state_dict": named(m), "state_dict_ema": None, "args": ARGS, "metric": np.float32(3)},
        PLAIN,
        ["'state_dict'"],
    ),
    "torchvision": (
        lambda m: {
            "model": named(m),
            "model_ema": {"n_averaged": torch.tensor(7), **named(m, "module.", AVERAGED)},
            "optimizer": OPTIMIZER,
            "args": ARGS,
        },
        AVERAGED,
        ["'model_ema'", "without 'module.'", "n_averaged"],
    ),
    "torchvision, distributed": (
        lambda m: {
            "model": named(m),
            "model_ema": {"n_averaged": torch.tensor(7), **named(m, "module.module.", AVERAGED)},
        },
        AVERAGED,
        ["'model_ema'", "without 'module.module.'"],
    ),
    "DETR and MAE": (
        lambda m: {"model": named(m), "optimizer": OPTIMIZER, "lr_scheduler": {}, "epoch": 1, "args": ARGS},
        PLAIN,
        ["'model'"],
    ),
    "RT-DETR": (
        lambda m: {"last_epoch": 3, "model": named(m), "ema": {"module": named(m, plus=AVERAGED), "updates": 3}},
        AVERAGED,
        ["'ema/module'"],
    ),
    "DINO": (
        lambda m: {
            "student": with_head(named(m, "module.backbone."), "module.head."),
            "teacher": with_head(named(m, "backbone.", AVERAGED), "head."),
            "optimizer": OPTIMIZER,
            "args": ARGS,
            "dino_loss": {"center": torch.zeros(1, 3)},
            "fp16_scaler": None,
        },
        AVERAGED,
        ["'teacher'", "without 'backbone.'", "head.mlp.0.weight"],
    ),
    "DINOv2": (
        lambda m: {"model": named(m, "student.backbone.") | named(m, "teacher.backbone.", AVERAGED), "iteration": 3},
        AVERAGED,
        ["'model'", "without 'teacher.backbone.'", "student.backbone."],
    ),
    "I-JEPA": (
        lambda m: {"encoder": named(m, "module."), "target_encoder": named(m, "module.", AVERAGED), "opt": OPTIMIZER},
        AVERAGED,
        ["'target_encoder'", "without 'module.'"],
    ),
    "MoCo": (
        lambda m: {"state_dict": named(m, "module.base_encoder.") | named(m, "module.momentum_encoder.", 2.0)},
        PLAIN,
        ["'state_dict'", "without 'module.base_encoder.'"],
    ),
    "Lightning": (
        lambda m: {
            "state_dict": {**named(m, "net._orig_mod."), "criterion.weight": torch.ones(11)},
            "pytorch-lightning_version": "2.5",
            "hyper_parameters": {"lr": np.float32(0.1)},
            "callbacks": {},
            "optimizer_states": [OPTIMIZER],
        },
        PLAIN,
        ["'state_dict'", "without 'net._orig_mod.'", "criterion.weight"],
    ),
    "DeepSpeed": (lambda m: {"module": named(m), "ds_version": "0.1", "optimizer": None}, PLAIN, ["'module'"]),
    "mmcv": (lambda m: {"meta": {"epoch": 3}, "state_dict": named(m, "backbone.")}, PLAIN, ["without 'backbone.'"]),
    "DistributedDataParallel": (lambda m: named(m, "module."), PLAIN, ["without 'module.'"]),
    "torch.compile": (lambda m: named(m, "_orig_mod."), PLAIN, ["without '_orig_mod.'"]),
    "both": (lambda m: named(m, "_orig_mod.module."), PLAIN, ["without '_orig_mod.module.'"]),
    "the other way": (lambda m: named(m, "module._orig_mod."), PLAIN, ["without 'module._orig_mod.'"]),
    "names of its own": (
        lambda m: {"net": named(m, "my_model.trunk_.")},
        PLAIN,
        ["'net'", "without 'my_model.trunk_.'"],
    ),
    "our names": (
        lambda m: {"state_dict": {f"model.{name}": tensor for name, tensor in m.state_dict().items()}},
        PLAIN,
        ["without 'model.'"],
    ),
    "beside other values": (lambda m: {**named(m), "epoch": 3, 5: torch.zeros(2)}, PLAIN, ["epoch, 5"]),
    "objects of the language": (
        lambda m: {
            "model": named(m),
            "path": pathlib.Path("runs"),
            "time": datetime.datetime(2026, 1, 1),
            "table": collections.defaultdict(list, {"a": [1]}),
            "array": np.arange(3),
            "kind": np.dtype("float32"),
            "torch": torch.__version__,
        },
        PLAIN,
        ["'model'"],
    ),
}


@pytest.mark.parametrize("case", TRAININGS)
@pytest.mark.parametrize("legacy", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_right_state_dict_is_taken_and_said(case, legacy, source, tmp_path):
    make, plus, words = TRAININGS[case]
    torch.save(make(source), tmp_path / "a.pth.tar", _use_new_zipfile_serialization=not legacy)
    model = vit()
    loaded = regard.load_weights(model, tmp_path / "a.pth.tar")
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, source.state_dict()[name] + plus), name
    for word in words:
        assert word in str(loaded)


@pytest.mark.parametrize("case", ["timm", "torchvision", "RT-DETR", "DINO", "DINOv2", "I-JEPA"])
def test_without_the_average(case, source, tmp_path):
    torch.save(TRAININGS[case][0](source), tmp_path / "a.ckpt")
    model = vit()
    regard.load_weights(model, tmp_path / "a.ckpt", use_ema=False)
    assert torch.equal(model.norm.weight, source.norm.weight)


@pytest.mark.parametrize("case", ["timm", "timm without an average", "DETR and MAE"])
def test_timm_takes_the_same(case, source, tmp_path):
    from timm.models import load_state_dict

    torch.save({**TRAININGS[case][0](source), "metric": 1.0, "args": None}, tmp_path / "a.pth.tar")
    theirs, ours = load_state_dict(str(tmp_path / "a.pth.tar")), read_weights(tmp_path / "a.pth.tar")
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[name], tensor) for name, tensor in ours.items())


def test_convert_says_what_was_taken(source, tmp_path):
    torch.save(TRAININGS["DINO"][0](source), tmp_path / "a.pth")
    said = regard.convert(tmp_path / "a.pth", tmp_path / "b.safetensors", to="transformers")
    assert "'teacher'" in said
    assert "without 'backbone.'" in said
    model = vit()
    regard.load_weights(model, tmp_path / "b.safetensors")
    assert torch.equal(model.norm.weight, source.norm.weight + AVERAGED)
    regard.convert(tmp_path / "a.pth", tmp_path / "c.safetensors", to="transformers", use_ema=False)
    regard.load_weights(model, tmp_path / "c.safetensors")
    assert torch.equal(model.norm.weight, source.norm.weight)


def test_a_safetensors_file_of_any_name(source, tmp_path):
    save_file({name: tensor.contiguous() for name, tensor in named(source, "module.").items()}, tmp_path / "a.ckpt")
    model = vit()
    assert "without 'module.'" in str(regard.load_weights(model, tmp_path / "a.ckpt"))
    assert torch.equal(model.norm.weight, source.norm.weight)


@pytest.mark.parametrize("prefix", ["params/", "opt/target/"])
def test_googles_own_trainings(prefix, source, tmp_path):
    arrays = written_as(source.state_dict(), "google", num_heads=3)
    named_so = {prefix + name: tensor.numpy().astype(">f4") for name, tensor in arrays.items()}
    np.savez(tmp_path / "a.npz", **named_so, note=np.array("text"))
    model = vit()
    loaded = regard.load_weights(model, tmp_path / "a.npz")
    assert torch.equal(model.blocks[1].mixer.qkv.weight, source.blocks[1].mixer.qkv.weight)
    assert f"without '{prefix}'" in str(loaded)
    assert "note" in str(loaded)


NO_STATE = {
    "a list": [{"a": torch.zeros(1)}],
    "a number": 3,
    "a tensor": torch.zeros(3),
    "nothing": None,
    "empty": {},
    "an optimiser": {"optimizer": OPTIMIZER, "epoch": 3},
    "numbers as keys": {0: torch.zeros(2), 1: torch.zeros(3)},
    "bytes as keys": {b"norm.weight": torch.zeros(2)},
}


@pytest.mark.parametrize("case", NO_STATE)
def test_what_holds_no_state_dict(case, tmp_path):
    torch.save(NO_STATE[case], tmp_path / "a.pth")
    with pytest.raises(RegardError, match=r"a\.pth: holds no state dict: ") as caught:
        regard.load_weights(vit(), tmp_path / "a.pth")
    assert "\n" not in str(caught.value)


NO_PLAIN = {
    "sparse": (lambda t: t.to_sparse(), "norm.weight is sparse"),
    "compressed rows": (lambda t: t[None].to_sparse_csr(), "norm.weight is sparse"),
    "meta": (lambda t: t.to("meta"), "lies on the meta device"),
    "nested": (lambda t: torch.nested.nested_tensor([t, t[:2]]), "norm.weight is nested"),
    "jagged": (lambda t: torch.nested.nested_tensor([t, t[:2]], layout=torch.jagged), "norm.weight is nested"),
    "quantized": (lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8), "norm.weight is quantized"),
    "complex": (lambda t: t.to(torch.complex64), "norm.weight is complex64 where float32 belongs"),
    "truth values": (lambda t: t > 0, "norm.weight is bool where float32 belongs"),
    "integers": (lambda t: t.long(), "norm.weight is int64 where float32 belongs"),
    "nan": (lambda t: t * torch.nan, "norm.weight holds NaN or infinity in all of its 24 numbers"),
    "one nan": (
        lambda t: torch.cat([t[:-1], t[-1:] * torch.nan]),
        "norm.weight holds NaN or infinity in 1 of its 24 numbers",
    ),
    "infinity": (lambda t: t / 0, "norm.weight holds NaN or infinity in"),
    "beyond": (lambda t: t.double() + 1e300, "norm.weight holds numbers beyond those of float32"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", NO_PLAIN)
@pytest.mark.parametrize("where", ["file", pytest.param("memory", marks=pytest.mark.slow)])
def test_tensors_that_are_no_weights(case, where, source, tmp_path):
    change, says = NO_PLAIN[case]
    state = named(source)
    state["norm.weight"] = change(state["norm.weight"])
    torch.save(state, tmp_path / "a.pt")
    model = vit()
    before = model.head.weight.clone()
    with pytest.raises(RegardError, match=says) as caught:
        regard.load_weights(model, tmp_path / "a.pt" if where == "file" else state)
    assert "\n" not in str(caught.value)
    assert torch.equal(model.head.weight, before)


def test_a_head_of_nan_can_be_left_out(source):
    state = {**named(source), "head.weight": torch.full((11, 24), torch.nan)}
    model = vit()
    before = model.head.weight.clone()
    assert regard.load_weights(model, state, classes="reset").notes == ("head: stays as it is, as asked",)
    assert regard.load_weights(model, state, strict=False, ignore=["head."]).notes == ("head.weight: ignored",)
    assert torch.equal(model.head.weight, before)


@pytest.mark.parametrize(
    ("dtype", "atol"),
    [(torch.float64, 0), (torch.float16, 2e-3), (torch.bfloat16, 2e-2), (torch.float8_e4m3fn, 0.2)],
)
def test_other_floats_are_converted_with_a_word(dtype, atol, source):
    model = vit()
    loaded = regard.load_weights(model, {name: tensor.to(dtype) for name, tensor in named(source).items()})
    assert loaded.notes == (f"32 of 32 tensors converted from {str(dtype)[6:]} to float32",)
    assert model.norm.weight.dtype == torch.float32
    torch.testing.assert_close(model.norm.weight, source.norm.weight, rtol=0, atol=atol)


def test_a_whole_model_and_a_program_are_not_read(source, tmp_path):
    torch.save({"model": source}, tmp_path / "a.pth")
    with pytest.raises(RegardError, match=r"needs regard\.models\.vit\.ViT.*save the model's state_dict\(\) alone"):
        regard.load_weights(vit(), tmp_path / "a.pth")
    with pytest.warns(FutureWarning):
        torch.jit.script(torch.nn.Linear(2, 3)).save(tmp_path / "b.pt")
    with pytest.raises(RegardError, match="is a program of TorchScript") as caught:
        regard.load_weights(vit(), tmp_path / "b.pt")
    for word in ("weights_only", "\x1b", "\n"):
        assert word not in str(caught.value)


class Evil:
    def __init__(self, function, *arguments) -> None:
        self.made_by = function, arguments

    def __reduce__(self):
        return self.made_by


@pytest.mark.parametrize("place", ["args", "weight", "state"])
def test_no_code_beside_the_weights_is_run(place, source, tmp_path):
    for number, (function, *arguments) in enumerate(
        [(os.system, f"touch {tmp_path / 'ran'}"), (os.mkdir, tmp_path / "ran"), (eval, "print(1)"), (exec, "1")]
    ):
        evil, file = Evil(function, *arguments), tmp_path / f"{number}.pth"
        found = {"model": named(source)}
        if place == "args":
            found["args"] = argparse.Namespace(a=evil)
        elif place == "weight":
            found["model"]["norm.weight"] = evil
        else:
            found["optimizer"] = evil
        torch.save(found, file)
        with pytest.raises(RegardError, match="holds only weights: it needs") as caught:
            regard.load_weights(vit(), file)
        for word in ("weights_only", "safe_globals", "\x1b", "\n"):
            assert word not in str(caught.value)
    assert not (tmp_path / "ran").exists()


def test_what_stands_in_for_an_object_holds_nothing(tmp_path):
    """No attribute, item or call of the file reaches what a harmless class would do with it."""
    from regard.weights.checkpoint import StandIn, load_checkpoint

    torch.save({"a": ARGS, "b": np.float64(3), "c": pathlib.Path("x")}, tmp_path / "a.pth")
    found = load_checkpoint(tmp_path / "a.pth")
    assert all(type(value) is StandIn and not vars(value) for value in found.values())


def test_names_cannot_command_the_terminal(source):
    with pytest.raises(RegardError) as caught:
        regard.load_weights(vit(), {**named(source), "a\n\x1b[31mb": torch.zeros(2)})
    assert r"a\n\x1b[31mb" in str(caught.value)


@pytest.mark.parametrize("ending", ["pth", "npz", "safetensors", "bin", "ckpt"])
def test_what_is_no_regular_file(ending, tmp_path):
    os.mkfifo(tmp_path / f"a.{ending}")
    with pytest.raises(RegardError, match="is no regular file"):
        regard.load_weights(vit(), tmp_path / f"a.{ending}")


def test_a_compressed_archive_is_measured_against_the_model(source, tmp_path):
    """Fifteen times its size, which no limit on the ratio alone would refuse; and one that is honest."""
    noise = np.random.default_rng(0).integers(0, 256, 2_000_000, dtype=np.uint8)
    huge = np.concatenate([noise, np.zeros(28_000_000, np.uint8)]).view("f4")
    np.savez_compressed(tmp_path / "huge.npz", **{"head/kernel": huge})
    with pytest.raises(RegardError, match="unpacks to 29 MB, and the model's weights take 0 MB"):
        regard.load_weights(vit(), tmp_path / "huge.npz")
    with zipfile.ZipFile(tmp_path / "huge.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}, 2))
        archive.writestr("archive/data/0", huge.tobytes())
    with pytest.raises(RegardError, match="unpacks to 29 MB"):
        regard.load_weights(vit(), tmp_path / "huge.pth")
    arrays = written_as(source.state_dict(), "google", num_heads=3)
    np.savez_compressed(tmp_path / "good.npz", **{name: tensor.numpy() for name, tensor in arrays.items()})
    model = vit()
    regard.load_weights(model, tmp_path / "good.npz")
    assert torch.equal(model.norm.weight, source.norm.weight)


def test_bfloat16_of_flax(source, tmp_path):
    """NumPy stores it as two bytes without a name."""
    arrays = written_as(source.state_dict(), "google", num_heads=3)
    two_bytes = {name: tensor.bfloat16().view(torch.int16).numpy().view("V2") for name, tensor in arrays.items()}
    np.savez(tmp_path / "a.npz", **two_bytes)
    model = vit()
    regard.load_weights(model, tmp_path / "a.npz")
    assert torch.equal(model.norm.weight, source.norm.weight.bfloat16().float())
