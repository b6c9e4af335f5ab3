"""An answer's text as its tokens come: what `Processor.decode` gives of the whole, cut at the first stop string."""

import itertools
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onethinker_jax.data_pipeline.processor.chat import ProcessorError
from onethinker_jax.data_pipeline.processor.processor import Processor
from onethinker_jax.data_pipeline.processor.token_bytes import TokenBytes
from onethinker_jax.data_pipeline.records.conversation import Part, literal, split_media
from onethinker_jax.serve.answer_text import AnswerText


def common_beginning(one: str, other: str) -> str:
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    return "".join(character for character, _ in same)


@pytest.fixture(scope="module")
def processor(model: Path) -> Processor:
    return Processor.from_pretrained(model)


def tokens_of(processor: Processor) -> st.SearchStrategy[list[int]]:
    """Any tokens, and those of texts whose characters are spread over several tokens."""
    any_tokens = st.lists(st.integers(0, len(processor.tokenizer) + 3), max_size=30)
    texts = st.text(max_size=12).map(processor.tokenizer.encode)
    return st.lists(st.one_of(any_tokens, texts), max_size=4).map(lambda parts: [*itertools.chain(*parts)])


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_the_pieces_are_the_whole(processor: Processor, data: st.DataObject) -> None:
    tokens = data.draw(tokens_of(processor))
    whole = processor.decode(tokens)
    letters = st.sampled_from(whole.replace("\ufffd", "") or "a")
    stops = data.draw(st.lists(st.text(letters, min_size=1, max_size=4), max_size=3))
    text = AnswerText(TokenBytes(processor.tokenizer), stops)
    pieces = []
    for token in tokens:
        pieces.append(text.add(token))
        if text.stopped:
            break
    pieces.append(text.end())
    # What is known after each token: of characters that are not whole the end of the text says nothing yet.
    known = (common_beginning(processor.decode(tokens[:end]), whole) for end in range(len(tokens) + 1))
    ended = next((one for one in known if any(stop in one for stop in stops)), None)
    at = len(whole) if ended is None else min(at for stop in stops if (at := ended.find(stop)) >= 0)
    assert "".join(pieces) == whole[:at]
    assert text.stopped == (ended is not None)


def test_characters_come_whole(processor: Processor) -> None:
    tokens = processor.tokenizer.encode("a✓b")
    assert len(tokens) == 5, "the sign is three tokens"
    text = AnswerText(TokenBytes(processor.tokenizer))
    assert [text.add(token) for token in tokens] == ["a", "", "", "✓", "b"]


def test_the_beginning_of_a_stop_string_is_held_back(processor: Processor) -> None:
    text = AnswerText(TokenBytes(processor.tokenizer), ["xyz", "b\n"])
    said = [text.add(processor.tokenizer.encode(letter)[0]) for letter in "axyaxbaxyz"]
    assert said == ["a", "", "", "xya", "", "x", "ba", "", "", ""]
    assert text.stopped and text.end() == ""


def test_every_token_has_its_bytes(processor: Processor) -> None:
    tokens = TokenBytes(processor.tokenizer)
    for token in range(len(processor.tokenizer)):
        assert tokens.written(token).decode("utf-8", "replace") == processor.decode([token])
        assert tokens.named(token).decode("utf-8", "replace") == processor.tokenizer.decode([token])


def test_another_kind_of_tokenizer_is_refused(processor: Processor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor.tokenizer, "decoder_type", "WordPiece", raising=False)
    with pytest.raises(ProcessorError, match="decoded by WordPiece, not as bytes"):
        TokenBytes(processor.tokenizer)


@given(st.text(st.sampled_from("\\<image>vdo ab")))
def test_words_that_stand_for_media_are_kept_as_words(text: str) -> None:
    try:
        written = literal(text)
    except ValueError:
        assert "\\<image>" in text or "\\<video>" in text
        return
    assert split_media(written) == ([Part("text", text)] if text else [])
