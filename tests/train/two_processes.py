"""One of two processes of four devices each, on a mesh over both: an SFT update, and weights read and written.

python -m tests.train.two_processes NUMBER PORT FOLDER

Process 0 writes what came of the update into FOLDER/update.npz; both read FOLDER/weights/* and write FOLDER/again/*.
"""

import sys
from pathlib import Path

number, port, folder = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
import jax  # noqa: E402

jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=2, process_id=number)

import numpy as np  # noqa: E402
from jax.experimental import multihost_utils  # noqa: E402

from onethinker_jax.model.hf_weights import load_hf, save_hf  # noqa: E402
from onethinker_jax.model.sharding import make_mesh  # noqa: E402
from tests.train import making  # noqa: E402

assert (jax.device_count(), jax.local_device_count()) == (8, 4)
mesh = make_mesh(data=2, fsdp=2, tensor=2)
for checkpoint in sorted((folder / "weights").iterdir()):
    save_hf(load_hf(checkpoint, mesh=mesh), folder / "again" / checkpoint.name)

loss, arrays = making.sharded_update(mesh, slice(2 * number, 2 * number + 2))
arrays = {name: multihost_utils.process_allgather(array, tiled=True) for name, array in arrays.items()}
if number == 0:
    np.savez(folder / "update.npz", loss=np.asarray(loss), **arrays)
