"""What a check of data reports."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from regard.errors import first_few

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Issue:
    """What is wrong, and where: an image, a line, a class, the address. An error spoils a training or evaluation."""

    severity: Severity
    what: str
    where: str


def issues_of_kind(severity: Severity, what: str, places: Sequence[str]) -> list[Issue]:
    """One issue for all `places` that have the same thing wrong: "98 files ...", and where, with three names at most.

    `what` holds "{count}". No issue without places.
    """
    if not places:
        return []
    return [Issue(severity, what.format(count=len(places)), first_few(places))]


def unreadable(messages: Iterable[str], things: str, way_on: str = "", severity: Severity = "error") -> list[Issue]:
    """Issues for messages "WHERE: reason": one for each kind of reason, whatever numbers stand in it.

    things: what they are, "images" or "lines". way_on: the switch that leaves them out.
    """
    kinds: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
    for message in messages:
        where, _, reason = message.partition(": ")
        kinds[re.sub(r"\d+", "0", reason)].append((where, reason))
    issues: list[Issue] = []
    for found in kinds.values():
        reason = found[0][1] + (f"; {way_on}" if way_on else "")
        what = reason if len(found) == 1 else f"{{count}} {things}: {reason.replace('{', '{{').replace('}', '}}')}"
        if len(found) == 1:
            issues.append(Issue(severity, what, found[0][0]))
        else:
            issues += issues_of_kind(severity, what, [where for where, _ in found])
    return issues


def shared_images(
    pairs: Sequence[tuple[str, str]], num_val: int, where: str, *, has_val: bool, strict: bool, same_files: bool = True
) -> list[Issue]:
    """One issue for (held-out image, image that is trained on), with the same bytes or the same pixels alone.

    In a split that the data bring (`has_val`) it is a warning, and an error under `data.strict`. A split by seed keeps
    files of the same bytes on one side unless all are copies of one, which is an error; the same pixels are a warning.
    """
    if not pairs:
        return []
    few = first_few([f"{held_out} is {trained}" for held_out, trained in pairs])
    switch = "; data.strict=false lets it pass" if strict else "; data.strict=true makes this an error"
    is_error = strict if has_val else same_files
    what = f"{len(pairs)} of {num_val} held-out images are trained on too: {few}{switch if has_val else ''}"
    return [Issue("error" if is_error else "warning", what, where)]
