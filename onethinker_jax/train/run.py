"""One run from nothing to an exported checkpoint: data, fresh model, SFT, EMA-GRPO, export, summary.

Each part leaves its result in the run's folder, and a part whose result stands is not done again: running
the same command after an interruption goes on from the newest checkpoint.

    config.json  data/  base/  lengths/  checkpoints/  heldout/  quarantine/  rollouts/  metrics.jsonl  tensorboard/
    model/  index.html

Several processes share the folder; what is each one's own, such as its log, is in ``hosts/NUMBER`` for all but the
first.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from rich.console import Console

from onethinker_jax.data_pipeline.batches.loader import RecordStream, TrainingBatches
from onethinker_jax.data_pipeline.processor.processor import Processor
from onethinker_jax.model.attention.attention import platform_backend
from onethinker_jax.model.sharding import local_mesh, make_mesh
from onethinker_jax.responses import Sampler
from onethinker_jax.rewards.client.client import RewardClient
from onethinker_jax.rewards.client.sidecar import connect
from onethinker_jax.rewards.score_pool import score_pool
from onethinker_jax.scoring import Scorer
from onethinker_jax.train.checkpoint import BASE, CHECKPOINTS, Checkpoints, check_claim, claim_directory
from onethinker_jax.train.config.run import TrainConfig
from onethinker_jax.train.ema_grpo import train_ema_grpo
from onethinker_jax.train.export import check_export, export_model
from onethinker_jax.train.heldout import HeldOut, read_answers, stages_of
from onethinker_jax.train.hosts import Hosts, join_hosts
from onethinker_jax.train.log.log import Compilations, RunLog, count_compilations
from onethinker_jax.train.log.wandb_run import WandbRun
from onethinker_jax.train.pages.rollout_page import RolloutPages
from onethinker_jax.train.pages.summary import print_summary, write_run_page
from onethinker_jax.train.policy import make_model
from onethinker_jax.train.preflight.preflight import check_before
from onethinker_jax.train.preflight.prepare import (
    QUARANTINE,
    Corpora,
    make_processor,
    make_streams,
    prepare_base,
    prepare_data,
)
from onethinker_jax.train.preflight.record_limits import check_lengths
from onethinker_jax.train.sft import train_sft


def run(config: TrainConfig) -> None:
    """Does or finishes the whole run; see the module's docstring for what it leaves behind."""
    hosts = join_hosts(config.hosts)
    share = hosts.share(config)
    notes = begin(config, hosts)
    directory, own = config.directory, hosts.folder(config.directory)
    with open_log(config, hosts) as log, count_compilations() as compilations:
        log.info(
            f"run {config.name}, seed {config.seed}, in {directory}, on {jax.device_count()} x {jax.devices()[0]}"
            + (f", process {hosts.index} of {hosts.count}" if hosts.count > 1 else "")
        )
        for note in notes:
            log.info(note)
        if hosts.gather(is_finished(directory))[0]:
            corpora = prepare_data(config, hosts, log)
            log.info(
                "this run is finished: nothing is left to do; more --rl.steps lengthen it, another --name trains again"
            )
            if config.data.on_bad_record == "skip":  # some may have been left out
                corpora, _ = check_lengths(
                    config, corpora, make_processor(config, directory / BASE), hosts, log
                )
            print_summary(config, read_answers(config, corpora.heldout), log)
            _say_results(directory, log)
            return
        ready = prepare(config, hosts, log)
        processor, mesh, heldout = ready.processor, ready.mesh, ready.corpora.heldout
        with (
            jax.set_mesh(mesh),
            connect_service(config, own, log) as client,
            score_pool(config.sidecar.score_workers) as pool,
        ):
            with log.doing("reading the weights" if config.model.init_from else "making the fresh model"):
                graphdef, params = nnx.split(make_model(config, directory / BASE, mesh))
                jax.block_until_ready(params)
            log.info(
                f"policy: Qwen3-VL with {sum(x.size for x in jax.tree.leaves(params)):,} parameters, "
                f"attention: {platform_backend()}"
            )
            scorer = Scorer(
                client,
                variant=config.reward.variant,
                settings=config.reward,
                pool=pool,
                media=processor.media,
                prompts=processor.prompts,
            )
            checkpoints = Checkpoints(directory / CHECKPOINTS, keep=config.keep_checkpoints)
            try:
                params = _train(
                    share,
                    hosts,
                    graphdef,
                    params,
                    ready,
                    scorer,
                    checkpoints,
                    log,
                    compilations,
                )
            finally:
                with log.doing("writing the checkpoint"):
                    checkpoints.close()
            with log.doing(f"exporting to {directory / 'model'}"):
                export_model(nnx.merge(graphdef, params), directory / BASE, directory / "model")
            answers = read_answers(config, heldout)
            with log.doing("writing the page"):
                hosts.first_does(lambda: write_run_page(config, heldout, answers, scorer))
        print_summary(config, answers, log)
        _say_results(directory, log)


@dataclass(frozen=True)
class Ready:
    """What training needs beside weights: checked, and standing in the run's folder where it has a place there."""

    corpora: Corpora
    streams: tuple[RecordStream | None, RecordStream | None]  # of SFT and RL
    processor: Processor
    mesh: Mesh
    lengths: Mapping[str, np.ndarray]  # of the records by purpose, int32 [N, 2] of tokens and patches


