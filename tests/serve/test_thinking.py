"""A chat template that opens <think>: answers begin with what it wrote, whole and streamed, as in evaluation."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from onethinker_jax.data_pipeline.processor.processor import Processor
from onethinker_jax.data_pipeline.records.record import Record
from onethinker_jax.model.sharding import make_mesh
from onethinker_jax.responses import Sampler
from onethinker_jax.sampler_settings import SamplerSettings
from tests.places import THINKING_TEMPLATE
from tests.serve.serving import NEW, Running, user


@pytest.fixture
def thinking(
    running_server: Running, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Processor:
    """The server's processor for the time of a test: the model's own, with such a template."""
    shutil.copytree(model, tmp_path / "model")
    (tmp_path / "model" / "chat_template.jinja").write_text(THINKING_TEMPLATE.read_text())
    processor = Processor.from_pretrained(tmp_path / "model")
    monkeypatch.setattr(running_server.parts.maker, "processor", processor)
    return processor


def test_the_opening_is_part_of_the_answer(running_server: Running, thinking: Processor) -> None:
    message = {"role": "user", "content": "What is this?"}
    record = Record(1, "", "text", "open-ended", (), "", (), (), "test", (message,))
    settings = SamplerSettings(prompt_slots=1, prompt_tokens=256, prompt_patches=0, max_new_tokens=NEW)
    mesh = make_mesh()
    graphdef, params = running_server.parts.arguments.of_model().load(mesh)
    prompt = thinking.prompt(record)
    (expected,) = Sampler(graphdef, thinking, settings, mesh=mesh, lazy=True)(
        params, [prompt], seed=6, step=0
    )
    assert expected.texts[0].startswith("<think>\n")

    client = running_server.client()
    how: dict[str, Any] = {"model": "tiny", "messages": user("What is this?"), "seed": 6}
    whole = client.chat.completions.create(**how)
    assert whole.choices[0].message.content == expected.texts[0]
    assert whole.usage is not None and whole.usage.prompt_tokens == len(prompt.tokens)
    assert whole.usage.completion_tokens == len(expected.tokens[0])
    chunks = [
        chunk.choices[0].delta.content or "" for chunk in client.chat.completions.create(**how, stream=True)
    ]
    assert chunks[0] == "<think>\n" and "".join(chunks) == expected.texts[0]
    stop = expected.texts[0][len("<think>\n") + 3 :][:2]
    cut = client.chat.completions.create(**how, stop=["think", stop])
    written = expected.texts[0][len("<think>\n") :]
    ends = min(at for one in ("think", stop) if (at := written.find(one)) >= 0)
    assert cut.choices[0].message.content == "<think>\n" + written[:ends], (
        "stop strings look at what is sampled"
    )
