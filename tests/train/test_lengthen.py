"""A run goes on for more steps, as if it had had them from the start."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from onethinker_jax.train.config.optimizer import OptimizerSettings
from tests.train import making
from tests.train.rl.small_run import FIRST, SETTINGS, metrics, numbers, same
from tests.train.test_sft import SETTINGS as SFT_SETTINGS
from tests.train.test_sft import Batches
from tests.train.test_sft import train as train_sft

CONSTANT = OptimizerSettings(learning_rate=1e-2, schedule="constant", warmup=0.0)


@pytest.mark.parametrize("overlap", [False, True])
def test_rl_goes_on_as_if_it_had_been_longer(train, tmp_path: Path, overlap: bool) -> None:
    long = SETTINGS
    if overlap:
        long = replace(
            SETTINGS, overlap=True, loss=replace(SETTINGS.loss, importance_sampling="token_truncate")
        )
    whole = train(tmp_path / "whole", settings=long)
    train(tmp_path / "grown", settings=replace(long, steps=2))
    assert numbers(tmp_path / "grown") == [FIRST + 2]
    same(train(tmp_path / "grown", settings=long), whole)
    assert metrics(tmp_path / "grown") == metrics(tmp_path / "whole")


def test_sft_goes_on_as_if_it_had_been_longer(tmp_path: Path) -> None:
    policy, long = making.policy(), replace(SFT_SETTINGS, optimizer=CONSTANT)
    whole = making.named(train_sft(policy, tmp_path / "whole", Batches(), long))
    train_sft(policy, tmp_path / "grown", Batches(), replace(long, steps=3))
    grown = making.named(train_sft(policy, tmp_path / "grown", Batches(), long))
    for name, values in whole.items():
        np.testing.assert_array_equal(grown[name], values, err_msg=name)
