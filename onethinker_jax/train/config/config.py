"""Every setting of a run: frozen dataclasses that check themselves.  Imports no JAX: ``--help`` is instant.

Lengths are tokens, sizes are patches of 16x16x2 pixels unless they say otherwise.  All device shapes follow
from here: rows x tokens and rows x patches of a batch never change during a run.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from onethinker_jax.data_pipeline.batches.bin_packing import BatchShape, PackingStrategy
from onethinker_jax.data_pipeline.batches.mixture import Mixture
from onethinker_jax.errors import UserError
from onethinker_jax.rewards.client.sidecar import SidecarSettings
from onethinker_jax.rewards.score import RewardSettings
from onethinker_jax.sampler_settings import SamplerSettings

Method = Literal["ema_grpo", "grpo", "dr_grpo", "rloo", "gdpo"]
PolicyLoss = Literal["ppo", "gspo", "cispo"]
Average = Literal["token", "sequence", "constant"]
KLEstimator = Literal["k1", "k2", "k3"]
CheckLengths = Literal["all", "sample", "none"]
KVDtype = Literal["float32", "bfloat16", "int8"]
ImportanceSampling = Literal["none", "token_truncate", "token_mask", "sequence_truncate", "sequence_mask"]


class SettingError(UserError, ValueError):
    """A setting that cannot work; the message names it."""


def _at_least_zero(section: str, settings: object, *names: str) -> None:
    for name in names:
        if getattr(settings, name) < 0:
            raise SettingError(f"{section}.{name} {getattr(settings, name)} must not be negative")


def _positive(section: str, settings: object, *names: str) -> None:
    for name in names:
        if getattr(settings, name) <= 0:
            raise SettingError(f"{section}.{name} {getattr(settings, name)} must be positive")


def _sampler(section: str, **settings: Any) -> SamplerSettings:
    try:
        return SamplerSettings(**settings)
    except ValueError as error:
        raise SettingError(f"{section}.{error}") from None


def _check_rows(batches: dict[str, int], what: str, shards: int) -> None:
    for name, rows in batches.items():
        if rows % shards:
            raise SettingError(f"{name} {rows} is not a multiple of {what} = {shards}")


@dataclass(frozen=True)
class ModelSettings:
    """Where the policy comes from: ``init_from`` a Hugging Face directory, or fresh with these sizes."""

    init_from: Path | None = None
    """Hugging Face directory of a Qwen3-VL whose weights, tokenizer and processor the run starts from; by default the
    model is fresh, with the sizes below."""
    tiny: bool = False
    """``init_from`` is a tiny model too: the learning rates and media sizes of a fresh tiny model are meant.  Without
    it they are refused, as they ruin a released one."""
    vocab_size: int = 896
    """Tokens of a fresh model's tokenizer, which is trained on the SFT records."""
    hidden_size: int = 128
    """Width of the language model."""
    intermediate_size: int = 384
    """Width inside a layer's MLP."""
    num_layers: int = 4
    """Layers of the language model."""
    num_heads: int = 2
    """Query heads of a layer."""
    num_kv_heads: int = 1
    """Key and value heads, which the query heads share evenly."""
    head_dim: int = 64
    """Width of one head."""
    rope_theta: float = 10_000.0
    """Base of the rotary position embedding."""
    vision_depth: int = 3
    """Layers of the vision tower."""
    vision_hidden_size: int = 96
    """Width of the vision tower."""
    vision_intermediate_size: int = 192
    """Width inside a vision layer's MLP."""
    vision_heads: int = 3
    """Attention heads of a vision layer."""
    vision_grid: int = 16
    """Side of the learned position table, in patches."""
    deepstack_layers: tuple[int, ...] = (0, 1)
    """Vision layers, from 0, whose outputs are added to the first layers of the language model."""
    tie_word_embeddings: bool = True
    """The output head is the embedding table."""
    family: str | None = None
    """A released size, such as ``8b``: what ``plan`` compiles without weights; ``init_from`` must be of that size."""
    remat: Literal["none", "dots", "full"] = "dots"
    """What is kept of a layer for the backward pass: everything, its matrix products, or its input alone."""
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    """What the towers compute in; losses, norms, softmax and gradient sums are float32 either way."""
    master_dtype: Literal["float32", "bfloat16"] = "float32"
    """What weights are kept in.  bfloat16 halves them but rounds away updates below 1/256 of a weight."""


