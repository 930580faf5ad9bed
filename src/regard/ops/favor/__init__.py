"""FAVOR+, attention in linear time (Choromanski et al. 2020).

features.py    φ(x), the random features, and the directions that they are drawn from; the division that is safe at zero
attention.py   `favor_attention`: the definition, the choice of a path, the causal form and its step for new tokens
chunked.py     the same for some tokens at a time, with a backward pass of its own: faster for many tokens
"""
