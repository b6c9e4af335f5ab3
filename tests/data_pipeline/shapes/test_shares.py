import pytest

from onethinker_jax.data_pipeline.shapes.world import ShapesWorld


def test_the_sft_file_asks_choices_three_times_as_often_as_the_others():
    def share(split: str) -> float:
        counts = ShapesWorld(seed=0, train_rl=1, train_sft=1, heldout=1).task_counts(100_000, split)
        return sum(n for (_, task), n in counts.items() if task.problem_type == "multiple choice") / 100_000

    assert share("rl") == share("eval") == pytest.approx(15 / 99, abs=1e-4)
    assert share("sft") == pytest.approx(45 / (99 + 30), abs=1e-4)
