"""The card of a run on the Hugging Face hub: its README.md, with the head that the hub reads."""

import math
import re
from pathlib import PurePath
from typing import Any

import tomli_w

from regard.draw.names import in_one_line
from regard.errors import RegardError
from regard.files import printable
from regard.recipes import Recipe
from regard.training.run import Run
from regard.weights.catalogue import Pretrained, find_pretrained
from regard.weights.hub import HubFile

# Of each task: what the hub calls it, and how one asks such a model.
TASKS = {
    "classification": ("image-classification", 'answer = model("picture.png")\nprint(answer.label, answer.score)'),
    "detection": ("object-detection", 'model("picture.png").draw().save("found.png")'),
    "pretraining": ("image-feature-extraction", 'features = model.model(model.prepare("picture.png")[None])'),
    "seq2seq": ("translation", 'print(model("..."))'),
    "next-token": ("text-generation", 'print(model.generate("..."))'),
}
# Figures of a summary that stand in the hub's list of results: its name of the metric, and a reader's.
METRICS = {
    "accuracy": ("accuracy", "accuracy"),
    "knn": ("accuracy", "accuracy of the 20 nearest neighbours"),
    "linear": ("accuracy", "accuracy of a linear head on the features"),
    "balanced_accuracy": ("balanced_accuracy", "balanced accuracy"),
    "map": ("mean_average_precision", "mean average precision of the classes"),
    "ap": ("mean_average_precision", "AP, at IoU 0.50 to 0.95"),
    "ap50": ("mean_average_precision_50", "AP, at IoU 0.50"),
    "exact_match": ("exact_match", "exact match"),
    "bleu": ("bleu", "BLEU"),
    "perplexity": ("perplexity", "perplexity"),
    "bits_per_byte": ("bits_per_byte", "bits per byte"),
}
HUBS_DATA = {
    "torchvision:MNIST": "ylecun/mnist",
    "torchvision:FashionMNIST": "zalando-datasets/fashion_mnist",
    "torchvision:CIFAR10": "uoft-cs/cifar10",
    "torchvision:CIFAR100": "uoft-cs/cifar100",
}
# Of a summary, what is no figure of the model.
NOT_FIGURES = ("seconds", "epochs", "peak_memory_mb", "images_per_second", "sequences_per_second")

CARD = """
# {title}

A {task} model of [Regard](https://pypi.org/project/regard/), trained on {data}{start}.

```python
import regard  # pip install regard

model = regard.load("hf-hub:{repo}")
{use}
```

## Measured

| figure | value |
| --- | ---: |
{figures}

On the held-out part of the data, after {steps} steps in {seconds:.0f} s, with seed {seed}. What other data give was not
measured.

## Recipe

{recipe}
"""


def model_card(run: Run, repo: str, *, license: str | None = None) -> str:
    """What it is, what it reached, and the recipe that makes it again.

    license: the hub's short name of one, such as "apache-2.0"; that of the weights it started from unless given, and
    none where there were none. RegardError for a run that has not ended, and for a licence that is no short name.
    """
    from huggingface_hub import ModelCard

    recipe, summary = run.recipe(), run.summary()
    # What is not finite is null in the file.
    figures = {name: math.nan if value is None else value for name, value in summary.items()}
    figures = {name: value for name, value in figures.items() if isinstance(value, float) and name not in NOT_FIGURES}
    figures = {name: value for name, value in figures.items() if value != -1}  # COCO's "no such objects"
    start = _start(recipe)
    text = CARD.format(
        title=re.sub(r"([\\`*\[<&$|])", r"\\\1", in_one_line(recipe.title or run.path.name)),
        task=recipe.task,
        data=_code(in_one_line(recipe.data.address)),
        start=f", from the weights `{start[0]}` ({start[1].paper})" if start else "",
        repo=repo,
        use=TASKS[recipe.task][1],
        figures="\n".join(f"| {name} | {value:.4g} |" for name, value in figures.items()),
        steps=summary["steps"],
        seconds=summary["seconds"],
        seed=recipe.seed,
        recipe=_code(f"toml\n{printable(tomli_w.dumps(recipe.to_dict()))}", least=3),
    )
    head = _head(recipe, figures, repo, start[1] if start else None, license)
    return str(ModelCard(f"---\n{head.to_yaml()}\n---\n{text}"))


def _head(recipe: Recipe, figures: dict[str, float], repo: str, start: Pretrained | None, license: str | None) -> Any:
    """What the hub sorts, filters and shows models by; each figure is what the run measured."""
    from huggingface_hub import EvalResult, ModelCardData

    if license is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", license):
        raise RegardError(f"license is {license!r}; the hub takes a short name, such as apache-2.0, mit or other")
    address = recipe.data.address
    kind, _, rest = address.partition(":")
    # The last part of a path alone: where it lies is nobody's business.
    name_of_data = printable(in_one_line(PurePath(rest).name or kind))
    hubs_task = TASKS[recipe.task][0]
    results = [
        EvalResult(
            task_type=hubs_task,
            dataset_type=kind,
            dataset_name=name_of_data,
            dataset_split="validation",
            metric_type=METRICS[name][0],
            metric_name=METRICS[name][1],
            metric_value=value,
        )
        for name, value in figures.items()
        if name in METRICS and math.isfinite(value)
    ]
    data: Any = ModelCardData(
        library_name="regard",
        license=license or (start.licence.lower() if start else None),
        pipeline_tag=hubs_task,
        tags=["regard", "pytorch", recipe.task, recipe.model.name],
        datasets=[HUBS_DATA[address]] if address in HUBS_DATA else None,
        base_model=start.source.repo if start and isinstance(start.source, HubFile) else None,
        metrics=sorted({one.metric_type for one in results}) or None,
        model_name=repo.rpartition("/")[2],
        eval_results=results or None,
    )
    return data


def _start(recipe: Recipe) -> tuple[str, Pretrained] | None:
    """The name and the entry of the catalogue that the training started from."""
    for section, key in (("model", "weights"), ("model", "pretrained_backbone"), ("pretrain", "start")):
        name = getattr(getattr(recipe, section, None), key, None)
        entry = find_pretrained(name) if isinstance(name, str) else None
        if entry is not None:
            return str(name), entry
    return None


def _code(text: str, least: int = 1) -> str:
    """Text as Markdown shows it letter by letter: between more backquotes than it holds in a row."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(longest + 1, least)
    space = " " if longest and least == 1 else ""
    return f"{fence}{space}{text}{space}{fence}"
