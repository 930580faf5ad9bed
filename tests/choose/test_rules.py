"""From facts, means and minutes to candidates, as the measurements behind the rules have it."""

from dataclasses import replace

import pytest

from regard.choose import Facts, Means, choose
from regard.errors import RegardError
from regard.recipes import shipped_recipes

ALL = Means(dinov2=True, lite0=True, bf16=True)
NONE = Means(dinov2=False, lite0=False)
RACCOON = Facts(
    *("voc:raccoon", "images with boxes", "voc"),
    images=160,
    held_out=39,
    classes=1,
    fewest=170,
    height=417,
    width=600,
    objects=170,
    most_objects=4,
    object_sides=(0.3, 0.45, 0.6),
)
CELLS = replace(
    RACCOON,
    address="voc:cells",
    images=292,
    classes=3,
    height=480,
    width=640,
    one_size=True,
    objects=3900,
    most_objects=30,
    object_sides=(0.14, 0.17, 0.18),
)
HANDS = Facts("folder:hands", "images", "folder", 1649, 413, 10, 160, 100, 100, one_size=True)


def names(facts: Facts, means: Means = ALL, minutes: float = 10.0) -> list[str]:
    return [one.recipe for one in choose(facts, means, minutes).candidates]


def test_detectors_race_where_there_is_time():
    assert names(RACCOON) == ["detr-photos", "detr-small"]
    assert names(CELLS) == ["detr-small", "detr-photos"]  # one camera: of a tie the one for things that look alike wins
    choice = choose(CELLS, ALL)
    assert choice.races
    assert "model.num_queries=50" in choice.settings  # thirty cells in an image
    small = choice.candidates[0].settings
    assert {"data.shortest=288", "data.longest=384", "augment.colour=0.3"} <= set(small)
    assert not any(setting.startswith("model.num_queries") for setting in choose(RACCOON, ALL).settings)


def test_where_there_is_none_images_of_one_camera_are_taken_for_things_that_look_alike():
    assert names(RACCOON, minutes=3) == ["detr-photos"]
    assert names(CELLS, minutes=3) == ["detr-small"]
    assert "data.longest=384" not in choose(CELLS, ALL, 3).settings  # a larger size takes more time


def test_without_weights_nothing_needs_them():
    assert names(RACCOON, NONE) == ["detr-small"]
    assert names(RACCOON, Means(dinov2=False, lite0=True)) == ["detr-small-pretrained"]
    assert names(HANDS, NONE) == ["small-images"]
    for facts in (RACCOON, HANDS):
        assert "pip install" in choose(facts, NONE).lines()[2]


def test_objects_smaller_than_a_token_are_for_a_finer_map():
    tiny = replace(CELLS, height=2000, width=3000, object_sides=(0.02, 0.03, 0.05))
    choice = choose(tiny, ALL)
    assert [one.recipe for one in choice.candidates] == ["detr-small"]
    assert "data.longest=768" in choice.settings  # at most twice the size
    assert "token" in choice.lines()[1]


def test_classifiers():
    assert names(HANDS) == ["finetune-photos-all", "finetune-photos", "small-images"]
    assert names(HANDS, minutes=3) == ["finetune-photos-all"]
    few = replace(HANDS, images=80, fewest=8)
    assert names(few) == ["finetune-photos"]
    large = replace(HANDS, height=1200, width=1600, fewest=60)
    assert names(large) == ["finetune-photos", "finetune-photos-all"]
    assert "model.img_size=98" in choose(large, ALL).candidates[1].settings
    assert names(large, minutes=3) == ["finetune-photos"]
    assert names(replace(HANDS, kind="digits", address="digits", height=8, width=8)) == ["vit-digits"]


def test_features_of_many_images_are_computed_of_smaller_ones():
    many = replace(HANDS, images=20_000, height=500, width=500)
    assert "model.img_size=98" in choose(many, ALL).candidates[0].settings
    assert choose(many, replace(ALL, gpu=True)).candidates[0].settings == ()


def test_texts_have_their_recipes():
    assert names(Facts("numbers", "pairs of texts", "numbers")) == ["seq2seq-numbers"]
    assert names(Facts("pydoc", "text", "pydoc")) == ["next-token"]


@pytest.mark.parametrize("facts", [RACCOON, CELLS, HANDS])
@pytest.mark.parametrize("means", [ALL, NONE])
@pytest.mark.parametrize("minutes", [1, 3, 10, 60])
def test_every_candidate_is_a_recipe_that_can_be_read(facts, means, minutes):
    choice = choose(facts, means, minutes)
    for number, one in enumerate(choice.candidates):
        assert one.recipe in shipped_recipes()
        assert choice.load((), number).data.address == facts.address
    which, why, better = choice.lines()
    assert choice.recipe in which
    assert f"{facts.images:,} images" in why
    assert "more than" in better


@pytest.mark.parametrize("minutes", [0, -1, 0.5, float("nan")])
def test_too_few_minutes(minutes):
    with pytest.raises(RegardError, match="no recipe learns anything in that time; name at least 1"):
        choose(RACCOON, ALL, minutes)
