"""Benchmarks of temporal, spatial and spatio-temporal grounding: where and when something is."""

from onethinker_jax.evaluate.benchmarks.task_metrics import BOX, SPANS, TUBE
from onethinker_jax.evaluate.benchmarks.types import Benchmark, DataFile

_TEMPORAL = (
    Benchmark(
        name="eval_charades",
        title="Charades",
        family="temporal grounding",
        files=(
            DataFile("onethinker", "eval_charades.json"),
            DataFile(
                "charades-sta", "charades_sta/charades_sta_test.txt", media="charades_sta/videos", rows=3720
            ),
            DataFile(
                "charades-sta-lmms", "charades_sta/test.parquet", media="charades_sta/videos", rows=3720
            ),
        ),
        metrics=SPANS,
        published={
            "R@0.3": (0.580, 0.835),
            "R@0.5": (0.335, 0.683),
            "R@0.7": (0.131, 0.453),
            "mIoU": (0.367, 0.599),
        },
        protocol="onethinker",
    ),
    Benchmark(
        name="eval_activitynet",
        title="ActivityNet",
        family="temporal grounding",
        files=(
            DataFile("onethinker", "eval_activitynet.json"),
            DataFile(
                "activitynet-captions", "activitynet/val_2.json", media="activitynet/videos", rows=17031
            ),
        ),
        metrics=SPANS,
        published={
            "R@0.3": (0.399, 0.650),
            "R@0.5": (0.261, 0.436),
            "R@0.7": (0.153, 0.257),
            "mIoU": (0.291, 0.459),
        },
        protocol="onethinker",
        note="The paper does not say which of ActivityNet Captions' validation files its rows come from.",
    ),
    Benchmark(
        name="eval_anet_rtl",
        title="ANet-RTL",
        family="temporal grounding",
        files=(
            DataFile("onethinker", "eval_anet_rtl.json"),
            DataFile("anet-rtl", "anet_rtl/annot_val_1_q229.json", media="activitynet/videos", rows=229),
        ),
        metrics=SPANS,
        published={
            "R@0.3": (0.362, 0.620),
            "R@0.5": (0.275, 0.423),
            "R@0.7": (0.183, 0.227),
            "mIoU": (0.266, 0.432),
        },
        protocol="onethinker",
        rule="mean of videos",
        note="Its authors average over the questions of a video, then over videos, and take the whole video for the "
        "span of an answer without one; they also score the explanation by a judge, which the paper leaves out.",
    ),
)


def _refcoco(title: str, split: str, rows: int, base: float, onethinker: float) -> Benchmark:
    """`rows`: sentences of the original split."""
    name = title.lower().replace("+", "p")
    original = f"{title.lower()}/refs({'umd' if title == 'RefCOCOg' else 'unc'}).p"
    return Benchmark(
        name=f"eval_{name}_{split}",
        title=title,
        family="spatial grounding",
        files=(
            DataFile("onethinker", f"eval_{name}_{split}.json"),
            DataFile("refcoco", original, media="train2014", rows=rows),
        ),
        split=split,
        metrics=BOX,
        published={"R@0.5": (base, onethinker)},
        protocol="onethinker",
        note="The paper's number is R@0.5, the share of boxes of IoU 0.5 or more; mIoU is the mean IoU.",
    )


_SPATIAL = (
    _refcoco("RefCOCO", "testA", 5657, 0.922, 0.937),
    _refcoco("RefCOCO", "testB", 5095, 0.853, 0.889),
    _refcoco("RefCOCO", "val", 10834, 0.899, 0.920),
    _refcoco("RefCOCO+", "testA", 5726, 0.896, 0.914),
    _refcoco("RefCOCO+", "testB", 4889, 0.778, 0.827),
    _refcoco("RefCOCO+", "val", 10758, 0.845, 0.870),
    _refcoco("RefCOCOg", "test", 9602, 0.867, 0.888),
    _refcoco("RefCOCOg", "val", 4896, 0.868, 0.892),
)

_SPATIO_TEMPORAL = (
    Benchmark(
        name="eval_stvg",
        title="STVG",
        family="spatio-temporal grounding",
        files=(
            DataFile("onethinker", "eval_stvg.json"),
            DataFile("hc-stvg", "hcstvg/val_v2.json", media="hcstvg/videos", rows=2000),
            DataFile("vidstg", "vidstg/test_annotations.json", media="vidstg/videos", rows=10303),
        ),
        metrics=TUBE,
        published={
            "tIoU@0.5": (0.244, 0.349),
            "tIoU": (0.254, 0.395),
            "sIoU@0.5": (0.116, 0.403),
            "sIoU": (0.136, 0.367),
        },
        protocol="onethinker",
        note="The paper does not say whether its rows are of HC-STVG or of VidSTG.",
    ),
)

ROWS: tuple[Benchmark, ...] = (*_TEMPORAL, *_SPATIAL, *_SPATIO_TEMPORAL)
