"""`regard evaluate` and `predict`: what is done with a run."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from regard.cli.boxes import predict_boxes, score_or_none, show_detection_evaluation, word_or_number
from regard.cli.classes import show_class_evaluation, show_classes
from regard.cli.labels import predict_labels
from regard.cli.tables import csv_text, figures_line, printed, write_files
from regard.cli.terminal import say
from regard.cli.text import Weights, predict_texts, show_text_evaluation
from regard.cli.train import Device, Settings, named
from regard.cli.video import predict_videos
from regard.errors import RegardError, unknown

if TYPE_CHECKING:
    from regard.tasks import Classifier

RunArgument = Annotated[
    str, typer.Argument(help="A run folder, a pretrained model (`regard models`), or hf-hub:OWNER/NAME.", metavar="RUN")
]
Nms = Annotated[
    str | None,
    typer.Option(
        "--nms",
        metavar="IOU|off|auto",
        help="Leave out boxes that overlap a more certain one of their class by more than this IoU; auto, which holds "
        "unless given, does what was measured to be best in training.",
    ),
]
Engine = Annotated[
    str | None,
    typer.Option(
        metavar="auto|torch|optimize|onnx|openvino",
        help="What answers for a run of images, on the CPU; auto: the fastest on this machine. Files are written once, "
        "verified.",
    ),
]
Precision = Annotated[str | None, typer.Option(metavar="fp32|bf16", help="Of the engine.")]
OutFolder = Annotated[Path | None, typer.Option("-o", "--out", help="Write files into this folder too.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
AsCsv = Annotated[bool, typer.Option("--csv", help="Print CSV.")]


def evaluate(
    run: RunArgument,
    data: Annotated[
        str | None, typer.Option(help="Another data set; the run's own held-out images unless given.")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(metavar="RECIPE", help="Open the data as this recipe does; as the run's own otherwise."),
    ] = None,
    settings: Settings = None,
    weights: Weights = "model",
    device: Device = None,
    engine: Engine = None,
    precision: Precision = None,
    knn: Annotated[
        bool, typer.Option("--knn", help="Classify each held-out image by its nearest training images' features.")
    ] = False,
    neighbours: Annotated[int, typer.Option(help="How many of them.", min=1)] = 20,
    max_detections: Annotated[
        int | None,
        typer.Option(help="How many objects of an image count; 100 as in COCO, or more if it has more.", min=1),
    ] = None,
    nms: Nms = None,
    threshold: Annotated[
        str,
        typer.Option(
            metavar="SCORE|auto",
            help="Lowest score of a detection in the confusion matrix, precision and recall; auto: as reported.",
        ),
    ] = "auto",
    out: OutFolder = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Measure a trained model, class by class; or, with --knn, its features."""
    from regard.api import evaluate as evaluate_run
    from regard.api import evaluate_knn
    from regard.tasks import DetectionEvaluation, Evaluation

    least = score_or_none(threshold)
    if knn:
        if engine or precision:
            raise RegardError("--knn reads a model's features; leave out --engine and --precision")
        found = evaluate_knn(run, data, k=neighbours, weights=weights, device=device)
        text = csv_text(tuple(found), [found])
        write_files(out, "knn", found, text)
        if not printed(as_json, as_csv, found, text):
            say(figures_line(found))
        return
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", UserWarning)
        evaluation = evaluate_run(
            run,
            data,
            recipe=recipe,
            settings=settings or (),
            weights=weights,
            device=device,
            max_detections=max_detections,
            nms=None if nms is None else word_or_number(nms),
            engine=engine,
            precision=precision,
        )
    for message in dict.fromkeys(str(warning.message) for warning in said):
        say(f"warning: {message}", err=True)
    if isinstance(evaluation, DetectionEvaluation):
        show_detection_evaluation(evaluation, least, out, as_json=as_json, as_csv=as_csv)
        return
    if least is not None:
        raise RegardError(f"{run}: --threshold is for runs that find objects")
    if not isinstance(evaluation, Evaluation):
        show_text_evaluation(evaluation, out, as_json=as_json, as_csv=as_csv)
        return
    show_class_evaluation(evaluation, out, as_json=as_json, as_csv=as_csv)


