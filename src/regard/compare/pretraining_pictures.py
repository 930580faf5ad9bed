"""Pictures of what a pre-trained model sees: nearest neighbours, feature maps, and hidden patches as it draws them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from regard.compare.task_view import short_name
from regard.data import BadImage, ImageSource, Preprocessing, evaluation_transform
from regard.draw.png import SMALL, thumbnail_uri
from regard.draw.principal import principal_colours
from regard.losses.masked_images import EPSILON
from regard.models import ImageModel, MaskedAutoencoder, SimMIM, features_of
from regard.ops import images_of, patches_of
from regard.tasks import Classifier, PretrainingTask
from regard.tasks import features_of as features_of_source

NUM_ASKED, NUM_NEAREST, NUM_MAPS, NUM_DRAWN = 10, 5, 6, 5
MOST_SEARCHED = 2000
"""Training images among which neighbours are looked for."""
SIDE = 96  # pixels of a picture, at most
HIDDEN = 127  # the grey of what was hidden


@dataclass(frozen=True)
class Seen:
    """An image as a model sees it."""

    uri: str
    name: str
    label: str
    """Empty where it has none."""
    by_pixel: bool
    """Whether it is so small that a reader sees its pixels."""


@dataclass(frozen=True)
class Neighbours:
    image: Seen
    nearest: list[Seen]


@dataclass(frozen=True)
class Maps:
    image: Seen
    student: str
    """A data: address, as are the others."""
    teacher: str
    """Empty where there is none."""


@dataclass(frozen=True)
class Drawing:
    image: Seen
    visible: str
    drawn: str


class Pictures:
    """Pictures of some held-out images, spread over all of them. Those that cannot be read are left out."""

    def __init__(self, task: PretrainingTask, classifier: Classifier) -> None:
        self.task, self.classifier = task, classifier
        self.train, self.val = task.data.train, task.data.val
        self.names = task.data.class_names if task.has_labels else ()
        assert isinstance(classifier.model, ImageModel)  # the recipe allows no other
        self.model: ImageModel = classifier.model
        self.num_searched = 0
        self.grids = ""
        """How many places a map has, in words."""

    def neighbours(self) -> list[Neighbours]:
        """Held-out images, each with the training images whose features are nearest by their cosine."""
        step = -(-len(self.train) // MOST_SEARCHED)
        known, places = self._features(self.train, range(0, len(self.train), step))
        asked, numbers = self._features(self.val, spread(len(self.val), NUM_ASKED))
        self.num_searched = len(places)
        return [
            Neighbours(self._seen(self.val, number), [self._seen(self.train, int(places[i])) for i in nearest.tolist()])
            for number, nearest in zip(numbers.tolist(), nearest_by_cosine(known, asked, NUM_NEAREST), strict=True)
        ]

    @torch.inference_mode()
    def maps(self) -> list[Maps]:
        """Held-out images, each with its map of features by the student, and by its teacher where there is one."""
        found = [(n, image) for n in spread(len(self.val), NUM_MAPS) if (image := self._read(n)) is not None]
        if not found:
            return []
        images, teacher = [image for _, image in found], self.task.teacher
        ours, grid = _colours(self.model, [self.classifier.prepare(image) for image in images], self.classifier.device)
        theirs, self.grids = [""] * len(found), f"the model’s map has {grid} places"
        if teacher is not None:
            prepare = evaluation_transform(teacher.preprocessing)
            block = self.task.recipe.pretrain.teacher_block
            theirs, grid = _colours(teacher.model, [prepare(image) for image in images], "cpu", block)
            self.grids += f", the teacher’s {grid}"
        return [
            Maps(self._seen(self.val, number), student, seen)
            for (number, _), student, seen in zip(found, ours, theirs, strict=True)
        ]

    @torch.inference_mode()
    def drawings(self, learner: MaskedAutoencoder | SimMIM) -> list[Drawing]:
        """Held-out images, what was visible of them, and their hidden patches as the model draws them."""
        indices = spread(len(self.val), NUM_DRAWN)
        batch = next(iter(self.task.lessons.held_out(indices, len(indices))))
        if not len(batch):
            return []
        expected, hidden = learner(batch.images, batch.order)
        size, rows = learner.vit.config.patch_size, batch.images.shape[2] // learner.vit.config.patch_size
        wanted = patches_of(batch.images, size)
        if isinstance(learner, MaskedAutoencoder) and self.task.recipe.pretrain.normalised_patches:
            expected = as_bright_as(expected, wanted)
        whole = images_of(torch.where(hidden[..., None], expected.float(), wanted), size, rows)
        covered = images_of(hidden[..., None].expand_as(wanted).float(), size, rows).bool()
        pre, numbers = self.task.preprocessing, {self.val.name(index): index for index in indices}
        found = []
        for place, name in enumerate(batch.names):
            image = pre.seen(batch.images[place])
            visible = torch.where(covered[place], HIDDEN, image)
            found.append(
                Drawing(
                    self._of(image, self.val, numbers[name]),
                    thumbnail_uri(visible, SIDE),
                    thumbnail_uri(pre.seen(whole[place]), SIDE),
                )
            )
        return found

    def _features(
        self, source: ImageSource, indices: Sequence[int]
    ) -> tuple[Float[Tensor, "images channels"], Int64[Tensor, " images"]]:
        """What a head would read of images, and which of the source's they are."""
        numbers = {source.name(index): index for index in indices}
        found = features_of_source(self.model, source.only(indices), self.classifier.preprocessing, on_bad_image="skip")
        return found[0], torch.tensor([numbers[name] for name in found[2]])

    def _read(self, index: int) -> Tensor | None:
        try:
            return self.val.read(index)
        except BadImage:
            return None

    def _seen(self, source: ImageSource, index: int) -> Seen:
        pre: Preprocessing = self.classifier.preprocessing
        return self._of(pre.seen(self.classifier.prepare(source.read(index))), source, index)

    def _of(self, image: Tensor, source: ImageSource, index: int) -> Seen:
        label = source.labels[index]
        word = self.names[label] if self.names and isinstance(label, int) else ""
        return Seen(thumbnail_uri(image, SIDE), short_name(source.name(index)), word, max(image.shape[1:]) <= SMALL)


