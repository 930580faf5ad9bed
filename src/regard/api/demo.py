"""The demo: a page that has something to look at within a minute, and grows part by part."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regard.api.comparing import Comparison
from regard.api.first_look import first_look, has_pretrained
from regard.api.training import train_run

if TYPE_CHECKING:
    from regard.compare import Contender, SecondPart
    from regard.recipes import Recipe

TITLE = "Regard in three looks"
COMPARISON_TITLE = "Three ways to mix tokens"
DETECTOR_TITLE = "Objects in images, by a detector"


class Demo:
    """The demo's page, which is written as a whole again after each part: `look`, `compare`, `detect`, in this order.

    The page says what is there and what comes; an interruption in `keeping` leaves a whole page that says so.
    """

    def __init__(self, comparison: Comparison, *, with_detector: bool = True) -> None:
        from regard.compare import Opening

        self.comparison = comparison
        self.page = comparison.report_file
        self.opening: Opening = Opening(TITLE, _parts(comparison, with_detector=with_detector), lesson=_lesson())
        self._second: SecondPart | None = None

    def begin(self, recipe_name: str, options: Sequence[str]) -> None:
        """Makes the folder with the plan and the page. RegardError for a folder that holds something else."""
        from regard.compare.going_on import begin

        plan = self.comparison.settle(recipe_name, options, COMPARISON_TITLE)
        begin(self.comparison.folder, plan, is_new=not self.comparison.folder.exists())
        self._show()

    @contextmanager
    def keeping(self) -> Iterator[None]:
        """Within, an error or an interruption leaves a page that says that it grows no more."""
        try:
            yield
        except BaseException:
            self._show(stopped=True)
            raise

    def look(self, device: str | None = None) -> Iterator[str]:
        """The first part. Yields a line for the terminal after each writing: the picture first, then its verdict."""
        for picture in first_look(self.comparison.folder / "first-look", device):
            self._show(picture=picture, done=1)
            yield f"{picture.title}: {picture.verdict}"

    def compare(self, run: Callable[[], object]) -> None:
        """The second part, by `run`, which runs the comparison."""
        run()
        self._show(done=2)

    def detect(self, name: str, recipe: "Recipe", command: str) -> "tuple[Path, dict[str, Any]]":
        """The third part: trains the detector as `regard train` would. Returns where its report is, and its summary."""
        from regard.compare import SecondPart, contender

        folder = self.comparison.folder / "detector"
        run, summary = train_run(name, recipe, folder, command=command)
        found: Contender = contender(folder.name, [folder], with_cost=False)
        self._second = SecondPart(DETECTOR_TITLE, found, command)
        self._show(done=3)
        return run.report_file, summary

    def _show(self, **changes: Any) -> None:
        from regard.compare import write_opening

        self.opening = self.comparison.opening = replace(self.opening, **changes)
        if any(contender.runs for contender in self.comparison.contenders):
            self.comparison.write_report(second=self._second)
        else:
            write_opening(self.page, self.opening)


def _lesson() -> str:
    """The address of docs/lesson.html, which a clone of the repository has; "" elsewhere."""
    file = Path(__file__).resolve().parents[3] / "docs" / "lesson.html"
    return file.as_uri() if file.is_file() else ""


def _parts(comparison: Comparison, *, with_detector: bool) -> list[Any]:
    from regard.compare import Part

    look = "What a pretrained ViT looks at" if has_pretrained() else "What a small ViT looks at"
    seeds, names = comparison.wishes.seeds, ", ".join(comparison.names)
    parts = [
        Part(look, "a map over an image, and whether the map is true", "first-look"),
        Part(
            COMPARISON_TITLE,
            f"the same small encoder with {names}, {seeds} seeds each: which to take, and how sure that is",
            "comparison",
        ),
        Part(
            DETECTOR_TITLE,
            "a detector trained from nothing on scenes of digits: its boxes, layer by layer, and its mistakes",
            "second-part",
        ),
    ]
    return parts if with_detector else parts[:2]
