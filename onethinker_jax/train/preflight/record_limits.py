"""Whether every record fits the run's settings: said before anything is trained, with the flags that would do."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from onethinker_jax.data_pipeline.batches.bin_packing import PackingError
from onethinker_jax.data_pipeline.processor.processor import Processor
from onethinker_jax.data_pipeline.processor.record_lengths import (
    UNKNOWN,
    KeptRecords,
    Limit,
    Measured,
    advice,
    chosen_records,
    lengths_key,
    measure,
    misfits,
)
from onethinker_jax.data_pipeline.records.bad_records import BadRecords
from onethinker_jax.data_pipeline.records.record import Record, RecordError
from onethinker_jax.train.config.run import TrainConfig
from onethinker_jax.train.hosts import Hosts
from onethinker_jax.train.log.log import RunLog
from onethinker_jax.train.preflight.prepare import Corpora

_THREADS = 4  # where no processes decode: reading a file's header waits for the disk


def limits_of(config: TrainConfig) -> dict[str, list[Limit]]:
    """The settings that bound the records of each purpose, of the stages that have steps."""
    sft, rl, evaluation = config.sft.batch, config.rl, config.evaluation
    limits = {
        "heldout": [
            Limit("--evaluation.sampler.prompt-tokens", "tokens", evaluation.sampler.prompt_tokens),
            Limit("--evaluation.sampler.prompt-patches", "patches", evaluation.sampler.prompt_patches),
        ]
    }
    if config.sft.steps:
        limits["sft"] = [
            Limit("--sft.batch.tokens", "tokens", sft.tokens),
            Limit("--sft.batch.patches", "patches", sft.patches),
        ]
    if config.rl.steps:
        # a prompt's last token is the first one of an answer's branch
        answer = rl.rollout.max_new_tokens - 1
        limits["rl"] = [
            Limit("--rl.rollout.prompt-tokens", "tokens", rl.rollout.prompt_tokens),
            Limit("--rl.rollout.prompt-patches", "patches", rl.rollout.prompt_patches),
            Limit("--rl.batch.tokens", "tokens", rl.batch.tokens, beside=answer),
            Limit("--rl.batch.patches", "patches", rl.batch.patches),
        ]
    return limits


def check_lengths(
    config: TrainConfig, corpora: Corpora, processor: Processor, hosts: Hosts, log: RunLog
) -> tuple[Corpora, Mapping[str, np.ndarray]]:
    """The corpora without records that do not fit, and the lengths of each purpose's, int32 [N, 2].

    With `data.on_bad_record skip` such records are left out, each named in the quarantine folder and all counted.
    Several processes measure their parts. Raises PackingError or RecordError naming the first such record otherwise,
    and when none is left.
    """
    kept, lengths = {}, {}
    for purpose, limits in limits_of(config).items():
        records = getattr(corpora, purpose)
        measured = _measured(purpose, config, corpora, processor, hosts, log)
        left_out = _left_out(purpose, records, measured, limits, config, hosts, log)
        kept[purpose] = KeptRecords(records, left_out) if left_out else records
        lengths[purpose] = np.delete(measured.lengths, left_out, axis=0)
    return replace(corpora, **kept), lengths


def _measured(
    purpose: str, config: TrainConfig, corpora: Corpora, processor: Processor, hosts: Hosts, log: RunLog
) -> Measured:
    """The lengths that all processes found."""
    records, training = getattr(corpora, purpose), purpose == "sft"
    dealt = {"host": hosts.index, "hosts": hosts.count}
    numbers = chosen_records(len(records), config.data.check_lengths, **dealt)
    file, folder = corpora.files.get(purpose), hosts.folder(config).lengths
    if file is not None:
        key = lengths_key(file, processor, training=training, numbers=numbers)
        file = folder / f"{purpose}-{key}.npy"
    name = f"lengths of the {purpose} records"
    with log.doing(name, len(numbers), unit="records") as doing:
        mine = measure(
            records,
            numbers,
            processor,
            training=training,
            file=file,
            threads=max(processor.media.workers, _THREADS),
            tell=doing.reached,
            stop_at_error=config.data.on_bad_record == "raise",
        )
    if hosts.count == 1:
        return mine
    found = [[number, *mine.lengths[number].tolist()] for number in numbers]
    lengths, errors = np.full((len(records), 2), UNKNOWN, np.int32), {}
    for measured, failed in hosts.gather([found, list(mine.errors.items())]):
        rows = np.array(measured, np.int64).reshape(-1, 3)
        lengths[rows[:, 0]] = rows[:, 1:]
        errors |= dict(failed)
    return Measured(lengths, errors)


def _left_out(
    purpose: str,
    records: Sequence[Record],
    measured: Measured,
    limits: Sequence[Limit],
    config: TrainConfig,
    hosts: Hosts,
    log: RunLog,
) -> list[int]:
    """Numbers of the records that cannot be used, reported as the settings say."""
    errors: dict[int, Exception] = {
        number: RecordError(reason) for number, reason in sorted(measured.errors.items())
    }
    long = misfits(measured.lengths, limits)
    if not errors and not long:
        return []
    looked_at = int((measured.lengths[:, 0] != UNKNOWN).sum()) + len(errors)
    flags = advice(measured.lengths, limits)
    of_all = f"{len(long):,} of {looked_at:,} {purpose} records are too long; {flags} would do for all"
    if config.data.on_bad_record == "raise":
        if errors:
            raise next(iter(errors.values()))
        raise PackingError(
            f"{records[long[0].number]}: {long[0]}; {of_all}, and --data.on-bad-record skip leaves them out"
        )
    errors |= {one.number: PackingError(f"{records[one.number]}: {one}") for one in long}
    if len(errors) == len(records):
        raise PackingError(f"{next(iter(errors.values()))}; none of the {purpose} records can be used")
    file = config.folder.quarantine(f"{purpose}_lengths")
    if hosts.leads:
        file.unlink(missing_ok=True)
    bad = BadRecords("skip", file if hosts.leads else None)
    for number, error in sorted(errors.items()):
        record = records[number]
        bad.report(error, record=record.origin, problem_id=record.problem_id, problem=record.problem)
    unread = f"{len(errors) - len(long):,} cannot be read; " if len(errors) > len(long) else ""
    log.warn(
        f"{len(errors):,} {purpose} records left out, see {file}: {unread}{of_all if long else ''}".rstrip(
            "; "
        )
    )
    return sorted(errors)
