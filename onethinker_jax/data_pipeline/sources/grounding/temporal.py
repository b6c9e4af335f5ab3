"""When something happens in a video: Charades-STA, ActivityNet Captions and ActivityNet-RTL.

Videos are found by the names that the annotations give, with any of the usual endings. Facts of a sample of
ActivityNet-RTL: `video` (its authors average over the questions of a video, then over videos), `duration` in seconds,
`explanation` (what the true answer says beside the two times).
"""

import re
from collections.abc import Iterator
from pathlib import Path

from onethinker_jax.data_pipeline.sources.reading.parquet import parquet_rows
from onethinker_jax.data_pipeline.sources.reading.rows import Row, json_objects, plain, samples_of
from onethinker_jax.data_pipeline.sources.reading.video_names import video
from onethinker_jax.data_pipeline.sources.reading.whole_files import json_value, text_lines
from onethinker_jax.data_pipeline.sources.sample import Sample, Source, SourceError
from onethinker_jax.text_output import json_text

_SECONDS = re.compile(r"<(\d+(?:\.\d+)?)>")


def read_charades_sta(source: Source) -> Iterator[Sample]:
    """Lines `VIDEO start end##caption`; a file is one split. Videos are beside the file, or in `media_root`."""
    path = source.path
    root = source.media_root or path.parent

    def rows() -> Iterator[Row]:
        for number, line in text_lines(path):
            head, _, caption = line.partition("##")
            words = head.split()
            cells = dict(zip(("video", "start", "end"), words, strict=False)) | {"caption": caption}
            yield Row(path, number, cells, "video", source.check_media)

    def make(row: Row) -> Sample:
        span = [_second(row, "start"), _second(row, "end")]
        identity = f"{row.text('video')}_{row.number}"
        record = _record("Charades-STA", identity, _happening(row.text("caption")), span)
        return _sample(row, record, video(row, "video", root), "start and end")

    yield from samples_of(rows(), make, path, source.bad)


def read_captions(source: Source) -> Iterator[Sample]:
    """Rows of `video`, `caption` and `timestamp` [start, end], JSON or Parquet, as lmms-eval has Charades-STA."""
    path = source.path
    root = source.media_root or path.parent
    if path.suffix == ".parquet":
        rows = parquet_rows(path, ("video", "caption", "timestamp"), "video", check_media=source.check_media)
    else:
        rows = json_objects(path, "video", check_media=source.check_media)

    def make(row: Row) -> Sample:
        span = row.listed("timestamp")
        identity = f"{Path(row.text('video')).stem}_{row.number}"
        record = _record("Charades-STA", identity, _happening(row.text("caption")), span)
        return _sample(row, record, video(row, "video", root), "timestamp")

    yield from samples_of(rows, make, path, source.bad)


def read_activitynet_captions(source: Source) -> Iterator[Sample]:
    """`{video: {"duration", "timestamps": [[start, end]], "sentences": [...]}}`: a sample a sentence."""
    path = source.path
    root = source.media_root or path.parent

    def rows() -> Iterator[Row | SourceError]:
        for number, (name, value) in enumerate(json_value(path, dict).items(), start=1):
            whole = Row(
                path,
                number,
                {"video": name, **_object(path, name, value)},
                "video",
                source.check_media,
            )
            yield from _sentences(whole, source.check_media)

    def make(row: Row) -> Sample:
        index = row.cells["index"]
        sentence, span = row.text(f"sentences[{index}]"), row.listed(f"timestamps[{index}]")
        record = _record("ActivityNet Captions", f"{row.text('video')}_{index}", _happening(sentence), span)
        return _sample(row, record, video(row, "video", root), f"timestamps[{index}]")

    yield from samples_of(rows(), make, path, source.bad)


def read_anet_rtl(source: Source) -> Iterator[Sample]:
    """ActivityNet-RTL: a list of `vid`, `duration`, `question` and `answer`, which has two times `<12.5>`.

    Its training file is `{video: {"duration", "QA": [{"q", "a"}]}}`; answers there without two times are left out and
    counted.
    """
    path = source.path
    root = source.media_root or path.parent
    value = json_value(path, (list, dict))

    def rows() -> Iterator[Row]:
        entries = value if isinstance(value, list) else list(_trained(path, value))
        for number, entry in enumerate(entries, start=1):
            yield Row(path, number, _object(path, number, entry), "vid", source.check_media)

    def make(row: Row) -> Sample | None:
        answer, name = row.text("answer"), "v_" + row.text("vid").removeprefix("v_")
        found = [float(second) for second in _SECONDS.findall(answer)]
        if len(found) < 2 and isinstance(value, dict):
            source.bad.omit("answer: has no two times")
            return None
        if len(found) < 2:
            raise row.error("answer", "must hold two times such as <12.5>", f", is {answer!r:.60}")
        span = [min(found[:2]), max(found[:2])]
        facts = {
            "video": name,
            "duration": _second(row, "duration"),
            "explanation": " ".join(_SECONDS.sub(" ", answer).split()),
        }
        record = _record(
            "ActivityNet-RTL",
            f"{name}_{row.cells.get('question_id', row.number)}",
            plain(row.text("question")),
            span,
        )
        film = video(Row(path, row.number, {"vid": name}, "vid", source.check_media), "vid", root)
        return row.sample(record, videos=[film], columns={"answer.time": "answer"}, facts=facts)

    yield from samples_of(rows(), make, path, source.bad)


def _sentences(whole: Row, check_media: bool) -> Iterator[Row | SourceError]:
    """A row for each sentence about a video of ActivityNet Captions."""
    try:
        spans, sentences = whole.listed("timestamps"), whole.listed("sentences")
    except SourceError as error:
        yield error
        return
    if len(spans) != len(sentences):
        yield whole.error("timestamps", "not as many as sentences", f": {len(spans)}, {len(sentences)}")
        return
    for index, (span, sentence) in enumerate(zip(spans, sentences, strict=True)):
        cells = {f"timestamps[{index}]": span, f"sentences[{index}]": sentence}
        cells |= {"video": whole.cells["video"], "index": index}
        yield Row(whole.file, whole.number, cells, "video", check_media)


def _trained(path: Path, value: dict) -> Iterator[dict]:
    for name, entry in value.items():
        row = Row(path, 1, {"vid": name, **_object(path, name, entry)}, "vid")
        for number, pair in enumerate(row.listed("QA")):
            asked = _object(path, f"{name}: QA[{number}]", pair)
            cells = {"vid": name, "duration": entry.get("duration"), "question_id": number}
            yield {**cells, "question": asked.get("q"), "answer": asked.get("a")}


def _object(path: Path, where: object, value: object) -> dict:
    if not isinstance(value, dict):
        raise SourceError(f"{path}: {where}: must be an object, is a {type(value).__name__}")
    return value


def _second(row: Row, column: str) -> float:
    text = row.text(column)
    try:
        return float(text)
    except ValueError:
        raise row.error(column, "must be seconds", f", is {text!r:.60}") from None


def _sample(row: Row, record: dict, film: Path, column: str) -> Sample:
    return row.sample(
        record,
        videos=[film],
        columns={"answer.time": column, "problem": "caption"},
    )


def _happening(caption: str) -> str:
    return f"When does this happen in the video: {plain(caption)}"


def _record(source: str, identity: str, problem: str, span: list) -> dict:
    return {
        "data_source": source,
        "problem_id": identity,
        "problem": problem,
        "problem_type": "temporal grounding",
        "answer": json_text({"time": span}),
    }
