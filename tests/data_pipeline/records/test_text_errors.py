"""Text that JSON can write and later steps cannot take: refused at reading, wherever in a record it stands."""

import json
import shutil
from typing import Any

import pytest
from rich.console import Console

from onethinker_jax.data_pipeline.annotate.rules import reserved_error
from onethinker_jax.data_pipeline.check.__main__ import CheckSettings, check
from onethinker_jax.data_pipeline.processor.prompts import PromptError, Prompts
from onethinker_jax.data_pipeline.records.record import RecordError, read_records
from onethinker_jax.data_pipeline.records.record_archive import open_records
from onethinker_jax.data_pipeline.records.text_errors import text_error
from onethinker_jax.rewards.metrics import encode_rle
from tests.data_pipeline.making import picture, rl_row, sft_row, write_image, write_rows, write_video
from tests.places import CASES

HALF, OTHER_HALF, NUL = "\ud83d", "\ude00", "\0"
MASK = encode_rle(picture(64, 96)[..., 0] > 99)


def segmentation_row() -> dict[str, Any]:
    return {
        **rl_row(images=..., answer=..., options=[], problem_type="segmentation", problem="Find it."),
        "data_type": "video",
        "path": "v.mp4",
        "solution": "",
        "fps": 4,
        "resolution": {"width": 96, "height": 64},
        "segmentation_output": {"segmentation_rle": {"0": MASK, "1": MASK}, "frames": ["0", "1"]},
    }


ROWS = {
    "rl": rl_row(note={"of": ["a teacher", {"model": "x"}]}),
    "sft": sft_row(problem_id="a"),
    "evaluation": rl_row(images=..., answer=..., path="a.png", solution="A"),
    "segmentation": segmentation_row(),
}


def texts(value: Any, path: tuple = ()) -> list[tuple[tuple, bool]]:
    """The position of every text in a row, and whether it is a key."""
    if isinstance(value, str):
        return [(path, False)]
    if isinstance(value, list):
        return [found for n, inner in enumerate(value) for found in texts(inner, (*path, n))]
    if isinstance(value, dict):
        keys = [((*path, key), True) for key in value]
        return keys + [found for key, inner in value.items() for found in texts(inner, (*path, key))]
    return []


