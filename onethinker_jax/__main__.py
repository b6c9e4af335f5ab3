"""python -m onethinker_jax: what there is to be run, a line each."""

import inspect
import sys

from onethinker_jax import __version__
from onethinker_jax.train.config.presets import PRESETS

COMMANDS = {
    "train [PRESET]": "a whole run: data, SFT, EMA-GRPO, held-out answers, a page, an exported model",
    "train.plan [PRESET]": "does a preset fit a TPU slice or GPUs, and how fast could it be",
    "train.checkpoints RUN": "the checkpoints of a run: listed, verified, deleted",
    "train.export RUN": "a run's newest checkpoint as a Hugging Face directory",
    "train.replay RUN": "the update at which a run stopped over NaN, computed once more, part by part",
    "evaluate MODEL FILE": "a model's answers to a benchmark file, scored by task",
    "evaluate.score PREDICTIONS BENCHMARK": "metrics of answers that are there, without a model",
    "evaluate.compare A B": "which of two evaluations is better, problem by problem, and how sure that is",
    "evaluate.page OUT [OUT2]": "an evaluation, or two side by side, as one HTML file with examples drawn",
    "evaluate.onethinker_prompts REPO": "OneThinker's own wording, out of a copy of its repository",
    "demo MODEL MEDIA QUESTION": "one question about images or videos, its answer drawn; --chat asks on",
    "demo MODEL --serve": "a page where one drops a medium in, asks, and watches the model think",
    "serve MODEL": "a model behind OpenAI's API: chat about texts, images and videos, streamed",
    "data_pipeline.check FILES": "are record files and their media fit for training, and what do they hold",
    "data_pipeline.sources LAYOUT PATH": "a public data set as a training file, filtered and counted",
    "data_pipeline.photos LIBRARY OUT": "the Photos world: records of all tasks out of a library of real pictures",
    "data_pipeline.photos.packages OUT": "a library of real pictures for the Photos world, out of packages",
    "data_pipeline.photos.own_folder": "the same out of a folder of your own pictures",
    "data_pipeline.annotate FILES": "an SFT set from a teacher's answers to records",
    "data_pipeline.records.tfds_builder": "records as TFDS folders, read at random without JSON",
    "rewards.server": "the reward service: judges open-ended answers, makes masks",
}
"""What stands behind `python -m onethinker_jax.`, and what it is for."""


def overview() -> str:
    """Every command and every preset, a line each."""
    wide = max(map(len, [*COMMANDS, *PRESETS]))
    lines = [f"onethinker_jax {__version__}: fine-tune Qwen3-VL to reason over images and videos", ""]
    lines += [
        "Commands: python -m onethinker_jax.",
        *(f"  {name:<{wide}}  {said}" for name, said in COMMANDS.items()),
    ]
    lines += ["", "Presets of train and train.plan:"]
    lines += [f"  {name:<{wide}}  {_purpose(preset)}" for name, preset in PRESETS.items()]
    lines += [
        "",
        "Each command lists its flags with --help. Start with python -m onethinker_jax.train smoke.",
    ]
    return "\n".join(lines) + "\n"


def _purpose(preset: object) -> str:
    """The first line of a preset's docstring after its command."""
    first = (inspect.getdoc(preset) or "").splitlines()[0]
    return first.rpartition("`: ")[2].rstrip(".") or first


if __name__ == "__main__":
    sys.stdout.write(overview())
