"""Next-token prediction in the report: how a contender continues the beginning of the held-out text."""

from dataclasses import dataclass

from regard.compare.contender import Contender
from regard.compare.task_view import device_of, printable
from regard.data import Tokenizer
from regard.errors import RegardError
from regard.tasks import NextTokenTask, Writer
from regard.training import Run, load_predictor

TEMPERATURE, TOP_P, SEED = 0.8, 0.9, 0
# At most so many letters of the prompt, and tokens that the model writes.
LONGEST_PROMPT = 160
NUM_WRITTEN = 400


@dataclass(frozen=True)
class Section:
    name: str
    seed: int
    seeds: int
    bits_per_byte: float
    perplexity: float
    prompt: str
    """Empty if no beginning of the text fits into half of the context."""
    written: str
    how: str


class NextTokenView:
    """One text, whose end is held out."""

    template = "next_token.html.j2"
    unit = "windows"
    split = "held-out"
    loss = "training loss (nats)"
    timed = "a window"
    counted = "a window"
    about = (
        "Bits per byte are what the final weights need to encode a byte of the held-out text: fewer are better. They "
        "do not depend on the tokenizer."
    )
    num_held_out = None

    def __init__(self, task: NextTokenTask) -> None:
        self.task = task
        self.data = task.data

    @property
    def trained_on(self) -> str:
        return f"{len(self.data.train)} characters of {self.data.address}"

    @property
    def tested_on(self) -> str:
        return f"the {len(self.data.val)} characters after them"

    def facts(self) -> list[tuple[str, str]]:
        data, recipe = self.data, self.task.recipe
        return [
            ("Data", data.address),
            ("Text", f"{len(data.train)} characters for training, the {len(data.val)} after them held out"),
            ("Tokens", f"{recipe.data.tokenizer}, a vocabulary of {self.task.tokenizer.vocab_size}"),
            ("Window", f"{self.task.config.context} tokens"),
        ]

    def section(self, contender: Contender) -> Section:
        run = Run.open(contender.runs[0])
        writer = load_predictor(run.path, device=device_of(self.task.recipe))
        if not isinstance(writer, Writer):
            raise RegardError(f"{run.path}: its metadata.json and its recipe.toml are of different tasks")
        summary = run.summary()
        prompt = prompt_of(self.data.val, writer.tokenizer, writer.context // 2)
        room = writer.context - len(writer.tokenizer.encode(prompt))
        written = ""
        if prompt:
            count = min(room, NUM_WRITTEN)
            written = writer.generate(prompt, max_new_tokens=count, temperature=TEMPERATURE, top_p=TOP_P, seed=SEED)
        return Section(
            name=contender.name,
            seed=run.recipe().seed,
            seeds=len(contender.runs),
            bits_per_byte=summary["bits_per_byte"],
            perplexity=summary["perplexity"],
            prompt=printable(prompt),
            written=printable(written),
            how=f"temperature {TEMPERATURE}, top-p {TOP_P}, seed {SEED}",
        )


def prompt_of(text: str, tokenizer: Tokenizer, max_tokens: int) -> str:
    """The beginning of a text in at most `max_tokens` tokens, if possible up to the end of a word; "" if none fits."""
    text = text.lstrip()
    prompt = text[:LONGEST_PROMPT].rstrip()
    if text[LONGEST_PROMPT:] and not text[LONGEST_PROMPT].isspace():
        prompt = prompt.rsplit(maxsplit=1)[0]
    while prompt and len(tokenizer.encode(prompt)) > max_tokens:
        shorter = prompt.rsplit(maxsplit=1)[0]
        prompt = shorter if len(shorter) < len(prompt) else prompt[:-1]
    return prompt
