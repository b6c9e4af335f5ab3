"""The judge over real HTTP: what it is asked in each use, what its words are read as, what becomes of failures."""

import json
import re
import socket
from pathlib import Path
from typing import Any

import pytest

from onethinker_jax.evaluate.judges.client import EndpointJudge, JudgeError, open_judge
from onethinker_jax.evaluate.judges.prompts import PROMPTS, JudgePrompt, prompts_digest
from onethinker_jax.evaluate.judges.readings import (
    read_choice,
    read_match,
    read_rating,
    read_value,
    read_yes_no,
)
from onethinker_jax.evaluate.judges.settings import JudgeSettings
from onethinker_jax.evaluate.judges.types import (
    NO_OPTION,
    CaptionItem,
    CaptionQuestionItem,
    ChoiceItem,
    ComparisonItem,
    Match,
    ValueItem,
)
from tests.endpoint.scripted_endpoint import Response, ScriptedEndpoint, failure
from tests.waiting import HANG_S

OPTIONS = {"A": "a cat", "B": "a dog {brown}", "C": "a car"}


def settings(url: str, **changes: Any) -> JudgeSettings:
    quick: dict[str, Any] = {"backoff": 0.01, "timeout": HANG_S, "retries": 1}
    return JudgeSettings(url=url, model="judge-7b", **{**quick, **changes})


def user_turn(request: dict[str, Any]) -> str:
    assert [turn["role"] for turn in request["messages"]] == ["system", "user"]
    return request["messages"][1]["content"]


def by_content(request: dict[str, Any], _: int) -> Response:
    """A judge that finds what it needs in the prompt; what it does not find it says nothing about."""
    text = user_turn(request)
    if "The letter it means:" in text:
        given = re.search(r"The answer given:\n(.*)\n\n", text, re.DOTALL)
        assert given
        letters = [letter for letter, option in re.findall(r"([A-Z])\. (.*)", text) if option in given[1]]
        return Response(letters[0] if letters else "Z")
    if "The final answer:" in text:
        numbers = re.findall(r"\d+(?:\.\d+)?", text.partition("The work:")[2])
        return Response(f"Answer: {numbers[-1]}" if numbers else "NONE")
    if "JSON:" in text or "Do they agree?" in text:
        truth, given = re.findall(r"(?:True answer|Answer given):\n(.*)", text)
        same = truth.lower() == given.lower()
        if "JSON:" in text:
            return Response(
                f'```json\n{{"correct": "{"yes" if same else "no"}", "rating": {5 if same else 1}}}\n```'
            )
        return Response("Yes." if same else "No, they differ.")
    if "Description:" in text:
        return Response("a red ball" if "red ball" in text else "not described")
    reference, caption = re.findall(r"caption:\n(.*)", text)
    return Response("5" if reference == caption else "Relevance: 2/5")


def test_every_use(tmp_path: Path) -> None:
    with ScriptedEndpoint(by_content) as server, open_judge(settings(server.url), tmp_path) as judge:
        assert judge is not None
        choices = judge.choices(
            [
                ChoiceItem("What {is} it?", OPTIONS, text)
                for text in ("I see a dog {brown}!", "a car", "no idea")
            ]
        )
        assert [one.value for one in choices] == ["B", "C", NO_OPTION]
        values = judge.values(
            [
                ValueItem("How much?", text, "a number with 2 decimals")
                for text in ("3 apples cost 1.45", "hm")
            ]
        )
        assert [one.value for one in values] == ["1.45", ""]
        assert "a number with 2 decimals" in user_turn(server.seen[-1].request)
        pairs = [ComparisonItem("x?", "0.5 m", "0.5 M"), ComparisonItem("x?", "2", "3")]
        assert [one.value for one in judge.equals(pairs)] == [True, False]
        assert [one.value for one in judge.matches(pairs)] == [Match(True, 5), Match(False, 1)]
        captions = [CaptionQuestionItem(text, "Which ball?") for text in ("A red ball rolls.", "Nothing.")]
        assert [one.value for one in judge.caption_answers(captions)] == ["a red ball", "not described"]
        scored = judge.relevances([CaptionItem("SEM image", "SEM image"), CaptionItem("SEM image", "a dog")])
        assert [one.value for one in scored] == [5, 2]
        said = judge.settings()
        assert (said["asked"], said["cached"], said["unread"], judge.error) == (13, 0, 0, None)
        assert said["model"] == "judge-7b" and said["prompts"] == prompts_digest()
    with open_judge(
        settings("http://127.0.0.1:9/v1"), tmp_path
    ) as judge:  # nobody is there: all is in the file
        assert judge is not None
        assert [one.value for one in judge.equals(pairs)] == [True, False] and judge.settings()["cached"] == 2


def test_without_a_judge(tmp_path: Path) -> None:
    with open_judge(JudgeSettings(), tmp_path) as judge:
        assert judge is None
    assert not list(tmp_path.iterdir())


def test_nonsense_is_unread_and_never_a_guess(tmp_path: Path) -> None:
    with (
        ScriptedEndpoint(lambda *_: Response("A or B, I suppose; see the picture")) as server,
        open_judge(settings(server.url, tries=2), tmp_path) as judge,
    ):
        assert judge is not None
        (one,) = judge.choices([ChoiceItem("?", OPTIONS, "hm")])
        (rated,) = judge.relevances([CaptionItem("x", "y")])
        assert one.value is None and "cannot be read: 'A or B, I suppose" in one.reason
        assert rated.value is None and judge.error is None and judge.settings()["unread"] == 2
        with pytest.raises(JudgeError, match=r"the answer cannot be read: .*; 2 items are unread"):
            judge.check()


