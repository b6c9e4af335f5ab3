r"""Makes an SFT set: a teacher answers the records of a corpus, and what passes our rewards and checks is kept.

    python -m onethinker_jax.data_pipeline.annotate onethinker_rl_train.json \
        --base-url http://localhost:8000/v1 --model Qwen3-VL-235B-A22B-Thinking --out annotate

This is how OneThinker-SFT-340k came to be: records -> candidates of a teacher -> rewards, thresholds and checks
-> the best candidate of each record -> balance by task -> SFT files. Asking and filtering are apart: answers are
on the disk as they come (`candidates.jsonl`), so the same command goes on after an interruption, and with other
thresholds it asks nothing. docs/annotate.md says what is checked.

Exit status: 0 the set is written, 1 it is not, 2 an unknown flag, 130 stopped.
"""

from onethinker_jax import command_line

if __name__ == "__main__":  # the imports below take some time
    command_line.begin()

import asyncio
import json
import logging
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console, Group
from rich.live import Live
from rich.logging import RichHandler
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from onethinker_jax.data_pipeline.annotate.asking import Asked, Corpus, ask_all, media_reader
from onethinker_jax.data_pipeline.annotate.candidates import CandidateError, Candidates, key_of
from onethinker_jax.data_pipeline.annotate.filters import KEPT, FilterSettings, balanced, judge
from onethinker_jax.data_pipeline.annotate.page import write_annotation_page
from onethinker_jax.data_pipeline.annotate.report import AnnotationReport
from onethinker_jax.data_pipeline.annotate.rules import held_answer
from onethinker_jax.data_pipeline.annotate.sft_files import SftFiles, sft_row
from onethinker_jax.data_pipeline.annotate.teacher import TeacherSettings
from onethinker_jax.data_pipeline.annotate.teacher_prompt import SYSTEM_PROMPT, SentMedia, question_digest
from onethinker_jax.data_pipeline.records.bad_records import BadRecords, OnBadRecord
from onethinker_jax.data_pipeline.records.json_rows import RecordError
from onethinker_jax.data_pipeline.records.record import Record, task_of
from onethinker_jax.endpoint.endpoint import Endpoint
from onethinker_jax.errors import UserError
from onethinker_jax.files import write_whole
from onethinker_jax.rewards.client.sidecar import SidecarSettings, connect
from onethinker_jax.rewards.score import RewardSettings
from onethinker_jax.rewards.score_pool import score_pool
from onethinker_jax.scoring import Scorer, check_reward
from onethinker_jax.text_output import json_text, one_line

logger = logging.getLogger("onethinker_jax.data_pipeline.annotate")  # also as __main__

LINE_SECONDS = 30.0  # between lines of progress where the console is no terminal


@dataclass(frozen=True, kw_only=True)
class AnnotateSettings:
    """Has a teacher answer records in OneThinker's format, and makes an SFT set of the answers that are good."""

    files: tyro.conf.Positional[tuple[Path, ...]]
    """Record files with true answers, JSON lists or JSON lines."""
    out: Path = Path("annotate")
    """Folder for the candidates, the SFT files and the report. The same folder again: goes on from there."""
    media_root: Path | None = None
    """Folder the media paths are relative to; by default each file's own."""
    on_bad_record: OnBadRecord = "raise"
    """"skip" leaves bad records out, each with its reason in bad.jsonl."""
    limit: int | None = None
    """Only the first this many records."""
    candidates: int = 4
    """Answers asked for each record."""
    ask: bool = True
    """Without, only the candidates that are there are filtered."""
    teacher: Annotated[TeacherSettings, tyro.conf.arg(name="")]
    sent: Annotated[SentMedia, tyro.conf.arg(name="")] = field(default_factory=SentMedia)
    filters: Annotated[FilterSettings, tyro.conf.arg(name="")] = field(default_factory=FilterSettings)
    system_prompt: Path | None = None
    """File with another system turn for the teacher; {form} in it becomes the form of the task's answer."""
    media_workers: int = 2
    """Processes that decode media; 0: this one."""
    time_limit: float = 60.0
    """Seconds that decoding one video may take."""
    reward: RewardSettings = field(default_factory=lambda: RewardSettings(variant="paper"))
    sidecar: SidecarSettings = field(default_factory=SidecarSettings)

    def __post_init__(self) -> None:
        if not self.files:
            raise ValueError("name at least one file")
        for name in ("candidates", "time_limit"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} {getattr(self, name)} must be positive")
        if self.media_workers < 0 or (self.limit is not None and self.limit < 1):
            raise ValueError(f"media_workers {self.media_workers} or limit {self.limit} is too small")


