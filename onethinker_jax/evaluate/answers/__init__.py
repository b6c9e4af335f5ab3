"""Answers to a benchmark: asked for, scored, and kept on disk as they come."""
