"""One run from nothing to an exported checkpoint: data, fresh model, SFT, EMA-GRPO, export, summary.

Each part leaves its result in the run's folder (see `run_folder.py`), and a part whose result stands is not done
again: running the same command after an interruption goes on from the newest checkpoint.
"""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from rich.console import Console

from onethinker_jax.data_pipeline.batches.loader import RecordStream, TrainingBatches
from onethinker_jax.data_pipeline.processor.processor import Processor
from onethinker_jax.data_pipeline.records.record import Record
from onethinker_jax.model.attention.attention import platform_backend
from onethinker_jax.model.parameters import split_adapters
from onethinker_jax.model.qwen3_vl import Qwen3VL
from onethinker_jax.model.sharding import local_mesh, make_mesh
from onethinker_jax.responses import Sampler
from onethinker_jax.rewards.client.client import RewardClient
from onethinker_jax.rewards.client.sidecar import connect
from onethinker_jax.rewards.score_pool import ScorePool, score_pool
from onethinker_jax.scoring import Scorer
from onethinker_jax.train.checkpoints.adapter_record import AdapterRecord
from onethinker_jax.train.checkpoints.checkpoints import Checkpoints
from onethinker_jax.train.checkpoints.orbax_calls import reads_ended
from onethinker_jax.train.claim import check_claim, claim_directory
from onethinker_jax.train.config.run import TrainConfig
from onethinker_jax.train.ema_grpo import train_ema_grpo
from onethinker_jax.train.export.directory import check_export, export_adapter, export_model
from onethinker_jax.train.export.model_card import CARD, card_to_write, model_card
from onethinker_jax.train.health.disk import check_writable, disk_errors
from onethinker_jax.train.health.watchdog import NEVER
from onethinker_jax.train.heldout import HeldOut, read_answers, stages_of
from onethinker_jax.train.hosts import Hosts, join_hosts
from onethinker_jax.train.log.compilation_watch import count_compilations
from onethinker_jax.train.log.log import RunLog
from onethinker_jax.train.log.wandb_run import WandbRun
from onethinker_jax.train.open_run import Run
from onethinker_jax.train.pages.rollout_page import RolloutPages
from onethinker_jax.train.pages.summary import print_summary, write_run_page
from onethinker_jax.train.policy import Policy, make_model
from onethinker_jax.train.preflight.disk_space import check_disk_space
from onethinker_jax.train.preflight.preflight import check_before
from onethinker_jax.train.preflight.prepare import (
    Corpora,
    make_processor,
    make_streams,
    prepare_base,
    prepare_data,
    write_counts,
)
from onethinker_jax.train.preflight.record_limits import check_lengths
from onethinker_jax.train.rl.dynamic_sampling import Rollouts
from onethinker_jax.train.rl.heldout_scores import HeldOutScores
from onethinker_jax.train.rl.saved_rollouts import SavedRollouts
from onethinker_jax.train.run_folder import RunFolder
from onethinker_jax.train.sft import train_sft
from onethinker_jax.train.stopping.notice import Notice
from onethinker_jax.train.stopping.peers import Peers


def run(config: TrainConfig) -> None:
    """Does or finishes the whole run; what it leaves behind is in `run_folder.py`."""
    hosts = join_hosts(config.hosts)
    notice = Notice(config.preemption, Peers(hosts) if hosts.count > 1 else None)
    with notice.listening():
        _run(config, hosts, notice)


