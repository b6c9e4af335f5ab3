"""Presets of protocol: their figures as the two harnesses have them, and whose words a question is asked in."""

import json
from pathlib import Path

import pytest

from onethinker_jax.data_pipeline.processor.prompts import OWN_PROMPTS, chat_messages
from onethinker_jax.data_pipeline.records.record import Record
from onethinker_jax.evaluate.asking.protocols import DEFAULTS, protocol_prompts
from onethinker_jax.model_arguments import AnswerDefaults, ModelArguments
from onethinker_jax.tasks import TASKS

CHOICE = "{question} {options}"


def record(problem_type: str = "OCR", options: tuple[str, ...] = ()) -> Record:
    return Record(
        problem="<image>What?",
        problem_type=problem_type,
        data_type="image",
        problem_id=1,
        options=options,
        answer="",
        images=(Path("a.png"),),
        videos=(),
        data_source="",
    )


def test_figures() -> None:
    """Those of eval_bench.py, and of VLMEvalKit's vLLM branch with its sets of 128 frames."""
    own, kit = DEFAULTS["onethinker"], DEFAULTS["vlmevalkit"]
    assert (own.temperature, own.top_p, own.max_new_tokens) == (0.0, 1.0, 8192)
    assert (own.video_fps, own.video_max_frames, own.video_num_frames) == (2.0, 128, None)
    assert (kit.temperature, kit.top_p, kit.max_new_tokens, kit.video_num_frames) == (0.1, 0.001, 8192, 128)
    for one in (own, kit):
        sizes = (one.image_max_pixels, one.video_min_pixels, one.video_max_pixels)
        assert sizes == (1_048_576, 131_072, 262_144)


def test_a_flag_goes_before_the_protocol() -> None:
    said = ModelArguments(model=Path("m"), temperature=0.0, video_max_pixels=64 * 1024)
    under = said.with_defaults(DEFAULTS["vlmevalkit"]).answer_settings()
    assert (under.temperature, under.video_max_pixels) == (0.0, 64 * 1024)
    assert under.video_min_pixels == 64 * 1024  # else no frame could be within the bounds
    assert (under.top_p, under.video_num_frames, under.max_new_tokens) == (0.001, 128, 8192)
    assert ModelArguments(model=Path("m")).answer_settings() == AnswerDefaults()


def test_our_own_words(tmp_path: Path) -> None:
    arguments = ModelArguments(model=tmp_path)
    assert protocol_prompts("onethinker", arguments) is OWN_PROMPTS
    kit = protocol_prompts("vlmevalkit", arguments)
    system, user = chat_messages(record("multiple choice", ("red", "blue")), prompts=kit)
    assert system["role"] == "system" and "<think></think>" in system["content"]
    assert user["content"].startswith("<image>What?\nA. red\nB. blue\n") and "<answer>" not in user["content"]
    assert all("<answer>" not in kit.template(task) for task in TASKS)


@pytest.mark.parametrize("flag", [True, False])
def test_a_prompt_file_wins(tmp_path: Path, flag: bool) -> None:
    """The directory's own, or the one that a flag names before it."""
    table = {"default": "{question} Theirs.", "multiple choice": CHOICE}
    kit = {"system": "Their system.", "default": "{question}", "multiple choice": CHOICE}
    file = tmp_path / ("other.json" if flag else "prompts.json")
    arguments = ModelArguments(model=tmp_path, prompt_file=file if flag else None)
    if flag:
        (tmp_path / "prompts.json").write_text("{}")  # not even read
    file.write_text(json.dumps(table))
    for protocol in ("onethinker", "vlmevalkit"):
        turns = chat_messages(record(), prompts=protocol_prompts(protocol, arguments))
        assert [turn["content"] for turn in turns] == ["<image>What? Theirs."]
    file.write_text(json.dumps({**table, "protocols": {"vlmevalkit": kit}}))
    turns = chat_messages(record(), prompts=protocol_prompts("vlmevalkit", arguments))
    assert [turn["content"] for turn in turns] == ["Their system.", "<image>What?"]
    turns = chat_messages(record(), prompts=protocol_prompts("onethinker", arguments))
    assert [turn["content"] for turn in turns] == ["<image>What? Theirs."]
