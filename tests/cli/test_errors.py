"""Bad input, by the command line: one line that says what, where and what is allowed; and nothing lost."""

import json
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
from pathlib import Path

import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from regard.training import Run


@pytest.fixture
def noise(tmp_path):
    """noise(folder, number) -> a folder with that many pictures of noise."""

    def make(folder: Path, number: int) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        for index in range(number):
            Image.effect_noise((32, 32), 90).save(folder / f"{index:02}.png")
        return folder

    return make


@pytest.fixture
def train(regard, tiny, tmp_path):
    """train(*settings, data=...) -> what `regard train vit-digits` tells; no run folder may be left behind."""

    def start(*settings: str, recipe: object = "vit-digits", data: str = "digits"):
        told = regard("train", recipe, "--data", data, "--out", tmp_path / "run", *tiny(*settings))
        assert not (tmp_path / "run").exists()
        return told

    return start


@pytest.mark.parametrize(
    ("setting", "parts"),
    [
        ("train.learning_rat=1", ["--set: unknown key 'train.learning_rat'", "train.lr"]),
        ("train.warmupp=1", ["'train.warmupp'; did you mean 'train.warmup'?", "train.clip_grad"]),
        ("model.mixr=local", ["'model.mixr'; did you mean 'model.mixer'?", "model.depth"]),
        ("train.lr=-1", ["--set: train.lr", "greater than 0", "-1"]),
        ("train.precision=fp8", ["train.precision", "'fp32' or 'bf16'", "'fp8'"]),
        ("model.mixer=atention", ["unknown mixer 'atention'; did you mean 'attention'?", "performer"]),
        ("model.name=vit_bse_patch16_224", ["'vit_bse_patch16_224'; did you mean 'vit_base_patch16_224'?"]),
        ("model.num_heads=3", ["embed_dim 16", "num_heads 3"]),
        ("model.patch_size=3", ["8", "3"]),
        ("model.in_chans=2", ["channels", "2", "1 (grey) or 3 (RGB)"]),
        ("data.mean=[0.1,0.2]", ["mean", "1 channels"]),
        ("train.accumulate=3", ["batch_size 64", "3 equal micro-batches"]),
        ("train.lr", ["--set train.lr", "KEY=VALUE"]),
    ],
)
def test_a_bad_setting(train, setting, parts):
    train(setting).fails(*parts)


def test_a_bad_recipe_file(train, tmp_path):
    recipe = tmp_path / "mine.toml"
    recipe.write_text('[model]\nname = "vit_pico_patch2_8"\n[train]\nepochs = 1\nepoch = 2\n', encoding="utf-8")
    train(recipe=recipe).fails("mine.toml: unknown key 'train.epoch'; did you mean 'train.epochs'?", "train.lr")
    train(recipe=tmp_path / "none.toml").fails(tmp_path / "none.toml", "No such file")
    train(recipe="vit-digts").fails("unknown recipe 'vit-digts'; did you mean 'vit-digits'?", "small-images")


@pytest.mark.parametrize(
    ("data", "parts"),
    [
        ("digit", ["'digit'; did you mean 'digits'?", "torchvision"]),
        ("folder:cat", ["folder:cat: no such folder"]),
        ("folder:", ["'folder'", "PATH"]),
        ("digits:x", ["'digits' takes nothing"]),
        ("torchvision:CIFAR", ["torchvision:CIFAR: unknown", "did you mean 'CIFAR10'?"]),
        ("torchvision:cat", ["torchvision:cat: unknown"]),
    ],
)
def test_a_bad_address(train, data, parts):
    train(data=data).fails(*parts)


def test_names_in_a_message_stand_as_they_are(regard, tmp_path):
    regard("evaluate", tmp_path / "[red]a[/red]:cat:").fails(tmp_path / "[red]a[/red]:cat:")


def test_folders_without_classes(train, noise, tmp_path):
    noise(tmp_path / "one" / "cat", 3)
    (tmp_path / "none").mkdir()
    noise(tmp_path / "loose", 2)
    told = train(data=f"folder:{tmp_path / 'one'}")
    told.fails(f"folder:{tmp_path / 'one'}", "two classes are needed", "one folder, 'cat'", "PATH/CLASS/image.jpg")
    train(data=f"folder:{tmp_path / 'none'}").fails("two classes are needed", "no folder and 0 images")
    train(data=f"folder:{tmp_path / 'loose'}").fails("two classes are needed", "no folder and 2 images")
    (tmp_path / "one" / "dog").mkdir()
    train(data=f"folder:{tmp_path / 'one'}").fails("a class without images", "dog")
    train(data=f"folder:{tmp_path / 'loose' / '00.png'}").fails("is a file", "PATH/CLASS")


