"""Answers of the server, asked by the `openai` client: those that evaluation's sampler gives, whole and in pieces."""

import itertools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest

from onethinker_jax.data_pipeline.media.media_file import MemoryFile
from onethinker_jax.data_pipeline.processor.processor import Example
from onethinker_jax.data_pipeline.records.record import Record
from onethinker_jax.model.sharding import make_mesh
from onethinker_jax.responses import Sampler, Samples
from onethinker_jax.sampler_settings import SamplerSettings
from tests.data_pipeline.making import write_video
from tests.serve.serving import NEW, SLOTS, Running, data_url, image, image_url, user, video, video_url
from tests.waiting import wait_until


@pytest.fixture
def client(running_server: Running) -> openai.OpenAI:
    return running_server.client()


def ask(client: openai.OpenAI, messages: list[Any], **settings: Any) -> Any:
    return client.chat.completions.create(model="tiny", messages=messages, **settings)


@pytest.fixture(scope="module")
def evaluated(running_server: Running):
    """A question about media, and how it is sampled -> what evaluation's sampler answers."""
    arguments = running_server.parts.arguments.of_model()
    processor, mesh = arguments.processor(), make_mesh()
    graphdef, params = arguments.load(mesh)
    samplers: dict[SamplerSettings, Sampler] = {}

    def answers(
        text: str, images: list[bytes], videos: list[bytes], *, seed: int = 0, **settings: Any
    ) -> tuple[Example, Samples]:
        files = [tuple(MemoryFile("m", one) for one in some) for some in (images, videos)]
        message = {"role": "user", "content": "<image>" * len(images) + "<video>" * len(videos) + text}
        kind = "video" if videos else "image" if images else "text"
        record = Record(1, "", kind, "open-ended", (), "", files[0], files[1], "test", (message,))
        sizes = {"prompt_slots": 1, "prompt_tokens": 256, "prompt_patches": 512, "max_new_tokens": NEW}
        own = SamplerSettings(**{"temperature": 0.0, **sizes, **settings})
        if own not in samplers:
            samplers[own] = Sampler(graphdef, processor, own, mesh=mesh, lazy=True)
        prompt = processor.prompt(record)
        (samples,) = samplers[own](params, [prompt], seed=seed, step=0)
        return prompt, samples

    return answers


def png(seed: int, side: int = 64) -> bytes:
    import base64

    return base64.b64decode(image_url(side, side, seed).partition(",")[2])


def test_greedy_answers_equal_evaluation(client, evaluated, tmp_path: Path) -> None:
    """About a text, an image, two images, and a video."""
    film = write_video(tmp_path / "a.mp4", [0, 0.5, 1, 1.5], size=(64, 64)).read_bytes()
    for images, videos in (
        ([], []),
        ([png(1)], []),
        ([png(2), png(3, 48)], []),
        ([], [film]),
        ([png(4)], [film]),
    ):
        prompt, expected = evaluated("What is this?", images, videos)
        parts = [*(image(data_url(one)) for one in images), *(video(data_url(one)) for one in videos)]
        got = ask(client, user(*parts, "What is this?"), temperature=0, logprobs=True)
        assert got.choices[0].message.content == expected.texts[0]
        assert got.choices[0].finish_reason == ("length" if expected.reasons[0] == "length" else "stop")
        assert got.usage.prompt_tokens == len(prompt.tokens)
        assert got.usage.completion_tokens == len(expected.tokens[0])
        ours = [entry.logprob for entry in got.choices[0].logprobs.content]
        np.testing.assert_allclose(ours, expected.model_logprobs[0][: len(ours)], atol=2e-5)


@pytest.mark.parametrize(
    "how",
    [
        {"temperature": 1.0, "seed": 5},
        {"temperature": 0.7, "seed": -1, "top_p": 0.9},
        {"temperature": 1.5, "seed": 2**40 + 3, "top_k": 9, "min_p": 0.05},
    ],
    ids=str,
)
def test_seeded_answers_equal_evaluation(client, evaluated, how: dict[str, Any]) -> None:
    _, expected = evaluated(
        "Which colour?", [png(7)], [], group_size=3, **{**how, "seed": how["seed"] % 2**32}
    )
    extra = {name: how[name] for name in ("top_k", "min_p") if name in how}
    usual = {name: value for name, value in how.items() if name not in extra}
    got = ask(client, user(image(data_url(png(7))), "Which colour?"), n=3, extra_body=extra, **usual)
    assert [one.message.content for one in got.choices] == expected.texts
    assert len(set(expected.texts)) > 1


