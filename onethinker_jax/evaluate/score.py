"""Answers that are there and the benchmarks that they answer -> metrics, each with an interval, without a model.

    python -m onethinker_jax.evaluate.score predictions.jsonl eval_charades.json --out scores

Media files need not be there. Exit status: 0 done, 1 an error that is named in one line (where it is the judge's, the
results are there, what it did not judge counted as unread), 2 a command line that cannot be used, 130 Ctrl-C.
"""

from onethinker_jax import command_line

if __name__ == "__main__":  # the imports below take time
    command_line.begin()

from onethinker_jax.evaluate.score_arguments import ScoreArguments

if __name__ == "__main__":
    command_line.help_if_asked(ScoreArguments, prog="python -m onethinker_jax.evaluate.score")

import logging
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from onethinker_jax.data_pipeline.records.bad_records import BadRecords
from onethinker_jax.data_pipeline.sources.sample import Sample, Source
from onethinker_jax.data_pipeline.sources.table import LAYOUTS
from onethinker_jax.evaluate.benchmarks.reading import LoadedBenchmark, read_benchmark
from onethinker_jax.evaluate.benchmarks.table import BenchmarkError, find
from onethinker_jax.evaluate.ending import ending
from onethinker_jax.evaluate.judges.client import open_judge
from onethinker_jax.evaluate.judges.types import AnswerJudge
from onethinker_jax.evaluate.metrics.answer import Rle
from onethinker_jax.evaluate.results.folder import write
from onethinker_jax.evaluate.results.lines import Line, Problem, matched, read_lines
from onethinker_jax.evaluate.results.provenance import provenance
from onethinker_jax.evaluate.results.result import Result, result_of
from onethinker_jax.evaluate.results.scored import MakeMasks, score
from onethinker_jax.text_output import visible

logger = logging.getLogger("onethinker_jax.evaluate")  # also as __main__

NAMED = 5
"""LoadedBenchmark that a warning names."""
LINE_SECONDS = 10.0
"""Between two lines on how far scoring is."""


def run(arguments: ScoreArguments) -> None:
    """Reads, scores, writes and prints."""
    command_line.show_log(logging.StreamHandler(sys.stderr), level=logging.INFO)
    found = [_read(what, arguments) for what in arguments.benchmarks]
    names = [read.name for read in found]
    if twice := {name for name in names if names.count(name) > 1}:
        raise BenchmarkError(f"{min(twice)}: is named twice")
    lines = _of_the_splits(lines_of(arguments.predictions, names), found)
    with open_judge(arguments.judge, arguments.out) as judge:
        results = results_of(found, lines, _mask_maker(arguments), seed=arguments.seed, judge=judge)
        judged = None if judge is None else judge.settings()
        write(arguments.out, results, provenance(seed=arguments.seed, judge=judged))
        samples = {read.name: read.samples for read in found}
        for line in ending(arguments.out, results, samples, page=arguments.page, other=arguments.compare):
            sys.stdout.write(visible(line) + "\n")
        logger.info("metrics.json, results.json and scored.jsonl are in %s", arguments.out)
        if judge is not None:
            judge.check()


def results_of(
    found: Sequence[LoadedBenchmark],
    lines: Sequence[Line],
    make_masks: MakeMasks,
    *,
    seed: int,
    judge: AnswerJudge | None = None,
) -> list[Result]:
    """The results of benchmarks that were read, and lines of answers to them.

    Says how many problems have no answer. Raises PredictionError, and what `make_masks` raises.
    """
    problems = matched(lines, {read.name: read.samples for read in found})
    results = []
    for read in found:
        own = problems[read.name]
        scored = score(own, make_masks, judge, read.benchmark.option_rule, _teller(read.name))
        _warn(read.name, own)
        results.append(result_of(read.benchmark, read.file, scored, seed=seed))
    return results


def _teller(name: str) -> Callable[[int, int], None]:
    """Says every few seconds how many answers are scored: masks of long videos take a while."""
    said = time.monotonic()

    def tell(total: int, done: int) -> None:
        nonlocal said
        if time.monotonic() - said >= LINE_SECONDS:
            said = time.monotonic()
            logger.info("%s: %s of %s answers are scored", name, f"{done:,}", f"{total:,}")

    return tell


