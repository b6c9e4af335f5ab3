"""Sampling answers: one compiled program a batch (`generate`), continuous batching over it, choosing a token."""
