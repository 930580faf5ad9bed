"""A classifier whose head learns on stored features: the same answers as the whole model, which is never run again."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

import regard
from regard.data import InMemoryImages, Preprocessing
from regard.errors import RegardError
from regard.recipes import load_recipe, recipe_text
from regard.tasks import create_task, features_of
from regard.tasks.features.store import FeatureStore
from regard.training import Run, train

FROZEN = (
    *("model.freeze=backbone", "augment.shift=0", "model.depth=1", "model.in_chans=3", "model.img_size=8"),
    *("train.batch_size=8", "train.device=cpu", "data.mean=[0.5, 0.5, 0.5]", "data.std=[0.3, 0.3, 0.3]"),
)


@pytest.fixture
def photos(tmp_path):
    """Forty pictures of two classes, of several sizes."""
    draw = np.random.default_rng(0)
    for number in range(40):
        folder = tmp_path / "photos" / ("cat", "dog")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = draw.integers(0, 256, (8 + number % 5, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path / "photos"


@pytest.fixture
def recipe(tmp_path, photos):
    def make(*settings):
        places = (f"features.folder={tmp_path / 'store'}", f"data.address=folder:{photos}")
        return load_recipe("vit-digits", [*FROZEN, "train.max_steps=6", *places, *settings])

    return make


@pytest.mark.parametrize("pool", ["token", "avg", "token_avg", "distilled"])
def test_the_feature_path_gives_the_answers_of_the_whole_model(recipe, pool):
    more = ["model.num_registers=1"] if pool == "distilled" else []
    task = create_task(
        recipe("model.img_size=[8, 12]", f"model.pool={pool}", "features.dtype=fp32", "features.precision=fp32", *more)
    )
    model = task.build_model().eval()
    for name, parameter in model.named_parameters():
        if name.startswith("head"):
            torch.nn.init.normal_(parameter)
    whole = task.predictor(model).evaluate(task.data.val)
    by_features = task.evaluate(model, rank=0, world_size=1)
    assert_close(by_features.logits, whole.logits, rtol=0, atol=1e-4)
    assert by_features.names == whole.names
    assert torch.equal(by_features.labels, whole.labels)
    shards = [task.evaluate(model, rank=rank, world_size=2) for rank in range(2)]
    assert task.metrics(shards) == pytest.approx(task.metrics([by_features]))
    batch = next(iter(task.training_loader(task.order(rank=0, world_size=1))))
    index = [task.data.train.name(i) for i in range(len(task.data.train))].index(batch.names[5])
    image = task.predictor(model)._transform(task.data.train.read(index))
    wanted = torch.nn.functional.cross_entropy(model(image[None]), batch.labels[5:6])
    batch.images, batch.labels = batch.images[5:6], batch.labels[5:6]
    assert_close(task.loss(model, batch), wanted, rtol=0, atol=1e-4)
    if pool == "distilled":
        assert {n for n, p in model.named_parameters() if p.requires_grad} == {
            f"{head}.{name}" for head in ("head", "head_dist") for name in ("weight", "bias")
        }


def test_an_evaluation_never_runs_the_backbone_again(recipe):
    seen = []
    task = create_task(recipe())
    model = task.build_model()
    model.patch_embed.register_forward_hook(lambda module, given, found: seen.append(len(found)))
    before = task.evaluate(model, rank=0, world_size=1)
    assert sum(seen) >= 40
    number = len(seen)
    torch.nn.init.normal_(model.head.weight)
    after = task.evaluate(model, rank=0, world_size=1)
    next(iter(task.training_loader(task.order(rank=0, world_size=1))))
    assert len(seen) == number
    assert not torch.equal(before.logits, after.logits)
    other = create_task(recipe())
    again = other.build_model()
    again.load_state_dict(model.state_dict())
    again.patch_embed.register_forward_hook(lambda module, given, found: seen.append(len(found)))
    assert torch.equal(other.evaluate(again, rank=0, world_size=1).logits, after.logits)
    assert len(seen) == number, "another run finds them on the disk"


@pytest.mark.slow
def test_a_run_evaluates_as_it_was_evaluated(recipe, tmp_path):
    summary = train(recipe("train.ema_decay=0.5"), tmp_path / "run")
    found = regard.evaluate(tmp_path / "run", device="cpu").metrics()
    assert {name: summary[name] for name in found} == pytest.approx(found, abs=1e-4)
    start = create_task(recipe()).build_model  # the head alone has learned
    torch.manual_seed(0)
    begun, trained = start().state_dict(), regard.load(tmp_path / "run", device="cpu").model.state_dict()
    moved = {name for name, tensor in trained.items() if not torch.equal(tensor, begun[name])}
    assert moved == {"head.weight", "head.bias"}


@pytest.mark.slow
@pytest.mark.parametrize("store", ["kept", "emptied"])
def test_training_on_features_resumes_to_the_bit(recipe, tmp_path, monkeypatch, store):
    from regard.training.metrics_log import MetricsLog

    # An evaluation after each epoch: left open, the clock decides, and with it which weights are the best.
    settings = ("train.max_steps=12", "train.save_every_steps=3", "train.ema_decay=0.9", "train.accumulate=2")
    settings += ("train.evaluate_every=1",)
    train(recipe(*settings), tmp_path / "never")
    write = MetricsLog.write

    def stop(self, kind, at, epoch, **figures):
        if at == 8:
            raise KeyboardInterrupt
        write(self, kind, at, epoch, **figures)

    with monkeypatch.context() as patch:
        patch.setattr(MetricsLog, "write", stop)
        with pytest.raises(KeyboardInterrupt):
            train(recipe(*settings), tmp_path / "run")
    if store == "emptied":
        for file in (tmp_path / "store").rglob("*.safetensors"):
            file.unlink()
    train(Run.open(tmp_path / "run").recipe(), tmp_path / "run", resume=True)
    for name in ("model.safetensors", "best.safetensors"):
        a, b = (torch_state(tmp_path / run / name) for run in ("never", "run"))
        assert a.keys() == b.keys()
        assert all(torch.equal(tensor, b[key]) for key, tensor in a.items())
    assert Run(tmp_path / "never").history() == Run(tmp_path / "run").history()


def torch_state(file):
    from safetensors.torch import load_file

    return load_file(file)


@pytest.mark.slow
def test_the_store_may_move_and_grow_when_a_run_is_resumed(recipe, tmp_path):
    from regard.training import resumed_recipe

    train(recipe(), tmp_path / "run")
    settings = [f"features.folder={tmp_path / 'other'}", "features.max_gb=2", "train.max_steps=8"]
    train(resumed_recipe(Run.open(tmp_path / "run"), settings), tmp_path / "run", resume=True)
    assert Run.open(tmp_path / "run").recipe().features.max_gb == 2
    assert any((tmp_path / "other").rglob("*.safetensors"))
    with pytest.raises(RegardError, match=r"features\.dtype"):
        resumed_recipe(Run.open(tmp_path / "run"), ["features.dtype=fp32"])


def test_a_run_that_cannot_fit_says_so_before_it_begins(recipe, tmp_path):
    with pytest.raises(RegardError, match=r"^features: this run needs .* MB .*set features\.max_gb to"):
        train(recipe("features.max_gb=0.000001"), tmp_path / "run")
    assert not any((tmp_path / "store").rglob("*.safetensors"))


def test_images_that_cannot_be_read_are_left_out_and_counted(recipe, photos, tmp_path):
    for name in ("cat/0.png", "dog/1.png"):
        file = photos / name
        file.write_bytes(file.read_bytes()[:-100])
    summary = train(recipe("data.on_bad_image=skip"), tmp_path / "run")
    assert summary["skipped_images"] == 2
    with pytest.raises(RegardError, match=r"(cat/0|dog/1)\.png: "):
        train(recipe(), tmp_path / "other")
    for file in photos.rglob("*.png"):
        file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(RegardError, match="none of the images can be read"):
        train(recipe("data.on_bad_image=skip"), tmp_path / "third")


def test_a_file_that_changes_has_other_features(recipe, tmp_path):
    task = create_task(recipe())
    model, source = task.build_model(), task.data.train
    store = FeatureStore(tmp_path / "store")
    before, _, names = features_of(model, source, task.preprocessing, store=store)
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(names[1])
    source._cached.clear()
    after, _, _ = features_of(model, source, task.preprocessing, store=store)
    same = [torch.equal(a, b) for a, b in zip(before, after, strict=True)]
    assert same == [number != 1 for number in range(len(names))]


def test_features_of_works_with_and_without_a_store(tmp_path):
    images = torch.randint(256, (5, 3, 8, 8), dtype=torch.uint8)
    source = InMemoryImages(images, (0, 1, 0, 1, 1), "made")
    model = regard.create_model("vit_pico_patch2_8", in_chans=3)
    shape = Preprocessing((8, 8), 3, (0.5,) * 3, (0.5,) * 3, "bilinear", 1.0)
    store = FeatureStore(tmp_path / "store")
    found, labels, names = features_of(model, source, shape, store=store)
    without, _, _ = features_of(model, source, shape)
    assert_close(found, without, rtol=0, atol=1e-6)
    assert labels.tolist() == [0, 1, 0, 1, 1]
    assert names == [f"made[{index}]" for index in range(5)]
    assert len(list(store.folder.rglob("*.safetensors"))) == 5
    with pytest.raises(RegardError, match="must come from a model that classifies, not from a Linear"):
        features_of(torch.nn.Linear(2, 2), source, shape)


def test_the_section_is_written_only_where_it_differs(recipe):
    plain = load_recipe("vit-digits")
    assert "features" not in recipe_text(plain)
    changed = recipe("features.dtype=fp32")
    assert 'dtype = "fp32"' in recipe_text(changed)
    assert type(changed).model_validate(changed.to_dict()).features == changed.features


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (
            ["model.freeze=none", "features.dtype=fp32"],
            "features.folder: features are kept of a frozen backbone",
        ),
        (["features.views=3"], "features.views is 3; of classification it is 1"),
        (["features.max_gb=0"], "features.max_gb"),
        (["features.dtype=fp8"], "features.dtype"),
        (["features.precison=fp32"], "did you mean 'features.precision'"),
    ],
)
def test_what_the_section_does_not_allow(recipe, settings, says):
    with pytest.raises(RegardError, match=says):
        recipe(*settings)


def test_text_has_no_features():
    with pytest.raises(
        RegardError, match=r"features\.dtype is for classification, detection and pretraining; seq2seq has no use"
    ):
        load_recipe("seq2seq-numbers", ["features.dtype=fp32"])


def test_a_detector_without_a_frozen_backbone_has_no_features():
    with pytest.raises(RegardError, match=r"features\.dtype: features are kept of a frozen backbone"):
        load_recipe("detr-small", ["features.dtype=fp32"])
