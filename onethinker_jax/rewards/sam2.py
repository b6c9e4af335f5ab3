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
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from onethinker_jax.rewards.backends import BackendError, BackendSettings, ItemError, MaskPrompt
from onethinker_jax.rewards.torch_device import torch_device

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

log = logging.getLogger(__name__)


class Network(Protocol):
    """A SAM2 network. Frames are float32 [3, S, S], S its `image_size`; points float32 [P, 2] in pixels of that.

    Labels, int [P]: 1 inside, 0 outside, 2 and 3 the box's corners. Logits are [S / 4, S / 4].
    """

    image_size: int

    def image_logits(self, frame: Tensor, points: Tensor, labels: Tensor) -> Tensor: ...

    def video_logits(
        self, frames: Sequence[Tensor], key_frame: int, points: Tensor, labels: Tensor
    ) -> Iterator[tuple[int, Tensor]]:
        """Each frame's index and logits: the key frame, those after it, then those before it, backward."""
        ...


class Sam2:
    """`MaskBackend` by SAM2. Safe to call from several threads, which take turns.

    The weights stay float32; `dtype`, float32 or bfloat16, is what autocast computes in.
    """

    def __init__(
        self, network: Network, *, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
    ) -> None:
        self._network, self._device, self._dtype = network, torch.device(device), dtype
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

    def segment_image(self, image: np.ndarray, prompt: MaskPrompt) -> np.ndarray:
        """uint8 [H, W, 3] -> bool [H, W]. A box that covers no pixel gives an empty mask."""
        height, width = _frame_size(image, 3)
        if prompt.whole_box(height, width) is None:
            return np.zeros((height, width), dtype=bool)
        frame = _Frames(image[None], self._network.image_size, self._device)[0]
        with self._computing():
            logits = self._network.image_logits(frame, *self._points(prompt))
        return _mask(logits, height, width)

    def segment_video(self, frames: np.ndarray, key_frame: int, prompt: MaskPrompt) -> np.ndarray:
        """uint8 [N, H, W, 3] -> bool [N, H, W]. Raises ItemError for a key frame that is not there."""
        height, width = _frame_size(frames, 4)
        if not 0 <= key_frame < len(frames):
            raise ItemError(f"key frame {key_frame} of a video of {len(frames)} frames")
        masks = np.zeros((len(frames), height, width), dtype=bool)
        if prompt.whole_box(height, width) is None:
            return masks
        prepared = _Frames(frames, self._network.image_size, self._device)
        with self._computing():
            for index, logits in self._network.video_logits(prepared, key_frame, *self._points(prompt)):
                masks[index] = _mask(logits, height, width)
        return masks

    @contextmanager
    def _computing(self) -> Iterator[None]:
        autocast = torch.autocast(self._device.type, self._dtype, enabled=self._dtype != torch.float32)
        with self._turn, torch.no_grad(), autocast:
            yield

    def _points(self, prompt: MaskPrompt) -> tuple[Tensor, Tensor]:
        """float32 [P, 2] in the network's pixels and int32 [P]."""
        size = self._network.image_size
        box, positive, negative = prompt.pixels(size, size)
        points = np.concatenate([box.reshape(2, 2), positive, negative])
        labels = [2, 3] + [1] * len(positive) + [0] * len(negative)
        return (
            torch.tensor(points, dtype=torch.float32, device=self._device),
            torch.tensor(labels, dtype=torch.int32, device=self._device),
        )


class _Frames(Sequence[Tensor]):
    """The frames as the network takes them, each prepared when it is asked for."""

    def __init__(self, frames: np.ndarray, size: int, device: torch.device) -> None:
        self._frames, self._size, self._device = frames, size, device
        self._mean, self._std = (torch.tensor(value, device=device)[:, None, None] for value in (MEAN, STD))

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int) -> Tensor:  # type: ignore[override]
        if not 0 <= index < len(self):
            raise IndexError(index)
        pixels = torch.tensor(self._frames[index], device=self._device).permute(2, 0, 1)[None].float() / 255
        square = (self._size, self._size)
        resized = F.interpolate(pixels, square, mode="bilinear", align_corners=False, antialias=True)
        return (resized[0] - self._mean) / self._std


def load_network(path: Path, device: torch.device) -> Network:
    """The network of a Hugging Face directory or of Meta's checkpoint; raises BackendError."""
    if path.is_dir():
        if (path / "config.json").is_file():
            from onethinker_jax.rewards.sam2_hf import load_hf

            return load_hf(path, device)
        checkpoints = sorted(path.glob("*.pt"))
        if len(checkpoints) != 1:
            found = f"{len(checkpoints)} .pt files" if checkpoints else "no .pt file"
            raise BackendError(f"{path} holds no SAM2: there is no config.json and {found}")
        path = checkpoints[0]
    from onethinker_jax.rewards.sam2_meta import load_meta

    return load_meta(path, device)


def _frame_size(frames: np.ndarray, axes: int) -> tuple[int, int]:
    """Height and width; raises ItemError for what is no picture."""
    if frames.ndim != axes or frames.dtype != np.uint8 or frames.shape[-1] != 3 or 0 in frames.shape:
        wanted = "[H, W, 3]" if axes == 3 else "[N, H, W, 3]"
        raise ItemError(f"frames are uint8 {wanted}, not {frames.dtype} {list(frames.shape)}")
    return frames.shape[-3], frames.shape[-2]


def _mask(logits: Tensor, height: int, width: int) -> np.ndarray:
    enlarged = F.interpolate(
        logits[None, None].float(), (height, width), mode="bilinear", align_corners=False
    )
    return (enlarged[0, 0] > 0).cpu().numpy()
