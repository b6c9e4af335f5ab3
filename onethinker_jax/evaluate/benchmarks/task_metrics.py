"""Which metrics a task has: of a file of a user's own they follow from the tasks in it."""

from collections.abc import Iterable, Mapping

from onethinker_jax.tasks import TASKS, Task, complete, is_structured

ACCURACY = ("accuracy",)
READ_TEXT = ("accuracy", "WER")
WRITTEN_TEXT = ("accuracy", "ROUGE-L", "METEOR", "CIDEr", "BLEU-2")
RATING = "G-Eval"
"""A judge's rating of a caption: only of benchmarks that name it."""
SPANS = ("R@0.3", "R@0.5", "R@0.7", "mIoU")
BOX = ("R@0.5", "mIoU")
TUBE = ("tIoU@0.5", "tIoU", "sIoU@0.5", "sIoU", "vIoU")
TRACK = ("AO", "R@0.3", "R@0.5", "R@0.7", "SR@0.5", "SR@0.75")
IMAGE_MASK = ("cIoU", "gIoU")
VIDEO_MASK = ("J", "F", "J&F")

_OF_TEXT = {"OCR": READ_TEXT, "open-ended": WRITTEN_TEXT}

METRICS: Mapping[Task, tuple[str, ...]] = complete(
    "evaluate/benchmarks/task_metrics.py",
    {
        Task("temporal grounding", "video"): SPANS,
        Task("spatial grounding", "image"): BOX,
        Task("spatial-temporal grounding", "video"): TUBE,
        Task("tracking", "video"): TRACK,
        Task("segmentation", "image"): IMAGE_MASK,
        Task("segmentation", "video"): VIDEO_MASK,
        **{
            task: _OF_TEXT.get(task.problem_type, ACCURACY)
            for task in TASKS
            if not is_structured(task.problem_type)
        },
    },
    TASKS,
)


def is_measured(task: Task, metric: str) -> bool:
    """Whether answers of a task have a metric, where the benchmark has it."""
    return metric in METRICS[task] or (metric == RATING and task.problem_type == "open-ended")


def metrics_of(tasks: Iterable[Task]) -> tuple[str, ...]:
    """The metrics of these tasks, each once, in the order of the table of tasks."""
    asked = set(tasks)
    return tuple(dict.fromkeys(name for task in TASKS if task in asked for name in METRICS[task]))
