"""The record of a comparison: everything that the page shows and `--json` holds, as pydantic models.

`Comparison record = plan + data + cells + contenders + pairs + recommendation`. The page is drawn from a `Record`
alone, but for the pictures of each contender. Its JSON schema, `json_schema()`, stands in docs/compare.schema.json.

Units: scores, means, intervals and differences are in the metric's own scale (accuracy from 0 to 1). A margin is in
points; a point is `metric.point` of that scale. null is what was not measured, or is not finite.
"""

import json
import math
from collections.abc import Mapping
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from regard.files import printable

SCHEMA: Final = "regard-compare-1"

Status = Literal["done", "diverged", "cannot_run", "missing"]
Verdict = Literal["better", "worse", "as good", "cannot tell"]
State = Literal["in", "out", "unknown"]
CostName = Literal["latency", "throughput", "memory", "training", "flops", "parameters"]


Number = float | None
"""null: not measured, or not finite."""


def _as_json_has_it(value: Any) -> Any:
    """What is not finite becomes null, and what is not UTF-8 is written as \\udcff."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, Mapping):
        return {_as_json_has_it(key): _as_json_has_it(one) for key, one in value.items()}
    return [_as_json_has_it(one) for one in value] if isinstance(value, list | tuple) else value


class Part(BaseModel):
    """A part of a record: an unknown key is an error."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, populate_by_name=True, json_schema_serialization_defaults_required=True
    )

    @model_validator(mode="before")
    @classmethod
    def _clean(cls, values: Any) -> Any:
        return _as_json_has_it(values)


class MetricPart(Part):
    """What contenders are compared by."""

    name: str
    """As in a run's summary: accuracy, exact_match, ap, bits_per_byte."""
    words: str
    larger_is_better: bool = True
    is_proportion: bool = True
    """Of the test samples; it is then written as a percentage."""
    point: float = Field(0.01, gt=0)
    """What one point of the margin is in the metric's scale."""
    about: str = ""
    """A sentence that defines it."""


class PlanPart(Part):
    """What was settled, and hashed, before the first training."""

    hash: str
    contenders: list[str]
    recipe: Any
    """The resolved recipe as a table of its sections; or its name."""
    recipe_name: str = ""
    looks: list[int]
    """Numbers of seeds after which verdicts are made."""
    alpha: float = Field(0.05, gt=0, lt=1)
    """Of all pairs and looks together."""
    margin: float = Field(1.0, ge=0)
    """Points that matter to the user."""
    budget: str
    """"epochs=20", "steps=400", "minutes=3", "flops=2e12": of training alone."""
    until: str = "answer"
    """"answer", "minutes=15" or "runs=40"."""
    cost: CostName = "throughput"
    """What "cheap" means in the recommendation."""
    tune: str | None = None
    order: list[tuple[str, int]] = []
    """(contender, seed) as they are trained."""
    amended: list[str] = []
    """What was changed after the first training, in a sentence each."""


class DataPart(Part):
    address: str
    n_train: int
    n_val: int = 0
    n_test: int
    fingerprint: str | None = None
    unit: str = "images"
    """The word for samples: images, pairs, windows."""
    sample: str = "an image"
    """The word for one of them."""
    facts: list[tuple[str, str]] = []
    """Further facts, (name, value)."""


class SecondsPart(Part):
    """Where a cell's time went. A budget in minutes is of steps alone."""

    steps: Number = None
    evaluation: Number = None
    saving: Number = None
    compile: Number = None


class CellPart(Part):
    """One training: a contender with a seed."""

    contender: str
    seed: int
    fold: int | None = None
    status: Status
    reason: str | None = None
    """Why there is no score, in one line."""
    step: int | None = None
    """The last step; of one that diverged, the step at which its loss was not finite."""
    score: Number = None
    """On the test part, of the final weights."""
    seconds: SecondsPart = SecondsPart()
    load: Number = None
    """Load average of the machine when it began."""
    test_file: str | None = None
    """Its per-sample results, relative to the folder of the comparison."""


class CurvePart(Part):
    """How one cell learned; points (epoch, value)."""

    contender: str
    seed: int
    score: list[tuple[float, Number]] = []
    """The metric on validation samples; empty where there are none."""
    loss: list[tuple[float, Number]] = []
    """Of training."""


class FlopsPart(Part):
    """Operations for one sample, a multiply and an add as two."""

    formula: Number = None
    counted: Number = None
    uncounted: list[str] = []
    """Operations that torch's counter does not know, by name."""


class LatencyPart(Part):
    """At batch 1, in milliseconds; low and high are the interval of p50."""

    p50: Number = None
    p95: Number = None
    p99: Number = None
    low: Number = None
    high: Number = None


class RatePart(Part):
    """A median and its interval, by order statistics."""

    median: Number = None
    low: Number = None
    high: Number = None


