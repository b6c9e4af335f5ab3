"""OneThinker's JSON files -> typed, strictly checked records.

Three layouts are read, as the released data has them: RL (`problem`, `answer`, `images` or `videos`),
SFT (`messages`, `images` or `videos`) and evaluation (`path`, `solution`, segmentation masks as COCO
RLE), each as a JSON list or as JSON lines. Every fault of a record is a one-line `RecordError` that
names the file, the record and the field; nothing is repaired silently.
"""

import difflib
import json
import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

logger = logging.getLogger(__name__)

_TEXT_TYPES = ("multiple choice", "numerical", "regression", "OCR", "math", "open-ended")
_DATA_TYPES = {
    **dict.fromkeys(_TEXT_TYPES, ("image", "video")),
    "temporal grounding": ("video",),
    "spatial grounding": ("image",),
    "spatial-temporal grounding": ("video",),
    "tracking": ("video",),
    "segmentation": ("image", "video"),
}
PROBLEM_TYPES: tuple[str, ...] = tuple(_DATA_TYPES)
TASKS: tuple[str, ...] = tuple(f"{p} ({d})" for p, kinds in _DATA_TYPES.items() for d in kinds)

_ANSWER = re.compile(r"<answer>.*</answer>", re.DOTALL)
_PLACEHOLDER = re.compile(r"<image>|<video>")
# What the answer's JSON must hold, by problem type; "box" is four numbers, "boxes" a dict of them.
_ANSWER_FIELDS = {
    "temporal grounding": {"time": "span"},
    "spatial grounding": {"boxes": "box"},
    "spatial-temporal grounding": {"time": "span", "boxes": "boxes"},
    "tracking": {"boxes": "boxes"},
    "segmentation": {"boxes": "box", "positive_points": "points", "negative_points": "points"},
}


class RecordError(ValueError):
    """A malformed record or record file. One line: file, record, field, what is wrong."""


@dataclass(frozen=True, eq=False)
class Record:
    """One question with its media and, where known, its true answer. Compared by identity."""

    problem_id: int | str
    problem: str
    data_type: str  # "image" or "video"; "video-image" in evaluation files that have both
    problem_type: str  # one of PROBLEM_TYPES; "" in an SFT row that does not say
    options: tuple[str, ...]
    answer: str  # ground truth, "<answer>...</answer>"; "" where the file has none
    images: tuple[Path, ...]
    videos: tuple[Path, ...]
    data_source: str
    messages: tuple[dict, ...] | None = None  # SFT rows: {"role", "content"}, <image> and <video> in content
    segmentation: dict | None = None  # evaluation rows: masks as RLE, resolution, fps


def task_of(record: Record) -> str:
    """The record's task: "segmentation (video)", "OCR (image)" ...; "messages (image)" if it has no type."""
    return f"{record.problem_type or 'messages'} ({'image' if record.data_type == 'image' else 'video'})"


def read_records(
    path: str | Path,
    *,
    media_root: str | Path | None = None,
    on_bad_record: Literal["raise", "skip"] = "raise",
    quarantine: str | Path | None = None,
) -> list[Record]:
    """Reads and checks a record file, a JSON list or JSON lines.

    Args:
        path: the file.
        media_root: folder that media paths are relative to; default: the file's own.
        on_bad_record: "raise" stops at the first bad record; "skip" leaves bad records out, logs how
            many, and writes each with its reason to the quarantine file.
        quarantine: JSON lines file for skipped records; default: `<path>.quarantine.jsonl`.

    Raises:
        RecordError: the file is missing, is not JSON, holds no good record; or, with "raise", any record
            is malformed or names a missing media file.
    """
    path = Path(path)
    root = path.parent if media_root is None else Path(media_root)
    if on_bad_record not in ("raise", "skip"):
        raise ValueError(f'on_bad_record must be "raise" or "skip", got {on_bad_record!r}')
    records, bad = [], []
    for number, row in _rows(path):
        try:
            if isinstance(row, json.JSONDecodeError):
                raise RecordError(f"is not JSON ({row})")
            records.append(_parse(row, root))
        except RecordError as error:
            identity = row.get("problem_id") if isinstance(row, dict) else None
            where = f"{path}: record {number}" + (f" (problem_id {identity})" if identity is not None else "")
            if on_bad_record == "raise":
                raise RecordError(f"{where}: {error}") from None
            row = row.doc if isinstance(row, json.JSONDecodeError) else row
            bad.append({"file": str(path), "record": number, "reason": str(error), "row": row})
    if on_bad_record == "skip":
        target = Path(quarantine) if quarantine else path.with_name(path.name + ".quarantine.jsonl")
        _write_quarantine(target, bad)
        if bad:
            total = len(bad) + len(records)
            logger.warning("%s: skipped %d of %d records, see %s", path, len(bad), total, target)
    if not records:
        raise RecordError(f"{path}: holds no {'good ' if bad else ''}record")
    return records


