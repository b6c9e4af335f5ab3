"""What one visitor has of the page: media, a question, and the models that answer it."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from nicegui import background_tasks, events, ui

from onethinker_jax.data_pipeline.media.media_file import MediaFile, MemoryFile
from onethinker_jax.data_pipeline.records.conversation import words_of
from onethinker_jax.data_pipeline.records.record import Record, task_of
from onethinker_jax.demo.page.film import check_media, film_html, view_on_page
from onethinker_jax.demo.page.masks import MaskMaker
from onethinker_jax.demo.page.pane import Pane
from onethinker_jax.demo.page.thinking import Sampling, Thinker
from onethinker_jax.errors import UserError
from onethinker_jax.question import question_record
from onethinker_jax.serve.arguments import Limits
from onethinker_jax.tasks import PROBLEM_TYPES, TABLE
from onethinker_jax.text_output import one_line


@dataclass
class House:
    """What all visitors share."""

    thinkers: Sequence[Thinker]
    examples: Sequence[Record]
    masks: MaskMaker
    limits: Limits
    under_way: int = 0  # questions


class Desk:
    """One visitor's page, made where the caller stands."""

    def __init__(self, house: House):
        self._house, self._media = house, house.thinkers[0].processor.media
        self._about: Record | None = None  # holds the media: an example, or made of what was dropped
        self._example: Record | None = None  # the one that was taken, while its media are there
        self._looking = asyncio.Lock()  # media are looked at in the order in which they come
        self._task: asyncio.Task | None = None
        with ui.element("div").classes("desk"):
            with ui.element("section").classes("card ask"):
                self._build_question()
            with ui.element("div").classes("answers"):
                self._panes = [Pane(thinker, house.masks) for thinker in house.thinkers]
        ui.context.client.on_delete(self._leave)

    def _build_question(self) -> None:
        most = self._house.limits.media_bytes
        self._upload = ui.upload(
            label="Drop images and videos here",
            auto_upload=True,
            multiple=True,
            max_file_size=most,
            max_total_size=most,
            on_multi_upload=self._dropped,
            on_rejected=lambda: self._fail(
                f"files of at most {most} bytes together can be dropped at a time"
            ),
        )
        self._upload.props(
            ':field-name="() => String(Math.random())"'
        )  # files of one name are files of their own
        self._preview = ui.html(sanitize=False).classes("preview")
        self._remove = ui.button("Remove the media", on_click=self._removed).props("flat dense no-caps")
        self._kind = ui.select(
            list(PROBLEM_TYPES), value="open-ended", label="Task", on_change=self._retasked
        )
        self._words = ui.textarea("Question").props("autogrow outlined")
        self._options = ui.textarea("Options, one a line").props("autogrow outlined")
        with ui.expansion("Sampling"):
            self._temperature = ui.number("Temperature (0: greedy)", value=0, min=0, max=2, step=0.1)
            self._top_p = ui.number("Top p", value=1, min=0.01, max=1, step=0.05)
            self._seed = ui.number("Seed (empty: any)", value=0, min=0, precision=0)
            self._longest = ui.number("Most tokens (empty: as many as allowed)", min=1, precision=0)
        with ui.element("div").classes("row"):
            self._ask = ui.button("Ask", on_click=self._asked).props("no-caps")
            self._cancel = ui.button("Cancel", on_click=self._cancelled).props("no-caps outline")
        self._error = ui.label().classes("error").props("role=alert")
        if self._house.examples:
            with ui.expansion("Examples", value=True), ui.element("div").classes("examples"):
                for number, record in enumerate(self._house.examples):
                    if number == 0 or task_of(record) != task_of(self._house.examples[number - 1]):
                        ui.label(str(task_of(record))).classes("heading")
                    self._build_example(record)
        self._remove.set_visibility(False)
        self._cancel.disable()
        self._fail("")
        self._retasked()

    def _build_example(self, record: Record) -> None:
        button = ui.element("button").classes("example").props("type=button")
        with button:
            ui.label(words_of(record.problem).strip())
        button.on("click", lambda: self._took(record))

    def _fail(self, message: str) -> None:
        """Shows one message, none where it is empty."""
        self._error.set_text(message)
        self._error.set_visibility(bool(message))

    def _retasked(self) -> None:
        self._options.set_visibility(TABLE[self._kind.value].answer == "letter")

    async def _dropped(self, event: events.MultiUploadEventArguments) -> None:
        """Files were dropped: they are looked at, and join those that were dropped before."""
        self._upload.reset()
        async with self._looking:
            if self._example is not None:
                self._removed()
            self._fail("")
            most = self._house.limits.media_bytes
            size = sum(file.stat().st_size for file in self._files()) + sum(one.size() for one in event.files)
            if size > most:
                self._fail(
                    f"{event.files[-1].name}: {size} bytes with the other media, more than the {most} allowed"
                )
                return
            files = [MemoryFile(one_line(one.name), await one.read()) for one in event.files]
            try:
                records = [
                    await asyncio.to_thread(question_record, "of a file", [file], kind_of=self._media.kind)
                    for file in files
                ]
            except (UserError, OSError) as error:
                self._fail(str(error))
                return
            await self._look_at(records)

    async def _look_at(self, records: Sequence[Record]) -> None:
        """Shows the media of records, without answers, and keeps them for the question."""
        media, limits = self._media, self._house.limits

        def looked() -> str:
            for record in records:
                check_media(record, media)
            return "".join(film_html(view_on_page(one, None, media), truth=False) for one in records)

        try:
            film = await asyncio.to_thread(looked)
        except (UserError, OSError) as error:
            self._fail(str(error))
            return
        held = [*([] if self._about is None else [self._about]), *records]
        images, videos = (
            [file for one in held for file in getattr(one, kind)] for kind in ("images", "videos")
        )
        for files, kind, most in ((images, "images", limits.images), (videos, "videos", limits.videos)):
            if len(files) > most:
                self._fail(f"{len(files)} {kind}, more than the {most} allowed")
                return
        self._about = replace(held[0], images=tuple(images), videos=tuple(videos))
        self._preview.set_content(self._preview.content + film)
        self._remove.set_visibility(bool(self._preview.content))

    async def _took(self, record: Record) -> None:
        """An example was chosen."""
        async with self._looking:
            self._removed()
            self._kind.set_value(record.problem_type)
            self._words.set_value(words_of(record.problem).strip())
            self._options.set_value("\n".join(record.options))
            self._example = record
            await self._look_at([record])

    def _removed(self) -> None:
        self._about = self._example = None
        self._preview.set_content("")
        self._remove.set_visibility(False)
        self._fail("")

    def _files(self) -> tuple[MediaFile, ...]:
        """The media that are there."""
        return () if self._about is None else (*self._about.videos, *self._about.images)

    def _kind_of(self, file: MediaFile) -> Literal["image", "video"]:
        """What a file is that was looked at before."""
        assert self._about is not None
        return "video" if file in self._about.videos else "image"

    def _asked_record(self) -> Record:
        """The question as it stands. Raises UserError."""
        text, options = self._words.value or "", (self._options.value or "").splitlines()
        lettered = TABLE[self._kind.value].answer == "letter"
        options = tuple(option.strip() for option in options if option.strip()) if lettered else ()
        example = self._example
        if example is not None:
            asked = (words_of(example.problem).strip(), example.options, example.problem_type)
            if asked == (text.strip(), options, self._kind.value):
                return example
        return question_record(
            text, self._files(), task=self._kind.value, options=options, kind_of=self._kind_of
        )

    def _sampling(self) -> Sampling:
        seed, longest = self._seed.value, self._longest.value
        return Sampling(
            temperature=min(max(float(self._temperature.value or 0), 0.0), 2.0),
            top_p=min(max(float(self._top_p.value or 1), 0.01), 1.0),
            seed=None if seed is None else int(seed),
            max_new_tokens=None if longest is None else max(int(longest), 1),
        )

    def _asked(self) -> None:
        if self._task is None or self._task.done():
            self._task = background_tasks.create(self._answered(), name="a question of the page")

    async def _answered(self) -> None:
        """Asks all models at once."""
        house = self._house
        self._fail("")
        try:
            record = self._asked_record()
        except (UserError, OSError) as error:
            self._fail(str(error))
            return
        if house.under_way >= house.limits.requests:
            self._fail(f"{house.under_way} questions are under way, as many as are taken; come back later")
            return
        sampling = self._sampling()
        house.under_way += 1
        self._ask.disable()
        self._cancel.enable()
        try:
            async with asyncio.TaskGroup() as models:
                for pane in self._panes:
                    models.create_task(pane.answer(record, sampling, house.limits.seconds))
        finally:
            house.under_way -= 1
            self._ask.enable()
            self._cancel.disable()

    def _cancelled(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _leave(self) -> None:
        """The visitor has gone: what was asked is given up."""
        self._cancelled()
