"""The sizes that a benchmark's prompts need, known before the model runs: nothing larger is compiled or kept.

A first pass reads the headers of media, not their pixels, and its lengths are kept in a file: the same records under
the same processor are measured once.
"""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from onethinker_jax.data_pipeline.processor.processor import Processor
from onethinker_jax.data_pipeline.processor.record_lengths import Limit, Measured, advice, measure, misfits
from onethinker_jax.data_pipeline.records.record import Record
from onethinker_jax.evaluate.answers.progress import Progress
from onethinker_jax.sampler_settings import SamplerSettings
from onethinker_jax.text_output import json_text

logger = logging.getLogger("onethinker_jax.evaluate")

THREADS = 4
"""Headers that are read at once; reading one waits for the disk more than it computes."""


def records_digest(records: Sequence[Record]) -> str:
    """Of all that a file says of its records: questions, options, answers, masks, and the names of their media."""
    digest = hashlib.blake2b(digest_size=16)
    for record in records:
        masks = record.segmentation
        parts = [
            record.problem_id,
            record.problem,
            record.data_type,
            record.problem_type,
            record.options,
            record.answer,
            [file.name for file in (*record.images, *record.videos)],
            None if masks is None else [masks.names, masks.frames, masks.rles, masks.fps],
        ]
        digest.update(json_text(parts).encode())
    return digest.hexdigest()


def lengths_of(records: Sequence[Record], processor: Processor, folder: Path) -> Measured:
    """Tokens and patches of each record's prompt; those that cannot be measured are in `errors` by their number.

    They are kept in the folder under a name of the records, the size and time of their media, and the processor.
    """
    digest = hashlib.blake2b(digest_size=12)
    digest.update(f"{records_digest(records)} {processor.fingerprint}".encode())
    for record in records:
        for file in (*record.images, *record.videos):
            try:
                stat = file.stat()
            except OSError:
                continue  # it will be said when it is read
            digest.update(f"{stat.st_size} {stat.st_mtime_ns}\n".encode())
    path = folder / f"lengths-{digest.hexdigest()}.npy"
    for old in folder.glob("lengths-*.npy"):
        if old != path:
            old.unlink(missing_ok=True)
    progress = Progress(len(records), what="records measured")
    threads = max(processor.media.workers, THREADS)
    return measure(
        records,
        range(len(records)),
        processor,
        training=False,
        file=path,
        threads=threads,
        tell=progress.reached,
    )


def fitted(settings: SamplerSettings, measured: Measured, shards: int) -> SamplerSettings:
    """The settings with no more slots, tokens and patches than the records need, and slots that `shards` divides.

    Says how many records exceed the settings' own sizes, and which flags would do for all.
    """
    limits = (
        Limit("--prompt-tokens", "tokens", settings.prompt_tokens),
        Limit("--prompt-patches", "patches", settings.prompt_patches),
    )
    known = np.ones(len(measured.lengths), bool)
    known[list(measured.errors)] = False
    too_large = {misfit.number for misfit in misfits(measured.lengths, limits)}
    if too_large:
        flags = advice(measured.lengths[known], limits)
        logger.warning(
            "%s records have larger prompts than allowed; all fit with %s", f"{len(too_large):,}", flags
        )
    known[list(too_large)] = False
    sizes = [(int(tokens), int(patches)) for tokens, patches in measured.lengths[known]]
    fit = settings.fitted_to(sizes) if sizes else replace(settings, prompt_slots=1)
    return replace(fit, prompt_slots=-(-fit.together // shards) * shards)
