"""Recipes: what the shipped ones say, how a file and `--set` become one, and what is said of mistakes."""

import shutil
from dataclasses import MISSING, fields
from pathlib import Path

import pytest
import torch

import regard.recipes
from regard.data import Augmentation, DetectionAugmentation
from regard.errors import RegardError
from regard.models import DNDETRConfig, build
from regard.recipes import (
    Claim,
    ClassificationAugmentSection,
    ClassificationTrainSection,
    DetectionAugmentSection,
    Recipe,
    load_recipe,
    read_recipe,
    shipped_recipes,
    write_recipe,
)

SMALLEST = """
[model]
name = "vit_pico_patch2_8"
[data]
address = "digits"
[train]
epochs = 1
"""


@pytest.fixture
def written(tmp_path: Path):
    """written(text) -> the path of a recipe with that text."""

    def write(text: str) -> Path:
        path = tmp_path / "mine.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def message(path: Path | str, *settings: str) -> str:
    with pytest.raises(RegardError) as caught:
        load_recipe(str(path), settings)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_the_main_job_has_its_recipes():
    assert {"vit-digits", "small-images", "seq2seq-numbers", "next-token"} <= shipped_recipes().keys()


# The paper's DETR, which takes days, what it reaches on small data, what benchmarks/detection_small.py measures, and
# what is for a GPU.
WITHOUT_A_CLAIM = {"detr", "detr-digit-scenes", "detr-small-pretrained", "detr-photos-all"}


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_shipped_recipe_builds(name):
    recipe = load_recipe(name)
    assert recipe == shipped_recipes()[name]
    assert recipe.title
    found, wanted = outputs(recipe), 7
    if isinstance(recipe.model.config(), DNDETRConfig):  # each class has a score of its own: there is no "no object"
        wanted = 6
    assert found.shape == (2, *found.shape[1:-1], wanted)


@pytest.mark.parametrize("name", [name for name in shipped_recipes() if name not in WITHOUT_A_CLAIM])
def test_a_shipped_recipe_claims_something(name):
    recipe = load_recipe(name)
    assert recipe.claim is not None
    command = "pretrain" if recipe.task == "pretraining" else "train"
    assert recipe.claim.command.startswith(f"regard {command} {name}")
    metric, least = METRICS[recipe.task]
    assert recipe.claim.metric == metric
    if least is not None:
        assert least <= recipe.claim.at_least < 1
    else:
        assert 0 < recipe.claim.at_most < 8


METRICS = {
    "classification": ("accuracy", 0.9),
    "detection": ("ap", 0.5),
    "seq2seq": ("exact_match", 0.9),
    "next-token": ("bits_per_byte", None),
    "pretraining": ("linear", 0.8),
}


def outputs(recipe: Recipe) -> torch.Tensor:
    """What the recipe's model makes of two samples, with seven classes or tokens."""
    tokens = torch.randint(7, (2, 5))
    if recipe.task == "seq2seq":
        return build(recipe.model.config(src_vocab=7, tgt_vocab=7))(tokens, tokens)
    if recipe.task == "next-token":
        return build(recipe.model.config(vocab_size=7))(tokens)
    if recipe.task == "detection":  # six classes, and "no object"
        return build(recipe.model.config(num_classes=6))(torch.rand(2, 3, 64, 64)).logits[-1]
    config = recipe.model.config(num_classes=7)
    size = (config.img_size,) * 2 if isinstance(config.img_size, int) else config.img_size
    return build(config)(torch.rand(2, config.in_chans, *size))


@pytest.mark.parametrize(
    ("bound", "kept", "missed", "told"),
    [
        ({"at_least": 0.95}, 0.95, 0.949, "exact_match ≥ 0.95 in 10 min"),
        ({"at_most": 2.2}, 2.2, 2.21, "exact_match ≤ 2.2 in 10 min"),
        ({"at_most": 0.0}, 0.0, 0.01, "exact_match ≤ 0 in 10 min"),
    ],
)
def test_a_claim_is_kept_or_not(bound, kept, missed, told):
    claim = Claim(command="regard train x", metric="exact_match", minutes=10, **bound)
    assert claim.kept_by(kept)
    assert not claim.kept_by(missed)
    assert str(claim) == told