def test_some_items_unread_are_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def half(request: dict[str, Any], _: int) -> Response:
        return Response("yes") if "good" in json.dumps(request["messages"]) else failure(400, "no")

    with ScriptedEndpoint(half) as server, open_judge(settings(server.url), tmp_path) as judge:
        assert judge is not None
        judge.equals([ComparisonItem("x?", "1", said) for said in ("good", "bad")])
        judge.check()
    assert "the judge left 1 of 2 items unread, one since " in caplog.text


def test_a_judge_that_is_down_is_one_line(tmp_path: Path) -> None:
    with ScriptedEndpoint(by_content) as server, open_judge(settings(server.url), tmp_path) as judge:
        assert judge is not None
        judge.equals([ComparisonItem("x?", "1", "1")])
        judge.check()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        with open_judge(settings(url, retries=9), tmp_path) as judge:
            assert judge is not None
            items = [ComparisonItem("x?", "1", "1"), ComparisonItem("x?", "2", "2")]
            known, unread = judge.equals(items)
            assert known.value is True and unread.value is None
            assert f"{url} cannot be reached" in unread.reason and judge.error == unread.reason
            later = judge.matches(items)
            assert [one.reason for one in later] == [judge.error] * 2
            with pytest.raises(JudgeError, match="3 items are unread, what it judged is kept") as caught:
                judge.check()
    line = str(caught.value)
    assert line.startswith(f"the judge: {url} cannot be reached") and "\n" not in line


def test_a_wrong_key_is_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    with (
        ScriptedEndpoint(lambda *_: failure(401, "who?")) as server,
        open_judge(settings(server.url, api_key_env="JUDGE_KEY"), tmp_path) as judge,
    ):
        assert judge is not None
        judge.relevances([CaptionItem("x", str(n)) for n in range(40)])
        assert judge.error and "needs a key, but JUDGE_KEY is not set" in judge.error
        assert len(server.seen) <= 17


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        ("**B**", "B"),
        ("(C) a car", "C"),
        ("B. a dog", "B"),
        ("The letter is C.", "C"),
        ("Z", NO_OPTION),
        ("A dog, hence B", None),
        ("A or C", None),
        ("D", None),
        ("cat", None),
        ("", None),
        ("I'd say B", "B"),
    ],
)
def test_reading_a_choice(text: str, letter: str | None) -> None:
    assert read_choice(text, OPTIONS) == letter


@pytest.mark.parametrize(
    ("text", "said"),
    [("yes", True), ("No.", False), ("1", True), ("0", False), ("**Yes**, 2", True), ("12", None), ("Maybe", None)],
)  # fmt: skip
def test_reading_yes_and_no(text: str, said: bool | None) -> None:
    assert read_yes_no(text) is said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"correct": "yes", "rating": 4}', Match(True, 4)),
        ("{'correct': 'no', 'rating': '0'}", Match(False, 0)),
        ('see {"a": 1}: {"correct": false, "rating": 2.0} end', Match(False, 2)),
        ('{"correct": "yes", "rating": 4.5}', None),
        ('{"correct": "yes", "rating": 6}', None),
        ('{"correct": "perhaps", "rating": 3}', None),
        ("{correct: yes}", None),
        ("yes, 4", None),
    ],
)
def test_reading_a_match(text: str, said: Match | None) -> None:
    assert read_match(text) == said


@pytest.mark.parametrize(
    ("text", "said"),
    [("4", 4), ("Relevance: 3", 3), ("2/5", 2), ("4 out of 5", 4), ("5.0", 5)]
    + [(text, None) for text in ("3.5", "0", "6", "between 2 and 3", "10", "good", "")],
)
def test_reading_a_rating(text: str, said: int | None) -> None:
    assert read_rating(text) == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("14", "14"),
        ("Answer: 14", "14"),
        ("The final answer is: `x^2`", "x^2"),
        ("none.", ""),
        ("[1, 2]", "[1, 2]"),
        (" ", None),
    ],
)
def test_reading_a_value(text: str, said: str | None) -> None:
    assert read_value(text) == said


def test_the_digest_follows_every_prompt() -> None:
    whole = {prompts_digest()}
    for name, prompt in PROMPTS.items():
        whole.add(prompts_digest({**PROMPTS, name: JudgePrompt(prompt.system + " ", prompt.user)}))
        whole.add(prompts_digest({**PROMPTS, name: JudgePrompt(prompt.system, prompt.user + " ")}))
    assert len(whole) == 2 * len(PROMPTS) + 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"url": "http://h/v1"}, "url and model of a judge come together"),
        ({"model": "m"}, "url and model of a judge come together"),
        ({"url": "h:80", "model": "m"}, "url 'h:80' must look like https://host/v1"),
        ({"tries": 0}, "tries 0 must be at least 1"),
        ({"url": "http://h/v1", "model": "m", "temperature": -1.0}, "temperature -1.0 must be 0 or more"),
    ],
)
def test_settings_that_make_no_sense(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        JudgeSettings(**changes)


def test_an_endpoint_judge_is_a_judge() -> None:
    """What metrics are typed by: pyright holds it against the class where this is assigned."""
    from onethinker_jax.endpoint.answer_cache import AnswerCache
    from onethinker_jax.evaluate.judges.types import AnswerJudge

    judge: AnswerJudge = EndpointJudge(settings("http://h/v1"), AnswerCache())
    assert judge.settings()["url"] == "http://h/v1"
