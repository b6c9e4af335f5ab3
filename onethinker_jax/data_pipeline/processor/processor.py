"""Chat messages and media -> token ids, patches, positions and loss mask, all in numpy.

Equal to transformers' Qwen3-VL processor of version 4.57, with which OneThinker was trained: every frame pair is
`<t seconds><|vision_start|>...<|vision_end|>` with no pair of vision tokens around the whole. Departures: t comes
from true presentation times; answers are tokenised apart from what precedes them, as generation would; a video
may have one frame, and frames any size. Media are decoded once and everything the model needs is computed here,
so that training, rollouts and evaluation cannot disagree.
"""

import hashlib
import logging
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from onethinker_jax.data_pipeline.media.decoding import MediaError, Video
from onethinker_jax.data_pipeline.media.media_file import MediaFile
from onethinker_jax.data_pipeline.media.reading.media_reader import MediaReader
from onethinker_jax.data_pipeline.media.resizing import PixelBounds
from onethinker_jax.data_pipeline.processor.chat import ChatTokenizer, Conversation, ProcessorError, read_json
from onethinker_jax.data_pipeline.processor.end_tokens import EndTokens, read_end_tokens
from onethinker_jax.data_pipeline.processor.example import Example, ExampleCache
from onethinker_jax.data_pipeline.processor.patches import (
    QWEN3_VL,
    Medium,
    MediumSize,
    PatchSizes,
    check_frames,
    cut_image,
    cut_video,
    size_image,
    size_video,
)
from onethinker_jax.data_pipeline.processor.processor_config import (
    PROMPTS,
    MediaBounds,
    MediaLimits,
    read_settings,
)
from onethinker_jax.data_pipeline.processor.prompts import OWN_PROMPTS, Prompts, chat_messages
from onethinker_jax.data_pipeline.records.conversation import (
    Turn,
    conversation_error,
    media_kinds,
    split_media,
)
from onethinker_jax.data_pipeline.records.record import Record, RecordError
from onethinker_jax.model.directory import directory_error
from onethinker_jax.model.inputs import mrope_positions, patch_geometry

logger = logging.getLogger(__name__)

_PADS = re.compile(r"<\|vision_start\|><\|(image|video)_pad\|><\|vision_end\|>")


@dataclass(frozen=True)
class Lengths:
    """Tokens and patches of an example that was not made."""

    tokens: int
    patches: int


@dataclass(frozen=True)
class _Text:
    """The text of an example, a pad token for each merged patch. T tokens."""

    tokens: np.ndarray  # int32 [T]
    loss_mask: np.ndarray  # bool [T]
    visual: np.ndarray  # bool [T], the pad tokens
    opening: str


