"""What the tests of pages need: records with media, and a reader that sees whether a page is whole."""

from html.parser import HTMLParser
from pathlib import Path

import av
import numpy as np
from PIL import Image

from onethinker_jax.data_pipeline.records.record import Record

GREY = np.full((64, 96, 3), 128, np.uint8)


class Checker(HTMLParser):
    """Every tag that is opened is closed, in order; collects what would be loaded from elsewhere."""

    VOID = frozenset({"meta", "img", "br", "link", "input"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loaded: list[str] = []
        self.count: dict[str, int] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.count[tag] = self.count.get(tag, 0) + 1
        self.loaded += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.count[tag] = self.count.get(tag, 0) + 1

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag


def record(folder: Path, problem_type: str, data_type: str, answer: str, **changes) -> Record:
    if data_type == "image":
        path = folder / "scene.png"
        Image.fromarray(GREY).save(path)
    else:
        path = folder / "scene.mp4"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=4)
            stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
            for level in range(20):
                frame = av.VideoFrame.from_ndarray(np.full((64, 96, 3), 10 * level, np.uint8), format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
    media = {"images": (path,), "videos": ()} if data_type == "image" else {"images": (), "videos": (path,)}
    fields = {
        "problem_id": 7,
        "problem": f"<{data_type}>Where is <b>it</b>?",
        "data_type": data_type,
        "problem_type": problem_type,
        "options": (),
        "answer": f"<answer>{answer}</answer>",
        "data_source": "test",
        **media,
        **changes,
    }
    return Record(**fields)
