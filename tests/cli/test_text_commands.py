"""The commands for runs that read and write text, as they are meant and as they are not."""

import csv
import io
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from regard.data import open_pairs
from regard.recipes import load_recipe
from regard.tasks import Translator, Writer
from regard.training import Run, load_predictor, train

TINY = ["model.embed_dim=16", "model.num_heads=2", "model.depth=1", "train.max_steps=3", "train.batch_size=8"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("text")


@pytest.fixture(scope="module")
def translating(folder) -> Path:
    """A run on numbers in words."""
    settings = [*TINY, "model.decoder_depth=1", "data.val_fraction=0.0002", "train.device=cpu"]
    train(load_recipe("seq2seq-numbers", settings), folder / "translating")
    return folder / "translating"


@pytest.fixture(scope="module")
def writing(folder) -> Path:
    """A run on a poem."""
    (folder / "poem.txt").write_text("".join(f"line {i} of the poem\n" for i in range(30)), encoding="utf-8")
    settings = [*TINY, "model.context=24", "train.device=cpu"]
    train(load_recipe("next-token", settings, address=f"text:{folder / 'poem.txt'}"), folder / "writing")
    return folder / "writing"


@pytest.fixture(scope="module")
def answers(translating):
    """answers(*texts) -> what the run writes, by the library."""
    translator = load_predictor(translating)
    assert isinstance(translator, Translator)
    return lambda *texts: [answer.text for answer in translator.predict(list(texts))]


def test_predict_prints_the_answer_alone(regard, translating, answers):
    told = regard("predict", translating, "--text", "vijfhonderdtwaalf")
    assert (told.status, told.err) == (0, "")
    assert told.out == answers("vijfhonderdtwaalf")[0] + "\n"
    told = regard("predict", translating, "--text", "twaalf", "--text", "één", "--beam", 3)
    assert told.status == 0


def test_predict_prints_json_or_csv(regard, translating, answers, tmp_path):
    texts = ("twaalf", 'acht, "zo"')
    arguments = ["predict", translating, *(word for text in texts for word in ("--text", text))]
    found = json.loads(regard(*arguments, "--json", "-o", tmp_path / "out").out)
    assert [(row["text"], row["prediction"]) for row in found] == list(zip(texts, answers(*texts), strict=True))
    assert all(row["log_probability"] < 0 for row in found)
    text = regard(*arguments, "--csv").out
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [{**row, "log_probability": float(row["log_probability"])} for row in rows] == found
    assert json.loads((tmp_path / "out" / "predictions.json").read_text(encoding="utf-8")) == found
    assert (tmp_path / "out" / "predictions.csv").read_text(encoding="utf-8") == text
    regard(*arguments, "--json", "--csv").fails("choose one of --json and --csv")


def test_predict_reads_files_of_lines(regard, translating, answers, tmp_path):
    (tmp_path / "one.txt").write_bytes("\ufefftwaalf\r\n\r\n  \r\nacht\r\n".encode())
    (tmp_path / "two.txt").write_text("één", encoding="utf-8")
    told = regard("predict", translating, tmp_path / "one.txt", tmp_path / "two.txt", "--text", "zes", "--json")
    assert told.status == 0
    assert [row["text"] for row in json.loads(told.out)] == ["zes", "twaalf", "acht", "één"]
    assert [row["prediction"] for row in json.loads(told.out)] == answers("zes", "twaalf", "acht", "één")


def test_predict_with_the_weights_of_the_best_evaluation(regard, translating):
    assert regard("predict", translating, "--text", "zes", "--weights", "best").status == 0


def test_predict_draws_what_was_looked_at(regard, translating, answers, tmp_path):
    path = tmp_path / "new" / "picture.png"
    told = regard("predict", translating, "--text", "vijf en $", "--attention", path)
    assert told.status == 0
    assert told.out == answers("vijf en $")[0] + "\n"
    assert told.err == f"picture: {path}\n"
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert len(picture.convert("L").getcolors()) > 10


def test_what_predict_cannot_read(regard, translating, tmp_path):
    run = translating
    regard("predict", run).fails("predict: give a text with --text, or name a file")
    regard("predict", run, "--text", "").fails("predict: text 1 of 1 is empty")
    regard("predict", run, "--text", "a", "--text", "b", "--attention", tmp_path / "x.png").fails(
        tmp_path / "x.png", "is one picture, for 2 texts"
    )
    regard("predict", run, "--text", "a\udcff").fails("is not UTF-8 (its character number 2)")
    assert not (tmp_path / "x.png").exists()

    (tmp_path / "latin.txt").write_bytes("caf\u00e9".encode("latin-1"))
    regard("predict", run, tmp_path / "latin.txt").fails(tmp_path / "latin.txt", "is not UTF-8 text (byte 3)")
    Image.new("L", (9, 9)).save(tmp_path / "image.png")
    regard("predict", run, tmp_path / "image.png").fails(tmp_path / "image.png", "is not UTF-8 text (byte 0)")
    (tmp_path / "empty.txt").write_text("\n \n", encoding="utf-8")
    regard("predict", run, tmp_path / "empty.txt").fails(tmp_path / "empty.txt", "holds no text")
    regard("predict", run, tmp_path / "none.txt").fails(tmp_path / "none.txt", "No such file")
    regard("predict", run, tmp_path).fails(tmp_path, "directory")
    assert regard("predict", run, "--text", "a", "--beam", 0).status == 2


def test_runs_of_images_read_no_text(regard, run, images, tmp_path):
    regard("predict", run, "--text", "twaalf").fails(run, "reads images", "--text")
    regard("predict", run, images[0], "--attention", tmp_path / "x.png").fails(run, "reads images", "--attention")
    regard("predict", run).fails("predict: name an image file, or a folder of them")
    regard("generate", run, "--prompt", "x").fails(run, "is no run of a language model", "regard train next-token")


def test_what_runs_of_text_are_not(regard, translating, writing, images):
    regard("generate", translating, "--prompt", "x").fails(translating, "is no run of a language model")
    regard("predict", writing, "--text", "x").fails(writing, "is a run of a language model", "regard generate")
    regard("explain", translating, images[0]).fails(translating, "is a run of seq2seq, not of classification")


def test_generate_goes_on_with_the_prompt(regard, writing):
    writer = load_predictor(writing)
    assert isinstance(writer, Writer)
    options = ["--temperature", 0.8, "--top-p", 0.9, "--seed", 7]
    told = regard("generate", writing, "--prompt", "The with", *options)
    assert (told.status, told.err) == (0, "")
    assert told.out == "The with" + writer.generate("The with", temperature=0.8, top_p=0.9, seed=7) + "\n"
    assert regard("generate", writing, "--prompt", "The with", *options).out == told.out
    assert regard("generate", writing, "--prompt", "The with", *options[:-1], 8).out != told.out

    told = regard("generate", writing, "--prompt", "é", "--max-tokens", 3, "--temperature", 0, "--weights", "best")
    best = load_predictor(writing, weights="best")
    assert told.out == "é" + best.generate("é", max_new_tokens=3, temperature=0.0) + "\n"
    assert regard("generate", writing, "--prompt", "a", "--top-k", 5, "--seed", 2**80).status == 0


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--prompt", ""], ["prompt: is empty"]),
        (["--prompt", "x" * 24], ["prompt: 24 tokens are too many", "the context holds 24", "at most 23"]),
        (["--prompt", "abcd", "--max-tokens", 21], ["prompt of 4 tokens and 21 new ones", "context of 24", "most 20"]),
        (["--prompt", "\udce9"], ["is not UTF-8 (its character number 1)"]),
        (["--prompt", "a", "--top-p", 0], ["top_p must be above 0 and at most 1, got 0"]),
        (["--prompt", "a", "--top-p", 1.1], ["top_p must be above 0 and at most 1, got 1.1"]),
        (["--prompt", "a", "--temperature", "inf"], ["temperature must be above 0 and finite, got inf"]),
    ],
)
def test_generate_what_cannot_be_generated(regard, writing, arguments, parts):
    told = regard("generate", writing, *arguments)
    told.fails(*parts)
    assert told.out == ""


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["generate", "run"], "--prompt"),
        (["generate", "run", "--prompt", "x", "--max-tokens", "0"], "--max-tokens"),
        (["generate", "run", "--prompt", "x", "--temperature", "-1"], "--temperature"),
        (["generate", "run", "--prompt", "x", "--temperature", "warm"], "--temperature"),
        (["generate", "run", "--prompt", "x", "--top-k", "0"], "--top-k"),
        (["generate", "run", "--prompt", "x", "--seed", "-1"], "--seed"),
    ],
)
def test_a_wrong_use_is_status_2(regard, arguments, part):
    told = regard(*arguments)
    assert told.status == 2
    assert part in told.err
    assert "Traceback" not in told.err


