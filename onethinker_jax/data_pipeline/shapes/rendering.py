"""The pixels of scenes and the files that hold them."""

from pathlib import Path

import numpy as np
from PIL import Image

from onethinker_jax.data_pipeline.shapes.scene import COLOURS, Scene
from onethinker_jax.data_pipeline.worlds import film

INK = (20, 20, 30)


def render(scene: Scene, time: float) -> np.ndarray:
    """uint8 [H, W, 3]: the frame at `time` seconds."""
    palette = np.zeros((256, 3), np.uint8)
    palette[0], palette[255] = scene.background, INK
    for index, shape in enumerate(scene.shapes):
        palette[index + 1] = COLOURS[shape.colour]
    return np.take(palette, scene.labels(time), axis=0)


def write_png(scene: Scene, path: Path) -> None:
    """Writes an image scene as a PNG file."""
    Image.fromarray(render(scene, 0.0)).save(path, compress_level=4)


def write_mp4(scene: Scene, path: Path) -> None:
    """Writes a video scene as H.264 in MP4, with settings that give the same pixels each time."""
    film.write_mp4((render(scene, time) for time in scene.times), scene.fps, path)
