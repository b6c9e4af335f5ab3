"""Index arrays against the installed transformers, on random grids and layouts."""

import itertools
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from onethinker_jax.model.inputs import ModelInputs, VisionInputs, mrope_positions, patch_geometry

torch = pytest.importorskip("torch")
IDS = {"image_token_id": 90, "video_token_id": 91, "vision_start_token_id": 92}
END = 93


def random_grids(rng: np.random.Generator, count: int, frames: int) -> np.ndarray:
    return np.stack([rng.integers(1, frames + 1, count), *(2 * rng.integers(1, 9, (2, count)))], axis=1)


@pytest.mark.parametrize("grid_side", [8, 48])
def test_patch_geometry_equals_transformers(grid_side):
    from transformers import vision_utils as hf

    rng = np.random.default_rng(0)
    for trial in range(20):
        grids = random_grids(rng, int(rng.integers(1, 5)), 1 if trial % 2 else 4)
        frame_ids, coords, embed_index, embed_weight = patch_geometry(grids, 2, grid_side)
        grid = torch.tensor(grids)
        index, weight = hf.get_vision_interpolation_indices_and_weights(
            grid, grid_side, mode="bilinear", align_corners=True, spatial_merge_size=2
        )
        np.testing.assert_array_equal(coords, hf.get_vision_position_ids(grid, 2).numpy())
        np.testing.assert_array_equal(embed_index, index.numpy())
        np.testing.assert_array_equal(embed_weight, weight.numpy())
        lengths = np.diff(hf.get_vision_cu_seqlens(grid).numpy())
        np.testing.assert_array_equal(frame_ids, np.repeat(np.arange(1, len(lengths) + 1), lengths))
        assert [a.dtype for a in (frame_ids, coords, embed_index)] == [np.int32] * 3
        assert embed_weight.dtype == np.float32


def layout(rng: np.random.Generator, media: list[tuple[str, np.ndarray]]) -> np.ndarray:
    """Random text around each image and, as in Qwen3-VL, around each frame of a video."""
    parts = []
    for kind, (frames, height, width) in media:
        pad = IDS["image_token_id"] if kind == "image" else IDS["video_token_id"]
        for _ in range(frames if kind == "video" else 1):
            parts.append(rng.integers(0, 90, rng.integers(0, 6)))
            parts.append([IDS["vision_start_token_id"], *[pad] * (height * width // 4), END])
    parts.append(rng.integers(0, 90, rng.integers(0, 9)))
    return np.concatenate([np.asarray(p, np.int64) for p in parts])


@pytest.mark.parametrize(
    "kinds",
    [[], ["image"], ["image"] * 3, ["video"], ["video", "video"], ["image", "video", "image", "video"]],
)
def test_positions_equal_transformers(kinds):
    from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLModel

    stub: Any = SimpleNamespace(config=SimpleNamespace(vision_config=SimpleNamespace(spatial_merge_size=2)))
    stub.get_vision_position_ids = lambda *a, **k: Qwen3VLModel.get_vision_position_ids(stub, *a, **k)
    rng = np.random.default_rng(len(kinds))
    for _ in range(10):
        media = [(kind, random_grids(rng, 1, 4 if kind == "video" else 1)[0]) for kind in kinds]
        tokens = layout(rng, media)
        if not len(tokens):
            continue
        image_grids = np.array([g for kind, g in media if kind == "image"], np.int64).reshape(-1, 3)
        video_grids = np.array([g for kind, g in media if kind == "video"], np.int64).reshape(-1, 3)
        types = (tokens == IDS["image_token_id"]) + 2 * (tokens == IDS["video_token_id"])
        expected, delta = Qwen3VLModel.get_rope_index(
            stub,
            torch.tensor(tokens)[None],
            torch.tensor(types)[None],
            torch.tensor(image_grids) if len(image_grids) else None,
            torch.tensor(video_grids) if len(video_grids) else None,
        )
        got = mrope_positions(tokens, image_grids, video_grids, **IDS, merge=2)
        np.testing.assert_array_equal(got, expected[:, 0].numpy())
        assert got.dtype == np.int32
        assert got.max() + 1 - len(tokens) == int(delta)


def test_mismatches_are_errors():
    start, pad = IDS["vision_start_token_id"], IDS["image_token_id"]
    grid = np.array([[1, 2, 4]])
    good = np.array([5, start, pad, pad, END])
    assert mrope_positions(good, grid, None, **IDS, merge=2)[2].tolist() == [0, 1, 2, 3, 4]
    bad = [
        (good, np.zeros((0, 3)), "1 image placeholder spans for 0 image grids"),
        (good[:2], grid, "0 image placeholder spans for 1 image grids"),
        (np.array([5, start, pad, END]), grid, "need"),
        (np.array([5, pad, pad, END]), grid, "vision start"),
    ]
    for tokens, grids, message in bad:
        with pytest.raises(ValueError, match=message):
            mrope_positions(tokens, grids, None, **IDS, merge=2)
    with pytest.raises(ValueError, match="multiples of 2"):
        patch_geometry(np.array([[1, 3, 2]]), 2, 48)


def test_empty_media():
    frame_ids, coords, embed_index, embed_weight = patch_geometry(np.zeros((0, 3), np.int32), 2, 48)
    assert [a.shape for a in (frame_ids, coords, embed_index, embed_weight)] == [(0,), (0, 2), (0, 4), (0, 4)]
    assert mrope_positions(np.arange(4), None, None, **IDS, merge=2).tolist() == [[0, 1, 2, 3]] * 3


def test_inputs_are_pytrees():
    vision = VisionInputs(*(np.zeros(s) for s in itertools.repeat(1, 5)))
    inputs = ModelInputs(*(np.zeros(1) for _ in range(5)), vision=vision)
    assert len(jax.tree.leaves(inputs)) == 10
    assert jax.tree.map(lambda x: x + 1, inputs).vision.patches[0] == 1
