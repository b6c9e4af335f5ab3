"""Records -> a teacher's answers on the disk: as many questions under way as are allowed, media read meanwhile."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from onethinker_jax.data_pipeline.annotate.candidates import Candidate, Candidates, Key, key_of
from onethinker_jax.data_pipeline.annotate.teacher import TeacherSettings
from onethinker_jax.data_pipeline.annotate.teacher_prompt import SentMedia, question_digest, request_messages
from onethinker_jax.data_pipeline.media.decoding import MediaError
from onethinker_jax.data_pipeline.media.reading.media_reader import MediaReader
from onethinker_jax.data_pipeline.records.bad_records import BadRecords
from onethinker_jax.data_pipeline.records.json_rows import RecordError
from onethinker_jax.data_pipeline.records.record import Record, iter_records
from onethinker_jax.endpoint.endpoint import Endpoint, Reply, Unanswered, first_error

_AHEAD = 2  # records whose media are read before a request could be sent


class Corpus:
    """The records to annotate, read from their files as often as they are iterated over.

    What is bad is reported at the first reading; the later ones leave it out.
    """

    def __init__(self, files: Iterable[Path], media_root: Path | None, bad: BadRecords, limit: int | None):
        self._files, self._media_root, self._limit = tuple(files), media_root, limit
        self._bad = bad
        self._read = False
        self.unreadable: set[Key] = set()
        """Records whose media turned out to be undecodable."""

    def __iter__(self) -> Iterator[Record]:
        bad: BadRecords = self._bad if not self._read else _AlreadyReported("skip")
        known: dict[Key, str] = {}
        for path in self._files:
            for record in iter_records(path, media_root=self._media_root, bad=bad):
                if self._limit is not None and len(known) >= self._limit:
                    self._read = True
                    return
                if error := _error(record, known):
                    bad.report(RecordError(f"{record}: {error}"), problem_id=record.problem_id)
                    continue
                known[key_of(record)] = str(record)
                yield record
        self._read = True

    def report_unreadable(self, record: Record, error: MediaError) -> None:
        """Raises the error, or leaves the record out."""
        self._bad.report(RecordError(f"{record}: {error}"), problem_id=record.problem_id)
        self.unreadable.add(key_of(record))


class _AlreadyReported(BadRecords):
    def report(self, error: Exception, **about: object) -> None:
        pass

    def doubt(self, text: str, origin: str) -> None:
        pass


def _error(record: Record, known: dict[Key, str]) -> str | None:
    """What annotation needs of a record beyond what reading checks."""
    if not record.problem_type:
        return "problem_type: is missing, which scoring needs"
    if not record.answer:
        return "answer: is missing, which scoring needs"
    if record.problem_id == "":
        return "problem_id: is missing, by which answers are found again"
    if first := known.get(key_of(record)):
        return f"problem_id: is also that of {first}, and so is the data_source"
    return None


@dataclass
class Asked:
    """What came of asking, so far."""

    answers: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    unanswered: Counter[str] = field(default_factory=Counter)  # why -> questions


@contextmanager
def media_reader(workers: int, time_limit: float) -> Iterator[tuple[MediaReader, ThreadPoolExecutor]]:
    """A reader that decodes media in `workers` processes (0: in this one), and the threads to call it from."""
    threads = ThreadPoolExecutor(max(workers, 1), thread_name_prefix="media")
    reader = MediaReader.in_processes(workers, time_limit=time_limit)
    try:
        yield reader, threads
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
        reader.close()  # ends what is being decoded, so that its thread ends too
        threads.shutdown()


async def ask_all(
    corpus: Iterable[tuple[Record, list[int]]],
    candidates: Candidates,
    settings: TeacherSettings,
    *,
    sent: SentMedia,
    system_prompt: str,
    reader: MediaReader,
    threads: ThreadPoolExecutor,
    on_unreadable: Callable[[Record, MediaError], None],
    on_progress: Callable[[Asked, Endpoint], None],
) -> Asked:
    """Asks for the numbered candidates of each record and appends every answer to `candidates` at once.

    `on_progress` is called after each answer, and each question that stays without one.

    Raises EndpointError: the endpoint cannot be used. RecordError, by `on_unreadable`. OSError: the disk is full.
    """
    asked, loop = Asked(), asyncio.get_running_loop()
    capacity = asyncio.Semaphore(settings.concurrency + _AHEAD)

    async def ask_record(record: Record, numbers: list[int]) -> None:
        try:
            try:
                messages = await loop.run_in_executor(
                    threads, request_messages, record, reader, sent, system_prompt
                )
            except MediaError as error:
                on_unreadable(record, error)
                return
            async with asyncio.TaskGroup() as group:
                for number in numbers:
                    group.create_task(ask_one(record, number, messages))
        finally:
            capacity.release()

    async def ask_one(record: Record, number: int, messages: list) -> None:
        try:
            reply = await teacher.ask(messages)
        except Unanswered as error:
            asked.unanswered[str(error)] += 1
        else:
            candidates.append(_candidate(record, number, reply))
            asked.answers += 1
            asked.prompt_tokens += reply.prompt_tokens
            asked.completion_tokens += reply.completion_tokens
        on_progress(asked, teacher)

    async with Endpoint(settings) as teacher:
        try:
            async with asyncio.TaskGroup() as records:
                for record, numbers in corpus:
                    if numbers:
                        await capacity.acquire()
                        records.create_task(ask_record(record, numbers))
                    else:
                        await asyncio.sleep(0)  # reading on must not hold up what is under way
        except BaseExceptionGroup as group:
            raise first_error(group) from None
    return asked


def _candidate(record: Record, number: int, reply: Reply) -> Candidate:
    return Candidate(
        problem_id=record.problem_id,
        data_source=record.data_source,
        candidate=number,
        question=question_digest(record),
        **asdict(reply),
    )
