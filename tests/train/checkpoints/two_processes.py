"""One of two processes of two devices each: they save together, find a damaged checkpoint, and take the older one.

python -m tests.train.checkpoints.two_processes NUMBER PORT FOLDER
"""

import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from onethinker_jax.host_settings import HostSettings
from onethinker_jax.model.sharding import make_mesh
from onethinker_jax.train.checkpoints.checkpoints import Checkpoints
from onethinker_jax.train.config.checkpoints import CheckpointSettings
from onethinker_jax.train.hosts import join_hosts
from onethinker_jax.train.log.compilation_watch import Compilations
from onethinker_jax.train.log.log import RunLog
from onethinker_jax.train.open_run import Run
from onethinker_jax.train.run_folder import RunFolder

number, port, folder = int(sys.argv[1]), sys.argv[2], RunFolder(Path(sys.argv[3]))
hosts = join_hosts(HostSettings(f"127.0.0.1:{port}", 2, number))
mesh = make_mesh(fsdp=4)
values = np.arange(8 * 5, dtype=np.float32).reshape(8, 5)


def state(step: int) -> Any:
    """Parameters that lie on the devices of both."""
    sharding = NamedSharding(mesh, PartitionSpec("fsdp"))
    array = jax.make_array_from_callback(values.shape, sharding, lambda index: values[index] * step)
    return {"params": {"kernel": array}}


checkpoints = Checkpoints(folder.checkpoints, CheckpointSettings(on_damaged="older"))
with RunLog(folder.of_process(number).path) as log:
    run = Run(hosts, log, checkpoints, folder, Compilations())
    for step in (1, 2, 3):
        run.save(step, state(step), "rl", {"place": 10 * step + number}, health=None, heldout=1.0 / step)
    assert checkpoints.numbers() == [1, 2, 3] and checkpoints.best() == 1

    def damage() -> None:
        (file, *_) = sorted((folder.checkpoints / "3" / "state").glob("**/d/*"))
        data = file.read_bytes()
        file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))

    hosts.first_does(damage)
    saved = run.newest()
    assert saved is not None and saved[0] == 2
    assert saved[1]["hosts"][number] == {"place": 20 + number}
    kernel = checkpoints.restore(2, state(0))["params"]["kernel"]  # type: ignore[index]
    for shard in kernel.addressable_shards:
        np.testing.assert_array_equal(np.asarray(shard.data), 2 * values[shard.index])
    run.save(3, state(4), "rl", {"place": 40 + number}, health=None)
    checkpoints.close()
