"""An evaluation from its flags to its results: records, the answers that are missing, rewards, metrics.

Every process answers its part of the records and writes it to a file of its own; the first one joins them.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from onethinker_jax.data_pipeline.processor.processor_config import PROMPTS
from onethinker_jax.data_pipeline.records.record import RecordError
from onethinker_jax.data_pipeline.sources.sample import Sample
from onethinker_jax.errors import UserError
from onethinker_jax.evaluate.answers.journal import Journal
from onethinker_jax.evaluate.answers.masks import FrameMasks
from onethinker_jax.evaluate.answers.part import PREDICTIONS, Folder, answer
from onethinker_jax.evaluate.answers.scored import AnswerScorer
from onethinker_jax.evaluate.answers.sizes import records_digest
from onethinker_jax.evaluate.arguments import Arguments
from onethinker_jax.evaluate.asking.endpoint_asking import EndpointAsking
from onethinker_jax.evaluate.asking.jobs import Job, read_jobs
from onethinker_jax.evaluate.asking.local_asking import LocalAsking
from onethinker_jax.evaluate.asking.machine import Machine
from onethinker_jax.evaluate.asking.protocols import DEFAULTS, protocol_prompts
from onethinker_jax.evaluate.ending import ending
from onethinker_jax.evaluate.interrupts import Interrupts
from onethinker_jax.evaluate.judges.client import open_judge
from onethinker_jax.evaluate.mask_making import make_masks as made_masks
from onethinker_jax.evaluate.metrics.answer import Rle
from onethinker_jax.evaluate.results.folder import write
from onethinker_jax.evaluate.results.lines import Line
from onethinker_jax.evaluate.results.provenance import provenance
from onethinker_jax.evaluate.rewards_table import write_rewards
from onethinker_jax.evaluate.score import lines_of, results_of
from onethinker_jax.files import write_whole
from onethinker_jax.model.config import Qwen3VLConfig
from onethinker_jax.processes import Processes, join_processes
from onethinker_jax.rewards.client.sidecar import connect
from onethinker_jax.rewards.score_pool import score_pool
from onethinker_jax.scoring import Scorer, check_reward

logger = logging.getLogger("onethinker_jax.evaluate")

SOME_FAILED = 3
"""The exit status where all is done, and samples have failed."""


@dataclass(frozen=True)
class _Work:
    """A benchmark with this process's answers to it."""

    job: Job
    asking: LocalAsking | EndpointAsking
    folder: Folder
    journal: Journal
    settings: Mapping[str, Any]
    """What the answers depend on."""


def run(arguments: Arguments, interrupts: Interrupts) -> int:
    """Runs the evaluation and writes its results; returns the exit status.

    Whatever ends it, the answers so far are in the folder, and the same command goes on.
    """
    processes = join_processes(arguments.hosts)
    jobs = processes.all_do(lambda: _read(arguments, processes))
    machine = Machine(arguments)
    works = [_begin(job, machine, arguments, processes) for job in jobs]
    again = arguments.retry_failed
    lacking = [work for work in works if not work.journal.whole or (again and work.journal.failed)]
    for work in works:
        if work not in lacking:
            logger.info("%s: all %s answers are there", work.job.name, f"{work.journal.total:,}")
    interrupts.kept = lambda: _kept(works)

    def answer_all() -> None:
        if lacking:
            with _rewards(arguments, processes) as scorer_of:
                for work in lacking:
                    _answer(work, scorer_of(work.asking), again=again)

    processes.all_do(answer_all)
    wholes = [work.folder.joined() for work in works]
    if processes.leads:
        for work, whole in zip(works, wholes, strict=True):
            write_rewards(work.folder.path, whole.rows(), name=work.job.name)
        _write_results(works, arguments)
    return _end(arguments, wholes)


def _read(arguments: Arguments, processes: Processes) -> list[Job]:
    if arguments.url is None:  # before what takes minutes with many large files
        Qwen3VLConfig.from_directory(arguments.model)
    jobs = read_jobs(arguments, leads=processes.leads)
    for job in jobs:
        check_reward(arguments.reward, job.records)
    return jobs