def test_evaluate_prints_metrics_and_groups(regard, translating, tmp_path):
    summary = Run(translating).summary()
    told = regard("evaluate", translating)
    assert told.status == 0
    assert told.out.splitlines()[-1] == (
        f"exact_match {summary['exact_match']:.4f}, bleu {summary['bleu']:.4f}, "
        f"perplexity {summary['perplexity']:.4f}, loss {summary['loss']:.4f}"
    )
    assert all(word in told.out for word in ("group", "exact match", "pairs"))

    found = json.loads(regard("evaluate", translating, "--json", "-o", tmp_path / "out").out)
    groups = found.pop("per_group")
    assert found == pytest.approx(
        {key: summary[key] for key in ("exact_match", "bleu", "perplexity", "loss")}, rel=1e-5
    )
    val = open_pairs("numbers", val_fraction=0.0002).val
    counts = Counter(val.group(i) for i in range(len(val)))
    assert [(entry["name"], entry["pairs"]) for entry in groups] == sorted(counts.items())
    text = regard("evaluate", translating, "--csv").out
    assert text.splitlines()[0] == "name,exact_match,pairs"
    assert len(text.splitlines()) == 6
    assert (tmp_path / "out" / "evaluation.csv").read_text(encoding="utf-8") == text


def test_evaluate_of_a_language_model(regard, writing, tmp_path):
    summary = Run(writing).summary()
    figures = {key: summary[key] for key in ("bits_per_byte", "perplexity", "loss")}
    told = regard("evaluate", writing)
    assert told.out == ", ".join(f"{key} {value:.4f}" for key, value in figures.items()) + "\n"
    assert json.loads(regard("evaluate", writing, "--json").out) == pytest.approx(figures, rel=1e-5)
    rows = list(csv.DictReader(io.StringIO(regard("evaluate", writing, "--csv").out)))
    assert [{key: float(value) for key, value in row.items()} for row in rows] == [pytest.approx(figures, rel=1e-5)]

    (tmp_path / "other.txt").write_text("another poem\n" * 3, encoding="utf-8")
    told = regard("evaluate", writing, "--data", f"text:{tmp_path / 'other.txt'}", "--json")
    writer = load_predictor(writing)
    assert json.loads(told.out) == pytest.approx(writer.evaluate("another poem\n" * 3).metrics(), rel=1e-6)


