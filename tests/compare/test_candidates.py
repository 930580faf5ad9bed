"""Who takes part in a comparison of sequences, and who cannot."""

import pytest

from regard.compare import Cost, all_candidates, compare, left_out_message
from regard.compare.candidates import try_out, variant
from regard.errors import RegardError
from regard.mixers import MIXERS
from regard.recipes import load_recipe
from regard.training import Run


@pytest.fixture
def free(monkeypatch):
    """Without the cost, which takes a process for each contender."""
    monkeypatch.setattr(
        "regard.compare.experiment.measure_all", lambda runs, **_: {name: Cost(1e-6, 2.0, 7) for name in runs}
    )


@pytest.fixture
def never(monkeypatch):
    """No training may begin."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a training has begun")

    monkeypatch.setattr("regard.compare.experiment.train", refuse)


def test_all_for_images_is_every_mixer():
    assert all_candidates(load_recipe("vit-digits")) == (list(MIXERS), {})


def test_all_for_pairs_is_who_honours_padding_and_the_recurrent_baseline(pairs_recipe):
    names, left_out = all_candidates(pairs_recipe())
    assert names == ["attention", "local", "performer", "conv", "lstm", "none", "recurrent_mini"]
    assert left_out.keys() == {"fourier", "mlp"}
    words = left_out_message(left_out)
    assert words.startswith(
        "Left out, since the recipe cannot train them: fourier: does not support a mask (tried on a batch of 8 "
    )
    assert "; mlp: is built for one number of tokens" in words


def test_all_for_text_is_who_can_be_causal(text_recipe):
    names, left_out = all_candidates(text_recipe())
    assert names == ["attention", "performer"]
    assert left_out.keys() == MIXERS.keys() - set(names)
    words = left_out_message(left_out)
    assert words.count("cannot be causal") == 1
    assert "local, fourier, mlp, conv, lstm, none: cannot be causal" in words


def test_nobody_left_out_takes_no_words():
    assert left_out_message({}) == ""


def test_a_recipe_that_cannot_be_trained_is_said_before_anyone_is_left_out(pairs_recipe):
    with pytest.raises(RegardError, match="num_heads 5"):
        all_candidates(pairs_recipe("model.num_heads=5"))


def test_a_mixer_takes_the_encoders_place_and_a_preset_the_models(pairs_recipe):
    recipe = pairs_recipe("model.mixer_options.local.window=3")
    local, recurrent = variant(recipe, "local", 5), variant(recipe, "recurrent_mini", 6)
    config = local.model.config()
    assert (config.mixer, config.decoder_mixer) == ("local", "attention")
    assert config.mixer_options == {"local": {"window": 3}}  # the decoder's attention must not be given them
    try_out(local)
    assert recurrent.model.model_dump() == {"name": "recurrent_mini"}
    assert (local.seed, recurrent.seed) == (5, 6)
    assert local.data == recurrent.data == recipe.data
    assert local.train == recurrent.train == recipe.train


def test_the_recipes_own_model_by_name_keeps_its_settings(pairs_recipe):
    found = variant(pairs_recipe(), "transformer_mini", 0)
    assert found.to_dict() == pairs_recipe().to_dict()


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["attention", "fourier"], r"^fourier: does not support a mask \(tried on a batch of 8 pairs\)$"),
        (["none", "mlp"], "^mixer mlp: is built for one number of tokens"),
        (["atention"], "^unknown mixer 'atention'; did you mean 'attention'. Known: .*recurrent_mini"),
        (["vit_tiny_patch16_224"], "vit_tiny_patch16_224 is no model for seq2seq; those that are: .*recurrent_mini"),
        (["language_mini"], "language_mini is no model for seq2seq"),
        (["recurrent_mini", "recurrent_mini"], "name each mixer once"),
    ],
)
def test_who_cannot_serve_pairs_is_said_before_any_training(never, pairs_recipe, tmp_path, names, told):
    with pytest.raises(RegardError, match=told) as caught:
        compare(pairs_recipe(), names, 1, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_who_cannot_serve_text_is_said_before_any_training(never, text_recipe, tmp_path):
    with pytest.raises(RegardError, match="mixer lstm: cannot be causal; those that can: attention, performer"):
        compare(text_recipe(), ["attention", "lstm"], 1, tmp_path / "out")


def test_a_mixer_in_a_model_without_one_is_an_error(never, pairs_recipe, tmp_path):
    recipe = variant(pairs_recipe(), "recurrent_mini", 0)
    with pytest.raises(RegardError, match=r"unknown key 'model\.mixer'"):
        compare(recipe, ["none"], 1, tmp_path / "out")


def test_fourier_serves_sequences_of_one_length(pairs_recipe, tmp_path):
    file = tmp_path / "same.tsv"
    file.write_text("\n".join(f"{number:03}\t{number % 7}" for number in range(97)), encoding="utf-8")
    recipe = pairs_recipe()
    same = recipe.model_copy(update={"data": recipe.data.model_copy(update={"address": f"pairs:{file}"})})
    try_out(variant(same, "fourier", 0))


def test_contenders_are_trained_alike(free, pairs_recipe, tmp_path):
    found = compare(pairs_recipe(), ["none", "recurrent_mini"], 2, tmp_path / "out")
    assert [one.name for one in found] == ["none", "recurrent_mini"]
    for one in found:
        assert one.runs == tuple(tmp_path / "out" / f"{one.name}-seed-{seed}" for seed in (0, 1))
        assert (one.metric.name, one.metric.larger_is_better) == ("exact_match", True)
        assert one.scores == tuple(Run.open(run).summary()["exact_match"] for run in one.runs)
    names = [Run.open(one.runs[0]).recipe().model.name for one in found]
    assert names == ["transformer_mini", "recurrent_mini"]
