"""Features of a frozen model: what is computed, how often, and in which numbers."""

import multiprocessing
import os
import time

import pytest
import torch
from torch import nn

from regard.data import BadImage
from regard.errors import RegardError
from regard.models import ViT, configure, create_backbone
from regard.tasks.features import extract
from regard.tasks.features.extract import FrozenFeatures, Job, reserve, weights_hash
from regard.tasks.features.maps import frozen_maps, frozen_means
from regard.tasks.features.store import FeatureStore

FORK = multiprocessing.get_context("fork") if hasattr(os, "fork") else None


@pytest.fixture
def store(tmp_path):
    return FeatureStore(tmp_path / "store")


def bad_job(name="broken.jpg"):
    def prepare():
        raise BadImage(name, "is cut short")

    return Job("0" * 32, "", name, prepare)


def test_maps_are_those_of_the_module_in_evaluation_whatever_the_batch(module, store, make_jobs, make_frozen):
    jobs = make_jobs((8, 12), (8, 12), (12, 8), (8, 12), (4, 20))
    module.train()
    frozen = make_frozen(module, store)
    assert frozen.fill(jobs) == []
    assert module.dropout.training, "it is as it was"
    shapes = [shape for shape in module.seen if shape[0] > 1]
    assert shapes == [(3, 3, 8, 12)], "images of one size are computed together"
    module.eval()
    for job in jobs:
        torch.testing.assert_close(frozen.load(job), module(job.prepare()[None])[0].detach(), rtol=0, atol=1e-6)
        assert frozen.load(job).is_leaf
        assert not frozen.load(job).is_inference(), "a head can learn from it"


def test_nothing_is_computed_twice(module, store, make_jobs, make_frozen):
    jobs = make_jobs((8, 8), (8, 8))
    frozen = make_frozen(module, store)
    frozen.fill([*jobs, jobs[0]])
    seen = module.images
    assert seen == 3, "two images, and the black one"
    frozen.fill(jobs)
    make_frozen(module, FeatureStore(store.folder)).fill(jobs)
    assert module.images == seen


@pytest.mark.parametrize(
    "change", ["file", "view", "weights", "preprocessing", "dtype", "precision"], ids=lambda change: f"another {change}"
)
def test_what_was_made_of_something_else_is_not_taken(module, store, make_jobs, make_frozen, change):
    (job,) = make_jobs((8, 8))
    before = make_frozen(module, store)
    before.fill([job])
    old = before.load(job)
    options = {
        "preprocessing": {"preprocessing": {"size": 9}},
        "dtype": {"dtype": "fp16"},
        "precision": {"precision": "bf16"},
    }.get(change, {})
    if change == "file":  # of the same name
        (job,) = make_jobs((8, 8), seed=1)
    elif change == "view":
        (job,) = make_jobs((8, 8), view="flip")
    elif change == "weights":
        nn.init.normal_(module.conv.weight)
    seen = module.images
    after = make_frozen(module, store, **options)
    after.fill([job])
    assert module.images == seen + 2
    module.eval()
    torch.testing.assert_close(after.load(job).float(), module(job.prepare()[None])[0].detach(), rtol=0.02, atol=0.02)
    if change in ("file", "weights"):
        assert (after.load(job) - old).abs().max() > 0.1


def test_an_entry_that_is_gone_is_computed_again(module, store, make_jobs, make_frozen):
    jobs = make_jobs((8, 8), (8, 8))
    frozen = make_frozen(module, store)
    frozen.fill(jobs)
    kept = frozen.load(jobs[0])
    for file in store.folder.rglob("*.safetensors"):
        file.unlink()
    torch.testing.assert_close(frozen.load(jobs[0]), kept, rtol=0, atol=1e-6)
    assert store.has(frozen.key(jobs[0]))


@pytest.mark.parametrize("stored", [True, False])
def test_one_image_and_no_store(module, store, make_jobs, make_frozen, stored):
    (job,) = make_jobs((8, 8))
    frozen = make_frozen(module, store if stored else None)
    frozen.fill([job])
    seen = module.images
    assert frozen.load(job).shape == (3, 2, 2)
    assert module.images == seen
    assert frozen.fill([]) == []


