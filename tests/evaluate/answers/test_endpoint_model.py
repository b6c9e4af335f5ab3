"""A model behind a URL, over real HTTP: what it is sent, and answers, failures and stalls as they come back."""

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from onethinker_jax.command_line import UsageError
from onethinker_jax.data_pipeline.media.reading.media_reader import MediaReader
from onethinker_jax.data_pipeline.media.resizing import PixelBounds
from onethinker_jax.data_pipeline.processor.prompts import OWN_PROMPTS, Prompts, chat_messages
from onethinker_jax.data_pipeline.records.record import Record
from onethinker_jax.endpoint import endpoint as endpoint_module
from onethinker_jax.endpoint.endpoint import EndpointError
from onethinker_jax.evaluate.answers.answerers import Answer, Question
from onethinker_jax.evaluate.answers.endpoint_flags import EndpointFlags
from onethinker_jax.evaluate.answers.endpoint_model import EndpointModel
from onethinker_jax.evaluate.asking.protocols import DEFAULTS, WORDS
from onethinker_jax.model_arguments import ModelArguments
from tests.data_pipeline.making import write_image, write_video
from tests.endpoint.scripted_endpoint import Gate, Response, ScriptedEndpoint, failure
from tests.waiting import HANG_S, wait_until

OWN = {*ModelArguments.__dataclass_fields__} - {"model"}


def record(problem: str, number: int = 0, **media: tuple[Path, ...]) -> Record:
    images, videos = media.get("images", ()), media.get("videos", ())
    return Record(
        problem=problem,
        problem_type="open-ended",
        data_type="video" if videos else "image" if images else "text",
        problem_id=number,
        options=(),
        answer="",
        images=images,
        videos=videos,
        data_source="",
    )


def model(url: str, prompts: Prompts = OWN_PROMPTS, **changes: Any) -> EndpointModel:
    own = {name: changes.pop(name) for name in list(changes) if name in OWN}
    quick: dict[str, Any] = {"timeout": HANG_S, "retries": 1, "backoff": 0.01}
    flags = EndpointFlags(**{**quick, **changes})
    return EndpointModel(url, ModelArguments(model=Path("unused"), **own), flags, prompts)


def questions(count: int) -> list[Question]:
    return [Question(number, record(f"Question {number}?", number)) for number in range(count)]


def number_of(request: dict[str, Any]) -> int:
    return int(request["messages"][-1]["content"].split()[1].rstrip("?"))


def right(request: dict[str, Any], _: int) -> Response:
    return Response(f"<answer>{number_of(request)}</answer>")


def all_answers(of: EndpointModel, asked: Sequence[Question]) -> dict[tuple[int, int], Answer]:
    found = [answer for part in of.answer(asked) for answer in part]
    keyed = {(answer.number, answer.sample): answer for answer in found}
    assert len(keyed) == len(found), "a sample is answered twice"
    return keyed


def pixels(url: str, kind: str) -> np.ndarray:
    head, _, data = url.partition(";base64,")
    assert head == f"data:image/{kind}"
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        assert image.format == kind.upper()
        return np.asarray(image)


def test_images_come_as_the_model_would_see_them(tmp_path: Path) -> None:
    """In their places, without loss, in the size that the protocol gives them."""
    files = (
        write_image(tmp_path / "large.png", height=1800, width=1400),
        write_image(tmp_path / "small.png", height=100, width=64),
    )
    asked = record("Is <image> like <image>?", images=files)
    arguments = ModelArguments(model=Path("x")).with_defaults(DEFAULTS["vlmevalkit"])
    with ScriptedEndpoint(lambda *_: Response("yes")) as server:
        of = EndpointModel(server.url, arguments, EndpointFlags(extra_body='{"k": 1}'), WORDS["vlmevalkit"])
        assert all_answers(of, [Question(3, asked)]) == {(3, 0): Answer(3, 0, "yes", tokens=1)}
    (seen,) = server.seen
    system, user = seen.request["messages"]
    assert system == {"role": "system", "content": WORDS["vlmevalkit"].system}
    assert [part["type"] for part in user["content"]] == ["text", "image_url", "text", "image_url", "text"]
    assert [part["text"] for part in user["content"][::2]] == ["Is ", " like ", "?"]
    for part, file in zip(user["content"][1::2], files, strict=True):
        sent = pixels(part["image_url"]["url"], "png")
        np.testing.assert_array_equal(sent, MediaReader().image(file, PixelBounds(32, 65536, 1024 * 1024)))
        assert sent.shape[0] % 32 == sent.shape[1] % 32 == 0 and sent.shape[0] * sent.shape[1] <= 1024 * 1024
    told = {name: seen.request[name] for name in ("model", "temperature", "top_p", "max_tokens", "k")}
    assert told == {"model": "served", "temperature": 0.1, "top_p": 0.001, "max_tokens": 8192, "k": 1}


