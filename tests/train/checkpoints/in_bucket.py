"""Checkpoints in a bucket, as a run keeps them there: written, kept, read, damaged, listed.

python -m tests.train.checkpoints.in_bucket gs://BUCKET/FOLDER RUN
"""

import json
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from etils import epath

from onethinker_jax.train.checkpoints.__main__ import main
from onethinker_jax.train.checkpoints.checkpoints import CheckpointError, Checkpoints
from onethinker_jax.train.config.checkpoints import CheckpointSettings
from tests.train.checkpoints.test_checkpoints import fresh, same, stepped

directory, run = sys.argv[1], Path(sys.argv[2])
settings = CheckpointSettings(directory=directory, on_damaged="older")
writer, state, states = Checkpoints(directory, settings), fresh(), {}
for number in (1, 2, 3, 4):
    state = stepped(state, number)
    writer.save(number, state, {"stage": "rl"}, heldout=0.5 if number == 1 else None)
    states[number] = jax.device_get(state)
writer.add_score(3, 0.25)
writer.close()

reader = Checkpoints(directory)
assert reader.numbers() == [1, 3, 4] and reader.best() == 1 and reader.score(3) == 0.25
newest = reader.newest()
assert newest is not None and newest[0] == 4
same(reader.restore(4, fresh()), states[4])
kernel = reader.arrays(3).read("lm_head.kernel")
np.testing.assert_array_equal(kernel, states[3].params["lm_head"]["kernel"])

(run / "config.json").write_text(json.dumps({"checkpoints": {"directory": directory}}))
assert main([str(run), "--verify"]) == 0

file = epath.Path(directory) / "4" / "host" / "metadata"
data = file.read_bytes()
file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
assert main([str(run), "--verify"]) == 1
with pytest.raises(
    CheckpointError, match=r"gs://made/.*/4 cannot be restored: host/metadata is not as it was"
):
    Checkpoints(directory).newest()
writer = Checkpoints(directory, settings)
(said,) = writer.settle()
assert said.endswith("this run goes on from checkpoint 3"), said
assert writer.numbers() == [1, 3]
same(writer.restore(3, fresh()), states[3])
writer.close()
assert main([str(run), "--keep.last", "1"]) == 0
assert Checkpoints(directory).numbers() == [3]
