from benchmarks.rl_step import PROMPTS, SAMPLES
from benchmarks.rl_step_ours import rl_settings


def test_our_side_updates_once_a_step_on_all_groups_together() -> None:
    settings = rl_settings(3, prompt_tokens=85, patches=64)

    assert settings.num_minibatches == 1
    assert settings.prompts_per_step == settings.batch.rows == PROMPTS
    assert settings.rollout.group_size == SAMPLES
