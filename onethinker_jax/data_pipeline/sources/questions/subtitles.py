"""What is said in a video, from its .srt file."""

import re
from pathlib import Path

from onethinker_jax.data_pipeline.sources.sample import SourceError

_TIMES = re.compile(r"\s*\d+:\d\d:\d\d[,.]\d+\s*-->\s*\d+:\d\d:\d\d[,.]\d+")
_MARKUP = re.compile(r"<[^<>]*>|\{\\[^{}]*\}")


def spoken_text(path: Path) -> str:
    """The words of all subtitles, one subtitle a line, without times and markup; a repeated subtitle stands once.

    Raises SourceError: the file is not UTF-8, or holds no subtitle.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise SourceError(f"{path}: is not UTF-8 (byte {error.start})") from None
    found: list[str] = []
    for block in re.split(r"\n\s*\n", text.replace("\r\n", "\n")):
        lines = block.split("\n")
        times = next((index for index, line in enumerate(lines) if _TIMES.match(line)), None)
        if times is None:
            continue
        said = " ".join(_MARKUP.sub("", " ".join(lines[times + 1 :])).split())
        if said and said != (found[-1] if found else ""):
            found.append(said)
    if not found:
        raise SourceError(f"{path}: holds no subtitle")
    return "\n".join(found)
