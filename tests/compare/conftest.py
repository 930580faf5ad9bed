"""Tiny runs of the tasks on text."""

from collections.abc import Callable
from pathlib import Path

import pytest

from regard.recipes import Recipe, load_recipe
from regard.training import train

SMALL = ("model.embed_dim=12", "train.device=cpu", "train.max_steps=2", "train.batch_size=7")
WORDS = ("een", "twee", "drie", "vier", "vijf", "zes", "zeven", "acht", "negen", "tien", "elf", "twaalf", "dertien")


@pytest.fixture(scope="session")
def pairs_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Words and how many letters they have, 169 pairs."""
    file = tmp_path_factory.mktemp("pairs") / "words.tsv"
    lines = [f"{first} {second}\t{len(first)}{len(second)}" for first in WORDS for second in WORDS]
    file.write_text("\n".join(lines), encoding="utf-8")
    return file


@pytest.fixture(scope="session")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("text") / "words.txt"
    file.write_text(" ".join(f"{first} & {second}.\n" for first in WORDS for second in WORDS), encoding="utf-8")
    return file


@pytest.fixture(scope="session")
def pairs_recipe(pairs_file: Path) -> Callable[..., Recipe]:
    """pairs_recipe(*settings): a tiny Transformer that reads the pairs, 17 of which are held out."""

    def recipe(*settings: str) -> Recipe:
        model = ("model.num_heads=2", "model.depth=1", "model.decoder_depth=1")
        return load_recipe(
            "seq2seq-numbers", [*SMALL, *model, "data.val_fraction=0.1", *settings], address=f"pairs:{pairs_file}"
        )

    return recipe


@pytest.fixture(scope="session")
def text_recipe(text_file: Path) -> Callable[..., Recipe]:
    """text_recipe(*settings): a tiny language model of the text, with a context of 23 bytes."""

    def recipe(*settings: str) -> Recipe:
        model = ("model.num_heads=2", "model.depth=1", "model.context=23", "data.tokenizer=bytes")
        return load_recipe("next-token", [*SMALL, *model, *settings], address=f"text:{text_file}")

    return recipe


@pytest.fixture(scope="session")
def numbers_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on numbers in five languages, 20 of them held out in each."""
    path = tmp_path_factory.mktemp("numbers") / "run"
    model = ("model.num_heads=2", "model.depth=1", "model.decoder_depth=1")
    train(load_recipe("seq2seq-numbers", [*SMALL, *model, "data.val_fraction=0.0002"]), path)
    return path


@pytest.fixture(scope="session")
def pairs_run(tmp_path_factory: pytest.TempPathFactory, pairs_recipe: Callable[..., Recipe]) -> Path:
    path = tmp_path_factory.mktemp("pairs-run") / "run"
    train(pairs_recipe(), path)
    return path


@pytest.fixture(scope="session")
def recurrent_run(tmp_path_factory: pytest.TempPathFactory, pairs_file: Path) -> Path:
    path = tmp_path_factory.mktemp("recurrent-run") / "run"
    settings = [*SMALL, "model.name=recurrent_mini", "data.val_fraction=0.1"]
    train(load_recipe("seq2seq-numbers", settings, address=f"pairs:{pairs_file}"), path)
    return path


@pytest.fixture(scope="session")
def text_run(tmp_path_factory: pytest.TempPathFactory, text_recipe: Callable[..., Recipe]) -> Path:
    path = tmp_path_factory.mktemp("text-run") / "run"
    train(text_recipe(), path)
    return path
