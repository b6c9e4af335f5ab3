"""Pause, time, size and peak memory of a checkpoint: of the parameters of a released size, made at random.

    python -m benchmarks.checkpoints [--member 2b] [--moments] [--scratch DIRECTORY]

The state is the size's parameters in bfloat16, with `--moments` also Adam's two in float32. On a CPU it takes twice its
own size in memory: itself, and the copy that is being written. "Pause" is how long `save` keeps the caller; "written"
is from its begin until the checkpoint is whole, checksums included. "Beyond" is the peak of resident memory above what
the process held before. Files come from the page cache, as they were just written.
"""

import argparse
import os
import sys
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from benchmarks.weights import Watch
from onethinker_jax.model.family import family_member
from onethinker_jax.model.qwen3_vl import Qwen3VL
from onethinker_jax.model.stored_parameters import StoredParameter, save_parameters
from onethinker_jax.train.checkpoints.checkpoints import Checkpoints
from onethinker_jax.train.checkpoints.checksums import damage, size_of
from onethinker_jax.train.config.checkpoints import CheckpointSettings


def random_array(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """Normal numbers, as weights are to a compressor; made in parts, so that none but the result is large."""
    values = np.empty(shape, jnp.dtype(dtype))
    flat = values.reshape(-1)
    for first in range(0, flat.size, 1 << 24):
        part = flat[first : first + (1 << 24)]
        part[...] = rng.standard_normal(part.size, np.float32) * np.float32(0.02)
    return jnp.asarray(values)


def random_state(member: str, *, moments: bool) -> Any:
    """The parameters of the released size, and Adam's moments of them."""
    rng = np.random.default_rng(0)
    model = nnx.eval_shape(lambda: Qwen3VL(family_member(member), rngs=nnx.Rngs(0)))
    shapes = nnx.state(model, nnx.Param)

    def filled(dtype: Any) -> Any:
        return jax.tree.map(lambda leaf: random_array(rng, leaf.shape, dtype), shapes)

    return {"params": filled("bfloat16"), "moments": [filled("float32") for _ in range(2 * moments)]}


def checksum(array: jax.Array) -> int:
    return zlib.crc32(np.asarray(array).view(np.uint8).data)


def say(what: str, watch: Watch, more: str = "") -> None:
    sys.stdout.write(
        f"{what:<28} {watch.seconds:8.2f} s, {(watch.peak - watch.before) / 2**30:6.2f} GiB beyond{more}\n"
    )
    sys.stdout.flush()


def measure(member: str, folder: Path, *, moments: bool) -> None:
    state = random_state(member, moments=moments)
    count = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    sys.stdout.write(f"{member}: {count / 2**30:.2f} GiB in {len(jax.tree.leaves(state))} arrays, ")
    sys.stdout.write(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores\n")
    checkpoints = Checkpoints(folder / "checkpoints", CheckpointSettings())
    began = time.process_time()
    with Watch() as whole:
        with Watch() as pause:
            checkpoints.save(1, state, {"stage": "rl", "hosts": []})
        checkpoints.close()
    say("pause", pause)
    written = size_of(checkpoints.directory / "1")
    more = f"; {written / 2**30:.2f} GiB on the disk, {time.process_time() - began:.0f} s of processors"
    say("written, with checksums", whole, more)
    with Watch() as watch:
        found = damage(checkpoints.directory / "1")
    assert found is None, found
    say("verified", watch)
    sums = [checksum(leaf) for leaf in jax.tree.leaves(state)]
    like = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state
    )
    del state
    reader = Checkpoints(folder / "checkpoints")
    with Watch() as watch:
        restored = jax.block_until_ready(reader.restore(1, like))
    say("restored", watch)
    assert sums == [checksum(leaf) for leaf in jax.tree.leaves(restored)]
    del restored
    arrays = reader.arrays(1)
    largest = max(one.dtype.itemsize * int(np.prod(one.shape)) for one in arrays.shapes.values())
    parameters = [
        StoredParameter(name, one.shape, np.dtype(one.dtype), lambda name=name: arrays.read(name))
        for name, one in arrays.shapes.items()
    ]
    with Watch() as watch:
        save_parameters(parameters, family_member(member), folder / "model")
    say("exported", watch, f"; the largest array has {largest / 2**30:.2f} GiB")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--member", default="2b", help="a released size, such as 8b")
    parser.add_argument("--moments", action="store_true", help="with Adam's moments in float32")
    parser.add_argument("--scratch", type=Path, help="folder for the files, which are deleted at the end")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as folder:
        measure(arguments.member, Path(folder), moments=arguments.moments)


if __name__ == "__main__":
    main()
