"""A process that scores: `pool.ScorePool` starts it, sends it parts of a batch, and replaces it if it dies."""

from __future__ import annotations

from onethinker_jax.rewards.metrics import mean_rouge, word_accuracy
from onethinker_jax.rewards.score_pool import score_rows
from onethinker_jax.worker_process import serve_lines


def main() -> None:
    """Imports what the first scores would wait for, and serves."""
    mean_rouge("warming up", "warming up")
    word_accuracy("warming up", "warm up")
    serve_lines(score_rows)


if __name__ == "__main__":
    main()
