"""The HTML pages of a run: charts, galleries of answers, rollouts, the summary."""
