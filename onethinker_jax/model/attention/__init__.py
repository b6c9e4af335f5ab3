"""Attention: the door (`attention`), its back ends (XLA, Pallas for TPU and GPU), and decoding from a KV cache."""
