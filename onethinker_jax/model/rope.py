"""Rotary position embeddings: 2-D for the vision tower, interleaved M-RoPE for the decoder.

The positions themselves are made on the host (`inputs.py`); here they become rotations on the device.
Tables are float32; the decoder casts them to the activations' dtype, as Hugging Face does. `qwen3_vl.py` has the
legend of the axis letters.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from onethinker_jax.model.config import TextConfig, VisionConfig


def vision_rope(coords: Int[Array, "B P 2"], config: VisionConfig) -> tuple[Array, Array]:
    """Gives cos and sin, float32 [B, P, H]; `coords` are a patch's row and column in its frame.

    Of the H/2 frequencies the first half turns with the row, the second with the column.
    """
    half = config.head_dim // 2
    inverse = _inverse_frequencies(config.rope_theta, half)
    angles = coords[..., None].astype(jnp.float32) * inverse  # [B, P, 2, H/4]
    angles = angles.reshape(*coords.shape[:-1], half)
    angles = jnp.concatenate([angles, angles], axis=-1)
    return jnp.cos(angles), jnp.sin(angles)


def text_rope(positions: Int[Array, "B 3 T"], config: TextConfig) -> tuple[Array, Array]:
    """Gives cos and sin, float32 [B, T, H], of interleaved M-RoPE; `positions` are time, height and width.

    Of the H/2 frequencies, indices 1, 4, 7, ... below 3*section[1] turn with the height position,
    2, 5, 8, ... below 3*section[2] with the width position, all others with the time position.
    """
    half = config.head_dim // 2
    inverse = _inverse_frequencies(config.rope_theta, config.head_dim)
    index = jnp.arange(half)
    _, height, width = config.mrope_section
    axis = jnp.where((index % 3 == 1) & (index < 3 * height), 1, 0)
    axis = jnp.where((index % 3 == 2) & (index < 3 * width), 2, axis)
    angles = jnp.moveaxis(positions, 1, -1)[..., axis].astype(jnp.float32) * inverse  # [B, T, H/2]
    angles = jnp.concatenate([angles, angles], axis=-1)
    return jnp.cos(angles), jnp.sin(angles)


def rotate(
    x: Float[Array, "B T N H"], cos: Float[Array, "B T H"], sin: Float[Array, "B T H"]
) -> Float[Array, "B T N H"]:
    """`x` with each pair (i, i + H/2) of every head turned by its angle (arXiv 2104.09864)."""
    low, high = jnp.split(x, 2, axis=-1)
    return x * cos[:, :, None] + jnp.concatenate([-high, low], axis=-1) * sin[:, :, None]


def _inverse_frequencies(theta: float, size: int) -> np.ndarray:
    """theta^(-2i / size) for i < size / 2, float32 as in the reference."""
    return 1.0 / np.float32(theta) ** (np.arange(0, size, 2, dtype=np.float32) / np.float32(size))
