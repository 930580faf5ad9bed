"""`numbers`: whole numbers in words, in five languages, and the digits to write for them."""

from functools import cache
from typing import Any

from regard.data.text.pairs import PairSource, TextPairs, held_out_indices

NUM_NUMBERS = 100_000
LANGUAGES = ("en", "nl", "fr", "de", "es")
# How often a number below the bound is trained on, next to once for all others: nine of ten have five digits, and a
# model that hardly meets the short ones reads "vijfhonderdtwaalf" worse than the long ones.
REPEATS = ((100, 50), (1_000, 20), (10_000, 3))


class NumberPairs(PairSource):
    """Each number in each language: pair i is number i // 5 of `numbers` in language i % 5 of `LANGUAGES`.

    The words are made when a pair is read, and kept.
    """

    def __init__(self, numbers: tuple[int, ...]) -> None:
        self.numbers = numbers
        self._words: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self.numbers) * len(LANGUAGES)

    def pair(self, index: int) -> tuple[str, str]:
        words = self._words.get(index)
        number = self._number(index)
        if words is None:
            words = self._words[index] = number_words(number, self.group(index))
        return words, str(number)

    def name(self, index: int) -> str:
        return f"numbers[{self.group(index)}:{self._number(index)}]"

    def group(self, index: int) -> str:
        return LANGUAGES[index % len(LANGUAGES)]

    def _number(self, index: int) -> int:
        return self.numbers[index // len(LANGUAGES)]

    def __getstate__(self) -> dict[str, object]:
        # A worker process that is spawned gets the numbers, not the words.
        return {**self.__dict__, "_words": {}}


def open_numbers(val_fraction: float, split_seed: int) -> TextPairs:
    """The numbers 0 .. 99,999 in every language. A number that is held out is trained on in none of them.

    The training split holds short numbers several times (`REPEATS`); the validation split is drawn evenly.
    """
    held_out = held_out_indices(NUM_NUMBERS, val_fraction, split_seed, where="numbers")
    kept = sorted(set(range(NUM_NUMBERS)) - set(held_out))
    trained_on = (number for number in kept for _ in range(_repeats(number)))
    return TextPairs(
        address="numbers",
        train=NumberPairs(tuple(trained_on)),
        val=NumberPairs(tuple(held_out)),
        groups=LANGUAGES,
        bleu_tokenize="char",
    )


def _repeats(number: int) -> int:
    return next((times for bound, times in REPEATS if number < bound), 1)


def number_words(number: int, language: str) -> str:
    """A number in words: `number_words(512, "nl")` is "vijfhonderdtwaalf"."""
    words: str = _converters()[language].to_cardinal(number)
    return words


@cache
def _converters() -> dict[str, Any]:
    from num2words import CONVERTER_CLASSES

    return {language: CONVERTER_CLASSES[language] for language in LANGUAGES}