def spoiled(value: Any, path: tuple, is_key: bool, bad: str) -> Any:
    """The row with `bad` in the middle of the text at this position."""
    if not path:
        return value[: len(value) // 2] + bad + value[len(value) // 2 :]
    first, *rest = path
    if isinstance(value, list):
        return [spoiled(v, tuple(rest), is_key, bad) if n == first else v for n, v in enumerate(value)]
    if is_key and not rest:
        return {key + bad if key == first else key: inner for key, inner in value.items()}
    return {k: spoiled(v, tuple(rest), is_key, bad) if k == first else v for k, v in value.items()}


def named(path: tuple, is_key: bool) -> str:
    """How errors name the position."""
    path = path[:-1] if is_key else path
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


POSITIONS = [(kind, *position) for kind, row in ROWS.items() for position in texts(row)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    write_image(folder / "a.png")
    write_image(folder / "a.bmp")
    write_video(folder / "v.mp4", [0.0, 0.25, 0.5])
    return folder


def test_every_text_of_a_record(folder):
    """Each text and key of each layout in turn, in a list and in JSON lines, with every character there is none of."""
    assert len(POSITIONS) > 80
    for number, (kind, path, is_key) in enumerate(POSITIONS):
        bad = (HALF, NUL, OTHER_HALF, OTHER_HALF + HALF)[number % 4]
        rows = [rl_row(), spoiled(ROWS[kind], path, is_key, bad)]
        file = write_rows(folder / "rows.json", rows, lines=number % 2 == 1)
        with pytest.raises(RecordError) as caught:
            read_records(file)
        said = str(caught.value)
        assert said.startswith(f"{file}: record 2"), said
        where = named(path, is_key)
        assert f": {where}{': ' if where and is_key else ''}{'its key ' if is_key else ': holds '}" in said, (
            said
        )
        assert said.isprintable() and ("NUL" in said if bad == NUL else "half of a surrogate pair" in said)


def test_whole_pairs_and_other_letters_are_read(folder):
    text = "\U0001f600 é \u2028 \ufeff \x1b[31m \uffff"
    file = folder / "good.json"
    file.write_text(json.dumps([rl_row(problem=f"<image>{text}", data_source=text)]))  # pairs as two escapes
    assert read_records(file)[0].problem == f"<image>{text}"


@pytest.mark.parametrize(
    ("case", "field"),
    [
        ("sur_bad", "problem"),
        ("sur_ocr", "answer"),
        ("sur_open", "answer"),
        ("lone_surrogate", "problem"),
    ],
)
def test_cases(folder, case, field):
    file = folder / f"{case}.json"
    shutil.copy(CASES / file.name, file)
    message = (
        rf"{case}\.json: record 2 .problem_id 2.: {field}: holds half of a surrogate pair, .ud83d, at char"
    )
    with pytest.raises(RecordError, match=message):
        read_records(file)
    assert [record.problem_id for record in read_records(file, on_bad_record="skip")] == [1]
    lines = [json.loads(line) for line in (folder / f"{case}.json.quarantine.jsonl").read_text().splitlines()]
    rows = json.loads(file.read_text())
    assert [line["row"] for line in lines] == rows[1:] and all(line["reason"].isprintable() for line in lines)
    if case == "lone_surrogate":
        assert "options[0]: <image> in an option" in lines[1]["reason"]
        assert "problem: holds the reserved token <|im_end|>" in lines[2]["reason"]


def test_large_files_and_check(folder):
    """A file that does not stay in memory, and `check`, whose page, counts and bad.jsonl take every text."""
    rows = [rl_row(problem_id=n, data_source=f"\x1b[2J[/b] {n}\n") for n in range(3)]
    rows += [
        rl_row(problem_id=HALF),
        {HALF: HALF},
        rl_row(images=["a\0.png"]),
        rl_row(problem_id="a\nb", answer="C"),
    ]
    file = write_rows(folder / "[bold] [many].json", rows)
    with pytest.raises(RecordError, match=r"record 4 .problem_id .ud83d.: problem_id: holds half"):
        open_records(file)
    out = folder / "out [" / "b]"  # as text, a closing tag of Rich's markup
    with (folder / "console").open("w", encoding="ascii", errors="backslashreplace") as console:
        counts, bad = check(CheckSettings((file,), out=out, workers=1), Console(file=console, width=200))
    assert (counts.records, bad.count) == (3, 4)
    kept = [json.loads(line) for line in (out / "bad.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["row"] for line in kept] == rows[3:] and kept[3]["reason"].count("a\\nb") == 1
    page, said = (out / "index.html").read_text(encoding="utf-8"), (folder / "console").read_text()
    assert "\\x1b[2J[/b]" in page and "\\x1b[2J[/b] 0\\n" in said and "\x1b[2J" not in page + said


def test_deep_values_need_no_stack():
    value: Any = HALF
    for _ in range(5000):
        value = [value]
    assert text_error({"a": value}) and text_error([{"a": ["b", 1, None]}]) is None


def test_prompts_and_teachers():
    with pytest.raises(PromptError, match=r"mine: default .*: holds half of a surrogate pair"):
        Prompts({"default": "{question}" + HALF, "multiple choice": "{question}{options}"}, "mine")
    with pytest.raises(PromptError, match=r"mine: default .*: holds the reserved token <\|im_start\|>"):
        Prompts({"default": "{question}<|im_start|>", "multiple choice": "{question}{options}"}, "mine")
    assert "surrogate" in (reserved_error(f"<think>{HALF}</think>") or "")
