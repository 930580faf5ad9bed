"""What a check of data reports."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from regard.errors import first_few

Severity = Literal["error", "warning", "advice"]
# Each `--set KEY=VALUE`, each data.KEY=VALUE, and each command in `backticks` that a sentence names.
_WAYS_ON = re.compile(r"(?:--set )?\b(?:data|train|model)\.\w+=[^\s;,)]*[^\s;,.)]|`regard [^`]+`")
LEAVE_OUT = "`regard data check --leave-out FILE` lists them, and --set data.leave_out=FILE leaves them out"


@dataclass(frozen=True)
class Issue:
    """What is wrong, and where: an image, a line, a class, the address.

    An error spoils a training or evaluation; advice is no fault, but a setting that may suit the data better.
    """

    severity: Severity
    what: str
    where: str
    # For programs, what the sentence says already.
    count: int = field(default=1, compare=False)
    names: tuple[str, ...] = field(default=(), compare=False)
    """Three of the images, lines or classes, at most."""
    way_on: str = field(default="", compare=False)
    """What deals with it, where the sentence does not say so."""

    @property
    def ways_on(self) -> tuple[str, ...]:
        """The switches and commands that deal with it."""
        return tuple(dict.fromkeys(found.strip("`") for found in _WAYS_ON.findall(f"{self.what} {self.way_on}")))

    @property
    def sentence(self) -> str:
        """What is wrong, and what deals with it."""
        return f"{self.what}; {self.way_on}" if self.way_on else self.what

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "names": list(self.names or (self.where,)), "ways_on": list(self.ways_on)}


def group(severity: Severity, what: str, where: str, names: Sequence[str], count: int | None = None) -> Issue:
    """An issue of several things, of which `names` are some."""
    return Issue(severity, what, where, len(names) if count is None else count, tuple(names[:3]))


def issues_of_kind(severity: Severity, what: str, places: Sequence[str]) -> list[Issue]:
    """One issue for all `places` that have the same thing wrong: "98 files ...", and where, with three names at most.

    `what` holds "{count}". No issue without places.
    """
    if not places:
        return []
    return [group(severity, what.format(count=len(places)), first_few(places), places)]


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
            issues.append(group(severity, what, found[0][0], [found[0][0]]))
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
    issue = group("error" if is_error else "warning", what, where, [held_out for held_out, _ in pairs])
    return [replace(issue, way_on=LEAVE_OUT)]
