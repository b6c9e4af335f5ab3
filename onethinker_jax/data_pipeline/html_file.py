"""A self-contained HTML file: what the report pages of the data tools are written with."""

from html import escape
from pathlib import Path


def write_html(path: Path, title: str, style: str, body: str) -> None:
    """Writes ``body`` with its style sheet as one page; the file appears whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_text(
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{style}</style></head><body>{body}</body></html>\n",
        encoding="utf-8",
    )
    part.replace(path)
