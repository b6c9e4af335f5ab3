"""An example as a card: question, truth, media, and what each run answered, reasoned and scored."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from onethinker_jax.data_pipeline.records.conversation import words_of
from onethinker_jax.evaluate.page.examples import RIGHT, Example, graded, value_of
from onethinker_jax.evaluate.page.pictures import Media
from onethinker_jax.evaluate.results.kept import KeptBenchmark, KeptProblem, Row
from onethinker_jax.rewards.answers import extract_answer, extract_thinking

REASONING_CHARACTERS, ANSWER_CHARACTERS, QUESTION_CHARACTERS = 4_000, 700, 2_000
RIGHT_ONE, WRONG_ONE, FAILED, ABSENT = "right", "wrong", "failed", "absent"


def verdict(benchmark: KeptBenchmark | None, problem: KeptProblem | None) -> str:
    """Whether a run's answer to a problem is right, wrong, failed or not there."""
    if benchmark is None or problem is None:
        return ABSENT
    if not problem.answers:
        return FAILED
    value = value_of(benchmark, problem)
    return RIGHT_ONE if value is not None and value >= RIGHT else WRONG_ONE


def card_html(
    example: Example, runs: Sequence[KeptBenchmark | None], media: Media, names: Sequence[str]
) -> str:
    """The card; `names` are shown above the runs' answers, where there are two."""
    head = example.head
    options = "".join(f"<li>{escape(str(option))}</li>" for option in head["options"])
    verdicts = [verdict(run, one) for run, one in zip(runs, example.problems, strict=True)]
    lengths = [
        row["tokens"]
        for one in example.problems
        if one
        for row in one.answers
        if row.get("tokens") is not None
    ]
    lengths = lengths or [len(row["response"]) for one in example.problems if one for row in one.answers]
    tags = "".join(f'<span class="tag">{escape(kind)}</span>' for kind in example.kinds)
    groups = " · ".join(f"{kind}: {name}" for kind, name in head["groups"].items() if kind != "task")
    about = (
        f'<header><span class="task">{escape(head["task"])}</span>{tags}'
        f'<span class="number">{escape(example.benchmark)} #{escape(example.problem_id)}</span></header>'
        f'<p class="question">{escape(short_text(words_of(head["question"]).strip(), QUESTION_CHARACTERS))}</p>'
        + (f'<ul class="options">{options}</ul>' if options else "")
        + (f'<p class="groups">{escape(groups)}</p>' if groups else "")
        + f'<dl><dt class="true">Truth</dt><dd class="mono">{_text(head["answer"], ANSWER_CHARACTERS)}</dd></dl>'
    )
    drawn = media.of_runs or ("",) * len(example.problems)
    answers = "".join(
        _run_html(run, one, drawn[number], number, names[number] if len(names) > 1 else "")
        for number, (run, one) in enumerate(zip(runs, example.problems, strict=True))
    )
    lacking = f'<p class="none">{escape(media.lacking)}</p>' if media.lacking else ""
    body = f'{about}<div class="runs">{answers}</div>'
    if not media.of_runs:
        body = f'<div class="media">{media.once}{lacking}</div><div class="text">{body}</div>'
    return (
        f'<article class="card{"" if media.of_runs else " beside"}" data-benchmark="{escape(example.benchmark)}" '
        f'data-task="{escape(head["task"])}" data-kinds="{escape(" ".join(example.kinds))}" '
        f'data-verdicts="{escape(" ".join(verdicts))}" data-length="{max(lengths, default=0)}">{body}</article>'
    )


def _run_html(
    run: KeptBenchmark | None, problem: KeptProblem | None, media: str, number: int, name: str
) -> str:
    """What a run answered first, and how it was read and measured."""
    title = f"<b>{escape(name)}</b>" if name else ""
    if run is None or problem is None:
        said = '<span class="none">has no such problem</span>'
        return f'<section class="run run{number}"><header>{title}{said}</header></section>'
    pictures = f'<div class="media">{media}</div>' if media else ""
    if not problem.answers:
        reason = escape(short_text(str(problem.rows[0]["failed"]), ANSWER_CHARACTERS))
        said = f'<span class="none">failed: {reason}</span>'
        return f'<section class="run run{number}"><header>{title}{said}</header>{pictures}</section>'
    row = problem.answers[0]
    of = f" <small>answer 1 of {len(problem.rows)}</small>" if len(problem.rows) > 1 else ""
    return (
        f'<section class="run run{number}"><header>{title}{of}{_badge(run, row)}</header>{pictures}'
        f"<dl>{_said(row)}</dl>{_values(run, row)}</section>"
    )


def _badge(run: KeptBenchmark, row: Row) -> str:
    found = graded(run, row["values"])
    if found is None:
        return '<span class="badge" style="--good:.5">not measured</span>'
    share = min(max(found[1], 0.0), 1.0)
    return f'<span class="badge" style="--good:{share:.3f}"><small>{escape(found[0])}</small> {found[1]:.2f}</span>'


def _said(row: Row) -> str:
    """Answer, what was read of it, reasoning; the whole response where it has no tags."""
    response = row["response"]
    answer, thinking = extract_answer(response), extract_thinking(response)
    parts = [
        f'<dt class="predicted">Answer</dt><dd class="mono">{_text(answer or "", ANSWER_CHARACTERS)}</dd>'
    ]
    if answer is None:
        parts = [
            '<dt class="predicted">Response, without answer tags</dt>'
            f'<dd class="mono think">{_text(response, REASONING_CHARACTERS)}</dd>'
        ]
    extracted = row.get("extracted")
    by = escape(str(row.get("decided_by")))
    if extracted is None:
        parts.append(f'<dt>Read as</dt><dd><span class="none">nothing</span> <small>{by}</small></dd>')
    elif extracted != answer:
        parts.append(
            f'<dt>Read as</dt><dd class="mono">{_text(str(extracted), ANSWER_CHARACTERS)} <small>{by}</small></dd>'
        )
    if thinking is not None:
        parts.append(f'<dt>Reasoning</dt><dd class="think">{_text(thinking, REASONING_CHARACTERS)}</dd>')
    return "".join(parts)


def _values(run: KeptBenchmark, row: Row) -> str:
    """Every metric of the answer in both forms, and its length."""
    cells = []
    for metric in run.metrics:
        if (forms := row["values"].get(metric)) is None:
            continue
        found = {name: value for name, value in forms.items() if value is not None}
        same = len(set(found.values())) == 1
        shown = " / ".join(
            f"{value:.3g}" + ("" if same else f" {name}")
            for name, value in list(found.items())[: 1 if same else 2]
        )
        cells.append(f"<span>{escape(metric)} <b>{shown or '–'}</b></span>")
    if row.get("tokens") is not None:
        cells.append(f"<span>tokens <b>{row['tokens']:,}</b></span>")
    return f'<p class="values">{"".join(cells)}</p>'


def _text(text: str, most: int) -> str:
    return escape(short_text(text, most)) or '<span class="none">empty</span>'


def short_text(text: str, most: int) -> str:
    """The text, cut where it is longer than `most` characters, with how many are left out."""
    if len(text) <= most:
        return text
    return f"{text[:most].rstrip()} … ({len(text) - most:,} more characters)"
