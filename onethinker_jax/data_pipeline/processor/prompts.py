"""From a record to chat messages: the only prompt templates of the project.

One template a task, in our own wording: the question, the options of a multiple-choice question, and one short
instruction. Training, rollouts, evaluation and the demo all come through here, so that a model is always asked
in the words it was trained with; `Prompts.from_file` brings the words of a checkpoint that was trained with
others. The placeholders <image> and <video> stay where the record's problem has them; a problem that has none
(evaluation files) gets them in front, videos first.
"""

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from onethinker_jax.data_pipeline.records.conversation import media_kinds, reserved_token
from onethinker_jax.data_pipeline.records.record import Record, task_of
from onethinker_jax.data_pipeline.records.text_errors import text_error
from onethinker_jax.errors import UserError
from onethinker_jax.tasks import PROBLEM_TYPES, TABLE, TASKS, Task

FALLBACK = "default"
"""Key of the template of all tasks that have none of their own."""
SYSTEM = "system"
"""Key of the system turn of all tasks."""
PROTOCOLS = "protocols"
"""Key of further tables of templates, by the name of the evaluation protocol that they belong to."""

# A word in single braces is a placeholder, in double braces itself; the JSON of an answer's form is neither.
_BRACED = re.compile(r"\{\{([A-Za-z_]\w*)\}\}|\{([A-Za-z_]\w*)\}")
_LETTERED = re.compile(r"^\s*\(?[A-Z][.):]")


class PromptError(UserError, ValueError):
    """Templates that cannot be used. One line naming the file, the task and the placeholder."""


class Prompts:
    """A template for every task, and the system turn before it, if there is one.

    `{question}` stands for the record's problem with its <image> and <video>, and `{options}`, in multiple
    choice, for the options, one a line.
    """

    def __init__(self, templates: Mapping[str, Any], source: str = "prompts"):
        """Checks that every task has a template.

        Args:
            templates: by task ("OCR (video)"), by problem type ("OCR"), or "default";
                the first of these that is there counts. A task without media has the template of images
                where none of them is there or the default cannot serve: files written before there were
                such tasks go on to be read. "system": the system turn. "protocols": other such tables by the
                name of a protocol of evaluation.
            source: where they come from, for errors.

        Raises PromptError: an unknown task, a task without a template, or one with other placeholders.
        """
        self.source = source
        templates = dict(templates)
        self.system: str | None = templates.pop(SYSTEM, None)
        if self.system is not None and (error := _words_error(self.system)):
            raise PromptError(f"{source}: {SYSTEM}: {error}")
        protocols = templates.pop(PROTOCOLS, {})
        if not isinstance(protocols, Mapping) or not all(isinstance(p, Mapping) for p in protocols.values()):
            raise PromptError(f"{source}: {PROTOCOLS}: must hold templates by protocol")
        self._protocols = {
            name: Prompts(table, f"{source}: {PROTOCOLS}.{name}") for name, table in protocols.items()
        }
        if unknown := sorted(set(templates) - {*map(str, TASKS), *PROBLEM_TYPES, FALLBACK}):
            raise PromptError(
                f"{source}: {unknown[0]!r} is no task (known: {', '.join(PROBLEM_TYPES)}, each also with "
                f"' (image)', ' (video)' or ' (text)', and {FALLBACK})"
            )
        self._templates: dict[Task, str] = {}
        for task in TASKS:
            key = next((k for k in (str(task), task.problem_type, FALLBACK) if k in templates), None)
            error = key and _template_error(templates[key], options=_has_options(task))
            if task.medium == "text" and (key is None or (key == FALLBACK and error)):
                self._templates[task] = self._templates[replace(task, medium="image")]
                continue
            if key is None:
                raise PromptError(f"{source}: has no template for {task}, and no {FALLBACK}")
            if error:
                used_for = "" if key == str(task) else f" (for {task})"
                raise PromptError(f"{source}: {key}{used_for}: {error}")
            self._templates[task] = templates[key]

    @classmethod
    def from_file(cls, path: str | Path) -> "Prompts":
        """Reads a JSON object or TOML table of templates.

        Raises PromptError: the file cannot be read, or as above.
        """
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8")
            templates = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
        except (OSError, ValueError) as error:
            raise PromptError(f"{path}: cannot be read as prompts ({error})") from None
        if not isinstance(templates, dict):
            raise PromptError(f"{path}: must hold templates by task")
        return cls(templates, str(path))

    def to_json(self) -> str:
        """What `from_file` reads back, every task named."""
        return json.dumps(self._table(), indent=2, ensure_ascii=False) + "\n"

    def _table(self) -> dict[str, Any]:
        table: dict[str, Any] = {} if self.system is None else {SYSTEM: self.system}
        table |= {str(task): template for task, template in self._templates.items()}
        if self._protocols:
            table[PROTOCOLS] = {name: prompts._table() for name, prompts in self._protocols.items()}
        return table

    def of_protocol(self, name: str) -> "Prompts":
        """The table of a protocol of evaluation, this one where it has none of its own."""
        return self._protocols.get(name, self)

    def template(self, task: Task) -> str:
        """The template of a task.

        Raises PromptError: an unknown task.
        """
        if task not in self._templates:
            raise PromptError(f"{self.source}: has no template for {task}")
        return self._templates[task]


