"""The classification task: what it makes of a recipe's data, model and loss."""

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from regard.data import Batch
from regard.errors import RegardError
from regard.recipes import load_recipe
from regard.tasks import TASKS, Task, create_task


@pytest.fixture
def task():
    def make(*settings: str):
        return create_task(load_recipe("vit-digits", ["model.depth=1", *settings]))

    return make


class Fixed(nn.Module):
    """Logits that depend on the images by one number."""

    def forward(self, images):
        return torch.arange(10.0) * images.mean((1, 2, 3), keepdim=True)[:, :, 0, 0]


@pytest.fixture
def batch():
    images = torch.arange(4.0)[:, None, None, None].expand(-1, 1, 8, 8).contiguous()
    return Batch(images, torch.tensor([1, 3, 9, 0]), list("abcd"), [])


def test_every_task_is_what_the_loop_asks_for(task):
    assert TASKS["classification"] is type(task())
    assert isinstance(task(), Task)
    assert (task().unit, task().main_metric, task().larger_is_better) == ("images", "accuracy", True)


def test_data_and_model_follow_the_recipe(task):
    found = task("data.val_fraction=0.5", "data.mean=[0.25]", "data.interpolation=bicubic", "data.crop_fraction=0.9")
    assert len(found.data.train) + len(found.data.val) == 1797
    assert len(found.data.val) == 899
    pre = found.preprocessing
    assert (pre.img_size, pre.channels, pre.interpolation, pre.crop_fraction) == ((8, 8), 1, "bicubic", 0.9)
    assert pre.mean == (0.25,)
    assert 0.3 < pre.std[0] < 0.5, "measured where the recipe gives none"
    model = found.build_model()
    assert model.head.out_features == 10
    assert not model.gradient_checkpointing
    assert task("train.gradient_checkpointing=true").build_model().gradient_checkpointing
    assert found.flops(model) == model.flops() > 0


def test_another_split_holds_out_other_images(task):
    def held_out(*settings: str) -> set[str]:
        val = task(*settings).data.val
        return {val.name(i) for i in range(len(val))}

    assert held_out() == held_out("seed=4")
    assert held_out() != held_out("data.split_seed=4")


def test_a_batch_counts_by_its_images(task, batch):
    assert task().weight(batch) == 4


def test_the_loss_is_cross_entropy(task, batch):
    logits = Fixed()(batch.images).double()
    log_p = logits.log_softmax(1)
    right = -log_p[range(4), batch.labels].mean()
    torch.testing.assert_close(task().loss(Fixed(), batch).double(), right, rtol=1e-6, atol=0)
    smooth = 0.8 * right + 0.2 * -log_p.mean()
    torch.testing.assert_close(
        task("train.label_smoothing=0.2").loss(Fixed(), batch).double(), smooth, rtol=1e-6, atol=0
    )


def test_mixup_mixes_images_and_labels_alike(task, batch):
    mixing = task("augment.mixup=0.5")
    torch.manual_seed(3)
    found = mixing.loss(Fixed(), batch)
    torch.manual_seed(3)
    images, targets = mixing._mixing(batch.images, batch.labels)
    assert not torch.equal(images, batch.images)
    # Each image is a mixture of it and its neighbour, and its target is the same mixture.
    share = targets[0, 1].item()
    assert 0 < share < 1
    torch.testing.assert_close(images, share * batch.images + (1 - share) * batch.images.roll(1, 0))
    one_hot = F.one_hot(batch.labels, 10).float()
    torch.testing.assert_close(targets, share * one_hot + (1 - share) * one_hot.roll(1, 0))
    torch.testing.assert_close(found, F.cross_entropy(Fixed()(images), targets), rtol=1e-6, atol=0)


def test_with_mixup_and_cutmix_each_batch_gets_one_of_them(task, batch):
    mixing = task("augment.mixup=1", "augment.cutmix=1")._mixing
    kinds = set()
    for seed in range(20):
        torch.manual_seed(seed)
        image = mixing(batch.images, batch.labels)[0][1]
        # Cutmix keeps the values 0 and 1; mixup makes the whole image one value between.
        kinds.add("cutmix" if set(image.unique().tolist()) <= {0.0, 1.0} else "mixup")
    assert kinds == {"mixup", "cutmix"}


def test_evaluation_leaves_the_model_in_its_mode(task):
    found = task()
    model = found.build_model().train()
    shards = [found.evaluate(model, rank=rank, world_size=2) for rank in range(2)]
    assert model.training
    assert sum(len(shard.names) for shard in shards) == len(found.data.val) == 450
    assert found.metrics(shards).keys() == {"accuracy", "top5", "loss"}


def test_an_unknown_mixer_is_named_with_the_nearest(task):
    with pytest.raises(RegardError, match="unknown mixer 'atention'; did you mean 'attention'"):
        task("model.mixer=atention").build_model()
    with pytest.raises(RegardError, match=r"unknown option 'windw'; did you mean 'window'"):
        task("model.mixer=local", "model.mixer_options.local.windw=3").build_model()


@pytest.mark.parametrize("crop_scale", [1.0, 0.4])
def test_a_cache_changes_no_batch(task, tmp_path, crop_scale):
    """Photographs of several sizes, of which the largest are reduced before random crops."""
    draw = torch.Generator().manual_seed(0)
    for number, (height, width) in enumerate([(9, 8), (40, 31), (70, 90), (12, 13)] * 2):
        folder = tmp_path / "ab"[number // 4]
        folder.mkdir(exist_ok=True)
        pixels = torch.randint(256, (height, width), generator=draw, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(folder / f"{number}.png")
    settings = (f"data.address=folder:{tmp_path}", "train.batch_size=4", f"augment.crop_scale={crop_scale}")
    with_cache, without = task(*settings), task(*settings, "data.cache=false")
    ours, theirs = (iter(one.training_loader(one.order(rank=0, world_size=1))) for one in (with_cache, without))
    for _ in range(3):
        a, b = next(ours), next(theirs)
        assert a.names == b.names
        assert torch.equal(a.images, b.images)
    model = with_cache.build_model()
    evaluations = [one.evaluate(model, rank=0, world_size=1) for one in (with_cache, with_cache, without)]
    assert all(torch.equal(one.logits, evaluations[0].logits) for one in evaluations[1:])