def test_a_video_comes_as_one_with_its_times(tmp_path: Path) -> None:
    file = write_video(tmp_path / "a.mp4", [n / 5 for n in range(30)])
    asked = record("<video>What moves?", videos=(file,))
    with ScriptedEndpoint(lambda *_: Response("it")) as server:
        of = model(server.url, video_num_frames=7, video_max_pixels=64 * 64, top_k=5)
        all_answers(of, [Question(0, asked)])
    ((user,), request) = server.seen[0].request["messages"], server.seen[0].request
    video, text = user["content"]
    head, _, data = video["video_url"]["url"].partition(";base64,")
    assert head == "data:video/jpeg" and text["text"] == chat_messages(asked)[0]["content"].removeprefix(
        "<video>"
    )
    bounds = PixelBounds(32, 4 * 32 * 32, 64 * 64)
    right = MediaReader().video(file, bounds, fps=2.0, max_frames=128, num_frames=7)
    frames = [pixels(f"data:image/jpeg;base64,{frame}", "jpeg") for frame in data.split(",")]
    assert len(frames) == 7 and np.abs(np.stack(frames).astype(int) - right.frames).mean() < 3
    told = request["media_io_kwargs"]["video"]
    assert told["frames_indices"] == [
        0,
        1000,
        2000,
        2800,
        3800,
        4800,
        5800,
    ]  # of 30 frames 0, 5, 10, 14, 19, 24, 29
    assert (told["fps"], told["num_frames"], told["do_sample_frames"]) == (1000, -1, False)
    assert told["total_num_frames"] == 6000 and request["top_k"] == 5


def test_a_video_comes_as_frames(tmp_path: Path) -> None:
    file = write_video(tmp_path / "a.mp4", [n / 5 for n in range(20)])
    with ScriptedEndpoint(lambda *_: Response("it")) as server:
        of = model(server.url, video="frames", video_fps=1.0)
        all_answers(of, [Question(0, record("<video>What moves?", videos=(file,)))])
    (user,) = server.seen[0].request["messages"]
    assert "media_io_kwargs" not in server.seen[0].request
    kinds = [part["type"] for part in user["content"]]
    assert kinds == ["text", *["text", "image_url"] * 4, "text"]
    times = [part["text"] for part in user["content"][:-1] if part["type"] == "text"]
    assert times == ["A video of 4.0 seconds, 4 frames:", *(f"<{n}.0 seconds>" for n in range(4))]


def test_what_fails_is_failed_and_the_rest_is_answered(tmp_path: Path) -> None:
    """One is refused, one gets two errors, one comes late, one has no readable medium, one is held back, one is cut."""
    late = Gate(0)

    def answer(request: dict[str, Any], times: int) -> Response:
        number = number_of(request)
        if number == 1:
            return failure(400, "too long")
        if number == 2 and times < 2:
            return failure(503, "busy")
        if number == 3:
            late()
        if number == 5:
            return Response("", "content_filter")
        return Response(f"{number}", "length" if number == 6 else "stop")

    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    asked = questions(8)
    asked[4] = Question(4, record("<image>Question 4?", 4, images=(bad,)))
    found: dict[int, Answer] = {}
    with ScriptedEndpoint(answer) as server:
        for part in model(server.url, retries=2).answer(asked):
            found |= {one.number: one for one in part}
            if set(found) >= {0, 1, 2, 4, 5, 6, 7}:
                late.open()
    assert set(found) == set(range(8)) and list(found)[-1] == 3
    failed = {number: one.failed for number, one in found.items() if one.failed}
    assert set(failed) == {1, 4, 5}
    assert "refuses the question (400: too long)" in failed[1] and "bad.png" in failed[4]
    assert "content filter" in failed[5] and not any("\n" in why for why in failed.values())
    assert found[6] == Answer(6, 0, "6", tokens=1, cut_off=True)
    assert [found[number].response for number in (0, 2, 3, 7)] == ["0", "2", "3", "7"]


def test_a_stalled_request_is_asked_again() -> None:
    stalled = 0

    def answer(request: dict[str, Any], times: int) -> Response:
        nonlocal stalled
        if number_of(request) == 1 and not times:
            stalled += 1
            return Response(hang=1e6)
        return right(request, times)

    with ScriptedEndpoint(answer) as server:
        found = all_answers(model(server.url, timeout=1.0, retries=100), questions(3))
    assert stalled == 1 and [found[n, 0].response for n in range(3)] == [
        f"<answer>{n}</answer>" for n in range(3)
    ]


