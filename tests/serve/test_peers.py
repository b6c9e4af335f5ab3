"""Other people's tools: what evaluation harnesses send is taken; what vLLM reads is what transformers' class has."""

import json
import re
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from safetensors import safe_open

from onethinker_jax.data_pipeline.media.decoding import load_video
from tests.data_pipeline.making import write_video
from tests.serve.serving import Running, image_url

PICTURE = image_url(64, 64)


@pytest.mark.parametrize(
    "request_of",
    [
        {  # VLMEvalKit's GPT4V, and with a system prompt
            "messages": [
                {"role": "system", "content": [{"type": "text", "text": "Answer briefly."}]},
                {
                    "role": "user",
                    "content": [
                        {"type": "image_url", "image_url": {"url": PICTURE, "detail": "low"}},
                        {"type": "text", "text": "Which? A or B?"},
                    ],
                },
            ],
            "n": 1,
            "temperature": 0,
            "max_tokens": 8,
        },
        {  # lmms-eval's openai_compatible: a video goes as images
            "messages": [
                {
                    "role": "user",
                    "content": [
                        *[{"type": "image_url", "image_url": {"url": PICTURE}}] * 3,
                        {"type": "text", "text": "What happens?"},
                    ],
                }
            ],
            "max_tokens": 8,
            "temperature": 0,
        },
        {  # a client of OpenAI's newer models
            "messages": [{"role": "user", "content": "Hello"}],
            "max_completion_tokens": 4,
            "response_format": {"type": "text"},
            "user": "someone",
            "stream": False,
            "presence_penalty": 0.0,
            "stop": None,
        },
    ],
    ids=["VLMEvalKit", "lmms-eval", "others"],
)
def test_requests_of_evaluation_harnesses(running_server: Running, request_of: dict[str, Any]) -> None:
    url = f"{running_server.server.url}/chat/completions"
    headers = {"Authorization": "Bearer sk-none"}
    got = httpx2.post(url, json={"model": "tiny", **request_of}, headers=headers, timeout=None)
    assert got.status_code == 200
    assert isinstance(got.json()["choices"][0]["message"]["content"], str)


def test_a_harness_names_a_video_and_how_many_frames(
    running_server: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """lmms-eval with `pass_video_url`: the prompt is that of the file's frames, evenly by their number."""
    folder = running_server.parts.arguments.media_folder
    assert folder is not None
    video = write_video(folder / "a b.mp4", [0, 0.2, 0.4, 0.9, 1.3, 2.4, 2.7], size=(64, 64))
    maker, made = running_server.parts.maker, []
    given = maker._made
    monkeypatch.setattr(maker, "_made", lambda record: made.append(given(record)) or made[-1])
    content = [{"type": "video_url", "video_url": {"url": f"file://{video}"}}, {"type": "text", "text": "?"}]
    messages: list[Any] = [{"role": "user", "content": content}]
    create = running_server.client().chat.completions.create
    for count in (2, 3):
        extra = {"media_io_kwargs": {"video": {"num_frames": count}}}
        create(model="tiny", messages=messages, max_tokens=2, temperature=0, extra_body=extra)
        frames = load_video(video, fps=1, max_frames=9, num_frames=count)
        told = [f"<{time:.1f} seconds>" for time in _of_pairs(frames.timestamps)]
        text = maker._processor.tokenizer.decode(made[-1].tokens, skip_special_tokens=False)
        assert re.findall(r"<[\d.]+ seconds>", text) == told
    for wrong, said in (
        ({"num_frames": 5}, "media_io_kwargs.video.num_frames: 5, more than the 4 allowed"),
        ({"num_frames": 0}, "media_io_kwargs.video.num_frames: input should be greater than"),
        ({"num_frames": 2, "fps": 1.0}, "media_io_kwargs.video."),
    ):
        with pytest.raises(openai.BadRequestError, match=re.escape(said)):
            create(model="tiny", messages=messages, extra_body={"media_io_kwargs": {"video": wrong}})


def _of_pairs(times: Any) -> list[float]:
    """The times that the model is told: one for two frames, in their middle; an odd last one is doubled."""
    padded = [*times, *([times[-1]] if len(times) % 2 else [])]
    return [(one + other) / 2 for one, other in zip(padded[::2], padded[1::2], strict=True)]


def test_a_directory_is_what_others_read(model: Path) -> None:
    """Names and shapes of weights, and the config, are those of transformers' class, which vLLM takes them from."""
    torch = pytest.importorskip("torch")
    from transformers import AutoConfig, Qwen3VLForConditionalGeneration

    config: Any = AutoConfig.from_pretrained(model)
    with torch.device("meta"):
        network = Qwen3VLForConditionalGeneration(config)
    tied = {"lm_head.weight"} if config.tie_word_embeddings else set()
    theirs = {name: tuple(value.shape) for name, value in network.state_dict().items() if name not in tied}
    ours = {}
    for file in model.glob("*.safetensors"):
        with safe_open(file, "np") as tensors:
            ours |= {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    assert ours == theirs
    written = json.loads((model / "config.json").read_text())
    assert written["architectures"] == ["Qwen3VLForConditionalGeneration"]
    for part in ("text_config", "vision_config"):
        read = getattr(config, part).to_dict()
        differing = {name for name, value in written[part].items() if name in read and read[name] != value}
        renamed = {
            "model_type",
            "rope_scaling",
            "rope_parameters",
            "torch_dtype",
            "dtype",
        }  # by transformers 5
        assert not differing - renamed, differing