class CostPart(Part):
    latency_ms: LatencyPart | None = None
    images_per_s: RatePart | None = None
    """Inference, in batches; of pairs or windows where samples are those."""
    training_images_per_s: RatePart | None = None
    """Of steps alone."""
    peak_mb: Number = None
    """Of a training step, above the level before it."""
    inference_mb: Number = None
    energy_j: Number = None
    """For one sample, where a hardware counter exists."""


class ContenderPart(Part):
    name: str
    mean: Number = None
    """Over its cells that are done."""
    low: Number = None
    high: Number = None
    """The 95% interval, on other seeds and other samples."""
    note: str = ""
    """What the interval does not cover: "one seed: ..."."""
    seed_part: Number = None
    """Standard error that seeds add, in the metric's scale; so image_part and interaction."""
    image_part: Number = None
    interaction: Number = None
    weights: str = ""
    """What its trainings began from, as it was named: a run, a file, a name of the catalogue; "" is from nothing."""
    weights_minutes: Number = None
    """How long the run was trained that these weights are of, as its summary says; no budget holds it."""
    parameters: int | None = None
    matched: str | None = None
    """"not matched: 1.21 times", for a model beside the mixers."""
    flops: FlopsPart = FlopsPart()
    cost: CostPart = CostPart()
    tuned: dict[str, Any] | None = None
    state: State = "unknown"
    """in: none of the others is more than the margin better. out: shown to be more than the margin worse than one."""
    dropped: int | None = None
    """After so many seeds it was out, and got no more."""


class NeedsPart(Part):
    """What would tell two contenders apart, or that they are as good: each alone would do."""

    seeds: int | None = None
    """In all; null: no number of seeds."""
    images: int | None = None
    """Test samples, with the seeds that there are."""
    minutes: Number = None
    """Of the further seeds."""
    words: str = ""


class PairPart(Part):
    """a against b. The difference is a − b in the metric's scale; the verdict says what a is."""

    a: str
    b: str
    difference: Number = None
    low: Number = None
    high: Number = None
    """The 95% interval, of this pair alone."""
    df: Number = None
    p: Number = None
    p_holm: Number = None
    """Of no difference, over all pairs."""
    p_same: Number = None
    """Of a difference of the margin or more, over all pairs: small where they are as good."""
    p_margin: Number = None
    """Of a difference within the margin, over all pairs: small where one is out."""
    verdict: Verdict
    reason: str | None = None
    """Why it cannot tell, or what one seed each says."""
    p_outperform: Number = None
    """The probability that a run of a beats a run of b."""
    needs: NeedsPart | None = None
    """null where the verdict is known."""


class RecommendationPart(Part):
    name: str | None = None
    sentence: str
    rule: str
    ties: list[str] = []
    """Contenders whose costs cannot be told apart from the recommended one's."""


class MeasurementPart(Part):
    """How costs were measured."""

    load: Number = None
    """Load average before."""
    busy: bool = False
    """Then ratios stand in the place of times."""
    batch_size: int | None = None
    rounds: int | None = None
    notes: list[str] = []


class FairnessPart(Part):
    """A line of the check list: what makes the comparison fair, and whether it holds here."""

    what: str
    holds: bool
    note: str = ""


class RobustnessPart(Part):
    contender: str
    change: str
    """"noise 0.1", "rotation 10°"."""
    score: Number = None
    low: Number = None
    high: Number = None
    drop: Number = None
    drop_low: Number = None
    drop_high: Number = None
    reason: str | None = None
    """Why there is no score."""


class Record(Part):
    """A comparison, at any moment."""

    schema_: Literal["regard-compare-1"] = Field(SCHEMA, alias="schema")
    title: str = "Which token mixer?"
    task: str = "classification"
    kind: Literal["mixer", "model"] = "mixer"
    metric: MetricPart
    plan: PlanPart
    data: DataPart
    machine: dict[str, Any] = {}
    versions: dict[str, str] = {}
    commit: str | None = None
    command: str = ""
    written: str = ""
    """The date."""
    over: bool = True
    stopped: str = ""
    """Why no more seeds were added, in a sentence: the answer was known, fifteen minutes were over."""
    cells: list[CellPart] = []
    learning: list[CurvePart] = []
    contenders: list[ContenderPart]
    pairs: list[PairPart] = []
    recommendation: RecommendationPart
    measurement: MeasurementPart = MeasurementPart()
    fairness: list[FairnessPart] = []
    notes: list[str] = []
    """Sentences for the page: who was left out and why."""
    robustness: list[RobustnessPart] = []

    def to_json(self) -> str:
        """What `--json` writes and the page holds, to the letter: "<" is escaped, so that nothing ends a script."""
        text = json.dumps(self.model_dump(by_alias=True), ensure_ascii=False, allow_nan=False)
        return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029") + "\n"


def json_schema() -> str:
    """The published schema, as text."""
    schema = Record.model_json_schema(by_alias=True, mode="serialization")
    about = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$comment": "Written by json_schema() of regard/compare/schema.py.",
    }
    return json.dumps({**about, **schema}, indent=1, ensure_ascii=False) + "\n"