def test_evaluate_on_other_pairs(regard, translating, tmp_path):
    for name, lines in (("train", "een\t1\n"), ("val", "twee\t2\ndrie\t3\n")):
        (tmp_path / f"{name}.tsv").write_text(lines, encoding="utf-8")
    found = json.loads(regard("evaluate", translating, "--data", f"pairs:{tmp_path}", "--json").out)
    assert found["per_group"] == [{"name": "", "exact_match": found["exact_match"], "pairs": 2}]


def test_evaluate_on_data_of_another_sort(regard, translating, writing):
    regard("evaluate", translating, "--data", "digits").fails("'digits' gives images", "pairs:PATH")
    regard("evaluate", writing, "--data", "numbers").fails("'numbers' gives pairs of texts", "text:PATH")
    regard("evaluate", writing, "--data", "text:nowhere").fails("text:nowhere: no such file or folder")


@pytest.mark.slow
def test_arguments_that_are_not_utf8_are_one_line(translating, writing):
    """As the system hands them over: bytes."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1", "COLUMNS": "160"}
    for words in (
        [b"generate", os.fsencode(writing), b"--prompt", b"caf\xe9"],
        [b"predict", os.fsencode(translating), b"--text", b"caf\xe9"],
        [b"predict", b"caf\xe9", b"--text", b"x"],
    ):
        command = [os.fsencode(sys.executable), b"-m", b"regard", *words]
        told = subprocess.run(command, env=env, capture_output=True, check=False)
        assert (told.returncode, told.stdout) == (1, b"")
        assert told.stderr.startswith(b"error: ")
        assert told.stderr.count(b"\n") == 1


def test_a_run_of_translation_and_one_of_text(regard, translating, writing, tmp_path):
    for run in (translating, writing):
        told = regard("explain", run, "--text", "vier", "-o", tmp_path / run.name)
        assert told.status == 0, told.err
        assert (tmp_path / run.name / "text.png").read_bytes()[:4] == b"\x89PNG"
        regard("explain", run, "--text", "vier", "--layer", 9, "-o", tmp_path / "none").fails("layer 9 is not there")
        regard("explain", run, "--text", "").fails("the text is empty")
    assert not (tmp_path / "none").exists()
