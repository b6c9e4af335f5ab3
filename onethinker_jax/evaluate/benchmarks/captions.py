"""Benchmarks of captions: figures of papers, images of many tasks, recorded lectures."""

from onethinker_jax.evaluate.benchmarks.question_answering import tsv
from onethinker_jax.evaluate.benchmarks.task_metrics import ACCURACY, RATING, WRITTEN_TEXT
from onethinker_jax.evaluate.benchmarks.types import Benchmark, DataFile

ROWS: tuple[Benchmark, ...] = (
    Benchmark(
        name="MMSci_DEV_Captioning_image_only",
        title="MMSci-Caption",
        family="captioning",
        files=tsv("MMSci_DEV_Captioning_image_only", "0f5f0fd7ff383699fbd2203a4659d3e8"),
        metrics=(*(name for name in WRITTEN_TEXT if name != "accuracy"), RATING),
        published={"ROUGE-L": (0.151, 0.257)},
        published_form="standard",
        protocol="vlmevalkit",
        judge="optional",
        note="The paper does not say which of VLMEvalKit's metrics its number is: ROUGE-L and METEOR fit its size. "
        "G-Eval is a judge's mean rating from 1 to 5.",
    ),
    Benchmark(
        name="MMT-Caption",
        title="MMT-Caption",
        family="captioning",
        files=tsv("MMT-Bench_VAL", "8dd4b730f53dbf9c3aed90ca31c928e0"),
        split="l2-category=visual_captioning",
        metrics=ACCURACY,
        published={"accuracy": (0.473, 0.579)},
        published_form="standard",
        protocol="vlmevalkit",
        judge="optional",
        rule="mean of means",
        note="The paper names no file: most likely it is the column visual_captioning of MMT-Bench's report, the mean "
        "of its subtasks' means.",
    ),
    Benchmark(
        name="Video_MMLU_CAP",
        title="VideoMMLU-Caption",
        family="captioning",
        files=(DataFile("video-mmlu", "Video-MMLU/Video_MMLU_CAP.tsv"),),
        rows=1_065,
        metrics=ACCURACY,
        published={"accuracy": (0.200, 0.280)},
        protocol="vlmevalkit",
        judge="required",
        rule="questions of a caption",
        note="The share of questions that a judge answers rightly from the caption alone; VLMEvalKit scores one "
        "question of each video, and draws one of 24 instructions without a seed.",
    ),
)
