"""An image has one answer: alone, in a batch beside images of other aspects, and in an evaluation.

Padding to one size would not give it, which is shown for each kind of backbone.
"""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from regard.data import (
    BadImage,
    ByteTokenizer,
    DetectionPreprocessing,
    DetectionSource,
    Objects,
    Preprocessing,
    pad,
)
from regard.mixers import MIXERS
from regard.models import (
    DETRConfig,
    DNDETRConfig,
    LanguageModelConfig,
    RecurrentConfig,
    SASAResNetConfig,
    TransformerConfig,
    ViTConfig,
    build,
)
from regard.models.backbone import create_backbone
from regard.tasks import Classifier, Detections, Detector, Translator, Writer
from regard.tasks.image_predictor import WINDOW, LoadedImage, answers_in_order

# Sides that are different primes, of several aspects; two images share the size that they are prepared to.
SIZES = [(61, 97), (101, 67), (79, 73), (61, 97), (47, 131), (113, 59)]
PRE = DetectionPreprocessing(53, 83, 3, (0.5,) * 3, (0.25,) * 3)

DN = DNDETRConfig(
    num_classes=3, embed_dim=32, num_heads=4, decoder_depth=2, num_queries=12, strides=(8, 16, 32), mlp_ratio=2.0
)
PLAIN = DETRConfig(num_classes=3, embed_dim=32, num_heads=4, depth=1, decoder_depth=1, num_queries=12, mlp_ratio=2.0)
DETECTORS = {
    "narrow": replace(DN, backbone="resnet18_narrow", frozen_norm=False),
    "narrow, frozen": replace(DN, backbone="resnet18_narrow"),
    "lite0": replace(DN, backbone="tf_efficientnet_lite0"),
    "dinov2": replace(DN, backbone="dinov2_vits14", strides=(14, 28), cross_attention="dense"),
    "sasa": replace(DN, backbone="sasa_resnet26", strides=(32, 64), num_queries=6),
    "plain": replace(PLAIN, backbone="resnet18_narrow"),
    "plain, dinov2": replace(PLAIN, backbone="dinov2_vits14", mixer="performer"),
    "plain, sasa": replace(PLAIN, backbone="sasa_resnet26", mixer="local", frozen_norm=False),
}


def drawn(model: nn.Module) -> nn.Module:
    """The model with every parameter and statistic drawn at random: biases of zero would hide what padding does."""
    generator = torch.Generator().manual_seed(1)
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.ndim == 1 and tensor.is_floating_point():
            shift = 0.2 * torch.randn(tensor.shape, generator=generator)
            tensor.data.copy_(1 + shift.abs() if name.endswith(("weight", "running_var")) else shift)
        elif tensor.is_floating_point() and not tensor.any():
            tensor.data.copy_(0.2 * torch.randn(tensor.shape, generator=generator))
    return model.eval()


SLOW = ("sasa", "plain, sasa", "plain, dinov2")


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in DETECTORS],
)
def detector(request) -> Detector:
    torch.manual_seed(0)
    model = build(DETECTORS[request.param])
    if "dinov2" in request.param:
        del model.backbone.body.blocks[1:-1]  # the other ten take time and add nothing
    return Detector(drawn(model), ("a", "b", "c"), (3, 5, 7), PRE)


@pytest.fixture(scope="module")
def photographs() -> list[Tensor]:
    return [photograph(number, *size) for number, size in enumerate(SIZES)]


def photograph(number: int, height: int, width: int) -> Tensor:
    """Smooth noise: a coarse picture, enlarged."""
    coarse = torch.rand(1, 3, 7, 5, generator=torch.Generator().manual_seed(number))
    return (255 * nn.functional.interpolate(coarse, (height, width), mode="bicubic")[0].clamp(0, 1)).byte()


class Photographs(DetectionSource):
    """Images whose objects are what a detector finds in each of them alone."""

    def __init__(self, images: list[Tensor], objects: list[Objects]) -> None:
        self.images, self.objects, self.image_ids = images, objects, range(1, len(images) + 1)
        self.sizes = [(image.shape[1], image.shape[2]) for image in images]

    def read(self, index: int) -> Tensor:
        return self.images[index]

    def name(self, index: int) -> str:
        return f"photograph {index}"