@dataclass(frozen=True)
class DataSettings:
    """Corpora in OneThinker's JSON, or the folders that ``tfds_builder`` made of them; with none named, the Shapes
    world is made in the run's directory."""

    sft_file: Path | None = None
    """Records with ``messages``: a JSON list, JSON lines, or a folder of ``tfds_builder``.  Not needed without SFT
    steps where ``init_from`` is named."""
    rl_file: Path | None = None
    """Records with true answers, in the same forms.  Not needed without RL steps."""
    heldout_file: Path | None = None
    """Records that no stage is trained on, in the form of ``rl_file``."""
    media_root: Path | None = None
    """Folder the media paths are relative to; by default each JSON file's own."""
    prompt_file: Path | None = None
    """JSON or TOML file of prompt templates by task, in place of the project's or ``init_from``'s own wording."""
    on_bad_record: Literal["raise", "skip"] = "raise"
    """A malformed record, or one whose media cannot be decoded, stops the run; or is left out, counted and written
    with its reason to the run's ``quarantine`` folder.  Held-out records must decode either way."""
    check_lengths: CheckLengths = "all"
    """Records whose tokens and patches are held against the settings before anything is trained, without decoding a
    pixel: all, a sample of 1,000 that lie evenly in each file, or none.  One that is too long is a bad record."""
    shapes_sft: int = 8000
    """SFT records of the Shapes world."""
    shapes_captions: int = 6000
    """Further SFT records that only list what is to be seen."""
    shapes_rl: int = 3000
    """RL records of the Shapes world."""
    shapes_heldout: int = 640
    """Held-out records of the Shapes world."""
    shapes_seed: int = 0
    """Seed of the Shapes world."""
    image_min_pixels: int = 56 * 56
    """A smaller image is enlarged to this many pixels."""
    image_max_pixels: int = 128 * 128
    """A larger image is shrunk to this many pixels."""
    video_fps: float = 2.0
    """Frames sampled of a second of video."""
    video_max_frames: int = 16
    """Most frames sampled of a video; a longer one is sampled evenly over its whole length."""
    video_min_pixels: int = 32 * 32
    """Smaller frames are enlarged to this many pixels each."""
    video_max_pixels: int = 64 * 96
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
    """How SFT examples are packed: ``best_fit`` fills rows better than ``first_fit``, at a few milliseconds of the
    host's time a row."""
    window: int = 64
    """SFT examples that wait in memory to be chosen from; more fill rows better."""

    def __post_init__(self) -> None:
        if self.prompt_file is not None and self.heldout_file is None:
            raise SettingError(
                "data.prompt_file: the Shapes world is asked in the project's own wording; name data.sft_file, "
                "data.rl_file and data.heldout_file too"
            )
        _positive("data", self, "shapes_sft", "shapes_rl", "shapes_heldout", "video_fps", "video_max_frames")
        _positive("data", self, "frame_cache_bytes", "media_time_limit", "window")
        _at_least_zero("data", self, "media_workers")
        if self.video_total_pixels is not None:
            _positive("data", self, "video_total_pixels")
        for kind in ("image", "video"):
            least, most = getattr(self, f"{kind}_min_pixels"), getattr(self, f"{kind}_max_pixels")
            if not 0 < least <= most:
                raise SettingError(f"data.{kind}_min_pixels {least} is not in 1 .. {kind}_max_pixels {most}")


