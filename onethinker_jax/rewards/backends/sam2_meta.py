"""SAM2's network from Meta's `.pt` checkpoint and its yaml, through Meta's `sam2` package.

Only the package's model is used. Its predictors want torchvision, or a video as a file; what they do around
the model is here: for an image, one prompt and one mask; for a video, the memory of the frames gone by.

The yaml is the one of the checkpoint's name beside it, else the package's own for a published checkpoint. It
names classes to be called, so that only classes of the `sam2` package are accepted.
"""

from __future__ import annotations

import importlib.util
import pickle
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from onethinker_jax.rewards.backends.sam2_network import Features, stacked_maps
from onethinker_jax.rewards.backends.types import BackendError

INSTALL = "SAM2_BUILD_CUDA=0 pip install --no-deps --no-build-isolation sam2==1.1.0"

# What Meta's builders set for predicting, whatever the yaml says.
PREDICTING = {
    "sam_mask_decoder_extra_args": {
        "dynamic_multimask_via_stability": True,
        "dynamic_multimask_stability_delta": 0.05,
        "dynamic_multimask_stability_thresh": 0.98,
    },
    "binarize_mask_from_pts_for_mem_enc": True,
}
_PUBLISHED = re.compile(r"(sam2(?:\.1)?)_hiera_(tiny|small|base_plus|large)")
_SHORT = {"tiny": "t", "small": "s", "base_plus": "b+", "large": "l"}


class MetaSam2:
    """`Network` over `sam2.modeling.sam2_base.SAM2Base`."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.image_size: int = model.image_size

    def encode(self, frames: Tensor) -> list[Features]:
        """As `Network.encode`."""
        _, flat, positions, sizes = self._model._prepare_backbone_features(self._model.forward_image(frames))
        return Features.of_frames(flat, sizes, positions[-1])

    def image_logits(self, features: Sequence[Features], points: Tensor, labels: Tensor) -> Tensor:
        """As `Network.image_logits`."""
        model = self._model
        *fine, coarse = stacked_maps(features)
        if model.directly_add_no_mem_embed:
            coarse = coarse + model.no_mem_embed.view(1, -1, 1, 1)
        sparse, dense = model.sam_prompt_encoder(points=(points, labels), boxes=None, masks=None)
        logits, *_ = model.sam_mask_decoder(
            image_embeddings=coarse,
            image_pe=model.sam_prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=False,
            repeat_image=False,
            high_res_features=fine,
        )
        return logits[:, 0]

    def video_logits(
        self,
        features: Iterable[tuple[int, Features]],
        key_frame: int,
        count: int,
        points: Tensor,
        labels: Tensor,
    ) -> Iterator[tuple[int, Tensor]]:
        """As `Network.video_logits`."""
        memory: dict[str, dict[int, Any]] = {"cond_frame_outputs": {}, "non_cond_frame_outputs": {}}
        for index, one in features:
            is_key = index == key_frame
            outputs = self._model.track_step(
                frame_idx=index,
                is_init_cond_frame=is_key,
                current_vision_feats=one.flat,
                current_vision_pos_embeds=[one.position],
                feat_sizes=[level.shape[2:] for level in one.maps],
                point_inputs={"point_coords": points, "point_labels": labels} if is_key else None,
                mask_inputs=None,
                output_dict=memory,
                num_frames=count,
                track_in_reverse=index < key_frame,
            )
            kept = {name: outputs[name] for name in ("maskmem_pos_enc", "obj_ptr")}
            # as Meta's predictor keeps it
            kept["maskmem_features"] = outputs["maskmem_features"].to(torch.bfloat16)
            memory["cond_frame_outputs" if is_key else "non_cond_frame_outputs"][index] = kept
            yield index, outputs["pred_masks"][:, 0]


def load_meta(checkpoint: Path, device: torch.device) -> MetaSam2:
    """Raises BackendError for a package, a file or a weight that is missing, or a yaml that is not SAM2's."""
    import_meta(checkpoint)
    path = config_path(checkpoint)
    try:
        model = build(yaml.safe_load(path.read_text(encoding="utf-8"))["model"] | PREDICTING)
    except (yaml.YAMLError, KeyError, TypeError, ValueError, ImportError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise BackendError(f"{path} is not a SAM2 configuration: {reason:.300}") from error
    if not hasattr(model, "track_step"):
        raise BackendError(f"{path} describes a {type(model).__name__}, not SAM2's model")
    try:
        weights = torch.load(checkpoint, map_location="cpu", weights_only=True)["model"]
        model.load_state_dict(weights, strict=True)
    except (OSError, EOFError, RuntimeError, KeyError, TypeError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split())
        raise BackendError(
            f"{checkpoint} does not hold the weights that {path} asks for: {reason:.300}"
        ) from error
    return MetaSam2(model.to(device).eval().requires_grad_(False))


def import_meta(checkpoint: Path) -> None:
    """Makes `sam2.modeling` importable; raises BackendError where the package or what it imports is missing.

    The package's own __init__ is left out: all it does is to start hydra, whose antlr 4.9 would replace the
    4.13 that answers in mathematics are graded with, and the two do not read per cent signs alike.
    """
    if "sam2" not in sys.modules:
        spec = importlib.util.find_spec("sam2")
        if spec is None:
            raise BackendError(f"Meta's checkpoint {checkpoint} needs the sam2 package: {INSTALL}")
        sys.modules["sam2"] = importlib.util.module_from_spec(spec)
    try:
        importlib.import_module("sam2.modeling.sam2_base")
    except ImportError as error:
        raise BackendError(f"the sam2 package cannot be imported: {error}") from error


def build(settings: Any) -> Any:
    """What a configuration describes: a mapping with `_target_` is that class, called with the other keys.

    Raises ValueError for a target that is no module of SAM2's model.
    """
    if isinstance(settings, list):
        return [build(value) for value in settings]
    if isinstance(settings, str) and re.fullmatch(r"[-+]?\d+e[-+]?\d+", settings):
        return float(settings)  # 1e-6, a text to YAML 1.1
    if not isinstance(settings, dict) or "_target_" not in settings:
        return settings
    module, _, name = str(settings["_target_"]).rpartition(".")
    found = (
        getattr(importlib.import_module(module), name, None) if module.startswith("sam2.modeling.") else None
    )
    if not (isinstance(found, type) and issubclass(found, torch.nn.Module)):
        raise ValueError(f"it calls {module}.{name}, which is no class of SAM2's model")
    return found(**{key: build(value) for key, value in settings.items() if key != "_target_"})


def config_path(checkpoint: Path) -> Path:
    """The yaml beside a checkpoint, else the package's for a published one; raises BackendError."""
    names = [f"{checkpoint.stem}.yaml"]
    folders = [checkpoint.parent]
    if published := _PUBLISHED.fullmatch(checkpoint.stem):
        version, size = published.groups()
        names.append(f"{version}_hiera_{_SHORT[size]}.yaml")
        spec = importlib.util.find_spec("sam2")
        roots = (spec.submodule_search_locations or []) if spec else []
        folders += [Path(root) / "configs" / version for root in roots]
    for path in (folder / name for folder in folders for name in names):
        if path.is_file():
            return path
    raise BackendError(f"the configuration of {checkpoint} is missing: put {names[0]} beside it")