def test_an_image_that_is_none_stops_or_is_skipped(regard, tiny, train, noise, tmp_path):
    for label in ("cat", "dog"):
        noise(tmp_path / "set" / label, 12)
    (tmp_path / "set" / "cat" / "05.png").write_bytes(b"hello")
    data = f"folder:{tmp_path / 'set'}"
    train(data=data).fails(tmp_path / "set/cat/05.png", "not an image")
    more = tiny("data.on_bad_image=skip", "train.batch_size=8")
    told = regard("train", "vit-digits", "--data", data, "--out", tmp_path / "skipped", *more)
    assert told.status == 0, told.err
    assert "skipped 1 images that could not be read" in told.err
    assert Run(tmp_path / "skipped").summary()["skipped_images"] == 1


def test_an_image_cut_short_stops_with_its_name_and_resumes_once_it_is_whole(regard, tiny, noise, tmp_path):
    for label in ("cat", "dog"):
        noise(tmp_path / "set" / label, 12)
    files = sorted((tmp_path / "set").rglob("*.png"))
    whole = {file: file.read_bytes() for file in files}
    for file in files[::2]:
        file.write_bytes(whole[file][:300])
    more = tiny("train.batch_size=8", "data.mean=[0.5]", "data.std=[0.25]")
    out = ["--data", f"folder:{tmp_path / 'set'}", "--out", tmp_path / "run"]
    told = regard("train", "vit-digits", *out, *more)
    assert told.status == 1
    named = told.err.splitlines()[-1]
    assert named.startswith(f"error: {tmp_path / 'set'}/")
    assert "Traceback" not in told.err
    for file, content in whole.items():
        file.write_bytes(content)
    assert regard("train", "--resume", tmp_path / "run").status == 0


def test_a_run_folder_that_is_there(regard, tiny, run):
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    told = regard("train", "vit-digits", "--out", run, *tiny())
    told.fails(f"{run}: exists already", f"`regard train --resume {run}`", "--out")
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_run_folder_that_cannot_be_made(regard, tiny, tmp_path):
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    regard("train", "vit-digits", "--out", tmp_path / "file" / "run", *tiny()).fails(tmp_path / "file", "directory")
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize("command", ["evaluate", "predict", "explain", "--resume"])
def test_a_folder_that_is_no_run(regard, images, tmp_path, command):
    for path, told in ((tmp_path, "holds no run (there is no recipe.toml)"), (tmp_path / "no", "is not a folder")):
        files = images[:1] if command in ("predict", "explain") else []
        said = regard(*(["train"] if command == "--resume" else []), command, path, *files)
        said.fails(f"{path}: {told}", "regard train RECIPE --out RUN")


@pytest.fixture
def broken(run, tmp_path):
    """A copy of a run, to be damaged."""
    return Path(shutil.copytree(run, tmp_path / "broken"))


@pytest.mark.parametrize("size", [0, 4, 3000])
def test_a_checkpoint_cut_short(regard, broken, images, size):
    file = broken / "model.safetensors"
    file.write_bytes(file.read_bytes()[:size])
    regard("evaluate", broken).fails(f"{file}: is cut short or not a safetensors file")
    regard("predict", broken, *images).fails(f"{file}: is cut short")
    assert regard("predict", broken, *images, "--weights", "best").status == 0


def test_a_checkpoint_of_another_model(regard, broken, images):
    file = broken / "model.safetensors"
    tensors = load_file(file)
    tensors["head.scale"] = tensors.pop("head.bias")
    tensors["norm.weight"] = tensors["norm.weight"][:5].contiguous()
    save_file(tensors, file)
    regard("predict", broken, *images).fails(
        f"{file}: does not match this model",
        "1 missing from the file: head.bias",
        "1 not in the model: head.scale",
        "1 of another shape (file, model): norm.weight (5,) (16,)",
    )


def test_a_run_without_weights_or_metadata(regard, broken, images):
    (broken / "model.safetensors").unlink()
    regard("predict", broken, *images).fails(f"{broken / 'model.safetensors'}: is missing")
    (broken / "metadata.json").write_text('{"model": ', encoding="utf-8")
    regard("predict", broken, *images).fails(f"{broken / 'metadata.json'}: is not JSON")
    (broken / "metadata.json").write_text('{"model": {}}', encoding="utf-8")
    regard("predict", broken, *images).fails(f"{broken / 'metadata.json'}: lacks 'name'")
    (broken / "metadata.json").unlink()
    regard("predict", broken, *images).fails(f"{broken / 'metadata.json'}: is missing")


def test_a_state_cut_short(regard, broken):
    (broken / "state/step-6/optimizer.bin").write_bytes(b"PK")
    weights = (broken / "model.safetensors").read_bytes()
    regard("train", "--resume", broken).fails(broken / "state/step-6", "cut short")
    assert (broken / "model.safetensors").read_bytes() == weights


