"""The figures of models of text, against ones worked out by hand and against sacrebleu."""

import math

import pytest
import sacrebleu

from regard.errors import RegardError
from regard.tasks import GroupFigures, PairEvaluation, TextEvaluation
from regard.tasks.seq2seq.metrics import bleu, exact_match
from regard.tasks.text_metrics import bits_per_byte, perplexity

PREDICTIONS = ("the cat sat on the mat", "a dog barks", "rain falls on roofs today", "nothing", "7")
REFERENCES = ("the cat sat on the mat", "a dog barked loudly", "rain fell on the roofs today", "nothing", "8")
GROUPS = ("nl", "en", "nl", "en", "de")
NAMES = tuple(f"pairs.tsv:{line}" for line in range(1, 6))


def evaluation(rows=slice(None), nats=3.5, num_tokens=7, skipped=()):
    sources = tuple(text.upper() for text in REFERENCES)
    columns = (column[rows] for column in (sources, REFERENCES, PREDICTIONS, GROUPS, NAMES))
    return PairEvaluation(*columns, nats, num_tokens, "13a", skipped)


def test_exact_match_is_to_the_letter():
    assert exact_match(["12", "34", "5 ", ""], ["12", "35", "5", ""]) == 2 / 4
    assert exact_match(["é"], ["e\u0301"]) == 0.0
    with pytest.raises(ValueError, match="zip"):
        exact_match(["12"], ["12", "13"])


def test_bleu_by_hand():
    """Of 6 words 5 are right, of 5 pairs 3, of 4 triples 2, of 3 quadruples 1; both are of one length."""
    found = bleu(["a b c d x f"], ["a b c d e f"])
    assert found == pytest.approx(100 * (5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25, rel=1e-9)
    # A text that is too short pays e^(1 - 8 / 5).
    assert bleu(["a b c d e"], ["a b c d e f g h"]) == pytest.approx(100 * math.exp(1 - 8 / 5), rel=1e-9)
    assert bleu(["a b c d"], ["a b c d"]) == pytest.approx(100)


def test_bleu_of_characters_by_hand():
    # Digits: 4 of 5, 3 of 4, 2 of 3 and 1 of 2 are right.
    assert bleu(["12345"], ["12347"], tokenize="char") == pytest.approx(100 * (4 / 5 * 3 / 4 * 2 / 3 / 2) ** 0.25)


@pytest.mark.parametrize("tokenize", ["13a", "char"])
def test_bleu_is_sacrebleus(tokenize):
    expected = sacrebleu.BLEU(tokenize=tokenize).corpus_score(list(PREDICTIONS), [list(REFERENCES)]).score
    assert 10 < expected < 90
    assert bleu(PREDICTIONS, REFERENCES, tokenize=tokenize) == expected


def test_perplexity_and_bits_per_byte_by_hand():
    assert perplexity(6 * math.log(7), 6) == pytest.approx(7, rel=1e-12)
    assert perplexity(1e9, 1) < math.inf
    assert bits_per_byte(5 * math.log(2), 2) == pytest.approx(2.5, rel=1e-12)


def test_the_metrics_of_pairs():
    found = evaluation().metrics()
    assert found == {
        "exact_match": 2 / 5,
        "bleu": bleu(PREDICTIONS, REFERENCES),
        "perplexity": pytest.approx(math.exp(0.5), rel=1e-12),
        "loss": 0.5,
    }


def test_bleus_tokenisation_is_kept():
    values = {**vars(evaluation()), "bleu_tokenize": "char"}
    assert PairEvaluation(**values).metrics()["bleu"] == bleu(PREDICTIONS, REFERENCES, tokenize="char")
    assert PairEvaluation(**values).metrics()["bleu"] != evaluation().metrics()["bleu"]


def test_figures_of_each_group_in_the_order_of_names():
    assert evaluation().per_group() == [
        GroupFigures("de", 0.0, 1),
        GroupFigures("en", 0.5, 2),
        GroupFigures("nl", 0.5, 2),
    ]


def test_mistakes():
    assert evaluation().mistakes() == [1, 2, 4]
    assert evaluation(slice(0, 1)).mistakes() == []


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_shards_of_processes_are_one_evaluation(world_size):
    """With seven processes, two have no pair at all."""
    nats, counts = [0.5, 0.75, 1.0, 1.25, 0.0, 0.0, 0.0], [3, 1, 2, 1, 0, 0, 0]
    shards = [
        evaluation(
            slice(rank, None, world_size), sum(nats[rank::world_size]), sum(counts[rank::world_size]), (f"{rank}",)
        )
        for rank in range(world_size)
    ]
    joined, whole = PairEvaluation.joined(shards), evaluation()
    assert sorted(joined.names) == sorted(whole.names)
    assert joined.skipped == tuple(map(str, range(world_size)))
    assert joined.metrics() == pytest.approx(whole.metrics(), rel=1e-12)
    assert joined.per_group() == whole.per_group()
    assert {joined.names[i] for i in joined.mistakes()} == {whole.names[i] for i in whole.mistakes()}
    by_name = {name: (s, r, p, g) for s, r, p, g, name in zip(*list(vars(joined).values())[:5], strict=True)}
    for s, r, p, g, name in zip(*list(vars(whole).values())[:5], strict=True):
        assert by_name[name] == (s, r, p, g)


def test_without_pairs_there_are_no_figures():
    with pytest.raises(RegardError, match="evaluation: there is no pair"):
        evaluation(slice(0, 0), 0.0, 0).metrics()


def test_the_metrics_of_a_text():
    found = TextEvaluation(nats=12 * math.log(2), num_tokens=4, num_bytes=8).metrics()
    assert found == pytest.approx({"bits_per_byte": 1.5, "perplexity": 8.0, "loss": 3 * math.log(2)}, rel=1e-12)


def test_shards_of_a_text_are_one():
    """Each shard has the number of bytes of the whole text; one has nothing to score."""
    shards = [TextEvaluation(2.0, 3, 11), TextEvaluation(0.5, 1, 11), TextEvaluation(0.0, 0, 11)]
    assert TextEvaluation.joined(shards) == TextEvaluation(2.5, 4, 11)
