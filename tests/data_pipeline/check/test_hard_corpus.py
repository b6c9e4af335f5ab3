"""All tasks in all three files, with the media and texts that go wrong elsewhere: from JSON to packed rows."""

import re
import unicodedata

import numpy as np
import pytest

from onethinker_jax.data_pipeline.batches.packing import pack_rows
from onethinker_jax.data_pipeline.check.inspection import inspect_media
from onethinker_jax.data_pipeline.processor.processor import Processor
from onethinker_jax.data_pipeline.processor.prompts import question_text
from onethinker_jax.data_pipeline.records.record import read_records, task_of
from onethinker_jax.tasks import TASKS
from tests.data_pipeline.check.hard_corpus import write_hard_corpus
from tests.waiting import HANG_S


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    files = write_hard_corpus(tmp_path_factory.mktemp("hard"))
    return {name: read_records(path) for name, path in files.items()}


@pytest.fixture(scope="module")
def prompts(processor: Processor, records):
    """Every record's prompt."""
    return [(record, processor.prompt(record)) for split in records.values() for record in split]


def test_every_task_is_there(records):
    assert [task_of(record) for record in records["rl"]] == list(TASKS)
    assert [len(records[name]) for name in ("sft", "eval")] == [3, 4]


def test_media_decode_and_answers_lie_within_them(records):
    for split in records.values():
        for record in split:
            facts = inspect_media(record, fps=2.0, max_frames=16, time_limit=HANG_S)
            assert len(facts.image_sizes) == len(record.images) and len(facts.durations) == len(record.videos)


def test_prompts_hold_what_was_asked_and_a_token_for_every_merged_patch(processor, prompts):
    for record, example in prompts:
        text = processor.tokenizer.decode(example.tokens)
        assert text.count("<|im_start|>user\n") >= 1 and text.endswith("<|im_start|>assistant\n")
        asked = question_text(record) if record.messages is None else record.messages[-2]["content"]
        for piece in re.split("<image>|<video>", asked):
            assert unicodedata.normalize("NFC", piece) in text
        assert len(example.grids) == len(record.images) + len(record.videos)
        assert len(example.patches) == example.grids.prod(1).sum() == 4 * (example.visual_index >= 0).sum()
        pairs = len(re.findall(r"<\d+\.\d seconds><\|vision_start\|>", text))
        assert text.count("<|vision_start|>") == len(record.images) + pairs and bool(record.videos) == bool(
            pairs
        )


def test_timestamps_are_those_of_the_frames(processor, prompts):
    """The seconds in the text of each film are those of the frames that were taken."""
    for record, example in prompts:
        if not record.videos:
            continue
        text = processor.tokenizer.decode(example.tokens)
        said = [float(seconds) for seconds in re.findall(r"<(\d+\.\d) seconds>", text)]
        video = processor.media.video(record.videos[0], None, fps=2.0, max_frames=128)
        times = (
            np.append(video.timestamps, video.timestamps[-1:])
            if len(video.timestamps) % 2
            else video.timestamps
        )
        np.testing.assert_allclose(said, times.reshape(-1, 2).mean(1), atol=0.0501)


def test_training_rows_are_packed_without_loss(processor, records):
    examples = [processor.training(record) for record in records["sft"]]
    for record, example in zip(records["sft"], examples, strict=True):
        targets = processor.tokenizer.decode(example.tokens[example.loss_mask])
        answers = [m["content"] for m in record.messages if m["role"] == "assistant"]
        assert targets == "".join(f"{answer}<|im_end|>" for answer in answers)
    batch, left = pack_rows(examples, rows=1, tokens=1024, patches=1024)
    assert not left and batch.target_mask.sum() == sum(example.loss_mask.sum() for example in examples)
    used = np.asarray(batch.inputs.segment_ids) > 0
    assert used.sum() == sum(len(example.tokens) for example in examples)
    assert batch.inputs.vision is not None
    visible = np.asarray(batch.inputs.vision.frame_ids)[0] > 0
    packed = np.asarray(batch.inputs.vision.patches)[0][visible]
    np.testing.assert_array_equal(packed, np.concatenate([example.patches for example in examples]))