def spread(count: int, most: int) -> list[int]:
    """At most so many of the numbers below `count`, at equal distances: data are often sorted by class."""
    most = min(count, most)
    return [(2 * place + 1) * count // (2 * most) for place in range(most)]


def nearest_by_cosine(
    known: Float[Tensor, "known channels"], asked: Float[Tensor, "asked channels"], count: int
) -> Int64[Tensor, "asked nearest"]:
    """For each vector asked for, the known ones of highest cosine similarity, the nearest first."""
    similarity = F.normalize(asked.double(), dim=1) @ F.normalize(known.double(), dim=1).T
    return similarity.topk(min(count, len(known)), dim=1).indices


def as_bright_as(
    normalised: Float[Tensor, "batch patches values"], true: Float[Tensor, "batch patches values"]
) -> Float[Tensor, "batch patches values"]:
    """Patches of mean 0 and deviation 1 with the mean and deviation of the true ones: the inverse of their target."""
    variance, mean = torch.var_mean(true, dim=-1, keepdim=True)
    return normalised.float() * (variance + EPSILON).sqrt() + mean


def _colours(
    model: ImageModel, images: Sequence[Tensor], device: torch.device | str, block: int | None = None
) -> tuple[list[str], str]:
    """The map of each image, after a block or the last norm, and how many places it has: "8 × 8"."""
    maps = features_of(model, torch.stack(list(images)).to(device), block=block).pixels
    pictures = [thumbnail_uri(picture, SIDE) for picture in principal_colours(list(maps.float().cpu()))]
    return pictures, f"{maps.shape[2]} × {maps.shape[3]}"
