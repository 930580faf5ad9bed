"""FNet's text encoder, against transformers'."""

import pytest
import torch
from torch.testing import assert_close

from regard import RegardError, create_model
from regard.models import PRESETS, FNet, FNetConfig, build
from regard.weights import from_transformers_fnet


def both(**sizes):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.FNetConfig(
        vocab_size=101, hidden_size=24, num_hidden_layers=3, intermediate_size=96, max_position_embeddings=37
    )
    theirs = transformers.FNetModel(config).eval()
    for parameter in theirs.parameters():  # norms and biases too
        torch.nn.init.normal_(parameter, std=0.3)
    ours = FNet(FNetConfig(vocab_size=101, embed_dim=24, depth=3, max_tokens=37)).eval()
    ours.load_state_dict(from_transformers_fnet(theirs.state_dict()))
    return theirs, ours


@pytest.mark.parametrize("length", [1, 19, 37])
def test_it_equals_transformers(length):
    theirs, ours = both()
    tokens, types = torch.randint(101, (5, length)), torch.randint(4, (5, length))
    wanted = theirs(input_ids=tokens, token_type_ids=types)
    found = ours(tokens, types)
    assert_close(found, wanted.last_hidden_state, rtol=1e-5, atol=1e-5)
    assert_close(ours.pool(found), wanted.pooler_output, rtol=1e-5, atol=1e-5)
    assert_close(ours(tokens), theirs(input_ids=tokens).last_hidden_state, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("name", "millions"), [("fnet_base", 83), ("fnet_large", 238)])
def test_parameters_are_those_of_the_paper(name, millions):
    """Table 3, less the heads of pre-training; embeddings included."""
    with torch.device("meta"):
        model = build(PRESETS[name])
    assert abs(sum(parameter.numel() for parameter in model.parameters()) / 1e6 - millions) < 3


def test_too_many_tokens():
    model = create_model("fnet_base", vocab_size=11, embed_dim=8, depth=1, max_tokens=7)
    with pytest.raises(RegardError, match="8 tokens, but positions for 7 only"):
        model(torch.zeros(2, 8, dtype=torch.int64))


def test_unexpected_names():
    with pytest.raises(RegardError, match=r"not a state dict of transformers' FNet: it has lm_head\.weight"):
        from_transformers_fnet({"lm_head.weight": torch.zeros(1)})