def as_objects(found: Detections) -> Objects:
    """A few of the found boxes, somewhat moved."""
    boxes = found.boxes_xyxy[:4] + torch.tensor([0.0, 1.0, 2.0, 1.0])
    return Objects(boxes, found.labels[:4], (boxes[:, 2:] - boxes[:, :2]).prod(1), torch.zeros(len(boxes)).bool())


def same(found: Detections, wanted: Detections) -> None:
    assert found.image_size == wanted.image_size
    assert_close(found.scores, wanted.scores, rtol=0, atol=1e-5)
    sides = torch.tensor(wanted.image_size).flip(0).repeat(2)
    # Queries of nearly equal scores may change places.
    ours, theirs = (torch.cat([one.boxes_xyxy / sides, one.labels[:, None]], 1) for one in (found, wanted))
    distances = torch.cdist(ours, theirs, compute_mode="donot_use_mm_for_euclid_dist")
    assert distances.amin(0).max() < 2e-5
    assert distances.amin(1).max() < 2e-5


def test_a_detector_gives_an_image_one_answer(detector, photographs):
    alone = [detector.predict(image, threshold=0.0) for image in photographs]
    assert [one.image_size for one in alone] == SIZES
    spread = torch.cat([one.scores for one in alone]).std()
    assert spread > 1e-3  # else anything would be equal
    for found, wanted in zip(detector.predict(photographs, threshold=0.0), alone, strict=True):
        same(found, wanted)
    refinement = detector.box_refinement(photographs[1])
    assert_close(refinement.scores[-1].max(), alone[1].scores.max(), rtol=0, atol=1e-5)

    source = Photographs(photographs, [as_objects(one) for one in alone])
    evaluations = [detector.evaluate(source, batch_size=batch_size) for batch_size in (1, 8)]
    for evaluation in evaluations:
        assert [one.name for one in evaluation.found] == [source.name(index) for index in range(len(source))]
        for found, wanted in zip(evaluation.found, alone, strict=True):
            same(found, wanted)
    figures = [evaluation.metrics() for evaluation in evaluations]
    assert 0.1 < figures[0]["ap"] < 1
    assert figures[1] == pytest.approx(figures[0], rel=1e-4, abs=1e-4)


def test_padding_would_change_the_answer(detector, photographs):
    """So the test above can fail: padded beside a larger image, an image gets other boxes and scores."""
    few = [detector.prepare(photographs[index]) for index in (0, 1)]
    with torch.inference_mode():
        together = detector.model(*pad(few))
        alone = [detector.model(*pad([image])) for image in few]
    for name in ("logits", "boxes_cxcywh"):
        joined = torch.cat([getattr(one, name)[-1] for one in alone])
        assert (getattr(together, name)[-1] - joined).abs().max() > 1e-4, name


@pytest.mark.parametrize("name", ["resnet18_narrow", "tf_efficientnet_lite0", "dinov2_vits14", "sasa_resnet26"])
def test_padding_reaches_the_features_of_the_image_itself(name, photographs):
    """The cause: whatever is masked behind the backbone, it has seen the padding."""
    torch.manual_seed(0)
    backbone = drawn(create_backbone(name))
    image = (photographs[0][:, :56, :84] / 255 - 0.5) * 4  # strides tile it: rounding plays no part
    padded = nn.functional.pad(image, (0, 28, 0, 56))
    with torch.inference_mode():
        alone, together = (backbone(one[None])[0] for one in (image, padded))
    rows, columns = (min(a, b) for a, b in zip(alone.shape[1:], together.shape[1:], strict=True))
    assert together.shape[1:] > alone.shape[1:]
    difference = (together[:, :rows, :columns] - alone[:, :rows, :columns]).abs().max()
    assert difference > 1e-2 * alone.abs().max()


