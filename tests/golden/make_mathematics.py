"""What math-verify and mathruler say of the pairs in mathematics.tsv, written into its last two columns.

    pip install mathruler==0.1.0 pylatexenc tqdm math-verify   # into an environment of its own
    python tests/golden/make_mathematics.py

Answer, truth and "equal" are written by hand; only the verdicts of the two libraries are made here. math-verify is
given what its users give it: a text with dollar signs or a box as it stands, any other between dollar signs. "error"
is a library that raised. The test needs neither this script nor mathruler.
"""

import csv
import logging
import sys
from pathlib import Path

import math_verify
from mathruler.grader import grade_answer  # pyright: ignore[reportMissingImports]

TABLE = Path(__file__).parent / "mathematics.tsv"


def by_math_verify(answer: str, truth: str) -> bool:
    marked = [
        text if "\\boxed" in text or text.count("$") > 1 or "\\(" in text or "\\[" in text else f"${text}$"
        for text in (truth, answer)
    ]
    gold, target = (math_verify.parse(text) for text in marked)
    return math_verify.verify(gold, target)


def verdict(judge, answer: str, truth: str) -> str:
    try:
        return "yes" if judge(answer, truth) else "no"
    except Exception as error:  # noqa: BLE001 -- whatever a library raises is what it says
        sys.stderr.write(f"{judge.__name__}({answer!r}, {truth!r}): {type(error).__name__}\n")
        return "error"


def main() -> None:
    logging.disable(logging.CRITICAL)
    with TABLE.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    for row in rows:
        row["math_verify"] = verdict(by_math_verify, row["answer"], row["truth"])
        row["mathruler"] = verdict(grade_answer, row["answer"], row["truth"])
    with TABLE.open("w", encoding="utf-8", newline="") as file:
        names = list(rows[0])
        for cells in [names, *([row[name] for name in names] for row in rows)]:
            file.write("\t".join(cells) + "\n")
    for judge in ("math_verify", "mathruler"):
        right = sum(row[judge] == row["equal"] for row in rows)
        sys.stdout.write(f"{judge}: {right} of {len(rows)} right\n")


if __name__ == "__main__":
    main()
