"""One run from nothing to an exported checkpoint: data, fresh model, SFT, EMA-GRPO, export, summary.

Each part leaves its result in the run's folder, and a part whose result stands is not done again: running
the same command after an interruption goes on from the newest checkpoint.

    config.json  data/  base/  checkpoints/  heldout/  quarantine/  rollouts/  metrics.jsonl  tensorboard/
    model/  index.html

Several processes share the folder; what is each one's own, such as its log, is in ``hosts/NUMBER`` for all but the
first.
"""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import jax
from flax import nnx
from jax.sharding import Mesh
from rich.console import Console

from onethinker_jax.data_pipeline.bad_records import BadRecords
from onethinker_jax.data_pipeline.end_tokens import GENERATION_CONFIG, read_generation_config
from onethinker_jax.data_pipeline.frame_cache import FrameCache
from onethinker_jax.data_pipeline.loader import RecordStream, TrainingBatches
from onethinker_jax.data_pipeline.media_reader import MediaReader
from onethinker_jax.data_pipeline.processor import Processor
from onethinker_jax.data_pipeline.processor_config import PROMPTS, write_missing_configs
from onethinker_jax.data_pipeline.prompts import Prompts
from onethinker_jax.data_pipeline.record_archive import open_records
from onethinker_jax.data_pipeline.records import Purpose, Record
from onethinker_jax.data_pipeline.synthetic import ShapesPaths, build_shapes_world
from onethinker_jax.data_pipeline.tokenizer import record_texts, train_tokenizer
from onethinker_jax.model.attention import platform_backend
from onethinker_jax.model.config import Qwen3VLConfig
from onethinker_jax.model.directory import companion_files
from onethinker_jax.model.sharding import local_mesh, make_mesh
from onethinker_jax.responses import Sampler
from onethinker_jax.rewards.pool import score_pool
from onethinker_jax.rewards.sidecar import connect
from onethinker_jax.scoring import Scorer, check_truths
from onethinker_jax.train.checkpoint import (
    BASE,
    CHECKPOINTS,
    Checkpoints,
    claim_directory,
    write_atomically,
)
from onethinker_jax.train.config import DataSettings, TrainConfig
from onethinker_jax.train.ema_grpo import train_ema_grpo
from onethinker_jax.train.export import check_export, export_model
from onethinker_jax.train.heldout import HeldOut, read_answers
from onethinker_jax.train.hosts import Hosts, join_hosts
from onethinker_jax.train.log import Compilations, RunLog, count_compilations
from onethinker_jax.train.policy import make_model, model_config
from onethinker_jax.train.rollout_page import RolloutPages
from onethinker_jax.train.sft import train_sft
from onethinker_jax.train.summary import print_summary, write_run_page
from onethinker_jax.train.wandb_run import WandbRun

QUARANTINE = "quarantine"


@dataclass(frozen=True)
class Corpora:
    """The records of a run."""

    sft: Sequence[Record]
    rl: Sequence[Record]
    heldout: list[Record]


