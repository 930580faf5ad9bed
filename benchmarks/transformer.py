"""The Transformer against torch.nn.Transformer, the same weights, interleaved; and what a key-value cache is worth.

Run: .venv/bin/python benchmarks/transformer.py [--repetitions 11]
"""

import argparse
import statistics
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from peer import interleaved, median_ratio, save
from regard.models import PRESETS, LanguageModel, LanguageModelConfig, Transformer, build, configure
from regard.models.decoding import greedy, uncached
from regard.weights import from_torch_transformer

BATCH, TOKENS, NEW_TOKENS = 16, 64, 256


class Peer(nn.Module):
    """torch.nn.Transformer between our embedding and logits: only the layers differ."""

    def __init__(self, ours: Transformer, dropout: float) -> None:
        super().__init__()
        config = PRESETS["transformer_base"]
        self.embed = ours.tgt_embed
        self.layers = nn.Transformer(
            config.embed_dim, config.num_heads, config.depth, config.depth, dropout=dropout, batch_first=True
        )

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        future = nn.Transformer.generate_square_subsequent_mask(target.shape[1], device=target.device)
        x = self.layers(self.embed(source), self.embed(target), tgt_mask=future, tgt_is_causal=True)
        return self.embed.logits(x)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=11)
    repetitions = parser.parse_args().repetitions
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows = []
    for measure, case in ((_training, 0.0), (_training, 0.1), (_generation, "attention"), (_generation, "performer")):
        row = measure(case, repetitions, device)
        print("  ".join(f"{name} {value}" for name, value in row.items()), flush=True)
        rows.append(row)
    print(f"saved to {save('transformer', {'repetitions': repetitions, 'rows': rows})}")


def _training(dropout: float, repetitions: int, device: torch.device) -> dict[str, Any]:
    """A step of forward, loss, backward and Adam. torch's layers have dropout in more places than the paper's."""
    ours = build(configure("transformer_base", {"dropout": dropout, "final_norm": True})).to(device).train()
    peer = Peer(ours, dropout).to(device).train()
    ours.load_state_dict(from_torch_transformer(peer.layers.state_dict()), strict=False)
    peer.embed = build(configure("transformer_base", {"dropout": dropout})).tgt_embed.to(device)
    peer.embed.load_state_dict(ours.tgt_embed.state_dict())
    source, target = torch.randint(3, 37_000, (2, BATCH, TOKENS), device=device)
    inputs = torch.cat([target.new_ones(BATCH, 1), target[:, :-1]], dim=1)
    if not dropout:
        torch.testing.assert_close(ours(source, inputs), peer(source, inputs), rtol=1e-3, atol=1e-3)

    def step(model: nn.Module) -> Any:
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-5, betas=(0.9, 0.98), eps=1e-9)

        def run() -> float:
            loss = F.cross_entropy(model(source, inputs).flatten(0, 1), target.flatten(), label_smoothing=0.1)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            return loss.item()

        return run

    seconds = interleaved({"torch": step(peer), "regard": step(ours)}, repetitions=repetitions)
    return {
        "what": "training step of transformer_base",
        "batch": BATCH,
        "tokens": TOKENS,
        "dropout": dropout,
        **{f"{name}_ms": round(1e3 * statistics.median(times), 1) for name, times in seconds.items()},
        "ratio": round(median_ratio(seconds["torch"], seconds["regard"]), 3),
    }


def _generation(mixer: str, repetitions: int, device: torch.device) -> dict[str, Any]:
    """256 tokens of one text by a decoder of transformer_base's size, with and without a cache."""
    config = LanguageModelConfig(vocab_size=259, context=NEW_TOKENS + 8, mixer=mixer)
    model = LanguageModel(config).to(device).eval()
    prompt = torch.randint(3, 259, (1, 8), device=device)

    @torch.inference_mode()
    def cached() -> Any:
        return greedy(model.step, prompt, eos=None, max_new_tokens=NEW_TOKENS).tokens

    @torch.inference_mode()
    def recomputed() -> Any:
        step = uncached(lambda tokens: model.embed.logits(model.decoder(model.embed(tokens))[:, -1]))
        return greedy(step, prompt, eos=None, max_new_tokens=NEW_TOKENS).tokens

    same = (cached() == recomputed()).float().mean().item()
    turns = max(repetitions // 3, 1)  # the uncached way takes minutes
    seconds = interleaved({"uncached": recomputed, "cached": cached}, repetitions=turns, warm_up=1)
    return {
        "what": f"generation with {mixer}",
        "new_tokens": NEW_TOKENS,
        "same_tokens": same,
        **{f"{name}_s": round(statistics.median(times), 3) for name, times in seconds.items()},
        "ratio": round(median_ratio(seconds["uncached"], seconds["cached"]), 2),
    }


if __name__ == "__main__":
    main()
