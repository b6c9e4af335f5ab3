"""Benchmarks of questions about images and videos, as the paper's first two tables have them.

Images: VLMEvalKit's TSV files, in the folder that it keeps them in (LMUData); scored by VLMEvalKit. Videos: the files
that OneThinker published, or the data sets of their authors in a folder of the benchmark's name.
"""

from onethinker_jax.evaluate.benchmarks.task_metrics import ACCURACY
from onethinker_jax.evaluate.benchmarks.types import Benchmark, DataFile


def tsv(name: str, md5: str, *others: str) -> tuple[DataFile, ...]:
    """A TSV of VLMEvalKit, under its other names, or with its pictures in files beside it."""
    names = (f"{name}.tsv", *others)
    whole = tuple(DataFile("vlmevalkit", path, md5) for path in names)
    return (*whole, DataFile("vlmevalkit", f"{name}_local.tsv"))


_IMAGES = (
    Benchmark(
        name="MMMU_DEV_VAL",
        title="MMMU",
        family="image QA",
        files=tsv("MMMU_DEV_VAL", "585e8ad75e73f75dcad265dfd0417d64"),
        split="validation",
        rows=900,
        metrics=ACCURACY,
        published={"accuracy": (0.602, 0.706)},
        published_form="standard",
        protocol="vlmevalkit",
        judge="optional",
        note="The validation split alone; VLMEvalKit turns questions without options into a choice between the true "
        "answer and others, here they are compared as numbers or mathematics.",
    ),
    Benchmark(
        name="MathVista_MINI",
        title="MathVista",
        family="image QA",
        files=tsv("MathVista_MINI", "f199b98e178e5a2a20e7048f5dcb0464"),
        rows=1_000,
        metrics=ACCURACY,
        published={"accuracy": (0.742, 0.776)},
        published_form="standard",
        protocol="vlmevalkit",
        judge="optional",
        note="VLMEvalKit counts every answer that is a text or a list as wrong; here they are compared.",
    ),
    Benchmark(
        name="MathVerse_MINI",
        title="MathVerse",
        family="image QA",
        files=tsv("MathVerse_MINI", "5017caca32b7fa110c350a1bea861b65", "MathVerse_MINIV.tsv"),
        metrics=ACCURACY,
        published={"accuracy": (0.581, 0.643)},
        published_form="standard",
        protocol="vlmevalkit",
        judge="required",
        note="Published numbers are a judge's in both stages; comparing the answers as mathematics is another number.",
    ),
    Benchmark(
        name="MMBench_DEV_EN",
        title="MMBench",
        family="image QA",
        files=tsv("MMBench_DEV_EN", "b6caf1133a01c6bb705cf753bb527ed8"),
        metrics=ACCURACY,
        published={"accuracy": (0.851, 0.866)},
        published_form="standard",
        protocol="vlmevalkit",
        judge="optional",
        rule="circular",
        note="1,164 questions, each in the rotations of its options: one counts only if it is right in all of them.",
    ),
    Benchmark(
        name="MMStar",
        title="MMStar",
        family="image QA",
        files=tsv("MMStar", "e1ecd2140806c1b1bbf54b43372efb9e"),
        rows=1_500,
        metrics=ACCURACY,
        published={"accuracy": (0.685, 0.706)},
        published_form="standard",
        protocol="vlmevalkit",
        judge="optional",
    ),
    Benchmark(
        name="ScienceQA_TEST",
        title="ScienceQA",
        family="image QA",
        files=tsv("ScienceQA_TEST", "e42e9e00f9c59a80d8a5db35bc32b71f"),
        rows=2_017,
        metrics=ACCURACY,
        published={"accuracy": (0.920, 0.965)},
        published_form="standard",
        protocol="vlmevalkit",
        judge="optional",
        note="Only the test questions that have an image.",
    ),
    Benchmark(
        name="AI2D_TEST",
        title="AI2D",
        family="image QA",
        files=tsv("AI2D_TEST", "0f593e0d1c7df9a3d69bf1f947e71975"),
        rows=3_088,
        metrics=ACCURACY,
        published={"accuracy": (0.823, 0.852)},
        published_form="standard",
        protocol="vlmevalkit",
        judge="optional",
        note="The diagrams' labels are masked by the letters of the options.",
    ),
    Benchmark(
        name="MMT-Bench_VAL",
        title="MMT-Bench",
        family="image QA",
        files=tsv("MMT-Bench_VAL", "8dd4b730f53dbf9c3aed90ca31c928e0"),
        rows=3_127,
        metrics=ACCURACY,
        published={"accuracy": (0.641, 0.678)},
        protocol="vlmevalkit",
        judge="optional",
        rule="mean of means",
        note="The published number is a mean over questions, as the released form; the standard form is the mean over "
        "meta-tasks of the means of their subtasks.",
    ),
)

