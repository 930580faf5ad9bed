"""Figures of models of text, from the cross-entropy that they give a text."""

import math


def perplexity(nats: float, num_tokens: int) -> float:
    """exp(nats / num_tokens): the model is as uncertain as among that many tokens of equal probability."""
    return math.exp(min(nats / num_tokens, 700.0))  # e^710 is beyond a float


def bits_per_byte(nats: float, num_bytes: int) -> float:
    """nats / (ln 2 · num_bytes): the bits that the model needs for a byte of text, comparable between tokenizers."""
    return nats / math.log(2) / num_bytes
