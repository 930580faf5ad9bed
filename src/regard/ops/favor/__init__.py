"""FAVOR+: softmax attention estimated with random features (Choromanski et al. 2020)."""
