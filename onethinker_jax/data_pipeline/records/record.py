"""OneThinker's JSON files -> typed, strictly checked records.

Three layouts are read, as the released data has them: RL (`problem`, `answer`, `images` or `videos`),
SFT (`messages`, `images` or `videos`) and evaluation (`path`, `solution`, segmentation masks as COCO
RLE), each as a JSON list or as JSON lines. Every error of a record is a one-line `RecordError` that
names the file, the record and the field; nothing is repaired silently. What `Processor` would refuse of a
record is refused here already, by the same function (`conversation_error`).
"""

import difflib
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from onethinker_jax.answer_forms import finite_number
from onethinker_jax.data_pipeline.media.frame_folder import FrameFolder
from onethinker_jax.data_pipeline.media.media_file import MediaFile, MediaFolder
from onethinker_jax.data_pipeline.media.picture_header import picture_header
from onethinker_jax.data_pipeline.records.bad_records import BadRecords, OnBadRecord
from onethinker_jax.data_pipeline.records.conversation import Turn, conversation_error, media_kinds, words_of
from onethinker_jax.data_pipeline.records.ground_truth import answer_doubt, answer_error
from onethinker_jax.data_pipeline.records.json_rows import BrokenRow, JsonRows, RecordError
from onethinker_jax.data_pipeline.records.text_errors import text_error
from onethinker_jax.data_pipeline.records.true_masks import TrueMasks, parse_masks, rate
from onethinker_jax.tasks import PROBLEM_TYPES, TABLE, Task
from onethinker_jax.text_output import one_line

__all__ = ["Purpose", "Record", "RecordError", "iter_records", "read_records", "task_of"]

Purpose = Literal["sft", "rl", "heldout"]
"""What a file is for: SFT needs messages; RL and held-out answers need a problem type and a true answer."""

logger = logging.getLogger(__name__)

_TAGS = re.compile(r"</?answer>")
_TAGGED = re.compile(r"<answer>.*?</answer>", re.DOTALL)


@dataclass(frozen=True, eq=False)
class Record:
    """One question with its media and, where known, its true answer. Compared by identity."""

    problem_id: int | str
    problem: str
    data_type: (
        str  # "image", "video", or "text" without media; "video-image" in evaluation files that have both
    )
    problem_type: str  # one of PROBLEM_TYPES; "" in an SFT row that does not say
    options: tuple[str, ...]
    answer: str  # ground truth, "<answer>...</answer>"; "" where the file has none
    images: tuple[MediaFile, ...]
    videos: tuple[MediaFile, ...]
    data_source: str
    messages: tuple[dict, ...] | None = None  # SFT rows: {"role", "content"}, <image> and <video> in content
    segmentation: TrueMasks | None = None  # evaluation rows
    origin: str = ""  # "file: record 7 (problem_id 9)"
    doubt: str = ""  # what looks wrong and may be meant: "answer.boxes: ..."
    lacks: tuple[
        str, ...
    ] = ()  # of "problem", "problem_type", "answer", what an SFT row has in messages at most

    def __str__(self) -> str:
        return self.origin or f"record {self.problem_id}"


def task_of(record: Record) -> Task:
    """The record's task; "messages (image)" and so on if it has no type."""
    return Task.of(record.problem_type, record.data_type)


def read_records(
    path: str | Path,
    *,
    media_root: str | Path | None = None,
    purpose: Purpose | None = None,
    on_bad_record: OnBadRecord = "raise",
    quarantine: str | Path | None = None,
) -> list[Record]:
    """Reads and checks a record file, a JSON list or JSON lines.

    Args:
        path: the file.
        media_root: folder that media paths are relative to; default: the file's own.
        purpose: what the records are for; one that does not serve it is bad. Default: any layout is taken.
        on_bad_record: "raise" stops at the first bad record; "skip" leaves bad records out, logs how
            many, and writes each with its reason to the quarantine file.
        quarantine: JSON lines file for skipped records, made anew; default: `<path>.quarantine.jsonl`.

    Raises RecordError: the file is missing, is not JSON, holds no good record; or, with "raise", any record is
    malformed or names a missing media file.
    """
    rows = JsonRows(path)
    return list(
        checked_records(
            rows,
            media_root=media_root,
            purpose=purpose,
            on_bad_record=on_bad_record,
            quarantine=quarantine,
        )
    )


