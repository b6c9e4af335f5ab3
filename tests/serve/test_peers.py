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
from tests.serve.serving import Running, image_url, video, video_url

PICTURE = image_url(64, 64)


def picture(**more: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": PICTURE, **more}}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


REQUESTS: dict[str, dict[str, Any]] = {
    "VLMEvalKit, --base-url": {
        "messages": [{"role": "user", "content": [picture(), picture(), text("Which? A or B?")]}],
        "n": 1,
        "max_tokens": 8,
        "temperature": 0.0,
    },
    "VLMEvalKit, --base-url --stream --top-k --top-p --repetition-penalty": {
        "messages": [
            {"role": "system", "content": "Answer briefly."},
            {"role": "user", "content": [text("Which? A or B?")]},
        ],
        "n": 1,
        "max_tokens": 8,
        "temperature": 0.7,
        "top_k": 20,
        "top_p": 0.8,
        "repetition_penalty": 1.0,
        "stream": True,
    },
    "VLMEvalKit, --api-mode: a data set of several turns": {
        "messages": [
            {"role": "user", "content": [text("What is"), picture(), text("this?")]},
            {"role": "assistant", "content": [text("A shape.")]},
            {"role": "user", "content": [text("And what is in"), picture(), text("this one?")]},
            {"role": "assistant", "content": [text("Another")]},
            {"role": "user", "content": [text("Which was first?")]},
        ],
        "n": 1,
        "max_tokens": 8,
        "temperature": 0.5,
        "stream": True,
    },
    "VLMEvalKit, GPT4V": {
        "messages": [
            {"role": "system", "content": "Answer briefly."},
            {
                "role": "user",
                "content": [picture(detail="low"), text("Which? A or B?"), picture(detail="high")],
            },
        ],
        "temperature": 0,
        "max_tokens": 8,
    },
    "lmms-eval, openai: a video goes as images": {
        "messages": [{"role": "user", "content": [picture(), picture(), picture(), text("What happens?")]}],
        "max_tokens": 8,
        "temperature": 0,
    },
    "lmms-eval, async_openai with is_qwen3_vl": {
        "messages": [
            {
                "role": "user",
                "content": [
                    text("<0.0 seconds>"),
                    picture(),
                    text("<1.5 seconds>"),
                    picture(),
                    text("When?"),
                ],
            }
        ],
        "max_tokens": 8,
        "temperature": 0,
    },
    "a client of OpenAI's newer models": {
        "messages": [{"role": "user", "content": "Hello"}],
        "max_completion_tokens": 4,
        "response_format": {"type": "text"},
        "user": "someone",
        "stream": False,
        "presence_penalty": 0.0,
        "stop": None,
    },
}


@pytest.mark.parametrize("name", REQUESTS)
def test_requests_of_evaluation_harnesses(running_server: Running, name: str) -> None:
    """As the harnesses sent them when they were run against the server, and read as they read the answers."""
    request = REQUESTS[name]
    url = f"{running_server.server.url}/chat/completions"
    headers = {"Authorization": "Bearer sk-none", "Content-Type": "application/json"}
    got = httpx2.post(url, content=json.dumps({"model": "tiny", **request}), headers=headers, timeout=None)
    assert got.status_code == 200, got.text
    if not request.get("stream"):
        assert isinstance(got.json()["choices"][0]["message"]["content"], str)
        return
    *events, last = [line.removeprefix("data: ") for line in got.text.splitlines() if line]
    assert last == "[DONE]"
    assert all(isinstance(json.loads(one)["choices"][0]["delta"].get("content") or "", str) for one in events)


def test_a_harness_sends_a_video_whole(running_server: Running, tmp_path: Path) -> None:
    """VLMEvalKit with --video-llm; what only its own servers know is refused by its name."""
    content: list[Any] = [video(video_url(tmp_path)), text("What happens?")]
    url = f"{running_server.server.url}/chat/completions"
    body: dict[str, Any] = {
        "model": "tiny",
        "messages": [{"role": "user", "content": content}],
        "max_tokens": 4,
    }
    assert httpx2.post(url, json={**body, "n": 1, "temperature": 0.0}, timeout=None).status_code == 200
    content[0]["video_url"]["resized_height"] = 64
    got = httpx2.post(url, json=body, timeout=None)
    assert got.status_code == 400 and "video_url.resized_height: " in got.json()["error"]["message"]


def test_a_harness_names_a_video_and_how_many_frames(
    running_server: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """lmms-eval with `pass_video_url`: the prompt is that of the file's frames, evenly by their number."""
    folder = running_server.parts.arguments.media_folder
    assert folder is not None
    film = write_video(folder / "a b.mp4", [0, 0.2, 0.4, 0.9, 1.3, 2.4, 2.7], size=(64, 64))
    maker, made = running_server.parts.maker, []
    given = maker._made
    monkeypatch.setattr(maker, "_made", lambda *asked: made.append(given(*asked)) or made[-1])
    content = [{"type": "video_url", "video_url": {"url": f"file://{film}"}}, {"type": "text", "text": "?"}]
    messages: list[Any] = [{"role": "user", "content": content}]
    create = running_server.client().chat.completions.create
    for count in (2, 3):
        extra = {"media_io_kwargs": {"video": {"num_frames": count}}}
        create(model="tiny", messages=messages, max_tokens=2, temperature=0, extra_body=extra)
        frames = load_video(film, fps=1, max_frames=9, num_frames=count)
        told = [f"<{time:.1f} seconds>" for time in _of_pairs(frames.timestamps)]
        prompt = maker.processor.tokenizer.decode(made[-1].tokens, skip_special_tokens=False)
        assert re.findall(r"<[\d.]+ seconds>", prompt) == told
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
