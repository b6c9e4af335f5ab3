"""A run of the trainer that is opened and not trained: the policy, its records and its scorer, for measurements."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import jax
from flax import nnx

from onethinker_jax.rewards.score_pool import score_pool
from onethinker_jax.scoring import Scorer
from onethinker_jax.train.checkpoints.checkpoints import Checkpoints
from onethinker_jax.train.config.run import TrainConfig
from onethinker_jax.train.hosts import join_hosts
from onethinker_jax.train.log.compilation_watch import count_compilations
from onethinker_jax.train.open_run import Run
from onethinker_jax.train.policy import Policy
from onethinker_jax.train.run import (
    Ready,
    begin,
    connect_service,
    first_policy,
    make_scorer,
    open_log,
    prepare,
)


@dataclass(frozen=True)
class OpenedRun:
    """What a run has before its first step."""

    ready: Ready
    policy: Policy
    params: nnx.State
    scorer: Scorer
    run: Run


@contextmanager
def opened(config: TrainConfig) -> Iterator[OpenedRun]:
    """The run with its reward service, for the block; raises what the trainer raises before its first step."""
    hosts = join_hosts(config.hosts)
    begin(config, hosts)
    with open_log(config, hosts) as log, count_compilations() as compilations:
        ready = prepare(config, hosts, log)
        with (
            jax.set_mesh(ready.mesh),
            connect_service(config, hosts.folder(config), log) as client,
            score_pool(config.sidecar.score_workers) as pool,
        ):
            policy, params = first_policy(config, ready.mesh, log)
            scorer = make_scorer(config, client, pool, ready.processor)
            checkpoints = Checkpoints(config.checkpoint_directory, config.checkpoints)
            try:
                yield OpenedRun(
                    ready, policy, params, scorer, Run(hosts, log, checkpoints, config.folder, compilations)
                )
            finally:
                checkpoints.close()
