"""A self-contained HTML file in the style that all report pages share: of a corpus, of an annotation run, of a run."""

from collections.abc import Mapping
from html import escape
from importlib import resources
from pathlib import Path

from onethinker_jax.files import write_whole
from onethinker_jax.text_output import visible


def write_html(path: Path, title: str, style: str, body: str, *, script: str = "") -> None:
    """Writes `body` as one page; the file appears whole or not at all.

    Args:
        path: the file; its directory must exist.
        title: of the window.
        style: rules of this page alone, after the shared ones of `report_page.css`.
        body: HTML; a text from elsewhere must be escaped in it.
        script: JavaScript at the page's end.
    """
    shared = (
        resources.files("onethinker_jax.data_pipeline.drawing").joinpath("report_page.css").read_text("utf-8")
    )
    text = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{shared}{style}</style></head><body>{body}"
        "<footer>Written by onethinker_jax. Everything on this page is inside this file.</footer>"
        f"{f'<script>{script}</script>' if script else ''}</body></html>\n"
    )
    write_whole(path, visible(text))


def facts_html(facts: Mapping[str, str]) -> str:
    """Name and value pairs in boxes beside each other."""
    boxes = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in facts.items())
    return f'<dl class="facts">{boxes}</dl>'
