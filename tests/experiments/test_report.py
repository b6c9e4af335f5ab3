"""Intervals, tables and pictures of results, worked out by hand; and docs/results.md against the committed results."""

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from scipy import stats

from experiments import report
from experiments.analysis import ALL, MEAN, Key, Results, estimate, group_mean
from experiments.plots import running_mean
from experiments.report import DOCUMENT, RESULTS, ReportError, compact, make_report, take_in
from experiments.result_lines import ResultsError
from experiments.tables import TABLES, change, sentence
from tests.experiments import made_up

SIZE = 1_000_000


@pytest.fixture(scope="module")
def results() -> Results:
    return Results(made_up.study())


def test_the_document_is_what_the_results_give() -> None:
    """Every table and picture in docs/results.md; `python -m experiments.report` makes them."""
    text = DOCUMENT.read_text(encoding="utf-8")
    made = make_report(text, RESULTS)
    assert made.text == text, "docs/results.md: run python -m experiments.report"
    folder = DOCUMENT.parent / report.PICTURE_FOLDER
    assert {file.name for file in folder.glob("*")} == set(made.pictures)
    for name, picture in made.pictures.items():
        assert (folder / name).read_text(encoding="utf-8") == picture, (
            f"{name}: run python -m experiments.report"
        )
    assert text.count("<!-- made: ") == len(report.PART.findall(text)) > 5
    assert sum(file.stat().st_size for file in RESULTS.glob("*")) < SIZE
    for file in RESULTS.glob("*.jsonl"):  # what is committed is what `--add` keeps
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        assert lines == [compact(line) for line in lines]


def test_an_interval_is_students() -> None:
    """Against scipy's own confidence interval of a paired t-test."""
    a, b = np.array([0.3, 0.34, 0.29, 0.4, 0.36]), np.array([0.28, 0.35, 0.25, 0.36, 0.33])
    expected = stats.ttest_rel(a, b).confidence_interval(0.95)
    found = estimate((a - b).tolist())
    assert found.half is not None
    assert (found.mean - found.half, found.mean + found.half) == pytest.approx((expected.low, expected.high))
    assert found.count == 5 and found.sure == (expected.low > 0)
    assert estimate([0.5]).half is None and not estimate([0.5]).sure
    with pytest.raises(ValueError, match="no values"):
        estimate([])


def test_an_interval_over_records(results: Results) -> None:
    """Twenty of 100 records differ, all by the same: as many are drawn as a binomial distribution says."""
    ours, other = Key("ema_grpo_paper"), Key("grpo")
    found = results.over_records(ours, other, ALL)
    difference = results.difference(ours, other, ALL)
    assert found is not None and difference is not None
    assert found[0] == pytest.approx(difference.mean) == pytest.approx(0.2 * 0.04)
    expected = stats.binom.ppf([0.025, 0.975], 100, 0.2) / 100 * 0.04
    assert found[1:] == pytest.approx(expected, abs=0.011 * 0.04)
    assert results.over_records(ours, other, "tracking") == pytest.approx((0.04, 0.04, 0.04))
    assert results.over_records(ours, Key("none"), "captions") == pytest.approx((0, 0, 0))
    assert results.over_records(ours, Key("grpo", "dense"), ALL) is None
    with pytest.raises(ResultsError, match="no held-out records of spatial"):
        results.over_records(ours, other, "spatial")


def test_group_means() -> None:
    """Over records in a family and over all; over families each counts once."""
    tasks = {
        "multiple choice (image)": [30, 0.2, 1.0, 1.0],
        "math (video)": [10, 0.6, 1.2, 1.0],
        "tracking (video)": [20, 0.9, 1.4, 0.5],
    }
    assert group_mean(tasks, "QA", "accuracy") == pytest.approx(0.3)
    assert group_mean(tasks, "math (video)", "reward") == pytest.approx(1.2)
    assert group_mean(tasks, MEAN, "accuracy") == pytest.approx((0.3 + 0.9) / 2)
    assert group_mean(tasks, ALL, "format") == pytest.approx(50 / 60)
    with pytest.raises(ResultsError, match="no held-out records of spatial"):
        group_mean(tasks, "spatial", "accuracy")


def test_arms_are_paired_by_seed(results: Results) -> None:
    """A constant difference between two arms is sure, however much the seeds differ; missing seeds do not count."""
    ours, grpo = Key("ema_grpo_paper"), Key("grpo")
    found = results.difference(ours, grpo, "tracking")
    assert found is not None and found.half is not None
    assert (found.mean, found.half) == pytest.approx((0.04, 0.0), abs=1e-9)
    gain = results.gain(ours, "tracking")
    assert gain.mean == pytest.approx(0.11) and gain.half is not None and gain.half > 0.02
    lines = [line for line in made_up.study() if (line["arm"], line["seed"]) != ("grpo", 2)]
    fewer = Results(lines).difference(ours, grpo, "tracking")
    assert fewer is not None and fewer.count == 2
    assert results.difference(ours, Key("grpo", "dense"), "tracking") is None
    with pytest.raises(ResultsError, match="no line 'none'"):
        Results(lines[1:])


