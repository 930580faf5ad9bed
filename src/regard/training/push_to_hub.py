"""A run on the Hugging Face hub, with a model card of its recipe and metrics."""

import math
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import tomli_w

from regard.draw.names import in_one_line
from regard.errors import RegardError, one_line
from regard.files import printable
from regard.training.run import Run
from regard.weights.hub import quiet_client

# What prediction, evaluation and a reader need; not the state to resume from, nor the steps' log.
FILES = ("model.safetensors", "best.safetensors", "metadata.json", "recipe.toml", "summary.json", "report.html")

# Of a summary, what is no figure of the model.
_NOT_FIGURES = ("seconds", "epochs", "peak_memory_mb", "images_per_second", "sequences_per_second")

_CARD = """
# {title}

A {task} model of [Regard](https://pypi.org/project/regard/), trained on {data}.

```python
import regard

model = regard.load("hf-hub:{repo}")
answer = model.predict(["picture.png"])
```

## Measured

| figure | value |
| --- | ---: |
{figures}

On the held-out part of the data, after {steps} steps in {seconds:.0f} s, with seed {seed}.

## Recipe

{recipe}
"""


def model_card(run: Run, repo: str) -> str:
    """What it is, what it reached, and the recipe that makes it again. RegardError for a run that has not ended."""
    from huggingface_hub import ModelCard, ModelCardData

    recipe, summary = run.recipe(), run.summary()
    # What is not finite is null in the file.
    figures = {name: math.nan if value is None else value for name, value in summary.items()}
    figures = {name: value for name, value in figures.items() if isinstance(value, float) and name not in _NOT_FIGURES}
    text = _CARD.format(
        title=re.sub(r"([\\`*\[<&$|])", r"\\\1", in_one_line(recipe.title or run.path.name)),
        task=recipe.task,
        data=_code(in_one_line(recipe.data.address)),
        repo=repo,
        figures="\n".join(f"| {name} | {value:.4g} |" for name, value in figures.items()),
        steps=summary["steps"],
        seconds=summary["seconds"],
        seed=recipe.seed,
        recipe=_code(f"toml\n{printable(tomli_w.dumps(recipe.to_dict()))}", least=3),
    )
    tags = [recipe.task, recipe.model.name]
    head: Any = ModelCardData(library_name="regard", tags=tags)
    return str(ModelCard(f"---\n{head.to_yaml()}\n---\n{text}"))


def _code(text: str, least: int = 1) -> str:
    """Text as Markdown shows it letter by letter: between more backquotes than it holds in a row."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(longest + 1, least)
    space = " " if longest and least == 1 else ""
    return f"{fence}{space}{text}{space}{fence}"


def push_run(path: Path, repo: str, *, private: bool = False) -> str:
    """Uploads a run's files and its card to OWNER/NAME, and returns the address. RegardError where that fails."""
    from huggingface_hub import HfApi

    if repo.count("/") != 1 or not all(repo.split("/")):
        raise RegardError(f"{repo}: a repository of the hub is OWNER/NAME")
    run = Run.open(path)
    card = model_card(run, repo)
    with tempfile.TemporaryDirectory() as folder:
        for name in FILES:
            if (run.path / name).is_file():
                shutil.copy(run.path / name, folder)
        (Path(folder) / "README.md").write_text(card, encoding="utf-8")
        api = HfApi()
        try:
            with quiet_client():
                api.create_repo(repo, private=private, exist_ok=True)
                message = f"{run.path.name}, trained with Regard"
                api.upload_folder(repo_id=repo, folder_path=folder, commit_message=message)
        except Exception as error:  # the hub's errors, those of HTTP, and the system's
            raise RegardError(
                f"hf-hub:{repo}: cannot be pushed: {one_line(error)}; `hf auth login` says who you are"
            ) from None
    return f"https://huggingface.co/{repo}"