def _run(config: TrainConfig, hosts: Hosts, notice: Notice) -> None:
    """`run`, once all processes are there and `notice` hears what is to stop it."""
    share = hosts.share(config)
    notes = begin(config, hosts)
    with (
        reads_ended(),
        disk_errors(config.folder),
        open_log(config, hosts) as log,
        count_compilations() as compilations,
    ):
        log.info(
            f"run {config.name}, seed {config.seed}, in {config.directory}, on {jax.device_count()} x "
            f"{jax.devices()[0]}" + (f", process {hosts.index} of {hosts.count}" if hosts.count > 1 else "")
        )
        for note in notes:
            log.info(note)
        if hosts.gather(config.folder.finished)[0]:
            _say_finished(config, hosts, log)
            return
        ready = prepare(config, hosts, log)
        with (
            jax.set_mesh(ready.mesh),
            connect_service(config, hosts.folder(config), log) as client,
            score_pool(config.sidecar.score_workers) as pool,
        ):
            policy, params = first_policy(config, ready.mesh, log)
            scorer = make_scorer(config, client, pool, ready.processor)
            checkpoints = Checkpoints(config.checkpoint_directory, config.checkpoints)
            opened = Run(
                *(hosts, log, checkpoints, config.folder, compilations),
                adapters=_adapters(config, hosts, log),
                config=config,
                health=config.health,
                notice=notice,
            )
            try:
                params = _train(share, policy, params, ready, scorer, opened)
            finally:
                with log.doing("writing the checkpoint"), notice.writing():
                    checkpoints.close()
            notice.heed()
            _finish(config, nnx.merge(policy.graphdef, params), ready.corpora.heldout, scorer, opened)


def _say_finished(config: TrainConfig, hosts: Hosts, log: RunLog) -> None:
    """Shows once more what the run came to."""
    corpora = prepare_data(config, hosts, log)
    log.info(
        "this run is finished: nothing is left to do; more --rl.steps lengthen it, another --name trains again"
    )
    if config.data.on_bad_record == "skip":  # some may have been left out
        corpora, _ = check_lengths(config, corpora, make_processor(config, config.folder.base), hosts, log)
    print_summary(config, read_answers(config, corpora.heldout), log)
    _say_results(config, log)


def first_policy(config: TrainConfig, mesh: Mesh, log: RunLog) -> tuple[Policy, nnx.State]:
    """The policy before training, and its parameters."""
    with log.doing("reading the weights" if config.model.init_from else "making the fresh model"):
        graphdef, params = nnx.split(make_model(config, config.folder.base, mesh))
        jax.block_until_ready(params)
    trained, base = split_adapters(params)
    count, adapted = (sum(x.size for x in jax.tree.leaves(part)) for part in (params, trained))
    log.info(
        f"policy: Qwen3-VL with {count:,} parameters, "
        + (f"{adapted:,} of them adapters, which are trained, " if base is not None else "")
        + f"attention: {platform_backend()}"
    )
    return Policy(graphdef, mesh, config.model.compute_dtype), params


def _adapters(config: TrainConfig, hosts: Hosts, log: RunLog) -> AdapterRecord | None:
    """What the run's checkpoints say their adapters are of; every process reads the base's files."""
    if not config.model.lora.rank:
        return None
    with log.doing("reading the base's digest"):
        return hosts.all_do(lambda: AdapterRecord.of_run(config.model))


def make_scorer(
    config: TrainConfig, client: RewardClient, pool: ScorePool | None, processor: Processor
) -> Scorer:
    """The run's scorer, which asks the reward service behind `client`."""
    return Scorer(
        client,
        settings=config.reward,
        pool=pool,
        media=processor.media,
        prompts=processor.prompts,
    )


def _finish(config: TrainConfig, model: Qwen3VL, heldout: Sequence[Record], scorer: Scorer, run: Run) -> None:
    """Exports the model, and shows what it answered."""
    with run.watchdog("export", stalled="it has not ended", known_after=NEVER):
        _export(config, model, run)
    run.hosts.first_does(lambda: shutil.rmtree(run.folder.saved_rollouts, ignore_errors=True))
    answers = read_answers(config, heldout)
    with run.log.doing("writing the page"):
        run.hosts.first_does(lambda: write_run_page(config, heldout, answers, scorer))
    print_summary(config, answers, run.log)
    _say_results(config, run.log)