def test_predict_does_the_good_images_and_names_the_bad(regard, run, images, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for number, file in enumerate(images):
        shutil.copy(file, folder / f"{number}.png")
    (folder / "1.png").write_bytes(b"no image")
    told = regard("predict", run, folder, "--json", "-o", tmp_path / "out")
    assert told.status == 1
    assert told.err == f"error: {folder / '1.png'}: not an image, or of a format that is not read\n"
    found = json.loads(told.out)
    assert [row["file"] for row in found] == [str(folder / "0.png"), str(folder / "2.png")]
    assert json.loads((tmp_path / "out" / "predictions.json").read_text(encoding="utf-8")) == found

    told = regard("predict", run, folder / "1.png", tmp_path / "none.png", "--csv")
    assert told.status == 1
    assert told.out == "file,class,probability\n"
    assert len(told.err.splitlines()) == 2
    assert f"{tmp_path / 'none.png'}: No such file" in told.err


def test_nothing_to_tell_is_no_empty_table(regard, run, tmp_path):
    told = regard("predict", run, tmp_path / "none.png")
    assert (told.status, told.out) == (1, "")
    assert told.err == f"error: {tmp_path / 'none.png'}: No such file or directory\n"


def test_predict_on_a_folder_without_images(regard, run, tmp_path):
    regard("predict", run, tmp_path).fails(f"{tmp_path}: holds no image", ".png")


def test_one_of_json_and_csv(regard, run, images):
    regard("predict", run, *images, "--json", "--csv").fails("choose one of --json and --csv")


def test_evaluate_on_a_data_set_with_other_classes(regard, run, noise, tmp_path):
    for label in ("1", "cat", "dog"):
        noise(tmp_path / "set" / label, 3)
    regard("evaluate", run, "--data", f"folder:{tmp_path / 'set'}").fails("does not know: cat, dog", "it knows: 0, 1")
    regard("evaluate", run, "--data", "folder:nowhere").fails("folder:nowhere: no such folder")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--layer", 3], ["layer 3", "blocks 0 to 0"]),
        (["--layer", -2], ["layer -2", "blocks 0 to 0"]),
        (["--token", "9,9"], ["(9, 9)", "4 × 4"]),
        (["--token", "first"], ["'first'", "ROW,COLUMN"]),
        (["--token", "class"], ["no class token", "ROW,COLUMN"]),
    ],
)
def test_explain_what_is_not_there(regard, run, images, tmp_path, arguments, parts):
    regard("explain", run, images[0], "-o", tmp_path / "out", *arguments).fails(*parts)
    assert not (tmp_path / "out").exists()


def test_explain_of_what_is_no_image(regard, run, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no image")
    regard("explain", run, tmp_path / "bad.png", "-o", tmp_path / "out").fails(tmp_path / "bad.png", "not an image")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--mixers", "local,atention"], ["unknown mixer 'atention'; did you mean 'attention'?"]),
        (["--mixers", "local,local"], ["each mixer once", "local, local"]),
        (["--mixers", ","], ["at least one", "none"]),
        (["--seeds", 0], ["seeds must be at least 1, got 0"]),
        (["--recipe", "vit-digts"], ["did you mean 'vit-digits'?"]),
        (["--data", "digit"], ["did you mean 'digits'?"]),
        (["--set", "model.num_heads=3"], ["num_heads 3"]),
        (["--set", "train.lr=0"], ["train.lr"]),
    ],
)
def test_compare_what_cannot_be_compared(regard, tmp_path, arguments, parts):
    regard("compare", "--out", tmp_path / "out", *arguments).fails(*parts, status=2)
    assert not (tmp_path / "out").exists()


def test_compare_into_a_folder_that_is_there(regard, run):
    before = sorted(run.rglob("*"))
    regard("compare", "--out", run).fails(f"{run}: exists already", "--out", status=2)
    assert sorted(run.rglob("*")) == before


