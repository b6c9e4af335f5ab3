"""What the processor would refuse of a record is refused where it is read, with the file's name; words for media."""

import json
import logging
import random
import shutil
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from onethinker_jax.data_pipeline.annotate.teacher_prompt import SentMedia, request_messages
from onethinker_jax.data_pipeline.check.__main__ import CheckSettings, check
from onethinker_jax.data_pipeline.check.__main__ import main as check_main
from onethinker_jax.data_pipeline.drawing.views import view_record
from onethinker_jax.data_pipeline.media.media_file import MediaFile
from onethinker_jax.data_pipeline.media.reading.media_reader import MediaReader
from onethinker_jax.data_pipeline.processor.processor import Processor
from onethinker_jax.data_pipeline.processor.tokenizer import SPECIAL_TOKENS
from onethinker_jax.data_pipeline.records.conversation import (
    RESERVED_TOKENS,
    Part,
    media_kinds,
    split_media,
    words_of,
)
from onethinker_jax.data_pipeline.records.record import Purpose, Record, RecordError, read_records
from onethinker_jax.data_pipeline.records.record_archive import open_records
from tests.data_pipeline.making import rl_row, sft_row, write_image, write_rows, write_tokenizer

POINTS = "[[0.1, 0.2], [0.3, 0.4], [0.5, 1]]"


def turns(*contents: str, roles: str = "uaua") -> dict[str, Any]:
    names = {"u": "user", "a": "assistant", "s": "system"}
    messages = [{"role": names[r], "content": c} for r, c in zip(roles, contents, strict=False)]
    return {**sft_row(), "messages": messages}


def media_row(**changes: Any) -> dict[str, Any]:
    return rl_row(images=..., answer=..., path="a.png", solution="A", **changes)


# What is wrong -> row, its field and what is said of it, and whether `Processor` can find it too.
BAD: dict[str, tuple[dict, str, bool]] = {
    **{
        f"{token} in a question": (
            rl_row(problem=f"<image>a{token}b"),
            f"problem: holds the reserved token {token}",
            True,
        )
        for token in RESERVED_TOKENS
    },
    "a token in an option": (
        rl_row(options=["A. x", "B. <|image_pad|>"]),
        "options[1]: holds the reserved token <|image_pad|>",
        True,
    ),
    "a token in a user's turn": (
        turns("<image><|vision_start|>", "b"),
        "messages[0].content: holds the reserved token <|vision_start|>",
        True,
    ),
    "a token in an answer": (
        turns("<image>", "b<|im_end|>"),
        "messages[1].content: holds the reserved token <|im_end|>",
        True,
    ),
    "a token in a system turn": (
        turns("<|endoftext|>", "<image>", "b", roles="sua"),
        "messages[0].content: holds the reserved token <|endoftext|>",
        True,
    ),
    "media in an option": (
        rl_row(options=["A. <image>", "B. x"]),
        "options[0]: <image> in an option",
        True,
    ),
    "the only media in an option": (
        rl_row(problem="Which?", options=["A. <image>", "B. x"]),
        "options[0]: <image> in an option",
        False,
    ),
    "media in an option of an evaluation row": (
        media_row(problem="Which?", options=["A. <image>", "B. x"]),
        "options[0]: <image> in an option",
        True,
    ),
    "media in an answer": (
        turns("What?", "It is <image>."),
        "messages[1].content: <image> in a turn of the assistant",
        True,
    ),
    "media in an earlier answer": (
        turns("What?", "<image>", "And?", "b"),
        "messages[1].content: <image> in a turn of the assistant",
        True,
    ),
    "media in a system turn": (
        turns("<image>", "What?", "b", roles="sua"),
        "messages[0].content: <image> in a turn of the system",
        True,
    ),
    "too many media": (rl_row(problem="<image><image>?"), "problem: 2 <image> for 1 image files", True),
    "no media": (rl_row(problem="?"), "problem: 0 <image> for 1 image files", False),
    "another's media": (rl_row(problem="<image><video>?"), "problem: 1 <video> for 0 video files", True),
    "a literal is none": (rl_row(problem="\\<image>?"), "problem: 0 <image> for 1 image files", False),
    "media of messages": (turns("What?", "b"), "messages: 0 <image> for 1 image files", True),
    "an empty answer": (turns("<image>", " \n"), "messages[1].content: is empty", True),
    "an empty earlier answer": (turns("<image>", "", "b", "c"), "messages[1].content: is empty", True),
    "an empty question": (turns("<image>", "a", " ", "c"), "messages[2].content: is empty", True),
    "no answer": (
        turns("<image>", "a", "b"),
        "messages: must hold a user turn and end with an assistant",
        False,
    ),
    "a late system turn": (
        turns("<image>", "Be short.", "b", roles="usa"),
        "messages[1].content: a system turn must be the first",
        True,
    ),
    "an answer first": (
        turns("Hello.", "<image>", "b", roles="aua"),
        "messages: the first turn after the system's must be the user's",
        True,
    ),
    "no text": (rl_row(problem="<image>\ud83d"), "problem: holds half of a surrogate pair", True),
}


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return write_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def processor(directory):
    return Processor.from_pretrained(directory)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prompts")
    write_image(folder / "a.png", 32, 32)
    return folder


