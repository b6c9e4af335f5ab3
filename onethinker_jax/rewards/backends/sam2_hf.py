"""SAM2's networks from a Hugging Face directory, through transformers: one for images, one for videos.

Both read the same weights, and share the vision encoder once loaded.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import Sam2Model, Sam2VideoInferenceSession, Sam2VideoModel

from onethinker_jax.rewards.backends.sam2_network import Features, stacked_maps
from onethinker_jax.rewards.backends.types import BackendError


class HfSam2:
    """`Network` by transformers; `video` is None where the directory holds the image part alone."""

    def __init__(self, image: Sam2Model, video: Sam2VideoModel | None) -> None:
        self._image: Any = image
        self._video = video
        self.image_size: int = self._image.prompt_encoder.input_image_size

    def encode(self, frames: Tensor) -> list[Features]:
        """As `Network.encode`."""
        outputs = self._image.get_image_features(frames)
        sizes = self._image.backbone_feature_sizes
        return Features.of_frames(outputs.fpn_hidden_states, sizes, outputs.fpn_position_encoding[-1])

    def image_logits(self, features: Sequence[Features], points: Tensor, labels: Tensor) -> Tensor:
        """As `Network.image_logits`."""
        *fine, coarse = stacked_maps(features)
        outputs = self._image(
            image_embeddings=[*fine, coarse + self._image.no_memory_embedding.view(1, -1, 1, 1)],
            input_points=points[:, None],
            input_labels=labels[:, None],
            multimask_output=False,
        )
        return outputs.pred_masks[:, 0, 0]

    def video_logits(
        self,
        features: Iterable[tuple[int, Features]],
        key_frame: int,
        count: int,
        points: Tensor,
        labels: Tensor,
    ) -> Iterator[tuple[int, Tensor]]:
        """As `Network.video_logits`."""
        if self._video is None:
            raise RuntimeError("these SAM2 weights hold the image part alone and cannot follow a video")
        session = Sam2VideoInferenceSession(
            inference_device=points.device, inference_state_device=points.device, dtype=torch.float32
        )
        # Only their number is read: a frame's features lie in the cache when they are asked for.
        session.processed_frames = dict.fromkeys(range(count))  # type: ignore[assignment]
        number = session.obj_id_to_idx(1)
        prompt = {"point_coords": points[:, None], "point_labels": labels[:, None]}
        session.add_point_inputs(number, key_frame, prompt)
        session.obj_with_new_inputs = [1]
        kept: dict[int, dict[str, Any]] = session.output_dict_per_obj[number]["non_cond_frame_outputs"]
        for index, one in features:
            cached = {"vision_feats": one.flat, "vision_pos_embeds": [one.position]}
            session.cache.cache_vision_features(index, cached)
            outputs = self._video(session, frame_idx=index, reverse=index < key_frame)
            if index != key_frame:
                del kept[index]["high_res_masks"]  # S × S floats a frame that nothing reads again
            yield index, outputs.pred_masks[:, 0]


def load_hf(directory: Path, device: torch.device) -> HfSam2:
    """Raises BackendError for another kind of model, or for weights that are missing or do not fit."""
    path = directory / "config.json"
    try:
        kind = json.loads(path.read_text(encoding="utf-8")).get("model_type")
    except (ValueError, AttributeError) as error:
        raise BackendError(f"{path} is not a model's configuration: {error}") from error
    if kind not in ("sam2", "sam2_video"):
        raise BackendError(f"{path} describes {kind!r}, not SAM2's 'sam2' or 'sam2_video'")
    image = _load(Sam2Model, directory).to(device)
    if kind == "sam2":
        return HfSam2(image, None)
    video = _load(Sam2VideoModel, directory)
    video.vision_encoder = image.vision_encoder
    return HfSam2(image, video.to(device))


def _load(model_class: Any, directory: Path) -> Any:
    try:
        model, report = model_class.from_pretrained(
            directory, local_files_only=True, output_loading_info=True, dtype=torch.float32
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise BackendError(
            f"cannot load SAM2 from {directory}: {' '.join(str(error).split()):.500}"
        ) from error
    if missing := sorted(report["missing_keys"]):
        raise BackendError(f"the SAM2 weights in {directory} lack {', '.join(missing):.300}")
    return model.eval().requires_grad_(False)
