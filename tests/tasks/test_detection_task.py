"""The task of detection: its parts, its loss, its checks, and what it keeps for prediction."""

import pytest
import torch
from torch.testing import assert_close

from regard.errors import RegardError
from regard.losses import SetPredictionLoss
from regard.models import DETR
from regard.recipes import Recipe, load_recipe
from regard.tasks import DetectionEvaluation, DetectionTask, Detector

SMALL = (
    *("model.embed_dim=32", "model.num_heads=4", "model.depth=1", "model.num_queries=7", "model.dropout=0.0"),
    *("data.shortest=64", "data.longest=64", "train.batch_size=6", "train.max_steps=1"),
)


def task(*settings: str) -> DetectionTask:
    return DetectionTask(load_recipe("detr-digit-scenes", [*SMALL, *settings]))


@pytest.fixture(scope="module")
def plain() -> DetectionTask:
    return task("data.first=13")


def test_the_parts_and_the_model_are_those_that_the_recipe_asks_for(plain):
    assert len(plain.train) == 13
    assert len(plain.val) == 300
    assert plain.config.num_classes == 10
    assert plain.preprocessing.shortest == plain.preprocessing.longest == 64
    assert isinstance(plain.build_model(), DETR)
    same = task("data.first=13", "data.validate_on=train")
    assert [same.val.name(index) for index in range(13)] == [same.train.name(index) for index in range(13)]


def test_what_changes_whole_images_does_so_at_the_size_that_is_looked_at():
    """With room for the most that an image is enlarged by; a training that changes none reads them whole."""
    varied = DetectionTask(
        load_recipe(
            "detr-small", ["data.first=5", "data.shortest=64", "data.longest=80", "augment.scale_jitter=[0.5,1.3]"]
        )
    )
    assert set(varied.train.sizes) == {(84, 84)}  # 64 × 1.3, of scenes of 128
    assert varied.train.read(3).shape == (3, 84, 84)
    batch = next(iter(varied.training_loader(varied.order(rank=0, world_size=1))))
    assert batch.images.shape[2:] == (64, 64)
    assert all(((boxes > 0) & (boxes < 1)).all() for boxes in batch.boxes_cxcywh)
    assert set(task("data.first=5").train.sizes) == {(128, 128)}


def test_the_loss_is_the_set_loss_of_the_batch(plain):
    torch.manual_seed(0)
    model = plain.build_model().eval()
    batch = next(iter(plain.training_loader(plain.order(rank=0, world_size=1))))
    assert plain.weight(batch) == len(batch) == 6
    output = model(batch.images, batch.mask)
    wanted = SetPredictionLoss(10)(*output, batch.labels, batch.boxes_cxcywh).total
    assert_close(plain.loss(model, batch), wanted)


def test_shards_of_an_evaluation_make_the_whole():
    one = task("data.first=7", "data.validate_on=train")
    model = one.build_model()
    model.train()
    whole = one.evaluate(model, rank=0, world_size=1)
    assert model.training
    shards = [one.evaluate(model, rank=rank, world_size=2) for rank in range(2)]
    assert [len(shard) for shard in shards] == [4, 3]
    found, wanted = one.metrics(shards), one.metrics([whole])
    # The loss is divided by what is in a batch, and the shards are batches of other images.
    assert found.pop("loss") == pytest.approx(wanted.pop("loss"), rel=1e-2)
    assert found == pytest.approx(wanted, abs=1e-9)
    assert isinstance(whole, DetectionEvaluation)


def test_digits_are_never_mirrored(plain):
    flipping = task("data.first=13", "augment.flip=true")
    batches = [next(iter(one.training_loader(one.order(rank=0, world_size=1)))) for one in (plain, flipping)]
    assert torch.equal(batches[0].images, batches[1].images)


def test_a_frozen_backbone_without_weights_is_worth_a_word():
    messages = [issue.what for issue in task("model.frozen_norm=true", "data.first=13").check()]
    assert any("model.pretrained_backbone=true" in what for what in messages)
    assert not task("data.first=13").check()


def test_grey_images(plain):
    grey = task("model.in_chans=1", "data.first=5", "train.batch_size=5")
    batch = next(iter(grey.training_loader(grey.order(rank=0, world_size=1))))
    assert batch.images.shape == (5, 1, 64, 64)
    assert grey.loss(grey.build_model(), batch).isfinite()


def test_small_images_need_not_be_enlarged():
    sizes = {}
    for name, shortest, longest in (("small", 192, 256), ("smaller", 100, 110)):
        settings = [f"data.shortest={shortest}", f"data.longest={longest}", "data.enlarge=false", "data.first=5"]
        found = DetectionTask(load_recipe("detr-small", settings)).preprocessing
        sizes[name] = (found.shortest, found.longest)
    assert sizes == {"small": (128, 128), "smaller": (100, 110)}
    enlarged = DetectionTask(load_recipe("detr-small", ["data.enlarge=true", "data.first=5"])).preprocessing
    assert (enlarged.shortest, enlarged.longest) == (192, 256)


def test_metadata_is_enough_for_a_detector(plain):
    metadata = plain.metadata()
    found = Detector.from_metadata(plain.build_model(), metadata, "here")
    assert found.class_names == tuple("0123456789")
    assert found.preprocessing == plain.preprocessing


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("data.address=digits",), "gives images; images with boxes can come from"),
        (("data.train_annotations=x.json",), "are for coco:PATH"),
        (("model.in_chans=2",), "channels is 2"),
    ],
)
def test_data_that_do_not_suit(settings, message):
    with pytest.raises(RegardError, match=message):
        task(*settings)


def test_a_recipe_of_boxes_reads_no_pretrained_weights_by_itself():
    for name in ("detr", "detr-digit-scenes", "detr-overfit"):
        recipe = load_recipe(name)
        assert isinstance(recipe, Recipe)
        assert not recipe.model.pretrained_backbone
        assert recipe.model.weights is None
