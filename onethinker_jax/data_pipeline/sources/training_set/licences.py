"""What the publishers of data sets say of their use, where it was read; of the others the publisher is to be asked."""

from collections.abc import Mapping

UNKNOWN = "see its publisher"

LICENCES: Mapping[str, str] = {
    "mevis": "CC BY-NC-SA 4.0",
    "reasonvos": "non-commercial research only; its videos are BURST's (MIT), VIPSeg's (non-commercial research), "
    "MOSE's and MeViS' (CC BY-NC-SA 4.0)",
}
"""By layout."""


def licence_of(layout: str) -> str:
    """What is known of a layout's data."""
    return LICENCES.get(layout, UNKNOWN)
