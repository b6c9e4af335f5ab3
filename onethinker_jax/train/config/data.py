"""Which records a run reads, how their media are decoded and how examples are packed."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from onethinker_jax.data_pipeline.batches.bin_packing import PackingStrategy
from onethinker_jax.data_pipeline.batches.mixture import Mixture
from onethinker_jax.train.config.checks import SettingError, at_least_zero, positive

WorldName = Literal["shapes", "photos"]
CheckLengths = Literal["all", "sample", "none"]


@dataclass(frozen=True)
class DataSettings:
    """Corpora in OneThinker's JSON, or the folders that `tfds_builder` made of them.

    With none named, a world is made in the run's directory.
    """

    sft_file: Path | None = None
    """Records with `messages`: a JSON list, JSON lines, or a folder of `tfds_builder`. Not needed without SFT
    steps where `init_from` is named."""
    rl_file: Path | None = None
    """Records with true answers, in the same forms. Not needed without RL steps."""
    heldout_file: Path | None = None
    """Records that no stage is trained on, in the form of `rl_file`."""
    media_root: Path | None = None
    """Folder the media paths are relative to; by default each JSON file's own."""
    prompt_file: Path | None = None
    """JSON or TOML file of prompt templates by task, in place of the project's or `init_from`'s own wording."""
    on_bad_record: Literal["raise", "skip"] = "raise"
    """A malformed record, or one whose media cannot be decoded, stops the run; or is left out, counted and written
    with its reason to the run's `quarantine` folder. Held-out records must decode either way."""
    check_lengths: CheckLengths = "all"
    """Records whose tokens and patches are held against the settings before anything is trained, without decoding a
    pixel: all, a sample of 1,000 that lie evenly in each file, or none. One that is too long is a bad record."""
    world: WorldName = "shapes"
    """What is made where no files are named: `shapes` needs nothing, `photos` a library of real pictures."""
    world_library: Path | None = None
    """The library of the Photos world: a folder that `data_pipeline.photos.packages` or `.own_folder` made."""
    world_sft: int = 8000
    """SFT records of the world."""
    world_captions: int = 6000
    """Further SFT records that only list what is to be seen."""
    world_rl: int = 3000
    """RL records of the world."""
    world_heldout: int = 640
    """Held-out records of the world."""
    world_seed: int = 0
    """Seed of the world."""
    image_min_pixels: int = 3136
    """A smaller image is enlarged to this many pixels."""
    image_max_pixels: int = 1_048_576
    """A larger image is shrunk to this many pixels."""
    video_fps: float = 2.0
    """Frames sampled of a second of video."""
    video_max_frames: int = 128
    """Most frames sampled of a video; a longer one is sampled evenly over its whole length."""
    video_min_pixels: int = 4 * 32 * 32
    """Smaller frames are enlarged to this many pixels each."""
    video_max_pixels: int = 64 * 32 * 32
    """Larger frames are shrunk to this many pixels each."""
    video_total_pixels: int | None = None
    """Bound of a video's sampled frames together; by default what the model's directory says."""
    cache_bytes: int = 512 * 2**20
    """Processed examples kept in memory."""
    frame_cache: Path | None = None
    """Folder of decoded, resized images and frames, which any number of runs may share; by default none is kept."""
    frame_cache_bytes: int = 64 * 2**30
    """Bound of that folder."""
    media_workers: int = 0
    """Processes that decode media, replaced when one dies or hangs; 0: the trainer's own."""
    media_time_limit: float = 60.0
    """Seconds that decoding one video may take."""
    sft_mixture: Mixture = field(default_factory=Mixture)
    """Weights of tasks and sources in SFT: 2 is twice as often as by nature, 0 never."""
    rl_mixture: Mixture = field(default_factory=Mixture)
    """The same in RL."""
    packing_strategy: PackingStrategy = "best_fit"
    """How SFT examples are packed: `best_fit` fills rows better than `first_fit`, at a few milliseconds of the
    host's time a row."""
    window: int = 64
    """SFT examples that wait in memory to be chosen from; more fill rows better."""

    def __post_init__(self) -> None:
        if self.prompt_file is not None and self.heldout_file is None:
            raise SettingError(
                "data.prompt_file: a world is asked in the project's own wording; name data.sft_file, "
                "data.rl_file and data.heldout_file too"
            )
        if self.world == "photos" and self.heldout_file is None and self.world_library is None:
            raise SettingError(
                "data.world photos needs data.world_library, a folder that `python -m "
                "onethinker_jax.data_pipeline.photos.packages FOLDER` makes"
            )
        if self.world_library is not None and self.world != "photos":
            raise SettingError("data.world_library is for data.world photos")
        positive("data", self, "world_sft", "world_rl", "world_heldout", "video_fps", "video_max_frames")
        positive("data", self, "frame_cache_bytes", "media_time_limit", "window")
        at_least_zero("data", self, "media_workers")
        if self.video_total_pixels is not None:
            positive("data", self, "video_total_pixels")
        for kind in ("image", "video"):
            least, most = getattr(self, f"{kind}_min_pixels"), getattr(self, f"{kind}_max_pixels")
            if not 0 < least <= most:
                raise SettingError(f"data.{kind}_min_pixels {least} is not in 1 .. {kind}_max_pixels {most}")
