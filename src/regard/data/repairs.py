"""What a reader of annotations assumed, and what it could not use: counted by kind, with names."""

from collections import Counter
from collections.abc import Iterable
from typing import Literal

from regard.errors import RegardError, first_few

# What happens at an annotation that has no meaning: an error, or it is left out and counted.
OnBadAnnotation = Literal["stop", "skip"]


class Repairs:
    """Kinds of odd annotations, each with the places where they stand.

    A kind is the end of a sentence that begins with a number: "boxes are not four finite numbers". `healed` are those
    with one meaning, which was taken; `left_out` those without, which no training sees; `unused` those that no training
    sees either, but that stay in what was read, where a check of boxes finds and draws them; `passed_over` files that
    are no part of the data, and why. `other_files` counts, by ending, those that are neither images nor annotations.
    """

    def __init__(self) -> None:
        self.healed: dict[str, list[str]] = {}
        self.left_out: dict[str, list[str]] = {}
        self.unused: dict[str, list[str]] = {}
        self.passed_over: dict[str, list[str]] = {}
        self.other_files: Counter[str] = Counter()

    def heal(self, kind: str, where: object) -> None:
        self.healed.setdefault(kind, []).append(str(where))

    def leave_out(self, kind: str, where: object) -> None:
        self.left_out.setdefault(kind, []).append(str(where))

    def pass_over(self, kind: str, where: object) -> None:
        self.passed_over.setdefault(kind, []).append(str(where))

    def add(self, other: "Repairs") -> None:
        """Counts what another reader found, too."""
        for own, found in ((self.healed, other.healed), (self.left_out, other.left_out)):
            for kind, places in found.items():
                own.setdefault(kind, []).extend(places)

    def require(self, address: str, on_bad_annotation: OnBadAnnotation, also: str | None = None) -> None:
        """RegardError, with every kind, where something had to be left out and this is not allowed.

        also: another way on; `regard data fix` unless given.
        """
        unusable = {**self.left_out, **self.unused}
        if unusable and on_bad_annotation == "stop":
            if also is None:
                also = f", and `regard data fix {address} -o FOLDER` writes annotations without them"
            raise RegardError(
                f"{address}: {'; '.join(sentences(unusable))}; --set data.on_bad_annotation=skip leaves them out{also}"
            )


def sentences(kinds: dict[str, list[str]]) -> Iterable[str]:
    """ "3 boxes are not four finite numbers: a, b, c", for each kind."""
    for kind, places in kinds.items():
        yield f"{len(places)} {kind}: {first_few(places)}"
