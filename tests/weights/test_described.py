"""What a stranger's metadata.json describes: held to its weights before anything of that size is allocated."""

import copy
import json
import logging
import os
import resource
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import regard
from regard.errors import RegardError
from regard.models import PRESETS
from regard.weights.described import require_layers

GOLDEN = Path(__file__).parent.parent / "golden_runs"
CONFIG = "model.config."
CASES = {
    "classification": [
        (CONFIG + "embed_dim", 10**9, r"model\.config\.embed_dim: input should be less than or equal to 1000000"),
        (
            CONFIG + "embed_dim",
            65536,
            r"model\.safetensors: does not match this model: .*head\.weight \(10, 16\) \(10, 65536\)",
        ),
        (CONFIG + "depth", 10**7, r"model\.config\.depth: input should be less than or equal to 10000"),
        (CONFIG + "depth", 9999, "has 33 tensors, too few for the 9,999 layers that are described"),
        (CONFIG + "num_classes", 10**7, r"head\.weight \(10, 16\) \(10000000, 16\)"),
        (CONFIG + "mlp_ratio", float("nan"), "mlp_ratio: input should be"),
        (CONFIG + "mlp_ratio", float("inf"), "mlp_ratio: input should be"),
        (CONFIG + "mixer", ["attention"] * 10**5, "metadata.json: model: 100000 mixers for a depth of 2"),
        (CONFIG + "mixer_options", {"local": {"window": 60_001}}, r"rel_rows \(3, 4\) \(60001, 4\)"),
        (CONFIG + "xyz", 1, r"unknown key .*model\.config\.xyz"),
        ("model", [], "'model' must be a table"),
        ("model.name", ["a"], "'name' must be a text"),
        ("task", {}, "unknown task"),
        ("task", "detection", "lacks 'category_ids'"),
        ("class_names", ["a"], "1 class names, 10 classes"),
        ("class_names", list(range(10)), "class_names must be a list of texts"),
        ("class_names", "0123456789", "class_names must be a list of texts"),
        ("preprocessing", "x", "preprocessing must be a table"),
        ("preprocessing.img_size", [10**9, 10**9], "no such image is prepared"),
        ("preprocessing.img_size", [8000, 8001], "ask for over 64,000,000"),
        ("preprocessing.img_size", ["8", "8"], r"metadata\.json: img_size is '8'"),
        ("preprocessing.crop_fraction", 1e-300, "ask for over 64,000,000"),
        ("preprocessing.channels", 3, "3 channels, and the model takes 1"),
        ("preprocessing.mean", [float("nan")], "no such image is prepared"),
    ],
    "detection": [
        (CONFIG + "backbone", "hf-hub:evil/x", "unknown backbone 'hf-hub:evil/x'"),
        (CONFIG + "num_points", 10**5, "does not match this model"),
        (CONFIG + "strides", [8] * 1000, "strides: tuple should have at most 100 items"),
        ("category_ids", [1] * 10, "category_ids must be 10 different whole numbers"),
        ("category_ids", ["a"] * 10, "category_ids must be 10 different whole numbers"),
        ("preprocessing.longest", 10**9, "no such image is prepared"),
        ("preprocessing.longest", None, r"metadata\.json: preprocessing"),
    ],
    "seq2seq": [
        ("max_new_tokens", 10**12, "max_new_tokens must be 1 to 1,000,000"),
        ("max_new_tokens", "9", "max_new_tokens must be 1 to 1,000,000"),
        ("tokenizer", None, "unknown tokenizer"),
        ("tokenizer", {"kind": []}, "unknown tokenizer"),
        ("tokenizer", {"kind": "bpe", "json": {"model": {"type": "BPE"}}}, "not a tokenizer"),
        (CONFIG + "decoder_depth", 10**4, "too few for the 10,002 layers"),
    ],
    "next_token": [
        (CONFIG + "context", 10**8, r"\(64, 32\) \(100000000, 32\)"),
        (CONFIG + "mixer_options", {"num_features": 10**8}, r"projection \(16, 8\) \(100000000, 8\)"),
    ],
}


def changed(metadata, path, value):
    metadata = copy.deepcopy(metadata)
    *inner, last = path.split(".")
    table = metadata
    for key in inner:
        table = table[key]
    table[last] = value
    return metadata


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for task in CASES:
        shutil.copytree(GOLDEN / task, folder / task)
        regard.load(folder / task, device="cpu")  # imports, which take memory
    return folder


