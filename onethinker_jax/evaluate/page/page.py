"""The page of one evaluation, or of two side by side: one HTML file that needs nothing else.

Tables beside the published numbers, charts, and examples with everything drawn, which a small script filters. It is
made of results.json and scored.jsonl alone; pictures need the benchmark's file and media, and are counted where they
are missing. Their size is bounded.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path

from onethinker_jax.data_pipeline.drawing.html_file import facts_html, write_html
from onethinker_jax.data_pipeline.sources.sample import Sample
from onethinker_jax.evaluate.page.arguments import EXAMPLES, MEGABYTES, PageArguments
from onethinker_jax.evaluate.page.cards import card_html
from onethinker_jax.evaluate.page.charts import charts_html
from onethinker_jax.evaluate.page.examples import KINDS, RIGHT, Example, choose
from onethinker_jax.evaluate.page.pictures import FULL, Pictures, Reader, pictures_of
from onethinker_jax.evaluate.page.tables import LETTERS, by_benchmark, left_out_html, results_html, tasks_html
from onethinker_jax.evaluate.results.comparison import compare
from onethinker_jax.evaluate.results.kept import KeptResults, kept_masks, key_of, read_results
from onethinker_jax.text_output import json_text

logger = logging.getLogger("onethinker_jax.evaluate")

PAGE = "index.html"


def page_of_results(out: Path, known: Mapping[str, Sequence[Sample]]) -> Path:
    """Writes the page of an evaluation that has just been written to `out`, whose samples are known; its path.

    Raises ResultsError, OSError.
    """
    return write_page(PageArguments(folders=(out,), examples=EXAMPLES, megabytes=MEGABYTES), known)


def write_page(arguments: PageArguments, known: Mapping[str, Sequence[Sample]] | None = None) -> Path:
    """Writes the page, whole or not at all, says how many examples it shows and which lack pictures; its path.

    `known` are samples of benchmarks that need not be read again.

    Raises ResultsError: a folder has no results, or two are not of the same files. OSError.
    """
    runs = [read_results(folder) for folder in arguments.folders]
    compared = compare(*runs, seed=arguments.seed) if len(runs) == 2 else []
    examples = {
        name: choose([one for one in of_runs if one is not None], arguments.examples, seed=arguments.seed)
        for name, of_runs in by_benchmark(runs).items()
    }
    examples = {name: [_of_all_runs(one, name, runs) for one in found] for name, found in examples.items()}
    reader = Reader(arguments.data, arguments.media_root, known or {})
    pictures = _pictures(runs, examples, reader, arguments.megabytes * 1e6)
    names = [str(run.folder) for run in runs]
    title = "Evaluation" if len(runs) == 1 else "Two evaluations"
    body = [
        f"<h1>{title}</h1>{_facts(runs)}",
        "<h2>Results</h2><p class=lead>Percent, with the 95% interval of the standard form, else of the released one. "
        "Standard is what the benchmark itself defines, released what OneThinker's script means to compute; the form "
        f"that the published numbers are in is underlined.{_said_of_two(names)}</p>",
        results_html(runs, compared),
        tasks_html(compared),
        left_out_html(runs, compared),
        _made_with(runs),
        "<h2>Charts</h2><p class=lead>Bars with 95% intervals; a diamond is the released form where it differs from "
        "the standard one. The hollow circle is Qwen3-VL-8B-Instruct, the full one OneThinker-8B, as published.</p>",
        '<div class="panels">',
        *(
            charts_html([one for one in of_runs if one is not None])
            for of_runs in by_benchmark(runs).values()
        ),
        "</div>",
        _examples_html(runs, examples, pictures, names, arguments.examples),
    ]
    path = arguments.page or arguments.folders[-1] / PAGE
    path.parent.mkdir(parents=True, exist_ok=True)
    files = resources.files("onethinker_jax.evaluate.page")
    style, script = (files.joinpath(f"page.{kind}").read_text("utf-8") for kind in ("css", "js"))
    write_html(path, title, style, "".join(body), script=script)
    lacking = sum(bool(media.lacking) for media in pictures.values())
    said = f", {lacking:,} of them without their pictures" if lacking else ""
    logger.info("a page with %s examples%s is in %s", f"{len(pictures):,}", said, path)
    return path


def _of_all_runs(example: Example, name: str, runs: Sequence[KeptResults]) -> Example:
    """The same with an entry for each run, those without the benchmark included."""
    problems = tuple(
        run.benchmarks[name].problems.get(example.problem_id) if name in run.benchmarks else None
        for run in runs
    )
    return Example(example.benchmark, example.problem_id, problems, example.kinds)


def _pictures(
    runs: Sequence[KeptResults], examples: Mapping[str, Sequence[Example]], reader: Reader, most_bytes: float
) -> Pictures:
    """The media of all examples, each benchmark within its share of the size."""
    masks = []
    for number, run in enumerate(runs):
        shown = (one.problems[number] for of_benchmark in examples.values() for one in of_benchmark)
        wanted = {key_of(problem.answers[0]) for problem in shown if problem is not None and problem.answers}
        masks.append(kept_masks(run.folder, list(run.benchmarks), wanted))
    found: Pictures = {}
    share = most_bytes / max(len(examples), 1)
    for name, of_benchmark in examples.items():
        if not of_benchmark:
            continue
        benchmark = next(run.benchmarks[name] for run in runs if name in run.benchmarks)
        found |= pictures_of(benchmark, of_benchmark, masks, reader, most_bytes=share)
    return found


def _facts(runs: Sequence[KeptResults]) -> str:
    parts = []
    for number, run in enumerate(runs):
        benchmarks = run.benchmarks.values()
        facts = {"Run " + LETTERS[number] if len(runs) > 1 else "Folder": str(run.folder)}
        facts |= {
            key.capitalize(): str(run.settings[key]) for key in ("model", "seed") if key in run.settings
        }
        judge = run.settings.get("judge")
        if isinstance(judge, Mapping):
            facts["Judge"] = str(judge.get("model") or judge.get("name") or judge)
        facts["Problems"] = f"{sum(len(one.problems) for one in benchmarks):,}"
        failed = sum(not one.answers for bench in benchmarks for one in bench.problems.values())
        facts["Failed"] = f"{failed:,}"
        facts["onethinker_jax"] = str(run.versions.get("onethinker_jax", "unknown"))
        parts.append(facts_html(facts))
    return "".join(parts)


def _made_with(runs: Sequence[KeptResults]) -> str:
    """Files, settings and versions, folded."""
    whole = {
        str(run.folder): {
            "files": {name: one.facts["files"] for name, one in run.benchmarks.items()},
            "settings": run.settings,
            "versions": run.versions,
        }
        for run in runs
    }
    return (
        "<details><summary>Files with their md5, settings, versions</summary>"
        f"<pre>{escape(json_text(whole, indent=2))}</pre></details>"
    )


def _said_of_two(names: Sequence[str]) -> str:
    if len(names) < 2:
        return ""
    a, b = map(escape, names)
    return (
        f" A is {a}, B is {b}. B − A is over the problems that both answered, with its 95% interval by paired "
        "bootstrap and a p value, McNemar's where every problem is right or wrong; coloured where the interval is "
        "clear of 0."
    )


def _examples_html(
    runs: Sequence[KeptResults],
    examples: Mapping[str, Sequence[Example]],
    pictures: Pictures,
    names: Sequence[str],
    count: int,
) -> str:
    """The examples of all benchmarks below what filters them."""
    whole = [one for found in examples.values() for one in found]
    if not whole:
        return '<h2>Examples</h2><p class="lead">None is shown.</p>'
    cards = "".join(
        card_html(
            one,
            [run.benchmarks.get(one.benchmark) for run in runs],
            pictures[one.benchmark, one.problem_id],
            names,
        )
        for one in whole
    )
    lacking = sum(bool(media.lacking) for media in pictures.values())
    full = sum(media.lacking == FULL for media in pictures.values())
    without = (
        f" {lacking:,} are shown without their pictures, {full:,} of them for the page's size."
        if lacking
        else ""
    )
    kinds = [kind for kind in KINDS if any(kind in one.kinds for one in whole)]
    verdicts = {"right": "right", "wrong": "wrong", "failed": "failed"}
    if len(runs) == 2:
        verdicts |= {"right wrong": "A right, B wrong", "wrong right": "A wrong, B right"}
    controls = (
        _select("benchmark", "Benchmark", {name: name for name, found in examples.items() if found})
        + _select("task", "Task", {name: name for name in sorted({one.head["task"] for one in whole})})
        + _select("kind", "Why", {kind: kind for kind in kinds})
        + _select("verdict", "Answer", verdicts)
        + '<label>Length <input id="least" type="number" min="0" placeholder="from">'
        '<input id="most" type="number" min="0" placeholder="to"></label>'
        '<label>Text <input id="text" type="search" placeholder="in question, answer, reasoning"></label>'
        f'<span class="soft"><b id="shown">{len(whole):,}</b> of {len(whole):,}</span>'
        '<span class="swatches"><span><i></i>true</span><span><i class="dash"></i>predicted</span></span>'
    )
    return (
        f"<h2>Examples</h2><p class=lead>Of each benchmark and task up to {count} of each kind: "
        f"{', '.join(kinds)}. Right is a value of at least {RIGHT:g}. Length is in tokens where they are known, else "
        f"in characters.{without}</p>"
        f'<div class="controls">{controls}</div><main id="examples">{cards}</main>'
    )


def _select(name: str, label: str, options: Mapping[str, str]) -> str:
    listed = "".join(
        f'<option value="{escape(value)}">{escape(said)}</option>' for value, said in options.items()
    )
    return f'<label>{label} <select id="{name}"><option value="">all</option>{listed}</select></label>'
