"""A run's model as a Hugging Face directory: exported, described, and held against transformers."""
