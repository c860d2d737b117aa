"""Frozen image networks: their weights, features, priors and ranking."""