def _rows(path: Path) -> list[tuple[int, Any]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(f"{path}: cannot be read ({error})") from None
    if not text.lstrip().startswith("{"):
        try:
            rows = json.loads(text)
        except json.JSONDecodeError as error:
            raise RecordError(f"{path}: is not JSON ({error})") from None
        if not isinstance(rows, list):
            raise RecordError(f"{path}: must be a JSON list or JSON lines, is a {type(rows).__name__}")
        return list(enumerate(rows, 1))
    rows = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                rows.append((number, json.loads(line)))
            except json.JSONDecodeError as error:
                rows.append((number, error))
    return rows


def _write_quarantine(target: Path, bad: list[dict]) -> None:
    if not bad:
        target.unlink(missing_ok=True)  # left by an earlier reading of the same file
        return
    partial = target.with_name(target.name + ".partial")
    partial.write_text("".join(json.dumps(entry) + "\n" for entry in bad), encoding="utf-8")
    os.replace(partial, target)


def _parse(row: Any, root: Path) -> Record:
    if not isinstance(row, dict):
        raise RecordError(f"must be an object, is a {type(row).__name__}")
    images, videos = _media(row, root)
    messages = _messages(row)
    data_type = _data_type(row, images, videos)
    problem_type = _field(row, "problem_type", str, "" if messages else None)
    if problem_type not in PROBLEM_TYPES and (problem_type or not messages):
        close = difflib.get_close_matches(problem_type, PROBLEM_TYPES, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(PROBLEM_TYPES)}"
        raise RecordError(f"problem_type: unknown {problem_type!r} ({hint})")
    if problem_type and data_type != "video-image" and data_type not in _DATA_TYPES[problem_type]:
        raise RecordError(f"data_type: {problem_type} has no {data_type!r} form")
    options = _field(row, "options", list, [])
    if not all(isinstance(option, str) for option in options):
        raise RecordError("options: must be a list of strings")
    if problem_type == "multiple choice" and not messages and len(options) < 2:
        raise RecordError(f"options: multiple choice needs at least 2, has {len(options)}")

    if messages:
        problem = _field(row, "problem", str, next(m["content"] for m in messages if m["role"] == "user"))
        text = "".join(message["content"] for message in messages)
        _count_placeholders("messages", text, images, videos, optional=False)
    else:
        problem = _field(row, "problem", str)
        if not problem.strip():
            raise RecordError("problem: is empty")
        _count_placeholders("problem", problem, images, videos, optional=True)
    segmentation = _segmentation(row)
    return Record(
        problem_id=_field(row, "problem_id", (int, str), ""),
        problem=problem,
        data_type=data_type,
        problem_type=problem_type,
        options=tuple(options),
        answer=_answer(row, problem_type, data_type, messages, segmentation),
        images=images,
        videos=videos,
        data_source=_field(row, "data_source", str, ""),
        messages=messages,
        segmentation=segmentation,
    )


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


def _media(row: dict, root: Path) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """Paths of images and videos from `images`, `videos`, or an evaluation row's `path`s; all must exist."""
    found: dict[str, list[Path]] = {"image": [], "video": []}
    sources = [("images", "image"), ("videos", "video")]
    if "path" in row:
        kinds = {"video-image": ("video", "image")}.get(
            row.get("data_type", ""), (row.get("data_type"), None)
        )
        sources += [
            (field, kind)
            for field, kind in zip(("path", "additional_path"), kinds, strict=True)
            if kind in found
        ]
    for field, kind in sources:
        value = row.get(field)
        entries = [value] if isinstance(value, str) else [] if value is None else value
        if not isinstance(entries, list) or not all(isinstance(e, str) and e for e in entries):
            raise RecordError(f"{field}: must be a path or a list of paths")
        for entry in entries:
            file = root / entry
            if not file.is_file():
                raise RecordError(f"{field}: no such file {file}")
            found[kind].append(file)
    return tuple(found["image"]), tuple(found["video"])


def _data_type(row: dict, images: tuple, videos: tuple) -> str:
    held = "video-image" if images and videos else "video" if videos else "image" if images else ""
    data_type = _field(row, "data_type", str, held or None)
    if data_type not in ("image", "video", "video-image"):
        raise RecordError(f"data_type: unknown {data_type!r} (known: image, video, video-image)")
    if not held:
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


def _count_placeholders(field: str, text: str, images: tuple, videos: tuple, *, optional: bool) -> None:
    found = _PLACEHOLDER.findall(text)
    if optional and not found:
        return  # evaluation questions name no media; the prompt puts them first
    for kind, media in (("image", images), ("video", videos)):
        count = found.count(f"<{kind}>")
        if count != len(media):
            raise RecordError(f"{field}: {count} <{kind}> for {len(media)} {kind} files")


def _answer(row: dict, problem_type: str, data_type: str, messages: Any, segmentation: Any) -> str:
    """The answer in its tags, checked against what the problem type needs."""
    name = "solution" if "solution" in row and "answer" not in row else "answer"
    value = row.get(name)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = str(value)
    if value is None and messages:
        tagged = _ANSWER.findall(messages[-1]["content"])
        return tagged[-1] if tagged else ""
    if value is None and segmentation:
        return ""  # evaluation compares masks
    if value is None:
        raise RecordError(f"{name}: is missing")
    if not isinstance(value, str) or not value.strip():
        raise RecordError(f"{name}: must be a text that is not empty")
    tagged = value.strip() if _ANSWER.search(value) else f"<answer>{value.strip()}</answer>"
    inner = tagged[tagged.index("<answer>") + 8 : tagged.rindex("</answer>")].strip()
    if problem_type in _ANSWER_FIELDS and not (segmentation and not inner):
        _check_structure(name, inner, problem_type, data_type)
    return tagged


def _check_structure(name: str, inner: str, problem_type: str, data_type: str) -> None:
    try:
        parsed = json.loads(inner)
    except json.JSONDecodeError as error:
        raise RecordError(f"{name}: is not JSON, which {problem_type} needs ({error})") from None
    if not isinstance(parsed, dict):
        raise RecordError(f"{name}: must be a JSON object, is a {type(parsed).__name__}")
    fields = dict(_ANSWER_FIELDS[problem_type])
    if problem_type == "segmentation" and data_type == "video":
        fields["time"] = "number"
    for field, shape in fields.items():
        if not _SHAPES[shape](parsed.get(field)):
            raise RecordError(
                f"{name}: {problem_type} needs {field!r} as {shape}, has {parsed.get(field)!r:.60}"
            )


def _numbers(value: Any, count: int) -> bool:
    return (
        isinstance(value, list)
        and len(value) == count
        and all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in value)
    )


