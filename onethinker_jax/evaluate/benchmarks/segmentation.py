"""Benchmarks of segmentation: boxes and points that prompt the masks of an object, in an image or a video."""

from onethinker_jax.evaluate.benchmarks.task_metrics import IMAGE_MASK, VIDEO_MASK
from onethinker_jax.evaluate.benchmarks.types import Benchmark, DataFile


def _image(title: str, rows: int, base: float, onethinker: float) -> Benchmark:
    """`rows`: sentences of the original split."""
    original = f"{title.lower()}/refs({'umd' if title == 'RefCOCOg' else 'unc'}).p"
    name = f"eval_seg_{title.lower().replace('+', 'p')}"
    return Benchmark(
        name=name,
        title=title,
        family="image segmentation",
        files=(
            DataFile("onethinker", f"{name}.json"),
            DataFile("refcoco-seg", original, media="train2014", rows=rows),
        ),
        split="val",
        metrics=IMAGE_MASK,
        published={"cIoU": (base, onethinker)},
        protocol="onethinker",
        note="The released script leaves an answer that gives no prompt out of the means.",
    )


def _video(name: str, title: str, original: DataFile, published: dict[str, tuple[float, float]]) -> Benchmark:
    return Benchmark(
        name=name,
        title=title,
        family="video segmentation",
        files=(DataFile("onethinker", f"{name}.json"), original),
        metrics=VIDEO_MASK,
        published=published,
        protocol="onethinker",
        note="The released F uses a square of 0.0075 of the diagonal, DAVIS a disk of 0.008.",
    )


ROWS: tuple[Benchmark, ...] = (
    _image("RefCOCO", 10834, 0.732, 0.758),
    _image("RefCOCO+", 10758, 0.662, 0.671),
    _image("RefCOCOg", 4896, 0.683, 0.708),
    _video(
        "eval_seg_mevis",
        "MeViS",
        DataFile("mevis", "mevis/valid_u", rows=793),
        {"J": (0.194, 0.488), "F": (0.264, 0.567), "J&F": (0.229, 0.527)},
    ),
    _video(
        "eval_seg_reasonvos",
        "ReasonVOS",
        DataFile("reasonvos", "ReasonVOS", rows=458),
        {"J": (0.166, 0.511), "F": (0.227, 0.587), "J&F": (0.196, 0.549)},
    ),
)