def instruction(task: Task) -> str:
    """Our own instruction of a task. Raises ValueError for an unknown one."""
    return f"Think in <think></think>, then give {task.wording.prompt} in <answer></answer>."


def _own_template(task: Task) -> str:
    options = "{options}\n" if _has_options(task) else ""
    return f"{{question}}\n{options}{instruction(task)}"


def _has_options(task: Task) -> bool:
    return TABLE[task.problem_type].answer == "letter"


def _template_error(template: object, *, options: bool) -> str | None:
    """What is wrong with a template, None if nothing."""
    if not isinstance(template, str):
        return _words_error(template)
    needed = ["question", "options"] if options else ["question"]
    found = [match[2] for match in _BRACED.finditer(template) if match[2]]
    if unknown := [name for name in found if name not in needed]:
        known = " and ".join(f"{{{name}}}" for name in needed)
        return (
            f"unknown placeholder {{{unknown[0]}}} (known: {known}; write {{{{{unknown[0]}}}}} for the word)"
        )
    for name in needed:
        if found.count(name) != 1:
            return f"needs the placeholder {{{name}}} once, has it {found.count(name)} times"
    return _words_error(template)


def _words_error(text: object) -> str | None:
    """What is wrong with words around a question, None if nothing."""
    if not isinstance(text, str):
        return f"must be a text, is a {type(text).__name__}"
    if error := text_error(text):
        return error
    if kinds := media_kinds(text):
        return f"holds <{kinds[0]}>, which is in the place of {{question}} already"
    if token := reserved_token(text):
        return f"holds the reserved token {token}"
    return None


OWN_PROMPTS = Prompts({str(task): _own_template(task) for task in TASKS})
"""The project's wording."""


def ask(
    problem: str,
    options: Sequence[str],
    task: Task,
    *,
    prompts: Prompts = OWN_PROMPTS,
) -> str:
    """The question as the model reads it, its options lettered if they are not yet.

    Raises PromptError: an unknown problem type.
    """
    values = {"question": problem.strip(), "options": "\n".join(_lettered(options))}
    return _BRACED.sub(
        lambda found: f"{{{found[1]}}}" if found[1] else values[found[2]],
        prompts.template(task),
    )


def question_text(record: Record, *, prompts: Prompts = OWN_PROMPTS) -> str:
    """A record's question as the model reads it, with its placeholders.

    Raises PromptError: an unknown problem type.
    """
    problem = record.problem
    if not media_kinds(problem):
        problem = "<video>" * len(record.videos) + "<image>" * len(record.images) + problem.lstrip()
    return ask(problem, record.options, task_of(record), prompts=prompts)


def chat_messages(record: Record, *, prompts: Prompts = OWN_PROMPTS) -> list[dict[str, str]]:
    """Messages `[{"role", "content"}]`, content a string with <image> / <video>.

    A row of an SFT file keeps its own messages; any other record becomes one user turn, behind the prompts' system
    turn where they have one.
    """
    if record.messages is not None:
        return [{"role": message["role"], "content": message["content"]} for message in record.messages]
    system = [] if prompts.system is None else [{"role": "system", "content": prompts.system}]
    return [*system, {"role": "user", "content": question_text(record, prompts=prompts)}]


def _lettered(options: Sequence[str]) -> Sequence[str]:
    if all(_LETTERED.match(option) for option in options):
        return options
    return [
        f"{letter}. {option}" for letter, option in zip("ABCDEFGHIJKLMNOPQRSTUVWXYZ", options, strict=False)
    ]