def test_a_set_of_torchvision_without_a_network(train, monkeypatch, tmp_path):
    def refuse(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    told = train(f"data.root={tmp_path / 'sets'}", data="torchvision:CIFAR10")
    told.fails("torchvision:CIFAR10", tmp_path / "sets", "could not be downloaded", "folder:PATH")


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["trian"], "trian"),
        (["train", "vit-digits", "--ouut", "x"], "--ouut"),
        (["predict"], "RUN"),
        (["predict", "run", "x.png", "--top", "0"], "--top"),
        (["explain", "run", "x.png", "--kind", "map"], "--kind"),
        (["evaluate", "run", "--weights", "worst"], "--weights"),
        (["data", "chek", "digits"], "chek"),
        (["data", "make", "digits", "x", "--size", "0"], "--size"),
    ],
)
def test_a_wrong_use_is_status_2(regard, arguments, part):
    told = regard(*arguments)
    assert told.status == 2
    assert part in told.err
    assert "Usage: " in told.err
    assert "Traceback" not in told.err


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ([], ["train: name a recipe", "--resume RUN"]),
        (["vit-digits", "--resume", "x"], ["train: name a recipe", "--resume RUN"]),
        (["--resume", "x", "--out", "y"], ["--resume goes on in the run's own folder", "--out"]),
        (["--resume", "x", "--set", "seed=1"], ["x: is not a folder"]),
    ],
)
def test_train_needs_a_recipe_or_a_run(regard, arguments, parts):
    regard("train", *arguments).fails(*parts)


def test_data_make_and_check_of_what_is_not_there(regard, digits_folder, tmp_path):
    regard("data", "make", "digts", tmp_path / "x").fails("'digts'; did you mean 'digits'?")
    regard("data", "make", "digits", digits_folder).fails(f"{digits_folder}: exists already")
    regard("data", "check", "digit").fails("'digit'; did you mean 'digits'?")
    regard("data", "check", f"{tmp_path}").fails("is empty, which is nothing to train on")
    regard("data", "check", f"coco:{tmp_path}").fails("has no annotations/instances_train.json")
    assert regard("data", "check", f"voc:{tmp_path}").out == ""


@pytest.mark.slow
def test_the_real_command_shows_no_traceback(process, tmp_path):
    told = process("train", "vit-digits", "--out", tmp_path / "run", "--set", "train.lr=fast")
    assert told.returncode == 1
    assert told.stdout == ""
    assert len(told.stderr.splitlines()) == 1
    assert told.stderr.startswith("error: --set: train.lr: ")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_run_that_diverges_tells_by_the_real_command(process, tiny, tmp_path):
    more = tiny("train.lr=1e30", "train.clip_grad=0", "train.warmup=0", "train.save_every_steps=1")
    told = process("train", "vit-digits", "--out", tmp_path / "run", *more)
    assert told.returncode == 1
    line = told.stderr.splitlines()[-1]
    assert line.startswith("error: step ")
    assert "digits[" in line
    assert "Traceback" not in told.stderr
    latest = Run(tmp_path / "run").path / "state" / "latest"
    if latest.exists():
        assert f"the last good checkpoint is {latest.parent / latest.read_text(encoding='utf-8').strip()}" in line


@pytest.mark.slow
def test_interrupted_from_the_keyboard(tiny, tmp_path):
    """What the process says goes to a file, and its steps end one day: nothing here can wait for ever."""
    command = [sys.executable, "-m", "regard", "train", "vit-digits", "--out", str(tmp_path / "run")]
    settings = tiny("train.epochs=100000", "train.max_steps=20000", "train.save_every_steps=5")
    with (
        (tmp_path / "said").open("w", encoding="utf-8") as said,
        subprocess.Popen([*command, *settings], stderr=said) as process,
    ):
        try:
            while not (tmp_path / "run" / "state" / "latest").exists():
                assert process.poll() is None
                time.sleep(0.01)
            process.send_signal(signal.SIGINT)
            process.wait()
        finally:
            process.kill()
    told = (tmp_path / "said").read_text(encoding="utf-8")
    assert process.returncode == 130
    assert told.splitlines()[-1] == "error: interrupted; `regard train --resume RUN` goes on from a run's last state"
    assert "Traceback" not in told


@pytest.mark.parametrize("command", ["train", "compare", "evaluate", "predict", "explain", "generate"])
def test_a_device_that_is_not_there(regard, run, images, tmp_path, command):
    arguments = {
        "train": ["vit-digits", "--out", tmp_path / "new"],
        "compare": ["--mixers", "none", "--out", tmp_path / "new"],
        "evaluate": [run],
        "predict": [run, images[0]],
        "explain": [run, images[0], "-o", tmp_path / "new"],
        "generate": [run, "--prompt", "a"],
    }[command]
    status = 2 if command == "compare" else 1
    regard(command, *arguments, "--device", "cuda:63").fails("device 'cuda:63': PyTorch has", "here", status=status)
    regard(command, *arguments, "--device", "gpu").fails(
        "unknown device 'gpu'; did you mean 'cuda'?", "cpu", status=status
    )
    assert not (tmp_path / "new").exists()


def test_a_misspelt_command_or_option(process):
    told = process("trian")
    assert told.returncode == 2
    assert "No such command 'trian'. Did you mean 'train', 'pretrain'?" in told.stderr
    told = process("train", "--dta", "digits")
    assert told.returncode == 2
    assert "No such option: --dta (Possible options: --data" in told.stderr
