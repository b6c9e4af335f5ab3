"""Pictures of any mode -> 8-bit RGB, and which values of deep greys are black and white."""

import numpy as np
from PIL import Image

# What white is in a picture of numbers, by what its largest may be.
_WHITES = (1.0, 255.0, 65535.0)
# Resampling leaves values a little below black and above white.
_OVERSHOOT = 0.1


def to_rgb(image: Image.Image) -> Image.Image:
    """RGB of 8 bits: transparency is laid over white, deep greys are scaled.

    16-bit greys: 65535 is white. 32-bit integers: 255 is white if none is larger, else 65535. Floats: 1 is white if
    none is larger, else 255, else 65535; up to a tenth of that below 0 or above white, as resampling leaves, is cut.

    Raises ValueError: other numbers, or none: there is no telling what is black and what white.
    """
    clear = image.info.get("transparency")
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image)
        grey = _eight_bits(values, image.mode)
        if isinstance(clear, int):  # the one value of a PNG that is transparent
            grey = np.where(values == clear, np.uint8(255), grey)
        return Image.fromarray(grey).convert("RGB")
    if image.mode == "RGB" and isinstance(clear, tuple) and max(clear) > 255:
        # Pillow keeps the high bytes of a PNG's 16-bit colours, but not of the one that is transparent.
        image.info["transparency"] = tuple(value >> 8 for value in clear)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def set_clear_value(image: Image.Image) -> None:
    """Call before loading: Pillow spreads the greys of 1, 2 and 4 bits over 8, but not the one that is transparent."""
    clear = image.info.get("transparency")
    if image.format == "PNG" and image.mode in ("L", "1") and isinstance(clear, int):
        stored = str(getattr(image, "tile", [(None,) * 4])[0][3])  # the tile's raw mode
        levels = {"1": 2, "L;2": 4, "L;4": 16}.get(stored)
        if levels:
            image.info["transparency"] = clear * (255 // (levels - 1))


def _eight_bits(values: np.ndarray, mode: str) -> np.ndarray:
    """uint8 [H, W] of a grey picture's numbers."""
    numbers = values.astype(np.float64)
    if not np.isfinite(numbers).all():
        raise ValueError("not all of its values are finite numbers")
    low, high = float(numbers.min()), float(numbers.max())
    if mode.startswith("I;16"):
        white, slack = 65535.0, 0.0
    else:
        slack = _OVERSHOOT if mode == "F" else 0.0
        whites = [white for white in _WHITES if (white > 1 or mode == "F") and high <= white * (1 + slack)]
        white = whites[0] if whites else 0.0
    if white == 0 or low < -slack * white:
        raise ValueError(f"its values go from {low:g} to {high:g}, not from 0 to 1, 255 or 65535")
    return np.clip(np.rint(numbers / white * 255), 0, 255).astype(np.uint8)