@dataclass(frozen=True)
class OptimizerSettings:
    """Gradient clipping, then AdamW or Muon; warm-up is a share of all steps."""

    learning_rate: float
    """Its highest, after the warm-up."""
    kind: Literal["adamw", "muon"] = "adamw"
    """``muon`` orthogonalises the momentum of every layer's matrices, its steps scaled to AdamW's size; embeddings,
    norms and biases are AdamW's.  A model that starts from nothing needs fewer steps with it."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """``cosine`` falls to a tenth."""
    warmup: float = 0.02
    """Share of all steps over which the learning rate rises from 0."""
    weight_decay: float = 1e-2
    """Decoupled from the gradient, scaled by the learning rate; of matrices, not of norms and biases."""
    adam_weight_decay: float | None = None
    """With ``muon`` that of the matrices which AdamW keeps (the embedding, the output head, the patch embedding); by
    default ``weight_decay``."""
    beta1: float = 0.9
    """Decay of Adam's first moment."""
    beta2: float = 0.999
    """Decay of Adam's second moment."""
    max_grad_norm: float = 1.0
    """Gradients with a larger global norm are scaled down to it."""
    momentum_dtype: Literal["float32", "bfloat16"] = "float32"
    """Adam's first moment.  The second stays float32: at beta2 = 0.999 its changes are below bfloat16's grain."""
    vision_scale: float = 1.0
    """Learning rate of the vision tower relative to the rest."""
    patch_scale: float = 1.0
    """Learning rate of the patch embedding relative to the rest: a patch's 1,536 pixels are so alike that Adam's
    equal steps add up, and a fresh tower learns to see only with a small one."""

    def __post_init__(self) -> None:
        _positive("optimizer", self, "learning_rate", "max_grad_norm", "vision_scale", "patch_scale")
        _at_least_zero("optimizer", self, "weight_decay")
        if self.adam_weight_decay is not None:
            _at_least_zero("optimizer", self, "adam_weight_decay")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise SettingError(f"optimizer.{name} {getattr(self, name)} is not in [0, 1)")
        if not 0 <= self.warmup < 1:
            raise SettingError(f"optimizer.warmup {self.warmup} is not in [0, 1)")


@dataclass(frozen=True)
class BatchSettings(BatchShape):
    """The fixed shape of a packed micro-batch."""

    rows: int = 6
    """Packed rows of a micro-batch; a multiple of ``mesh.data`` x ``mesh.fsdp``."""
    tokens: int = 320
    """Tokens of a row: at least those of the longest example."""
    patches: int = 208
    """Patches of a row's images and frames together; a multiple of 4."""

    def __post_init__(self) -> None:
        _positive("batch", self, "rows", "tokens", "patches")
        if self.patches % 4:
            raise SettingError(f"batch.patches {self.patches} is not a multiple of 4 (merge blocks)")


@dataclass(frozen=True)
class SFTSettings:
    """Supervised cold start on chain-of-thought messages."""

    steps: int = 170
    """Optimiser updates; 0 leaves SFT out."""
    batch: BatchSettings = BatchSettings()
    accumulate: int = 1
    """Micro-batches summed into one update."""
    optimizer: OptimizerSettings = OptimizerSettings(
        learning_rate=8e-3,
        kind="muon",
        weight_decay=1e-2,
        adam_weight_decay=0.0,  # as the default run was measured: its embedding does not decay
        beta2=0.98,
        patch_scale=0.3,
    )
    train_vision: bool = True
    """False freezes the vision tower, as OneThinker's SFT of a pretrained model does."""
    log_every: int = 10
    """Steps between points of the curves."""
    save_every: int = 100
    """Steps between checkpoints."""

    def __post_init__(self) -> None:
        _at_least_zero("sft", self, "steps")
        _positive("sft", self, "accumulate", "log_every", "save_every")