def test_a_seed_gives_the_same_answer_alone_and_in_a_crowd(client) -> None:
    messages, how = user("Tell me more."), {"temperature": 1.0, "seed": 11, "n": 2}
    alone = [one.message.content for one in ask(client, messages, **how).choices]
    assert alone != [one.message.content for one in ask(client, messages, **{**how, "seed": 12}).choices]
    with ThreadPoolExecutor(8) as pool:
        noise = [
            pool.submit(
                ask, client, user(f"Noise {n}", *[image(image_url(seed=n))] * (n % 2)), max_tokens=5 + n
            )
            for n in range(6)
        ]
        crowd = [pool.submit(ask, client, messages, **how) for _ in range(2)]
        for one in crowd:
            assert [choice.message.content for choice in one.result().choices] == alone
        assert len({one.result().id for one in noise}) == 6


def test_without_a_seed_answers_differ(client) -> None:
    texts = {
        ask(client, user("Say something."), temperature=1.0).choices[0].message.content for _ in range(3)
    }
    assert len(texts) == 3


def test_a_stream_is_the_answer_in_pieces(client) -> None:
    how = {"temperature": 1.0, "seed": 3, "n": 2, "logprobs": True, "top_logprobs": 2}
    whole = ask(client, user("Stream."), **how)
    stream = ask(client, user("Stream."), stream=True, stream_options={"include_usage": True}, **how)
    *chunks, last = list(stream)
    assert last.choices == [] and last.usage == whole.usage
    assert all(chunk.usage is None for chunk in chunks)
    assert {chunk.id for chunk in chunks} == {last.id}
    for choice in whole.choices:
        mine = [chunk.choices[0] for chunk in chunks if chunk.choices[0].index == choice.index]
        assert mine[0].delta.role == "assistant"
        assert "".join(one.delta.content or "" for one in mine) == choice.message.content
        assert [one.finish_reason for one in mine][-1] == choice.finish_reason
        assert all(one.finish_reason is None for one in mine[:-1])
        entries = [entry for one in mine if one.logprobs for entry in one.logprobs.content]
        assert entries == choice.logprobs.content
        assert len(mine) >= len(entries), "a chunk a token"


def test_logprobs(client, running_server: Running) -> None:
    got = ask(client, user("Logprobs."), temperature=0, logprobs=True, top_logprobs=20)
    entries = got.choices[0].logprobs.content
    assert b"".join(bytes(entry.bytes) for entry in entries).decode("utf-8", "replace") == (
        got.choices[0].message.content
    )
    for entry in entries:
        assert len(entry.top_logprobs) == 20
        assert (entry.top_logprobs[0].token, entry.top_logprobs[0].logprob) == (entry.token, entry.logprob)
        values = [one.logprob for one in entry.top_logprobs]
        assert values == sorted(values, reverse=True) and sum(np.exp(values)) < 1
    assert ask(client, user("Logprobs.")).choices[0].logprobs is None


def test_stop_strings(client, evaluated) -> None:
    _, expected = evaluated("Stop.", [], [], temperature=1.0, seed=21)
    whole = expected.texts[0]
    for stop in (whole[5:8], [whole[11], "no such text"], whole[-4:]):
        stops = [stop] if isinstance(stop, str) else stop
        cut = min(at for one in stops if (at := whole.find(one)) >= 0)
        for stream in (False, True):
            got = ask(client, user("Stop."), temperature=1.0, seed=21, stop=stop, stream=stream)
            if stream:
                chunks = [chunk.choices[0] for chunk in got]
                text, reason = "".join(one.delta.content or "" for one in chunks), chunks[-1].finish_reason
            else:
                text, reason = got.choices[0].message.content, got.choices[0].finish_reason
            assert (text, reason) == (whole[:cut], "stop")


def test_many_samples_share_one_prefill(client, running_server: Running) -> None:
    batch = running_server.parts.engine.batch
    before = batch.prefills
    got = ask(client, user(image(image_url()), "Eight."), n=8, temperature=1.0, seed=1)
    assert batch.prefills == before + 1
    assert [one.index for one in got.choices] == list(range(8))
    assert len({one.message.content for one in got.choices}) > 4
    assert got.usage.completion_tokens > 8


