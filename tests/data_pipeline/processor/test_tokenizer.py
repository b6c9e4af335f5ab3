"""The tokenizer trained on the spot: deterministic, lossless, read by transformers, Qwen3-VL's chat text."""

import json
import random

import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from onethinker_jax.data_pipeline.processor.prompts import ask
from onethinker_jax.data_pipeline.processor.tokenizer import SPECIAL_TOKENS, THINK_TOKENS, train_tokenizer
from onethinker_jax.data_pipeline.shapes.questions import ask_task
from onethinker_jax.data_pipeline.shapes.random_scenes import image_scene
from onethinker_jax.tasks import Task


def corpus() -> list[str]:
    rng, texts = random.Random(5), []
    for number in range(300):
        problem_type = ("spatial grounding", "segmentation", "open-ended", "numerical")[number % 4]
        question = ask_task(image_scene(rng, "shapes"), problem_type, rng)
        if question is not None:
            texts.append(ask(f"<image>{question.problem}", question.options, Task(problem_type, "image")))
            texts.append(f"<think>{question.thinking}</think>\n<answer>{question.answer}</answer>")
    return texts


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(corpus(), path, vocab_size=600)
    return path


@pytest.fixture(scope="module")
def tokenizer(directory):
    return AutoTokenizer.from_pretrained(directory)


def test_same_texts_give_the_same_files(directory, tmp_path):
    train_tokenizer(iter(corpus()), tmp_path, vocab_size=600)
    for file in directory.iterdir():
        assert file.read_bytes() == (tmp_path / file.name).read_bytes(), file.name


def test_size_and_special_ids(tokenizer):
    assert 256 + 10 < len(tokenizer) <= 600
    ids = tokenizer.convert_tokens_to_ids([*SPECIAL_TOKENS, *THINK_TOKENS])
    assert ids == list(range(len(tokenizer) - 10, len(tokenizer)))
    assert tokenizer.eos_token == "<|im_end|>" and tokenizer.pad_token == "<|endoftext|>"


@pytest.mark.parametrize(
    "text",
    [
        "<think>The red circle is at the upper left.</think>\n<answer>B</answer>",
        '{"boxes": [120, 340, 410, 690], "time": [1.5, 4.0]}',
        "  spaces   and\n\n\ttabs ' s 's don't",
        "Größe 東京 🙂 ½ \u00e9",
        "",
    ],
)
def test_round_trip(tokenizer, text):
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_digits_are_tokens_of_their_own_and_thinking_tags_survive_skipping(tokenizer):
    assert [tokenizer.decode([i]) for i in tokenizer("690")["input_ids"]] == ["6", "9", "0"]
    ids = tokenizer("<think>a</think><|im_end|>")["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "<think>a</think>"


def test_transformers_tokenizes_like_the_saved_tokenizer(tokenizer, directory):
    raw = Tokenizer.from_file(str(directory / "tokenizer.json"))
    for text in [*corpus()[:50], "Größe 東京 's 12,5 e\u0301"]:
        assert tokenizer(text)["input_ids"] == raw.encode(text).ids


def test_it_compresses_what_it_was_trained_on(tokenizer):
    texts = [text for text in corpus() if "Locate" in text]
    assert sum(len(tokenizer(text)["input_ids"]) for text in texts) < 0.4 * sum(map(len, texts))


def test_chat_text_is_qwen3_vls(tokenizer):
    parts = [{"type": "image"}, {"type": "text", "text": "and"}, {"type": "video"}]
    messages = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": [*parts, {"type": "text", "text": " which?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "<think>x</think>\n<answer>y</answer>"}]},
        {"role": "user", "content": "Sure?"},
    ]
    image, video = (f"<|vision_start|><|{kind}_pad|><|vision_end|>" for kind in ("image", "video"))
    expected = (
        "<|im_start|>system\nBe short.<|im_end|>\n"
        f"<|im_start|>user\n{image}and{video} which?<|im_end|>\n"
        "<|im_start|>assistant\n<think>x</think>\n<answer>y</answer><|im_end|>\n"
        "<|im_start|>user\nSure?<|im_end|>\n"
    )
    assert tokenizer.apply_chat_template(messages, tokenize=False) == expected
    prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert prompt == expected + "<|im_start|>assistant\n"


def test_processors_find_the_chat_template(directory):
    assert (directory / "chat_template.jinja").read_text() == json.loads(
        (directory / "tokenizer_config.json").read_text()
    )["chat_template"]


def test_preprocessor_files(directory):
    image = json.loads((directory / "preprocessor_config.json").read_text())
    video = json.loads((directory / "video_preprocessor_config.json").read_text())
    for config in (image, video):
        assert (config["patch_size"], config["temporal_patch_size"], config["merge_size"]) == (16, 2, 2)
        assert set(config["size"]) == {"shortest_edge", "longest_edge"}
    assert image["image_processor_type"] == "Qwen2VLImageProcessorFast"
    assert video["video_processor_type"] == "Qwen3VLVideoProcessor"


def test_too_small_a_vocabulary_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="vocab_size"):
        train_tokenizer(["a"], tmp_path / "t", vocab_size=200)
    assert not (tmp_path / "t").exists()