def test_unreadable_images_are_named_or_stop(module, store, make_jobs, make_frozen):
    frozen = make_frozen(module, store)
    jobs = [bad_job(), *make_jobs((8, 8))]
    assert frozen.fill(jobs, on_bad_image="skip") == ["broken.jpg: is cut short"]
    assert frozen.load(jobs[1]).shape == (3, 2, 2)
    with pytest.raises(BadImage, match=r"broken\.jpg: is cut short"):
        frozen.fill(jobs)
    assert frozen.fill([bad_job("a"), bad_job("a")], on_bad_image="skip") == ["a: is cut short"]
    with pytest.raises(BadImage):
        frozen.load(bad_job())


def test_numbers_that_are_not_finite_are_an_error(module, make_jobs, make_frozen):
    (job,) = make_jobs((8, 8))
    module.conv.bias.data[0] = 1e6
    with pytest.raises(RegardError, match=r"image 0: its features are too large for fp16; set features\.dtype to fp32"):
        make_frozen(module, dtype="fp16").fill([job])
    make_frozen(module, dtype="fp32").fill([job])
    module.conv.bias.data[0] = float("nan")
    with pytest.raises(RegardError, match="image 0: the model answers with numbers that are not finite"):
        make_frozen(module).fill([job])


def test_room_is_looked_for_before_anything_is_computed(module, tmp_path, make_jobs, make_frozen):
    jobs = make_jobs(*[(32, 32)] * 20)
    store = FeatureStore(tmp_path / "store", max_gb=10 * 2**-20)
    frozen, exact = make_frozen(module, store, dtype="fp16"), make_frozen(module, store)
    with pytest.raises(RegardError, match=r"needs .* MB .*features\.max_gb to .*features\.views.*features\.folder"):
        frozen.fill(jobs)
    assert module.images == 1, "the black one"
    frozen.fill(jobs[:10])
    with pytest.raises(RegardError, match=r"features\.max_gb"):
        reserve([(frozen, jobs[:10]), (exact, jobs[10:20])])
    assert all(store.has(frozen.key(job)) for job in jobs[:10])


def test_progress_is_shown_with_images_per_second(module, store, make_jobs, make_frozen):
    class Shown:
        def __init__(self):
            self.lines = []

        def __enter__(self):
            return self

        def __exit__(self, *raised):
            self.lines.append("end")

        def update(self, fraction, text):
            self.lines.append((fraction, text))

    shown = Shown()
    make_frozen(module, store).fill(
        [*make_jobs((8, 8), (8, 8)), bad_job()], "views", on_bad_image="skip", progress=shown
    )
    assert shown.lines[-1] == "end"
    fraction, text = shown.lines[-2]
    assert fraction == 1
    assert text.startswith("views: 3 of 3, ")
    assert text.endswith(" images/s")


def test_batches_are_bounded(module, monkeypatch, make_jobs, make_frozen):
    monkeypatch.setattr(extract, "PIXELS_ON_CPU", 200)
    frozen = make_frozen(module)
    frozen.fill(make_jobs(*[(8, 8)] * 7, (16, 16), *[(4, 4)] * 3))
    assert sorted(module.seen) == [(1, 3, 8, 8), (1, 3, 16, 16), (3, 3, 4, 4), (3, 3, 8, 8), (3, 3, 8, 8)]


def test_those_that_wait_for_others_of_their_size_are_bounded(monkeypatch):
    images = [(Job("", "", str(n), lambda: None), torch.zeros(1, 1 + n % 5, 10)) for n in range(40)]
    batches = list(extract._of_equal_size(iter(images), 100))
    assert sorted(int(job.name) for batch in batches for job, _ in batch) == list(range(40))
    assert all(len({image.shape for _, image in batch}) == 1 for batch in batches)
    assert max(sum(image.numel() for _, image in batch) for batch in batches) <= 100


def relative(found, wanted):
    return ((found.float() - wanted.float()).norm() / wanted.float().norm()).item()


