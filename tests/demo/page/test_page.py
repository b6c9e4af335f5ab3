"""The page in a headless Chromium: an image, a video, two models side by side, errors, cancelling."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx2
import pytest

import onethinker_jax
from tests.certificates import make_certificate
from tests.data_pipeline.making import write_image, write_video
from tests.demo.hand_made import said
from tests.waiting import HANG_S, wait_until

pytest.importorskip("nicegui", reason="the extra web is not installed")
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

from nicegui import core  # noqa: E402

from tests.demo.page.browsing import CHROMIUM, FLAGS, NEW, Running, arguments_for  # noqa: E402

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium: apt-get install chromium")

TRACK = {"boxes": {"1": [100, 100, 500, 500], "2": [300, 300, 700, 700]}}


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A record of a box in an image, and one of a span in a video of four seconds."""
    folder = tmp_path_factory.mktemp("examples")
    write_image(folder / "street.png", 64, 96)
    write_video(folder / "walk.mp4", [number / 4 for number in range(16)], size=(64, 64))
    shared = {"options": [], "data_source": "tests"}
    box, span = '{"boxes":[100,200,500,600]}', '{"time":[1.0,2.5]}'
    rows = [
        {
            **shared,
            "problem_id": 1,
            "problem": "<image>Where is the kerb?",
            "path": "street.png",
            "data_type": "image",
            "problem_type": "spatial grounding",
            "solution": f"<answer>{box}</answer>",
        },
        {
            **shared,
            "problem_id": 2,
            "problem": "<video>When does she wave?",
            "path": "walk.mp4",
            "data_type": "video",
            "problem_type": "temporal grounding",
            "solution": f"<answer>{span}</answer>",
        },
    ]
    (folder / "eval.json").write_text(json.dumps(rows))
    return folder / "eval.json"


@pytest.fixture(scope="module")
def running(model: Path, examples: Path) -> Iterator[Running]:
    """The page of the tiny model beside itself, which no test changes."""
    arguments = arguments_for(model, examples=examples, beside=model)
    with Running(arguments).up() as one:
        yield one


@pytest.fixture(scope="module")
def tab(running: Running) -> "Iterator[Page]":
    """A tab of a browser that asks no other machine, and whose scripts have no errors, all the time.

    For this module alone: while Playwright is there, this thread has a running event loop, which other tests must not.
    """
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        tab = browser.new_context(permissions=["clipboard-read", "clipboard-write"]).new_page()
        tab.set_default_timeout(1000 * HANG_S)
        hosts, errors = set(), []
        tab.on("request", lambda request: hosts.add(urlsplit(request.url).hostname))
        tab.on("pageerror", lambda error: errors.append(error))
        yield tab
        browser.close()
    assert hosts <= {"127.0.0.1", None}  # None: of data URLs
    assert not errors


@pytest.fixture
def page(tab: "Page", running: Running) -> "Iterator[Page]":
    """The page just opened."""
    tab.goto(running.server.root)
    tab.get_by_role("button", name="Ask", exact=True).wait_for()
    yield tab
    tab.goto("about:blank")
    wait_until(lambda: not running.busy() and not running.house.under_way)


def drop(page: "Page", *files: Path) -> None:
    page.locator("input[type=file]").set_input_files(files)


def ask(page: "Page", question: str) -> None:
    page.get_by_label("Question").fill(question)
    page.get_by_role("button", name="Ask", exact=True).click()


def choose(page: "Page", example: str) -> None:
    page.locator(".example", has_text=example).click()
    page.locator(".preview img").first.wait_for()
    page.get_by_role("button", name="Ask", exact=True).click()


def answered(page: "Page") -> "list[Locator]":
    """Both models' parts of the page, once the answers are there."""
    panes = page.locator(".pane").all()
    for pane in panes:
        pane.locator(".status", has_text="prompt of").wait_for()
    return panes


def alerts(page: "Page") -> list[str]:
    page.locator("[role=alert]:visible").first.wait_for()
    return page.locator("[role=alert]:visible").all_inner_texts()


