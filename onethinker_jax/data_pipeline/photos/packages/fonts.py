"""Regular and bold faces of fonts out of Debian's font packages."""

import io
import re
from collections.abc import Iterable
from pathlib import PurePosixPath

from PIL import ImageFont

from onethinker_jax.data_pipeline.photos.library import LibraryError
from onethinker_jax.data_pipeline.photos.library_writer import LibraryWriter, Origin
from onethinker_jax.data_pipeline.photos.packages.licences import Licences

WANTED = r"usr/share/fonts/(truetype|opentype)/.*\.(ttf|otf)"

_OTHER = re.compile(
    r"Italic|Oblique|Light|Thin|Semibold|ExtraBold|Cond|Code|Garamond08|Lin\w+_(DR|I|K|M|RBI|RI|RZ|RZI)$"
)
"""In the names of files of other faces: slanted, light, condensed, for display, or with capitals for small letters."""


def read_fonts(files: Iterable[tuple[str, bytes]], writer: LibraryWriter, licences: Licences) -> None:
    """Fills `writer` with fonts; a font's identity is its family.

    Raises LibraryError naming a font that cannot be opened.
    """
    for path, content in sorted(files):
        name = PurePosixPath(path)
        try:
            family, _ = ImageFont.truetype(io.BytesIO(content)).getname()
        except OSError as error:
            raise LibraryError(f"{writer.place}: {name.name} cannot be opened: {error}") from error
        if not family or _OTHER.search(name.stem):
            writer.leave_out("a slanted, light or other face of a font")
            continue
        origin = Origin(family, writer.place, licences.of(path))
        bold = re.search(r"Bold|_RB", name.stem)
        writer.font(content, origin, name=f"{family} Bold" if bold else family, suffix=name.suffix[1:])