def begin(config: TrainConfig, hosts: Hosts) -> list[str]:
    """Claims the run's folder once nothing speaks against the run; what to say of settings that have changed."""
    notes = hosts.all_do(lambda: check_claim(config))
    if hosts.any(bool(notes) or not is_finished(config.directory)):
        hosts.all_do(lambda: check_before(config))
    hosts.first_does(lambda: claim_directory(config, notes))
    _keep_compiled_programs()
    return notes


def prepare(config: TrainConfig, hosts: Hosts, log: RunLog) -> Ready:
    """Data, base and processor, every record held against the settings; no weight is read and nothing compiled."""
    mesh = make_mesh(config.mesh.data, config.mesh.fsdp, config.mesh.tensor)
    rollout_mesh(config, mesh)
    base, quarantine = config.directory / BASE, hosts.folder(config.directory) / QUARANTINE
    corpora = prepare_data(config, hosts, log)
    make_streams(
        config, corpora, hosts, quarantine
    )  # says what is wrong with a mixture before all are measured
    hosts.first_does(lambda: prepare_base(config, corpora, log))
    check_export(base, config.directory / "model")
    processor = make_processor(config, base)
    if processor.opening:
        log.info(f"the chat template begins answers with {processor.opening!r}, which counts as written")
    corpora, lengths = check_lengths(config, corpora, processor, hosts, log)
    streams = make_streams(config, corpora, hosts, quarantine)
    return Ready(corpora, streams, processor, mesh, lengths)


@contextmanager
def connect_service(config: TrainConfig, own: Path, log: RunLog) -> Iterator[RewardClient]:
    """The reward service for the block; ``own`` is where one of the run's own listens and logs."""
    with ExitStack() as stack:
        with log.doing("waiting for the reward service"):
            client = stack.enter_context(
                connect(config.sidecar, socket=own / "reward.sock", log=own / "reward_server.log")
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
    directory = hosts.folder(config.directory)
    if hosts.leads:
        wandb = WandbRun(config.log.wandb, config) if config.log.wandb else None
        with RunLog(directory, wandb=wandb) as log:
            yield log
        return
    directory.mkdir(parents=True, exist_ok=True)
    with (
        (directory / "console.log").open("a", encoding="utf-8", errors="backslashreplace") as file,
        RunLog(directory, console=Console(file=file, width=140)) as log,
    ):
        yield log


def is_finished(directory: Path) -> bool:
    """Whether the run in this folder came to its end; the page is the last thing it writes."""
    return all((directory / name).is_file() for name in ("index.html", "model/config.json"))


def _say_results(directory: Path, log: RunLog) -> None:
    log.info(f"Hugging Face directory: {directory / 'model'}")
    log.info(f"page: {directory / 'index.html'}")


def _train(
    config: TrainConfig,
    hosts: Hosts,
    graphdef: nnx.GraphDef,
    params: nnx.State,
    ready: Ready,
    scorer: Scorer,
    checkpoints: Checkpoints,
    log: RunLog,
    compilations: Compilations,
) -> nnx.State:
    """Fresh model -> SFT -> EMA-GRPO, each scored on the held-out records; ``config`` is this process's share."""
    processor, mesh, (sft_stream, rl_stream) = ready.processor, ready.mesh, ready.streams
    heldout = HeldOut(
        config, graphdef, processor, ready.corpora.heldout, scorer, local_mesh(mesh), hosts, log
    )
    heldout.score("fresh", params)
    newest = checkpoints.newest()
    if sft_stream is not None and (newest is None or newest[1]["stage"] == "sft"):
        batch = config.sft.batch
        with TrainingBatches(
            sft_stream,
            processor,
            batch,
            strategy=config.data.packing_strategy,
            window=config.data.window,
            workers=config.data.media_workers,
            on_bad_record=config.data.on_bad_record,
            quarantine=hosts.folder(config.directory) / QUARANTINE / "sft.jsonl",
        ) as batches:
            params = train_sft(
                graphdef,
                params,
                batches,
                config.sft,
                compute_dtype=config.model.compute_dtype,
                mesh=mesh,
                hosts=hosts,
                checkpoints=checkpoints,
                log=log,
            )
    if config.sft.steps:
        heldout.score("sft", params)

    if rl_stream is not None:
        sampler = Sampler(
            graphdef,
            processor,
            config.rl.rollout.all_together(config.rl.prompts_per_step),
            mesh=rollout_mesh(config, mesh),
            compute_dtype=config.model.compute_dtype,
            first=hosts.index,
            stride=hosts.count,
        )
        pages = RolloutPages(config.directory, config.log, media=processor.media, fps=config.data.video_fps)
        params = train_ema_grpo(
            graphdef,
            params,
            rl_stream,
            sampler,
            scorer,
            config.rl,
            compute_dtype=config.model.compute_dtype,
            seed=config.seed,
            first_number=config.sft.steps,
            mesh=mesh,
            hosts=hosts,
            checkpoints=checkpoints,
            log=log,
            compilations=compilations,
            pages=pages if hosts.leads else None,
            table_every=config.log.table_every,
        )
    if "rl" in stages_of(config):
        heldout.score("rl", params)
    return params


def rollout_mesh(config: TrainConfig, mesh: Mesh) -> Mesh:
    """The devices of ``rl.rollout_mesh``, those after the mesh's; without that setting this process's of the mesh.

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