def test_bf16_is_within_two_hundredths_of_fp32(store, make_jobs):
    torch.manual_seed(0)
    vit = ViT(configure("vit_tiny_patch16_224", {"img_size": 32, "depth": 6, "num_classes": 0}))
    jobs = make_jobs((32, 32), (32, 48))
    options = {"weights": weights_hash(vit), "preprocessing": {}, "store": store}
    found = {
        (dtype, precision): FrozenFeatures(vit, vit, dtype=dtype, precision=precision, **options)
        for dtype in ("fp16", "fp32")
        for precision in ("fp32", "bf16")
    }
    for frozen in found.values():
        frozen.fill(jobs)
    for job in jobs:
        exact = vit.eval()(job.prepare()[None])[0]
        assert relative(found["fp32", "fp32"].load(job), exact) < 1e-6
        assert relative(found["fp16", "fp32"].load(job), exact) < 1e-3
        assert 1e-4 < relative(found["fp32", "bf16"].load(job), exact) < 0.02
        assert relative(found["fp16", "bf16"].load(job), exact) < 0.02
        assert found["fp16", "bf16"].load(job).dtype == torch.float16


@pytest.mark.parametrize("name", ["resnet18_narrow", "dinov2_vits14"])
def test_every_map_of_a_backbone(store, make_jobs, name):
    torch.manual_seed(0)
    strides = {"reductions": (8, 16, 32)} if name == "resnet18_narrow" else {}
    backbone = create_backbone(name, **strides).eval()
    jobs = make_jobs((64, 96), (64, 96), (96, 64))
    frozen = frozen_maps(backbone, {"shortest": 64}, dtype="fp32", precision="fp32", store=store)
    means = frozen_means(backbone, {"shortest": 64}, store=store)
    frozen.fill(jobs)
    means.fill(jobs)
    assert frozen.weights == means.weights
    assert frozen.key(jobs[0]) != means.key(jobs[0])
    for job in jobs:
        with torch.no_grad():
            wanted = [level[0] for level in backbone.every_level(job.prepare()[None])]
        found = frozen.levels(job)
        assert len(found) == len(wanted) == max(len(strides.get("reductions", ())), 1)
        for a, b in zip(found, wanted, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-4)
        torch.testing.assert_close(means.load(job), wanted[-1].mean((1, 2)), rtol=0, atol=1e-4)


def test_a_hash_of_weights_depends_on_each_and_on_what_they_are_for(module):
    before = weights_hash(module)
    assert weights_hash(module, {"stride": 4}) != before
    frozen_part = weights_hash(module, without=("conv.bias",))
    module.conv.bias.data[0] += 1e-7
    assert weights_hash(module) != before
    assert weights_hash(module, without=("conv.bias",)) == frozen_part


@pytest.mark.slow
@pytest.mark.skipif(FORK is None, reason="processes are forked")
@pytest.mark.parametrize("fails", [False, True])
def test_each_process_computes_its_shard(module, tmp_path, make_jobs, make_frozen, fails):
    def work(rank, results):
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{tmp_path / 'meeting'}", rank=rank, world_size=2
        )
        jobs = make_jobs(*[(8, 8)] * 5)
        if fails:
            jobs.insert(1, bad_job())  # of the second process
        frozen = make_frozen(module, FeatureStore(tmp_path / "store"))
        time.sleep(rank)  # the first must not write before the second has looked: their shards would differ
        try:
            frozen.fill(jobs)
        except BadImage as error:
            results.put(str(error))
        else:
            before = module.images
            shapes = [] if fails else [tuple(frozen.load(job).shape) for job in jobs]
            results.put((before, shapes, module.images))
        torch.distributed.destroy_process_group()

    results = FORK.Queue()
    both = [FORK.Process(target=work, args=(rank, results)) for rank in range(2)]
    for process in both:
        process.start()
    found = sorted(results.get() for _ in both)
    for process in both:
        process.join()
    if fails:
        assert found == ["broken.jpg: is cut short"] * 2
    else:
        shapes = [(3, 2, 2)] * 5
        assert found == [(3, shapes, 3), (4, shapes, 4)], "two and three images, each with the black one"