def test_a_conversation_with_a_system_turn(client) -> None:
    messages: list[Any] = [
        {"role": "developer", "content": "Be brief."},
        {
            "role": "user",
            "content": [image(image_url()), {"type": "text", "text": "A <image> word, and \\frac."}],
        },
        {"role": "assistant", "content": "Yes.", "refusal": None, "tool_calls": None},
        *user("Again?"),
    ]
    system = [{**messages[0], "role": "system"}, *messages[1:]]
    one, other = (ask(client, given, temperature=0, max_tokens=9) for given in (messages, system))
    assert one.choices[0].message.content == other.choices[0].message.content
    assert one.usage.completion_tokens <= 9


def slots(running_server: Running) -> tuple[int, int]:
    text = running_server.parts.metrics.text().decode()
    values = dict(
        line.split(" ") for line in text.splitlines() if line.startswith("onethinker_") and "{" not in line
    )
    return int(float(values["onethinker_slots_running"])), int(float(values["onethinker_requests_waiting"]))


def test_who_hangs_up_frees_the_slots(running_server: Running) -> None:
    """In the middle of a stream, and while waiting for the whole; the metrics show it."""
    client = running_server.client()
    how: dict[str, Any] = {"temperature": 1.0, "n": 8, "seed": 2, "max_tokens": NEW}
    wait_until(lambda: slots(running_server) == (0, 0))
    for _ in range(3):
        stream = ask(client, user("Long."), stream=True, **how)
        next(iter(stream))
        stream.close()
    wait_until(lambda: slots(running_server) == (0, 0))
    with pytest.raises(openai.APITimeoutError):
        ask(client.with_options(timeout=0.02), user("Long."), **how)
    wait_until(lambda: slots(running_server) == (0, 0))
    wait_until(lambda: running_server.parts.metrics.under_way == 0)
    assert 'status="gone"' in running_server.parts.metrics.text().decode()


def test_more_requests_than_slots(client, running_server: Running) -> None:
    def one(number: int) -> tuple[int, str]:
        parts = [image(image_url(seed=number))] if number % 3 == 0 else []
        got = ask(
            client, user(*parts, f"Number {number}"), temperature=1.0, seed=number, max_tokens=4 + number
        )
        return got.usage.completion_tokens, got.choices[0].message.content

    with ThreadPoolExecutor(4 * SLOTS) as pool:
        crowd = list(pool.map(one, range(4 * SLOTS)))
    assert crowd == [one(number) for number in range(4 * SLOTS)]
    assert len(set(crowd)) == len(crowd)


def test_files_of_the_folder(client, running_server: Running) -> None:
    folder = running_server.parts.arguments.media_folder
    assert folder is not None
    (folder / "a b.png").write_bytes(png(5))
    named = ask(client, user(image(f"file://{folder}/a%20b.png"), "What?"), temperature=0)
    sent = ask(client, user(image(data_url(png(5))), "What?"), temperature=0)
    assert named.choices[0].message.content == sent.choices[0].message.content


def test_models_and_tokens(client, running_server: Running, tmp_path: Path) -> None:
    (model,) = client.models.list()
    assert (model.id, model.object) == ("tiny", "model")
    assert client.models.retrieve("tiny") == model
    processor = running_server.parts.maker.processor
    got: Any = client.post("/../tokenize", body={"prompt": "What is this?"}, cast_to=object)
    assert got["tokens"] == processor.tokenizer.encode("What is this?") and got["count"] == len(got["tokens"])
    messages = user(image(image_url()), video(video_url(tmp_path)), "Both?")
    got = client.post("/../tokenize", body={"messages": messages, "return_token_strs": True}, cast_to=object)
    answer = ask(client, messages, max_tokens=1)
    assert got["count"] == answer.usage.prompt_tokens == len(got["token_strs"])
    assert "".join(got["token_strs"]).startswith("<|im_start|>user\n<|vision_start|><|image_pad|>")
    assert got["max_model_len"] == 256 + NEW


def test_counts_of_the_metrics(running_server: Running) -> None:
    client = running_server.client()

    def total(name: str) -> float:
        lines = running_server.parts.metrics.text().decode().splitlines()
        return float(next(line for line in lines if line.startswith(name)).rpartition(" ")[2])

    names = [
        "onethinker_prompt_tokens_total",
        "onethinker_generated_tokens_total",
        "onethinker_prefills_total",
    ]
    before = [total(name) for name in names]
    usage = [ask(client, user(f"Count {n}"), max_tokens=3 + n).usage for n in range(2)]
    after = [total(name) for name in names]
    added = [b - a for a, b in itertools.zip_longest(before, after)]
    assert added == [sum(u.prompt_tokens for u in usage), sum(u.completion_tokens for u in usage), 2]