def test_tables(results: Results) -> None:
    said = {name: table(results) for name, table in TABLES.items()}
    for name, text in said.items():
        widths = {line.count("|") for line in text.splitlines()}
        assert len(widths) == 1, name
    assert re.search(r"\| − GRPO \|.* \*\*\+4\.0 ± 0\.0\*\* \|", said["differences"])
    assert re.search(r"\| − SFT model \|.* \*\*\+11\.0 ± 2\.5\*\* \|", said["differences"])
    assert "minus GRPO: QA +0.0 [+0.0, +0.0]" in said["sentence"] and "over 3 seeds" in said["sentence"]
    # tracking gains 11 if it is trained on and 0 if not; without it math, and so QA, gained up to 2 more
    (row,) = (line for line in said["left_out"].splitlines() if line.startswith("| tracking"))
    assert row.startswith("| tracking | 30.0 | **+11.0 ± 2.5** | +0.0 ± 0.0 | −0.1 ± ")
    (row,) = (line for line in said["left_out_reward"].splitlines() if line.startswith("| tracking"))
    assert row.startswith("| tracking | 0.900 | **+0.110 ± 0.025** | +0.000 ± 0.000 | −0.001 ± ")
    # 40 records of choice and math, of which none changes; 60 of the others, of which tracking's 20 gain 11
    (row,) = (line for line in said["transfer"].splitlines() if line.startswith("| mixed"))
    assert row == "| mixed | +0.0 ± 0.0 | +0.000 ± 0.000 | **+3.7 ± 0.8** | **+0.037 ± 0.008** |"
    assert "| sparse | − SFT model | +0.0 ± 0.0 | +0.000 ± 0.000 |" in said["mixtures"]
    assert (
        "| tracking | 30.0 | +0.0 ± 0.0 | 100.0 | +0.0 ± 0.0 | 0.900 | +0.000 ± 0.000 |"
        in said["never_trained"]
    )
    assert "| decay 0.9 |" in said["sensitivity"] and "| sparse | − GRPO | " in said["mixtures"]
    assert said["learning_rates"].splitlines()[0] == "| gain of RL, mean of families | 0.0005 | 0.001 |"
    line = Results(made_up.study()).runs[Key("grpo")][0]
    expected = np.mean([made_up.line("grpo", seed, {})["curves"]["entropy"][-2:] for seed in range(3)])
    assert line["curves"].keys().isdisjoint({"prompts_drawn", "grad_norm"})
    assert f"| GRPO | – | – | {expected:.3f} |" in said["budget"]
    alone = Results(made_up.study()[:1])
    for name in (
        *("budget", "left_out", "left_out_reward", "never_trained"),
        *("sensitivity", "learning_rates", "mixtures", "transfer"),
    ):
        assert TABLES[name](alone).startswith("_No ")
    assert sentence(alone).startswith("_No runs")


def test_a_change_is_bold_where_it_is_sure() -> None:
    assert change(estimate([0.010, 0.011, 0.012]), "accuracy") == "**+1.1 ± 0.2**"
    assert change(estimate([-0.02, 0.01]), "accuracy").startswith("−0.5 ± ")
    assert (change(estimate([-0.25]), "reward"), change(None, "reward")) == ("−0.250", "–")


def test_pictures_are_the_same_bytes_and_whole(tmp_path: Path) -> None:
    """Each picture of each kind, twice; small, of valid XML, with a name for every arm."""
    parts = [f"<!-- made: {kind} trials -->\n<!-- end -->" for kind in report.PICTURES]
    parts += [f"<!-- made: {kind} gradients -->\n<!-- end -->" for kind in report.GRADIENT_PICTURES]
    for name, lines in (("trials", made_up.study()), ("gradients", made_up.gradients())):
        (tmp_path / f"{name}.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    first, second = (make_report("\n".join(parts), tmp_path) for _ in range(2))
    assert first == second and len(first.pictures) == len(parts)
    for name, text in first.pictures.items():
        ElementTree.fromstring(text)
        assert len(text) < 60_000 and f"](results/{name})" in first.text
        assert "<dc:date>" not in text
    for name in ("trials_reward_curves.svg", "trials_difference_bars.svg", "gradients_gradient_bars.svg"):
        assert "Dr. GRPO" in first.pictures[name]


def test_a_running_mean_leaves_out_what_is_missing() -> None:
    values = np.array([[1.0, np.nan, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0]])
    assert running_mean(values)[0, :3].tolist() == [1.0, 3.0, 3.5]


def test_results_are_taken_in(tmp_path: Path) -> None:
    """Compact, a run's newer line in the place of its older one, lines of other runs kept."""
    file = tmp_path / "out.jsonl"
    lines = made_up.study(1)
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert take_in("trials", file, tmp_path / "results") == len(lines)
    newer = made_up.line("grpo", 0, {"math (video)": 0.9})
    file.write_text(f"{json.dumps(newer)}\n{json.dumps(made_up.line('grpo', 5, {}))}\n")
    take_in("trials", file, tmp_path / "results")
    found = [json.loads(line) for line in (tmp_path / "results" / "trials.jsonl").read_text().splitlines()]
    assert [line["run"] for line in found] == [*(line["run"] for line in lines), "mixed-grpo-0.0005-seed_5"]
    by_name = {line["run"]: line for line in found}
    assert by_name["mixed-grpo-0.0005-seed_0"]["heldout"] == newer["heldout"]
    assert set(by_name["mixed-grpo-0.0005-seed_0"]["curves"]) == {
        "reward",
        "entropy",
        "sigma/math",
        "sigma/tracking",
    }
    assert by_name["sparse-grpo-0.0005-seed_0"]["curves"] == {}
    with pytest.raises(FileNotFoundError, match="nowhere"):
        take_in("trials", tmp_path / "nowhere", tmp_path)


def test_parts_of_the_document(tmp_path: Path) -> None:
    text = "before\n<!-- made: differences trials -->\nold\n<!-- end -->\nafter\n"
    made = make_report(text, tmp_path)
    assert made.text == text.replace("old", "_No results in trials.jsonl yet._")
    with pytest.raises(ReportError, match=r"unknown part 'diferences'.*did you mean 'differences'"):
        make_report(text.replace("differences", "diferences"), tmp_path)
