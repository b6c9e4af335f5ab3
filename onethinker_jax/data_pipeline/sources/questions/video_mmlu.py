"""Video-MMLU's lectures to be described: VLMEvalKit's `Video_MMLU_CAP.tsv`.

The user has the TSV in the data set's folder, and the videos in `youtube_videos` beside it. A row is a video, and its
`question` a Python or JSON list of {"question", "answer"}: a judge answers them from the description alone. VLMEvalKit
draws one of 24 instructions without a seed; ours is always the same. The record's true answer is all of the questions
with their answers, since the set has no description of its own.

Facts: `questions`, all of the video's, as {"question", "answer"}; `video`. Groups: `discipline`.
"""

from collections.abc import Iterator

from onethinker_jax.data_pipeline.sources.reading.rows import Row, id_of, missing_columns, samples_of
from onethinker_jax.data_pipeline.sources.reading.tsv import TsvTable
from onethinker_jax.data_pipeline.sources.reading.video_names import video
from onethinker_jax.data_pipeline.sources.sample import Sample, Source, SourceError

INSTRUCTION = "Describe this video in detail."


def read(source: Source) -> Iterator[Sample]:
    """The videos of the TSV, or of the folder that has it; `split` is a discipline. The id is the row's `index`.

    Raises SourceError (while iterating): as every layout.
    """
    file = source.path / "Video_MMLU_CAP.tsv" if source.path.is_dir() else source.path
    table = TsvTable(file)
    missing_columns(file, table.columns, ["video", "discipline", "question"])
    id_column = "index" if "index" in table.columns else "video"
    roots = [
        root for root in (source.media_root, file.parent / "youtube_videos", file.parent) if root is not None
    ]

    def rows() -> Iterator[Row | SourceError]:
        for row in table:
            yield row if isinstance(row, SourceError) else Row(file, *row, id_column, source.check_media)

    def make(row: Row) -> Sample | None:
        discipline = row.text("discipline")
        if source.split and discipline.lower() != source.split.lower():
            return None
        pairs = [_pair(row, number, value) for number, value in enumerate(row.listed("question"), 1)]
        if not pairs:
            raise row.error("question", "is an empty list")
        record = {
            "problem_id": id_of(row.text(id_column)),
            "problem": INSTRUCTION,
            "problem_type": "open-ended",
            "answer": "\n".join(f"{pair['question']} {pair['answer']}" for pair in pairs),
        }
        facts = {"questions": pairs, "video": row.text("video")}
        films = [video(row, "video", *roots)]
        groups = {"discipline": discipline}
        return row.sample(record, videos=films, columns={"answer": "question"}, groups=groups, facts=facts)

    yield from samples_of(
        rows(), make, file, source.bad, what=f"video of {source.split}" if source.split else "video"
    )


def _pair(row: Row, number: int, value: object) -> dict[str, str]:
    texts = [value.get(name) for name in ("question", "answer")] if isinstance(value, dict) else []
    if len(texts) != 2 or not all(str(text or "").strip() for text in texts):
        raise row.error("question", "must hold objects with a question and an answer", f": number {number}")
    question, answer = (str(text).strip() for text in texts)
    return {"question": question, "answer": answer}
