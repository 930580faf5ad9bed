"""A detector on stored features of its frozen backbone: the same numbers as the whole model, batches, and resuming."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from regard.data import DetectionPreprocessing, DetectionSource, Objects, TrainingOrder, Views, too_small
from regard.errors import RegardError
from regard.losses import DNDETRLoss
from regard.models import DNDETR, DNDETRConfig, create_backbone
from regard.recipes import FeaturesSection, load_recipe
from regard.tasks import DetectionTask
from regard.tasks.detection.frozen import FeatureDetector, FrozenBackbone, Sample, detected, joined
from regard.tasks.detection.predictor import Detector
from regard.training.optim import create_optimizer

SIZES = [(61, 89), (101, 53), (67, 71), (89, 61), (61, 89)]
CONFIGS = {
    "vit": DNDETRConfig(
        num_classes=3, backbone="dinov2_vits14", strides=(7, 14, 28), backbone_blocks=(5, 12), embed_dim=32,
        num_heads=4, depth=0, decoder_depth=2, num_queries=11, num_denoising=8,
    ),
    "cnn": DNDETRConfig(
        num_classes=3, backbone="resnet10t", strides=(8, 16), embed_dim=32, num_heads=4, depth=1, decoder_depth=2,
        num_queries=11, num_denoising=8,
    ),
}  # fmt: skip


class Photographs(DetectionSource):
    """Noise of several sizes, with two objects each."""

    def __init__(self, sizes: Sequence[tuple[int, int]] = SIZES) -> None:
        self.sizes, self.image_ids = list(sizes), list(range(1, len(sizes) + 1))
        generator = torch.Generator().manual_seed(0)
        self.images = [torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8) for size in sizes]
        boxes = [torch.tensor([[3.0, 5.0, w / 2, h / 3], [w / 3, h / 2, w - 2, h - 4]]) for h, w in sizes]
        self.objects = [
            Objects(box, torch.tensor([number % 3, 1]), (box[:, 2:] - box[:, :2]).prod(1), torch.zeros(2).bool())
            for number, box in enumerate(boxes)
        ]

    def read(self, index: int) -> Tensor:
        return self.images[index]

    def name(self, index: int) -> str:
        return f"photographs[{index}]"


def parts(kind: str, folder: Path, *, views: int = 1, **features: object) -> tuple[DNDETR, FrozenBackbone]:
    torch.manual_seed(0)
    model = DNDETR(CONFIGS[kind]).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.startswith("backbone"):
                parameter.add_(0.05 * torch.randn_like(parameter))
    divisor = 14 if kind == "vit" else 16
    pre = DetectionPreprocessing(
        shortest=84, longest=112, channels=3, mean=(0.5,) * 3, std=(0.25,) * 3, divisor=divisor
    )
    options = FeaturesSection(folder=str(folder), views=views, **{"dtype": "fp32", "precision": "fp32", **features})  # type: ignore[arg-type]
    return model, FrozenBackbone(model.backbone, Views(pre, (0.6, 1.8)), options, "stop")


def without_backbone(model: DNDETR) -> DNDETR:
    model.backbone = torch.nn.Identity()  # type: ignore[assignment]
    return model


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_feature_path_predicts_what_the_whole_model_predicts(kind, tmp_path):
    """To 1e-4 in float32, at sizes that are not square."""
    source = Photographs()
    model, frozen = parts(kind, tmp_path)
    frozen.fill(source, [source])
    whole = Detector(model, ("a", "b", "c"), (1, 2, 3), frozen.views.preprocessing)
    wanted = whole.predict(source.images, threshold=0.0, batch_size=1)
    detector = FeatureDetector(without_backbone(model), ("a", "b", "c"), (1, 2, 3), frozen.views.preprocessing)
    detector.frozen = frozen
    found = detector.evaluate(source)
    assert [one.image_size for one in found.found] == SIZES
    for one, other in zip(found.found, wanted, strict=True):
        assert_close(one.scores, other.scores[: len(one)], atol=1e-4, rtol=0)
        assert_close(one.boxes_xyxy, other.boxes_xyxy[: len(one)], atol=1e-4 * max(SIZES[0]), rtol=0)
    again = frozen.whole(model)
    assert isinstance(again, DNDETR)
    assert again.decoder is model.decoder
    assert set(again.state_dict()) == set(DNDETR(CONFIGS[kind]).state_dict())
    assert isinstance(model.backbone, torch.nn.Identity)


def test_training_on_features_is_training_on_images(tmp_path):
    """The loss and its gradients, for whole images of one size that are not mirrored."""
    source = Photographs([(61, 89)] * 3)
    model, frozen = parts("vit", tmp_path)
    frozen.fill(source, [])
    loss_of = DNDETRLoss(3)
    (batch,) = (joined([frozen._sample(frozen._of_training, source, *chosen) for chosen in _jobs(frozen, source)]),)
    model.train()
    model.backbone.eval()
    pixels = [frozen.views.pixels(image, _window(frozen, source, 0), 0, "0" * 32) for image in source.images]
    gradients, losses = [], []
    for make in (
        lambda: model(torch.stack(pixels), None, batch.labels, batch.boxes_cxcywh),
        lambda: detected(model, batch),
    ):
        torch.manual_seed(1)
        model.zero_grad()
        loss = loss_of(make(), batch.labels, batch.boxes_cxcywh).total
        loss.backward()
        losses.append(loss.detach())
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert_close(losses[1], losses[0], rtol=1e-4, atol=0)
    assert set(gradients[0]) == set(gradients[1])
    for name, gradient in gradients[0].items():
        assert_close(gradients[1][name], gradient, rtol=1e-2, atol=1e-3, msg=name)


def _jobs(frozen: FrozenBackbone, source: Photographs) -> list[tuple[object, int, int]]:
    return [(frozen._jobs_of(source, 1)[index][0], index, 0) for index in range(len(source))]


def _window(frozen: FrozenBackbone, source: Photographs, index: int) -> object:
    return frozen.views.window(source.sizes[index], source.objects[index], 0, "0" * 32)


def test_each_image_shows_each_of_its_views_once_in_as_many_epochs(tmp_path, monkeypatch):
    source = Photographs()
    _, frozen = parts("cnn", tmp_path, views=4)
    frozen.fill(source, [])
    monkeypatch.setattr(frozen._of_training, "levels", lambda job: [torch.zeros(2, 3, 4)])
    shown: dict[int, list[str]] = {}
    spied = frozen._sample
    monkeypatch.setattr(frozen, "_sample", lambda *a: shown.setdefault(a[3], []).append(a[2].view) or spied(*a))
    order = TrainingOrder(len(source), len(source), 3)
    batches = frozen.batches(source, order, flip=True)
    for _ in range(8):
        assert len(next(batches)) == 5
    assert {number: sorted(set(views)) for number, views in shown.items()} == {
        number: sorted(frozen.views.name(view) for view in range(4)) for number in range(5)
    }
    assert all(sorted(views[:4]) == sorted(views[4:]) for views in shown.values())
    assert len({tuple(views) for views in shown.values()}) > 1


def test_of_many_images_each_has_fewer_views():
    of_each = FeaturesSection(views=12, max_views=100).views_of_each
    assert [of_each(images) for images in (1, 8, 9, 34, 100, 5000)] == [12, 12, 11, 2, 1, 1]
    assert FeaturesSection(views=12).views_of_each(5000) == 12


def test_in_few_minutes_each_has_fewer_views():
    features = FeaturesSection(views=12, max_views=2400, views_a_minute=240)
    assert [features.within(minutes).views_of_each(160) for minutes in (0.1, 2.5, 4.5, 9, 60)] == [1, 3, 6, 12, 12]
    assert features.within(None) == features
    assert FeaturesSection(views=12).within(3).views_of_each(160) == 12


def test_mirrored_maps_have_mirrored_boxes(tmp_path):
    source = Photographs()
    _, frozen = parts("vit", tmp_path)
    frozen.fill(source, [])
    plain, mirrored = [], []
    for epoch in range(12):
        one, other = (frozen._training_sample(source, epoch, 1, 0, flip) for flip in (False, True))
        assert isinstance(one, Sample)
        assert isinstance(other, Sample)
        if torch.equal(one.maps[0], other.maps[0]):
            assert torch.equal(one.boxes_cxcywh, other.boxes_cxcywh)
            plain.append(epoch)
        else:
            assert torch.equal(one.maps[0].flip(-1), other.maps[0])
            assert_close(other.boxes_cxcywh[:, 0], 1 - one.boxes_cxcywh[:, 0])
            assert torch.equal(other.boxes_cxcywh[:, 1:], one.boxes_cxcywh[:, 1:])
            mirrored.append(epoch)
    assert len(plain) >= 2
    assert len(mirrored) >= 2


def test_maps_of_several_sizes_are_padded_and_what_cannot_be_read_is_left_out():
    def sample(rows: int, columns: int) -> Sample:
        maps = [torch.full((2, rows, columns), 3.0), torch.full((5, rows // 2, columns // 2), 7.0)]
        return Sample(maps, (8 * columns, 8 * rows), torch.tensor([1]), torch.rand(1, 4), 0, (1, 1), "name")

    batch = joined([sample(4, 6), "broken.jpg: why", sample(6, 2)])
    assert [tuple(level.shape) for level in batch.features] == [(2, 2, 6, 6), (2, 5, 3, 3)]
    assert batch.features[0].sum() == 3 * 2 * (24 + 12)
    assert batch.sizes.tolist() == [[48, 32], [16, 48]]
    assert batch.skipped == ["broken.jpg: why"]
    assert len(batch) == 2
    assert len(joined(["broken.jpg: why"])) == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["augment.mosaic=0.5"], "augment.mosaic: with model.freeze features are computed once; flip, scale_jitter"),
        (["train.backbone_lr=1e-4"], "train.backbone_lr: with model.freeze the backbone does not learn"),
        (
            ["model.pretrained_backbone=false"],
            "model.freeze: a frozen backbone needs weights: model.pretrained_backbone or",
        ),
        (["model.learn_blocks=2"], "model.learn_blocks: with model.freeze no block of the backbone learns"),
        (["model.freeze=none"], "features.views: features are kept of a frozen backbone"),
        (["model.name=detr_mini"], "model.freeze is for a DN-DETR; detr_mini is none"),
    ],
)
def test_recipes_that_do_not_fit_together(settings, message):
    with pytest.raises(RegardError, match=message.replace(".", r"\.")):
        load_recipe("detr-photos", settings)


def test_blocks_are_of_a_vit():
    with pytest.raises(RegardError, match=r"model\.learn_blocks is for a backbone that is a ViT; resnet18_narrow is"):
        load_recipe("detr-small", ["model.learn_blocks=2"])


def test_objects_that_are_smaller_than_a_token_are_told_with_a_size_that_would_do():
    source = Photographs([(100, 200)] * 2)
    sides = torch.tensor([[10.0, 12, 15, 40, 60, 70, 80, 90, 90, 95], [20.0] * 10])
    for number, one in enumerate(sides):
        boxes = torch.stack([torch.zeros(10), torch.zeros(10), one, one], dim=1)
        source.objects[number] = Objects(boxes, torch.zeros(10).long(), one**2, torch.zeros(10).bool())
    pre = DetectionPreprocessing(70, 140, 3, (0.0,) * 3, (1.0,) * 3, divisor=14)  # 0.7 of the stored size
    told = too_small(source, pre, 14)
    assert told.startswith("3 of 20 objects are smaller than a token, 14 × 14 pixels of an image of at most 70 × 140")
    assert "--set data.shortest=98 --set data.longest=196" in told  # a tenth have at most 14.7 stored pixels
    larger = DetectionPreprocessing(98, 196, 3, (0.0,) * 3, (1.0,) * 3, divisor=14)
    assert too_small(source, larger, 14) == ""
    assert too_small(Photographs([]), pre, 14) == ""


def test_the_last_blocks_of_a_backbone_learn_and_the_others_do_not():
    small = [
        *("data.first=3", "data.shortest=56", "data.longest=56", "data.validate_on=train", "train.batch_size=3"),
        *("train.device=cpu", "model.embed_dim=32", "model.num_heads=4", "model.pretrained_backbone=false"),
    ]
    task = DetectionTask(load_recipe("detr-photos-all", small))
    model = task.build_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    batch = next(iter(task.training_loader(task.order(rank=0, world_size=1))))
    optimizer = create_optimizer(model, task.recipe.train)
    task.loss(model, batch).backward()
    optimizer.step()
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    blocks = {name.split(".")[3] for name in changed if name.startswith("backbone.body.blocks.")}
    assert blocks == {"10", "11"}
    assert {name for name in changed if name.startswith("backbone.") and "blocks" not in name} == {
        "backbone.body.norm.weight",
        "backbone.body.norm.bias",
    }
    rates = {group["share"] for group in optimizer.param_groups}
    assert rates == {1.0, 2e-5 / 4e-4}
    with pytest.raises(RegardError, match=r"model\.learn_blocks is 13; dinov2_vits14 has 12 blocks"):
        DetectionTask(load_recipe("detr-photos-all", [*small, "model.learn_blocks=13"])).build_model()


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ((13,), r"model\.backbone_blocks is \[13\]; dinov2_vits14 has blocks 1 to 12, each named once, in order"),
        ((6, 6), r"model\.backbone_blocks is \[6, 6\]"),
        ((7, 3), r"model\.backbone_blocks is \[7, 3\]"),
    ],
)
def test_blocks_that_there_are_not(blocks, message):
    with pytest.raises(RegardError, match=message):
        DNDETR(replace(CONFIGS["vit"], backbone_blocks=blocks))
    with pytest.raises(RegardError, match=r"model\.backbone_blocks is for a backbone that is a ViT; resnet10t is none"):
        DNDETR(replace(CONFIGS["cnn"], backbone_blocks=(3,)))


def test_joined_blocks_are_those_that_the_vit_gives():
    torch.manual_seed(0)
    backbone = create_backbone("dinov2_vits14", reductions=(14,), blocks=(3, 12)).eval()
    images = torch.rand(2, 3, 41, 57)
    (found,) = backbone.every_level(images)
    padded = F.pad(images, (0, 13, 0, 1))
    wanted = backbone.body.get_intermediate_layers(padded, [2, 11], reshape=True)
    assert found.shape == (2, 768, 3, 5)
    assert_close(found, torch.cat(wanted, dim=1))
    assert_close(found[:, 384:], create_like(backbone)(images))


def create_like(backbone):
    """The same ViT, whose last block alone is the map."""
    other = create_backbone("dinov2_vits14", reductions=(14,)).eval()
    other.load_state_dict(backbone.state_dict())
    return other
