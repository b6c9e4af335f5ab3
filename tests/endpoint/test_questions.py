"""Questions that must be readable, over real HTTP: what is asked again, what is cached, what a failure loses."""

import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from onethinker_jax.endpoint import endpoint as module
from onethinker_jax.endpoint.answer_cache import AnswerCache, CacheError, request_key
from onethinker_jax.endpoint.endpoint import EndpointError, Unanswered
from onethinker_jax.endpoint.questions import Question, Questions, answer_text
from onethinker_jax.endpoint.settings import EndpointSettings
from tests.endpoint.scripted_endpoint import Response, ScriptedEndpoint, failure
from tests.waiting import HANG_S, wait_until


def settings(url: str, **changes: Any) -> EndpointSettings:
    quick: dict[str, Any] = {"temperature": 0.0, "backoff": 0.01, "timeout": HANG_S, "retries": 1}
    return EndpointSettings(base_url=url, model="m", **{**quick, **changes})


def number(text: str) -> int | None:
    return int(text) if text.isdecimal() else None


def questions(*words: str) -> list[Question[int]]:
    return [Question([{"role": "user", "content": word}], number) for word in words]


def word(request: dict[str, Any]) -> str:
    return request["messages"][-1]["content"]


def lengths(request: dict[str, Any], _: int) -> Response:
    return Response(str(len(word(request))))


def test_order_and_equal_questions(tmp_path: Path) -> None:
    """The later questions are answered first, equal ones are asked once, and a second call asks nothing."""
    words = ["one", "seven", "a", "one", "four"]

    def late(request: dict[str, Any], _: int) -> Response:
        return Response(str(len(word(request))), hang=0.2 if word(request) == "one" else 0.0)

    cache = AnswerCache(tmp_path / "answers.sqlite")
    with ScriptedEndpoint(late) as server:
        asked = Questions(settings(server.url), cache)
        assert asked.ask(questions(*words)) == [3, 5, 1, 3, 4]
        assert len(server.seen) == 4 and (asked.asked, asked.cached, asked.unread) == (5, 0, 0)
        assert asked.ask(questions(*words)) == [3, 5, 1, 3, 4] and len(server.seen) == 4
        assert (asked.asked, asked.cached) == (5, 5)
    cache.close()
    again = Questions(settings("http://127.0.0.1:9/v1"), AnswerCache(tmp_path / "answers.sqlite"))
    assert again.ask(questions(*words)) == [3, 5, 1, 3, 4]


def test_what_an_answer_depends_on() -> None:
    at, messages = settings("http://h/v1"), questions("x")[0].messages
    key = request_key(at, messages)
    assert key == request_key(settings("http://other/v1", retries=5), messages) and len(key) == 64
    others = [
        {"model": "n"},
        {"temperature": 0.1},
        {"top_p": 0.5},
        {"max_tokens": 7},
        {"extra_body": '{"k": 1}'},
    ]
    keys = {request_key(at, questions("y")[0].messages)}
    for other in others:
        changed = EndpointSettings(**{**vars(at), **other})
        keys.add(request_key(changed, messages))
    assert key not in keys and len(keys) == 6


def test_unreadable_answers_are_asked_again_warmer(tmp_path: Path) -> None:
    def third_time(_: dict[str, Any], times: int) -> Response:
        return Response("7" if times == 2 else "hm")

    with ScriptedEndpoint(third_time) as server:
        assert Questions(settings(server.url), AnswerCache()).ask(questions("x")) == [7]
        assert [seen.request["temperature"] for seen in server.seen] == [0.0, 0.5, 1.0]
    cache = AnswerCache(tmp_path / "answers.sqlite")
    with ScriptedEndpoint(lambda *_: Response("no\nnumber")) as server:
        asked = Questions(settings(server.url), cache, tries=2)
        (error,) = asked.ask(questions("x"))
        assert isinstance(error, Unanswered) and str(error) == "the answer cannot be read: 'no number'"
        assert len(server.seen) == 2 and len(cache) == 0 and asked.unread == 1


def test_one_question_fails_and_the_others_do_not() -> None:
    answered = 0

    def answer(request: dict[str, Any], number: int) -> Response:
        nonlocal answered
        if word(request) == "refused":
            return failure(400, "too long")
        if word(request) == "stalls":
            wait_until(lambda: answered == 2)
            return Response(drop=True)
        answered += 1
        return lengths(request, number)

    with ScriptedEndpoint(answer) as server:
        found = Questions(settings(server.url, retries=0), AnswerCache()).ask(
            questions("refused", "stalls", "a", "abc")
        )
    assert found[2:] == [1, 3]
    assert "refuses the question (400: too long)" in str(found[0])
    assert "no connection" in str(found[1])


def test_an_endpoint_that_goes_down_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GIVE_UP_AFTER", 3)
    words = [f"word {n:02}" + "x" * n for n in range(12)]
    served = 0

    def answer(request: dict[str, Any], number: int) -> Response:
        nonlocal served
        served += 1
        return lengths(request, number) if served <= 5 else failure(503, "gone")

    cache = AnswerCache(tmp_path / "answers.sqlite")
    with ScriptedEndpoint(answer) as server:
        asked = Questions(settings(server.url, retries=0, concurrency=1), cache)
        found = asked.ask(questions(*words))
        assert len(server.seen) == 8  # nothing is sent once it is known to be of no use
    assert [one for one in found if isinstance(one, int)] == [len(one) for one in words[:5]]
    assert sum(isinstance(one, EndpointError) for one in found) == 5 and asked.unread == 7
    with ScriptedEndpoint(lengths) as server:
        assert Questions(settings(server.url), cache).ask(questions(*words)) == [len(one) for one in words]
        assert len(server.seen) == 7


def test_only_the_cache() -> None:
    cache = AnswerCache()
    with ScriptedEndpoint(lengths) as server:
        asked = Questions(settings(server.url), cache)
        asked.ask(questions("ab"))
        known, missing = asked.ask(questions("ab", "c"), only_cached="it is down")
        assert known == 2 and str(missing) == "it is down" and len(server.seen) == 1


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (" 4 ", "4"),
        ("<think>4 or 5</think>\n5", "5"),
        ("x</think>5", "5"),
        ("<think>4 or 5", None),
        ("", ""),
    ],
)
def test_reasoning_is_no_answer(text: str, answer: str | None) -> None:
    assert answer_text(text) == answer


def test_files_that_are_no_cache(tmp_path: Path) -> None:
    path = tmp_path / "answers.sqlite"
    path.write_bytes(b"not a database at all, but long enough to be taken for one" * 30)
    with pytest.raises(CacheError, match=r"answers.sqlite: cannot be used as a cache of answers \(.+\)$"):
        AnswerCache(path)
    path.unlink()
    cache = AnswerCache(path)
    sqlite3.connect(path).execute("DROP TABLE answers")
    with pytest.raises(CacheError, match="no such table"):
        cache.put("k", "v")
    with pytest.raises(CacheError, match=re.escape(f"{tmp_path}: cannot be used")):
        AnswerCache(tmp_path)


def test_a_cache_keeps_any_text(tmp_path: Path) -> None:
    cache = AnswerCache(tmp_path / "answers.sqlite")
    for key, text in (("a", "图\u2028 🙂\x00"), ("b", ""), ("c", "half \ud83d")):
        cache.put(key, text)
        assert cache.get(key) == text
    assert cache.get("d") is None and len(cache) == 3
