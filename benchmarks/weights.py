"""Time and peak memory of loading and saving a Hugging Face checkpoint that is made for the purpose.

    python -m benchmarks.weights --gigabytes 4 [--experts] [--scratch DIRECTORY]

Each step runs in a process of its own. "Beyond" is the peak resident memory above what the process held with
JAX running and, on a CPU, above the parameters themselves, which live in the same memory there. Files come
from the page cache, as they were just written: what is timed is this code, not the disk.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

LAYERS = 16


def sizes(gigabytes: float, *, experts: bool):
    """A config whose bfloat16 checkpoint has about that many bytes, most of it in the decoder's layers."""
    from onethinker_jax.model.config import MoEConfig, Qwen3VLConfig, TextConfig, VisionConfig

    width = max(round((gigabytes * 1e9 / 2 / LAYERS / 12.5) ** 0.5 / 128), 1) * 128
    moe = MoEConfig(num_experts=16, experts_per_token=2, intermediate_size=width // 16 * 3)
    return Qwen3VLConfig(
        text=TextConfig(
            vocab_size=8192,
            hidden_size=width,
            intermediate_size=3 * width,
            num_layers=LAYERS,
            num_heads=width // 128,
            num_kv_heads=width // 128,
            moe=moe if experts else None,
        ),
        vision=VisionConfig(
            depth=2,
            hidden_size=256,
            intermediate_size=512,
            num_heads=4,
            out_hidden_size=width,
            deepstack_layers=(1,),
        ),
    )


def resident() -> int:
    """Bytes of memory of this process that no file backs."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status: no RssAnon; this benchmark needs Linux")


class Watch:
    """Peak of `resident` while the block runs, looked at every 5 ms, and its seconds."""

    def __enter__(self) -> "Watch":
        self.before = self.peak = resident()
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._look)
        self.thread.start()
        self.began = time.perf_counter()
        return self

    def _look(self) -> None:
        while not self.done.wait(0.005):
            self.peak = max(self.peak, resident())

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self.began
        self.peak = max(self.peak, resident())
        self.done.set()
        self.thread.join()


def make(scratch: Path, gigabytes: float, experts: bool) -> dict[str, float]:
    """Writes the checkpoint: random values, one tensor at a time."""
    import jax.numpy as jnp
    import numpy as np
    from flax import nnx

    from onethinker_jax.model.hf_weights import save_hf
    from onethinker_jax.model.qwen3_vl import Qwen3VL

    config = sizes(gigabytes, experts=experts)
    graphdef, shapes = nnx.split(
        nnx.eval_shape(lambda: Qwen3VL(config, rngs=nnx.Rngs(0), dtype=jnp.bfloat16))
    )
    rng = np.random.default_rng(0)
    flat = [
        (path, leaf.replace(jnp.asarray(rng.integers(0, 1 << 14, leaf.shape, np.uint16)).view(jnp.bfloat16)))
        for path, leaf in nnx.to_flat_state(shapes)
    ]
    save_hf(nnx.merge(graphdef, nnx.from_flat_state(flat)), scratch / "made")
    files = list((scratch / "made").glob("*.safetensors"))
    return {"gigabytes": sum(file.stat().st_size for file in files) / 1e9, "files": len(files)}


def load_and_save(scratch: Path) -> dict[str, float]:
    import jax
    import jax.numpy as jnp
    from flax import nnx

    from onethinker_jax.model.hf_weights import load_hf, save_hf

    jax.block_until_ready(jnp.zeros(8) + 1)
    with Watch() as load:
        model = load_hf(scratch / "made", dtype=jnp.bfloat16)
        parameters = jax.block_until_ready(nnx.state(model))
    kept = sum(leaf.nbytes for leaf in jax.tree.leaves(parameters))
    on_host = kept if jax.default_backend() == "cpu" else 0
    with Watch() as save:
        save_hf(model, scratch / "again")
    return {
        "largest_tensor_gigabytes": max(
            leaf.nbytes / (len(leaf) if leaf.shape[0] == LAYERS else 1)
            for leaf in jax.tree.leaves(parameters)
        )
        / 1e9,
        "load_seconds": load.seconds,
        "load_beyond_gigabytes": (load.peak - load.before - on_host) / 1e9,
        "save_seconds": save.seconds,
        "save_beyond_gigabytes": (save.peak - save.before) / 1e9,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Time and memory of load_hf and save_hf.")
    parser.add_argument("--gigabytes", type=float, default=4.0)
    parser.add_argument("--experts", action="store_true", help="a mixture-of-experts checkpoint")
    parser.add_argument("--scratch", type=Path, help="where to write; a temporary directory by default")
    parser.add_argument("--step", choices=["make", "measure"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step is not None:
        result = (
            make(arguments.scratch, arguments.gigabytes, arguments.experts)
            if arguments.step == "make"
            else load_and_save(arguments.scratch)
        )
        sys.stdout.write(json.dumps(result) + "\n")
        return
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        found: dict[str, float] = {}
        for step in ("make", "measure"):
            command = [sys.executable, "-m", "benchmarks.weights", "--step", step, "--scratch", scratch]
            command += ["--gigabytes", str(arguments.gigabytes), *(["--experts"] * arguments.experts)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            found |= json.loads(done.stdout.splitlines()[-1])
    for name, value in found.items():
        sys.stdout.write(f"{name:<28}{value:>10.3f}\n")


if __name__ == "__main__":
    main()