def _read(what: str, arguments: ScoreArguments) -> LoadedBenchmark:
    """A benchmark with its problems; says what is not as published."""
    found = find(what, arguments.data)
    root = arguments.media_root
    read = read_benchmark(found, data=arguments.data, media_root=root, bad=BadRecords(), check_media=False)
    for line in read.differences:
        logger.warning("%s", line)
    return read


def lines_of(predictions: Path, names: Sequence[str]) -> list[Line]:
    """The lines of a file; of a folder those of each benchmark's own folder in it, or of the one file."""
    if not predictions.is_dir():
        return read_lines(predictions)
    own = {name: predictions / name / "predictions.jsonl" for name in names}
    there = {name: path for name, path in own.items() if path.is_file()}
    if not there:
        return read_lines(predictions / "predictions.jsonl")
    return [line.of(name) for name, path in there.items() for line in read_lines(path)]


def _of_the_splits(lines: Sequence[Line], found: Sequence[LoadedBenchmark]) -> list[Line]:
    """The lines but for those to rows that a benchmark's file has and its split has not: they are counted and said.

    A file of several splits, such as MMMU's of dev and validation, is answered as a whole.
    """
    own = {read.name: {str(one.record.problem_id) for one in read.samples} for read in found}
    scored = set[str]().union(*own.values())
    for read in found:
        name, split = read.name, read.benchmark.split

        def strange(line: Line, name: str = name) -> bool:
            return line.problem_id not in (scored if line.benchmark is None else own[name]) and (
                line.benchmark in (None, name)
            )

        if not split or not any(map(strange, lines)):
            continue
        rows = LAYOUTS[read.file.layout](Source(read.file.path, check_media=False, bad=BadRecords("skip")))
        others = {str(one.record.problem_id) for one in rows} - own[name]
        kept = [line for line in lines if not (strange(line) and line.problem_id in others)]
        if count := len(lines) - len(kept):
            what = "%s: %s lines are of rows that are not of %s, and are left out"
            logger.warning(what, name, f"{count:,}", split)
        lines = kept
    return list(lines)


def _mask_maker(arguments: ScoreArguments) -> MakeMasks:
    """Makes masks by the reward service, where the pictures are there to make them on."""

    def make(wanted: Sequence[tuple[Line, Sample]]) -> list[dict[str, Rle]]:
        for line, sample in wanted:
            for file in (*sample.record.videos, *sample.record.images):
                if not file.is_file() and not Path(str(file)).is_dir():
                    more = f"; so are those of {len(wanted) - 1:,} other lines" if len(wanted) > 1 else ""
                    what = f"masks is missing, and {file}, on which it could be made, is not there{more}"
                    raise line.error(what)
        from onethinker_jax.evaluate.mask_making import make_masks
        from onethinker_jax.rewards.client.sidecar import connect
        from onethinker_jax.scoring import Scorer

        logger.info("%s answers bring no masks: the reward service makes them …", f"{len(wanted):,}")
        with connect(arguments.sidecar) as client:
            return make_masks(Scorer(client), wanted)

    return make


def _warn(name: str, problems: Sequence[Problem]) -> None:
    """Says how many problems have no answer, and which."""
    silent = [problem for problem in problems if not problem.lines]
    failed = [problem for problem in problems if problem.lines and not problem.answered]
    for which, what in ((silent, "have no prediction"), (failed, "have only failed ones")):
        if which:
            ids = ", ".join(str(problem.sample.record.problem_id) for problem in which[:NAMED])
            dots = " …" if len(which) > NAMED else ""
            logger.warning(
                "%s: %s of %s problems %s and count as failed: %s%s",
                *(name, f"{len(which):,}", f"{len(problems):,}", what, ids, dots),
            )


main = partial(
    command_line.main,
    ScoreArguments,
    run,
    prog="python -m onethinker_jax.evaluate.score",
    stopped="nothing is written",
)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
