"""What a benchmark is: its files, its metrics, its protocol and the published numbers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Protocol = Literal["own", "onethinker", "vlmevalkit"]
Judge = Literal["none", "optional", "required"]
Rule = Literal["mean", "circular", "mean of means", "mean of videos", "questions of a caption"]
"""How the standard form is aggregated: over samples; a question counts only if it is right in every rotation of its
options; the mean over meta-tasks of the means of their subtasks; the mean over videos of the means of their questions;
over all questions of a caption."""

OptionRule = Literal["vlmevalkit", "video-holmes", "longvideobench"]
"""How an answer's option is read: by VLMEvalKit's common rule, or as these two benchmarks have it."""


@dataclass(frozen=True)
class DataFile:
    """One place that a benchmark can be read from, in the folder that `--data` names."""

    layout: str
    """A key of `data_pipeline.sources.table.LAYOUTS`."""
    path: str
    """File or folder, relative to the folder of the data."""
    md5: str = ""
    """Of the published file, or the first digits that are known of it; "": not known."""
    media: str = ""
    """The folder that media paths are relative to, relative to the folder of the data; "": the layout's own."""
    rows: int | None = None
    """As published of this file; None: the benchmark's `rows`."""


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """One benchmark. Fractions throughout: a published 86.6 stands as 0.866."""

    name: str
    """As on the command line and in metrics.json: that of its file without the ending."""
    title: str
    """As in the paper. The splits of RefCOCO are rows of one title: family and title together count benchmarks."""
    family: str
    """The part of the paper's tables: "image QA", "video QA", "captioning", "temporal grounding", ..."""
    files: tuple[DataFile, ...]
    """The first that is there is read."""
    split: str = ""
    rows: int | None = None
    """As published; another count is a warning that names both."""
    metrics: tuple[str, ...]
    """In the order of the table."""
    published: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Metric -> what the paper says of Qwen3-VL-8B-Instruct and of OneThinker-8B."""
    published_form: Literal["released", "standard"] = "released"
    protocol: Protocol
    judge: Judge = "none"
    rule: Rule = "mean"
    option_rule: OptionRule = "vlmevalkit"
    note: str = ""
    """What a reader of its numbers must know, one sentence."""
