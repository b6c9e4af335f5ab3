"""How likely a model finds the right words of captions, by what the words say: colour, shape, size, place, number.

    python -m experiments.word_accuracy MODEL … --data FOLDER [--records 256]

FOLDER is a Shapes world with captions (`python -m onethinker_jax.train shapes_base` makes one in its run). The true
caption is given word by word, and the model's probability of each next word is averaged over the words of a class. No
answer is sampled: what a model sees is told apart from how it answers. Take captions that no run was trained on.
"""

from onethinker_jax import command_line

if __name__ == "__main__":
    command_line.begin()

import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from flax import nnx

from experiments.words import name_of_model, say
from onethinker_jax.data_pipeline.batches.packing import Batch, pack_rows
from onethinker_jax.data_pipeline.processor.processor import Example
from onethinker_jax.data_pipeline.records.record_file import RecordFile
from onethinker_jax.data_pipeline.shapes.scene import COLOURS, SHAPES
from onethinker_jax.errors import UserError
from onethinker_jax.model.hf_weights import load_hf
from onethinker_jax.train.config.presets import shapes
from onethinker_jax.train.lm_head import token_logprobs
from onethinker_jax.train.preflight.prepare import make_processor

PROG = "python -m experiments.word_accuracy"
CLASSES = {
    "colour": tuple(COLOURS),
    "shape": tuple(SHAPES),
    "size": ("small", "medium", "large"),
    "place": ("upper", "middle", "lower", "left", "right", "centre"),
}
ROWS, TOKENS, PATCHES = 8, 320, 416  # of a batch


@dataclass(frozen=True)
class Arguments:
    """The mean probability of a caption's words by class, one JSON line a model."""

    models: tyro.conf.Positional[tuple[Path, ...]]
    """Hugging Face directories of models of the Shapes world."""
    data: Path
    """Folder of a Shapes world with captions."""
    records: int = 256
    """Captions to read: the last of the file."""


def word_class(word: str) -> str:
    """What a word of a caption says; "other" where it says nothing of what is seen."""
    bare = word.strip().lower().rstrip(".,")
    found = [name for name, words in CLASSES.items() if bare in words]
    return found[0] if found else "number" if bare.isdigit() else "other"


def measure(model: Path, data: Path, records: int) -> dict[str, object]:
    """Mean probability and number of words by class."""
    captions = [
        row for row in RecordFile(data / "onethinker_sft.json") if row.data_source == "shapes_captions"
    ]
    if len(captions) < records:
        raise UserError(f"{data}: {len(captions)} captions, not {records}")
    processor = make_processor(shapes(), model)
    classes = [word_class(processor.decode([token])) for token in range(shapes().model.vocab_size)]
    graphdef, params = nnx.split(load_hf(model))

    @jax.jit
    def logprobs(params: nnx.State, batch: Batch) -> jax.Array:
        net = nnx.merge(graphdef, params)
        found, _ = token_logprobs(
            net(batch.inputs), net.head(), jnp.asarray(batch.targets), jnp.asarray(batch.target_mask)
        )
        return found

    values: dict[str, list[float]] = defaultdict(list)
    for batch in batches([processor.training(one) for one in captions[-records:]]):
        found, mask, targets = np.asarray(logprobs(params, batch)), batch.target_mask, batch.targets
        for value, token in zip(found[mask], targets[mask], strict=True):
            values[classes[token]].append(float(np.exp(value)))
    means = {
        name: {"probability": round(float(np.mean(v)), 3), "words": len(v)} for name, v in values.items()
    }
    return {"model": name_of_model(model), "captions": records, **dict(sorted(means.items()))}


def batches(examples: Sequence[Example]) -> list[Batch]:
    """All examples, packed."""
    made, left = [], list(examples)
    while left:
        batch, left = pack_rows(left, rows=ROWS, tokens=TOKENS, patches=PATCHES)
        made.append(batch)
    return made


def run(arguments: Arguments) -> None:
    """A line a model."""
    for model in arguments.models:
        say(json.dumps(measure(model, arguments.data, arguments.records)))


if __name__ == "__main__":
    sys.exit(command_line.main(Arguments, run, sys.argv[1:], prog=PROG))
