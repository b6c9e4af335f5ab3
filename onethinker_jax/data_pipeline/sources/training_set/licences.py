"""What the publishers of data sets say of their use in their repositories, read in November 2026.

Of the others the publisher is to be asked.
"""

from collections.abc import Mapping

UNKNOWN = "see its publisher"

_VIDEO_MME = "academic research only, no commercial use; the videos are their owners'"

LICENCES: Mapping[str, str] = {
    "mevis": "CC BY-NC-SA 4.0, non-commercial research only",
    "reasonvos": "non-commercial research only; its videos are BURST's (MIT), VIPSeg's (non-commercial research), "
    "MOSE's and MeViS' (CC BY-NC-SA 4.0)",
    "video-mme": _VIDEO_MME,
    "video-mme-subtitles": _VIDEO_MME,
    "video-holmes": "Apache 2.0 for academic use only; the videos are their owners'",
}
"""By layout."""


def licence_of(layout: str) -> str:
    """What is known of a layout's data."""
    return LICENCES.get(layout, UNKNOWN)
