"""A run's newest checkpoint -> a Hugging Face directory that transformers and vLLM load.

python -m onethinker_jax.train.export runs/shapes --out my-model
"""

from onethinker_jax import command_line

if __name__ == "__main__":  # the imports below take seconds
    command_line.begin()

from onethinker_jax.train.export_arguments import Arguments

if __name__ == "__main__":
    command_line.help_if_asked(Arguments, prog="python -m onethinker_jax.train.export")

import sys
from functools import partial
from pathlib import Path

import jax.numpy as jnp
from flax import nnx

from onethinker_jax.data_pipeline.processor.chat import ChatTokenizer
from onethinker_jax.data_pipeline.processor.end_tokens import (
    EndTokens,
    read_end_tokens,
    read_generation_config,
)
from onethinker_jax.model.config import Qwen3VLConfig
from onethinker_jax.model.hf_weights import save_hf
from onethinker_jax.model.qwen3_vl import Qwen3VL
from onethinker_jax.train.checkpoint import CheckpointError, Checkpoints
from onethinker_jax.train.run_folder import RunFolder


def export_model(model: Qwen3VL, base: Path, out: Path) -> None:
    """Weights, config, tokenizer, processor and generation config into `out`, whole or not at all.

    A model directory that stands there is replaced; raises FileExistsError for anything else.
    """
    ends = check_export(base, out)
    generation = read_generation_config(base, ends)
    save_hf(model, out, copy_from=base, extra_config=ends.to_hf(), generation_config=generation)


def check_export(base: Path, out: Path) -> EndTokens:
    """What `export_model` needs beside the weights, so that a run that cannot end well does not begin.

    Raises FileExistsError, or ProcessorError naming a file of `base`.
    """
    check_out(out)
    return read_end_tokens(base, ChatTokenizer(base))


def check_out(out: Path) -> None:
    """Raises FileExistsError where a model cannot be exported to."""
    if out.exists() and not (out / "config.json").is_file():
        raise FileExistsError(f"{out}: exists and is no model directory; it is not replaced")


def load_run(run: Path) -> Qwen3VL:
    """The policy of a run's newest checkpoint; raises CheckpointError when there is none."""
    folder = RunFolder(run)
    if not folder.checkpoints.is_dir():
        raise CheckpointError(f"{run}: holds no checkpoints; is this the folder of a run?")
    config = Qwen3VLConfig.from_directory(folder.base)
    checkpoints = Checkpoints(folder.checkpoints, keep=None)
    newest = checkpoints.newest()
    if newest is None:
        raise CheckpointError(f"{folder.checkpoints}: holds no checkpoint yet")
    values = checkpoints.parameters(newest[0])
    checkpoints.close()
    graphdef, shapes = nnx.split(nnx.eval_shape(lambda: Qwen3VL(config, rngs=nnx.Rngs(0))))
    flat = [
        (path, variable.replace(jnp.asarray(values[".".join(map(str, path))])))
        for path, variable in nnx.to_flat_state(shapes)
    ]
    return nnx.merge(graphdef, nnx.from_flat_state(flat))


def run(arguments: Arguments) -> None:
    """Exports, and prints where to."""
    export_model(load_run(arguments.run), RunFolder(arguments.run).base, arguments.out)
    sys.stdout.write(f"{arguments.out}\n")


main = partial(command_line.main, Arguments, run, prog="python -m onethinker_jax.train.export")

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
