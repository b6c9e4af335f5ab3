"""The records that the presets of tiny models make for themselves fit the presets' own rows."""

from pathlib import Path

import pytest

from onethinker_jax.data_pipeline.processor.record_lengths import measure, misfits
from onethinker_jax.data_pipeline.records.record import read_records
from onethinker_jax.data_pipeline.shapes.world import build_shapes_world
from onethinker_jax.data_pipeline.worlds.world import WorldPaths
from onethinker_jax.train.config.presets import SHAPES_BASE, shapes, shapes_base, shapes_long
from onethinker_jax.train.preflight.prepare import make_processor
from onethinker_jax.train.preflight.record_limits import limits_of


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> WorldPaths:
    folder = tmp_path_factory.mktemp("world") / "shapes"
    return build_shapes_world(
        folder, seed=3, train_rl=300, train_sft=600, heldout=300, captions=50, processes=1
    )


@pytest.mark.parametrize("preset", [shapes, shapes_long, shapes_base])
def test_every_record_of_the_shapes_world_fits(preset, world: WorldPaths) -> None:
    config = preset()
    processor = make_processor(config, Path(SHAPES_BASE))
    files = {"sft": world.sft_json, "rl": world.rl_json, "heldout": world.eval_json}
    for purpose, limits in limits_of(config).items():
        records = read_records(files[purpose])
        measured = measure(records, range(len(records)), processor, training=purpose == "sft")
        assert not measured.errors
        assert not misfits(measured.lengths, limits), purpose


def test_every_answer_of_the_shapes_world_can_be_sampled(world: WorldPaths) -> None:
    processor = make_processor(shapes(), Path(SHAPES_BASE))
    records = read_records(world.sft_json)
    whole, prompts = (
        measure(records, range(len(records)), processor, training=training).lengths[:, 0]
        for training in (True, False)
    )
    longest = (whole - prompts).max()  # its end token, too
    assert longest > 130
    for config in (shapes(), shapes_long()):
        assert longest <= config.rl.rollout.max_new_tokens
        assert longest <= config.evaluation.sampler.max_new_tokens
