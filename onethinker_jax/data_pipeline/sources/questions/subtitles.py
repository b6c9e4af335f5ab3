"""What is said in a video, from its .srt file."""

import re
from pathlib import Path

from onethinker_jax.data_pipeline.sources.reading.whole_files import whole_text
from onethinker_jax.data_pipeline.sources.sample import SourceError

_TIMES = re.compile(r"\s*\d+:\d\d:\d\d[,.]\d+\s*-->\s*\d+:\d\d:\d\d[,.]\d+")
_MARKUP = re.compile(r"<[^<>]*>|\{\\[^{}]*\}")


def spoken_text(path: Path) -> str:
    """The words of all subtitles, one subtitle a line, without times and markup; a repeated subtitle stands once.

    Raises SourceError: it cannot be read, is not UTF-8, or holds no subtitle.
    """
    found: list[str] = []
    for block in re.split(r"\n\s*\n", whole_text(path).replace("\r\n", "\n")):
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
