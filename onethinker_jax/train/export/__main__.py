"""A checkpoint of a run -> a Hugging Face directory that transformers and vLLM load.

python -m onethinker_jax.train.export runs/shapes --out my-model
"""

from onethinker_jax import command_line

if __name__ == "__main__":  # the imports below take seconds
    command_line.begin()

from onethinker_jax.train.export.arguments import Arguments

if __name__ == "__main__":
    command_line.help_if_asked(Arguments, prog="python -m onethinker_jax.train.export")

import sys
from functools import partial

from onethinker_jax.lora_settings import LoRAError
from onethinker_jax.train.export.check import check_directory
from onethinker_jax.train.export.directory import export_adapter, export_stored
from onethinker_jax.train.export.model_card import CARD, card_to_write, model_card
from onethinker_jax.train.export.stored_model import stored_model
from onethinker_jax.train.run_folder import RunFolder


def run(arguments: Arguments) -> None:
    """Exports, and prints where to; with `check` also what the comparison found."""
    folder, out = RunFolder(arguments.run), arguments.out
    model = stored_model(arguments.run, arguments.step).in_dtype(arguments.dtype)
    if arguments.adapter:
        if model.adapters is None:
            raise LoRAError(
                f"--adapter: {arguments.run} trains every weight, not adapters (model.lora.rank 0)"
            )
        export_adapter(model.policy(), model.adapters.base, out)
    else:
        made = model_card(
            folder,
            model.parameters[0].dtype,
            checkpoint=None if model.newest else model.number,
            heldout=model.heldout,
        )
        card, kept = card_to_write(out, made, overwrite=arguments.overwrite_card)
        export_stored(model, folder.base, out, files={CARD: card})
        if kept:
            sys.stderr.write(f"{out / CARD}: was edited, and is kept (--overwrite-card writes it anew)\n")
    sys.stdout.write(f"{out}\n")
    if arguments.check:
        sys.stdout.write(f"{check_directory(model, out, arguments.check_tolerance)}\n")


main = partial(command_line.main, Arguments, run, prog="python -m onethinker_jax.train.export")

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
