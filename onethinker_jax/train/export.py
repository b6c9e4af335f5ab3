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
from onethinker_jax.lora_settings import LoRAError
from onethinker_jax.model.config import Qwen3VLConfig
from onethinker_jax.model.hf_weights import load_hf, save_hf
from onethinker_jax.model.lora import add_adapters, merge_adapters
from onethinker_jax.model.parameters import join_adapters, split_adapters
from onethinker_jax.model.peft_directory import CONFIG, save_peft
from onethinker_jax.model.qwen3_vl import Qwen3VL
from onethinker_jax.train.checkpoints.adapter_record import AdapterRecord
from onethinker_jax.train.checkpoints.checkpoints import CheckpointError, Checkpoints
from onethinker_jax.train.run_folder import RunFolder


def export_model(model: Qwen3VL, base: Path, out: Path) -> None:
    """Weights, config, tokenizer, processor and generation config into `out`, whole or not at all.

    Adapters are merged into the weights. A model directory that stands there is replaced; raises FileExistsError for
    anything else.
    """
    ends = check_export(base, out)
    generation = read_generation_config(base, ends)
    save_hf(
        merge_adapters(model), out, copy_from=base, extra_config=ends.to_hf(), generation_config=generation
    )


def check_export(base: Path, out: Path) -> EndTokens:
    """What `export_model` needs beside the weights, so that a run that cannot end well does not begin.

    Raises FileExistsError, or ProcessorError naming a file of `base`.
    """
    check_out(out)
    return read_end_tokens(base, ChatTokenizer(base))


def export_adapter(model: Qwen3VL, base: str, out: Path) -> None:
    """The adapters alone into `out`, as `peft` loads them onto `base`, whole or not at all.

    A directory of adapters that stands there is replaced; raises FileExistsError for anything else.
    """
    if out.exists() and not (out / CONFIG).is_file():
        raise FileExistsError(f"{out}: exists and is no directory of adapters; it is not replaced")
    save_peft(model, out, base=base)


def check_out(out: Path) -> None:
    """Raises FileExistsError where a model cannot be exported to."""
    if out.exists() and not (out / "config.json").is_file():
        raise FileExistsError(f"{out}: exists and is no model directory; it is not replaced")


def load_run(run: Path) -> Qwen3VL:
    """The policy of a run's newest checkpoint; raises CheckpointError when there is none."""
    return _newest(run)[0]


def _newest(run: Path) -> tuple[Qwen3VL, AdapterRecord | None]:
    """The policy, and where that is a base with adapters, what these are of."""
    folder = RunFolder(run)
    if not folder.checkpoints.is_dir():
        raise CheckpointError(f"{run}: holds no checkpoints; is this the folder of a run?")
    config = Qwen3VLConfig.from_directory(folder.base)
    checkpoints = Checkpoints(folder.checkpoints)
    newest = checkpoints.newest()
    if newest is None:
        raise CheckpointError(f"{folder.checkpoints}: holds no checkpoint yet")
    number, host = newest
    values = checkpoints.arrays(number)
    checkpoints.close()
    record = AdapterRecord.from_json(host["adapters"]) if "adapters" in host else None
    if record is None:
        model = nnx.eval_shape(lambda: Qwen3VL(config, rngs=nnx.Rngs(0)))
    else:
        record.check_base(folder.checkpoints / str(number))
        model = load_hf(record.base, dtype=jnp.dtype(record.dtype))
        add_adapters(model, record.lora, rngs=nnx.Rngs(0), dtype=jnp.dtype(jnp.float32))
    graphdef, shapes = nnx.split(model)
    trained, base = split_adapters(shapes)
    flat = [
        (path, variable.replace(jnp.asarray(values.read(".".join(map(str, path))))))
        for path, variable in nnx.to_flat_state(trained)
    ]
    return nnx.merge(graphdef, join_adapters(nnx.from_flat_state(flat), base)), record


def run(arguments: Arguments) -> None:
    """Exports, and prints where to."""
    model, record = _newest(arguments.run)
    if not arguments.adapter:
        export_model(model, RunFolder(arguments.run).base, arguments.out)
    elif record is None:
        raise LoRAError(f"--adapter: {arguments.run} trains every weight, not adapters (model.lora.rank 0)")
    else:
        export_adapter(model, record.base, arguments.out)
    sys.stdout.write(f"{arguments.out}\n")


main = partial(command_line.main, Arguments, run, prog="python -m onethinker_jax.train.export")

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
