"""Other people's tools: what evaluation harnesses send is taken; what vLLM reads is what transformers' class has."""

import json
from pathlib import Path
from typing import Any

import httpx2
import pytest
from safetensors import safe_open

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
