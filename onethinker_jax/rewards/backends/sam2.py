"""SAM2 as a mask maker (Ravi et al. 2024): box and points -> the object's mask, carried through a video both ways.

Loads Hugging Face directories (SAM2 or SAM2.1) through transformers, and Meta's `.pt` checkpoints through the
`sam2` package. Neither needs torchvision here: frames are resized, normalised and masks brought back to their
size by this module, the same way for both:

- a frame is resized to the network's square by antialiased bilinear interpolation, then normalised;
- the box goes in as two points labelled 2 and 3, before the positive (1) and negative (0) points, as in Meta's
  predictors, and one mask is asked for;
- the logits, at a quarter of the square's size, are interpolated to the frame's size; above 0 is the object.

Holes are not filled. In a video the prompt is for the key frame, which is then followed forward to the end and
backward to the start; the backward pass also remembers the frames seen forward.

In a batch each image is encoded once, several in one pass of the encoder, and its prompts are decoded together.
Prompts on one video are followed one after another, and share what the encoder made of its frames.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from onethinker_jax.rewards.backends.sam2_network import Features, Network
from onethinker_jax.rewards.backends.torch_device import torch_device
from onethinker_jax.rewards.backends.types import BackendError, BackendSettings, MaskJob, MaskPrompt

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

BATCH = 8
"""Frames that are encoded, and prompts that are decoded, in one pass at most."""
KEPT_FRAMES = 64
"""Frames of a video that stay encoded for its next prompt: 17 MB each at 1024 × 1024 pixels in float32."""

Value = TypeVar("Value")

log = logging.getLogger(__name__)


class Sam2:
    """`MaskBackend` by SAM2. Safe to call from several threads, which take turns.

    The weights stay float32; `dtype`, float32 or bfloat16, is what autocast computes in. `batch` and
    `kept_frames` bound the memory: see `BATCH` and `KEPT_FRAMES`.
    """

    def __init__(
        self,
        network: Network,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        batch: int = BATCH,
        kept_frames: int = KEPT_FRAMES,
    ) -> None:
        self._network, self._device, self._dtype = network, torch.device(device), dtype
        self._batch, self._kept_frames = batch, kept_frames
        self._mean, self._std = (torch.tensor(value, device=device)[:, None, None] for value in (MEAN, STD))
        self._turn = threading.Lock()

    @classmethod
    def from_settings(cls, settings: BackendSettings) -> Sam2:
        """Loads a Hugging Face directory, a `.pt` file, or a directory with one; raises BackendError."""
        path = settings.weights("sam2")
        device, dtype = torch_device(settings)
        if dtype == torch.float16:  # which autocast does not mix with bfloat16
            raise BackendError("SAM2 keeps its memories in bfloat16: compute in float32 or bfloat16")
        network = load_network(path, device)
        log.info("SAM2 from %s on %s in %s", path, device, dtype)
        return cls(network, device=device, dtype=dtype)

    def segment(self, jobs: Sequence[MaskJob]) -> list[np.ndarray]:
        """Masks, bool [N, H, W] a job, in order. A box that covers no pixel gives empty masks."""
        masks = [np.zeros(job.frames.shape[:3], dtype=bool) for job in jobs]
        media: dict[tuple, list[int]] = {}  # the jobs on each, by their numbers
        for number, job in enumerate(jobs):
            if job.prompt.whole_box(*job.frames.shape[1:3]) is not None:
                media.setdefault(job.medium, []).append(number)
        images = [numbers for numbers in media.values() if not jobs[numbers[0]].video]
        videos = [numbers for numbers in media.values() if jobs[numbers[0]].video]
        with self._computing():
            for some in _parts(images, self._batch):
                for number, mask in self._image_masks(jobs, some):
                    masks[number][0] = mask
            for numbers in videos:
                for number, index, mask in self._video_masks(jobs, numbers):
                    masks[number][index] = mask
        return masks

    def _image_masks(
        self, jobs: Sequence[MaskJob], images: Sequence[Sequence[int]]
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Each job's number and mask, the jobs being those on a few images, which are encoded together."""
        encoded = self._encode([jobs[numbers[0]].frames[0] for numbers in images])
        features = {number: one for numbers, one in zip(images, encoded, strict=True) for number in numbers}
        by_points: dict[int, list[int]] = {}  # what is decoded together has the same number of points
        for number in features:
            by_points.setdefault(jobs[number].prompt.point_count, []).append(number)
        for same in by_points.values():
            for numbers in _parts(same, self._batch):
                prompts = self._points([jobs[number].prompt for number in numbers])
                logits = self._network.image_logits([features[number] for number in numbers], *prompts)
                for number, one in zip(numbers, logits, strict=True):
                    yield number, _mask(one, jobs[number])

    def _video_masks(
        self, jobs: Sequence[MaskJob], numbers: Sequence[int]
    ) -> Iterator[tuple[int, int, np.ndarray]]:
        """A job's number, a frame's index and the mask there, for all jobs on one video."""
        kept: dict[int, Features] = {}
        capacity = self._kept_frames if len(numbers) > 1 else 0
        for number in numbers:
            job = jobs[number]
            key_frame, count = job.key_frame, len(job.frames)
            order = [*range(key_frame, count), *range(key_frame - 1, -1, -1)]
            features = self._frame_features(job.frames, order, kept, capacity)
            prompt = self._points([job.prompt])
            for index, logits in self._network.video_logits(features, key_frame, count, *prompt):
                yield number, index, _mask(logits[0], job)

    def _frame_features(
        self, frames: np.ndarray, order: Sequence[int], kept: dict[int, Features], capacity: int
    ) -> Iterator[tuple[int, Features]]:
        """Each frame's index and features: those that are kept, else encoded, and kept while the capacity lasts."""
        for indices in _parts(order, self._batch):
            missing = [index for index in indices if index not in kept]
            encoded = self._encode([frames[index] for index in missing])
            present = kept | dict(zip(missing, encoded, strict=True))
            for index in missing[: max(0, capacity - len(kept))]:
                kept[index] = present[index]
            yield from ((index, present[index]) for index in indices)

    def _encode(self, frames: Sequence[np.ndarray]) -> list[Features]:
        """The features of frames uint8 [H, W, 3], made in one pass."""
        return (
            self._network.encode(torch.stack([self._prepared(frame) for frame in frames])) if frames else []
        )

    def _prepared(self, frame: np.ndarray) -> Tensor:
        """uint8 [H, W, 3] -> float32 [3, S, S] as the network takes it."""
        pixels = torch.tensor(frame, device=self._device).permute(2, 0, 1)[None].float() / 255
        square = (self._network.image_size,) * 2
        resized = F.interpolate(pixels, square, mode="bilinear", align_corners=False, antialias=True)
        return (resized[0] - self._mean) / self._std

    def _points(self, prompts: Sequence[MaskPrompt]) -> tuple[Tensor, Tensor]:
        """float32 [B, P, 2] in the network's pixels and int32 [B, P], for prompts of equally many points."""
        size = self._network.image_size
        points, labels = [], []
        for prompt in prompts:
            box, positive, negative = prompt.pixels(size, size)
            points.append(np.concatenate([box.reshape(2, 2), positive, negative]))
            labels.append([2, 3] + [1] * len(positive) + [0] * len(negative))
        return (
            torch.tensor(np.stack(points), dtype=torch.float32, device=self._device),
            torch.tensor(labels, dtype=torch.int32, device=self._device),
        )

    @contextmanager
    def _computing(self) -> Iterator[None]:
        autocast = torch.autocast(self._device.type, self._dtype, enabled=self._dtype != torch.float32)
        with self._turn, torch.no_grad(), autocast:
            yield


def load_network(path: Path, device: torch.device) -> Network:
    """The network of a Hugging Face directory or of Meta's checkpoint; raises BackendError."""
    if path.is_dir():
        if (path / "config.json").is_file():
            from onethinker_jax.rewards.backends.sam2_hf import load_hf

            return load_hf(path, device)
        checkpoints = sorted(path.glob("*.pt"))
        if len(checkpoints) != 1:
            found = f"{len(checkpoints)} .pt files" if checkpoints else "no .pt file"
            raise BackendError(f"{path} holds no SAM2: there is no config.json and {found}")
        path = checkpoints[0]
    from onethinker_jax.rewards.backends.sam2_meta import load_meta

    return load_meta(path, device)


def _parts(values: Sequence[Value], size: int) -> Iterator[Sequence[Value]]:
    return (values[start : start + size] for start in range(0, len(values), size))


def _mask(logits: Tensor, job: MaskJob) -> np.ndarray:
    """Logits [S / 4, S / 4] -> bool [H, W] of the job's frames."""
    height, width = job.frames.shape[1:3]
    enlarged = F.interpolate(
        logits[None, None].float(), (height, width), mode="bilinear", align_corners=False
    )
    return (enlarged[0, 0] > 0).cpu().numpy()