def by_hand(row: dict, root) -> Record:
    """The record of a row that no reading has checked."""
    images: list[MediaFile] = [root / "a.png"]
    messages = tuple(row["messages"]) if "messages" in row else None
    problem, options = row.get("problem", ""), tuple(row.get("options", ()))
    kind = row.get("problem_type", "")
    return Record(7, problem, "image", kind, options, "A", tuple(images), (), "", messages)


@pytest.mark.parametrize("name", BAD)
def test_reading_refuses_what_the_processor_would(folder, processor, name):
    row, message, found_by_processor = BAD[name]
    file = write_rows(folder / "rows.json", [rl_row(), row])
    with pytest.raises(RecordError) as caught:
        read_records(file)
    assert str(caught.value).startswith(f"{file}: record 2") and message in str(caught.value)
    if found_by_processor:
        record = by_hand(row, folder)
        make = processor.training if record.messages else processor.prompt
        with pytest.raises(RecordError, match=r"^record 7: "):
            make(record)


FRAGMENTS = (
    "<image>",
    "\\<image>",
    "<video>",
    "\\",
    "word ",
    "<|im_end|>",
    "\n",
    "<think>",
    "<im",
    "age>",
    "<|im_",
    "\0",
)


def test_whatever_is_read_can_be_processed(folder, processor):
    """Rows of random pieces: those that reading takes, prompts and training take too."""
    draw = random.Random(0)
    taken = 0
    for _ in range(600):
        pieces = [
            "".join(draw.choices(FRAGMENTS, weights=[3, 3, 1, 3, 9, 1, 2, 1, 2, 2, 1, 0.5], k=3))
            for _ in range(4)
        ]
        rl = draw.choice([rl_row, media_row])(problem=pieces[0], options=pieces[1:3])
        row = turns(*pieces, roles=draw.choice(["uaua", "suua", "sua"])) if draw.random() < 0.4 else rl
        try:
            (record,) = read_records(write_rows(folder / "row.json", [row]))
        except RecordError:
            continue
        taken += 1
        example = processor.prompt(record)
        if record.messages:
            example = processor.training(record)
            pads = np.isin(example.tokens, (processor.image_token_id, processor.video_token_id))
            assert example.loss_mask.any() and not (example.loss_mask & pads).any()
        assert len(example.grids) == 1
    assert taken > 60


def test_words_that_are_no_media():
    assert split_media("a<image>b\\<video>c") == [Part("text", "a"), Part("image"), Part("text", "b<video>c")]
    assert media_kinds("<video>\\<image><image>") == ["video", "image"]
    assert words_of("\\<image>\\\\<image>\\\\\\<image>") == "<image>\\\\\\\\<image>"
    assert split_media("") == [] and words_of("x \\frac <image> y") == "x \\frac  y"


def test_a_literal_goes_the_whole_way(folder, directory, processor, tmp_path):
    """`\\<image>` is read as the word: in question, option, answer, a teacher's request and on pages."""
    row = rl_row(problem="<image>Is \\<image> or \\<video> a tag?", options=["\\<image>", "\\<video>"])
    sft = turns("<image>Write \\<image>.", "<think>So.</think>\n<answer>\\<image></answer>")
    question, conversation = read_records(write_rows(tmp_path / "rows.json", [row, sft]), media_root=folder)
    text = processor.tokenizer.decode(processor.prompt(question).tokens.tolist())
    assert "<|vision_end|>Is <image> or <video> a tag?\nA. <image>\nB. <video>\n" in text
    example = processor.training(conversation)
    assert (
        processor.decode(example.tokens[example.loss_mask]) == "<think>So.</think>\n<answer><image></answer>"
    )
    assert conversation.answer == "<answer><image></answer>" and len(example.grids) == 1
    asked = json.dumps(request_messages(question, MediaReader(), SentMedia()))
    assert "Is <image> or <video> a tag?" in asked and asked.count("image_url") == 2
    assert view_record(question).question == "Is <image> or <video> a tag?"