class Processor:
    """Turns messages and media into an `Example`. Stateless but for an optional cache; thread-safe."""

    def __init__(
        self,
        tokenizer: ChatTokenizer,
        limits: MediaLimits,
        *,
        sizes: PatchSizes = QWEN3_VL,
        grid_side: int = 48,
        prompts: Prompts = OWN_PROMPTS,
        cache_bytes: int = 0,
        media: MediaReader | None = None,
        ends: EndTokens | None = None,
    ):
        """See `from_pretrained`, which reads all of this from a directory."""
        self.media = media or MediaReader()
        self.tokenizer, self.limits, self.prompts = tokenizer, limits, prompts
        self.sizes, self.grid_side = sizes, grid_side
        self.image_bounds = limits.image_bounds(sizes.factor)
        self.video_bounds = limits.video_bounds(sizes.factor)
        self.image_token_id = self._token_id("<|image_pad|>")
        self.video_token_id = self._token_id("<|video_pad|>")
        self.vision_start_token_id = self._token_id("<|vision_start|>")
        self.vision_end_token_id = self._token_id("<|vision_end|>")
        self.eos_token_id = self._token_id("<|im_end|>")
        self.ends = ends or EndTokens((self.eos_token_id,), self._token_id("<|endoftext|>"))
        self.pad_token_id = self.ends.pad_id
        self.opening = tokenizer.usual_opening()
        self._context_told = False
        self._cache = ExampleCache(cache_bytes)

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        bounds: MediaBounds | None = None,
        *,
        grid_side: int | None = None,
        prompts: Prompts | None = None,
        cache_bytes: int = 0,
        media: MediaReader | None = None,
    ) -> "Processor":
        """Reads the tokenizer and processor configs of a Qwen3-VL directory.

        Args:
            path: a directory with a tokenizer (chat template included); `preprocessor_config.json`,
                `video_preprocessor_config.json` (of either that is missing a warning says that the released
                models' values stand for it), `processor_config.json`, `config.json`, `generation_config.json`
                and `prompts.json` if there.
            bounds: how large media may be, and how videos are sampled; default: `MediaBounds()`.
            grid_side: side of the model's position embedding table; default: `config.json`'s, else 48.
            prompts: the wording of tasks; default: the directory's `prompts.json`, else our own.
            cache_bytes: keep processed examples of `prompt` and `training` in memory up to this size.
            media: reads the files; by default in this process, without a cache on disk.

        Raises ProcessorError: the directory is not there, or asks for processing this class does not do.
        Raises PromptError: its prompts cannot be used.
        """
        path = Path(path)
        if error := directory_error(path):
            raise ProcessorError(f"{path}: {error}")
        settings = read_settings(path)
        if prompts is None:
            file = path / PROMPTS
            prompts = Prompts.from_file(file) if file.is_file() else OWN_PROMPTS
        tokenizer = ChatTokenizer(path)
        processor = cls(
            tokenizer,
            (bounds or MediaBounds()).limits(settings),
            sizes=settings.sizes,
            grid_side=grid_side or settings.grid_side,
            prompts=prompts,
            cache_bytes=cache_bytes,
            media=media,
            ends=read_end_tokens(path, tokenizer),
        )
        if (path / "config.json").is_file():
            processor._check_model(path / "config.json")
        return processor

    def _check_model(self, file: Path) -> None:
        """Raises ProcessorError when the model of a config.json has not the tokenizer's tokens."""
        config = read_json(file)
        text = config.get("text_config")
        size = text.get("vocab_size") if isinstance(text, dict) else None
        if isinstance(size, int) and size < len(self.tokenizer):
            raise ProcessorError(
                f"{file}: vocab_size {size} is less than the tokenizer's {len(self.tokenizer)} tokens"
            )
        for name in ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id"):
            if config.get(name, own := getattr(self, name)) != own:
                raise ProcessorError(f"{file}: {name} is {config[name]}, but {own} in the tokenizer")

    def __call__(
        self,
        messages: Sequence[dict],
        *,
        images: Sequence[np.ndarray] = (),
        videos: Sequence[Video] = (),
        add_generation_prompt: bool,
    ) -> Example:
        r"""Processes one conversation.

        Args:
            messages: `{"role", "content"}`, content a string with one <image> or <video> for each medium, in
                turns of the user; `\<image>` is the word itself.
            images: uint8 [H, W, 3] arrays, in order of appearance.
            videos: sampled videos, in order of appearance.
            add_generation_prompt: end with the header of an assistant turn (to generate); otherwise the
                example ends with the last assistant turn's <|im_end|>, if the last turn is an assistant's.

        Raises ValueError: no conversation can be made of them, see `conversation_error`; or an image or frame is no
        uint8 RGB.
        """
        kinds = _media_kinds(messages, images, videos)
        for image in images:
            check_frames("image", image[None])
        for video in videos:
            check_frames("video", video.frames)
        return self._example(
            messages,
            kinds,
            [self.image_bounds.fit(image) for image in images],
            [self._fit_video(video) for video in videos],
            add_generation_prompt,
        )

    def prompt(self, record: Record) -> Example:
        """The record's question, ending where the model starts to answer (an SFT row loses its last turn).

        Raises MediaError: a file cannot be decoded. RecordError: the record was not made by reading a file, and
        would have been refused there.
        """
        return self._cache.get(record, "prompt", lambda: self._process(record, training=False))

    def training(self, record: Record) -> Example:
        """The record's conversation with its assistant turns as targets. The record must have messages.

        Raises MediaError: a file cannot be decoded. RecordError: no messages, or as `prompt`.
        """
        return self._cache.get(record, "training", lambda: self._process(record, training=True))

    def response(self, opening: str, ids: Sequence[int] | np.ndarray) -> str:
        """The text of a sample: what its prompt wrote of the answer (`Example.opening`), and its tokens' text."""
        return opening + self.decode(ids)

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """Text of generated token ids, without special tokens such as the closing <|im_end|>."""
        return self.tokenizer.decode(np.asarray(ids, np.int64).tolist(), skip_special_tokens=True)

    @property
    def fingerprint(self) -> str:
        """The digest of all that an example's lengths depend on: a processor with another one may give others."""
        parts = (self.tokenizer.fingerprint, self.limits, self.sizes, self.prompts.to_json())
        return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()

    @property
    def cached_bytes(self) -> int:
        """Bytes of the examples now in the cache."""
        return self._cache.size

    def lengths(self, record: Record, *, training: bool) -> Lengths:
        """Tokens and patches of the example that `training` or `prompt` makes, without decoding any pixel.

        Raises what they do, but for damage that only decoding would find.
        """
        messages, kinds = self._conversation(record, training=training)
        sources = {
            "image": (self._image_size(path) for path in record.images),
            "video": (self._video_size(path) for path in record.videos),
        }
        media = [next(sources[kind]) for kind in kinds]
        try:
            text = self._text(messages, media, add_generation_prompt=not training)
        except ValueError as error:
            raise RecordError(f"{record}: {error}") from error
        return Lengths(len(text.tokens), sum(math.prod(medium.grid) for medium in media))

    def _process(self, record: Record, *, training: bool) -> Example:
        messages, kinds = self._conversation(record, training=training)
        images = [self.media.image(path, self.image_bounds) for path in record.images]
        videos = [self.media.video(path, self.video_bounds, **self._sampling) for path in record.videos]
        try:
            return self._example(messages, kinds, images, videos, add_generation_prompt=not training)
        except ValueError as error:
            raise RecordError(f"{record}: {error}") from error

    def _conversation(self, record: Record, *, training: bool) -> tuple[Sequence[dict], list[str]]:
        """The record's messages for its training example or its prompt, and the kinds of their media in order."""
        if training and record.messages is None:
            raise RecordError(f"{record}: messages: is missing, which training needs")
        messages = chat_messages(record, prompts=self.prompts)
        while not training and messages and messages[-1]["role"] == "assistant":
            messages = messages[:-1]
        try:
            return messages, _media_kinds(messages, record.images, record.videos)
        except ValueError as error:
            raise RecordError(f"{record}: {error}") from error

    @property
    def _sampling(self) -> dict[str, Any]:
        limits = self.limits
        return {
            "fps": limits.video_fps,
            "max_frames": limits.video_max_frames,
            "num_frames": limits.video_num_frames,
        }

    def _image_size(self, path: MediaFile) -> MediumSize:
        return size_image(*_fitted(path, self.image_bounds, *self.media.image_size(path)), self.sizes)

    def _video_size(self, path: MediaFile) -> MediumSize:
        probe = self.media.video_size(path, **self._sampling)
        size = _fitted(path, self.video_bounds, probe.height, probe.width, len(probe.timestamps))
        return size_video(*size, probe.timestamps, self.sizes)

    def _fit_video(self, video: Video) -> Video:
        height, width = video.frames.shape[1:3]
        if self.video_bounds.size(height, width, len(video.frames)) == (height, width):
            return video
        frames = [self.video_bounds.fit(frame, len(video.frames)) for frame in video.frames]
        return replace(video, frames=np.stack(frames))

    def _example(
        self,
        messages: Sequence[dict],
        kinds: Sequence[str],
        images: Sequence[np.ndarray],
        videos: Sequence[Video],
        add_generation_prompt: bool,
    ) -> Example:
        """The example of media that have their final size; `kinds` is the order of their placeholders."""
        sources = {
            "image": (cut_image(image, self.sizes) for image in images),
            "video": (cut_video(video, self.sizes) for video in videos),
        }
        media: list[Medium] = [next(sources[kind]) for kind in kinds]
        text = self._text(messages, media, add_generation_prompt=add_generation_prompt)
        visual_index = np.where(text.visual, np.cumsum(text.visual) - 1, -1).astype(np.int32)

        grids = np.array([medium.grid for medium in media], np.int32).reshape(-1, 3)
        is_video = np.array([medium.kind == "video" for medium in media], bool)
        positions = mrope_positions(
            text.tokens,
            grids[~is_video],
            grids[is_video],
            image_token_id=self.image_token_id,
            video_token_id=self.video_token_id,
            vision_start_token_id=self.vision_start_token_id,
            merge=self.sizes.merge_size,
        )
        frame_ids, coords, embed_index, embed_weight = patch_geometry(
            grids, self.sizes.merge_size, self.grid_side
        )
        none = np.zeros((0, self.sizes.patch_bytes), np.uint8)
        return Example(
            tokens=text.tokens,
            positions=positions,
            loss_mask=text.loss_mask,
            visual_index=visual_index,
            patches=np.concatenate([none, *(medium.patches for medium in media)]),
            grids=grids,
            frame_ids=frame_ids,
            coords=coords,
            embed_index=embed_index,
            embed_weight=embed_weight,
            next_position=int(positions.max(initial=-1)) + 1,
            opening=text.opening,
        )

    def _text(
        self, messages: Sequence[dict], media: Sequence[MediumSize], *, add_generation_prompt: bool
    ) -> _Text:
        """The tokens of a conversation with its media."""
        conversation = self._render(messages, media, add_generation_prompt)
        if conversation.context_turns and not add_generation_prompt and not self._context_told:
            self._context_told = True
            logger.warning(
                "earlier assistant turns are context, not targets, where the chat template writes them without %r, "
                "with which it begins an answer",
                conversation.opening,
            )
        tokens, loss_mask = self._tokenize(conversation.pieces)
        if not add_generation_prompt and messages[-1]["role"] == "assistant":
            end = int(np.flatnonzero(loss_mask)[-1]) + 1  # the template's line break predicts nothing
            tokens, loss_mask = tokens[:end], loss_mask[:end]

        # One pad token stands for a whole frame pair so far: repeat it for each of its merged patches.
        block = self.sizes.merge_size**2
        pads = (tokens == self.image_token_id) | (tokens == self.video_token_id)
        repeats = np.ones(len(tokens), np.int64)
        repeats[pads] = [n for m in media for n in [m.grid[1] * m.grid[2] // block] * m.grid[0]]
        tokens, loss_mask, visual = (np.repeat(a, repeats) for a in (tokens, loss_mask, pads))
        loss_mask &= ~visual  # wherever a template puts media, a pad is nothing to be said
        return _Text(tokens, loss_mask, visual, conversation.opening)

    def _render(
        self, messages: Sequence[dict], media: Sequence[MediumSize], add_generation_prompt: bool
    ) -> Conversation:
        """The conversation through the chat template, one pad token an image or video frame pair."""
        turns = []
        for message in messages:
            parts = split_media(message["content"])
            if any(part.kind != "text" for part in parts):
                content = [
                    {"type": "text", "text": part.text} if part.kind == "text" else {"type": part.kind}
                    for part in parts
                ]
            else:
                content = "".join(part.text for part in parts)
            turns.append({"role": message["role"], "content": content})
        conversation = self.tokenizer.conversation(turns, add_generation_prompt=add_generation_prompt)
        found = [found.group(1) for text, _ in conversation.pieces for found in _PADS.finditer(text)]
        if found != [medium.kind for medium in media]:
            raise ValueError("the chat template does not keep the media of these messages")
        rest = iter(media)

        def expand(found: re.Match) -> str:
            times = next(rest).times
            return (
                "".join(f"<{t:.1f} seconds>{found.group()}" for t in times) if len(times) else found.group()
            )

        pieces = [(_PADS.sub(expand, text), target) for text, target in conversation.pieces]
        return replace(conversation, pieces=pieces)

    def _tokenize(self, pieces: Sequence[tuple[str, bool]]) -> tuple[np.ndarray, np.ndarray]:
        """Token ids and loss mask. An answer is tokenised apart from what precedes it, as generation would."""
        ids, mask = [], []
        for text, target in pieces:
            encoded = self.tokenizer.encode(text)
            ids.extend(encoded)
            mask.extend([target] * len(encoded))
        return np.array(ids, np.int32), np.array(mask, bool)

    def _token_id(self, token: str) -> int:
        found = self.tokenizer.token_id(token)
        if found is None:
            raise ProcessorError(f"the tokenizer has no {token}: not one of Qwen3-VL's")
        return found


def _media_kinds(messages: Sequence[dict], images: Sequence, videos: Sequence) -> list[str]:
    """The kind, "image" or "video", of every medium of the messages, in order.

    Raises ValueError when no conversation can be made of them and the media given.
    """
    turns = [Turn(f"messages[{n}].content", m["role"], m["content"]) for n, m in enumerate(messages)]
    if error := conversation_error(turns, len(images), len(videos)):
        raise ValueError(error)
    return [kind for turn in turns for kind in media_kinds(turn.text)]


def _fitted(
    path: MediaFile, bounds: PixelBounds, height: int, width: int, frames: int = 1
) -> tuple[int, int]:
    """The size in which a medium reaches the model. Raises MediaError where none is within the bounds."""
    try:
        return bounds.size(height, width, frames)
    except ValueError as error:
        raise MediaError(f"{path}: {error}") from None
