"""A very small policy that is trained by RL on made-up records, with rewards by a rule (`rl.py`)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import jax
import pytest
from flax import nnx
from jax.sharding import Mesh

from onethinker_jax.data_pipeline.batches.loader import RecordStream
from onethinker_jax.data_pipeline.processor.processor import Processor
from onethinker_jax.data_pipeline.records.record import Record
from onethinker_jax.model.qwen3_vl import Qwen3VL
from onethinker_jax.model.sharding import make_mesh, tree_shardings
from onethinker_jax.responses import Sampler
from onethinker_jax.tasks import PROBLEM_TYPES
from onethinker_jax.train.checkpoints.checkpoints import Checkpoints
from onethinker_jax.train.config.checkpoints import CheckpointSettings, KeepSettings
from onethinker_jax.train.config.health import HealthSettings
from onethinker_jax.train.config.rl import RLSettings
from onethinker_jax.train.ema_grpo import train_ema_grpo
from onethinker_jax.train.hosts import Hosts
from onethinker_jax.train.log.compilation_watch import count_compilations
from onethinker_jax.train.log.log import RunLog
from onethinker_jax.train.open_run import Run
from onethinker_jax.train.policy import Policy
from onethinker_jax.train.rl.dynamic_sampling import Rollouts
from onethinker_jax.train.rl.saved_rollouts import SavedRollouts
from onethinker_jax.train.run_folder import RunFolder
from onethinker_jax.train.stopping.notice import Notice
from tests.data_pipeline.making import write_image, write_tokenizer
from tests.train import making
from tests.train.rl.small_run import FIRST, SEED, SETTINGS, Rule

HEALTH = HealthSettings()


@pytest.fixture(scope="session")
def processor(tmp_path_factory: pytest.TempPathFactory) -> Processor:
    directory = tmp_path_factory.mktemp("tokenizer")
    return Processor.from_pretrained(
        write_tokenizer(directory, image_pixels=(1024, 4096)), grid_side=8, cache_bytes=2**20
    )


@pytest.fixture(scope="session")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    picture = write_image(tmp_path_factory.mktemp("media") / "a.png", 64, 64)

    def record(number: int) -> Record:
        kind = PROBLEM_TYPES[number % 3]
        images, place = ((picture,), "<image>") if number % 2 else ((), "")
        problem = f"{place}What is {number}?"
        data_type = "image" if images else "text"
        return Record(number, problem, data_type, kind, (), f"<answer>{number}</answer>", images, (), "made")

    return [record(number) for number in range(20)]


@pytest.fixture(scope="session")
def policy(processor: Processor) -> tuple[nnx.GraphDef, nnx.State]:
    config = making.config_for(processor)
    mesh = make_mesh()
    graphdef, shapes = nnx.split(nnx.eval_shape(lambda: Qwen3VL(config, rngs=nnx.Rngs(0))))
    fresh = jax.jit(
        lambda: nnx.state(Qwen3VL(config, rngs=nnx.Rngs(0))), out_shardings=tree_shardings(shapes, mesh)
    )
    return graphdef, fresh()


@pytest.fixture(scope="session")
def sampler_on(policy: tuple[nnx.GraphDef, nnx.State], processor: Processor) -> Callable[[Mesh], Sampler]:
    """What makes a sampler for the run's settings on a mesh."""
    return lambda mesh: Sampler(
        policy[0],
        processor,
        SETTINGS.rollout.all_together(SETTINGS.prompts_per_step),
        mesh=mesh,
    )


@pytest.fixture(scope="session")
def sampler(sampler_on: Callable[[Mesh], Sampler]) -> Sampler:
    return sampler_on(make_mesh())


@pytest.fixture(scope="session")
def train(policy: tuple[nnx.GraphDef, nnx.State], records: list[Record], sampler: Sampler):
    """train(directory, scorer, settings, …) -> parameters at the end, from the newest checkpoint there.

    `corpus`: other records than the session's; `of`: another policy; `health`: other settings of it; `keep`: finished
    prompts are kept on disk.
    """

    def run(
        directory: Path,
        scorer: Any = None,
        settings: RLSettings = SETTINGS,
        at: Sampler = sampler,
        corpus: list[Record] | None = None,
        of: tuple[nnx.GraphDef, nnx.State] = policy,
        health: HealthSettings = HEALTH,
        keep: bool = False,
        notice: Notice | None = None,
        **shown: Any,
    ) -> nnx.State:
        graphdef, params = of
        folder = RunFolder(directory)
        checkpoints = Checkpoints(folder.checkpoints, CheckpointSettings(keep=KeepSettings(last=None)))
        scorer = scorer or cast(Any, Rule())
        stream = RecordStream(corpus or records, seed=SEED)
        with RunLog(directory) as log, count_compilations() as compilations:
            saved = SavedRollouts(folder.saved_rollouts, at, seed=SEED, log=log) if keep else None
            try:
                return train_ema_grpo(
                    Policy(graphdef, make_mesh()),
                    jax.tree.map(lambda leaf: leaf.copy(), params),
                    Rollouts(stream, at, scorer, settings, seed=SEED, log=log, saved=saved),
                    settings,
                    Run(
                        *(Hosts(), log, checkpoints, folder, compilations),
                        health=health,
                        notice=notice or Notice(),
                    ),
                    first_number=FIRST,
                    **shown,
                )
            finally:
                checkpoints.close()

    return run
