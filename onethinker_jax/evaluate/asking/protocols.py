"""How a model is asked: as it was trained, or as in the two harnesses of OneThinker's published numbers.

`own` takes the directory's sizes of images and the project's defaults, as held-out answers of training do.
`onethinker` is OneThinker's own script (`Evaluation/Eval/eval_bench.py`), `vlmevalkit` its copy of VLMEvalKit
(`Evaluation/VLMEvalKit`, the entry of its model and the vLLM branch of Qwen3-VL). The words are ours; those of a
checkpoint's own prompt file go before (`onethinker_prompts` makes one of a copy of OneThinker's repository).
"""

from collections.abc import Mapping

from onethinker_jax.data_pipeline.processor.prompts import OWN_PROMPTS, Prompts
from onethinker_jax.evaluate.benchmarks.types import Protocol
from onethinker_jax.model_arguments import AnswerDefaults, ModelArguments
from onethinker_jax.tasks import TABLE, TASKS, Task

_IMAGE_MAX_PIXELS, _MAX_NEW_TOKENS = 1024 * 32 * 32, 8192
# The fewest is the default of qwen-vl-utils, with which both harnesses read videos.
_FRAME_MIN_PIXELS, _FRAME_MAX_PIXELS = 128 * 32 * 32, 256 * 32 * 32

DEFAULTS: Mapping[Protocol, AnswerDefaults] = {
    "own": AnswerDefaults(),
    "onethinker": AnswerDefaults(
        max_new_tokens=_MAX_NEW_TOKENS,
        temperature=0.0,
        image_max_pixels=_IMAGE_MAX_PIXELS,
        video_fps=2.0,
        video_max_frames=128,
        video_min_pixels=_FRAME_MIN_PIXELS,
        video_max_pixels=_FRAME_MAX_PIXELS,
    ),
    "vlmevalkit": AnswerDefaults(
        max_new_tokens=_MAX_NEW_TOKENS,
        temperature=0.1,
        top_p=0.001,
        image_max_pixels=_IMAGE_MAX_PIXELS,
        video_num_frames=128,
        video_min_pixels=_FRAME_MIN_PIXELS,
        video_max_pixels=_FRAME_MAX_PIXELS,
    ),
}
"""What counts under a protocol where no flag says otherwise."""


def _system_template(task: Task) -> str:
    """The user's turn where the instruction is in the system's: of a choice among options, which kind of answer."""
    if TABLE[task.problem_type].answer == "letter":
        return "{question}\n{options}\nGive the letter of the right option."
    return "{question}"


_VLMEVALKIT = Prompts(
    {
        "system": "Think about the question in <think></think>, then give the answer in <answer></answer>.",
        **{str(task): _system_template(task) for task in TASKS},
    },
    "protocol vlmevalkit",
)
WORDS: Mapping[Protocol, Prompts] = {
    "own": OWN_PROMPTS,
    "onethinker": OWN_PROMPTS,
    "vlmevalkit": _VLMEVALKIT,
}
"""Our words under a protocol, for checkpoints without a prompt file."""


def protocol_prompts(protocol: Protocol, arguments: ModelArguments) -> Prompts:
    """The words under a protocol: of the prompt file, else of the checkpoint's own, else ours. Raises PromptError."""
    return arguments.prompts(WORDS[protocol], protocol=protocol)
