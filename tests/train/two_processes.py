"""One of two processes of four devices each: an SFT update on a mesh over both; process 0 writes what came of it.

python -m tests.train.two_processes NUMBER PORT FILE
"""

import os
import sys

number, port, file = int(sys.argv[1]), sys.argv[2], sys.argv[3]
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax  # noqa: E402

jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=2, process_id=number)

import numpy as np  # noqa: E402
from jax.experimental import multihost_utils  # noqa: E402

from onethinker_jax.model.sharding import make_mesh  # noqa: E402
from tests.train import making  # noqa: E402

assert (jax.device_count(), jax.local_device_count()) == (8, 4)
loss, arrays = making.sharded_update(make_mesh(data=2, fsdp=2, tensor=2))
arrays = {name: multihost_utils.process_allgather(array, tiled=True) for name, array in arrays.items()}
if number == 0:
    np.savez(file, loss=np.asarray(loss), **arrays)
