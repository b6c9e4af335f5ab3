"""The checkpoints of a run: written, kept, checked and read."""