@pytest.mark.parametrize("bounds", ["", "at_least = 0.5\nat_most = 0.9\n"])
def test_a_claim_says_one_thing(written, bounds):
    claim = f'[claim]\ncommand = "x"\nmetric = "accuracy"\nminutes = 1\n{bounds}'
    assert "claim: needs one of at_least and at_most" in message(written(SMALLEST + claim))


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_written_recipe_reads_back_equal(name, tmp_path):
    task = shipped_recipes()[name].task
    settings = ["seed=3", "train.max_minutes=1.5"]
    settings += (
        ["data.mean=[0.25]", "data.std=[0.5]"]
        if task in ("classification", "detection", "pretraining")
        else ["data.vocab_size=300"]
    )
    settings.append("model.drop_path=0.1" if task in ("classification", "pretraining") else "model.dropout=0.3")
    recipe = load_recipe(name, settings, address="folder:somewhere")
    assert getattr(recipe.data, "mean", None) == (0.25,) or recipe.data.vocab_size == 300
    write_recipe(recipe, tmp_path / "recipe.toml")
    again = read_recipe(tmp_path / "recipe.toml")
    assert again == recipe.model_copy(update={"claim": None})
    assert again.model.config() == recipe.model.config()


def test_a_resolved_recipe_states_every_default(written, tmp_path):
    write_recipe(read_recipe(written(SMALLEST)), tmp_path / "resolved.toml")
    text = (tmp_path / "resolved.toml").read_text(encoding="utf-8")
    for section in (ClassificationAugmentSection, ClassificationTrainSection):
        for name, field in section.model_fields.items():
            assert (field.default is None) or f"\n{name} = " in text, name
    assert "\nseed = 0\n" in text


def test_a_key_of_another_task_is_ignored_where_it_says_nothing(written):
    """Run folders of older versions hold the keys of all tasks."""
    text = SMALLEST.replace("[data]", "pretrained_backbone = false\n[data]\nshortest = 800\nenlarge = true")
    text += "[augment]\nscale_jitter = [1.0, 1.0]\nscales = []\n"
    assert read_recipe(written(text)) == read_recipe(written(SMALLEST))
    of_run = text.replace("shortest = 800", 'shortest = 640\ntokenizer = "bpe"')
    assert read_recipe(written(of_run), of_run=True) == read_recipe(written(SMALLEST))
    assert "data.shortest is for detection" in message(written(of_run))
    assert "unknown key 'data.shortst'" in message(written(text.replace("shortest", "shortst")))


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:0", "cuda:3", "mps"])
def test_a_device_is_named_as_torch_names_it(device):
    assert load_recipe("vit-digits", [f"train.device={device}"]).train.device == device


def test_a_default_has_one_home():
    # The augmentation of `regard.data` takes the same values, and has no defaults of its own. What is of several images
    # at once is made elsewhere: in batches, and by `MosaicAndJitter`.
    elsewhere = {"mixup", "cutmix", "scale_jitter", "mosaic"}
    sections = ((ClassificationAugmentSection, Augmentation), (DetectionAugmentSection, DetectionAugmentation))
    for section, kind in sections:
        assert {field.name for field in fields(kind)} == section.model_fields.keys() - elsewhere
        assert all(field.default is MISSING for field in fields(kind))


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("train.lr=3e-4", 3e-4),
        ("train.lr = 1", 1.0),
        ("train.epochs=7", 7),
        ("augment.flip=true", True),
        ("model.mixer=local", "local"),
        ('model.mixer="local"', "local"),
        ('model.mixer=["local","none"]', ["local", "none"]),
        ("model.mixer_options.window=5", 5),
        ("data.address=folder:a b/c=d", "folder:a b/c=d"),
        ("data.root=/tmp/x", "/tmp/x"),
        ("title=lr = 3", "lr = 3"),
        ("train.betas=[0.8, 0.9]", (0.8, 0.9)),
    ],
)
def test_set_reads_values_as_toml_and_bare_words_as_text(written, setting, value):
    found = load_recipe(str(written(SMALLEST)), [setting])
    for part in setting.partition("=")[0].strip().split("."):
        found = found[part] if isinstance(found, dict) else getattr(found, part)
    assert found == value
    assert type(found) is type(value)