CLASSIFIERS = {
    **{
        mixer: ViTConfig(
            img_size=24, patch_size=8, num_classes=5, embed_dim=32, num_heads=4, depth=2, pool="avg", mixer=mixer
        )
        for mixer in MIXERS
    },
    "sasa": SASAResNetConfig(img_size=24, num_classes=5, embed_dim=16, depths=(1, 1), num_heads=2, window=5),
}


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_classifier_gives_an_image_one_answer(name, photographs):
    torch.manual_seed(0)
    pre = Preprocessing((24, 24), 3, (0.5,) * 3, (0.25,) * 3, "bilinear", 1.0)
    classifier = Classifier(drawn(build(CLASSIFIERS[name])), tuple("abcde"), pre)
    alone = [dict(one.top(5)) for one in map(classifier.predict, photographs)]
    assert max(abs(alone[0]["a"] - one["a"]) for one in alone[1:]) > 1e-3
    for batch_size in (4, 8):
        for found, wanted in zip(classifier.predict(photographs, batch_size=batch_size), alone, strict=True):
            assert dict(found.top(5)) == pytest.approx(wanted, abs=1e-5)


SMALL = {"embed_dim": 32, "dropout": 0.0}
VOCAB = {"src_vocab": ByteTokenizer().vocab_size, "tgt_vocab": ByteTokenizer().vocab_size, **SMALL}
TRANSLATORS = {
    **{
        mixer: TransformerConfig(num_heads=4, depth=2, decoder_depth=1, mixer=mixer, **VOCAB)
        for mixer in ("attention", "local", "performer", "conv", "lstm", "none")
    },
    "causal performer": TransformerConfig(num_heads=4, depth=1, decoder_mixer="performer", **VOCAB),
    "recurrent": RecurrentConfig(**VOCAB),
}


@pytest.mark.parametrize("name", TRANSLATORS)
def test_a_translator_gives_a_text_one_answer(name):
    """Texts of other lengths are padded and masked, and the masks of all mixers that have one leave padding out."""
    translator = Translator(drawn(build(TRANSLATORS[name])), ByteTokenizer(), max_new_tokens=7)
    texts = ["vijfhonderdtwaalf", "forty-two", "a", "neunzehn", "trois cents quatre-vingt-un"]
    for beam_size in (1, 3):
        alone = [translator.predict(text, beam_size=beam_size) for text in texts]
        together = translator.predict(texts, beam_size=beam_size)
        assert [one.text for one in together] == [one.text for one in alone]
        assert [one.log_prob for one in together] == pytest.approx([one.log_prob for one in alone], abs=2e-5)


@pytest.mark.parametrize("mixer", ["attention", "performer"])
def test_a_writer_gives_a_text_one_answer(mixer):
    config = LanguageModelConfig(
        vocab_size=ByteTokenizer().vocab_size, context=16, num_heads=4, depth=2, mixer=mixer, **SMALL
    )
    writer = Writer(drawn(build(config)), ByteTokenizer())
    text = "The mixer is the only place where tokens see each other. " * 3
    whole = [writer.evaluate(text, batch_size=batch_size).metrics() for batch_size in (1, 5, 64)]
    assert whole[1] == pytest.approx(whole[0], rel=1e-6)
    assert whole[2] == pytest.approx(whole[0], rel=1e-6)
    prompts = ["The", "a longer one"]
    assert writer(prompts, max_new_tokens=4) == [writer(prompt, max_new_tokens=4) for prompt in prompts]


def loaded(number: int, side: int) -> LoadedImage:
    return LoadedImage(str(number), (side, side), torch.full((1, side, 1), float(number)), None)


def test_answers_come_in_the_order_asked_and_few_images_wait():
    sides = [3, 5, 3, 7, 3, 3, *[5] * 9, 11, *[3] * 20]
    waiting, most, batches = 0, 0, []

    def images() -> Iterator[LoadedImage | BadImage]:
        nonlocal waiting, most
        for number, side in enumerate(sides):
            waiting += 1
            most = max(most, waiting)
            yield BadImage(str(number), "is broken") if number == 4 else loaded(number, side)

    def answer(batch: list[LoadedImage]) -> list[int]:
        batches.append([int(one.name) for one in batch])
        assert len({one.size for one in batch}) == 1
        return batches[-1]

    found = []
    for one in answers_in_order(images(), 2, answer):
        waiting -= 1
        found.append(4 if isinstance(one, BadImage) else one)
    assert found == list(range(len(sides)))
    assert most <= WINDOW * 2
    assert sorted(number for batch in batches for number in batch) == [n for n in found if n != 4]
    assert batches[0] == [0, 2]
    assert max(map(len, batches)) == 2
