"""What a run trains on, made ready before any weight is: records, the model directory without weights, the processor.

All of it stands in the run's folder afterwards and is found there by the same command.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onethinker_jax.data_pipeline.batches.loader import RecordStream
from onethinker_jax.data_pipeline.media.reading.frame_cache import FrameCache
from onethinker_jax.data_pipeline.media.reading.media_reader import MediaReader
from onethinker_jax.data_pipeline.photos.library import Library
from onethinker_jax.data_pipeline.photos.world import PhotosWorld
from onethinker_jax.data_pipeline.processor.end_tokens import GENERATION_CONFIG, read_generation_config
from onethinker_jax.data_pipeline.processor.processor import Processor
from onethinker_jax.data_pipeline.processor.processor_config import (
    PROMPTS,
    MediaBounds,
    write_missing_configs,
)
from onethinker_jax.data_pipeline.processor.prompts import Prompts
from onethinker_jax.data_pipeline.processor.tokenizer import record_texts, train_tokenizer
from onethinker_jax.data_pipeline.records.bad_records import BadRecords
from onethinker_jax.data_pipeline.records.record import Purpose, Record
from onethinker_jax.data_pipeline.records.record_archive import open_records
from onethinker_jax.data_pipeline.shapes.world import ShapesWorld
from onethinker_jax.data_pipeline.worlds.building import build_world
from onethinker_jax.data_pipeline.worlds.world import World, WorldPaths
from onethinker_jax.files import write_whole
from onethinker_jax.model.config import Qwen3VLConfig
from onethinker_jax.model.directory import companion_files
from onethinker_jax.scoring import check_reward, check_truths
from onethinker_jax.train.config.data import DataSettings
from onethinker_jax.train.config.run import TrainConfig
from onethinker_jax.train.hosts import Hosts
from onethinker_jax.train.log.log import RunLog
from onethinker_jax.train.policy import model_config


@dataclass(frozen=True)
class Corpora:
    """The records of a run by what they are for, and the files they are from; none for a stage without steps."""

    sft: Sequence[Record]
    rl: Sequence[Record]
    heldout: Sequence[Record]
    files: Mapping[str, Path] = field(default_factory=dict)


def make_streams(
    config: TrainConfig, corpora: Corpora, hosts: Hosts
) -> tuple[RecordStream | None, RecordStream | None]:
    """This process's records of SFT and of RL in the order of training; None for a stage without steps.

    Raises MixtureError naming a weight for nothing.
    """
    data, bad = config.data, BadRecords(config.data.on_bad_record, hosts.folder(config).quarantine("rl"))
    dealt: dict[str, Any] = {"seed": config.seed, "host": hosts.index, "hosts": hosts.count}
    sft = RecordStream(corpora.sft, mixture=data.sft_mixture, **dealt) if config.sft.steps else None
    rl = RecordStream(corpora.rl, mixture=data.rl_mixture, bad=bad, **dealt) if config.rl.steps else None
    return sft, rl


def prepare_data(config: TrainConfig, hosts: Hosts, log: RunLog) -> Corpora:
    """The corpora the settings name, or a world, made if it is not there; all records are checked."""
    data = config.data
    files = {"sft": data.sft_file, "rl": data.rl_file, "heldout": data.heldout_file}
    if data.heldout_file is None:
        paths = _make_world(config, hosts, log)
        files = {"sft": paths.sft_json, "rl": paths.rl_json, "heldout": paths.eval_json}
    records: dict[str, Sequence[Record]] = {"sft": [], "rl": [], "heldout": []}
    # a file of a stage that is left out may hold anything
    needed: dict[str, Purpose] = {"heldout": "heldout"}
    needed |= {"sft": "sft"} if config.sft.steps else {}
    needed |= {"rl": "rl"} if config.rl.steps else {}
    for purpose, file in files.items():
        if file is None:
            continue
        with log.doing(f"reading {file}"):
            records[purpose] = open_records(
                file,
                media_root=data.media_root,
                purpose=needed.get(purpose),
                on_bad_record=data.on_bad_record,
                quarantine=hosts.folder(config).quarantine(file.name),
            )
    if config.rl.steps:
        check_truths(records["rl"], config.reward)
    check_reward(config.reward, records["rl"] or records["heldout"])
    log.info(
        f"records: {len(records['sft'])} SFT, {len(records['rl'])} RL, {len(records['heldout'])} held out"
    )
    records["heldout"] = list(records["heldout"])  # asked for again and again
    return Corpora(**records, files={purpose: file for purpose, file in files.items() if file is not None})


def write_counts(config: TrainConfig, corpora: Corpora) -> None:
    """Writes how many records there are for each purpose, and the names of their files, for the model card."""
    counts = {"sft": len(corpora.sft), "rl": len(corpora.rl), "heldout": len(corpora.heldout)}
    found = {
        purpose: {"file": file.name, "records": counts[purpose]}
        for purpose, file in corpora.files.items()
        if purpose == "heldout" or getattr(config, purpose).steps
    }
    write_whole(config.folder.records, json.dumps(found, indent=2) + "\n")


def world_of(data: DataSettings) -> World:
    """The world that the settings name. Raises LibraryError, WorldError."""
    sizes = (data.world_seed, data.world_rl, data.world_sft, data.world_heldout, data.world_captions)
    if data.world == "photos":
        assert data.world_library is not None
        return PhotosWorld(*sizes, library=Library.read(data.world_library))
    return ShapesWorld(*sizes)


def _make_world(config: TrainConfig, hosts: Hosts, log: RunLog) -> WorldPaths:
    data, world = config.data, world_of(config.data)
    log.info(
        f"{world.title}: {data.world_sft + data.world_captions:,} SFT, {data.world_rl:,} RL, "
        f"{data.world_heldout:,} held-out records …"
    )

    def build() -> None:
        with log.doing(f"making the {world.title}", unit="scenes") as doing:
            build_world(world, config.folder.world, progress=doing.reached)

    hosts.first_does(build)
    return WorldPaths.under(config.folder.world, world.name)


def prepare_base(config: TrainConfig, corpora: Corpora, log: RunLog) -> Path:
    """The run's model directory without weights: `init_from`'s files, or made with a tokenizer of its own.

    The prompts of `data.prompt_file` go in too, and with it into the exported model.
    Raises PromptError when they cannot be used.
    """
    base = config.folder.base
    prompts = config.data.prompt_file and Prompts.from_file(config.data.prompt_file)
    if config.model.init_from is not None:
        copy_base(config.model.init_from, base)
    elif not (base / "config.json").is_file():
        log.info("tokenizer: byte-level BPE on the SFT records …")
        data = config.data
        with log.doing("training the tokenizer"):
            train_tokenizer(
                record_texts(corpora.sft),
                base,
                config.model.vocab_size,
                image_pixels=(data.image_min_pixels, data.image_max_pixels),
            )
        tokens = Processor.from_pretrained(base, grid_side=config.model.vision_grid)
        ids = tokens.ends.to_hf()
        generation = {"do_sample": False, **ids}
        write_whole(base / GENERATION_CONFIG, json.dumps(generation, indent=2) + "\n")
        hf = model_config(config.model, tokens).to_hf(extra=ids)
        write_whole(base / "config.json", json.dumps(hf, indent=2) + "\n")  # last: now all is there
    if prompts:
        write_whole(base / PROMPTS, prompts.to_json())
    return base


def copy_base(source: Path, base: Path) -> None:
    """Config, tokenizer, processor and generation config of a Hugging Face directory, none of its weights.

    Raises FileNotFoundError, ConfigError or ProcessorError naming what `source` lacks.
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
    write_whole(base / GENERATION_CONFIG, json.dumps(generation, indent=2) + "\n")
    write_whole(base / "config.json", (source / "config.json").read_text())


def make_processor(config: TrainConfig, base: Path) -> Processor:
    """The run's processor: one for SFT, rollouts and evaluation."""
    data = config.data
    return Processor.from_pretrained(
        base,
        MediaBounds(
            image_min_pixels=data.image_min_pixels,
            image_max_pixels=data.image_max_pixels,
            video_fps=data.video_fps,
            video_max_frames=data.video_max_frames,
            video_min_pixels=data.video_min_pixels,
            video_max_pixels=data.video_max_pixels,
            video_total_pixels=data.video_total_pixels,
        ),
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