def _export(config: TrainConfig, model: Qwen3VL, run: Run) -> None:
    """The model's directory, and that of its adapters if it has any."""
    folder = run.folder
    with run.log.doing(f"exporting to {folder.model}"):
        made = model_card(folder, jnp.dtype(config.model.frozen_dtype))
        card, kept = card_to_write(folder.model, made)
        export_model(model, folder.base, folder.model, files={CARD: card})
    if kept:
        run.log.info(f"{folder.model / CARD} was edited, and is kept")
    if run.adapters is not None:
        with run.log.doing(f"exporting the adapters to {folder.adapter}"):
            export_adapter(model, run.adapters.base, folder.adapter)


@dataclass(frozen=True)
class Ready:
    """What training needs beside weights: checked, and standing in the run's folder where it has a place there."""

    corpora: Corpora
    sft_stream: RecordStream | None
    rl_stream: RecordStream | None
    processor: Processor
    mesh: Mesh
    lengths: Mapping[str, np.ndarray]  # of the records by purpose, int32 [N, 2] of tokens and patches


def begin(config: TrainConfig, hosts: Hosts) -> list[str]:
    """Claims the run's folder once nothing speaks against the run; what to say of settings that have changed."""
    hosts.all_do(lambda: check_writable(config.folder))
    notes = hosts.all_do(lambda: check_claim(config))
    if hosts.any(bool(notes) or not config.folder.finished):
        hosts.all_do(lambda: check_before(config))
    hosts.first_does(lambda: claim_directory(config, notes))
    _keep_compiled_programs()
    return notes


def prepare(config: TrainConfig, hosts: Hosts, log: RunLog) -> Ready:
    """Data, base and processor, every record held against the settings; no weight is read and nothing compiled."""
    mesh = make_mesh(config.mesh.data, config.mesh.fsdp, config.mesh.tensor)
    rollout_mesh(config, mesh)
    corpora = prepare_data(config, hosts, log)
    make_streams(config, corpora, hosts)  # a wrong mixture is named before all records are measured
    hosts.first_does(lambda: prepare_base(config, corpora, log))
    check_export(config.folder.base, config.folder.model)
    hosts.first_does(lambda: check_disk_space(config))
    processor = make_processor(config, config.folder.base)
    if processor.opening:
        log.info(f"the chat template begins answers with {processor.opening!r}, which counts as written")
    corpora, lengths = check_lengths(config, corpora, processor, hosts, log)
    hosts.first_does(lambda: write_counts(config, corpora))
    sft, rl = make_streams(config, corpora, hosts)
    return Ready(corpora, sft, rl, processor, mesh, lengths)


@contextmanager
def connect_service(config: TrainConfig, own: RunFolder, log: RunLog) -> Iterator[RewardClient]:
    """The reward service for the block; `own` is where one of the run's own listens and logs."""
    with ExitStack() as stack:
        with log.doing("waiting for the reward service"):
            client = stack.enter_context(
                connect(config.sidecar, socket=own.reward_socket, log=own.reward_log)
            )
            service = client.describe()
        log.info(
            f"reward service: {service.text_backend} and {service.mask_backend} at {client.address}, "
            f"process {service.process_id}"
        )
        yield client


@contextmanager
def open_log(config: TrainConfig, hosts: Hosts) -> Iterator[RunLog]:
    """The run's console and files; processes after the first write theirs into their own folders."""
    folder = hosts.folder(config)
    if hosts.leads:
        wandb = WandbRun(config.log.wandb, config) if config.log.wandb else None
        with RunLog(folder.path, wandb=wandb) as log:
            yield log
        return
    folder.path.mkdir(parents=True, exist_ok=True)
    with (
        folder.console.open("a", encoding="utf-8", errors="backslashreplace") as file,
        RunLog(folder.path, console=Console(file=file, width=140)) as log,
    ):
        yield log


