"""Contact sheets of the Photos world, one a task: `python docs/photos_picture.py LIBRARY OUT`.

Each shows records with their true answers drawn on them, as the drawing room draws any record. OUT gets a small world
and the sheets, `sheets/TASK.png`.
"""

import sys
from collections import defaultdict
from pathlib import Path

from PIL import Image

from onethinker_jax.data_pipeline.drawing.answer_picture import answer_picture
from onethinker_jax.data_pipeline.drawing.views import view_record
from onethinker_jax.data_pipeline.photos.library import Library
from onethinker_jax.data_pipeline.photos.world import PhotosWorld
from onethinker_jax.data_pipeline.records.record import Record, read_records, task_of
from onethinker_jax.data_pipeline.worlds.building import build_world
from onethinker_jax.rewards.answers import unwrap_answer

RECORDS, WIDTH, COLUMNS = 400, 640, 3
EACH = 9  # records a task


def drawn(record: Record) -> Image.Image:
    """The record with its true answer, `WIDTH` pixels wide."""
    view = view_record(record)
    said = "\n".join([f"[{record.data_source}]", *record.options, unwrap_answer(record.answer)])
    if record.messages is not None:
        said = f"{said}\n{record.messages[-1]['content'].partition('</think>')[0]}"
    picture = answer_picture(view, view.annotations, view.masks, text=said)
    return picture.resize((WIDTH, round(picture.height * WIDTH / picture.width)), Image.Resampling.LANCZOS)


def sheet(records: list[Record]) -> Image.Image:
    """The records in columns, each below the shortest one so far."""
    columns: list[list[Image.Image]] = [[] for _ in range(COLUMNS)]
    for record in records:
        min(columns, key=lambda column: sum(picture.height for picture in column)).append(drawn(record))
    height = max(sum(picture.height for picture in column) for column in columns)
    whole = Image.new("RGB", (WIDTH * COLUMNS, height), (255, 255, 255))
    for number, column in enumerate(columns):
        top = 0
        for picture in column:
            whole.paste(picture, (number * WIDTH, top))
            top += picture.height
    return whole


def main() -> None:
    library, out = Library.read(sys.argv[1]), Path(sys.argv[2])
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else 0
    world = PhotosWorld(seed, RECORDS, RECORDS, RECORDS, library=library)
    paths = build_world(world, out / "world")
    (out / "sheets").mkdir(exist_ok=True)
    tasks: dict[str, list[Record]] = defaultdict(list)
    for files in zip(*(read_records(file) for file in paths.files.values()), strict=True):
        for record in files:
            tasks[str(task_of(record))].append(record)
    for task, records in tasks.items():
        sheet(records[:EACH]).save(out / "sheets" / f"{task.replace(' ', '_')}.png")


if __name__ == "__main__":
    main()
