"""The flags of the server. Imports no JAX: `--help` is instant."""

import ipaddress
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from onethinker_jax.command_line import UsageError
from onethinker_jax.model_arguments import ModelArguments
from onethinker_jax.sampler_settings import KVDtype, SamplerSettings, WeightsDtype

MIN_KEY_CHARS = 16


@dataclass(frozen=True)
class ServeMesh:
    """How many devices lie along each axis of the mesh."""

    data: int = 1
    """Groups of devices that each hold the weights and a part of the slots."""
    fsdp: int = 1
    """As `data`: decoding keeps the weights whole along it."""
    tensor: int = 1
    """Devices that share out each layer's heads and columns."""

    def __post_init__(self) -> None:
        for name in ("data", "fsdp", "tensor"):
            if getattr(self, name) < 1:
                raise ValueError(f"mesh.{name} {getattr(self, name)} must be at least 1")


@dataclass(frozen=True)
class Limits:
    """What one request may ask for, and how many requests there may be. More is refused with the reason."""

    requests: int = 128
    """Requests under way at once, those that wait for a slot included; one more is told to come back."""
    seconds: float = 600.0
    """Seconds that a request may take, its reading, waiting and answer included."""
    header_seconds: float = 20.0
    """Seconds within which a request's headers must arrive; then the connection is closed."""
    body_bytes: int = 32 * 2**20
    """Bytes of a request, its media included."""
    samples: int = 16
    """Answers to one request (`n`)."""
    images: int = 128
    """Images of a request."""
    videos: int = 4
    """Videos of a request."""
    media_bytes: int = 64 * 2**20
    """Bytes of one file that is read or fetched for a request."""
    pixels: int = 2**25
    """Pixels of an image or a frame, as its file holds it."""
    video_seconds: float = 600.0
    """Length of a video."""

    def __post_init__(self) -> None:
        for name in (
            "requests",
            "seconds",
            "header_seconds",
            "body_bytes",
            "samples",
            "media_bytes",
            "pixels",
            "video_seconds",
        ):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"limits.{name} {getattr(self, name)} must be above 0")
        for name in ("images", "videos"):
            if getattr(self, name) < 0:
                raise ValueError(f"limits.{name} {getattr(self, name)} must not be negative")


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """MODEL: serves a Hugging Face directory behind OpenAI's API, on this machine alone unless flags say otherwise."""

    model: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="MODEL")]]
    """Hugging Face directory: weights, tokenizer and processor files."""
    host: str = "127.0.0.1"
    """Address to listen on; beyond loopback it takes an API key and TLS."""
    port: int = 8000
    """Port to listen on; 0: any free one, which the first line names."""
    api_key_file: Path | None = None
    """File with the key that clients must send, of at least 16 characters."""
    tls_certificate: Path | None = None
    """PEM file: the certificate and its chain."""
    tls_key: Path | None = None
    """PEM file: the certificate's key."""
    served_model_name: str | None = None
    """The model's name for clients; by default that of its directory."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """What the model computes in."""
    kv_dtype: KVDtype | None = None
    """What the KV cache is kept in; by default what the model computes in."""
    weights_dtype: WeightsDtype | None = None
    """What the decoder's and the head's matrices are kept in; by default what the model computes in."""
    mesh: ServeMesh = field(default_factory=ServeMesh)
    prompt_slots: int = 8
    """Answers decoded together; each has a place for a prompt and an answer of the greatest length in the KV cache."""
    prompt_tokens: int = 16_384
    """Most tokens of a prompt, its media's included."""
    prompt_patches: int = 65_536
    """Most patches of a prompt's images and frames together; a multiple of 4."""
    prompt_buckets: int = 4
    """Sizes that prompts are padded to: the longest, its half, its quarter …; each with and without media."""
    max_new_tokens: int = 4096
    """Most tokens of an answer."""
    prefill_chunk_tokens: int | None = None
    """Most tokens of a prompt computed between two decode blocks (chunked prefill), so that a long prompt does not hold
    up the answers under way; by default prompts are computed whole."""
    decode_block: int = 4
    """Most tokens of an answer drawn in one dispatch, which are sent together."""
    image_max_pixels: int | None = None
    """The most pixels of an image for the model; by default what the directory says."""
    video_fps: float = 2.0
    """Frames sampled of a second of video."""
    video_max_frames: int = 128
    """Most frames sampled of a video; a longer one is sampled evenly over its whole length."""
    video_max_pixels: int = 256 * 32 * 32
    """The most pixels of one frame for the model."""
    video_total_pixels: int | None = None
    """The most pixels of all sampled frames of a video; by default what the directory says."""
    media_workers: int = 2
    """Processes that decode media; one that a file kills or hangs is replaced."""
    media_time_limit: float = 60.0
    """Seconds that decoding one video may take."""
    media_folder: Path | None = None
    """Folder whose files clients may name (`file:///…`); by default none."""
    fetch: bool = False
    """Fetches media that clients name by http(s), from public addresses only."""
    limits: Limits = field(default_factory=Limits)
    drain_seconds: float = 60.0
    """Seconds that requests under way have to end after SIGTERM or Ctrl-C."""

    def __post_init__(self) -> None:
        if not 0 <= self.port < 2**16:
            raise ValueError(f"port {self.port} is not in 0 to 65535")
        if self.media_workers < 1:
            raise ValueError(
                f"media_workers {self.media_workers} must be at least 1: media are decoded apart"
            )
        if not 0 <= self.drain_seconds < float("inf"):
            raise ValueError(f"drain_seconds {self.drain_seconds} must be 0 or more")
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key come together")
        if not self.loopback and (self.api_key_file is None or self.tls_key is None):
            raise ValueError(
                f"host {self.host} is beyond this machine: it takes --api-key-file, --tls-certificate and --tls-key"
            )
        shards = self.mesh.data * self.mesh.fsdp
        if self.prompt_slots % shards:
            raise ValueError(
                f"prompt_slots {self.prompt_slots} is not a multiple of the mesh's {shards} parts"
            )

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the server; a name other than localhost may be any address."""
        try:
            return self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def name(self) -> str:
        """The model's name for clients."""
        return self.served_model_name or self.model.resolve().name

    def api_key(self) -> bytes | None:
        """The key that clients must send, None: none. Raises UsageError naming a file without a usable one."""
        if self.api_key_file is None:
            return None
        try:
            key = self.api_key_file.read_bytes().strip()
        except OSError as error:
            raise UsageError(f"--api-key-file {self.api_key_file}: {error.strerror}") from None
        text = key.decode("ascii", "replace")
        if len(text) < MIN_KEY_CHARS or "\ufffd" in text or not text.isprintable() or " " in text:
            raise UsageError(
                f"--api-key-file {self.api_key_file}: needs a key of {MIN_KEY_CHARS} or more ASCII letters and signs"
            )
        return key

    def check_tls(self) -> None:
        """Raises UsageError naming files that are no certificate and its key."""
        if self.tls_certificate is None or self.tls_key is None:
            return
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.tls_certificate, self.tls_key)
        except (OSError, ssl.SSLError) as error:
            said = getattr(error, "strerror", None) or error
            raise UsageError(
                f"--tls-certificate {self.tls_certificate}, --tls-key {self.tls_key}: {said}"
            ) from None

    def folder(self) -> Path | None:
        """The folder of media, without symbolic links. Raises UsageError where it is none."""
        if self.media_folder is None:
            return None
        if not self.media_folder.is_dir():
            raise UsageError(f"--media-folder {self.media_folder}: there is no such folder")
        return self.media_folder.resolve()

    def sampler(self) -> SamplerSettings:
        """The sizes of sampling. Raises UsageError naming one that cannot work."""
        shards = self.mesh.data * self.mesh.fsdp
        try:
            return SamplerSettings(
                prompt_slots=self.prompt_slots,
                prompt_tokens=self.prompt_tokens,
                prompt_patches=self.prompt_patches,
                prompt_buckets=self.prompt_buckets,
                prefill_rows=shards,
                prefill_chunk_tokens=self.prefill_chunk_tokens,
                max_new_tokens=self.max_new_tokens,
                decode_block=self.decode_block,
                kv_dtype=self.kv_dtype,
                weights_dtype=self.weights_dtype,
            )
        except ValueError as error:
            raise UsageError(str(error)) from None

    def of_model(self) -> ModelArguments:
        """What of these the model and its processor are read with."""
        return ModelArguments(
            model=self.model,
            max_new_tokens=self.max_new_tokens,
            dtype=self.dtype,
            kv_dtype=self.kv_dtype,
            weights_dtype=self.weights_dtype,
            image_max_pixels=self.image_max_pixels,
            video_fps=self.video_fps,
            video_max_frames=self.video_max_frames,
            video_max_pixels=self.video_max_pixels,
            video_total_pixels=self.video_total_pixels,
        )