_VIDEOS = (
    Benchmark(
        name="eval_videommmu",
        title="VideoMMMU",
        family="video QA",
        files=(DataFile("onethinker", "eval_videommmu.json"), DataFile("videommmu", "VideoMMMU")),
        rows=900,
        metrics=ACCURACY,
        published={"accuracy": (0.633, 0.662)},
        protocol="onethinker",
        note="300 questions each of the tracks Perception, Comprehension and Adaptation.",
    ),
    Benchmark(
        name="eval_mmvu",
        title="MMVU",
        family="video QA",
        files=(DataFile("onethinker", "eval_mmvu.json"), DataFile("mmvu", "MMVU/validation.json")),
        split="multiple-choice",
        metrics=ACCURACY,
        published={"accuracy": (0.656, 0.705)},
        protocol="onethinker",
        note="The multiple choice questions of the validation split; the open-ended ones need a judge.",
    ),
    Benchmark(
        name="eval_videomme",
        title="VideoMME",
        family="video QA",
        files=(DataFile("onethinker", "eval_videomme.json"), DataFile("video-mme", "Video-MME")),
        rows=2_700,
        metrics=ACCURACY,
        published={"accuracy": (0.640, 0.665)},
        protocol="onethinker",
        note="Without subtitles.",
    ),
    Benchmark(
        name="Video_Holmes",
        title="VideoHolmes",
        family="video QA",
        files=(DataFile("video-holmes", "Video-Holmes/test_Video-Holmes.json"),),
        rows=1_837,
        metrics=ACCURACY,
        published={"accuracy": (0.409, 0.487)},
        protocol="vlmevalkit",
        option_rule="video-holmes",
        note="128 frames taken evenly; the benchmark's own script counts an answer without tags as wrong.",
    ),
    Benchmark(
        name="LongVideoBench",
        title="LongVideoBench",
        family="video QA",
        files=(DataFile("longvideobench", "LongVideoBench/lvb_val.json"),),
        rows=1_337,
        metrics=ACCURACY,
        published={"accuracy": (0.615, 0.617)},
        published_form="standard",
        protocol="vlmevalkit",
        option_rule="longvideobench",
        note="The validation questions, 128 frames taken evenly, without subtitles.",
    ),
    Benchmark(
        name="eval_longvideoreason",
        title="LongVideo-Reason",
        family="video QA",
        files=(
            DataFile("onethinker", "eval_longvideoreason.json"),
            DataFile("longvideo-reason", "LongVideo-Reason"),
        ),
        metrics=ACCURACY,
        published={"accuracy": (0.715, 0.792)},
        protocol="onethinker",
    ),
    Benchmark(
        name="eval_videomathqa",
        title="VideoMathQA",
        family="video QA",
        files=(DataFile("onethinker", "eval_videomathqa.json"), DataFile("videomathqa", "VideoMathQA")),
        split="mcq",
        rows=420,
        metrics=ACCURACY,
        published={"accuracy": (0.243, 0.350)},
        protocol="onethinker",
        note="One of five options, without subtitles.",
    ),
)

ROWS: tuple[Benchmark, ...] = (*_IMAGES, *_VIDEOS)