def _begin(job: Job, machine: Machine, arguments: Arguments, processes: Processes) -> _Work:
    """Raises JournalError: the folder holds answers that cannot be gone on with."""
    protocol = arguments.protocol or job.loaded.benchmark.protocol
    arguments = arguments.with_defaults(DEFAULTS[protocol])
    prompts = protocol_prompts(protocol, arguments)
    if arguments.url is None:
        asking = LocalAsking(machine, arguments, arguments.processor(prompts, machine.media), processes)
    else:
        asking = EndpointAsking(arguments.url, arguments, prompts, machine.media, processes)
    folder = Folder(job.folder, job.records, arguments.samples, processes)
    sidecar = asdict(arguments.sidecar)
    rewards = {f"reward.{name}": value for name, value in asdict(arguments.reward).items()}
    rewards |= {f"sidecar.{name}": sidecar[name] for name in ("text_backend", "text_model")}
    rewards |= {f"sidecar.{name}": sidecar[name] for name in ("mask_backend", "mask_model")}
    spelled = {name.replace("_", "-"): _plain(value) for name, value in rewards.items()}
    settings = {"protocol": protocol, **asking.settings, **spelled, "BENCHMARK": records_digest(job.records)}
    journal = folder.begin(settings, restart=arguments.restart)
    processes.first_does(lambda: write_whole(job.folder / PROMPTS, prompts.to_json()))
    return _Work(job, asking, folder, journal, settings)


def _write_results(works: Sequence[_Work], arguments: Arguments) -> None:
    """Scores the answers as `evaluate.score` does: metrics.json, results.json, scored.jsonl, and the table."""

    def make_masks(wanted: Sequence[tuple[Line, Sample]]) -> list[dict[str, Rle]]:
        """Of lines that bring none although their answers prompt some."""
        with _rewards(arguments, works[0].folder.processes) as scorer_of:
            return made_masks(scorer_of(works[0].asking), wanted)

    found = [work.job.loaded for work in works]
    lines = lines_of(arguments.out, [one.name for one in found])
    asked = {work.job.name: work.settings for work in works}
    model = arguments.url or str(arguments.model)
    with open_judge(arguments.judge, arguments.out) as judge:
        results = results_of(found, lines, make_masks, seed=arguments.seed, judge=judge)
        judged = None if judge is None else judge.settings()
        made = provenance(seed=arguments.seed, model=model, answers=asked, judge=judged)
        write(arguments.out, results, made)
        samples = {one.name: one.samples for one in found}
        for line in ending(arguments.out, results, samples, page=arguments.page, other=arguments.compare):
            logger.info("%s", line)
        if judge is not None:
            judge.check()


def _plain(value: Any) -> Any:
    """As JSON holds it."""
    return value if value is None or isinstance(value, (bool, int, float, str, list, tuple)) else str(value)


@contextmanager
def _rewards(
    arguments: Arguments, processes: Processes
) -> Iterator[Callable[[LocalAsking | EndpointAsking], Scorer]]:
    """Makes scorers by the reward service, one's own or one started for the block, for what is asked so."""
    name = "reward_server.log" if processes.leads else f"reward_server-{processes.index}.log"
    with (
        connect(arguments.sidecar, log=arguments.out / name) as client,
        score_pool(arguments.sidecar.score_workers) as pool,
    ):
        yield lambda asking: Scorer(
            client, settings=arguments.reward, pool=pool, media=asking.media, prompts=asking.prompts
        )


def _answer(work: _Work, scorer: Scorer, *, again: bool) -> None:
    answerer = work.asking.answerer(work.folder.records, work.folder.path)
    score = AnswerScorer(scorer.single(), FrameMasks(scorer), work.folder.mine, work.asking.tries)
    logger.info(
        "%s; answers to %s go to %s …", work.asking.starts, work.job.loaded.file.path, work.journal.path
    )
    try:
        answer(work.journal, answerer, score, name=work.job.name, again=again)
    except (UserError, OSError):
        logger.info("%s", _kept([work]))
        raise


def _kept(works: Sequence[_Work]) -> str:
    """How many answers are kept, and where."""
    said = [f"{work.journal.said()}, of {work.journal.total:,}" for work in works if len(work.journal)]
    return "; ".join(said) or "no answer is kept"


def _end(arguments: Arguments, journals: Sequence[Journal]) -> int:
    """Says how many samples failed, and returns the exit status. Raises RecordError where all of them did."""
    failed, total = (sum(getattr(journal, name) for journal in journals) for name in ("failed", "total"))
    where = arguments.out / PREDICTIONS if len(journals) == 1 else arguments.out
    if failed == total:
        reason = next(row["failed"] for row in journals[0].rows())
        raise RecordError(f"{where}: all {total:,} samples failed: {reason}")
    if failed:
        logger.warning(
            '%s of %s samples failed and are in no metric: see "failed" in %s; --retry-failed asks them again',
            *(f"{failed:,}", f"{total:,}", where),
        )
    return SOME_FAILED if failed else 0
