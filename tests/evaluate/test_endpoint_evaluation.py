"""A URL evaluated from the command line: answers, failures, going on when it is back, protocols, a judge."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from onethinker_jax.endpoint import endpoint as endpoint_module
from onethinker_jax.evaluate import __main__ as evaluate
from onethinker_jax.evaluate import score
from onethinker_jax.evaluate.arguments import Arguments
from onethinker_jax.evaluate.asking.protocols import WORDS
from onethinker_jax.rewards.client.server_process import start_server
from tests.data_pipeline.making import rl_row, write_image, write_rows
from tests.endpoint.scripted_endpoint import Response, ScriptedEndpoint, failure
from tests.waiting import HANG_S

COUNT = 6


@pytest.fixture(scope="module")
def sidecar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("sidecar")
    with start_server(folder / "s", folder / "log") as server:
        yield server.address


@pytest.fixture
def run(sidecar: str, tmp_path: Path) -> Callable[..., int]:
    """run(url, *flags, out="out") -> the exit status of an evaluation of six questions with options."""
    rows = []
    for number in range(COUNT):
        write_image(tmp_path / f"{number}.png", seed=number)
        solution, options = "ABC"[number % 3], ["A. red", "B. green", "C. blue"]
        problem = f"<image>Question {number}?"
        rows.append(
            rl_row(
                problem_id=number,
                problem=problem,
                problem_type="multiple choice",
                data_type="image",
                images=[f"{number}.png"],
                options=options,
                answer=f"<answer>{solution}</answer>",
            )
        )
    file = write_rows(tmp_path / "own.json", rows)
    common = ["--sidecar.addresses", sidecar, "--sidecar.score-workers", "0"]
    common += [f"--endpoint.timeout={HANG_S}", "--endpoint.retries=0", "--endpoint.backoff=0.01"]

    def call(url: str, *flags: str, out: str = "out") -> int:
        return evaluate.main([url, str(file), "--out", str(tmp_path / out), *common, *flags])

    return call


def number_of(request: dict[str, Any]) -> int:
    found = re.search(r"Question (\d)", json.dumps(request["messages"]))
    assert found
    return int(found[1])


def right(request: dict[str, Any], _: int) -> Response:
    return Response(f"<think>I look.</think><answer>{'ABC'[number_of(request) % 3]}</answer>")


def read(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text())


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]


def test_a_url_as_a_path_is_read_back() -> None:
    for url in ("http://localhost:8000/v1", "https://h.example/a/v1"):
        assert Arguments(model=Path(url), benchmarks=("a.json",)).url == url
    assert Arguments(model=Path("models/http"), benchmarks=("a.json",)).url is None


def test_answers_and_results(run: Callable[..., int], tmp_path: Path) -> None:
    with ScriptedEndpoint(right) as server:
        assert run(server.url) == 0 and len(server.seen) == COUNT
        request = server.seen[0].request
    assert (request["temperature"], request["max_tokens"], request["messages"][0]["role"]) == (
        0.0,
        4096,
        "user",
    )
    assert [line["problem_id"] for line in lines(tmp_path / "out")] == list(range(COUNT))
    assert read(tmp_path / "out", "metrics.json")["own"]["accuracy"]["standard"] == 1.0
    results = read(tmp_path / "out", "results.json")
    answers = results["settings"]["answers"]["own"]
    assert results["settings"]["model"] == server.url and answers["endpoint.model"] == "served"
    assert (answers["protocol"], answers["max-new-tokens"], answers["video-fps"]) == ("own", 4096, 2.0)
    assert read(tmp_path / "out", "prompts.json") == json.loads(WORDS["own"].to_json())
    file = results["benchmarks"]["own"]["files"][0]
    assert file["rows"] == COUNT and re.fullmatch(r"[0-9a-f]{32}", file["md5"])
    assert {"jax", "numpy", "openai", "onethinker_jax"} <= set(results["versions"])


def test_a_protocol_with_a_flag_before_it(run: Callable[..., int], tmp_path: Path, capsys: Any) -> None:
    with ScriptedEndpoint(right) as server:
        assert run(server.url, "--protocol", "vlmevalkit", "--top-p", "0.5") == 0
        request = server.seen[0].request
        assert (request["temperature"], request["top_p"]) == (0.1, 0.5) and "seed" in request
        system, user = request["messages"]
        assert system["content"] == WORDS["vlmevalkit"].system and user["role"] == "user"
        assert run(server.url) == 1 and len(server.seen) == COUNT
    assert "was begun with protocol vlmevalkit, not own" in capsys.readouterr().err


def test_an_endpoint_that_dies_is_gone_on_with(
    run: Callable[..., int], tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last failures are no answers: with the endpoint back, and at another port, the bytes are those of one run."""
    monkeypatch.setattr(endpoint_module, "GIVE_UP_AFTER", 2)
    with ScriptedEndpoint(right) as server:
        assert run(server.url, out="whole") == 0

    def dies(request: dict[str, Any], times: int) -> Response:
        return right(request, times) if number_of(request) < 3 else Response(drop=True)

    with ScriptedEndpoint(dies) as server:
        assert run(server.url, "--endpoint.concurrency", "1") == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert server.url in line and "questions in a row without an answer" in line
    assert len(lines(tmp_path / "out")) == 3
    with ScriptedEndpoint(right) as server:
        assert run(server.url) == 0
        assert sorted(number_of(seen.request) for seen in server.seen) == [3, 4, 5]
    whole, gone_on = ((tmp_path / out / "predictions.jsonl").read_bytes() for out in ("whole", "out"))
    assert gone_on == whole


