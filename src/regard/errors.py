"""Errors that are meant for the person at the keyboard: one line that says what, where, and what is allowed."""

import re
from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher

# The likeness of names is 0 to 1: that from which on a name is offered, and that of "embed" and "embed_dim".
NEAR, BEGINS_ALIKE = 0.7, 0.9
# What others call a setting; spellings and initials ("bs" for "batch_size") need no entry.
SYNONYMS = {
    "amp": "precision",
    "bf16": "precision",
    "fp16": "precision",
    "d_model": "embed_dim",
    "hidden_dim": "embed_dim",
    "hidden_size": "embed_dim",
    "n_layers": "depth",
    "num_blocks": "depth",
    "num_hidden_layers": "depth",
    "num_layers": "depth",
    "global_pool": "pool",
    "init_values": "layer_scale",
    "reg_tokens": "num_registers",
    "width": "embed_dim",
}


# What would break the one line or command the terminal: a file's names may hold it.
_NO_TEXT = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


# What is said of a model that knows nothing, instead of showing it as, for instance, an image without objects.
NOT_FINITE = "the model answers with numbers that are not finite (NaN or infinity)"


# How PyTorch, oneDNN and C++ say that memory ran out.
_NO_MEMORY = (
    "not enough memory",
    "can't allocate",
    "bad_alloc",
    "bad alloc",
    "out of memory",
    "could not create a mem",
)
# What PyTorch says of an installation that does not fit the machine -> what it means, and what helps.
_INSTALLED = {
    "torchvision::nms does not exist": (
        "torch and torchvision are not of one release; `pip install --upgrade torch torchvision` brings two that are"
    ),
    "no kernel image is available": (
        "this PyTorch has no code for this GPU; https://pytorch.org/get-started/locally names the build that has, and "
        "--device cpu computes without it"
    ),
    "driver on your system is too old": (
        "the driver of the GPU is older than this PyTorch needs; update the driver, or compute with --device cpu"
    ),
    "DataLoader worker": (
        "a process that read images was killed, mostly because /dev/shm or the memory is full; "
        "--set data.num_workers=0 needs none, and `docker run --shm-size=8g` gives a container more"
    ),
}


class RegardError(ValueError):
    """What the user gave cannot be served. The command line prints the message alone and exits with `status`.

    The message is one line: control characters, which come with names out of files, are written as \\x1b.
    """

    status = 1

    def __init__(self, message: str) -> None:
        super().__init__(_NO_TEXT.sub(lambda found: ascii(found[0])[1:-1], str(message)))


def unknown(what: str, name: object, known: Iterable[str], where: str = "", then: Iterable[str] = ()) -> RegardError:
    """The error for a name that is not in `known`: it offers the nearest name, if one is near, and lists all of them.

    `then` are names of another kind that would do as well: they are offered and listed after those.
    """
    names, others = sorted(known), sorted(then)
    near = nearest(str(name), names) or nearest(str(name), others)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    prefix = f"{where}: " if where else ""
    return RegardError(f"{prefix}unknown {what} {str(name)[:200]!r}{hint} Known: {', '.join([*names, *others])}")


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """The known name that is most like `name`, or none where no name is near.

    Keys of one section are compared without it: "train.learning_rate" is not like "train.clip_grad", but means
    "train.lr". A key without a section, "lr", is compared with the last part of others.
    """
    scores = {other: (_likeness(name, other), _ratio(name, other)) for other in known}
    best = max(scores, key=scores.__getitem__, default="")
    return [best] if best and scores[best][0] >= NEAR else []


def one_line(error: BaseException | None, limit: int = 300) -> str:
    """What another library's error says, without line breaks and cut to `limit` characters; its class if it is mute."""
    return " ".join(str(error).split())[:limit] or type(error).__name__


def shown(value: object, limit: int = 80) -> str:
    """A value as Python writes it, cut to `limit` characters: files may hold numbers of thousands of digits."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):
        text = f"a {type(value).__name__}"
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on a CPU or a GPU."""
    said = str(error).lower()
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(words in said for words in _NO_MEMORY)
    )


def of_the_machine(error: BaseException) -> str | None:
    """What an error means that comes from the machine or what is installed on it, and what helps; None of any other."""
    if is_out_of_memory(error):
        return f"the memory is too small ({one_line(error, 200)}); take smaller images, or another --device"
    said = str(error)
    return next((f"{meaning} ({one_line(error, 200)})" for words, meaning in _INSTALLED.items() if words in said), None)


def first_few(names: Sequence[str], limit: int = 3) -> str:
    """The first `limit` names and the number of the others: "a, b and 3 more"."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def first_of(messages: Sequence[str], others: str) -> str:
    """The first message and the number of the others: "line 3 is empty (and 2 more such lines)"."""
    return messages[0] + (f" (and {len(messages) - 1} {others})" if len(messages) > 1 else "")


def _likeness(name: str, other: str) -> float:
    """0 to 1."""
    (section, _, last), (other_section, _, other_last) = name.rpartition("."), other.rpartition(".")
    if other_last in (last, SYNONYMS.get(last), _initials(last)) or last == _initials(other_last):
        return 1.0
    if last.isdigit():  # "blocks.12" is no misspelt "blocks.2"
        return 0.0
    score = _spelt_alike(last, other_last)
    if section and other_section and section != other_section:
        return min(score, _ratio(section, other_section))
    return max(score, _spelt_alike(name, other)) if other_section and not section else score


def _spelt_alike(name: str, other: str) -> float:
    """The likeness in letters, or `BEGINS_ALIKE` where one is the beginning, of three letters or more, of the other."""
    if set(name.split("_")) == set(other.split("_")):  # grad_clip and clip_grad
        return 1.0
    begins = min(len(name), len(other)) > 2 and (name.startswith(other) or other.startswith(name))
    return max(_ratio(name, other), BEGINS_ALIKE if begins else 0.0)


def _ratio(name: str, other: str) -> float:
    return SequenceMatcher(None, name.lower(), other.lower()).ratio()


def _initials(name: str) -> str | None:
    """learning_rate -> lr; None for a single word."""
    return "".join(word[:1] for word in name.split("_")) if "_" in name else None
