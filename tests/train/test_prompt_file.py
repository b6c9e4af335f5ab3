"""A run's prompt file reaches rollouts, the judge and the exported model; a bad one stops the run in one line."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from onethinker_jax.data_pipeline.processor.processor import Processor
from onethinker_jax.data_pipeline.processor.prompts import PromptError
from onethinker_jax.data_pipeline.records.record import read_records
from onethinker_jax.errors import UserError
from onethinker_jax.tasks import Task
from onethinker_jax.train.config.checks import SettingError
from onethinker_jax.train.config.presets import shapes
from onethinker_jax.train.config.run import TrainConfig
from onethinker_jax.train.log.log import RunLog
from onethinker_jax.train.preflight.prepare import Corpora, make_processor, prepare_base
from tests.data_pipeline.making import rl_row, sft_row, write_image, write_rows

TEMPLATES = {"multiple choice": "{question}\n{options}\nLetter?", "default": "{question} Briefly."}


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    write_image(tmp_path / "a.png")
    (tmp_path / "words.json").write_text(json.dumps(TEMPLATES))
    data = replace(
        shapes().data,
        sft_file=write_rows(tmp_path / "sft.json", [sft_row()] * 3),
        rl_file=write_rows(tmp_path / "rl.json", [rl_row()]),
        heldout_file=tmp_path / "rl.json",
        prompt_file=tmp_path / "words.json",
        video_total_pixels=12345,
    )
    return replace(shapes(), name="run", out=tmp_path / "runs", data=data)


def prepare(config: TrainConfig) -> Path:
    """The run's base directory."""
    sft, rl = (read_records(str(file)) for file in (config.data.sft_file, config.data.rl_file))
    with RunLog(config.directory, console=Console(quiet=True)) as log:
        return prepare_base(config, Corpora(sft, rl, rl), log)


def test_the_runs_processor_asks_in_the_files_words(config: TrainConfig) -> None:
    base = prepare(config)
    processor = make_processor(config, base)
    (record,) = read_records(str(config.data.rl_file))
    text = processor.tokenizer.decode(processor.prompt(record).tokens)
    assert text.endswith("Which letter?\nA. one\nB. two\nLetter?<|im_end|>\n<|im_start|>assistant\n")
    assert processor.video_bounds.total is not None and processor.video_bounds.total.max_pixels == 12345
    again = Processor.from_pretrained(base)  # as evaluation reads the exported directory
    assert again.prompts.template(Task("OCR", "video")) == "{question} Briefly."


def test_a_bad_file_is_an_error_of_one_line(config: TrainConfig) -> None:
    assert config.data.prompt_file is not None
    config.data.prompt_file.write_text('{"default": "{question} {answer}"}')
    with pytest.raises(UserError, match=r"words\.json: default .*: unknown placeholder \{answer\}") as caught:
        prepare(config)
    assert isinstance(caught.value, PromptError)


def test_a_world_keeps_its_words() -> None:
    with pytest.raises(SettingError, match=r"data\.prompt_file: a world"):
        replace(shapes().data, prompt_file=Path("words.json"))
    with pytest.raises(SettingError, match=r"data\.video_total_pixels 0 must be positive"):
        replace(shapes().data, video_total_pixels=0)
