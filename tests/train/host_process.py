"""One of two processes of two devices each: what they exchange, and arrays over the devices of both.

python -m tests.train.host_process NUMBER PORT
"""

import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from onethinker_jax.host_settings import HostSettings
from onethinker_jax.model.qwen3_vl import Qwen3VL
from onethinker_jax.model.sharding import (
    ShardingError,
    decoding_layout,
    local_mesh,
    make_mesh,
    shard_rows,
    tree_shardings,
)
from onethinker_jax.processes import CHUNK_BYTES, HostError
from onethinker_jax.train.hosts import join_hosts
from tests.train.making import CONFIG_FOR_TWO

number, port = int(sys.argv[1]), sys.argv[2]
hosts = join_hosts(HostSettings(f"127.0.0.1:{port}", 2, number))
assert (hosts.index, hosts.count, jax.device_count()) == (number, 2, 4)

# Messages of any length, of unequal length, around the ends of a chunk.
for size in (0, 1, CHUNK_BYTES - 11, CHUNK_BYTES - 10, CHUNK_BYTES - 9, 3 * CHUNK_BYTES):
    lengths = [size, 2 * size]
    assert hosts.gather("ä" * lengths[number]) == ["ä" * length for length in lengths]
value = {"a": [0.1, float(number), None], "b": number == 1}
assert hosts.gather(value) == [{"a": [0.1, 0.0, None], "b": False}, {"a": [0.1, 1.0, None], "b": True}]
assert hosts.any(number == 1) and not hosts.any(False)

done = []
hosts.first_does(lambda: done.append(number))
assert done == ([0] if number == 0 else [])
failure = IndexError if number == 0 else HostError
with pytest.raises(failure, match="list index out of range"):
    hosts.first_does(lambda: [][1])
with pytest.raises(ShardingError, match="tensor=4 is split over processes"):
    make_mesh(tensor=4)

# Each gives its rows of a batch; what is summed over the whole is known to both.
mesh = make_mesh(fsdp=2, tensor=2)
rows = shard_rows(np.full((3, 5), number + 1.0, np.float32), mesh)
assert rows.shape == (6, 5) and float(jnp.sum(rows)) == 15 * 1.0 + 15 * 2.0

# The parameters of all, as each process decodes with them on its own devices.
graphdef, shapes = nnx.split(nnx.eval_shape(lambda: Qwen3VL(CONFIG_FOR_TWO, rngs=nnx.Rngs(0))))


def fresh() -> nnx.State:
    return nnx.state(Qwen3VL(CONFIG_FOR_TWO, rngs=nnx.Rngs(0)))


params = jax.jit(fresh, out_shardings=tree_shardings(shapes, mesh))()
mine = local_mesh(mesh)
assert mine.shape == {"data": 1, "fsdp": 1, "tensor": 2}
assert {device.process_index for device in mine.devices.flat} == {number}
layout = decoding_layout(params, mine, "float32")
for (path, ours), wanted in zip(
    jax.tree_util.tree_leaves_with_path(layout), jax.tree.leaves(jax.jit(fresh)()), strict=True
):
    assert ours.is_fully_addressable, path
    np.testing.assert_array_equal(np.asarray(ours), np.asarray(wanted), err_msg=str(path))
kernel: Any = layout["decoder"]["layers"]["q_proj"]["kernel"][...]
assert kernel.addressable_shards[0].data.size == kernel.size // 2
again = decoding_layout(layout, mine, "float32")
assert jax.tree.leaves(again)[0] is jax.tree.leaves(layout)[0]  # nothing is left to do
