"""Draws docs/demo.png as the demo would, with a record's true answer in place of a model's:
`python docs/demo_picture.py`.
"""

import tempfile
from pathlib import Path

from onethinker_jax.data_pipeline.drawing.answer_picture import answer_picture
from onethinker_jax.data_pipeline.drawing.views import view_record
from onethinker_jax.data_pipeline.records.record import read_records
from onethinker_jax.data_pipeline.shapes.world import build_shapes_world
from onethinker_jax.rewards.answers import StructuredAnswer

TASK = "spatial-temporal grounding"


def moves(annotations: StructuredAnswer) -> bool:
    """Whether the answer has four boxes, no two of them alike."""
    return len(set(annotations.boxes.values())) == len(annotations.boxes) == 4


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = build_shapes_world(Path(folder) / "world", seed=3, train_rl=24, train_sft=24, heldout=400)
        views = (view_record(one) for one in read_records(world.eval_json) if one.problem_type == TASK)
        view = next(one for one in views if one.annotations and moves(one.annotations))
        answer_picture(view, view.annotations).save(Path(__file__).with_name("demo.png"), optimize=True)


if __name__ == "__main__":
    main()
