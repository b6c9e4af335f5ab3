"""Chat messages and media -> token ids, patches, positions and loss mask, all in numpy.

Equal to transformers' Qwen3-VL processors where those run without torchvision (images, text), with the
video layout of transformers 4.57, with which OneThinker was trained: every frame pair is
`<t seconds><|vision_start|>...<|vision_end|>` with no pair of vision tokens around the whole. Two
departures: t comes from true presentation times, and video pixel bounds are per frame, as in OneThinker.
Media are decoded once and everything the model needs is computed here, so that training, rollouts and
evaluation cannot disagree.
"""

import math
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from onethinker_jax.data_pipeline.chat import ChatTokenizer, ProcessorError, read_json
from onethinker_jax.data_pipeline.media import Video
from onethinker_jax.data_pipeline.media_reader import MediaReader
from onethinker_jax.data_pipeline.prompts import chat_messages
from onethinker_jax.data_pipeline.records import Record, RecordError
from onethinker_jax.data_pipeline.resizing import PixelBounds
from onethinker_jax.model.inputs import mrope_positions, patch_geometry

_PLACEHOLDER = re.compile(r"(<image>|<video>)")
_PADS = re.compile(r"<\|vision_start\|><\|(image|video)_pad\|><\|vision_end\|>")
_ASSISTANT = re.compile(r"(<\|im_start\|>assistant\n)(.*?<\|im_end\|>)", re.DOTALL)
# Written in a question, these would be read as structure; the template alone may put them.
_RESERVED = re.compile(r"<\|(?:im_start|im_end|endoftext|vision_start|vision_end|image_pad|video_pad)\|>")


@dataclass(frozen=True)
class Example:
    """One conversation, ready to be packed. T tokens, P patches, n media; numpy arrays."""

    tokens: np.ndarray  # int32 [T]
    positions: np.ndarray  # int32 [3, T], M-RoPE
    loss_mask: np.ndarray  # bool [T], True where this token is a target
    visual_index: np.ndarray  # int32 [T], merged patch of a placeholder, -1 for text
    patches: np.ndarray  # uint8 [P, 1536]
    grids: np.ndarray  # int32 [n, 3], (t, h, w) in patches, in order of appearance
    frame_ids: np.ndarray  # int32 [P]
    coords: np.ndarray  # int32 [P, 2]
    embed_index: np.ndarray  # int32 [P, 4]
    embed_weight: np.ndarray  # float32 [P, 4]
    next_position: int  # M-RoPE position of the first generated token

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(v.nbytes for f in fields(self) if isinstance(v := getattr(self, f.name), np.ndarray))


@dataclass(frozen=True)
class MediaLimits:
    """How large media may be when they reach the model. Pixels are height times width after resizing."""

    image_min_pixels: int
    image_max_pixels: int
    video_fps: float
    video_max_frames: int
    video_min_pixels: int  # of one frame
    video_max_pixels: int  # of one frame

    def __post_init__(self):
        for kind in ("image", "video"):
            low, high = getattr(self, f"{kind}_min_pixels"), getattr(self, f"{kind}_max_pixels")
            if not 0 < low <= high:
                raise ValueError(f"{kind} pixel bounds must be 0 < min <= max, got {low} and {high}")
        if self.video_fps <= 0 or self.video_max_frames < 1:
            raise ValueError(
                f"video_fps {self.video_fps} and video_max_frames {self.video_max_frames}: too small"
            )


def timestamps_of_pairs(times: np.ndarray, temporal: int = 2) -> np.ndarray:
    """Seconds written before each merged group of `temporal` frames: the mean of its first and last frame.

    Args:
        times: float [N] presentation times; an incomplete last group repeats the last frame.

    Returns:
        float64 [ceil(N / temporal)].
    """
    padded = np.concatenate([times, np.repeat(times[-1:], -len(times) % temporal)])
    groups = padded.reshape(-1, temporal)
    return (groups[:, 0] + groups[:, -1]) / 2