def test_an_image_is_dropped_and_asked_about(page, model: Path, tmp_path: Path) -> None:
    """Both models are the same one: each says what the directory says greedily, word for word."""
    image = write_image(tmp_path / "street.png", 64, 96)
    drop(page, image)
    page.locator(".preview img.still").wait_for()
    ask(page, "What is this?")
    true = onethinker_jax.load(model, max_new_tokens=NEW).answer(image, "What is this?").response
    for pane in answered(page):
        pane.get_by_role("button", name="Copy as JSON").click()
        page.get_by_text("copied").last.wait_for()
        copied = json.loads(page.evaluate("navigator.clipboard.readText()"))
        assert (copied["response"], copied["tokens"]) == (true.text, true.tokens)
        assert (copied["media"], copied["question"], copied["task"]) == (
            ["street.png"],
            "What is this?",
            "open-ended",
        )
        assert "cut off after 24 tokens" in pane.locator(".warning").inner_text()
        assert pane.locator(".drawn img").count() == 1


def test_several_media_are_one_question(page, model: Path, tmp_path: Path) -> None:
    """Two files of one name that are dropped at once, and one more: in their order, in the words of `answer`."""
    (tmp_path / "other").mkdir()
    images = [
        write_image(tmp_path / name, 64, width)
        for name, width in (("a.png", 96), ("other/a.png", 64), ("b.png", 32))
    ]
    drop(page, *images[:2])
    page.locator(".preview img.still").nth(1).wait_for()
    drop(page, images[2])
    page.locator(".preview img.still").nth(2).wait_for()
    ask(page, "Which is the largest?")
    true = onethinker_jax.load(model, max_new_tokens=NEW).answer(images, "Which is the largest?").response
    for pane in answered(page):
        copied = json.loads(pane.locator(".json").last.inner_text())
        assert (copied["response"], copied["media"]) == (true.text, ["a.png", "a.png", "b.png"])
        assert pane.locator(".drawn img").count() == 3
    page.get_by_label("Task").click()
    page.get_by_role("option", name="spatial grounding").click()
    ask(page, "Where is the kerb?")
    assert alerts(page) == ["task 'spatial grounding' is about one medium, and there are 3"]
    page.get_by_role("button", name="Remove the media").click()
    page.locator(".preview img").first.wait_for(state="detached")


