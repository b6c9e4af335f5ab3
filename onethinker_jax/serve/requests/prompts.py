"""A request's conversation as the model's prompt: media decoded apart, lengths known before a pixel is decoded."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from onethinker_jax.data_pipeline.media.media_file import MediaFile
from onethinker_jax.data_pipeline.processor.processor import Example, Processor
from onethinker_jax.data_pipeline.records.conversation import literal
from onethinker_jax.data_pipeline.records.record import Record
from onethinker_jax.errors import UserError
from onethinker_jax.serve.arguments import Limits
from onethinker_jax.serve.errors import wrong
from onethinker_jax.serve.requests.fields import (
    FrameCount,
    FrameTimes,
    ImagePart,
    Message,
    TextPart,
    VideoPart,
)
from onethinker_jax.serve.requests.media import MediaSource

LETTERS_A_TOKEN = 32
"""A text of more letters than this for each token that a prompt may have is refused before it is tokenised."""


class PromptMaker:
    """Makes prompts in threads: a few for texts, and one for each process that decodes media."""

    def __init__(self, processor: Processor, source: MediaSource, limits: Limits, sizes: tuple[int, int]):
        """`sizes`: the most tokens and patches of a prompt."""
        self.processor = processor
        self._source, self._limits, self._sizes = source, limits, sizes
        workers = max(processor.media.workers, 1)
        self._text = ThreadPoolExecutor(2, "text")
        self._media = ThreadPoolExecutor(workers, "media")

    async def prompt(
        self, messages: Sequence[Message], video: FrameTimes | FrameCount | None = None
    ) -> Example:
        """The prompt, ending where the model starts to answer; `video`: how videos are read. Raises Refused."""
        return await self.of_record(await self._record(messages, video), "messages")

    async def of_record(self, record: Record, field: str) -> Example:
        """A record's prompt; `field` stands for it in errors. Raises Refused."""
        self._check_length(len(record.problem), field)
        threads = self._media if record.images or record.videos else self._text
        return await asyncio.get_running_loop().run_in_executor(threads, self._made, record, field)

    async def tokens(self, text: str) -> list[int]:
        """The tokens of a text. Raises Refused."""
        self._check_length(len(text), "prompt")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._text, self.processor.tokenizer.encode, text)

    def close(self) -> None:
        """Ends the threads and the processes that decode."""
        self._text.shutdown(wait=False, cancel_futures=True)
        self._media.shutdown(wait=False, cancel_futures=True)
        self.processor.media.close()

    async def _record(self, messages: Sequence[Message], video: FrameTimes | FrameCount | None) -> Record:
        """The conversation with its files. Raises Refused."""
        if messages[-1].role != "user":
            raise wrong("the last message must be the user's", f"messages[{len(messages) - 1}].role")
        files: dict[str, list[MediaFile]] = {"image": [], "video": []}
        turns = []
        self._check_counts(messages)
        for number, message in enumerate(messages):
            content = ""
            for place, part in enumerate(message.content):
                field = f"messages[{number}].content[{place}]"
                if isinstance(part, TextPart):
                    try:
                        content += literal(part.text)
                    except ValueError as error:
                        raise wrong(f"{field}: {error}", field) from None
                    continue
                if message.role != "user":
                    raise wrong(f"{field}: media belong to the user's messages", field)
                if isinstance(part, ImagePart):
                    files["image"].append(await self._source.file(part.image_url.url, field))
                    content += "<image>"
                else:
                    files["video"].append(await self._source.video(part.video_url.url, field, video))
                    content += "<video>"
            turns.append({"role": message.role.replace("developer", "system"), "content": content})
        if isinstance(video, FrameTimes) and len(files["video"]) != 1:
            raise wrong("media_io_kwargs.video gives the times of one video", "media_io_kwargs")
        kind = "video" if files["video"] else "image" if files["image"] else "text"
        images, videos = tuple(files["image"]), tuple(files["video"])
        return Record(
            *("request", "", kind, "open-ended", (), ""),
            images,
            videos,
            "request",
            tuple(turns),
            origin="request",
        )

    def _check_counts(self, messages: Sequence[Message]) -> None:
        parts = [part for message in messages for part in message.content]
        for kind, most, of_kind in (
            ("images", self._limits.images, ImagePart),
            ("videos", self._limits.videos, VideoPart),
        ):
            if (count := sum(isinstance(part, of_kind) for part in parts)) > most:
                raise wrong(f"messages: {count} {kind}, more than the {most} allowed", "messages")
        letters = sum(len(part.text) for part in parts if isinstance(part, TextPart))
        self._check_length(letters, "messages")

    def _check_length(self, letters: int, field: str) -> None:
        if letters > LETTERS_A_TOKEN * self._sizes[0]:
            raise wrong(f"{field}: {letters} characters, more than {self._sizes[0]} tokens can hold", field)

    def _made(self, record: Record, field: str) -> Example:
        """The prompt. Whatever is wrong with files or texts is the client's to mend."""
        try:
            lengths = self.processor.lengths(record, training=False)
            sizes = (lengths.tokens, lengths.patches)
            for name, size, most in zip(("tokens", "patches"), sizes, self._sizes, strict=True):
                if size > most:
                    raise wrong(f"{field}: a prompt of {size} {name}, more than the {most} allowed", field)
            return self.processor.prompt(record)
        except UserError as error:
            raise wrong(str(error).removeprefix("request: ")[:600]) from None