class Processor:
    """Turns messages and media into an `Example`. Stateless but for an optional cache; thread-safe."""

    def __init__(
        self,
        tokenizer: ChatTokenizer,
        limits: MediaLimits,
        *,
        patch_size: int = 16,
        temporal_patch_size: int = 2,
        merge_size: int = 2,
        grid_side: int = 48,
        cache_bytes: int = 0,
        media: MediaReader | None = None,
    ):
        """See `from_pretrained`, which reads all of this from a directory."""
        self.media = media or MediaReader()
        self.tokenizer, self.limits = tokenizer, limits
        self.patch_size, self.temporal_patch_size, self.merge_size = (
            patch_size,
            temporal_patch_size,
            merge_size,
        )
        self.patch_bytes = 3 * temporal_patch_size * patch_size**2
        self.grid_side = grid_side
        self.image_token_id = self._token_id("<|image_pad|>")
        self.video_token_id = self._token_id("<|video_pad|>")
        self.vision_start_token_id = self._token_id("<|vision_start|>")
        self.vision_end_token_id = self._token_id("<|vision_end|>")
        self.eos_token_id = self._token_id("<|im_end|>")
        self.pad_token_id = self._token_id("<|endoftext|>")
        self._cache = _ExampleCache(cache_bytes)

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        image_min_pixels: int | None = None,
        image_max_pixels: int | None = None,
        video_fps: float = 2.0,
        video_max_frames: int = 128,
        video_min_pixels: int = 4 * 32 * 32,
        video_max_pixels: int = 64 * 32 * 32,
        grid_side: int | None = None,
        cache_bytes: int = 0,
        media: MediaReader | None = None,
    ) -> "Processor":
        """Reads the tokenizer and processor configs of a Qwen3-VL directory.

        Args:
            path: a directory with a tokenizer (chat template included) and `preprocessor_config.json`;
                `video_preprocessor_config.json`, `processor_config.json` and `config.json` if there.
            image_min_pixels, image_max_pixels: bounds of an image's area; default: the directory's.
            video_fps, video_max_frames: how videos are sampled.
            video_min_pixels, video_max_pixels: bounds of a frame's area; default: OneThinker's RL settings.
            grid_side: side of the model's position embedding table; default: `config.json`'s, else 48.
            cache_bytes: keep processed examples of `prompt` and `training` in memory up to this size.
            media: reads the files; by default in this process, without a cache on disk.

        Raises:
            ProcessorError: the directory is not there, or asks for processing this class does not do.
        """
        path = Path(path)
        if not path.is_dir():
            raise ProcessorError(f"{path}: no such directory")
        image, video = _processor_configs(path)
        size = image.get("size", {})
        limits = MediaLimits(
            image_min_pixels=image_min_pixels or image.get("min_pixels") or size.get("shortest_edge", 65536),
            image_max_pixels=image_max_pixels
            or image.get("max_pixels")
            or size.get("longest_edge", 16777216),
            video_fps=video_fps,
            video_max_frames=video_max_frames,
            video_min_pixels=video_min_pixels,
            video_max_pixels=video_max_pixels,
        )
        geometry = {
            k: image.get(k, v) for k, v in (("patch_size", 16), ("temporal_patch_size", 2), ("merge_size", 2))
        }
        for name, value in geometry.items():
            if video.get(name, value) != value:
                raise ProcessorError(f"{path}: {name} is {value} for images but {video[name]} for videos")
        if grid_side is None:
            grid_side = 48
            if (path / "config.json").is_file():
                vision = read_json(path / "config.json").get("vision_config", {})
                grid_side = math.isqrt(vision.get("num_position_embeddings", 2304))
        tokenizer = ChatTokenizer(path)
        return cls(tokenizer, limits, **geometry, grid_side=grid_side, cache_bytes=cache_bytes, media=media)

    def __call__(
        self,
        messages: Sequence[dict],
        *,
        images: Sequence[np.ndarray] = (),
        videos: Sequence[Video] = (),
        add_generation_prompt: bool,
    ) -> Example:
        """Processes one conversation.

        Args:
            messages: `{"role", "content"}`, content a string with one <image> or <video> for each medium.
            images: uint8 [H, W, 3] arrays, in order of appearance.
            videos: sampled videos, in order of appearance.
            add_generation_prompt: end with the header of an assistant turn (to generate); otherwise the
                example ends with the last assistant turn's <|im_end|>, if the last turn is an assistant's.

        Raises:
            ValueError: placeholders and media do not match, or a message holds a reserved token's text.
        """
        media = self._media(messages, images, videos)
        tokens, loss_mask = self._tokenize(self._render(messages, media, add_generation_prompt))
        if not add_generation_prompt and messages[-1]["role"] == "assistant":
            end = int(np.flatnonzero(loss_mask)[-1]) + 1  # the template's line break predicts nothing
            tokens, loss_mask = tokens[:end], loss_mask[:end]

        # One pad token stands for a whole frame pair so far: repeat it for each of its merged patches.
        pads = (tokens == self.image_token_id) | (tokens == self.video_token_id)
        repeats = np.ones(len(tokens), np.int64)
        repeats[pads] = [n for m in media for n in [m.grid[1] * m.grid[2] // self.merge_size**2] * m.grid[0]]
        tokens, loss_mask, visual = (np.repeat(a, repeats) for a in (tokens, loss_mask, pads))
        visual_index = np.where(visual, np.cumsum(visual) - 1, -1).astype(np.int32)

        grids = np.array([medium.grid for medium in media], np.int32).reshape(-1, 3)
        is_video = np.array([medium.kind == "video" for medium in media], bool)
        positions = mrope_positions(
            tokens,
            grids[~is_video],
            grids[is_video],
            image_token_id=self.image_token_id,
            video_token_id=self.video_token_id,
            vision_start_token_id=self.vision_start_token_id,
            merge=self.merge_size,
        )
        frame_ids, coords, embed_index, embed_weight = patch_geometry(grids, self.merge_size, self.grid_side)
        return Example(
            tokens=tokens,
            positions=positions,
            loss_mask=loss_mask,
            visual_index=visual_index,
            patches=np.concatenate([m.patches for m in media])
            if media
            else np.zeros((0, self.patch_bytes), np.uint8),
            grids=grids,
            frame_ids=frame_ids,
            coords=coords,
            embed_index=embed_index,
            embed_weight=embed_weight,
            next_position=int(positions.max(initial=-1)) + 1,
        )

    def prompt(self, record: Record) -> Example:
        """The record's question, ending where the model starts to answer (an SFT row loses its last turn).

        Raises:
            MediaError: a file cannot be decoded. RecordError: placeholders and media do not match.
        """
        return self._cache.get(record, "prompt", lambda: self._process(record, training=False))

    def training(self, record: Record) -> Example:
        """The record's conversation with its assistant turns as targets. The record must have messages.

        Raises:
            MediaError: a file cannot be decoded. RecordError: no messages, or they do not match the media.
        """
        if record.messages is None:
            raise RecordError(f"record {record.problem_id}: messages: is missing, which training needs")
        return self._cache.get(record, "training", lambda: self._process(record, training=True))

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """Text of generated token ids, without special tokens such as the closing <|im_end|>."""
        return self.tokenizer.decode(np.asarray(ids, np.int64).tolist(), skip_special_tokens=True)

    @property
    def cached_bytes(self) -> int:
        """Bytes of the examples now in the cache."""
        return self._cache.size

    def _process(self, record: Record, *, training: bool) -> Example:
        messages = chat_messages(record)
        while not training and messages and messages[-1]["role"] == "assistant":
            messages = messages[:-1]
        media = "<image>" * len(record.images) + "<video>" * len(record.videos)
        if not any(_PLACEHOLDER.search(message["content"]) for message in messages):
            # Evaluation questions do not say where their media go: in front.
            first = next(i for i, message in enumerate(messages) if message["role"] == "user")
            messages[first] = {**messages[first], "content": media + messages[first]["content"]}
        sampling = {"fps": self.limits.video_fps, "max_frames": self.limits.video_max_frames}
        images = [self.media.image(path, self._bounds("image")) for path in record.images]
        videos = [self.media.video(path, self._bounds("video"), **sampling) for path in record.videos]
        try:
            return self(messages, images=images, videos=videos, add_generation_prompt=not training)
        except ValueError as error:
            raise RecordError(f"record {record.problem_id}: {error}") from error

    def _bounds(self, kind: str) -> PixelBounds:
        low, high = getattr(self.limits, f"{kind}_min_pixels"), getattr(self.limits, f"{kind}_max_pixels")
        return PixelBounds(self.patch_size * self.merge_size, low, high)

    def _media(self, messages: Sequence[dict], images: Sequence, videos: Sequence) -> list["_Medium"]:
        """Resizes and cuts all media, in the order in which their placeholders appear."""
        order = [found for message in messages for found in _PLACEHOLDER.findall(message["content"])]
        for tag, given in (("<image>", images), ("<video>", videos)):
            if order.count(tag) != len(given):
                raise ValueError(f"{order.count(tag)} {tag} placeholders for {len(given)} {tag[1:-1]} files")
        temporal = self.temporal_patch_size
        sources = {"<image>": iter(images), "<video>": iter(videos)}
        media = []
        for tag in order:
            source = next(sources[tag])
            frames = source[None] if tag == "<image>" else source.frames
            times = np.zeros(0) if tag == "<image>" else timestamps_of_pairs(source.timestamps, temporal)
            media.append(_Medium(tag[1:-1], *self._patches(frames, tag[1:-1]), times))
        return media

    def _patches(self, frames: np.ndarray, kind: str) -> tuple[np.ndarray, tuple[int, int, int]]:
        """uint8 [N, H, W, 3] -> (uint8 [P, 1536], grid (t, h, w)): resized, cut, in merge-block order."""
        if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8 or 0 in frames.shape:
            raise ValueError(
                f"{kind} must be uint8 RGB with pixels, is {frames.dtype} {list(frames.shape[1:])}"
            )
        size, merge, temporal = self.patch_size, self.merge_size, self.temporal_patch_size
        bounds = self._bounds(kind)
        fitted = [bounds.fit(frame) for frame in frames]
        height, width = fitted[0].shape[:2]
        if (height, width) != frames.shape[1:3]:
            frames = np.stack(fitted)
        if missing := -len(frames) % temporal:
            frames = np.concatenate([frames, np.broadcast_to(frames[-1:], (missing, *frames.shape[1:]))])
        grid = len(frames) // temporal, height // size, width // size
        blocks = frames.reshape(
            grid[0], temporal, grid[1] // merge, merge, size, grid[2] // merge, merge, size, 3
        ).transpose(0, 2, 5, 3, 6, 8, 1, 4, 7)
        return blocks.reshape(grid[0] * grid[1] * grid[2], -1), grid

    def _render(self, messages: Sequence[dict], media: list["_Medium"], add_generation_prompt: bool) -> str:
        """The conversation through the chat template, one pad token an image or video frame pair."""
        turns = []
        for message in messages:
            content = message["content"]
            if found := _RESERVED.search(content):
                raise ValueError(f"a message holds the reserved token {found.group()}")
            if _PLACEHOLDER.search(content):
                content = [
                    {"type": part[1:-1]} if _PLACEHOLDER.fullmatch(part) else {"type": "text", "text": part}
                    for part in _PLACEHOLDER.split(content)
                    if part
                ]
            turns.append({"role": message["role"], "content": content})
        text = self.tokenizer.render(turns, add_generation_prompt=add_generation_prompt)
        if [found.group(1) for found in _PADS.finditer(text)] != [medium.kind for medium in media]:
            raise ValueError("the chat template does not keep the media of these messages")
        rest = iter(media)

        def expand(found: re.Match) -> str:
            times = next(rest).times
            return (
                "".join(f"<{t:.1f} seconds>{found.group()}" for t in times) if len(times) else found.group()
            )

        return _PADS.sub(expand, text)

    def _tokenize(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """Token ids and loss mask. An answer is tokenised apart from its header, as generation would."""
        ids, mask = [], []
        for number, piece in enumerate(_ASSISTANT.split(text)):
            encoded = self.tokenizer.encode(piece)
            ids.extend(encoded)
            mask.extend([number % 3 == 2] * len(encoded))  # the split gives text, header, answer, text ...
        return np.array(ids, np.int32), np.array(mask, bool)

    def _token_id(self, token: str) -> int:
        found = self.tokenizer.token_id(token)
        if found is None:
            raise ProcessorError(f"the tokenizer has no {token}: not one of Qwen3-VL's")
        return found


@dataclass(frozen=True)
class _Medium:
    kind: str  # "image" or "video"
    patches: np.ndarray  # uint8 [p, 1536]
    grid: tuple[int, int, int]
    times: np.ndarray  # float64 [t] of a video's frame pairs; empty for an image


class _ExampleCache:
    """Least-recently-used examples, bounded in bytes. Keeps the record, so its identity is a safe key."""

    def __init__(self, limit: int):
        self.limit, self.size = limit, 0
        self.entries: OrderedDict[tuple[int, str], tuple[Record, Example]] = OrderedDict()
        self.lock = threading.Lock()

    def get(self, record: Record, purpose: str, make: Callable[[], Example]) -> Example:
        key = (id(record), purpose)
        with self.lock:
            if key in self.entries:
                self.entries.move_to_end(key)
                return self.entries[key][1]
        example = make()
        if example.nbytes > self.limit:
            return example
        with self.lock:
            if key not in self.entries:
                self.entries[key] = (record, example)
                self.size += example.nbytes
            while self.size > self.limit:
                self.size -= self.entries.popitem(last=False)[1][1].nbytes
        return example


def _processor_configs(path: Path) -> tuple[dict, dict]:
    """Image and video processor settings of a directory, in transformers 4's or 5's layout; checked."""
    joint = read_json(path / "processor_config.json") if (path / "processor_config.json").is_file() else {}
    configs = []
    for prefix, key in (("", "image_processor"), ("video_", "video_processor")):
        name = f"{prefix}preprocessor_config.json"
        config = read_json(path / name) if (path / name).is_file() else joint.get(key, {})
        for field in ("image_mean", "image_std"):
            if config.get(field, [0.5] * 3) != [0.5] * 3:
                raise ProcessorError(
                    f"{path / name}: {field} is {config[field]}, the model normalises with 0.5"
                )
        configs.append(config)
    if not configs[0]:
        raise ProcessorError(f"{path}: has no preprocessor_config.json")
    return configs[0], configs[1]