def test_the_last_setting_wins_and_the_address_beats_all():
    recipe = load_recipe("vit-digits", ["seed=1", "data.address=folder:a", "seed=2"], address="folder:b")
    assert (recipe.seed, recipe.data.address) == (2, "folder:b")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (SMALLEST + "epoch = 3\n", ["mine.toml", "'train.epoch'", "did you mean 'train.epochs'", "train.max_minutes"]),
        ("sed = 1\n" + SMALLEST, ["mine.toml", "'sed'", "did you mean 'seed'", "title"]),
        (SMALLEST + "[trian]\nepochs = 1\n", ["mine.toml", "'trian'", "did you mean 'train'", "augment"]),
        (SMALLEST + "[data.more]\nx = 1\n", ["mine.toml", "'data.more'", "data.root"]),
        (
            SMALLEST.replace("[data]", "[data]\nval = 0.1"),
            ["mine.toml", "'data.val'", "data.val_fraction"],
        ),
        (SMALLEST.replace("[data]", "embd_dim = 8\n[data]"), ["'model.embd_dim'", "'model.embed_dim'", "model.pool"]),
        (SMALLEST.replace("vit_pico", "vit_pica"), ["mine.toml", "'vit_pica_patch2_8'", "'vit_pico_patch2_8'"]),
        (SMALLEST.replace("[data]", 'depth = "x"\n[data]'), ["mine.toml", "model.depth", "integer", "'x'"]),
        (SMALLEST.replace("[data]", "drop_path = 1.5\n[data]"), ["mine.toml", "model.drop_path", "less than 1", "1.5"]),
        (
            SMALLEST.replace("[data]", 'pool = "max"\n[data]'),
            ["mine.toml", "model.pool", "'token', 'avg', 'token_avg' or 'distilled'", "'max'"],
        ),
        (SMALLEST.replace("epochs = 1", "epochs = 0"), ["mine.toml", "train.epochs", "greater than 0", "0"]),
        (SMALLEST.replace("epochs = 1", 'epochs = "many"'), ["mine.toml", "train.epochs", "integer", "'many'"]),
        (SMALLEST.replace("epochs = 1", "lr = 1e-3"), ["mine.toml", "no budget", "train.max_steps"]),
        (SMALLEST.replace('address = "digits"', ""), ["mine.toml", "data.address is missing"]),
        (SMALLEST.replace('name = "vit_pico_patch2_8"', ""), ["mine.toml", "model.name is missing"]),
        ('[model]\nname = "vit_pico_patch2_8"\n', ["mine.toml", "data is missing"]),
        (SMALLEST + 'precision = "fp16"\n', ["mine.toml", "train.precision", "'fp32' or 'bf16'", "'fp16'"]),
        (SMALLEST + "betas = [0.9, 1.0]\n", ["mine.toml", "train.betas", "less than 1", "1.0"]),
        (SMALLEST + "ema_decay = -0.1\n", ["train.ema_decay", "greater than or equal to 0", "-0.1"]),
        ('task = "detecting"\n' + SMALLEST, ["mine.toml", "task", "'classification'", "'detecting'"]),
        (SMALLEST.replace("[data]", '[data]\ntokenizer = "bpe"'), ["data.tokenizer is for seq2seq and next-token"]),
        (
            SMALLEST.replace("[data]", "pretrained_backbone = true\n[data]"),
            ["model.pretrained_backbone is for detection"],
        ),
        (SMALLEST + 'device = "gpu"\n', ["mine.toml", "train.device is 'gpu'", "cuda:0", "mps"]),
        (SMALLEST + 'device = "cpu:1"\n', ["mine.toml", "train.device is 'cpu:1'"]),
        ('task = "detection"\n' + SMALLEST, ["mine.toml", "vit_pico_patch2_8 is no model for detection", "detr_mini"]),
        (SMALLEST + "backbone_lr = 1e-5\n", ["mine.toml", "train.backbone_lr is for detection", "classification"]),
        (
            SMALLEST.replace("[data]", "reset_head = true\n[data]"),
            ["mine.toml", "model.reset_head is about model.weights"],
        ),
        (SMALLEST + "[augment]\ncrop = true\n", ["mine.toml", "augment.crop is not for classification", "mixup"]),
        ("seed = -1\n" + SMALLEST, ["mine.toml", "seed", "-1"]),
        ("train = 3\n" + SMALLEST.partition("[train]")[0], ["mine.toml", "train is a section", "3"]),
        ("title = \n", ["mine.toml", "is not TOML", "line 1"]),
    ],
)
def test_a_mistake_in_a_file_is_one_line(written, text, parts):
    told = message(written(text))
    for part in parts:
        assert part in told


