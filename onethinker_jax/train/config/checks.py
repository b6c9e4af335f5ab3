"""What every class of settings checks itself with."""

from onethinker_jax.errors import UserError


class SettingError(UserError, ValueError):
    """A setting that cannot work; the message names it."""


def at_least_zero(section: str, settings: object, *names: str) -> None:
    """Raises SettingError naming the first of these fields that is negative."""
    for name in names:
        if getattr(settings, name) < 0:
            raise SettingError(f"{section}.{name} {getattr(settings, name)} must not be negative")


def positive(section: str, settings: object, *names: str) -> None:
    """Raises SettingError naming the first of these fields that is not positive."""
    for name in names:
        if getattr(settings, name) <= 0:
            raise SettingError(f"{section}.{name} {getattr(settings, name)} must be positive")


def check_rows(batches: dict[str, int], what: str, shards: int) -> None:
    """Raises SettingError naming the first setting whose rows `shards` devices cannot share evenly."""
    for name, rows in batches.items():
        if rows % shards:
            raise SettingError(f"{name} {rows} is not a multiple of {what} = {shards}")
