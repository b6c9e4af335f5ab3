"""The demo's questions to a model that stays loaded."""

import io
import sys

from onethinker_jax import assistant
from onethinker_jax.demo import __main__ as demo
from onethinker_jax.demo.arguments import Arguments
from tests.demo.hand_made import heard, said


def test_chat(model, image, tmp_path, monkeypatch, capsys):
    """Questions and what they are about, line by line; an error is one line, and the next question is asked."""
    monkeypatch.chdir(tmp_path)
    asked = heard(monkeypatch, said("B"))
    loads = []
    monkeypatch.setattr(Arguments, "load", lambda *_: (loads.append(1), None))
    lines = [
        "What is 2 + 2?",
        "",
        f"/media '{image}'",
        "What is this?",
        "/task multiple choce",
        "/task multiple choice",
        "/option one",
        "/option two",
        "Which?",
        "/media https://example.com/a.jpg",
        "/medai x",
        "/media gone.png",
        "And this?",
        "/media",
        "/task math",
        "//2 is what of 2?",
        "caf\udce9",
        "/quit",
        "never asked",
    ]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(lines)))
    assert demo.main([str(model), "--chat"]) == 0
    out, err = capsys.readouterr()
    assert loads == [1]
    assert [patches > 0 for _, patches in asked] == [False, True, True, False]
    assert [
        question in text
        for (text, _), question in zip(asked, ["2 + 2", "this", "A. one", "/2 is"], strict=True)
    ]
    assert "//2" not in asked[-1][0]
    assert out.splitlines().count("Reasoning") == 4 and "B. two" in out.splitlines()
    assert [line for line in out.splitlines() if line.startswith("picture: ")] == [
        "picture: street_answer.png",
        "picture: street_answer_2.png",
    ]
    errors = err.splitlines()
    assert [line.partition(": ")[0] for line in errors] == ["error"] * 5
    for line, said_of_it in zip(
        errors,
        [
            "did you mean 'multiple choice'",
            "is an address",
            "did you mean '/media'",
            "gone.png: no such",
            "half of a surrogate pair",
        ],
        strict=True,
    ):
        assert said_of_it in line


def test_chat_ends_with_its_input_or_ctrl_c(model, monkeypatch, capsys):
    monkeypatch.setattr(Arguments, "load", lambda *_: (None, None))
    heard(monkeypatch)
    monkeypatch.setattr(sys, "stdin", io.StringIO("What?"))
    assert demo.main([str(model), "--chat"]) == 0
    assert "a star" in capsys.readouterr().out

    class Interrupted(io.StringIO):
        def readline(self, size: int = -1, /) -> str:
            raise KeyboardInterrupt

    monkeypatch.setattr(sys, "stdin", Interrupted())
    assert demo.main([str(model), "--chat"]) == 130
    assert capsys.readouterr().err == "stopped\n"


def test_chat_of_a_model_asks_it_twice(model, image, tmp_path, monkeypatch, capsys):
    """The same question has the same answer, and is compiled once."""
    monkeypatch.chdir(tmp_path)
    made = []
    sampler = assistant.Sampler
    monkeypatch.setattr(assistant, "Sampler", lambda *args, **more: made.append(1) or sampler(*args, **more))
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"/media {image}\nWhat is it?\nWhat is it?\n"))
    assert demo.main([str(model), "--chat", "--max-new-tokens", "4"]) == 0
    first, _, second = capsys.readouterr().out.partition("Response\n")[2].partition("Response\n")
    assert first.splitlines()[0] == second.splitlines()[0] and made == [1]