def test_requests_and_media_read_ahead_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is answered before as many are read as may be; from then on never more wait for their answers."""
    read, served, most = 0, 0, 0
    own = EndpointModel.request

    def request(self: EndpointModel, one: Record) -> Any:
        nonlocal read, most
        read += 1
        most = max(most, read - served)
        return own(self, one)

    def answer(request: dict[str, Any], times: int) -> Response:
        nonlocal served
        wait_until(lambda: server.most_at_once >= 3 and read >= 5)
        served += 1
        return right(request, times)

    monkeypatch.setattr(EndpointModel, "request", request)
    with ScriptedEndpoint(answer) as server:
        found = all_answers(model(server.url, concurrency=3), questions(40))
    assert len(found) == 40 and server.most_at_once == 3 and most == 5


def test_an_endpoint_that_goes_down_ends_it_and_fails_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint_module, "GIVE_UP_AFTER", 4)

    def answer(request: dict[str, Any], times: int) -> Response:
        return right(request, times) if number_of(request) < 5 else Response(drop=True)

    found: list[Answer] = []
    with ScriptedEndpoint(answer) as server:
        with pytest.raises(EndpointError, match="left 4 questions in a row without an answer") as caught:
            for part in model(server.url, concurrency=1, retries=0).answer(questions(30)):
                found += part
        assert len(server.seen) <= 10
    assert sorted(one.number for one in found) == [0, 1, 2, 3, 4] and not any(one.failed for one in found)
    assert server.url in str(caught.value) and "\n" not in str(caught.value)


def test_one_that_fails_among_others_is_failed() -> None:
    def answer(request: dict[str, Any], times: int) -> Response:
        return Response(drop=True) if number_of(request) in (3, 9) else right(request, times)

    with ScriptedEndpoint(answer) as server:
        found = all_answers(model(server.url, concurrency=1, retries=0), questions(10))
    assert {n for (n, _), one in found.items() if one.failed and "no connection" in one.failed} == {3, 9}


def test_closed_early() -> None:
    with ScriptedEndpoint(right) as server:
        parts = model(server.url, concurrency=2).answer(questions(10_000))
        next(parts)
        parts.close()
        assert len(server.seen) < 10_000


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_samples_have_seeds_of_their_own(temperature: float) -> None:
    asked = [Question(n, record(f"Question {n}?"), samples=(0, 2)) for n in range(3)]
    seeds = []
    for seed in (5, 5, 6):
        with ScriptedEndpoint(right) as server:
            of = model(server.url, temperature=temperature, seed=seed, stop=("END",))
            assert set(all_answers(of, asked)) == {(n, sample) for n in range(3) for sample in (0, 2)}
        seeds.append(sorted(seen.request.get("seed", -1) for seen in server.seen))
        assert all(seen.request["stop"] == ["END"] for seen in server.seen)
    if temperature:
        assert seeds[0] == seeds[1] and len({*seeds[0], *seeds[2]}) == 12
    else:
        assert {*seeds[0]} == {-1}


def test_the_name_of_the_model() -> None:
    with ScriptedEndpoint(right, models=("a", "b")) as server:
        with pytest.raises(EndpointError, match=r"serves 2 models: name one of them \(a, b\)"):
            model(server.url)
        assert model(server.url, model="b").settings["endpoint.model"] == "b"
    with pytest.raises(EndpointError, match=r"does not say which models it serves \(.+\): is it up\?"):
        model("http://127.0.0.1:9/v1", retries=0)
    with pytest.raises(UsageError, match=r"temperature -1\.0 must be 0 or more"):
        model("http://127.0.0.1:9/v1", model="b", temperature=-1.0)


def test_settings_say_what_answers_depend_on() -> None:
    def of(**changes: Any) -> str:
        return json.dumps(dict(model("http://h/v1", model="m", **changes).settings), sort_keys=True)

    same: list[dict[str, Any]] = [{"concurrency": 3}, {"timeout": 5.0}, {"api_key_env": "X"}]
    other: list[dict[str, Any]] = [
        {"temperature": 0.5},
        {"top_k": 3},
        {"image_format": "jpeg"},
        {"video": "frames"},
    ]
    other += [
        {"video_num_frames": 3},
        {"prompts": WORDS["vlmevalkit"]},
        {"extra_body": '{"a": 1}'},
        {"seed": 4},
    ]
    assert {of(**one) for one in same} == {of()}
    assert len({of(), *(of(**one) for one in other)}) == len(other) + 1