def checked_records(
    rows: JsonRows,
    *,
    media_root: str | Path | None = None,
    purpose: Purpose | None = None,
    on_bad_record: OnBadRecord = "raise",
    quarantine: str | Path | None = None,
) -> Iterator[Record]:
    """The same one at a time, `rows.position` telling where each lies; errors are raised while iterating."""
    path = rows.path
    target = Path(quarantine) if quarantine else path.with_name(path.name + ".quarantine.jsonl")
    bad = BadRecords(on_bad_record, target)
    if bad.skips:
        target.unlink(missing_ok=True)  # left by an earlier reading of the same file
    good = 0
    for record in iter_records(rows, media_root=media_root, purpose=purpose, bad=bad):
        good += 1
        yield record
    if bad.count:
        logger.warning("%s: skipped %d of %d records, see %s", path, bad.count, bad.count + good, target)
    if bad.doubts:
        logger.warning("%s: %d of %d records look wrong: %s", path, bad.doubts, good, bad.doubts_text())
    if not good:
        raise RecordError(f"{path}: holds no {'good ' if bad.count else ''}record")


def iter_records(
    path: str | Path | JsonRows,
    *,
    media_root: str | Path | None = None,
    purpose: Purpose | None = None,
    bad: BadRecords | None = None,
    check_media: bool = True,
) -> Iterator[Record]:
    """The records of a file one at a time, checked: a file of any size takes the memory of a few rows.

    Args:
        path: the file, or its rows, whose `bytes_read` then tells how far the reading is.
        media_root: folder that media paths are relative to; default: the file's own.
        purpose: as in `read_records`.
        bad: where bad records go, and what looks wrong is said; default: bad records are raised.
        check_media: False where answers are only scored and no model is asked: media files need not be there, and
            a choice's options may stand in its question.

    Raises (while iterating):
        RecordError: the file is missing or is not JSON; or a record is bad and `bad` raises it.
    """
    rows = path if isinstance(path, JsonRows) else JsonRows(path)
    root = rows.path.parent if media_root is None else Path(media_root)
    bad = bad or BadRecords()
    for number, row in rows:
        try:
            record = parse_record(
                row, root, file=rows.path, number=number, purpose=purpose, check_media=check_media
            )
        except RecordError as error:
            kept = row.text if isinstance(row, BrokenRow) else row
            bad.report(error, file=str(rows.path), record=number, row=kept)
            continue
        if record.doubt:
            bad.doubt(record.doubt, record.origin)
        yield record


def parse_record(
    row: Any,
    root: MediaFolder,
    *,
    file: Path,
    number: int,
    purpose: Purpose | None = None,
    check_media: bool = True,
) -> Record:
    """The record of one row, the number'th of a file; its media paths are relative to `root`.

    `purpose` and `check_media` are as in `iter_records`.

    Raises RecordError: it is malformed, or names media that are not there.
    """
    identity = row.get("problem_id") if isinstance(row, dict) else None
    origin = f"{file}: record {number}"
    if isinstance(identity, (int, str)):
        origin += f" (problem_id {one_line(str(identity))[:100]})"
    try:
        if isinstance(row, BrokenRow):
            raise RecordError(row.reason)
        record = record_of_row(row, root, origin, check_media=check_media)
        if error := purpose_error(record, purpose):
            raise RecordError(error)
        return record
    except RecordError as error:
        raise RecordError(f"{origin}: {error}") from None