def _say_results(config: TrainConfig, log: RunLog) -> None:
    log.info(f"Hugging Face directory: {config.folder.model}")
    log.info(f"page: {config.folder.page}")


def _train(
    config: TrainConfig, policy: Policy, params: nnx.State, ready: Ready, scorer: Scorer, run: Run
) -> nnx.State:
    """Fresh model -> SFT -> EMA-GRPO, each scored on the held-out records; `config` is this process's share."""
    heldout = HeldOut(config, policy, ready.processor, ready.corpora.heldout, scorer, run)
    heldout.score("fresh", params)
    newest = run.newest()
    if newest is not None and newest[1]["stage"] == "rl":
        heldout.check_answers()
    elif ready.sft_stream is not None:
        params = _train_sft(config, policy, params, ready, run)
    if config.sft.steps:
        heldout.score("sft", params)
    if ready.rl_stream is not None:
        scores = HeldOutScores(config.evaluation, heldout.score_step)
        params = _train_rl(config, policy, params, ready, scorer, run, scores)
        ended = scores.last == config.rl.steps or scores.verdict is not None
        heldout.score("rl", params, step=scores.last if ended else None)
    elif "rl" in stages_of(config):
        heldout.score("rl", params)
    return params


def _train_sft(config: TrainConfig, policy: Policy, params: nnx.State, ready: Ready, run: Run) -> nnx.State:
    assert ready.sft_stream is not None
    with TrainingBatches(
        ready.sft_stream,
        ready.processor,
        config.sft.batch,
        strategy=config.data.packing_strategy,
        window=config.data.window,
        workers=config.data.media_workers,
        on_bad_record=config.data.on_bad_record,
        quarantine=run.hosts.folder(config).quarantine("sft"),
    ) as batches:
        return train_sft(policy, params, batches, config.sft, run)


def _train_rl(
    config: TrainConfig,
    policy: Policy,
    params: nnx.State,
    ready: Ready,
    scorer: Scorer,
    run: Run,
    scores: HeldOutScores,
) -> nnx.State:
    assert ready.rl_stream is not None
    sampler = Sampler(
        policy.graphdef,
        ready.processor,
        config.rl.rollout.all_together(config.rl.prompts_per_step),
        mesh=rollout_mesh(config, policy.mesh),
        compute_dtype=policy.compute_dtype,
        first=run.hosts.index,
        stride=run.hosts.count,
    )
    saved = None
    if config.rl.save_rollouts:
        saved = SavedRollouts(run.folder.saved_rollouts, sampler, seed=config.seed, log=run.log)
    rollouts = Rollouts(
        ready.rl_stream, sampler, scorer, config.rl, seed=config.seed, log=run.log, saved=saved
    )
    pages = RolloutPages(run.folder, config.log, media=ready.processor.media, fps=config.data.video_fps)
    return train_ema_grpo(
        policy,
        params,
        rollouts,
        config.rl,
        run,
        first_number=config.sft.steps,
        pages=pages if run.hosts.leads else None,
        table_every=config.log.table_every,
        scores=scores,
    )


def rollout_mesh(config: TrainConfig, mesh: Mesh) -> Mesh:
    """The devices of `rl.rollout_mesh`, those after the mesh's; without that setting this process's of the mesh.

    Raises ShardingError when there are too few.
    """
    if config.rl.rollout_mesh is None:
        return local_mesh(mesh)
    return make_mesh(*config.rl.rollout_mesh, devices=jax.devices()[mesh.size :])


def _keep_compiled_programs() -> None:
    """Compiled programs are kept between runs in the user's cache folder: a resumed run starts in seconds."""
    if jax.config.values.get(
        "jax_compilation_cache_dir"
    ):  # JAX_COMPILATION_CACHE_DIR, or set by whoever calls
        return
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "onethinker_jax" / "xla"
    jax.config.update("jax_compilation_cache_dir", str(cache))