@pytest.mark.parametrize(
    ("setting", "parts"),
    [
        ("train.epoch=3", ["--set", "'train.epoch'", "did you mean 'train.epochs'", "train.max_steps"]),
        ("model.embd_dim=3", ["--set", "'model.embd_dim'", "did you mean 'model.embed_dim'"]),
        ("epochs=3", ["--set", "'epochs'", "did you mean 'train.epochs'"]),
        ("lr=1", ["--set", "'lr'", "did you mean 'train.lr'"]),
        ("train.learning_rate=1", ["--set", "'train.learning_rate'", "did you mean 'train.lr'"]),
        ("model.num_layers=3", ["--set", "'model.num_layers'", "did you mean 'model.depth'"]),
        ("train.mixup=3", ["--set", "'train.mixup'", "augment.mixup", "train.warmup"]),
        ("trian.epochs=3", ["--set", "'trian'", "did you mean 'train'"]),
        ("model.mixer_option.window=3", ["--set", "'model.mixer_option'", "did you mean 'model.mixer_options'"]),
        ("train.lr=0", ["--set", "train.lr", "greater than 0", "0"]),
        ("train.lr=fast", ["--set", "train.lr", "number", "'fast'"]),
        ("model.depth=deep", ["--set", "model.depth", "integer", "'deep'"]),
        ("model.name=vit_pica_patch2_8", ["--set", "'vit_pica_patch2_8'", "did you mean 'vit_pico_patch2_8'"]),
        ("data.on_bad_image=ignore", ["--set", "data.on_bad_image", "'stop' or 'skip'", "'ignore'"]),
        ("train.lr", ["--set train.lr", "KEY=VALUE"]),
        ("=3", ["--set =3", "KEY=VALUE"]),
        ("seed.low=3", ["--set seed.low", "'seed' is a value"]),
        ("train.lr.low=3", ["--set train.lr.low", "'lr' is a value"]),
        ("train=3", ["--set", "train is a section", "3"]),
    ],
)
def test_a_mistake_in_set_is_one_line_that_says_so(setting, parts):
    told = message("vit-digits", setting)
    for part in parts:
        assert part in told


def test_a_mistake_in_the_file_is_not_blamed_on_set(written):
    told = message(written(SMALLEST + "lr = -1\n"), "train.batch_size=32")
    assert told.startswith("mine.toml")


def test_files_that_are_no_recipe(tmp_path):
    told = message("vit-digit")
    assert "'vit-digit'" in told
    assert "did you mean 'vit-digits'" in told
    assert "small-images" in told
    assert "No such file" in message(tmp_path / "none.toml")
    assert str(tmp_path) in message(tmp_path)
    (tmp_path / "image.toml").write_bytes(b"\xff\xd8\xff\xe0")
    assert "image.toml: is not TOML" in message(tmp_path / "image.toml")


def test_a_file_of_any_name_is_read(tmp_path):
    shutil.copy(Path(regard.recipes.__file__).with_name("vit-digits.toml"), tmp_path / "copy")
    assert load_recipe(str(tmp_path / "copy")) == load_recipe("vit-digits")