@dataclass(frozen=True)
class RLSettings:
    """EMA-GRPO: G samples a prompt, task-wise moments scale the advantage, clipped policy loss."""

    steps: int = 72
    """Rollout batches, each trained on ``updates`` times; 0 leaves RL out."""
    prompts: int = 24
    """Groups of one step; divided evenly over ``updates``."""
    samples: int = 8
    """Answers sampled of each prompt: the group that a reward is compared within."""
    updates: int = 1
    """Optimiser updates a rollout batch."""
    max_rounds: int = 20
    """Rounds of ``prompts`` prompts that may be drawn to fill a step."""
    overlap: bool = False
    """Sample the next step's groups, with the weights from before it, while this step's update runs.  They are one
    update old when they are trained on: ``importance_sampling`` must correct for it."""
    rollout_mesh: tuple[int, int, int] | None = None
    """Devices of their own for the rollouts of ``overlap``, along data, fsdp and tensor, taken after the mesh's."""
    accuracy_low: float = 0.01
    """A group is kept when its mean accuracy, as a share of the most that its task gives, is strictly above this …"""
    accuracy_high: float = 0.99
    """… and strictly below this."""
    rollout_rows: int | None = None
    """Prompts sampled at once; all of ``prompts`` by default, fewer where their caches do not fit."""
    rollout_slots: int | None = None
    """Samples of a prompt decoded at once; all of ``samples`` by default."""
    prompts_ahead: int | None = None
    """Prompts of the next rounds that are read and kept ready while the devices work; one round's ``prompts`` by
    default, fewer where their media do not fit the host's memory."""
    prompt_tokens: int = 208
    """Most tokens of a prompt, its media's included."""
    prompt_patches: int = 160
    """Most patches of a prompt's images and frames together; a multiple of 4."""
    prompt_buckets: int = 1
    """Sizes that prompts are padded to: the longest, its half, its quarter …; each costs a prefill to compile."""
    prefill_tokens: int | None = None
    """Most tokens of a prompt computed in one dispatch, so that a long prompt's prefill goes by between decode bursts
    and holds the activations of this many tokens only; by default prompts are prefilled whole."""
    max_new_tokens: int = 152
    """Most tokens of an answer; a longer one is cut off."""
    temperature: float = 1.0
    """The only change to the model's distribution: what is optimised must be what is sampled, so RL has no top-k,
    top-p or min-p."""
    stop: tuple[str, ...] = ()
    """Strings that end an answer, at the token that completes one; it counts as ended, not as cut off."""
    kv_dtype: KVDtype | None = None
    """What the sampler's KV cache is kept in; by default what the model computes in.  With int8 the sampler's
    probabilities are not quite the trainer's: see ``importance_sampling``."""
    batch: BatchSettings = BatchSettings(rows=4, tokens=512, patches=160)
    optimizer: OptimizerSettings = OptimizerSettings(
        learning_rate=5e-4, warmup=0.1, vision_scale=0.2, patch_scale=0.02
    )
    method: Method = "ema_grpo"
    """How rewards become advantages; see ``advantages.py``."""
    variant: Literal["paper", "released"] = "released"
    """Which text of the method: ``paper`` or ``released`` (rewards and advantages)."""
    decay: float = 0.99
    """Share of a task's moments that is kept in a step of ``ema_grpo``."""
    reward_weights: tuple[float, float, float] | None = None
    """Of accuracy, format and structure in ``gdpo``; by default what the reward itself sums them with."""
    loss: PolicyLoss = "ppo"
    """What the policy minimises; see ``policy_losses.py`` for this and the settings down to ``importance_floor``."""
    clip_low: float = 0.2
    """The ratio of probabilities is clipped below at 1 - this."""
    clip_high: float = 0.3
    """The ratio of probabilities is clipped above at 1 + this."""
    dual_clip: float = 3.0
    """For a negative advantage the loss is at most this many times it; ``inf``: no bound."""
    average: Average = "token"
    """The loss is a mean over tokens, over samples of their means, or over samples x ``max_new_tokens``."""
    kl_coefficient: float = 0.0
    """Weight of the estimate of KL to the SFT model; 0 keeps no reference model."""
    kl_estimator: KLEstimator = "k3"
    """How that KL is estimated from the sampled tokens."""
    kl_bias_correction: bool = False
    """Multiplies the estimate by the ratio, so that its gradient is that of the KL."""
    entropy_coefficient: float = 0.0
    """Weight of the policy's entropy, which is raised; 0: none."""
    importance_sampling: ImportanceSampling = "none"
    """Corrects for a sampler whose probabilities are not quite the trainer's; with more than one update a rollout
    batch it costs a forward pass."""
    importance_cap: float = 2.0
    """Weights of the correction above this are cut to it, or masked."""
    importance_floor: float = 0.0
    """Weights of the correction below this are masked; for ``token_mask`` and ``sequence_mask``."""
    overlong: Literal["keep", "mask", "penalty"] = "keep"
    """Answers near ``max_new_tokens``: ``mask`` takes those cut off out of the loss, ``penalty`` lowers the reward."""
    overlong_buffer: int = 0
    """Last tokens before ``max_new_tokens`` over which ``penalty`` grows to its full size."""
    overlong_penalty: float = 1.0
    """The most that ``penalty`` takes off the reward."""
    log_every: int = 1
    """Steps between points of the curves."""
    save_every: int = 10
    """Steps between checkpoints."""

    def __post_init__(self) -> None:
        self._check_loss()
        _positive(
            "rl",
            self,
            "prompts",
            "samples",
            "updates",
            "max_rounds",
            "prompt_tokens",
            "prompt_patches",
            "max_new_tokens",
            "temperature",
            "clip_high",
            "dual_clip",
            "log_every",
            "save_every",
        )
        _at_least_zero("rl", self, "steps", "clip_low", "kl_coefficient")
        if not 0 <= self.decay < 1:
            raise SettingError(f"rl.decay {self.decay} is not in [0, 1)")
        if self.prompts % self.updates:
            raise SettingError(f"rl.prompts {self.prompts} is not a multiple of rl.updates {self.updates}")
        if self.rollout_rows is not None:
            _positive("rl", self, "rollout_rows")
        if self.prompts_ahead is not None:
            _at_least_zero("rl", self, "prompts_ahead")
        if self.samples < 2:
            raise SettingError(f"rl.samples {self.samples}: a group needs at least 2 samples")
        if self.overlap and self.importance_sampling == "none":
            raise SettingError(
                "rl.overlap trains on samples that are one update old: set rl.importance_sampling, for example "
                "token_truncate"
            )
        if self.rollout_mesh is not None:
            if not self.overlap:
                raise SettingError("rl.rollout_mesh is for rl.overlap, which is off")
            if min(self.rollout_mesh) < 1:
                raise SettingError(f"rl.rollout_mesh {self.rollout_mesh} must be positive")

        self.sampler()

    def sampler(self) -> SamplerSettings:
        """What rollouts are sampled with.  Raises SettingError naming a setting that cannot work."""
        return _sampler(
            "rl",
            rows=self.rollout_rows or self.prompts,
            samples=self.samples,
            slots=self.rollout_slots,
            prompt_tokens=self.prompt_tokens,
            prompt_patches=self.prompt_patches,
            prompt_buckets=self.prompt_buckets,
            prefill_tokens=self.prefill_tokens,
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            stop=self.stop,
            kv_dtype=self.kv_dtype,
        )

    def _check_loss(self) -> None:
        _at_least_zero("rl", self, "entropy_coefficient")
        if self.importance_cap < 1:
            raise SettingError(
                f"rl.importance_cap {self.importance_cap} must be at least 1: equal probabilities"
            )
        if not 0 <= self.importance_floor <= 1:
            raise SettingError(f"rl.importance_floor {self.importance_floor} is not in [0, 1]")
        if self.importance_floor and not self.importance_sampling.endswith("_mask"):
            raise SettingError(
                f"rl.importance_floor {self.importance_floor} needs rl.importance_sampling token_mask or "
                f"sequence_mask, not {self.importance_sampling}"
            )
        if self.overlong == "penalty":
            _positive("rl", self, "overlong_penalty")
            if not 0 < self.overlong_buffer <= self.max_new_tokens:
                raise SettingError(
                    f"rl.overlong penalty needs rl.overlong_buffer in 1 .. rl.max_new_tokens {self.max_new_tokens}, "
                    f"not {self.overlong_buffer}"
                )
        if self.reward_weights is not None:
            if self.method != "gdpo":
                raise SettingError(f"rl.reward_weights is for rl.method gdpo, not {self.method}")
            if min(self.reward_weights) < 0 or not 0 < sum(self.reward_weights) < math.inf:
                raise SettingError(
                    f"rl.reward_weights {self.reward_weights} must be finite, not negative, and not all zero"
                )


