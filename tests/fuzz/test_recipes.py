"""Recipes, `--set` and TOML of any kind: a recipe, or one line."""

import random
import string
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from regard.errors import RegardError
from regard.recipes import Recipe, load_recipe, read_recipe, recipe_keys, recipe_text, shipped_recipes

VALUES = (
    *("0", "-1", "1", "2", "1e-300", "1e300", "inf", "-inf", "nan", "0.5", "true", "false", "none", "''", "[]", "{}"),
    *("4294967296", "9223372036854775807", "9223372036854775808", "1" * 5000, "[1, 2, 3]", "[nan]", "[[[]]]", "x"),
    *('"none"', '"\\u0000"', "1979-05-27T07:32:00Z", "07:32:00", "0x7fffffff", "{a = {b = {}}}", "[0.5]", '["a"]'),
    *("auto", "cuda:99999999999999999999", "../..", "/dev/zero", "\udcff", "a" * 5000, "1" * 400 + ".0"),
)


def read_or_refused(read: Callable[[], Recipe]) -> Recipe | None:
    """The recipe, or None after a check that the error is one line."""
    try:
        return read()
    except RegardError as error:
        require_line(error)
        return None


def require_line(error: RegardError) -> None:
    text = str(error)
    assert text
    assert "\n" not in text
    assert len(text) < 5000


def test_any_value_of_any_key(fuzz_cases):
    shipped = shipped_recipes()
    for seed in fuzz_cases:
        draw = random.Random(seed)
        name = draw.choice(sorted(shipped))
        keys = recipe_keys(shipped[name])
        settings = [f"{draw.choice(keys)}={draw.choice(VALUES)}" for _ in range(draw.choice((1, 1, 2)))]
        recipe = read_or_refused(partial(load_recipe, name, settings))
        assert recipe is None or recipe.to_dict(), settings


def test_any_recipe_is_written_and_read_back(fuzz_cases, tmp_path):
    plain = load_recipe("vit-digits")
    for seed in fuzz_cases:
        draw = random.Random(seed)
        letters = string.printable.replace("\0", "") + "éλ\udcff\udc80\U0010fffd\u2028"
        title, address = ("".join(draw.choices(letters, k=draw.randrange(20))) for _ in range(2))
        recipe = plain.model_copy(update={"title": title, "claim": None})
        recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"address": address})})
        file = tmp_path / "recipe.toml"
        file.write_text(recipe_text(recipe), encoding="utf-8", newline="")
        assert read_recipe(file) == recipe, seed


def test_any_bytes_in_the_file(fuzz_cases, tmp_path):
    whole = recipe_text(load_recipe("vit-digits")).encode()
    for seed in fuzz_cases:
        draw = random.Random(seed)
        content = bytearray(whole)
        for _ in range(draw.choice((1, 1, 3))):
            place = draw.randrange(len(content))
            way = draw.randrange(4)
            if way == 0:
                content[place] ^= 1 << draw.randrange(8)
            elif way == 1:
                del content[place : place + draw.randrange(1, 40)]
            elif way == 2:
                content[place:place] = draw.choice(VALUES).encode("utf-8", "surrogateescape")
            else:
                del content[max(place, 1) :]
        file = tmp_path / "recipe.toml"
        file.write_bytes(content)
        read_or_refused(partial(read_recipe, file, of_run=bool(seed % 2)))


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("data.split_seed=4294967296", "less than 4294967296"),
        ("augment.shift=9223372036854775808", "augment.shift"),
        ("augment.mixup=1e-300", "an alpha is 0 (off), or 0.001 to 1000"),
        ("augment.cutmix=1e300", "an alpha is 0 (off), or 0.001 to 1000"),
        ("augment.rand_augment=1000", "less than or equal to 14"),
        ("data.num_workers=100000", "less than or equal to 1024"),
        ("train.lr=inf", "finite"),
        ("train.max_minutes=inf", "finite"),
        ("train.batch_size=9223372036854775808", "train.batch_size"),
        ("data.std=[1e-300]", "data.std"),
        ("data.root=" + "a" * 10_000_000, "has 10,000,000 letters; at most 4,096"),
        ('title="\\u0000"', "null character"),
    ],
)
def test_bounds(setting, told):
    with pytest.raises(RegardError) as caught:
        load_recipe("vit-digits", [setting])
    assert told in str(caught.value)
    require_line(caught.value)


@pytest.mark.parametrize(
    ("setting", "key", "value"),
    [
        ("train.epochs=none", "train.epochs", None),
        ("train.warmup=none", "train.warmup", 0.05),
        ("model.mixer=none", "model.mixer", "none"),
        ("model.positions=none", "model.positions", "none"),
        ("model.freeze=none", "model.freeze", "none"),
        ("data.root = none ", "data.root", None),
    ],
)
def test_none_takes_a_value_out_unless_it_is_one(setting, key, value):
    recipe: Any = load_recipe("vit-digits", ["train.max_steps=3", setting])
    section, _, name = key.partition(".")
    found = getattr(recipe.model.config(), name, None) if section == "model" and name != "freeze" else None
    assert (found if found is not None else getattr(getattr(recipe, section), name, None)) == value


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("train.epocs=none", "unknown key 'train.epocs'; did you mean 'train.epochs'"),
        ("data.address=none", "data.address is missing"),
        ("model.name=none", "model.name is missing"),
    ],
)
def test_what_cannot_be_taken_out(setting, told):
    with pytest.raises(RegardError) as caught:
        load_recipe("vit-digits", [setting])
    assert told in str(caught.value)


def test_a_pipe_is_no_recipe(tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe.toml")
    with pytest.raises(RegardError, match="no regular file"):
        load_recipe(str(Path(tmp_path / "pipe.toml")))
