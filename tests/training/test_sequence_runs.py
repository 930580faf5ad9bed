"""Runs of sequences: they stop, go on and are loaded as those of images, and what they are is told."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from regard.errors import RegardError
from regard.recipes import Recipe, load_recipe
from regard.tasks import Translator, Writer, create_task
from regard.training import Run, load_classifier, load_predictor, train

TINY = ("model.embed_dim=16", "model.num_heads=2", "model.depth=1", "train.batch_size=8", "train.device=cpu")
# The data are so small that an epoch has few steps, and states and evaluations come amid epochs and at their ends.
OF = {
    "seq2seq-numbers": ("model.decoder_depth=1", "model.dropout=0.2", "data.val_fraction=0.1"),
    "next-token": ("model.context=9", "model.dropout=0.2"),
}


@pytest.fixture(scope="module")
def addresses(tmp_path_factory) -> dict[str, str]:
    """Data of a moment for each recipe."""
    folder = tmp_path_factory.mktemp("data")
    lines = [f"{'abcde'[i % 5] * (i % 7 + 1)}{i}\t{'x' * (i % 4)}{i:02}" for i in range(40)]
    (folder / "pairs.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    text = "".join(f"line {i} of the poem\n" for i in range(30))
    (folder / "text.txt").write_text(text, encoding="utf-8")
    return {"seq2seq-numbers": f"pairs:{folder / 'pairs.tsv'}", "next-token": f"text:{folder / 'text.txt'}"}


@pytest.fixture(scope="module")
def recipe_of(addresses):
    """recipe_of(name, *settings) -> a recipe that trains five steps, and evaluates and saves every second one."""

    def load(name: str, *settings: str) -> Recipe:
        steps = ("train.max_steps=5", "train.evaluate_every_steps=2", "train.save_every_steps=2")
        return load_recipe(name, [*TINY, *OF[name], *steps, *settings], address=addresses[name])

    return load


@pytest.fixture
def run_of(recipe_of, tmp_path):
    """run_of(name, *settings) -> the finished run of a recipe."""

    def run(name: str, *settings: str) -> Run:
        path = tmp_path / f"run-{len(list(tmp_path.iterdir()))}"
        train(recipe_of(name, *settings), path)
        return Run(path)

    return run


def records(run: Run, kind: str) -> list[dict[str, float]]:
    return [record for record in run.history() if record["kind"] == kind]


class Stop(Exception):  # noqa: N818 - it is no error
    """Stands for a kill where the test is in the same process."""


@pytest.mark.shape_checks
@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("name", OF)
def test_broken_off_and_resumed_it_ends_with_the_same_bits(
    recipe_of, run_of, tmp_path, monkeypatch, compare_runs, name, workers
):
    from regard.training.metrics_log import MetricsLog

    settings = (
        "train.ema_decay=0.9",
        "train.accumulate=2",
        "train.max_steps=7",
        "data.tokenizer=bpe",
        "data.vocab_size=300",
    )
    never = run_of(name, *settings)
    write, path = MetricsLog.write, tmp_path / "stopped"

    def stop(self, kind, at, epoch, **figures):
        if at == 6:
            raise Stop
        write(self, kind, at, epoch, **figures)

    recipe = recipe_of(name, *settings, f"data.num_workers={workers}")
    with monkeypatch.context() as patch:
        patch.setattr(MetricsLog, "write", stop)
        with pytest.raises(Stop):
            train(recipe, path)
    assert (path / "state" / "latest").read_text(encoding="utf-8") == "step-4\n"
    torch.manual_seed(99)
    train(Run.open(path).recipe(), path, resume=True)
    compare_runs(never.path, path)


@pytest.mark.slow
@pytest.mark.parametrize("name", OF)
def test_killed_and_resumed(command, kill_when, steps_of, compare_runs, recipe_of, run_of, tmp_path, name):
    from regard.recipes import write_recipe

    never = run_of(name, "train.max_steps=40")
    write_recipe(recipe_of(name, "train.max_steps=40"), tmp_path / "mine.toml")
    killed = tmp_path / "killed"
    start = command("train", tmp_path / "mine.toml", "--out", killed)
    kill_when(start, lambda: max(steps_of(killed), default=0) >= 11)
    assert not (killed / "summary.json").exists()
    subprocess.run(**command("train", "--resume", killed), check=True, capture_output=True)
    compare_runs(never.path, killed)


def test_a_run_of_pairs_and_its_summary(run_of):
    run = run_of("seq2seq-numbers")
    summary = run.summary()
    assert summary.keys() >= {"exact_match", "bleu", "perplexity", "loss", "pairs_per_second", "skipped_pairs", "flops"}
    assert not [key for key in summary if "images" in key]
    assert summary["best"].keys() == {"exact_match", "step"}
    assert (summary["steps"], summary["skipped_pairs"], summary["epochs"]) == (5, 0, 5 / 4)
    assert summary["parameters"] == sum(tensor.numel() for tensor in load_file(run.weights_file).values())


def test_a_run_of_text_and_its_summary(run_of):
    run = run_of("next-token", "train.max_steps=7")
    summary = run.summary()
    assert summary.keys() >= {"bits_per_byte", "perplexity", "loss", "windows_per_second", "skipped_windows"}
    figures = {record["step"]: record["bits_per_byte"] for record in records(run, "val")}
    # Here the least is the best.
    assert summary["best"] == {"bits_per_byte": min(figures.values()), "step": min(figures, key=figures.get)}
    assert summary["bits_per_byte"] == figures[7]


@pytest.mark.parametrize("name", OF)
def test_a_run_loads_with_all_it_needs(run_of, recipe_of, name):
    """Without its data: the same predictions, and the same figures on its held-out part."""
    run = run_of(name, "data.tokenizer=bpe", "data.vocab_size=300")
    task, found = create_task(recipe_of(name, "data.tokenizer=bpe", "data.vocab_size=300")), load_predictor(run.path)
    model = task.build_model()
    model.load_state_dict(load_file(run.weights_file))
    if isinstance(found, Translator):
        assert found.predict(["aa1", "b"], beam_size=2) == task.predictor(model).predict(["aa1", "b"], beam_size=2)
        again = found.evaluate(task.data.val)
    else:
        assert isinstance(found, Writer)
        assert found.generate("line", seed=5) == task.predictor(model).generate("line", seed=5)
        again = found.evaluate(task.data.val)
    for key, value in again.metrics().items():
        assert run.summary()[key] == pytest.approx(value, rel=1e-5)
    best = load_predictor(run.path, weights="best")
    assert type(best) is type(found)


@pytest.mark.parametrize(("name", "task"), [("seq2seq-numbers", "seq2seq"), ("next-token", "next-token")])
def test_a_run_of_sequences_is_no_classifier(run_of, name, task):
    run = run_of(name, "train.max_steps=1")
    with pytest.raises(RegardError, match=f"is a run of {task}, not of classification"):
        load_classifier(run.path)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"task": "seq2sek"}, "unknown task 'seq2sek'; did you mean 'seq2seq'"),
        ({"task": None}, "lacks 'task'"),
        ({"tokenizer": None}, "lacks 'tokenizer'"),
        ({"max_new_tokens": None}, "lacks 'max_new_tokens'"),
        ({"tokenizer": {"kind": "words"}}, "unknown tokenizer 'words'"),
        ({"tokenizer": {"kind": "bpe", "json": {}}}, "not a tokenizer"),
    ],
)
def test_metadata_that_lack_something_are_one_line(run_of, change, told):
    run = run_of("seq2seq-numbers", "train.max_steps=1")
    values = {**json.loads(run.metadata_file.read_text(encoding="utf-8")), **change}
    values = {key: value for key, value in values.items() if value is not None}
    run.metadata_file.write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(RegardError, match=told) as caught:
        load_predictor(run.path)
    assert str(run.metadata_file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_of_another_tokenizer_are_told(run_of):
    run = run_of("seq2seq-numbers", "train.max_steps=1")
    values = json.loads(run.metadata_file.read_text(encoding="utf-8"))
    values["model"]["config"] |= {"src_vocab": 301, "tgt_vocab": 301}
    run.metadata_file.write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(RegardError, match=r"of another shape .* tgt_embed.weight \(259, 16\) \(301, 16\)"):
        load_predictor(run.path)


@pytest.mark.parametrize("name", OF)
def test_the_transformers_schedule_is_run_by_steps(run_of, name):
    settings = ("train.schedule=transformer", "train.warmup_steps=3", "train.lr=0.5", "train.max_steps=6")
    rates = [record["lr"] for record in records(run_of(name, *settings), "train")]
    expected = [0.5 * 16**-0.5 * min(step**-0.5, step * 3**-1.5) for step in range(1, 7)]
    torch.testing.assert_close(rates, expected, rtol=1e-12, atol=0)


def test_evaluations_by_steps_and_by_epochs(run_of):
    def evaluated(*settings: str) -> list[int]:
        return [record["step"] for record in records(run_of("seq2seq-numbers", *settings), "val")]

    assert evaluated("train.max_steps=7", "train.evaluate_every_steps=3") == [3, 6, 7]
    assert evaluated("train.max_steps=6", "train.evaluate_every_steps=3") == [3, 6]
    assert evaluated("train.max_steps=2", "train.evaluate_every_steps=50") == [2]


def test_parts_of_a_batch_count_by_their_tokens(run_of):
    """Targets are of different lengths: the mean over a batch is not the mean of the means of its parts."""
    settings = ("model.dropout=0", "train.max_steps=4", "train.evaluate_every_steps=50")
    whole, parts = (run_of("seq2seq-numbers", *settings, f"train.accumulate={parts}") for parts in (1, 4))
    for ours, theirs in zip(records(whole, "train"), records(parts, "train"), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
        assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-3)


@pytest.mark.slow
def test_two_processes_train_what_one_does(recipe_of, run_of, command, tmp_path):
    from regard.recipes import write_recipe

    settings = ("model.dropout=0", "train.max_steps=6")
    single = run_of("seq2seq-numbers", *settings)
    write_recipe(recipe_of("seq2seq-numbers", *settings), tmp_path / "mine.toml")
    how = command("train", tmp_path / "mine.toml", "--out", tmp_path / "two")
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "regard"]
    how["args"] = [sys.executable, *launch, *how["args"][3:]]
    how["env"] |= {"ACCELERATE_USE_CPU": "true"}
    finished = subprocess.run(**how, capture_output=True, check=False)
    assert finished.returncode == 0, finished.stderr
    pair = Run(tmp_path / "two")
    assert (pair.summary()["processes"], single.summary()["processes"]) == (2, 1)
    for ours, theirs in zip(pair.history(), single.history(), strict=True):
        assert ours.keys() == theirs.keys()
        for key, value in ours.items():
            wanted = pytest.approx(theirs[key], rel=1e-3, abs=1e-4) if isinstance(value, float) else theirs[key]
            assert value == wanted, (ours, theirs)
    ours, theirs = load_file(pair.weights_file), load_file(single.weights_file)
    for key, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[key], rtol=1e-3, atol=1e-3, msg=key)


@pytest.mark.parametrize(
    ("name", "settings", "parts"),
    [
        (
            "seq2seq-numbers",
            ["model.name=vit_pico_patch2_8"],
            ["vit_pico_patch2_8 is no model for seq2seq", "recurrent"],
        ),
        (
            "next-token",
            ["model.name=transformer_mini"],
            ["transformer_mini is no model for next-token", "language_mini"],
        ),
        ("vit-digits", ["task=seq2seq"], ["vit_pico_patch2_8 is no model for seq2seq", "transformer_mini"]),
        ("seq2seq-numbers", ["augment.flip=true"], ["augment.flip is not for seq2seq", "it takes none"]),
        ("next-token", ["augment.mixup=0.3"], ["augment.mixup is not for next-token", "it takes none"]),
        ("seq2seq-numbers", ["data.tokenizer=byts"], ["data.tokenizer", "'bytes' or 'bpe'", "'byts'"]),
        ("next-token", ["data.vocab_size=259"], ["data.vocab_size", "260", "259"]),
        ("next-token", ["task=next_token"], ["task", "'next-token'", "'next_token'"]),
        ("seq2seq-numbers", ["train.schedule=noam"], ["train.schedule", "'cosine' or 'transformer'", "'noam'"]),
        ("seq2seq-numbers", ["train.warmup_steps=0"], ["train.warmup_steps", "greater than 0"]),
        ("seq2seq-numbers", ["train.evaluate_every_steps=0"], ["train.evaluate_every_steps", "greater than 0"]),
    ],
)
def test_a_recipe_that_does_not_fit_together_is_one_line(name, settings, parts):
    with pytest.raises(RegardError) as caught:
        load_recipe(name, settings)
    told = str(caught.value)
    assert told.startswith(("--set: ", f"{name}.toml: "))
    assert "\n" not in told
    for part in parts:
        assert part in told


@pytest.mark.parametrize(
    ("name", "address", "told"),
    [
        ("seq2seq-numbers", "digits", "gives images; pairs of texts can come from: numbers, pairs:PATH"),
        ("next-token", "numbers", "gives pairs of texts; text can come from: pydoc, text:PATH"),
        ("vit-digits", "pydoc", "gives text; images can come from"),
        ("next-token", "text:nowhere", "text:nowhere: no such file or folder"),
    ],
)
def test_data_of_another_sort_are_one_line_and_leave_no_folder(tmp_path, name, address, told):
    with pytest.raises(RegardError, match=told):
        train(load_recipe(name, [], address=address), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "setting", "told"),
    [
        ("next-token", "model.mixer=fourier", "fourier"),
        ("next-token", "model.context=5000", "is too short for a context of 5000"),
        ("seq2seq-numbers", "model.positions=learned", "learned positions need max_tokens"),
        ("seq2seq-numbers", "model.num_heads=3", "num_heads 3"),
    ],
)
def test_what_cannot_be_built_leaves_no_folder(recipe_of, tmp_path, name, setting, told):
    with pytest.raises(RegardError, match=told) as caught:
        train(recipe_of(name, setting), tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_numbers_are_learned_from(tmp_path):
    """The data of the shipped recipe, for a moment."""
    settings = [*TINY, "model.decoder_depth=1", "data.val_fraction=0.0005", "train.max_steps=12", "train.lr=0.01"]
    summary = train(load_recipe("seq2seq-numbers", settings), tmp_path / "run")
    losses = [record["loss"] for record in records(Run(tmp_path / "run"), "train")]
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])
    assert summary["exact_match"] <= 1
    found = load_predictor(tmp_path / "run")
    assert isinstance(found, Translator)
    assert found.max_new_tokens == 5 + 8