@dataclass(frozen=True)
class EvaluationSettings:
    """Answers to the held-out records."""

    rows: int = 64
    """Held-out prompts decoded at once."""
    prompt_tokens: int = 208
    """Most tokens of a held-out prompt, its media's included."""
    prompt_patches: int = 160
    """Most patches of a held-out prompt's images and frames together; a multiple of 4."""
    prompt_buckets: int = 1
    """Sizes that prompts are padded to: the longest, its half, its quarter …; each costs a prefill to compile."""
    prefill_tokens: int | None = None
    """Most tokens of a prompt computed in one dispatch; by default prompts are prefilled whole."""
    max_new_tokens: int = 152
    """Most tokens of an answer; a longer one is cut off."""
    kv_dtype: KVDtype | None = None
    """What the sampler's KV cache is kept in; by default what the model computes in."""
    sampled: bool = True
    """Before and after RL, beside greedy answers one at RL's temperature: their mean reward is what RL raises."""
    gallery: int = 3
    """Held-out records a task shown on the page."""

    def __post_init__(self) -> None:
        _positive("evaluation", self, "rows", "prompt_tokens", "prompt_patches", "max_new_tokens")
        _at_least_zero("evaluation", self, "gallery")
        self.sampler()

    def sampler(self) -> SamplerSettings:
        """What greedy answers are sampled with.  Raises SettingError naming a setting that cannot work."""
        return _sampler(
            "evaluation",
            rows=self.rows,
            prompt_tokens=self.prompt_tokens,
            prompt_patches=self.prompt_patches,
            prompt_buckets=self.prompt_buckets,
            prefill_tokens=self.prefill_tokens,
            max_new_tokens=self.max_new_tokens,
            temperature=0.0,
            kv_dtype=self.kv_dtype,
        )


