"""Questions about videos as the data sets' authors publish them.

VideoMMMU, MMVU, Video-MME, Video-Holmes, LongVideoBench, LongVideo-Reason, VideoMathQA. Each reader takes the
annotation file or the folder of the whole data set, and says where videos are looked for; `media_root` is looked into
first. Facts of every sample: `question`, as the file has it; the readers name more.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from onethinker_jax.data_pipeline.sources.questions.choices import split_choices
from onethinker_jax.data_pipeline.sources.questions.subtitles import spoken_text
from onethinker_jax.data_pipeline.sources.reading.parquet import ParquetImage, parquet_files, parquet_rows
from onethinker_jax.data_pipeline.sources.reading.rows import (
    LETTERS,
    Row,
    id_of,
    json_objects,
    lettered,
    open_problem_type,
    plain,
    samples_of,
)
from onethinker_jax.data_pipeline.sources.reading.video_names import video
from onethinker_jax.data_pipeline.sources.sample import Sample, Source, SourceError

_TRACKS = ("Perception", "Comprehension", "Adaptation")
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_ANNOUNCED = re.compile(r"\s*Therefore,?\s+the final answer is:?\s*", re.IGNORECASE)


def read_videommmu(source: Source) -> Iterator[Sample]:
    """VideoMMMU: a folder with Perception/, Comprehension/ and Adaptation/, each with Parquet files, or one of these.

    Videos, `ID.mp4`, are in the folder, in its `videos`, or in a folder of either (Art, Science, ...). `split` is a
    track. The picture of a row of Adaptation follows the video where the question says `<image 1>`, else before the
    question. A row without options (`question_type` "open") is numerical or math. Ids are TRACK/ID.

    Groups: `track`, `question_type`, `subject`. Facts: `answers` where several are accepted.
    """
    path = source.path
    files = parquet_files(path, "*/*.parquet", "*.parquet", "*/test/*.parquet")
    tracks = {file: next((t for t in _TRACKS if t in file.parts[-3:]), file.parent.name) for file in files}
    if source.split and source.split not in tracks.values():
        raise SourceError(f"{path}: has no Parquet file of the track {source.split}")
    folders = _folders(path if path.is_dir() else path.parent.parent, source.media_root, "videos")

    def rows() -> Iterator[Row]:
        needed = ["id", "question", "options", "answer", "question_type"]
        for file, track in tracks.items():
            if not source.split or track == source.split:
                yield from parquet_rows(file, needed, "id", picture="image", check_media=source.check_media)

    def make(row: Row) -> Sample:
        identity, question = row.text("id"), row.text("question")
        picture = row.cells.get("image")
        images = [picture] if isinstance(picture, ParquetImage) else []
        asked = plain(question)
        if images:
            mark = "<image 1>"
            asked = asked.replace(mark, "<image>", 1) if mark in asked else "<image>" + asked
            asked = "<video>" + asked.replace(mark, "the image")
        subject = re.fullmatch(r"[^_]+_(.+)_\d+", identity)
        track = tracks[row.file]
        groups = {"track": track, "question_type": row.text("question_type")}
        groups["subject"] = subject[1] if subject else ""
        record = {"problem_id": f"{track}/{identity}", "problem": asked}
        facts: dict[str, Any] = {"question": question}
        options = row.options("options") if row.cells.get("options") else []
        record |= _answered(row, lettered(options), facts)
        videos = [video(row, "id", *folders)]
        return row.sample(record, images=images, videos=videos, columns=_COLUMNS, groups=groups, facts=facts)

    yield from samples_of(rows(), make, path, source.bad)


def read_mmvu(source: Source) -> Iterator[Sample]:
    """MMVU: `validation.json`, or its folder; videos as their URLs end, `videos/Art/0.mp4`, beside it.

    `split` is a `question_type`: "multiple-choice" or "open-ended". Groups: `question_type`, `subject`.
    """
    file = _file(source.path, "validation.json")
    roots = [root for root in (source.media_root, file.parent) if root is not None]

    def make(row: Row) -> Sample | None:
        kind = row.text("question_type")
        if source.split and kind != source.split:
            return None
        place = row.text("video").rpartition("/videos/")[2] or row.text("video")
        films = [row.media("video", *(root / part / place for root in roots for part in ("videos", "")))]
        choices = row.cells.get("choices") or {}
        if not isinstance(choices, Mapping):
            raise row.error("choices", "must be an object of letters")
        given = {letter: str(text) for letter, text in choices.items() if str(text or "").strip()}
        options = [f"{letter}. {plain(text)}" for letter, text in sorted(given.items())]
        facts: dict[str, Any] = {"question": row.text("question")}
        record = {"problem_id": row.text("id"), "problem": plain(row.text("question"))}
        record |= _answered(row, options if kind == "multiple-choice" else [], facts)
        metadata = row.cells.get("metadata")
        subject = metadata.get("subject") if isinstance(metadata, dict) else None
        groups = {"question_type": kind, "subject": str(subject or "")}
        return row.sample(
            record, videos=films, columns=_COLUMNS | {"options": "choices"}, groups=groups, facts=facts
        )

    what = f"{source.split} question" if source.split else "question"
    yield from samples_of(
        json_objects(file, "id", check_media=source.check_media), make, source.path, source.bad, what=what
    )


def read_videomme(source: Source, *, subtitles: bool = False) -> Iterator[Sample]:
    """Video-MME: its Parquet file or its folder; `VIDEOID.mp4` in `video`, `videos` or `data` beside it.

    `split` is a `duration`: "short", "medium" or "long". With `subtitles` the whole text of `subtitle/VIDEOID.srt`
    comes before the question, where the video has such a file.

    Groups: `duration`, `domain`, `sub_category`, `task_type`, and `subtitles` ("yes", "no") if they are asked for.
    Facts: `video`.
    """
    path = source.path
    files = parquet_files(path, "videomme/test*.parquet", "*.parquet", "*/*.parquet")
    root = source.folder
    folders = _folders(root, source.media_root, "video", "videos", "data")
    if path.is_file():
        folders += [root.parent / name for name in ("video", "videos", "data")]
    needed = ["videoID", "question_id", "question", "options", "answer"]
    spoken = _subtitle_folders(path, folders) if subtitles else []

    def rows() -> Iterator[Row]:
        for file in files:
            yield from parquet_rows(file, needed, "question_id", check_media=source.check_media)

    def make(row: Row) -> Sample | None:
        if source.split and row.text("duration") != source.split:
            return None
        name = row.text("videoID")
        film = video(row, "videoID", *folders)
        said = _said(name, spoken)
        names = ("duration", "domain", "sub_category", "task_type")
        groups = {name: row.text(name, "") for name in names}
        if subtitles:
            groups["subtitles"] = "yes" if said else "no"
        record = {"problem_id": row.text("question_id")}
        return _choice(row, record, film, groups=groups, facts={"video": name}, before=said)

    what = f"question about a {source.split} video" if source.split else "question"
    yield from samples_of(rows(), make, path, source.bad, what=what)


def read_video_holmes(source: Source) -> Iterator[Sample]:
    """Video-Holmes: `test_Video-Holmes.json` or its folder; `VIDEO ID.mp4` in `videos` or `video` beside it.

    The id is the row's number from 0, as in VLMEvalKit's table. Groups: `question_type`. Facts: `question_id`,
    `video`, `explanation`.
    """
    file = _file(source.path, "test_Video-Holmes.json")
    folders = _folders(file.parent, source.media_root, "videos", "video")

    def make(row: Row) -> Sample:
        options = row.cells.get("Options")
        if not isinstance(options, Mapping):
            raise row.error("Options", "must be an object of letters")
        texts = [f"{letter}. {plain(str(text))}" for letter, text in sorted(options.items())]
        facts: dict[str, Any] = {
            "question": row.text("Question"),
            "question_id": row.cells.get("Question ID"),
            "video": row.text("video ID"),
            "explanation": row.text("Explanation", ""),
        }
        record = {"problem_id": row.number - 1, "problem": plain(row.text("Question"))}
        record |= _answered(row, texts, facts, "Answer")
        columns = {"problem": "Question", "options": "Options", "answer": "Answer"}
        groups = {"question_type": row.text("Question Type", "")}
        films = [video(row, "video ID", *folders)]
        return row.sample(record, videos=films, columns=columns, groups=groups, facts=facts)

    yield from samples_of(
        json_objects(file, "Question ID", check_media=source.check_media), make, source.path, source.bad
    )


def read_longvideobench(source: Source) -> Iterator[Sample]:
    """LongVideoBench: `lvb_val.json` or its folder; `video_path` in `videos` beside it.

    `correct_choice` counts from 0. The id is the row's number from 0, as in VLMEvalKit's table. Subtitles are not
    read. Groups: `duration_group`, `question_category`, `topic_category`. Facts: `video`, `duration`.
    """
    file = _file(source.path, "lvb_val.json")
    folders = _folders(file.parent, source.media_root, "videos")

    def make(row: Row) -> Sample:
        options, right = row.options("candidates"), row.whole("correct_choice")
        if not 0 <= right < len(options):
            raise row.error("correct_choice", "is no index of candidates", f": {right} of {len(options)}")
        names = ("duration_group", "question_category", "topic_category")
        record = {"problem_id": row.number - 1, "problem": plain(row.text("question"))}
        record |= {"problem_type": "multiple choice", "answer": LETTERS[right], "options": lettered(options)}
        columns = {"problem": "question", "options": "candidates", "answer": "correct_choice"}
        facts = {
            "question": row.text("question"),
            "video": row.text("video_id", ""),
            "duration": row.cells.get("duration"),
        }
        groups = {name: row.text(name, "") for name in names}
        films = [video(row, "video_path", *folders)]
        return row.sample(record, videos=films, columns=columns, groups=groups, facts=facts)

    yield from samples_of(
        json_objects(file, "id", check_media=source.check_media), make, source.path, source.bad
    )


def read_longvideo_reason(source: Source) -> Iterator[Sample]:
    """LongVideo-Reason: `test.jsonl`, a JSON list or Parquet files of `videos`, `problem`, `answer`, or the folder.

    `videos` is a path below the folder that holds `longvila_videos`. Options stand in `problem`, and are taken out of
    it where the answer is a letter of one; such a row is multiple choice, any other is numerical or math. The id is
    the row's number from 1. Facts: `video`.
    """
    path = source.path
    root = source.folder
    roots = [one for one in (source.media_root, root) if one is not None]
    roots += [root.parent] * path.is_file()
    needed = ["videos", "problem", "answer"]

    def rows() -> Iterator[Row | SourceError]:
        file = path / "test.jsonl" if path.is_dir() else path
        if file.is_file() and file.suffix != ".parquet":
            yield from json_objects(file, check_media=source.check_media)
            return
        number = 0
        for part in parquet_files(path, "*test*.parquet", "*/*test*.parquet"):
            for row in parquet_rows(part, needed, "", check_media=source.check_media):
                number += 1
                yield Row(part, number, row.cells, check_media=source.check_media)

    def make(row: Row) -> Sample:
        names = row.listed("videos") if isinstance(row.cells.get("videos"), list) else [row.text("videos")]
        if len(names) != 1 or not isinstance(names[0], str):
            raise row.error("videos", "must be one path")
        films = [video(row, "videos", *roots, name=names[0], nested=False)]
        question, answer = row.text("problem"), row.text("answer")
        tagged = _ANSWER.search(answer)
        answer = _ANNOUNCED.sub("", tagged[1] if tagged else answer).strip()
        asked, options = split_choices(question)
        letter = answer[:1] if re.match(r"[A-Z](?:[.):]|$)", answer) else ""
        record: dict[str, Any] = {"problem_id": row.number, "problem": plain(question)}
        if letter and letter in LETTERS[: len(options)]:
            record["problem"] = plain(asked)
            record |= {"problem_type": "multiple choice", "answer": letter, "options": lettered(options)}
        else:
            record |= {"problem_type": open_problem_type(answer), "answer": answer}
        facts = {"question": question, "video": names[0]}
        return row.sample(record, videos=films, columns={"options": "problem"}, facts=facts)

    yield from samples_of(rows(), make, path, source.bad)


def read_videomathqa(source: Source, *, subtitles: bool = False) -> Iterator[Sample]:
    """VideoMathQA: the folder with its configurations `mcq` and `multi_binary`, or a Parquet or JSON file of one.

    `split` is the configuration: "mcq" (also ""), or "mbin", in which a question is several rows with two options
    each and counts only if all are right: they share the fact `g_index`, and their ids are QUESTION_ID-1, -2 and so
    on. Videos are in `videos` beside them, subtitles in `subtitles`, as in `read_videomme`.

    Groups: `category`, `length`. Facts: `g_index`, `video`.
    """
    path = source.path
    if source.split not in ("", "mcq", "mbin"):
        raise SourceError(f"{path}: VideoMathQA has no split {source.split!r} (known: mcq, mbin)")
    folder = "multi_binary" if source.split == "mbin" else "mcq"
    root = source.folder
    folders = _folders(root, source.media_root, "videos")
    if path.is_file():
        folders.append(root.parent / "videos")
    needed = ["videoID", "question_id", "question", "options", "answer"]
    spoken = _subtitle_folders(path, folders) if subtitles else []
    seen: Counter[str] = Counter()

    def rows() -> Iterator[Row | SourceError]:
        if path.suffix in (".json", ".jsonl"):
            yield from json_objects(path, "question_id", check_media=source.check_media)
            return
        for file in parquet_files(path, f"{folder}/*.parquet", f"*{folder}*.parquet"):
            yield from parquet_rows(file, needed, "question_id", check_media=source.check_media)

    def make(row: Row) -> Sample:
        identity, name = row.text("question_id"), row.text("videoID")
        seen[identity] += 1
        film = video(row, "videoID", *folders)
        said = _said(name, spoken)
        record = {"problem_id": f"{identity}-{seen[identity]}" if source.split == "mbin" else id_of(identity)}
        groups = {"category": row.text("category", ""), "length": row.text("length", "")}
        facts = {"g_index": identity, "video": name}
        return _choice(row, record, film, groups=groups, facts=facts, before=said)

    yield from samples_of(rows(), make, path, source.bad)


_COLUMNS = {"problem": "question", "options": "options", "problem_id": "id"}


def _choice(
    row: Row,
    record: dict[str, Any],
    film: Path,
    *,
    groups: dict[str, str],
    facts: dict[str, Any],
    before: str = "",
) -> Sample:
    """The sample of a row of `question`, `options` and the letter `answer`; the text `before` precedes it."""
    question = row.text("question")
    facts = {"question": question, **facts}
    said = f"Subtitles of the video:\n{before}\n\n" if before else ""
    record = {**record, "problem": plain(said + question)}
    record |= _answered(row, lettered(row.options("options")), facts)
    return row.sample(record, videos=[film], columns=_COLUMNS, groups=groups, facts=facts)


def _answered(row: Row, options: list[str], facts: dict[str, Any], column: str = "answer") -> dict[str, Any]:
    """Problem type, lettered options and answer; several accepted answers are noted in `facts`."""
    answer = row.text(column)
    if options:
        return {"problem_type": "multiple choice", "options": options, "answer": answer}
    if answer.startswith(("['", '["')):
        facts["answers"] = [str(one) for one in row.listed(column)]
        answer = facts["answers"][0]
    return {"problem_type": open_problem_type(answer), "answer": answer}


def _file(path: Path, name: str) -> Path:
    return path / name if path.is_dir() else path


def _folders(root: Path, media_root: Path | None, *names: str) -> list[Path]:
    """Where videos are looked for: the folder that the caller names, those of these names in `root`, `root`."""
    first = [] if media_root is None else [media_root]
    return [*first, *(root / name for name in names), root]


def _subtitle_folders(path: Path, beside: list[Path]) -> list[Path]:
    """The folders of .srt files beside the folders of videos. Raises SourceError: there is none."""
    bases = dict.fromkeys(base for folder in beside for base in (folder, folder.parent))
    found = [base / name for base in bases for name in ("subtitle", "subtitles") if (base / name).is_dir()]
    if not found:
        raise SourceError(f"{path}: has no folder subtitle or subtitles beside its videos")
    return found


def _said(name: str, folders: list[Path]) -> str:
    """The words of a video's .srt file; "" where it has none."""
    file = next((folder / f"{name}.srt" for folder in folders if (folder / f"{name}.srt").is_file()), None)
    return "" if file is None else spoken_text(file)