def test_two_answers_are_drawn_side_by_side(page, running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    right, wrong = '{"boxes":[100,200,500,600]}', '{"boxes":[0,0,90,90]}'
    running.say(monkeypatch, said(right), said(wrong))
    choose(page, "Where is the kerb?")
    pictures = []
    for pane, text in zip(answered(page), (right, wrong), strict=True):
        assert pane.locator(".answer").inner_text() == text
        assert pane.locator(".reasoning").inner_text() == "I look at it."
        assert pane.locator(".truth").inner_text() == f"true answer: {right}"
        pictures.append(pane.locator(".drawn img").get_attribute("src"))
    assert "box: [10, 13, 48, 38] of 96 x 64 pixels" in page.locator(".places").first.inner_text()
    assert pictures[0] != pictures[1]


def test_a_video_has_a_scrubber_and_a_bar(page, running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    running.say(monkeypatch, *[said('{"time":[2.0,3.0]}')] * 2)
    choose(page, "When does she wave?")
    pane = answered(page)[0]
    lanes = pane.locator(".lane i")
    assert [lane.get_attribute("title") for lane in lanes.all()] == ["true: 1–2.5 s", "predicted: 2–3 s"]
    slider, shown = pane.locator(".drawn input[type=range]"), pane.locator(".screen img:visible")
    assert shown.get_attribute("alt") == "frame at 2.0 s"  # where the answer begins
    slider.press("End")
    assert shown.get_attribute("alt") == "frame at 3.8 s"
    assert pane.locator("output").inner_text() == "3.8 s"
    pane.locator(".play").click()  # from the end it begins again
    page.wait_for_function("film => Number(film.value) < film.max", arg=slider.element_handle())
    slider.press("Home")
    assert shown.get_attribute("alt") == "frame at 0.0 s"


def test_a_video_of_ones_own_is_tracked(
    page, running: Running, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Dropped after an example was chosen, so no true answer stands beside it."""
    running.say(monkeypatch, *[said(json.dumps(TRACK))] * 2)
    page.locator(".example", has_text="Where is the kerb?").click()
    page.locator(".preview img.still").wait_for()
    drop(page, write_video(tmp_path / "walk.mp4", [number / 4 for number in range(12)], size=(64, 64)))
    page.locator(".preview .scrubbed").wait_for()
    page.get_by_label("Task").click()
    page.get_by_role("option", name="tracking").click()
    ask(page, "Track the dog.")
    pane = answered(page)[0]
    assert pane.locator(".screen img").count() == 12
    assert pane.locator(".screen img:visible").get_attribute("alt") == "frame at 1.0 s"
    assert not pane.locator(".truth").is_visible()
    assert pane.locator(".places").inner_text().splitlines() == [
        "box at 1 s: [6, 6, 32, 32] of 64 x 64 pixels, [100, 100, 500, 500] of 1000",
        "box at 2 s: [19, 19, 45, 45] of 64 x 64 pixels, [300, 300, 700, 700] of 1000",
    ]


def test_a_file_that_is_no_medium_is_one_message(page, tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.mp4", [number / 4 for number in range(40)], size=(64, 64))
    contents = {
        "broken.mp4": b"\x00\x00\x00\x18ftypmp42" + b"no film" * 99,
        "<b>no'name.txt": b"words",
        "cut.mp4": whole.read_bytes()[:-400],
        "large.png": bytes(2**18 + 1),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        drop(page, tmp_path / name)
        said = "together can be dropped at a time" if name == "large.png" else f"{name}: "
        page.locator("[role=alert]:visible", has_text=said).wait_for()
        (message,) = alerts(page)
        assert "\n" not in message
        assert str(tmp_path) not in message
        assert not page.locator(".preview img").count()


def test_a_question_that_cannot_be_asked_is_one_message(page) -> None:
    ask(page, "")
    assert alerts(page) == ["the question is empty"]
    page.get_by_label("Task").click()
    page.get_by_role("option", name="tracking").click()
    ask(page, "Track the dog.")
    page.get_by_text("task 'tracking' needs a video, and there is none").wait_for()
    assert len(alerts(page)) == 1


def test_what_a_model_cannot_answer_is_one_message_of_each(
    page, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(page, "how long? " * 300)
    page.locator(".pane [role=alert]:visible").nth(1).wait_for()
    first, second = alerts(page)
    assert first == second and first.startswith("question: a prompt of ") and "256 allowed" in first
    for engine in running.engines:
        monkeypatch.setattr(engine, "answers", lambda job: 1 / 0)
    ask(page, "What is 1 + 1?")
    page.get_by_text("an error of the server; its log says more").nth(1).wait_for()
    assert len(alerts(page)) == 2
    monkeypatch.undo()
    ask(page, "What is 1 + 1?")  # and it goes on
    answered(page)


def test_beyond_loopback_the_key_is_the_password(
    tab, running: Running, model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Behind TLS: the page, its socket, and an answer that is seen while it comes; nothing without the key."""
    certificate, tls_key = make_certificate(tmp_path, "page.test", "IP:127.0.0.1")
    key = "the-key-of-this-test"
    (tmp_path / "key").write_text(key)
    files = {"api_key_file": tmp_path / "key", "tls_certificate": certificate, "tls_key": tls_key}
    with running.beyond_loopback(arguments_for(model, host="0.0.0.0", **files)) as root:
        for password, status in ((None, 401), ("another" + key, 401), (key, 200)):
            auth = None if password is None else ("anyone", password)
            assert httpx2.get(root, auth=auth, verify=str(certificate), timeout=HANG_S).status_code == status
        context = tab.context.browser.new_context(
            ignore_https_errors=True, http_credentials={"username": "anyone", "password": key}
        )
        page, sockets = context.new_page(), []
        page.set_default_timeout(1000 * HANG_S)
        page.on("websocket", lambda socket: sockets.append(socket))
        page.goto(root)
        with monkeypatch.context() as patch:
            running.hold(patch)
            ask(page, "What is 1 + 1?")
            page.locator(".status", has_text="thinking").first.wait_for()
        answered(page)
        (socket,) = sockets
        assert socket.url.startswith(root.replace("https", "wss", 1)) and not socket.is_closed()
        context.close()
        wait_until(lambda: not running.busy() and not running.house.under_way)


def test_cancel_frees_the_slots(page, running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    running.hold(monkeypatch)
    ask(page, "What is 1 + 1?")
    page.locator(".status", has_text="thinking").first.wait_for()
    assert running.busy() == 2 and running.house.under_way == 1
    page.get_by_role("button", name="Cancel").click()
    wait_until(lambda: running.busy() == 0 and running.house.under_way == 0)
    page.locator(".status", has_text="cancelled").nth(1).wait_for()
    monkeypatch.undo()
    ask(page, "What is 1 + 1?")
    answered(page)


def test_going_away_frees_the_slots(page, running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core.app.config, "reconnect_timeout", 0.1)  # seconds in which it could come back
    running.hold(monkeypatch)
    ask(page, "What is this?")
    wait_until(lambda: running.busy() == 2)
    page.goto("about:blank")
    wait_until(lambda: running.busy() == 0 and running.house.under_way == 0)