@dataclass(frozen=True)
class MeshSettings:
    """How many devices along each axis of the mesh."""

    data: int = 1
    """Groups of devices that each hold the weights and take a part of every batch."""
    fsdp: int = 1
    """Devices that share out weights and optimiser state among them, and each take a part of every batch."""
    tensor: int = 1
    """Devices that share out each layer's heads and columns."""

    def __post_init__(self) -> None:
        _positive("mesh", self, "data", "fsdp", "tensor")

    @property
    def size(self) -> int:
        """Number of devices."""
        return self.data * self.fsdp * self.tensor


@dataclass(frozen=True)
class HostSettings:
    """The processes of a run on several hosts, which all are given the same command; by default there is one."""

    coordinator: str | None = None
    """``auto``: as a TPU pod, Slurm, Open MPI or Kubernetes says; else ``host:port`` where the first one listens."""
    count: int | None = None
    """How many there are, and which this is, from 0; with ``host:port``."""
    index: int | None = None
    """Number of this process, from 0; with ``host:port``."""

    def __post_init__(self) -> None:
        named = self.count is not None and self.index is not None
        if self.coordinator is None or self.coordinator == "auto":
            if self.count is not None or self.index is not None:
                raise SettingError("hosts.count and hosts.index go with hosts.coordinator host:port")
        elif not named or ":" not in self.coordinator:
            raise SettingError(
                f"hosts.coordinator {self.coordinator}: give host:port, and hosts.count and hosts.index"
            )
        elif not 0 <= (self.index or 0) < (self.count or 0):
            raise SettingError(f"hosts.index {self.index} is not one of hosts.count {self.count}")


