"""Images that are nearly the same, in both parts or in one; and the same pixels in several classes."""

from collections import defaultdict
from dataclasses import dataclass

from regard.data.boxes.sources import DetectionData
from regard.data.checks.image_files import shared_files
from regard.data.checks.issue import Issue, group
from regard.data.checks.seen import Place, Seen
from regard.data.images.near_doubles import near_doubles
from regard.data.images.sources import ImageClasses
from regard.errors import first_few


@dataclass(frozen=True)
class Alike:
    """Two images of opened data, each as (part, index)."""

    first: Place
    second: Place


@dataclass(frozen=True)
class Found:
    """What `check_alike` finds."""

    issues: tuple[Issue, ...]
    between: tuple[Alike, ...]
    """A held-out image, and the image to train on that it is nearly the same as."""
    within: tuple[Alike, ...]
    placeholders: tuple[tuple[Place, ...], ...]
    """Images with the same pixels, in several classes."""
    leave_out: dict[str, str]
    """The name of each image that is better left out, and why."""
    doubled: dict[str, str]
    """Likewise of those that may stay: they only count more than once."""


def check_alike(data: ImageClasses | DetectionData, seen: Seen) -> Found:
    """The near-doubles of opened data whose images were seen, and its placeholders.

    Pairs that other checks report are not among them: files of the same bytes in both parts, and of labelled images
    the same pixels.
    """

    def name(place: Place) -> str:
        return (data.train if place[0] == "train" else data.val).name(place[1])

    known = set(shared_files(data.train, data.val)) if isinstance(data, DetectionData) else set()
    digests = dict(zip(seen.places, seen.digests, strict=True))
    placeholders = _placeholders(data, seen) if isinstance(data, ImageClasses) else []
    in_a_placeholder = {place for same in placeholders for place in same}
    between: dict[Place, Alike] = {}
    within: dict[Place, Alike] = {}
    for i, j in near_doubles(seen.looks):
        pair = seen.places[i], seen.places[j]
        first, second = sorted(pair)  # "train" before "val"
        same_pixels = isinstance(data, ImageClasses) and digests[first] == digests[second]
        if same_pixels or (name(second), name(first)) in known or in_a_placeholder.issuperset(pair):
            continue
        (within if first[0] == second[0] else between).setdefault(second, Alike(second, first))

    issues: list[Issue] = []
    trained_on = {digest for place, digest in digests.items() if place[0] == "train"}
    twice = [name(place) for place, digest in digests.items() if place[0] == "val" and digest in trained_on]
    leave_out = dict.fromkeys(
        (*twice, *(held for held, _ in known)), "held out, and the same as one that is trained on"
    )
    doubled: dict[str, str] = {}
    lists = f"`regard data check {data.address} --leave-out FILE` lists them"
    way_on = f"{lists}, and --set data.leave_out=FILE leaves them out"
    if between:
        for pair in between.values():
            leave_out.setdefault(name(pair.first), "held out, and nearly the same as one that is trained on")
        few = first_few([f"{name(pair.first)} is {name(pair.second)}" for pair in between.values()])
        what = (
            f"{len(between)} of {len(data.val)} held-out images are nearly the same as images that are trained on, so "
            f"that figures flatter: {few}; {way_on}"
        )
        issues.append(group("warning", what, data.address, [name(place) for place in between]))
    for part in ("train", "val"):
        pairs = [pair for place, pair in within.items() if place[0] == part]
        if pairs:
            few = first_few([f"{name(pair.first)} is {name(pair.second)}" for pair in pairs])
            what = (
                f"{len(pairs)} images in {part} are nearly the same as another there, and count more than once: {few}; "
                f"{lists} behind a #"
            )
            doubled |= {name(pair.first): f"nearly the same as another in {part}" for pair in pairs}
            issues.append(group("warning", what, data.address, [name(pair.first) for pair in pairs]))
    if placeholders:
        assert isinstance(data, ImageClasses)
        for same in placeholders:
            leave_out |= {name(place): "the same pixels in several classes" for place in same}
        names = [name(place) for same in placeholders for place in same]
        what = (
            f"{len(names)} images are placeholders, or have a wrong label: the same pixels are in several classes: "
            f"{first_few(names)}; {way_on}"
        )
        issues.append(group("warning", what, data.address, names))
    return Found(
        tuple(issues), tuple(between.values()), tuple(within.values()), tuple(placeholders), leave_out, doubled
    )


def _placeholders(images: ImageClasses, seen: Seen) -> list[tuple[Place, ...]]:
    same: defaultdict[str, list[Place]] = defaultdict(list)
    for place, digest in zip(seen.places, seen.digests, strict=True):
        same[digest].append(place)
    labels = {"train": images.train.labels, "val": images.val.labels}
    return [tuple(places) for places in same.values() if len({labels[part][index] for part, index in places}) > 1]