def record_of_row(row: Any, root: MediaFolder, origin: str, *, check_media: bool = True) -> Record:
    """The record of one row in OneThinker's layout; `origin` names the row.

    `check_media` is as in `iter_records`.

    Raises RecordError, its text "field: error": it is malformed.
    """
    if not isinstance(row, dict):
        raise RecordError(f"must be an object, is a {type(row).__name__}")
    if error := text_error(row):
        raise RecordError(error)
    images, videos = _media(row, root, check=check_media)
    messages = _messages(row)
    data_type = _data_type(row, images, videos, default="text" if messages else "")
    problem_type = _field(row, "problem_type", str, "" if messages else None)
    if problem_type not in PROBLEM_TYPES and (problem_type or not messages):
        close = difflib.get_close_matches(problem_type, PROBLEM_TYPES, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(PROBLEM_TYPES)}"
        raise RecordError(f"problem_type: unknown {problem_type!r} ({hint})")
    if problem_type and data_type != "video-image" and data_type not in TABLE[problem_type].media:
        raise RecordError(f"data_type: {problem_type} has no {data_type!r} form")
    options = _field(row, "options", list, [])
    if not all(isinstance(option, str) and option.strip() for option in options):
        raise RecordError("options: must be a list of strings that are not empty")
    if len(options) > 26:
        raise RecordError(f"options: has {len(options)}, more than there are letters")
    lettered = bool(problem_type) and TABLE[problem_type].answer == "letter"
    if lettered and check_media and not messages and len(options) < 2:
        raise RecordError(f"options: {problem_type} needs at least 2, has {len(options)}")

    if messages:
        problem = _field(row, "problem", str, next(m["content"] for m in messages if m["role"] == "user"))
        turns = [Turn(f"messages[{n}].content", m["role"], m["content"]) for n, m in enumerate(messages)]
        error = conversation_error(turns, len(images), len(videos))
    else:
        problem = _field(row, "problem", str)
        turns = [Turn("problem", "user", problem)]
        turns += [Turn(f"options[{number}]", "option", option) for number, option in enumerate(options)]
        # Evaluation questions name no media; the prompt puts them first.
        prompt_puts_media = "path" in row and not media_kinds(problem)
        files = (0, 0) if prompt_puts_media else (len(images), len(videos))
        error = conversation_error(turns, *files, whole="problem")
    if error:
        raise RecordError(error)
    segmentation = _segmentation(row, images, videos)
    answer = _answer(row, problem_type, data_type, tuple(options), messages, segmentation)
    return Record(
        problem_id=_field(row, "problem_id", (int, str), ""),
        problem=problem,
        data_type=data_type,
        problem_type=problem_type,
        options=tuple(options),
        answer=answer,
        images=images,
        videos=videos,
        data_source=_field(row, "data_source", str, ""),
        messages=messages,
        segmentation=segmentation,
        origin=origin,
        doubt=answer_doubt(answer, problem_type, data_type),
        lacks=_lacks(row, segmentation),
    )


def _segmentation(row: dict, images: tuple, videos: tuple) -> TrueMasks | None:
    if row.get("segmentation_output") is None:
        return None
    if not images and not videos:
        raise RecordError("segmentation_output: there is no image or video that its masks could be of")
    header = picture_header(videos[0], "video") if videos else picture_header(images[0], "image")
    return parse_masks(row, header, video=bool(videos))


def purpose_error(record: Record, purpose: Purpose | None) -> str | None:
    """Why a record does not serve what its file is for, as "field: error"; None if it does."""
    if purpose == "sft" and record.messages is None:
        return "messages: is missing, which SFT needs (is this a file for RL?)"
    if purpose in ("rl", "heldout") and record.lacks:
        needs = "RL needs" if purpose == "rl" else "held-out records need"
        hint = " (is this a file for SFT?)" if record.messages else ""
        return f"{record.lacks[0]}: is missing, which {needs}{hint}"
    return None


def _lacks(row: dict, segmentation: TrueMasks | None) -> tuple[str, ...]:
    """What only a row with messages may lack."""
    has_answer = segmentation is not None or any(row.get(name) is not None for name in ("answer", "solution"))
    there = {"problem": row.get("problem"), "problem_type": row.get("problem_type"), "answer": has_answer}
    return tuple(name for name, value in there.items() if not value)


def _field(row: dict, name: str, kind: type | tuple[type, ...], default: Any = None) -> Any:
    value = row.get(name)
    if value is None:
        if default is None:
            raise RecordError(f"{name}: is missing")
        return default
    if not isinstance(value, kind) or isinstance(value, bool):
        names = " or ".join(k.__name__ for k in (kind if isinstance(kind, tuple) else (kind,)))
        raise RecordError(f"{name}: must be {names}, is {type(value).__name__}")
    return value


# What `path` and `additional_path` of an evaluation row are.
_PATHS = {"image": ("image",), "video": ("video",), "video-image": ("video", "image"), "text": ()}