def predict(
    run: RunArgument,
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Image files, folders of them, video files or camera:0; for text, files with a text a line."
        ),
    ] = None,
    text: Annotated[list[str] | None, typer.Option(help="A text to read; may be repeated.")] = None,
    top: Annotated[
        int | None,
        typer.Option(
            help="How many classes to name for each image: 1 unless given; of images that may have several, all that "
            "are probable enough.",
            min=1,
        ),
    ] = None,
    threshold: Annotated[
        str,
        typer.Option(
            metavar="SCORE|auto",
            help="Lowest score of an object that is reported and drawn, or of a class where images may have several; "
            "auto: of each class, as measured in the training, or 0.5 where that was not done.",
        ),
    ] = "auto",
    nms: Nms = None,
    max_detections: Annotated[
        int | None, typer.Option(help="At most so many objects of an image, the most certain ones.", min=1)
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="A data address whose image and class ids COCO's results are written under.")
    ] = None,
    annotations: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="The same, from one of COCO's annotation files.")
    ] = None,
    form: Annotated[
        str | None,
        typer.Option(
            "--as",
            metavar="coco|yolo|voc|csv",
            help="Write what is found as annotations into the new folder OUT, to correct them with a labelling tool.",
        ),
    ] = None,
    copy: Annotated[
        bool,
        typer.Option("--copy", help="With --as: copy the images into OUT; hard links otherwise, which take no room."),
    ] = False,
    sort: Annotated[
        str, typer.Option(metavar="name|uncertain", help="uncertain: first the images that the model is least sure of.")
    ] = "name",
    stride: Annotated[
        int | None, typer.Option(metavar="N", help="Of a video, every N-th frame; all unless given.")
    ] = None,
    beam: Annotated[int, typer.Option(help="Width of the beam search for text; 1 takes the likeliest.", min=1)] = 1,
    attention: Annotated[
        Path | None, typer.Option(metavar="PNG", help="Draw what was looked at while the text was written.")
    ] = None,
    max_megapixels: Annotated[
        float | None, typer.Option(help="Read images of up to so many megapixels; 64, or as in training, unless given.")
    ] = None,
    weights: Weights = "model",
    device: Device = None,
    engine: Engine = None,
    precision: Precision = None,
    out: OutFolder = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Name the class of each image or frame of a video, find the objects in it, or write the answer to each text.

    An image that cannot be read is named on stderr; the others are done all the same.
    """
    from regard.api import load
    from regard.data import is_video
    from regard.tasks import Classifier, DataIds, Detector, Translator

    if data is not None and annotations is not None:
        raise RegardError("choose one of --data and --annotations")
    data = None if data is None else named(data, err=True)
    predictor = load(run, weights=weights, device=device, engine=engine, precision=precision)
    if engine == "auto" and isinstance(predictor, Classifier | Detector):
        say(f"engine: {predictor.engine}", err=True)
    if not isinstance(predictor, Detector) and (max_detections or nms or data or annotations):
        raise RegardError(f"{run}: --max-detections, --nms, --data and --annotations are for runs that find objects")
    if isinstance(predictor, Translator) and (form or copy or sort != "name" or stride is not None):
        raise RegardError(f"{run}: reads texts; --as, --copy, --sort and --stride are for runs that read images")
    if isinstance(predictor, Translator):
        predict_texts(predictor, text or [], files or [], beam, attention, out, as_json=as_json, as_csv=as_csv)
        return
    if not isinstance(predictor, Classifier | Detector):
        raise RegardError(f"{run}: is a run of a language model; `regard generate {run} --prompt TEXT` lets it write")
    if text or attention:
        raise RegardError(f"{run}: reads images; --text and --attention are for runs that read text")
    if not files:
        raise RegardError("predict: name an image file, or a folder of them")
    if max_megapixels is not None:
        predictor.max_megapixels = max_megapixels
    boxes = {
        "threshold": word_or_number(threshold),
        "nms": word_or_number(nms or "auto"),
        "max_detections": max_detections,
    }
    if isinstance(predictor, Detector) and engine is None and precision is None:
        predictor = predictor.fused()
    videos = [str(file) for file in files if is_video(file)]
    if videos:
        if len(videos) < len(files):
            raise RegardError(f"{videos[0]}: is a video; predict it by itself, without images")
        if form or copy or sort != "name" or data or annotations or as_csv:
            raise RegardError(
                f"{videos[0]}: is a video; it takes --stride, -o and --json, and --as, --copy, --sort, "
                "--data, --annotations and --csv are for images"
            )
        boxes["stride"] = 1 if stride is None else stride
        predict_videos(predictor, videos, boxes, out, 1 if top is None else top, as_json=as_json)
        return
    if stride is not None:
        raise RegardError("--stride is for videos (by their ending: .mp4, .mov, ...) and cameras (camera:0)")
    if form is not None:
        if as_csv:
            raise RegardError("--as writes files, and says in a line or as --json what they are; leave out --csv")
        boxes |= {"data": data, "annotations": annotations, "sort": sort, "copy": copy}
        predict_labels(predictor, files, boxes, out, form, as_json=as_json)
        return
    if copy:
        raise RegardError("--copy is for --as, which writes a folder of images with their annotations")
    unsure = _is_uncertain(sort)
    if isinstance(predictor, Detector):
        ids = DataIds.of_data(data) if data else DataIds.of_annotations(annotations) if annotations else None
        predict_boxes(predictor, image_paths(files), boxes, ids, out, as_json=as_json, as_csv=as_csv, unsure=unsure)
        return
    options = {"threshold": word_or_number(threshold)} if predictor.multi_label else {}
    _predict_images(predictor, files, top, options, out, as_json=as_json, as_csv=as_csv, unsure=unsure)


def _is_uncertain(sort: str) -> bool:
    if sort not in ("name", "uncertain"):
        raise unknown("order of images", sort, ("name", "uncertain"), where="--sort")
    return sort == "uncertain"


def _predict_images(
    classifier: "Classifier",
    files: list[Path],
    top: int | None,
    options: Mapping[str, Any],
    out: Path | None,
    *,
    as_json: bool,
    as_csv: bool,
    unsure: bool,
) -> None:
    """options: those of `Classifier.predict_files`."""
    from regard.tasks import Prediction
    from regard.tasks.labelling.uncertainty import uncertainty

    answers: list[Prediction] = []
    bad: list[str] = []
    for answer in classifier.predict_files(image_paths(files), **options):
        if isinstance(answer, Prediction):
            answers.append(answer)
        else:
            bad.append(str(answer))
    if unsure:
        answers.sort(key=uncertainty, reverse=True)
    show_classes(answers, top, out, as_json=as_json, as_csv=as_csv)
    for message in bad:
        say(f"error: {message}", err=True)
    if bad:
        raise typer.Exit(1)


def image_paths(paths: list[Path]) -> list[Path]:
    """The files, and the images in the folders; RegardError for a path that is not there or a folder without images."""
    from regard.data import image_endings, image_files, passed_over_line

    files: list[Path] = []
    for path in paths:
        if not path.is_dir():
            files.append(path)
            continue
        found, passed_over = image_files(path)
        if not found:
            raise RegardError(f"{path}: holds no image ({', '.join(sorted(image_endings()))})")
        files += found
        if passed_over:
            say(f"{path}: {passed_over_line(passed_over)}", err=True)
    return files
