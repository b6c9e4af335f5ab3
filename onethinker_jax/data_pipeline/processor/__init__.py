"""A record and its media become an `Example`: chat template, tokens, patches, positions, all as Qwen3-VL's."""