def annotate(settings: AnnotateSettings, console: Console) -> AnnotationReport:
    """Asks what is still to be asked, filters, and writes the set and the report.

    Raises UserError or OSError; what was answered until then is kept.
    """
    check_reward(settings.reward)
    settings.out.mkdir(parents=True, exist_ok=True)
    prompt = settings.system_prompt.read_text(encoding="utf-8") if settings.system_prompt else SYSTEM_PROMPT
    (settings.out / "bad.jsonl").unlink(missing_ok=True)
    bad = BadRecords(settings.on_bad_record, settings.out / "bad.jsonl")
    corpus = Corpus(settings.files, settings.media_root, bad, settings.limit)
    began = time.monotonic()
    with Candidates(settings.out / "candidates.jsonl") as candidates:
        _check_request(settings, prompt, candidates)
        records, missing = _survey(corpus, candidates, settings)
        if not records:
            raise RecordError(f"{', '.join(map(str, settings.files))}: no record to annotate")
        asked = Asked()
        if missing and settings.ask:
            asked = _ask(corpus, candidates, settings, prompt, missing, console)
        report = _filter(corpus, candidates, settings, records, console)
        facts = _facts(settings, candidates, asked, report, bad, time.monotonic() - began)
    write_whole(
        settings.out / "report.json", json_text({"facts": facts, **report.to_json()}, indent=2) + "\n"
    )
    title = f"SFT set from {', '.join(path.name for path in settings.files)}"
    write_annotation_page(settings.out / "index.html", title, facts, report)
    console.print(report.table())
    for name, value in {**facts, "page": settings.out / "index.html"}.items():
        console.print(f"{name:>8}  {one_line(str(value))}", highlight=False, soft_wrap=True, markup=False)
    if total := asked.unanswered.total():
        why, count = asked.unanswered.most_common(1)[0]
        logger.warning(
            "%d questions got no answer, most often (%d): %s. The same command asks again", total, count, why
        )
    return report


def _check_request(settings: AnnotateSettings, prompt: str, candidates: Candidates) -> None:
    """All answers of a folder must have been asked for in the same way."""
    path = settings.out / "request.json"
    names = ("model", "temperature", "top_p", "max_tokens", "extra_body")
    teacher = {name: getattr(settings.teacher, name) for name in names}
    request = {**teacher, "system_prompt": prompt, **asdict(settings.sent)}
    if path.is_file() and len(candidates):
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise CandidateError(f"{path}: is not JSON ({error})") from None
        for name, value in request.items():
            if found.get(name) != value:
                raise CandidateError(
                    f"{settings.out}: its answers were asked for with {name} {found.get(name)!r:.60}, "
                    f"not {value!r:.60}: name another --out"
                )
    write_whole(path, json_text(request, indent=2) + "\n")


def _survey(corpus: Corpus, candidates: Candidates, settings: AnnotateSettings) -> tuple[int, int]:
    """How many records there are, and how many answers are missing: everything is read and checked once."""
    records = missing = 0
    for record in corpus:
        records += 1
        missing += len(_missing(record, candidates, settings))
    return records, missing


def _missing(record: Record, candidates: Candidates, settings: AnnotateSettings) -> list[int]:
    """The candidates still to be asked for; none where the question gives its answer away."""
    if held_answer(record):
        return []
    there = candidates.numbers(record, question_digest(record))
    return [number for number in range(settings.candidates) if number not in there]


def _ask(
    corpus: Corpus,
    candidates: Candidates,
    settings: AnnotateSettings,
    prompt: str,
    missing: int,
    console: Console,
) -> Asked:
    teacher, said = settings.teacher, Text("no answer yet")
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
    )
    progress = Progress(TextColumn("asking"), *columns)
    task = progress.add_task("", total=missing)
    line_at = time.monotonic() + LINE_SECONDS

    def show(asked: Asked, source: Endpoint) -> None:
        nonlocal line_at
        done = asked.answers + asked.unanswered.total()
        progress.update(task, completed=done)
        tokens = asked.prompt_tokens + asked.completion_tokens
        cost = teacher.cost(asked.prompt_tokens, asked.completion_tokens)
        parts = [f"{source.in_flight} under way", f"{tokens / 1e6:.2f}M tokens"]
        if cost and asked.answers:
            parts.append(f"cost {cost:,.2f} of about {cost / asked.answers * missing:,.2f}")
        parts += [f"{count} × {cause}" for cause, count in source.tries_again.most_common(2)]
        said.plain = one_line(" · ".join(parts))
        if not console.is_terminal and time.monotonic() >= line_at:
            line_at = time.monotonic() + LINE_SECONDS
            console.print(f"asked {done:,} of {missing:,} · {said.plain}", highlight=False, markup=False)

    console.print(
        f"{missing:,} answers to ask of {teacher.model} at {teacher.base_url}, {len(candidates):,} are there",
        highlight=False,
        markup=False,
    )
    with (
        Live(Group(progress, said), console=console),
        media_reader(settings.media_workers, settings.time_limit) as (reader, threads),
    ):
        asked = asyncio.run(
            ask_all(
                ((record, _missing(record, candidates, settings)) for record in corpus),
                candidates,
                teacher,
                sent=settings.sent,
                system_prompt=prompt,
                reader=reader,
                threads=threads,
                on_unreadable=corpus.report_unreadable,
                on_progress=show,
            )
        )
    if not console.is_interactive:
        console.line()  # a live display that is no terminal's leaves its line open
    return asked


