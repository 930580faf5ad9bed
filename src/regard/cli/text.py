"""`regard generate`, and what `predict` and `evaluate` do for runs that read text."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table

from regard.cli.tables import csv_text, figures_line, printed, right, show, write_files
from regard.cli.terminal import say, write_content
from regard.cli.train import Device
from regard.errors import RegardError

if TYPE_CHECKING:
    from regard.tasks import PairEvaluation, TextEvaluation, Translator


Weights = Annotated[
    Literal["model", "best"], typer.Option(help="The final weights (model), or those of the best evaluation.")
]


def generate(
    run: Annotated[Path, typer.Argument(help="A run folder of a language model.", metavar="RUN")],
    prompt: Annotated[str, typer.Option(help="The text to go on with.")],
    max_tokens: Annotated[
        int | None, typer.Option(help="New tokens; as many as the context holds unless given.", min=1)
    ] = None,
    temperature: Annotated[
        float, typer.Option(help="Below 1 keeps to the likely; 0 takes the likeliest token each time.", min=0)
    ] = 1.0,
    top_k: Annotated[int | None, typer.Option(help="Draw from this many tokens, the likeliest.", min=1)] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Draw from the likeliest tokens that have this probability together.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the draw.", min=0)] = 0,
    weights: Weights = "model",
    device: Device = None,
) -> None:
    """Let a language model go on with a text. Same seed, same text."""
    from regard.api import load
    from regard.tasks import Writer

    writer = load(run, weights=weights, device=device)
    if not isinstance(writer, Writer):
        raise RegardError(f"{run}: is no run of a language model; `regard train next-token` makes one")
    written = writer.generate(
        prompt, max_new_tokens=max_tokens, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed
    )
    write_content(f"{prompt}{written}\n")


def predict_texts(
    translator: "Translator",
    texts: list[str],
    files: list[Path],
    beam: int,
    attention: Path | None,
    out: Path | None,
    *,
    as_json: bool,
    as_csv: bool,
) -> None:
    """Prints what the model writes for each text, a line each."""
    texts = texts + [line for file in files for line in _lines(file)]
    if not texts:
        raise RegardError("predict: give a text with --text, or name a file with a text a line")
    if attention is not None and len(texts) > 1:
        raise RegardError(f"{attention}: is one picture, for {len(texts)} texts; give one")
    answers = translator.predict(texts, beam_size=beam)
    rows: list[dict[str, Any]] = [
        {"text": answer.source, "prediction": answer.text, "log_probability": round(answer.log_prob, 6)}
        for answer in answers
    ]
    text = csv_text(("text", "prediction", "log_probability"), rows)
    write_files(out, "predictions", rows, text)
    if not printed(as_json, as_csv, rows, text):
        for answer in answers:
            write_content(f"{answer.text}\n")
    if attention is not None:
        from regard.explain import alignment_figure, save_png

        answer, found = translator.alignment(texts[0], beam_size=beam)
        figure = alignment_figure(
            found.source, found.target, found.weights, title=f"{answer.source} \N{RIGHTWARDS ARROW} {answer.text}"
        )
        attention.parent.mkdir(parents=True, exist_ok=True)
        save_png(figure, attention)
        say(f"picture: {attention}", err=True)


def show_text_evaluation(
    evaluation: "PairEvaluation | TextEvaluation", out: Path | None, *, as_json: bool, as_csv: bool
) -> None:
    """The metrics, and for pairs those of each group."""
    from regard.tasks import PairEvaluation

    figures = evaluation.metrics()
    rows: list[dict[str, Any]] = []
    if isinstance(evaluation, PairEvaluation):
        rows = [vars(entry) for entry in evaluation.per_group()]
    whole = {**figures, "per_group": rows} if rows else figures
    columns = ("name", "exact_match", "pairs") if rows else tuple(figures)
    text = csv_text(columns, rows or [figures])
    write_files(out, "evaluation", whole, text)
    if printed(as_json, as_csv, whole, text):
        return
    if len(rows) > 1:
        table = Table("group", right("exact match"), right("pairs"))
        for row in rows:
            table.add_row(row["name"], f"{row['exact_match']:.4f}", str(row["pairs"]))
        show(table)
    say(figures_line(figures))


def _lines(file: Path) -> list[str]:
    """The lines of a UTF-8 file that are not empty."""
    from regard.reading import read_text

    text = read_text(file)
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise RegardError(f"{file}: holds no text")
    return lines