@pytest.mark.parametrize(("task", "path", "value", "says"), [(task, *case) for task in CASES for case in CASES[task]])
def test_what_is_described_is_held_to_the_weights(task, path, value, says, runs):
    file = runs / task / "metadata.json"
    text = file.read_text(encoding="utf-8")
    before = peak_megabytes()
    file.write_text(json.dumps(changed(json.loads(text), path, value)), encoding="utf-8")
    try:
        with pytest.raises(RegardError, match=says) as caught:
            regard.load(runs / task, device="cpu")
    finally:
        file.write_text(text, encoding="utf-8")
    assert str(runs / task) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 40_000
    assert peak_megabytes() - before < 300


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"a":' + "[" * 10**5, "nested more than 100 deep"),
        ('{"a":' + "[" * 200 + "]" * 200 + "}", "nested more than 100 deep"),
        ('{"model": ' + "9" * 5000 + "}", "is not JSON"),
        ("[]", "should hold a table"),
        ("", "is not JSON"),
        ("\x00\x01", "is not JSON"),
    ],
)
def test_a_file_that_is_no_metadata(text, says, runs):
    file = runs / "classification" / "metadata.json"
    before = file.read_text(encoding="utf-8")
    file.write_text(text, encoding="utf-8")
    try:
        for use in (lambda: regard.load(file.parent), lambda: regard.create_model(f"local-dir:{file.parent}")):
            with pytest.raises(RegardError, match=rf"metadata\.json: .*{says}"):
                use()
    finally:
        file.write_text(before, encoding="utf-8")


def test_no_preset_has_more_layers_than_tensors():
    from regard.models import build

    for name, config in PRESETS.items():
        if not name.startswith(("detr", "dn_detr")):
            with torch.device("meta"):
                require_layers(config, len(build(config).state_dict()), name)


@pytest.mark.parametrize(
    ("value", "says"),
    [(torch.nan, "holds NaN or infinity in all of its"), (torch.inf, "holds NaN or infinity in all of its")],
)
def test_a_run_that_diverged_says_so(value, says, runs, tmp_path):
    shutil.copytree(runs / "classification", tmp_path / "run")
    file = tmp_path / "run" / "model.safetensors"
    shutil.copy(file, tmp_path / "run" / "best.safetensors")
    save_file({name: torch.full_like(tensor, value) for name, tensor in load_file(file).items()}, file)
    regard.load(tmp_path / "run", weights="best")
    with pytest.raises(RegardError, match=rf"model\.safetensors: .* {says}.*--weights best takes"):
        regard.load(tmp_path / "run")


def test_numbers_of_another_kind_in_a_run(runs, tmp_path):
    shutil.copytree(runs / "classification", tmp_path / "run")
    file = tmp_path / "run" / "model.safetensors"
    save_file({name: tensor.to(torch.int32) for name, tensor in load_file(file).items()}, file)
    with pytest.raises(RegardError, match="is int32 where float32 belongs"):
        regard.load(tmp_path / "run")


def test_weights_that_are_no_file(runs, tmp_path):
    shutil.copytree(runs / "classification", tmp_path / "run")
    (tmp_path / "run" / "model.safetensors").unlink()
    with pytest.raises(RegardError, match=r"model\.safetensors: is missing"):
        regard.load(tmp_path / "run")
    os.mkfifo(tmp_path / "run" / "model.safetensors")
    with pytest.raises(RegardError, match="is no regular file"):
        regard.load(tmp_path / "run")


def test_a_folder_of_timm_whose_config_asks_for_the_memory(tmp_path):
    from regard.models import build, configure
    from regard.weights import written_as

    arguments = {"img_size": 32, "embed_dim": 8, "depth": 2, "num_heads": 2}
    model = build(configure("vit_tiny_patch16_224", {**arguments, "num_classes": 3}))
    save_file(written_as(model.state_dict(), "timm"), tmp_path / "model.safetensors")
    config = {"architecture": "vit_tiny_patch16_224", "num_classes": 3, "model_args": arguments}
    before = peak_megabytes()
    for path, value, says in [
        ("model_args.embed_dim", 10**6 - 2, "does not match this model"),
        ("model_args.depth", 10**4, "too few for the 10,000 layers"),
        ("model_args.depth", "x", "depth: input should be a valid integer"),
        ("model_args.img_size", [10**5, 10**5], r"pos_embed\.table \(1, 5, 8\)"),
        ("model_args", [], "model_args must be a table"),
        ("architecture", [], "holds neither a run"),
        ("global_pool", {}, "global_pool is {}"),
        ("pretrained_cfg", [], "pretrained_cfg must be a table"),
        ("pretrained_cfg", {"mean": "abc"}, "mean must be a list of numbers"),
        ("pretrained_cfg", {"std": [float("nan")]}, "std must be a list of numbers"),
        ("pretrained_cfg", {"crop_pct": "x"}, "crop_pct must be a number"),
    ]:
        (tmp_path / "config.json").write_text(json.dumps(changed(config, path, value)), encoding="utf-8")
        with pytest.raises(RegardError, match=says):
            regard.create_model(f"local-dir:{tmp_path}")
    assert peak_megabytes() - before < 300
    # What it says of the classes is not taken from it, but from the tensors.
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_classes": 10**8}), encoding="utf-8")
    assert regard.create_model(f"local-dir:{tmp_path}").num_classes == 3


def test_the_hubs_client_is_quiet(caplog):
    from regard.weights.hub import quiet_client

    log = logging.getLogger("huggingface_hub.utils._http")
    with quiet_client():
        log.warning("Retrying in 1s [Retry 1/5].")
    assert not caplog.records
    log.warning("as before")
    assert [record.getMessage() for record in caplog.records] == ["as before"]