def _filter(
    corpus: Corpus, candidates: Candidates, settings: AnnotateSettings, records: int, console: Console
) -> AnnotationReport:
    """Judges all candidates and writes the SFT files and dropped.jsonl."""
    report, kept = AnnotationReport(), defaultdict(list)
    columns = TextColumn("filtering"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with (
        connect(settings.sidecar, log=settings.out / "reward_server.log") as client,
        score_pool(settings.sidecar.score_workers) as pool,
        SftFiles(settings.out) as files,
        (settings.out / "dropped.jsonl").open("w", encoding="utf-8") as dropped,
        Progress(*columns, console=console) as progress,
    ):
        scorer = Scorer(client, settings=settings.reward, pool=pool).single()

        def shares(records: Sequence[Record], texts: Sequence[Sequence[str]]) -> list[list[float]]:
            """Accuracies as shares of the most that the record's task gives."""
            most = [scorer.max_accuracy(record) or 1.0 for record in records]
            return [
                [score.accuracy / best for score in scores]
                for best, scores in zip(most, scorer(records, texts), strict=True)
            ]

        readable = (record for record in corpus if key_of(record) not in corpus.unreadable)
        answered = ((record, candidates.of(record, settings.candidates)) for record in readable)
        for judged in progress.track(judge(answered, shares, settings.filters), total=records):
            report.add(judged, settings.filters.threshold(judged.record))
            for verdict in judged.verdicts:
                if verdict.reason != KEPT:
                    dropped.write(json_text(verdict.to_json()) + "\n")
            if judged.reason == KEPT:
                kept[task_of(judged.record)].append(key_of(judged.record))
                files.add(sft_row(judged, settings.out, settings.teacher.model))
        chosen = balanced(kept, settings.filters)
        files.finish(lambda row: (row["data_source"], row["problem_id"]) in chosen)
    report.balance({str(task): sum(key in chosen for key in keys) for task, keys in kept.items()})
    return report


def _facts(
    settings: AnnotateSettings,
    candidates: Candidates,
    asked: Asked,
    report: AnnotationReport,
    bad: BadRecords,
    seconds: float,
) -> dict[str, str]:
    """What the console and the page say of the run as a whole."""
    teacher, tokens = settings.teacher, (candidates.prompt_tokens, candidates.completion_tokens)
    facts = {
        "records": f"{report.records:,}" + (f", and {bad.count:,} bad ones" if bad.count else ""),
        "kept": f"{report.kept:,}" + (f" of {report.good:,} good ones" if report.good > report.kept else ""),
        "teacher": teacher.model,
        "answers": f"{len(candidates):,}, {asked.answers:,} of them new",
        "tokens": f"{tokens[0]:,} in, {tokens[1]:,} out",
    }
    if cost := teacher.cost(*tokens):
        facts["cost"] = (
            f"{cost:,.2f}, {teacher.cost(asked.prompt_tokens, asked.completion_tokens):,.2f} of it new"
        )
    return {**facts, "time": f"{seconds // 60:.0f} min {seconds % 60:.0f} s"}


def run(settings: AnnotateSettings) -> None:
    """Annotates, with what is logged among the tables. Raises UserError where no record was kept."""
    console = Console()
    command_line.show_log(RichHandler(console=console, show_time=False, show_path=False, show_level=False))
    try:
        report = annotate(settings, console)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"the answers so far are in {settings.out}, the same command goes on from there"
        ) from None
    if not report.kept:
        raise UserError("no record was kept")


main = partial(
    command_line.main, AnnotateSettings, run, prog="python -m onethinker_jax.data_pipeline.annotate"
)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