def test_pads_are_no_targets_whatever_the_template_does(directory, tmp_path):
    """A template that puts what the user shows into the assistant's turn."""
    for file in directory.iterdir():
        shutil.copy(file, tmp_path / file.name)
    template = (tmp_path / "chat_template.jinja").read_text()
    (tmp_path / "chat_template.jinja").write_text(template.replace("message.role +", "'assistant' +"))
    write_image(tmp_path / "a.png", 64, 64)
    (record,) = read_records(write_rows(tmp_path / "rows.json", [turns("<image>What?", "b")]))
    processor = Processor.from_pretrained(tmp_path)
    example = processor.training(record)
    pads = example.tokens == processor.image_token_id
    assert pads.sum() == 4 and not example.loss_mask[pads].any() and example.loss_mask.sum() > 4


def test_the_list_of_reserved_tokens(processor, directory):
    """Every special token of the tokenizer is reserved: its text, in a message, would be read as structure."""
    tokenizer = json.loads((directory / "tokenizer.json").read_text())
    special = {token["content"] for token in tokenizer["added_tokens"] if token["special"]}
    assert special == set(SPECIAL_TOKENS) and special <= set(RESERVED_TOKENS)
    assert all(len(processor.tokenizer.encode(token)) == 1 for token in special)


# ---------------------------------------------------------------- what a file is for

FULL_SFT = {**sft_row(), "problem": "<image>What is it?", "problem_type": "OCR", "answer": "x"}
PURPOSES: list[tuple[dict, Purpose, str | None]] = [
    (sft_row(), "sft", None),
    (FULL_SFT, "rl", None),
    (FULL_SFT, "heldout", None),
    (rl_row(), "rl", None),
    (media_row(), "heldout", None),
    (rl_row(answer=0, problem_type="numerical"), "rl", None),
    (rl_row(), "sft", "messages: is missing, which SFT needs .is this a file for RL"),
    (sft_row(), "rl", "problem: is missing, which RL needs .is this a file for SFT"),
    (sft_row(), "heldout", "problem: is missing, which held-out records need .is this a file for SFT"),
    ({**FULL_SFT, "problem_type": ...}, "rl", "problem_type: is missing, which RL needs"),
    ({**FULL_SFT, "answer": ...}, "heldout", "answer: is missing, which held-out records need"),
]


@pytest.mark.parametrize("lines", [False, True])
@pytest.mark.parametrize(("row", "purpose", "message"), PURPOSES)
def test_what_a_file_is_for(folder, row, purpose, message, lines):
    row = {name: value for name, value in row.items() if value is not ...}
    good = FULL_SFT
    file = write_rows(folder / "for.json", [good, row], lines=lines)
    assert len(read_records(file)) == 2
    for read in (read_records, open_records):
        if message is None:
            assert len(read(file, purpose=purpose)) == 2
            continue
        with pytest.raises(RecordError, match=rf"for\.json: record 2.*: {message}"):
            read(file, purpose=purpose)
        assert len(read(file, purpose=purpose, on_bad_record="skip")) == 1
    code = check_main([str(file), "--for", purpose, "--no-media", "--out", str(folder / "out")])
    assert code == (0 if message is None else 1)


# ---------------------------------------------------------------- fractions

FRACTIONS = [
    ("spatial grounding", '{"boxes": [0.1, 0.2, 0.5, 1]}', "answer.boxes"),
    (
        "segmentation",
        f'{{"boxes": [1, 2, 5, 9], "positive_points": {POINTS}, "negative_points": {POINTS}}}',
        "answer.p",
    ),
    ("spatial grounding", '{"boxes": [0, 0, 1, 2]}', None),
]


@pytest.mark.parametrize(("problem_type", "answer", "field"), FRACTIONS)
def test_fractions_are_counted_and_read(folder, caplog, problem_type, answer, field):
    rows = [rl_row(problem_type=problem_type, answer=answer, options=[], problem_id=n) for n in range(7)]
    file = write_rows(folder / "boxes.json", [*rows, rl_row()])
    with caplog.at_level(logging.WARNING):
        records = read_records(file)
    assert len(records) == 8 and records[0].doubt.startswith(field or "")
    said = [line.message for line in caplog.records]
    if field is None:
        assert not said
        return
    assert said[0].startswith(f"{file}: record 1 (problem_id 0): {field}") and len(said) == 6
    assert "7 of 8 records look wrong: answer." in said[-1] and said[-1].endswith("is expected (7)")
    with (folder / "console").open("w") as console:
        counts, bad = check(
            CheckSettings((file,), out=folder / "out", media=False), Console(file=console, width=160)
        )
    assert counts.records == 8 and bad.count == 0 and bad.doubts == 7
    assert "looks wrong" in (folder / "console").read_text()
    assert list(json.loads((folder / "out" / "counts.json").read_text())["doubtful"].values()) == [7]
