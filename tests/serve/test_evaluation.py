"""`evaluate` behind the server's URL: its requests are taken as they are, and answered as it answers by itself."""

from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest

from onethinker_jax.data_pipeline.processor.processor_config import read_settings
from onethinker_jax.data_pipeline.processor.prompts import OWN_PROMPTS
from onethinker_jax.data_pipeline.records.record import Record
from onethinker_jax.evaluate.answers import endpoint_model
from onethinker_jax.evaluate.answers.answerers import Question
from onethinker_jax.evaluate.answers.endpoint_flags import EndpointFlags
from onethinker_jax.evaluate.answers.endpoint_model import EndpointModel
from onethinker_jax.model.sharding import make_mesh
from onethinker_jax.model_arguments import ModelArguments
from onethinker_jax.responses import Sampler
from onethinker_jax.sampler_settings import SamplerSettings
from tests.data_pipeline.making import write_image, write_video
from tests.serve.serving import Running
from tests.waiting import HANG_S

NEW = 12


def record(number: int, **media: tuple[Path, ...]) -> Record:
    kind = "video" if "videos" in media else "image" if "images" in media else "text"
    files = media.get("images", ()), media.get("videos", ())
    return Record(number, f"What about {number}?", kind, "open-ended", (), "", *files, "")


@pytest.fixture
def asked(running_server: Running, model: Path, monkeypatch: pytest.MonkeyPatch) -> EndpointModel:
    """With the bounds of images that the directory has; a URL does not tell them, so those of released models count."""
    monkeypatch.setattr(endpoint_model, "RELEASED", read_settings(model))
    arguments: dict[str, Any] = {"max_new_tokens": NEW, "video_max_frames": 4, "video_max_pixels": 4096}
    of_model = ModelArguments(model=Path("unused"), **arguments)
    flags = EndpointFlags(timeout=HANG_S, retries=0, model="tiny")
    return EndpointModel(running_server.server.url, of_model, flags, OWN_PROMPTS)


def test_answers_equal_those_of_the_directory(
    running_server: Running, asked: EndpointModel, tmp_path: Path
) -> None:
    pictures = [write_image(tmp_path / f"{n}.png", 64, 64, seed=n) for n in range(2)]
    records = [record(0), record(1, images=(pictures[0],)), record(2, images=(*pictures,))]
    found = [
        answer
        for part in asked.answer([Question(n, one) for n, one in enumerate(records)])
        for answer in part
    ]
    processor = running_server.parts.maker.processor
    settings = SamplerSettings(
        prompt_tokens=256, prompt_patches=512, max_new_tokens=NEW, temperature=0, prompt_slots=1
    )
    mesh = make_mesh()
    graphdef, params = running_server.parts.arguments.of_model().load(mesh)
    sampler = Sampler(graphdef, processor, settings, mesh=mesh, lazy=True)
    expected = sampler(params, [processor.prompt(one) for one in records], seed=0, step=0)
    texts = {answer.number: answer.response for answer in found}
    assert [texts[number] for number in range(3)] == [one.texts[0] for one in expected]


def test_a_video_of_frames_is_the_video(
    running_server: Running, asked: EndpointModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each frame with its time, although the server itself would sample others; pixels as JPEG keeps them."""
    times = [0, 0.2, 0.4, 0.9, 1.3, 2.4, 2.7]
    one = record(3, videos=(write_video(tmp_path / "a.mp4", times, size=(64, 64)),))
    processor = running_server.parts.maker.processor
    theirs, ours = processor.prompt(one), []
    made = running_server.parts.maker._made
    monkeypatch.setattr(
        running_server.parts.maker, "_made", lambda *given: ours.append(made(*given)) or ours[-1]
    )
    request = asked.request(one)
    assert request.more["media_io_kwargs"]["video"]["frames_indices"][0] == 0
    client = running_server.client()
    fields: dict[str, Any] = {"model": "tiny", "messages": request.messages, "max_tokens": 2}
    client.chat.completions.create(**fields, extra_body=request.more)
    np.testing.assert_array_equal(ours[0].tokens, theirs.tokens)
    np.testing.assert_array_equal(ours[0].grids, theirs.grids)
    assert np.abs(ours[0].patches.astype(int) - theirs.patches).max() < 16
    for wrong, said in (
        ({}, "needs their times, in media_io_kwargs.video"),
        ({"media_io_kwargs": {"video": {"fps": 2}}}, "media_io_kwargs.video"),
        (changed(request.more, frames_indices=[0, 1]), "frames, and 2 frames_indices"),
        (changed(request.more, frames_indices=[5, 6, 7, 8]), "must increase from 0"),
        (changed(request.more, total_num_frames=1), "must increase from 0"),
        (changed(request.more, do_sample_frames=True), "do_sample_frames"),
    ):
        with pytest.raises(openai.BadRequestError, match=said):
            client.chat.completions.create(**fields, extra_body=wrong)


def changed(extra: Any, **values: Any) -> dict[str, Any]:
    return {"media_io_kwargs": {"video": {**extra["media_io_kwargs"]["video"], **values}}}
