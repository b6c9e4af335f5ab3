"""A page of pictures of a corpus: a few records a task, their true boxes, points, masks and spans drawn.

One HTML file that needs nothing else.
"""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from onethinker_jax.data_pipeline.drawing import Marks, data_uri, draw, marks_at
from onethinker_jax.data_pipeline.html_file import write_html
from onethinker_jax.data_pipeline.records import Record, task_of
from onethinker_jax.data_pipeline.views import View, timeline_html
from onethinker_jax.rewards.answers import unwrap_answer

_IMAGE_WIDTH, _FRAME_WIDTH = 384, 240  # pixels
_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #888; --true: #16a34a; }
body { font: 15px/1.5 system-ui, "DejaVu Sans", sans-serif; max-width: 1200px; margin: 0 auto; padding: 2rem; }
h2 { margin: 2.5rem 0 .5rem; font-size: 1.2rem; }
article { border: 1px solid var(--line); border-radius: 10px; padding: 1rem; margin: .8rem 0; }
article p { margin: .5rem 0; white-space: pre-wrap; overflow-wrap: anywhere; }
small, .ticks, figcaption { color: var(--soft); font-size: 12px; }
img { max-width: 100%; border-radius: 6px; vertical-align: top; margin: 0 6px 6px 0; }
.film { display: flex; flex-wrap: wrap; gap: 6px; } figure { margin: 0; } figure img { margin: 0; }
figcaption { text-align: center; }
.truth { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: 13px; color: var(--true); }
.timeline { position: relative; margin: 10px 0 26px; }
.lane { position: relative; height: 8px; border-radius: 4px; background: var(--line); }
.lane i { position: absolute; height: 8px; border-radius: 4px; background: var(--true); }
.lane i.moment { width: 6px !important; margin-left: -3px; }
.ticks span { position: absolute; top: 10px; transform: translateX(-50%); }
.missing { color: #dc4545; }
table { border-collapse: collapse; } td { padding: 2px 12px 2px 0; } td + td { text-align: right; }
"""


def write_corpus_page(
    path: Path, title: str, tasks: Mapping[str, int], cards: Sequence[tuple[Record, View | str]]
) -> None:
    """Writes the page, whole or not at all.

    Args:
        path: the HTML file.
        title: of the page.
        tasks: records of each task in the corpus.
        cards: records with what is to be seen of them, or with the reason why nothing is.
    """
    rows = "".join(
        f"<tr><td>{escape(task)}</td><td>{count:,}</td></tr>" for task, count in sorted(tasks.items())
    )
    body = [f"<h1>{escape(title)}</h1><table>{rows}</table>"]
    for task in sorted(tasks):
        members = [card for card in cards if task_of(card[0]) == task]
        if members:
            body.append(f"<h2>{escape(task)}</h2>{''.join(_card(*card) for card in members)}")
    write_html(path, title, _STYLE, "".join(body))


def _card(record: Record, view: View | str) -> str:
    media = f'<p class="missing">{escape(view)}</p>' if isinstance(view, str) else _media(view)
    options = "\n".join(record.options)
    turn = record.messages[-1]["content"] if record.messages else unwrap_answer(record.answer)
    about = " · ".join(filter(None, [str(record), record.data_source]))
    return (
        f"<article>{media}<p>{escape(record.problem)}</p>"
        + (f"<p>{escape(options)}</p>" if options else "")
        + f'<p class="truth">{escape(turn[:2000])}</p><small>{escape(about)}</small></article>'
    )


def _media(view: View) -> str:
    if view.times is None:
        pictures = (_picture(view, index, None, _IMAGE_WIDTH) for index in range(len(view.frames)))
        return "".join(f'<img alt="image" src="{uri}">' for uri in pictures)
    cells = "".join(
        f'<figure><img alt="frame" src="{_picture(view, index, time, _FRAME_WIDTH)}">'
        f"<figcaption>{time:.1f} s</figcaption></figure>"
        for index, time in enumerate(view.times)
    )
    return f'<div class="film">{cells}</div>{timeline_html(view.duration, {"true": view.marks})}'


def _picture(view: View, index: int, time: float | None, width: int) -> str:
    mask = view.masks.near(time) if view.masks else None
    truth = marks_at(view.marks, time, view.times or (), mask)
    return data_uri(draw(view.frames[index], truth, Marks(), width))
