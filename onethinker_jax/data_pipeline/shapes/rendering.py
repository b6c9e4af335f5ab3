"""The pixels of scenes: frames, masks and what is said of them, files.

Everything is drawn without antialiasing on whole pixels, so that the mask of an object is known exactly; later
shapes lie on top of earlier ones and print lies on top of all. Boxes and masks are of the VISIBLE part of an object.
"""

import math
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from onethinker_jax.data_pipeline.shapes.scene import COLOURS, Scene

INK = (20, 20, 30)


@lru_cache(maxsize=512)
def shape_stamp(shape: str, radius: int) -> np.ndarray:
    """The pixels of a shape inside its bounding square, bool [2r+1, 2r+1]."""
    side, r = 2 * radius + 1, float(radius)
    image = Image.new("L", (side, side))
    draw = ImageDraw.Draw(image)
    if shape == "circle":
        draw.ellipse((0, 0, side - 1, side - 1), fill=1)
    elif shape == "square":
        draw.rectangle((0, 0, side - 1, side - 1), fill=1)
    elif shape == "triangle":
        draw.polygon([(r, 0), (side - 1, side - 1), (0, side - 1)], fill=1)
    elif shape == "cross":
        arm = max(2, round(0.34 * radius))
        draw.rectangle((radius - arm, 0, radius + arm, side - 1), fill=1)
        draw.rectangle((0, radius - arm, side - 1, radius + arm), fill=1)
    elif shape == "star":
        points = []
        for i in range(10):
            reach, angle = (r if i % 2 == 0 else 0.45 * r), math.pi * (i / 5 - 0.5)
            points.append((r + reach * math.cos(angle), r + reach * math.sin(angle)))
        draw.polygon(points, fill=1)
    else:
        raise ValueError(f"unknown shape {shape!r}")
    return np.asarray(image, dtype=bool)


@lru_cache(maxsize=512)
def text_stamp(text: str, height: int) -> np.ndarray:
    """The ink of `text` in Pillow's own font, cropped to the ink: bool [h, w]."""
    font = ImageFont.load_default(size=height)
    _, _, right, bottom = font.getbbox(text, stroke_width=0.5)
    image = Image.new("L", (int(right) + 4, int(bottom) + 4))
    ImageDraw.Draw(image).text((1, 1), text, font=font, fill=255, stroke_width=0.5)
    ink = np.asarray(image) >= 110
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def label_map(scene: Scene, time: float) -> np.ndarray:
    """uint8 [H, W]: 0 background, i + 1 where shape i is the topmost, 255 where print is."""
    labels = np.zeros((scene.height, scene.width), np.uint8)
    for index, shape in enumerate(scene.shapes):
        if shape.present(time):
            x, y = shape.centre(time)
            r = shape.radius
            labels[y - r : y + r + 1, x - r : x + r + 1][shape_stamp(shape.shape, r)] = index + 1
    for printed in scene.prints:
        if printed.life[0] <= time <= printed.life[1]:
            ink, (x, y) = text_stamp(printed.text, printed.height), printed.corner
            labels[y : y + ink.shape[0], x : x + ink.shape[1]][ink] = 255
    return labels


def render(scene: Scene, time: float) -> np.ndarray:
    """uint8 [H, W, 3]: the frame at `time` seconds."""
    palette = np.zeros((256, 3), np.uint8)
    palette[0], palette[255] = scene.background, INK
    for index, shape in enumerate(scene.shapes):
        palette[index + 1] = COLOURS[shape.colour]
    return np.take(palette, label_map(scene, time), axis=0)


def visible_mask(scene: Scene, index: int, time: float) -> np.ndarray:
    """Where shape `index` is seen at `time`, bool [H, W]; all False when it is away or covered."""
    return label_map(scene, time) == index + 1


def visible_share(scene: Scene, index: int, time: float) -> float:
    """Seen pixels over all pixels of shape `index` at `time`; 0 while it is away."""
    shape = scene.shapes[index]
    return float(visible_mask(scene, index, time).sum() / shape_stamp(shape.shape, shape.radius).sum())


def mask_box(mask: np.ndarray) -> list[int]:
    """[x1, y1, x2, y2] in 0-1000: extent of a bool [H, W] mask that is not empty; right, bottom exclusive."""
    height, width = mask.shape
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return [
        round(1000 * int(columns[0]) / width),
        round(1000 * int(rows[0]) / height),
        round(1000 * (int(columns[-1]) + 1) / width),
        round(1000 * (int(rows[-1]) + 1) / height),
    ]


def positive_points(mask: np.ndarray) -> list[list[int]]:
    """Three points in 0-1000 inside a bool [H, W] mask: the middle of its columns at 1/4, 1/2 and 3/4."""
    columns = np.flatnonzero(mask.any(0))
    points = []
    for share in (0.25, 0.5, 0.75):
        x = int(columns[round(share * (len(columns) - 1))])
        rows = np.flatnonzero(mask[:, x])
        points.append(_to_thousand(x, int(rows[len(rows) // 2]), mask.shape))
    return points


def negative_points(mask: np.ndarray) -> list[list[int]]:
    """Three points in 0-1000 outside a bool [H, W] mask: left, right, above, below its box, then corners.

    The first three of these inside the frame and off the object are taken, so that they can be learnt.
    Fewer than three come back if there are no more.
    """
    height, width = mask.shape
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    x1, x2, y1, y2 = int(columns[0]), int(columns[-1]), int(rows[0]), int(rows[-1])
    gap = 3 + (x2 - x1 + y2 - y1) // 8
    x, y = (x1 + x2) // 2, (y1 + y2) // 2
    places = [(x1 - gap, y), (x2 + gap, y), (x, y1 - gap), (x, y2 + gap)]
    places += [(x1 - gap, y1 - gap), (x2 + gap, y1 - gap), (x1 - gap, y2 + gap), (x2 + gap, y2 + gap)]
    inside = [(a, b) for a, b in places if 0 <= a < width and 0 <= b < height and not mask[b, a]]
    return [_to_thousand(a, b, mask.shape) for a, b in inside[:3]]


def _to_thousand(x: int, y: int, size: tuple[int, ...]) -> list[int]:
    return [round(1000 * (x + 0.5) / size[1]), round(1000 * (y + 0.5) / size[0])]


def write_png(scene: Scene, path: Path) -> None:
    """Writes an image scene as a PNG file."""
    Image.fromarray(render(scene, 0.0)).save(path, compress_level=4)


def write_mp4(scene: Scene, path: Path) -> None:
    """Writes a video scene as H.264 in MP4, with settings that give the same pixels each time."""
    # One thread is not enough: x264's macroblock-tree lookahead, as vectorised, still varied between runs.
    options = {"crf": "16", "preset": "veryfast", "threads": "1", "g": "250"}
    options["x264-params"] = "mbtree=0:cpu-independent=1"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=scene.fps, options=options)
        stream.width, stream.height, stream.pix_fmt = scene.width, scene.height, "yuv420p"
        stream.thread_count = 1
        for index, time in enumerate(scene.times):
            frame = av.VideoFrame.from_ndarray(render(scene, time), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, scene.fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