def _media(
    row: dict, root: MediaFolder, *, check: bool
) -> tuple[tuple[MediaFile, ...], tuple[MediaFile, ...]]:
    """Paths of images and videos from `images`, `videos`, or an evaluation row's `path`s; `check`: all must exist."""
    found: dict[str, list[MediaFile]] = {"image": [], "video": []}
    sources = [("images", "image"), ("videos", "video")]
    data_type = row.get("data_type")
    kinds = _PATHS.get(data_type) if isinstance(data_type, str) else None
    for number, field in enumerate(("path", "additional_path")):
        if kinds is None or not row.get(field):
            continue  # what is wrong with the data type is said by `_data_type`
        if number >= len(kinds):
            raise RecordError(f"{field}: names media, but data_type is {data_type!r}")
        sources.append((field, kinds[number]))
    for field, kind in sources:
        value = row.get(field)
        entries = [value] if isinstance(value, str) else [] if value is None else value
        if not isinstance(entries, list) or not all(isinstance(e, str) and e for e in entries):
            raise RecordError(f"{field}: must be a path or a list of paths")
        for entry in entries:
            file = root / entry
            try:
                if kind == "video" and isinstance(file, Path) and file.is_dir():
                    file = _film(file, row, field)
                there = not check or file.is_file()
            except OSError as error:  # a name that is too long, a folder that may not be entered
                raise RecordError(f"{field}: {entry[:200]} cannot be looked up ({error.strerror})") from None
            if not there:
                raise RecordError(f"{field}: no such file {file}")
            found[kind].append(file)
    return tuple(found["image"]), tuple(found["video"])


def _film(folder: Path, row: dict, field: str) -> FrameFolder:
    """A folder of frames as a video."""
    fps = rate(row)
    if fps is None:
        raise RecordError(f"{field}: {folder} is a folder of frames, which needs fps")
    return FrameFolder(folder, float(fps))


def _data_type(row: dict, images: tuple, videos: tuple, *, default: str) -> str:
    """`default` is that of a row that has no media and does not say; "": it must say."""
    if row.get("data_type") is None and row.get("path"):
        raise RecordError("data_type: is missing, which tells what path is")
    held = "video-image" if images and videos else "video" if videos else "image" if images else "text"
    if row.get("data_type") is None and held == "text" and not default:
        raise RecordError("data_type: is missing (that of a question without media is 'text')")
    data_type = _field(row, "data_type", str, held)
    if data_type not in ("image", "video", "video-image", "text"):
        raise RecordError(f"data_type: unknown {data_type!r} (known: image, video, video-image, text)")
    if held == "text" and data_type != "text":
        raise RecordError(f"{'videos' if data_type == 'video' else 'images'}: no media given")
    if data_type != held:
        raise RecordError(f"data_type: is {data_type!r}, but the media are {held!r}")
    return data_type


def _messages(row: dict) -> tuple[dict, ...] | None:
    if row.get("messages") is None:
        return None
    messages = _field(row, "messages", list)
    for position, message in enumerate(messages):
        if not isinstance(message, dict) or not all(
            isinstance(message.get(k), str) for k in ("role", "content")
        ):
            raise RecordError(f"messages[{position}]: must have a role and a content, both strings")
        if message["role"] not in ("system", "user", "assistant"):
            raise RecordError(f"messages[{position}].role: unknown {message['role']!r}")
    roles = [message["role"] for message in messages]
    if "user" not in roles or roles[-1] != "assistant":
        raise RecordError("messages: must hold a user turn and end with an assistant turn")
    return tuple({"role": m["role"], "content": m["content"]} for m in messages)


def _answer(
    row: dict, problem_type: str, data_type: str, options: tuple[str, ...], messages: Any, segmentation: Any
) -> str:
    """The answer in its tags, checked against what the problem type needs."""
    name = "solution" if "solution" in row and "answer" not in row else "answer"
    value = row.get(name)
    if finite_number(value) is not None:
        value = str(value)
    if value is None and messages:
        found = _TAGGED.findall(words_of(messages[-1]["content"]))
        if not found:
            return ""
        name, value = "messages[-1]: answer", found[-1]
    if segmentation and (value is None or (isinstance(value, str) and not value.strip())):
        return ""  # evaluation compares masks
    if value is None:
        raise RecordError(f"{name}: is missing")
    if not isinstance(value, str) or not value.strip():
        raise RecordError(f"{name}: must be a text that is not empty")
    value = value.strip()
    tags = _TAGS.findall(value)
    if tags and tags != ["<answer>", "</answer>"]:
        raise RecordError(f"{name}: its <answer> tags must be one pair, are {' '.join(tags):.60}")
    inner = value[value.index("<answer>") + 8 : value.index("</answer>")].strip() if tags else value
    error = None if segmentation and not inner else answer_error(inner, problem_type, data_type, options)
    if error:
        part, colon, rest = error.partition(": ")
        keys = {one.key for one in TABLE[problem_type].parts} if problem_type else set()
        raise RecordError(f"{name}.{part}: {rest}" if colon and part in keys else f"{name}: {error}")
    return value if tags else f"<answer>{value}</answer>"
