"""`explain_page`: runs and images -> one HTML file to look around in."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regard.api.explanations import _pixels, _transformed, image_predictor, sized, sized_detector
from regard.api.runs import Device
from regard.errors import RegardError

if TYPE_CHECKING:
    from regard.explain.page.carried import CarriedImage, CarriedRun
    from regard.tasks import Classifier, Detector

FIRST = ("rows", "rollout", "relevance", "gradient", "gradient-x-input")


def explain_page(
    run: "str | Path | Classifier | Detector",
    images: Sequence[Any],
    path: str | Path,
    *,
    against: "str | Path | Classifier | Detector | None" = None,
    method: str | None = None,
    layer: int | str | None = None,
    target: int | str | None = None,
    size: int | str | tuple[int, int] | None = None,
    faithfulness: bool = True,
    weights: str = "model",
    device: Device = None,
) -> list[str]:
    """Writes a page to look around in: rows of every patch, maps with their faithfulness, a detector's boxes.

    The file opens from disk, asks for nothing, and takes 8 MB at most. Returns what did not fit, in sentences: layers
    are left out from the first on.
    images: each as `explain_image` takes it. against: another run on the same images and grid, to compare with.
    method: one that the page shows beside rows, rollout, relevance and gradients. layer: one alone, or all that fit.
    RegardError for a run of text, for runs of two tasks or grids, and for images that are above 8 MB without any layer.
    """
    from regard.explain import method_named
    from regard.explain.page import write_page

    if not images:
        raise RegardError("explain: name an image file, or a folder of them")
    if Path(path).suffix.lower() not in (".html", ".htm"):
        raise RegardError(f"page: {path}: is an HTML file; name it as in {Path(path).with_suffix('.html')}")
    method = method_named(method)
    if method in ("window", "embeddings"):
        raise RegardError(f"page: {method} is a figure, no map; the page shows the rows of every patch")
    runs: list[tuple[Any, CarriedRun]] = []
    for number, one in enumerate([run] if against is None else [run, against]):
        predictor: Any = image_predictor(one, weights, device)
        if runs:
            _require_same_task(runs[0][0], predictor, run, against)
        name = Path(one).name if isinstance(one, str | Path) else f"model {number + 1}"
        if runs and name == runs[0][1].name:
            name = str(one) if str(one) != str(run) else f"{name} again"
        carried = _carried(predictor, name, images, method, layer, target, size, faithfulness)
        if runs:
            _require_same_grid(runs[0][1], carried, against)
        runs.append((predictor, carried))
    return write_page([carried for _, carried in runs], path)


def _carried(
    predictor: Any,
    name: str,
    images: Sequence[Any],
    method: str | None,
    layer: int | str | None,
    target: int | str | None,
    size: Any,
    faithfulness: bool,
) -> "CarriedRun":
    from regard.explain.page import CarriedRun
    from regard.tasks import Classifier

    found = []
    for number, image in enumerate(images):
        title = Path(image).name if isinstance(image, str | Path) else f"image {number}"
        if isinstance(predictor, Classifier):
            found.append(_of_classifier(predictor, image, title, method, layer, target, size, faithfulness))
        else:
            for option, value in (("method", method if method != "rows" else None), ("target", target)):
                if value is not None:
                    raise RegardError(f"page: a detector's page takes no {option}; its boxes are all there")
            found.append(_of_detector(predictor, image, title, layer, size))
    return CarriedRun(name, found)


def _of_classifier(
    classifier: Any,
    image: Any,
    title: str,
    method: str | None,
    layer: int | str | None,
    target: int | str | None,
    size: Any,
    faithfulness: bool,
) -> "CarriedImage":
    from regard.explain.page import carried_image

    own, stored = classifier.preprocessing, _pixels(classifier, image)
    pre = sized(own, size, stored, classifier.model)
    prepared = _transformed(pre, stored).to(classifier.device)
    methods = FIRST if method in (None, "influence", *FIRST) else (*FIRST, str(method))
    return carried_image(
        classifier.model,
        prepared,
        pre.seen(prepared.cpu()),
        name=title,
        class_names=classifier.class_names,
        multi_label=classifier.multi_label,
        target=target,
        methods=methods,
        layers=layer,
        judged=_transformed(own, stored).to(classifier.device) if faithfulness else None,
    )


def _of_detector(detector: Any, image: Any, title: str, layer: int | str | None, size: Any) -> "CarriedImage":
    from regard.explain.page.carried import carried_detection
    from regard.tasks.image_predictor import pixels_of

    own = sized_detector(detector, size)
    prepared = own.prepare(pixels_of(image, own.preprocessing.channels, "image", own.preprocessing.decoding))
    return carried_detection(
        detector.model,
        prepared.to(detector.device),
        own.preprocessing.seen(prepared),
        name=title,
        class_names=detector.class_names,
        layers=layer,
    )


def _require_same_task(first: Any, second: Any, run: object, against: object) -> None:
    from regard.tasks import Classifier

    if isinstance(first, Classifier) != isinstance(second, Classifier):
        kinds = ["classification" if isinstance(one, Classifier) else "detection" for one in (first, second)]
        raise RegardError(f"{against}: is of {kinds[1]} and {run} of {kinds[0]}; runs of one task are compared")


def _require_same_grid(first: "CarriedRun", second: "CarriedRun", against: object) -> None:
    for mine, theirs in zip(first.images, second.images, strict=True):
        if (mine.grid.height, mine.grid.width) != (theirs.grid.height, theirs.grid.width):
            raise RegardError(
                f"{against}: has {theirs.grid.height} × {theirs.grid.width} patches of {theirs.name}, not "
                f"{mine.grid.height} × {mine.grid.width}; to compare patches both need one grid (see --size)"
            )
