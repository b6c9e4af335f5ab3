"""One of two processes of two devices each: an update that is not finite in the rows of one of them.

python -m tests.train.health.nonfinite_process NUMBER PORT FOLDER

Both skip it, both see the same, and both keep their rows of it for the replay, which process 0 reads again.
"""

import math
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from onethinker_jax.host_settings import HostSettings
from onethinker_jax.model.sharding import make_mesh, shard_rows
from onethinker_jax.train.advantages import init_moments
from onethinker_jax.train.config.optimizer import OptimizerSettings
from onethinker_jax.train.health.replay_folder import FailedUpdate, read_replay, write_replay
from onethinker_jax.train.hosts import join_hosts
from onethinker_jax.train.optimizer import make_optimizer
from onethinker_jax.train.run_folder import RunFolder
from onethinker_jax.train.state import init_state, make_update

number, port, folder = int(sys.argv[1]), sys.argv[2], RunFolder(Path(sys.argv[3]))
hosts = join_hosts(HostSettings(f"127.0.0.1:{port}", 2, number))
mesh = make_mesh(fsdp=2, tensor=2)


def loss(params: Any, _: Any, batch: Any) -> Any:
    return jnp.sum(batch["rows"] @ params["lm_head"]["kernel"]), {"tokens": jnp.float32(4)}


optimizer = make_optimizer(OptimizerSettings(1e-2, warmup=0.0), 4, train_vision=True)
update = make_update(loss, optimizer, stop_after=1)
rows = np.full((2, 4), number + 1.0, np.float32)
rows[1, 2] = math.nan if number == 1 else 1.0
with jax.set_mesh(mesh):
    params: Any = {"lm_head": {"kernel": jnp.ones((4, 8))}}
    state = init_state(params, optimizer, init_moments(1), mesh, reference=False)
    laid = shard_rows({"rows": rows}, mesh)
    gradients, sums = update.accumulate(state.params, None, update.zeros(state.params), laid)
    state, norm = update.apply(state, gradients, sums["tokens"], sums["loss"])
    assert int(state.skips.total) == int(state.skips.in_a_row) == 1 and int(state.step) == 0
    for shard in state.params["lm_head"]["kernel"].addressable_shards:
        assert np.all(np.asarray(shard.data) == 1)
    failed = FailedUpdate(7, float(sums["loss"]), float(norm), [{"rows": rows}], [{"from": number}])
    path = write_replay(folder, failed, state, {"stage": "sft"}, hosts)
    assert path == folder.replay("sft", 7)
    assert hosts.gather((path / "facts.json").is_file()) == [True, True]
    kept = read_replay(path)
    (arrays,) = kept.micro_batches
    expected = np.concatenate([np.ones((2, 4), np.float32), np.full((2, 4), 2.0, np.float32)])
    expected[3, 2] = math.nan
    np.testing.assert_array_equal(arrays["rows"], expected)
    assert kept.records == [{"process": 0, "from": 0}, {"process": 1, "from": 1}]
    again = kept.state(state)
    assert int(again.skips.total) == 1
    for ours, theirs in zip(jax.tree.leaves(again), jax.tree.leaves(state), strict=True):
        for mine, other in zip(ours.addressable_shards, theirs.addressable_shards, strict=True):
            np.testing.assert_array_equal(np.asarray(mine.data), np.asarray(other.data))
hosts.gather(None)
