"""One model's part of the page: its reasoning as it comes, its answer, and the answer drawn on the medium."""

import asyncio
import logging
import time

from nicegui import ui

from onethinker_jax.data_pipeline.records.record import Record
from onethinker_jax.demo.page.film import check_media, film_html, view_on_page
from onethinker_jax.demo.page.masks import MaskMaker
from onethinker_jax.demo.page.result import Result, speed_text
from onethinker_jax.demo.page.thinking import Progress, Sampling, Thinker, Thought, spoken
from onethinker_jax.demo.printing import described, shown
from onethinker_jax.errors import UserError
from onethinker_jax.serve.errors import Refused
from onethinker_jax.tasks import TABLE

logger = logging.getLogger("onethinker_jax.demo")

BETWEEN_UPDATES = 0.1
"""Seconds: each sends the whole text to the browser."""


class Pane:
    """The elements of one model's answer, made where the caller stands on the page."""

    def __init__(self, thinker: Thinker, masks: MaskMaker):
        self._thinker, self._make_masks = thinker, masks
        self._updated = 0.0
        self._result: Result | None = None
        with ui.element("section").classes("card pane"):
            ui.label(thinker.name).classes("task")
            self._status = ui.label("nothing asked yet").classes("status")
            self._error = ui.label().classes("error").props("role=alert")
            ui.label("Reasoning").classes("heading")
            self._reasoning = ui.label().classes("said reasoning")
            ui.label("Answer").classes("heading")
            self._answer = ui.label().classes("said answer")
            self._truth = ui.label().classes("said truth")
            self._warnings = ui.label().classes("said warning")
            self._film = ui.html(sanitize=False).classes("drawn")
            self._places = ui.label().classes("said json places")
            with ui.element("div").classes("row"):
                self._copy = ui.button("Copy as JSON", on_click=self._copied).props("flat dense no-caps")
            with ui.expansion("JSON") as self._details:
                self._json = ui.label().classes("json")
        self.clear("nothing asked yet")

    def clear(self, status: str) -> None:
        """Empties it; `status` says why."""
        self._result = None
        self._status.set_text(status)
        for label in (self._error, self._answer, self._truth, self._warnings, self._places, self._reasoning):
            label.set_text("")
        for hidden in (self._error, self._truth, self._warnings, self._places, self._copy, self._details):
            hidden.set_visibility(False)
        self._film.set_content("")
        self._json.set_text("")

    async def answer(self, record: Record, sampling: Sampling, seconds: float) -> None:
        """Asks the model and shows what it says; an error of it is this pane's, in one line."""
        batch = self._thinker.parts.engine.batch
        full = batch.running >= batch.shape.prompt_slots
        self.clear("waiting for a free slot …" if full else "reading …")
        try:
            async with asyncio.timeout(seconds):
                thought = await self._thinker.think(record, sampling, self._hear)
                await self._show(Result(self._thinker.name, record, thought))
        except TimeoutError:
            self._fail(f"not answered within the {seconds:g} seconds allowed")
        except (UserError, Refused, OSError) as error:
            self._fail(str(error))
        except Exception:
            logger.exception("%s: a question of the page failed", self._thinker.name)
            self._fail("an error of the server; its log says more")
        except asyncio.CancelledError:
            self._status.set_text(f"cancelled; {self._status.text}")
            raise

    def _fail(self, message: str) -> None:
        self.clear("")
        self._error.set_text(message)
        self._error.set_visibility(True)

    def _hear(self, progress: Progress) -> None:
        if time.monotonic() - self._updated < BETWEEN_UPDATES:
            return
        self._updated = time.monotonic()
        reasoning, answer = spoken(progress.text)
        self._reasoning.set_text(reasoning)
        self._answer.set_text(answer)
        self._status.set_text(f"thinking: {speed_text(progress)}")

    async def _show(self, result: Result) -> None:
        """The whole answer, at once in words, then drawn."""
        thought, record = result.thought, result.record
        answer = thought.answer
        broken = answer.reasoning is None or answer.text is None
        self._reasoning.set_text(answer.response.text if broken else answer.reasoning or "")
        self._answer.set_text("" if answer.text is None else shown(answer))
        self._status.set_text("drawing …")
        warnings = list(result.warnings())
        try:
            film, rows, mask_error = await asyncio.to_thread(self._drawn, record, thought)
        except (UserError, OSError) as error:
            film, rows, mask_error = "", [], f"nothing is drawn: {error}"
        self._film.set_content(film)
        self._result = result
        texts = {
            self._truth: f"true answer: {result.truth()}" if result.truth() else "",
            self._warnings: "\n".join([*warnings, *([mask_error] if mask_error else [])]),
            self._places: "\n".join(f"{name}: {value}" for name, value in rows),
            self._json: result.json(),
        }
        for label, text in texts.items():
            label.set_text(text)
            label.set_visibility(bool(text))
        self._copy.set_visibility(True)
        self._details.set_visibility(True)
        prompt = f"after a prompt of {answer.response.prompt_tokens}"
        self._status.set_text(f"{speed_text(thought.progress)}; {prompt}")

    def _drawn(self, record: Record, thought: Thought) -> tuple[str, list[tuple[str, str]], str]:
        """The media with the answer on them, its places in words, and why there are no masks, "" where there are."""
        media, structured = self._thinker.processor.media, thought.answer.structured
        masks, mask_error = None, ""
        if structured is not None and TABLE[record.problem_type].judged_by == "mask":
            try:
                masks = self._make_masks(record, structured, media)
            except UserError as error:
                mask_error = f"no masks: {error}"
        size = check_media(record, media)
        view = view_on_page(record, structured, media, masks=masks is not None)
        return film_html(view, structured, masks), list(described(structured, masks, view, size)), mask_error

    def _copied(self) -> None:
        if self._result is not None:
            ui.clipboard.write(self._result.json())
            ui.notify("copied")
