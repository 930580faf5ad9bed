"""The frozen model that a student learns from: one of the catalogue, or a run of one's own."""

from dataclasses import dataclass, replace

from regard.data import Preprocessing
from regard.errors import RegardError, first_few, nearest
from regard.files import expanded
from regard.models import PRESETS, ImageModel, SASAResNetConfig, ViTConfig, build, configure
from regard.reading import read_json
from regard.tasks.preprocessing import preprocessing_of
from regard.weights import CATALOGUE, Pretrained, chosen_pretrained, load_weights, names_at_hand
from regard.weights.described import class_names_of, config_of, placed, preprocessing_table

SIDE = 224  # pixels that a teacher of the catalogue sees


@dataclass(frozen=True)
class Teacher:
    name: str
    model: ImageModel
    preprocessing: Preprocessing
    class_names: tuple[str, ...]
    """Empty where it has none."""


def load_teacher(name: str, size: int | None, *, channels: int, resize: str, crop_fraction: float) -> Teacher:
    """A teacher by its name of the catalogue, or by its run folder.

    size: height and width in pixels of its images; 224, or the run's own, unless given. channels: those of the student;
    a model of the catalogue is fitted to them. resize, crop_fraction: how the student sees an image of another aspect,
    and so its teacher: both must see the same part.
    RegardError for a name that is neither, a model of another task, weights that are not installed, other channels.
    """
    require_teacher(name)
    entry = chosen_pretrained(name)
    found = _of_run(name, size) if entry is None else _of_catalogue(name, entry, size, channels)
    if found.preprocessing.channels != channels:
        raise RegardError(
            f"pretrain.teacher: {name} takes {found.preprocessing.channels} channels, and the student {channels}; "
            f"--set model.in_chans={found.preprocessing.channels} makes them equal"
        )
    found.model.requires_grad_(False).eval()
    return replace(found, preprocessing=replace(found.preprocessing, resize=resize, crop_fraction=crop_fraction))


def require_teacher(name: str) -> None:
    """RegardError for a name that is neither a run nor a model of whole images in the catalogue."""
    entry = chosen_pretrained(name)
    if entry is None and not (expanded(name) / "metadata.json").is_file():
        near = nearest(name, CATALOGUE)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise RegardError(
            f"pretrain.teacher: {name} is neither a run nor a name of the catalogue{hint}; {known_teachers()}"
        )
    if entry is not None and not isinstance(PRESETS.get(entry.model), ViTConfig | SASAResNetConfig):
        raise RegardError(f"pretrain.teacher: {name} is no model that sees whole images; {known_teachers()}")


def _of_catalogue(name: str, entry: Pretrained, size: int | None, channels: int) -> Teacher:
    side = SIDE if size is None else size
    sizes = {"img_size": side, "in_chans": channels, "num_classes": 0}
    try:
        model = build(configure(entry.model, {**entry.config, **sizes}))
        assert isinstance(model, ImageModel)
        load_weights(model, name)
    except RegardError as error:
        raise RegardError(f"pretrain.teacher: {error}; {known_teachers()}") from None
    return Teacher(name, model, preprocessing_of(name, img_size=(side, side), channels=channels), ())


def _of_run(name: str, size: int | None) -> Teacher:
    folder = expanded(name)
    file = folder / "metadata.json"
    metadata, where = read_json(file), str(file)
    try:
        _, config = config_of(metadata, where)
        pre = Preprocessing.from_dict(preprocessing_table(metadata, where))
        names = class_names_of(metadata, where)
    except (KeyError, TypeError, AttributeError):
        raise RegardError(f"pretrain.teacher: {name} is no run that classifies images") from None
    except RegardError as error:
        raise placed(error, where) from None
    if not isinstance(config, ViTConfig | SASAResNetConfig):
        raise RegardError(f"pretrain.teacher: {name} is no run that classifies images")
    if size is not None:
        config, pre = replace(config, img_size=size), replace(pre, img_size=(size, size))
    try:
        model = build(config)
    except RegardError as error:
        raise RegardError(f"pretrain.teacher_size: {error}") from None
    assert isinstance(model, ImageModel)
    load_weights(model, folder)
    return Teacher(name, model, pre, names)


def known_teachers() -> str:
    """What can be named, of what is here."""
    here = [name for name in names_at_hand() if not CATALOGUE[name].is_backbone]
    return f"installed here: {first_few(here) if here else 'nothing'}"
