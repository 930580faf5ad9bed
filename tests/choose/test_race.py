"""A race: decided alike twice, by images that nothing reported comes from; the winner goes on, also after a kill."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import regard.choose.race as races
from regard.choose import Entrant, Race, expected, race_told, selection_of
from regard.errors import RegardError
from regard.reading import read_json
from regard.recipes import load_recipe
from regard.tasks import create_task
from regard.training import Run, train
from regard.training.loop import Standing

TINY = (
    *("model.embed_dim=32", "model.num_heads=4", "model.num_queries=7", "model.num_denoising=6", "data.first=24"),
    *("data.shortest=64", "data.longest=64", "train.batch_size=4", "train.device=cpu", "train.precision=fp32"),
    *("data.validate_on=train", "augment.mosaic=0", "train.max_minutes=none"),
)


def entrants() -> list[Entrant]:
    found = []
    for name, steps, lr in (("slow", 6, 1e-6), ("fast", 6, 1e-3)):
        settings = [*TINY, f"train.max_steps={steps}", f"train.lr={lr}"]
        racing = load_recipe("detr-small", [*settings, "data.selection=0.2"])
        found.append(Entrant(name, racing, load_recipe("detr-small", settings)))
    return found


@pytest.fixture(scope="module")
def decided(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("race") / "run"
    race = Race.begin(folder, entrants())
    race.run(steps=3)
    return folder, json.loads((folder / "race.json").read_text())


def test_what_it_is_decided_on_is_held_out_of_training_and_is_not_reported():
    one = entrants()[0]
    racing, whole = create_task(one.racing), create_task(one.going_on)
    held, trained = racing.selection_images, racing.train
    names = {source.name(index) for source in (held, trained) for index in range(len(source))}
    assert len(held) == 5
    assert len(trained) == 19
    assert names == {whole.train.name(index) for index in range(len(whole.train))}
    assert whole.selection_images is None


def test_the_same_twice(decided, tmp_path):
    folder, values = decided
    again = Race.begin(tmp_path / "again", entrants())
    winner = again.run(steps=3)
    found = json.loads((tmp_path / "again" / "race.json").read_text())
    for name, own in values["candidates"].items():
        assert own["steps"] == found["candidates"][name]["steps"] == 3
        assert own["score"] == found["candidates"][name]["score"]
    assert found["winner"] == values["winner"] == winner.name
    assert race_told(folder).startswith("The race, on images held out of training: slow 0.")
    assert race_told(tmp_path) is None


def test_the_winner_goes_on_from_where_it_stands(tmp_path, monkeypatch):
    race = Race.begin(tmp_path / "run", entrants())
    winner = race.run(steps=3)
    place = tmp_path / "run" / "race" / winner.name
    before = load_file(place / "model.safetensors")
    assert race.settle(winner.going_on)
    assert not (tmp_path / "run" / "race").exists()  # losers' weights are gone
    recipe = Run.open(tmp_path / "run").recipe()
    assert recipe.data.selection == 0
    assert all(
        torch.equal(before[name], tensor) for name, tensor in load_file(tmp_path / "run/model.safetensors").items()
    )
    summary = train(recipe, tmp_path / "run", resume=True)
    assert summary["steps"] == 6
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [one["step"] for one in records if one["kind"] == "train"] == [1, 2, 3, 4, 5, 6]
    assert Race.open(tmp_path / "run").settled


def test_a_race_that_was_killed_goes_on(decided, tmp_path, monkeypatch):
    race, spied, calls = Race.begin(tmp_path / "run", entrants()), races.train_until, []

    def killed(*arguments, **named):
        calls.append(arguments[1].name)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return spied(*arguments, **named)

    monkeypatch.setattr(races, "train_until", killed)
    with pytest.raises(KeyboardInterrupt):
        race.run(steps=3)
    again = Race.open(tmp_path / "run")
    winner = again.run(steps=3)
    assert calls == ["slow", "fast", "fast"]  # what had ended is kept
    assert winner.name == decided[1]["winner"]
    monkeypatch.setattr(races, "hand_over", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        again.settle(winner.going_on)
    monkeypatch.undo()
    last = Race.open(tmp_path / "run")
    assert not last.settled
    assert last.settle(winner.going_on)
    assert train(Run.open(tmp_path / "run").recipe(), tmp_path / "run", resume=True)["steps"] == 6


def test_a_larger_score_wins_and_no_number_loses(tmp_path):
    race = Race.begin(tmp_path / "run", entrants())
    for scores, winner in ((("nan", 0.1), "fast"), ((0.2, 0.1), "slow"), ((0.1, 0.1), "slow")):
        for own, score in zip(race.values["candidates"].values(), scores, strict=True):
            own |= {"steps": 3, "seconds": 1.0, "score": float(score), "over": False}
        assert race.run(steps=3).name == winner


def test_what_a_candidate_is_expected_to_reach():
    assert expected(None, 0.5, 8.0, 0.5) == 0.5
    assert expected(0.6, 0.5, 8.0, 0.5) == 0.5  # it lost
    # The error fell from 0.8 to 0.4, by half; three doublings, damped by half, are 1.5 times as much again.
    assert expected(0.2, 0.6, 8.0, 0.5) == pytest.approx(1 - 0.4 * 0.5**1.5)
    assert expected(0.9, 1.0, 8.0, 1.0) == 1.0
    assert math.isnan(expected(0.1, math.nan, 8.0, 1.0))


def test_one_that_learns_late_may_win(tmp_path, monkeypatch):
    """Frozen features: .47, .50. From scratch: .30, .46, as on bccd, where it ended ahead."""
    scores = {"slow": (0.47, 0.50), "fast": (0.30, 0.46)}

    def trained(recipe, place, *, halfway, **_):
        early, late = scores[place.name]
        halfway(early)
        return Standing(step=3, seconds=1.0, step_seconds=1.0, score=late, over=False)

    monkeypatch.setattr(races, "train_until", trained)
    race = Race.begin(tmp_path / "run", entrants())
    assert race.run(steps=3).name == "fast"
    kept = read_json(tmp_path / "run" / "race.json")["candidates"]
    assert [kept[name]["halfway"] for name in ("slow", "fast")] == [0.47, 0.30]
    assert "fast 0.460 after 3 steps in 1 s, expected 0.565 at the end" in race.told()


def test_of_a_tie_the_first_candidate_wins(tmp_path):
    race = Race.begin(tmp_path / "run", entrants())
    for scores, winner in (((0.50, 0.515), "slow"), ((0.50, 0.525), "fast"), ((0.51, 0.50), "slow")):
        for own, score in zip(race.values["candidates"].values(), scores, strict=True):
            own |= {"steps": 3, "seconds": 1.0, "score": score, "over": False}
        assert race.run(steps=3).name == winner


def test_what_a_solved_head_leaves_is_shared(tmp_path, monkeypatch):
    """Equal time for those that need it: of 3 × 40 seconds a head that was solved took 4, the others have 58 each."""
    had = {}

    def trained(recipe, place, *, seconds, **_):
        had[place.name] = seconds
        solved = place.name == "frozen"
        return Standing(1, 50.0, 4.0 if solved else seconds, 0.5, over=solved)

    monkeypatch.setattr(races, "train_until", trained)
    ways = {"whole": "finetune-digits-all", "frozen": "finetune-digits", "scratch": "vit-digits"}
    recipes = {name: load_recipe(recipe, ["data.selection=0.2"]) for name, recipe in ways.items()}
    frozen = recipes["frozen"]
    recipes["frozen"] = frozen.model_copy(update={"train": frozen.train.model_copy(update={"solve_head": True})})
    race = Race.begin(tmp_path / "run", [Entrant(name, recipe, recipe) for name, recipe in recipes.items()])
    assert race.run(seconds=40.0).name == "whole"  # of equal ones the first
    assert list(had.items()) == [("frozen", 40.0), ("whole", 58.0), ("scratch", 58.0)]


@pytest.mark.parametrize(("images", "fraction"), [(40, 0.25), (160, 0.25), (300, 0.2), (600, 0.1), (10_000, 0.1)])
def test_a_race_of_few_images_holds_out_more(images, fraction):
    assert selection_of(images) == fraction


def test_folders_and_files_that_are_no_race(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(RegardError, match="exists already; name a new folder with --out"):
        Race.begin(tmp_path / "full", entrants())
    Race.begin(tmp_path / "run", entrants())
    for damage in ("{", "[]", '{"candidates": {}, "winner": null}', '{"candidates": {"a": 1}, "winner": null}'):
        (tmp_path / "run" / "race.json").write_text(damage)
        with pytest.raises(RegardError, match=r"race\.json"):
            Race.open(tmp_path / "run")
