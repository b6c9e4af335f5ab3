"""An OpenAI-compatible endpoint, whoever is behind it: annotation's teacher, a judge, a model to be evaluated."""
