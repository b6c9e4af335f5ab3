"""Judges: a language model behind an OpenAI-compatible endpoint that reads answers which no rule can read."""
