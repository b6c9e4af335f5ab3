"""Responses that no model made: what the demo's tests have its model say."""

import pytest

from onethinker_jax.assistant import Assistant, Response


def said(answer: str) -> str:
    return f"<think>I look at it.</think>\n<answer>{answer}</answer>"


def heard(monkeypatch: pytest.MonkeyPatch, response: str = "", seconds: float = 2.0) -> list[tuple[str, int]]:
    """(Prompt with its media as pads, patches) of every question that a model would be asked."""
    asked = []

    def respond(asked_of, prompt):
        asked.append(
            (
                asked_of.processor.tokenizer.decode(prompt.tokens, skip_special_tokens=False),
                len(prompt.patches),
            )
        )
        return Response(response or said("a star"), "stop", 30, 20, seconds)

    monkeypatch.setattr(Assistant, "respond", respond)
    return asked
