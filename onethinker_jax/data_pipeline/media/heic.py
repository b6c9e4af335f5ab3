"""HEIC and HEIF pictures, as phones take them. FFmpeg takes one for a video and decodes a single tile.

They are read by pillow-heif, which the extra `heic` installs, through its own functions: nothing is registered with
Pillow, so other code of the process sees no change.
"""

from PIL import Image

from onethinker_jax.data_pipeline.media.film import source
from onethinker_jax.data_pipeline.media.media_file import MediaError, MediaFile

_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
_BRANDS_OF_ANY = {b"mif1", b"msf1"}  # AVIF too, which then says so among its other brands
AVIF_BRANDS = {b"avif", b"avis"}


def first_bytes(path: MediaFile, count: int = 64) -> bytes:
    """How the file begins. Raises MediaError if it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(count)
    except OSError as error:
        raise MediaError(f"{path}: cannot be read ({error.strerror or error})") from None


def brands(head: bytes) -> list[bytes]:
    """The brands of a file in the ISO base media format, the major one first; none of another file."""
    if head[4:8] != b"ftyp":
        return []
    size = min(int.from_bytes(head[:4], "big"), len(head))
    return [head[8:12], *(head[at : at + 4] for at in range(16, size - 3, 4))]


def is_heic(head: bytes) -> bool:
    """Whether a file that begins like this is a HEIC or HEIF picture."""
    major, *others = brands(head) or [b""]
    return major in _BRANDS or (major in _BRANDS_OF_ANY and not AVIF_BRANDS & set(others))


def is_avif(head: bytes) -> bool:
    """Whether a file that begins like this is an AVIF picture or animation."""
    major, *others = brands(head) or [b""]
    return major in AVIF_BRANDS or (major in _BRANDS_OF_ANY and bool(AVIF_BRANDS & set(others)))


class HeicPicture:
    """The primary picture of a HEIC file, upright; not decoded before `decode`."""

    def __init__(self, path: MediaFile):
        """Raises MediaError: pillow-heif is not installed. OSError, ValueError: not readable."""
        try:
            import pillow_heif
        except ImportError:
            raise MediaError(
                f"{path}: a HEIC picture, which needs pillow-heif: pip install 'onethinker_jax[heic]'"
            ) from None
        self._file = pillow_heif.open_heif(source(path))

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self._file.size

    def decode(self) -> Image.Image:
        """The file's primary picture, as it stands in the file."""
        return self._file[self._file.primary_index].to_pillow()