def test_a_sample_that_fails_is_counted_apart(run: Callable[..., int], tmp_path: Path) -> None:
    def one_is_refused(request: dict[str, Any], times: int) -> Response:
        return failure(400, "too long") if number_of(request) == 2 else right(request, times)

    with ScriptedEndpoint(one_is_refused) as server:
        assert run(server.url) == 3
    (failed,) = [line for line in lines(tmp_path / "out") if line.get("failed")]
    assert failed["problem_id"] == 2 and failed["response"] == "" and "400: too long" in failed["failed"]
    accuracy = read(tmp_path / "out", "metrics.json")["own"]["accuracy"]
    assert (accuracy["standard"], accuracy["n"], accuracy["failed"]) == (1.0, COUNT - 1, 1)
    with ScriptedEndpoint(right) as server:
        assert run(server.url, "--retry-failed") == 0 and len(server.seen) == 1


def test_what_no_rule_reads_goes_to_a_judge(run: Callable[..., int], tmp_path: Path, capsys: Any) -> None:
    """The judge reads two of three; nonsense about the third leaves it unread. Then it is down, and all is cached."""
    words = {0: "crimson", 1: "like grass", 2: "who knows"}

    def vague(request: dict[str, Any], times: int) -> Response:
        number = number_of(request)
        return Response(f"<answer>{words[number]}</answer>") if number in words else right(request, times)

    def judge(request: dict[str, Any], _: int) -> Response:
        text = request["messages"][-1]["content"]
        return Response("A" if "crimson" in text else "B" if "grass" in text else "it could be A or B")

    with ScriptedEndpoint(vague) as server, ScriptedEndpoint(judge) as judges:
        flags = [
            "--judge.url",
            judges.url,
            "--judge.model",
            "j",
            "--judge.tries",
            "1",
            "--judge.backoff",
            "0.01",
        ]
        assert run(server.url, *flags) == 0
    results = read(tmp_path / "out", "results.json")
    shares = results["benchmarks"]["own"]["extraction"]
    assert shares == {"rule": 0.5, "judge": pytest.approx(2 / 6), "unread": pytest.approx(1 / 6)}
    said = results["settings"]["judge"]
    assert (said["model"], said["asked"], said["cached"], said["unread"]) == ("j", 2, 0, 1)
    assert re.fullmatch(r"[0-9a-f]{64}", said["prompts"])
    before = read(tmp_path / "out", "metrics.json")
    words_of_score = [
        str(tmp_path / "out"),
        str(tmp_path / "own.json"),
        "--out",
        str(tmp_path / "out"),
        *flags,
    ]
    assert (
        score.main(words_of_score) == 1
    )  # of three questions two are in the cache, and nobody is there for the third
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert f"the judge: {judges.url} cannot be reached" in line and "1 items are unread" in line
    assert read(tmp_path / "out", "metrics.json") == before
