"""A base whose chat template opens <think>: samples, scores, predictions, pages, checkpoints and the demo."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flax import nnx
from PIL import Image

from onethinker_jax import responses
from onethinker_jax.data_pipeline.batches.loader import RecordStream
from onethinker_jax.data_pipeline.batches.prompt_stream import PromptStream
from onethinker_jax.data_pipeline.media.reading.media_reader import MediaReader
from onethinker_jax.data_pipeline.processor.processor import Processor
from onethinker_jax.data_pipeline.records.record import Record
from onethinker_jax.demo import __main__ as demo
from onethinker_jax.evaluate.answers.predictions import evaluate, read_predictions, write_predictions
from onethinker_jax.model.generation.continuous_batching import Completion
from onethinker_jax.model.hf_weights import save_hf
from onethinker_jax.model.qwen3_vl import Qwen3VL
from onethinker_jax.model.sharding import make_mesh
from onethinker_jax.responses import Sampler
from onethinker_jax.rewards.answers import has_strict_format
from onethinker_jax.rewards.score import RewardSettings
from onethinker_jax.scoring import Scorer
from onethinker_jax.train.config.run import LogSettings
from onethinker_jax.train.pages.gallery import card_html, gallery_item, stage_answer
from onethinker_jax.train.pages.rollout_page import RolloutPages
from onethinker_jax.train.rl.rollouts import Group, roll_out
from onethinker_jax.train.run_folder import RunFolder
from tests.data_pipeline.making import write_image, write_tokenizer
from tests.places import THINKING_TEMPLATE
from tests.train import making

WRITTEN = "It is a red star.</think>\n<answer>A</answer>"
OPENING = "<think>\n"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("thinking")
    tokens = write_tokenizer(folder / "tokenizer", image_pixels=(1024, 4096))
    (tokens / "chat_template.jinja").write_text(THINKING_TEMPLATE.read_text())
    config = making.config_for(Processor.from_pretrained(tokens, grid_side=8))
    save_hf(Qwen3VL(config, rngs=nnx.Rngs(0)), folder / "model", copy_from=tokens)
    return folder / "model"


@pytest.fixture
def processor(model: Path) -> Processor:
    return Processor.from_pretrained(model)


@pytest.fixture(autouse=True)
def _said(monkeypatch: pytest.MonkeyPatch, processor: Processor) -> None:
    """Every sample is the well-formed answer's rest, as a Thinking model goes on from its prompt."""
    ids = np.array(processor.tokenizer.encode(f"{WRITTEN}<|im_end|>"), np.int32)

    class Scripted:
        def __init__(self, *_: Any, **__: Any) -> None:
            pass

        def warm_up(self, params: Any) -> None:
            pass

        def __call__(
            self, params: Any, prompts: Any, *, group_size: int, **_: Any
        ) -> Iterator[list[Completion]]:
            zeros = np.zeros(len(ids), np.float32)
            for number, _size in enumerate(prompts.sizes):
                prompts.stack([number], 128, 128)  # from here on the sampler keeps nothing of the prompt
                yield [Completion(number, sample, ids, zeros, zeros, "stop") for sample in range(group_size)]

    monkeypatch.setattr(responses, "ContinuousBatching", Scripted)
    monkeypatch.setattr(Sampler, "decoding_params", lambda self, params: params)


@pytest.fixture
def sampler(model: Path, processor: Processor) -> Sampler:
    settings = responses.SamplerSettings(
        prompt_slots=2,
        group_size=2,
        prompt_tokens=128,
        prompt_patches=16,
        max_new_tokens=64,
        stop=("</think>",),
    )
    graphdef: Any = None
    return Sampler(graphdef, processor, settings, mesh=make_mesh())


@pytest.fixture
def records(tmp_path: Path) -> list[Record]:
    image = write_image(tmp_path / "a.png", 64, 64)
    options, answer = ("A. a star", "B. a moon"), "<answer>A</answer>"
    return [
        Record(n, "<image>What?", "image", "multiple choice", options, answer, (image,), (), "made")
        for n in range(3)
    ]


@pytest.fixture
def scorer() -> Scorer:
    client: Any = None
    return Scorer(client, settings=RewardSettings(variant="paper"))


def test_predictions_hold_the_whole_response(
    sampler: Sampler, records: list[Record], scorer: Scorer, tmp_path: Path
) -> None:
    params: Any = None
    predictions = evaluate(sampler, params, records, scorer)
    assert [one.response for one in predictions] == [OPENING + WRITTEN] * 3
    assert all(one.score.format == 1 and one.score.accuracy == 1 for one in predictions)
    write_predictions(tmp_path / "predictions.jsonl", predictions)
    rows = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert rows[0]["response"] == OPENING + WRITTEN
    assert read_predictions(tmp_path / "predictions.jsonl", records)[2].response == OPENING + WRITTEN
    answer = stage_answer(records[0], predictions[0].response, predictions[0].score, stage="fresh")
    assert answer.reasoning == "It is a red star."
    assert "It is a red star." in card_html(gallery_item(records[0], [answer], settings=scorer.settings))


def test_rollouts_their_checkpoints_and_pages(
    sampler: Sampler, records: list[Record], scorer: Scorer, tmp_path: Path
) -> None:
    stream = RecordStream(records, seed=0)
    params: Any = None
    groups = roll_out(params, PromptStream(stream, sampler.prompt), 2, sampler, scorer, seed=0, step=1)
    count = len(sampler.processor.tokenizer.encode(f"{WRITTEN}<|im_end|>"))
    for group in groups:
        assert group.samples.texts == [OPENING + WRITTEN] * 2
        assert [score.format for score in group.scores] == [1, 1]
        assert group.stats.lengths == [count, count]  # what the prompt wrote is no part of the length
        assert sampler.processor.tokenizer.decode(group.prompt.tokens).endswith(OPENING)
    again = Group.from_json(json.loads(json.dumps(groups[0].to_json())), stream, sampler)
    assert again.samples.texts == groups[0].samples.texts
    pages = RolloutPages(RunFolder(tmp_path), LogSettings(), media=MediaReader(), fps=2.0)
    pages.write(20, groups, np.zeros((2, 2), np.float32), {"reward": 2.0})
    text = (tmp_path / "rollouts" / "step_00000020.html").read_text()
    assert re.findall(r'<dd class="think">([^<]*)</dd>', text) == ["It is a red star."] * 4
    assert "no answer tags" not in text


def test_stop_strings_are_looked_for_in_what_is_sampled(sampler: Sampler) -> None:
    """What the prompt wrote ends nothing: with an empty thinking block it holds </think> already."""
    tokens = np.array(sampler.processor.tokenizer.encode(WRITTEN), np.int32)
    ends = sampler._find_stop(tokens, 0)
    assert ends is not None
    assert sampler.processor.decode(tokens[:ends]) == "It is a red star.</think>"
    assert sampler._find_stop(tokens[: ends - 1], 0) is None
    prompt = sampler.processor([{"role": "user", "content": "?"}], add_generation_prompt=True)
    assert has_strict_format(sampler.processor.response(prompt.opening, tokens))


def test_the_demo(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    image = write_image(tmp_path / "street.png", 64, 64)
    assert demo.main([str(model), str(image), "What is it?"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[:5] == ["Reasoning", "It is a red star.", "", "Answer", "A"]
    assert "warning" not in out
    assert Image.open(tmp_path / "street_answer.png").width > 500
    assert demo.main([str(model), str(image), "What is it?", "--raw"]) == 0
    assert capsys.readouterr().out.startswith(
        "Response\n<think>\nIt is a red star.</think>\n<answer>A</answer>\n"
    )