@dataclass(frozen=True)
class LogSettings:
    """What a person sees of a run beside its curves; changes no number of it."""

    table_every: int = 10
    """RL steps between tables of the metrics on the console; 0: none."""
    rollouts_every: int = 10
    """RL steps between pages of rollouts in the run's ``rollouts`` folder; 0: none."""
    rollout_groups: int = 12
    """Prompts with their samples on such a page, evenly over the tasks."""
    wandb: str | None = None
    """Weights & Biases project that metrics also go to; needs the package wandb, and an account or
    WANDB_MODE=offline."""

    def __post_init__(self) -> None:
        _at_least_zero("log", self, "table_every", "rollouts_every")
        _positive("log", self, "rollout_groups")


@dataclass(frozen=True)
class TrainConfig:
    """A whole run: data, SFT, EMA-GRPO, evaluation and export, under ``out/name``."""

    name: str = "shapes"
    """The run's name: its folder is ``out/name``, and the same command goes on in it."""
    out: Path = Path("runs")
    """Folder of all runs."""
    seed: int = 0
    """Of the weights, the order of records and the samples."""
    model: ModelSettings = field(default_factory=ModelSettings)
    data: DataSettings = field(default_factory=DataSettings)
    sft: SFTSettings = field(default_factory=SFTSettings)
    rl: RLSettings = field(default_factory=RLSettings)
    reward: RewardSettings = field(default_factory=RewardSettings)
    sidecar: SidecarSettings = field(default_factory=SidecarSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    mesh: MeshSettings = field(default_factory=MeshSettings)
    hosts: HostSettings = field(default_factory=HostSettings)
    log: LogSettings = field(default_factory=LogSettings)
    keep_checkpoints: int = 2
    """Newest checkpoints that are kept; older ones are removed."""

    def __post_init__(self) -> None:
        if not self.name or "/" in self.name or self.name.startswith("."):
            raise SettingError(f"name {self.name!r} must be a plain folder name")
        if self.keep_checkpoints < 1 or self.seed < 0:
            raise SettingError(
                f"keep_checkpoints {self.keep_checkpoints} must be at least 1, seed {self.seed} at least 0"
            )
        self._check_files()
        batches = {
            "sft.batch.rows": self.sft.batch.rows,
            "rl.batch.rows": self.rl.batch.rows,
            "evaluation.rows": self.evaluation.rows,
        }
        name = "rl.rollout_rows" if self.rl.rollout_rows else "rl.prompts"
        rollouts = {name: self.rl.rollout_rows or self.rl.prompts}
        if self.rl.rollout_mesh is None:
            batches |= rollouts
        else:
            data, fsdp, _ = self.rl.rollout_mesh
            _check_rows(rollouts, "rl.rollout_mesh's data x fsdp", data * fsdp)
        _check_rows(batches, "mesh.data x mesh.fsdp", self.mesh.data * self.mesh.fsdp)
        if self.rl.overlap and self.rl.rollout_mesh is None and self.mesh.size > 1:
            raise SettingError(
                f"rl.overlap on a mesh of {self.mesh.size} devices needs rl.rollout_mesh: two threads that start "
                "programs on the same devices may start them in different orders, and wait for each other forever"
            )

    def _check_files(self) -> None:
        data = self.data
        if data.sft_file is data.rl_file is data.heldout_file is None:
            return
        needed = {"data.heldout_file": data.heldout_file}
        if self.sft.steps or self.model.init_from is None:  # a fresh model's tokenizer is trained on them
            needed["data.sft_file"] = data.sft_file
        if self.rl.steps:
            needed["data.rl_file"] = data.rl_file
        missing = [name for name, file in needed.items() if file is None]
        if missing:
            rest = "name all three, or none" if len(needed) == 3 else f"name {' and '.join(needed)}, or none"
            raise SettingError(f"{' and '.join(missing)}: not named; {rest}")

    @property
    def directory(self) -> Path:
        return self.out / self.name
