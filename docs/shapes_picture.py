"""Draws docs/shapes.png, samples of the Shapes world: `python docs/shapes_picture.py`.

The upper rows are pictures; each lower row is a video, one frame every half second.
"""

import random
from pathlib import Path

import numpy as np
from PIL import Image

from onethinker_jax.data_pipeline.shapes import random_scenes, rendering

WIDTH, GAP = 1180, 4


def rows() -> list[list[np.ndarray]]:
    """Frames uint8 [H, W, 3], row by row."""
    rng = random.Random(3)
    pictures = [rendering.render(random_scenes.image_scene(rng, "shapes"), 0.0) for _ in range(13)]
    pictures += [rendering.render(random_scenes.image_scene(rng, "words"), 0.0) for _ in range(5)]
    pictures += [rendering.render(random_scenes.image_scene(rng, "sum"), 0.0) for _ in range(3)]
    lines: list[list[np.ndarray]] = [[]]
    for picture in pictures:
        if sum(other.shape[1] + GAP for other in [*lines[-1], picture]) > WIDTH:
            lines.append([])
        lines[-1].append(picture)
    for kind in ("shapes", "shapes", "shapes", "shapes", "words", "sum"):
        scene = random_scenes.video_scene(rng, kind)
        frames = [rendering.render(scene, half / 2) for half in range(round(2 * scene.duration))]
        lines.append(frames[: WIDTH // (scene.width + GAP)])
    return lines


def main() -> None:
    lines = rows()
    heights = [max(frame.shape[0] for frame in line) + GAP for line in lines]
    sheet = Image.new("RGB", (WIDTH, sum(heights) + GAP), (255, 255, 255))
    top = GAP
    for line, height in zip(lines, heights, strict=True):
        left = GAP
        for frame in line:
            sheet.paste(Image.fromarray(frame), (left, top))
            left += frame.shape[1] + GAP
        top += height
    sheet.save(Path(__file__).with_name("shapes.png"), optimize=True)


if __name__ == "__main__":
    main()