def run(config: TrainConfig) -> None:
    """Does or finishes the whole run; see the module's docstring for what it leaves behind."""
    hosts = join_hosts(config.hosts)
    share = hosts.share(config)
    hosts.first_does(lambda: claim_directory(config))
    _keep_compiled_programs()
    directory, own = config.directory, hosts.folder(config.directory)
    with open_log(config, hosts) as log, count_compilations() as compilations:
        log.info(
            f"run {config.name}, seed {config.seed}, in {directory}, on {jax.device_count()} x {jax.devices()[0]}"
            + (f", process {hosts.index} of {hosts.count}" if hosts.count > 1 else "")
        )
        corpora = prepare_data(config, hosts, log)
        if hosts.gather(is_finished(directory))[0]:
            log.info("this run is finished: nothing is left to do; to train again, choose another --name")
            print_summary(config, read_answers(config, corpora.heldout), log)
            _say_results(directory, log)
            return
        hosts.first_does(lambda: prepare_base(config, corpora, log))
        base = directory / BASE
        check_export(base, directory / "model")
        processor = make_processor(config, base)
        if processor.opening:
            log.info(f"the chat template begins answers with {processor.opening!r}, which counts as written")
        mesh = make_mesh(config.mesh.data, config.mesh.fsdp, config.mesh.tensor)
        graphdef, params = nnx.split(make_model(config, base, mesh))
        with (
            jax.set_mesh(mesh),
            connect(config.sidecar, socket=own / "reward.sock", log=own / "reward_server.log") as client,
            score_pool(config.sidecar.score_workers) as pool,
        ):
            log.info(
                f"policy: Qwen3-VL with {sum(x.size for x in jax.tree.leaves(params)):,} parameters, "
                f"attention: {platform_backend()}"
            )
            service = client.describe()
            log.info(
                f"reward service: {service.text_backend} and {service.mask_backend} at {client.address}, "
                f"process {service.process_id}"
            )
            scorer = Scorer(
                client,
                variant=config.rl.variant,
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
                    corpora,
                    processor,
                    scorer,
                    mesh,
                    checkpoints,
                    log,
                    compilations,
                )
            finally:
                checkpoints.close()
            export_model(nnx.merge(graphdef, params), base, directory / "model")
            answers = read_answers(config, corpora.heldout)
            hosts.first_does(lambda: write_run_page(config, corpora.heldout, answers, scorer))
        print_summary(config, answers, log)
        _say_results(directory, log)


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
    corpora: Corpora,
    processor: Processor,
    scorer: Scorer,
    mesh: Mesh,
    checkpoints: Checkpoints,
    log: RunLog,
    compilations: Compilations,
) -> nnx.State:
    """Fresh model -> SFT -> EMA-GRPO, each scored on the held-out records; ``config`` is this process's share."""
    quarantine = hosts.folder(config.directory) / QUARANTINE
    sft_stream, rl_stream = make_streams(config, corpora, hosts, quarantine)
    heldout = HeldOut(config, graphdef, processor, corpora.heldout, scorer, local_mesh(mesh), hosts, log)
    heldout.score("fresh", params)
    newest = checkpoints.newest()
    if config.sft.steps and (newest is None or newest[1]["stage"] == "sft"):
        batch = config.sft.batch
        with TrainingBatches(
            sft_stream,
            processor,
            rows=batch.rows,
            tokens=batch.tokens,
            patches=batch.patches,
            placing=config.data.placing,
            window=config.data.window,
            workers=config.data.media_workers,
            on_bad_record=config.data.on_bad_record,
            quarantine=quarantine / "sft.jsonl",
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

    rl = config.rl
    sampler = Sampler(
        graphdef,
        processor,
        rl.sampler(),
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
        rl,
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
    heldout.score("rl", params)
    return params


def rollout_mesh(config: TrainConfig, mesh: Mesh) -> Mesh:
    """The devices of ``rl.rollout_mesh``, those after the mesh's; without that setting this process's of the mesh.

    Raises ShardingError when there are too few.
    """
    if config.rl.rollout_mesh is None:
        return local_mesh(mesh)
    return make_mesh(*config.rl.rollout_mesh, devices=jax.devices()[mesh.size :])


def make_streams(
    config: TrainConfig, corpora: Corpora, hosts: Hosts, quarantine: Path
) -> tuple[RecordStream, RecordStream]:
    """This process's records of SFT and of RL in the order of training.

    Raises MixtureError naming a weight for nothing.
    """
    data, bad = config.data, BadRecords(config.data.on_bad_record, quarantine / "rl.jsonl")
    sft, rl = (
        RecordStream(
            records, seed=config.seed, mixture=mixture, host=hosts.index, hosts=hosts.count, bad=reported
        )
        for records, mixture, reported in (
            (corpora.sft, data.sft_mixture, None),
            (corpora.rl, data.rl_mixture, bad),
        )
    )
    return sft, rl


def prepare_data(config: TrainConfig, hosts: Hosts, log: RunLog) -> Corpora:
    """The corpora the settings name, or the Shapes world, made if it is not there; all records are checked."""
    data = config.data
    files = (data.sft_file, data.rl_file, data.heldout_file)
    if data.sft_file is None:
        log.info(
            f"Shapes world: {data.shapes_sft + data.shapes_captions:,} SFT, {data.shapes_rl:,} RL, "
            f"{data.shapes_heldout:,} held-out records …"
        )
        world = config.directory / "data"
        hosts.first_does(
            lambda: build_shapes_world(
                world,
                seed=data.shapes_seed,
                train_rl=data.shapes_rl,
                train_sft=data.shapes_sft,
                heldout=data.shapes_heldout,
                captions=data.shapes_captions,
            )
        )
        paths = ShapesPaths.under(world)
        files = (paths.sft_json, paths.rl_json, paths.eval_json)
    purposes: tuple[Purpose | None, ...] = (  # a file of a stage that is left out may hold anything
        "sft" if config.sft.steps else None,
        "rl" if config.rl.steps else None,
        "heldout",
    )
    sft, rl, heldout = (
        open_records(
            file,
            media_root=data.media_root,
            purpose=purpose,
            on_bad_record=data.on_bad_record,
            quarantine=hosts.folder(config.directory) / QUARANTINE / f"{file.name}.jsonl",
        )
        for file, purpose in zip(files, purposes, strict=True)
        if file is not None
    )
    if config.rl.steps:
        check_truths(rl, config.reward)
    log.info(f"records: {len(sft)} SFT, {len(rl)} RL, {len(heldout)} held out")
    return Corpora(sft, rl, list(heldout))


def prepare_base(config: TrainConfig, corpora: Corpora, log: RunLog) -> Path:
    """The run's model directory without weights: ``init_from``'s files, or made with a tokenizer of its own.

    The prompts of ``data.prompt_file`` go in too, and with it into the exported model.
    Raises PromptError when they cannot be used.
    """
    base = config.directory / BASE
    prompts = config.data.prompt_file and Prompts.from_file(config.data.prompt_file)
    if config.model.init_from is not None:
        copy_base(config.model.init_from, base)
    elif not (base / "config.json").is_file():
        log.info("tokenizer: byte-level BPE on the SFT records …")
        data = config.data
        train_tokenizer(
            record_texts(corpora.sft),
            base,
            config.model.vocab_size,
            image_pixels=(data.image_min_pixels, data.image_max_pixels),
        )
        tokens = Processor.from_pretrained(base, grid_side=config.model.vision_grid)
        ids = tokens.ends.to_hf()
        generation = {"do_sample": False, **ids}
        (base / GENERATION_CONFIG).write_text(json.dumps(generation, indent=2) + "\n")
        hf = model_config(config.model, tokens).to_hf(extra=ids)
        write_atomically(base / "config.json", json.dumps(hf, indent=2) + "\n")  # last: now all is there
    if prompts:
        write_atomically(base / PROMPTS, prompts.to_json())
    return base


def copy_base(source: Path, base: Path) -> None:
    """Config, tokenizer, processor and generation config of a Hugging Face directory, none of its weights.

    Raises FileNotFoundError, ConfigError or ProcessorError naming what ``source`` lacks.
    """
    Qwen3VLConfig.from_directory(source)
    if (base / "config.json").is_file():
        return
    tokens = Processor.from_pretrained(source)
    base.mkdir(parents=True, exist_ok=True)
    for file in companion_files(source):
        shutil.copy2(file, base / file.name)
    write_missing_configs(base, tokens.sizes, tokens.limits)
    generation = read_generation_config(source, tokens.ends)
    write_atomically(base / GENERATION_CONFIG, json.dumps(generation, indent=2) + "\n")
    write_atomically(base / "config.json", (source / "config.json").read_text())


def make_processor(config: TrainConfig, base: Path) -> Processor:
    """The run's processor: one for SFT, rollouts and evaluation."""
    data = config.data
    return Processor.from_pretrained(
        base,
        image_min_pixels=data.image_min_pixels,
        image_max_pixels=data.image_max_pixels,
        video_fps=data.video_fps,
        video_max_frames=data.video_max_frames,
        video_min_pixels=data.video_min_pixels,
        video_max_pixels=data.video_max_pixels,
        video_total_pixels=data.video_total_pixels,
        cache_bytes=data.cache_bytes,
        media=make_reader(data),
    )


def make_reader(settings: DataSettings) -> MediaReader:
    """What reads the media of SFT, rollouts and evaluation; its processes end with this one.

    Raises OSError when the folder of the frame cache cannot be made.
    """
    cache = settings.frame_cache and FrameCache(settings.frame_cache, settings.frame_cache_bytes)
    return MediaReader.in_processes(
        settings.media_workers, time_limit=settings.media_time_limit, cache=cache or None
    )


def _keep_compiled_programs() -> None:
    """Compiled programs are kept between runs in the user's cache folder: a resumed run starts in seconds."""
    if jax.config.values.get(
        "jax_compilation_cache_dir"
    ):  # JAX_COMPILATION_CACHE_DIR, or set by whoever calls
        return
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "onethinker_jax" / "xla"
    jax.config.update("jax_compilation_cache_dir", str(cache))
