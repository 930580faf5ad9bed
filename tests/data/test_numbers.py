"""`numbers`: words in five languages, made when they are read; a held-out number is new in all of them."""

import pickle
from collections import Counter

import pytest

from regard.data import LANGUAGES, NumberPairs, number_words, open_pairs
from regard.errors import RegardError


@pytest.mark.parametrize(
    ("number", "language", "words"),
    [
        (512, "nl", "vijfhonderdtwaalf"),
        (0, "en", "zero"),
        (99_999, "en", "ninety-nine thousand, nine hundred and ninety-nine"),
        (71, "fr", "soixante et onze"),
        (21_000, "de", "einundzwanzigtausend"),
        (1_016, "es", "mil dieciséis"),
    ],
)
def test_words(number, language, words):
    assert number_words(number, language) == words


def test_pairs_run_through_the_languages():
    pairs = NumberPairs((7, 512))
    assert len(pairs) == 10
    assert [pairs.pair(i) for i in range(5)] == [(word, "7") for word in ("seven", "zeven", "sept", "sieben", "siete")]
    assert pairs.pair(6) == ("vijfhonderdtwaalf", "512")
    assert (pairs.name(6), pairs.group(6)) == ("numbers[nl:512]", "nl")


def test_words_are_made_when_they_are_read_and_once(monkeypatch):
    made = []

    def words(number, language):
        made.append((number, language))
        return f"{number} in {language}"

    monkeypatch.setattr("regard.data.text.numbers.number_words", words)
    pairs = open_pairs("numbers", val_fraction=0.5).val
    assert made == []
    first = pairs.pair(3)
    assert pairs.pair(3) == first
    assert made == [(pairs.numbers[0], "de")]
    assert pickle.loads(pickle.dumps(pairs))._words == {}


def test_a_held_out_number_is_trained_on_in_no_language():
    numbers = open_pairs("numbers", val_fraction=0.03, split_seed=5)
    assert numbers.groups == LANGUAGES == ("en", "nl", "fr", "de", "es")
    assert numbers.bleu_tokenize == "char"
    train, val = set(numbers.train.numbers), set(numbers.val.numbers)
    assert len(val) == 3_000
    assert not train & val
    assert train | val == set(range(100_000))
    counts = Counter(numbers.train.numbers)
    assert all(times == (50 if n < 100 else 20 if n < 1_000 else 3 if n < 10_000 else 1) for n, times in counts.items())
    assert len(numbers.train) == 5 * counts.total()
    assert len(numbers.val) == 15_000
    targets = {numbers.val.pair(i)[1] for i in range(10)}
    assert targets == {str(number) for number in sorted(val)[:2]}
    assert val == set(open_pairs("numbers", val_fraction=0.03, split_seed=5).val.numbers)
    assert val != set(open_pairs("numbers", val_fraction=0.03, split_seed=6).val.numbers)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_a_fraction_that_is_none(fraction):
    with pytest.raises(RegardError, match=r"numbers: val_fraction is .*between 0 and 1"):
        open_pairs("numbers", val_fraction=fraction)