_SHAPES = {
    "number": lambda v: isinstance(v, (int, float)) and not isinstance(v, bool),
    "span": lambda v: _numbers(v, 2),
    "box": lambda v: _numbers(v, 4),
    "points": lambda v: isinstance(v, list) and len(v) > 0 and all(_numbers(p, 2) for p in v),
    "boxes": lambda v: isinstance(v, dict) and len(v) > 0 and all(_numbers(b, 4) for b in v.values()),
}


def _segmentation(row: dict) -> dict | None:
    """An evaluation row's masks: {"size", "counts"}, or a video's {"frames", "rle"}; plus resolution, fps."""
    output = row.get("segmentation_output")
    if output is None:
        return None
    rle = output.get("segmentation_rle") if isinstance(output, dict) else None
    if not isinstance(rle, dict) or not rle:
        raise RecordError("segmentation_output: must hold segmentation_rle, an object that is not empty")
    single = "counts" in rle
    for frame, mask in ({"": rle} if single else rle).items():
        if not isinstance(mask, dict) or not _numbers(mask.get("size"), 2) or "counts" not in mask:
            raise RecordError(f"segmentation_output: mask {frame!r} must hold size and counts")
    frames = output.get("frames", row.get("frames", list(rle)))
    result = dict(rle) if single else {"rle": rle, "frames": frames}
    for extra in ("resolution", "fps"):
        if row.get(extra) is not None:
            result[extra] = row[extra]
    return result
