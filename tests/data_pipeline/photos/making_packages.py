"""Tiny packages, written by the published layouts and without our readers: Qt resources, stamps, wheels, .deb files."""

import io
import struct
import subprocess
import zipfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw


def rcc(files: dict[str, bytes], version: int = 3, compressed: bool = True) -> bytes:
    """A Qt resource file, as Qt's documentation of its format and `rcc` have it: nodes breadth first."""
    nodes: list[dict] = [{"name": "", "children": {}}]
    for path, content in files.items():
        at = nodes[0]
        *folders, last = path.split("/")
        for folder in folders:
            at = at["children"].setdefault(folder, {"name": folder, "children": {}})
        at["children"][last] = {"name": last, "content": content}
    order, queue = [], [nodes[0]]
    while queue:
        node = queue.pop(0)
        order.append(node)
        node["first"] = len(order) + len(queue)
        queue += node.get("children", {}).values()
    names, data = b"", b""
    for node in order:
        node["name_at"] = len(names)
        text = node["name"].encode("utf-16-be")
        names += struct.pack(">HI", len(text) // 2, 0) + text
        if "content" in node:
            node["data_at"] = len(data)
            content = node["content"]
            if compressed:
                content = struct.pack(">I", len(content)) + zlib.compress(content)
            data += struct.pack(">I", len(content)) + content
    tree = b""
    for node in order:
        if "content" in node:
            tree += struct.pack(">IHHHI", node["name_at"], int(compressed), 0, 0, node["data_at"])
        else:
            tree += struct.pack(">IHII", node["name_at"], 2, len(node["children"]), node["first"])
        if version >= 2:
            tree += bytes(8)
    head = 20 if version < 3 else 24
    places = (head + len(data) + len(names), head, head + len(data))
    return b"qres" + struct.pack(">4I", version, *places) + bytes(head - 20) + data + names + tree


def disc(width: int = 80, height: int = 60, colour: tuple[int, int, int] = (200, 30, 30)) -> Image.Image:
    """An ellipse on nothing, two pixels from each side of its RGBA picture."""
    picture = Image.new("RGBA", (width, height))
    ImageDraw.Draw(picture).ellipse((2, 2, width - 3, height - 3), fill=(*colour, 255))
    return picture


def photograph(width: int = 320, height: int = 240, seed: int = 0) -> Image.Image:
    """A smooth picture with some noise."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(40, 200, width)[None, :, None] + rng.integers(0, 20, (height, 1, 3))
    return Image.fromarray(np.broadcast_to(ramp, (height, width, 3)).astype(np.uint8))


def encoded(picture: Image.Image, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    picture.save(file, kind)
    return file.getvalue()


def wheel(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def deb(path: Path, aside: Path, files: dict[str, bytes]) -> Path:
    """A .deb file, by dpkg-deb."""
    control = (
        f"Package: {path.name.split('_')[0]}\nVersion: 1\nArchitecture: all\nMaintainer: n\nDescription: d\n"
    )
    for name, content in {"DEBIAN/control": control.encode(), **files}.items():
        (aside / name).parent.mkdir(parents=True, exist_ok=True)
        (aside / name).write_bytes(content)
    subprocess.run(["dpkg-deb", "-b", str(aside), str(path)], check=True, capture_output=True)
    return path
