"""A page of pictures of a corpus: a few records a task, their true boxes, points, masks and spans drawn.

One HTML file that needs nothing else.
"""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from onethinker_jax.data_pipeline.drawing.html_file import facts_html, write_html
from onethinker_jax.data_pipeline.drawing.media_html import media_html
from onethinker_jax.data_pipeline.drawing.views import View
from onethinker_jax.data_pipeline.records.record import Record, task_of
from onethinker_jax.rewards.answers import unwrap_answer

_STYLE = """
.counts { max-width: 620px; } .counts td:first-child { white-space: normal; }
.counts .bar { display: block; height: 6px; border-radius: 3px; background: var(--faint); }
.counts .bar i { display: block; height: 100%; border-radius: 3px; min-width: 2px;
  background: var(--accent); }
.counts td.share { width: 40%; }
.about { color: var(--soft); font-size: 12.5px; overflow-wrap: anywhere; }
"""


def write_corpus_page(
    path: Path,
    title: str,
    tasks: Mapping[str, int],
    cards: Sequence[tuple[Record, View | str]],
    facts: Mapping[str, str] | None = None,
) -> None:
    """Writes the page, whole or not at all.

    Args:
        path: the HTML file.
        title: of the page.
        tasks: records of each task in the corpus.
        cards: records with what is to be seen of them, or with the reason why nothing is.
        facts: name -> what is said of the corpus as a whole.
    """
    most = max(tasks.values(), default=1)
    rows = "".join(
        f'<tr><td>{escape(task)}</td><td>{count:,}</td><td class="share">'
        f'<i class="bar"><i style="width:{100 * count / most:.1f}%"></i></i></td></tr>'
        for task, count in sorted(tasks.items())
    )
    body = [f"<h1>{escape(title)}</h1>", facts_html(facts) if facts else ""]
    if tasks:
        body.append(
            '<h2>Records by task</h2><div class="sheet counts"><table><thead><tr><th>Task</th>'
            f"<th>Records</th><th></th></tr></thead><tbody>{rows}</tbody></table></div>"
        )
    else:
        body.append('<p class="lead">There is no good record to be shown; bad.jsonl says what is wrong.</p>')
    for task in sorted(tasks):
        members = [card for card in cards if str(task_of(card[0])) == task]
        if members:
            body.append(f"<h2>{escape(task)}</h2>{''.join(_card(*card) for card in members)}")
    write_html(path, title, _STYLE, "".join(body))


def _card(record: Record, view: View | str) -> str:
    media = f'<p class="none">{escape(view)}</p>' if isinstance(view, str) else media_html(view)
    question = record.problem if isinstance(view, str) else view.question
    options = "".join(f"<li>{escape(option)}</li>" for option in record.options)
    turn = record.messages[-1]["content"] if record.messages else unwrap_answer(record.answer)
    about = " · ".join(filter(None, [str(record), record.data_source]))
    return (
        f'<article class="card beside"><div class="media">{media}</div><div>'
        f'<p class="question">{escape(question)}</p>'
        + (f'<ul class="options">{options}</ul>' if options else "")
        + f'<dl><dt class="true">{"Last turn" if record.messages else "Truth"}</dt>'
        f'<dd class="mono">{escape(turn[:2000])}</dd></dl>'
        f'<p class="about">{escape(about)}</p></div></article>'
    )
