"""Texts: from a file to a batch of token ids.

pairs.py          lines of SOURCE<TAB>TARGET -> `PairSource`: pair(i), name(i); `TextPairs`: two splits
numbers.py        numbers in words and their digits, made when they are read
corpus.py         running text -> `TextData`, whose end is held out
tokenizers.py     text <-> token ids: bytes, or byte-pair encoding
batches.py        pairs -> `PairBatch`, padded; running text -> `WindowBatch`, windows of context + 1 tokens
"""
