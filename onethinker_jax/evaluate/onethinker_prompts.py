"""OneThinker's own wording, out of a copy of its repository -> a prompt file, so that OneThinker-8B is asked in it.

    python -m onethinker_jax.evaluate.onethinker_prompts OneThinker --out prompts.toml
    python -m onethinker_jax.evaluate OneThinker-8B eval_mmvu.json --prompt-file prompts.toml

Their files are parsed, never executed. The file has the words of both harnesses: those of
`Evaluation/Eval/eval_bench.py`, and as protocol vlmevalkit the system turn of their entry in VLMEvalKit and its words
for multiple choice. As `prompts.json` in the model's directory it is found without a flag.

Exit status: 0 the file is written, 1 an error that is named in one line, 2 a command line that cannot be used.
"""

from onethinker_jax import command_line

if __name__ == "__main__":  # the imports below take some time
    command_line.begin()

import ast
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import tyro

from onethinker_jax.data_pipeline.processor.prompts import FALLBACK, PROTOCOLS, SYSTEM, Prompts
from onethinker_jax.errors import UserError
from onethinker_jax.files import write_whole
from onethinker_jax.tasks import PROBLEM_TYPES, Task

SCRIPT = "Evaluation/Eval/eval_bench.py"
CONFIG = "Evaluation/VLMEvalKit/vlmeval/config.py"
CHOICES = "Evaluation/VLMEvalKit/vlmeval/dataset/image_mcq.py"
_CHOICE = "multiple choice"
_KEYS = {f"segmentation_{medium}": str(Task("segmentation", medium)) for medium in ("image", "video")}
_WORD_IN_BRACES = re.compile(r"\{([A-Za-z_]\w*)\}")


class RepositoryError(UserError):
    """A file of the repository is missing or has another structure. One line naming it and what is missing."""


@dataclass(frozen=True, kw_only=True)
class PromptArguments:
    """Reads OneThinker's wording out of a copy of its repository into a prompt file."""

    repository: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="REPO")]]
    """Folder of the repository, that holds Evaluation."""
    out: Path = Path("prompts.toml")
    """The prompt file, TOML, or JSON where it ends in .json."""


def run(arguments: PromptArguments) -> None:
    """Reads, checks and writes."""
    table = read_wording(arguments.repository)
    try:
        Prompts(table, str(arguments.repository))
    except UserError as error:
        raise RepositoryError(f"{error}: its words cannot be used as a prompt file") from None
    as_json = arguments.out.suffix == ".json"
    write_whole(
        arguments.out, json.dumps(table, indent=2, ensure_ascii=False) + "\n" if as_json else _toml(table)
    )
    sys.stdout.write(
        f"{arguments.out}: the words of {len(table) - 2} problem types and of protocol vlmevalkit\n"
    )


def read_wording(repository: Path) -> dict[str, Any]:
    """The table of a prompt file. Raises RepositoryError."""
    script = _parsed(repository / SCRIPT)
    question = _text(repository / SCRIPT, "QUESTION_TEMPLATE", _assigned(script, "QUESTION_TEMPLATE"))
    tails = _assigned(script, "TYPE_TEMPLATE")
    if not isinstance(tails, dict) or not all(isinstance(text, str) for text in tails.values()):
        raise RepositoryError(f"{repository / SCRIPT}: has no table of texts TYPE_TEMPLATE")
    table: dict[str, Any] = {}
    for key, tail in tails.items():
        name = _KEYS.get(str(key), str(key))
        if name not in (*PROBLEM_TYPES, *_KEYS.values()):
            raise RepositoryError(
                f"{repository / SCRIPT}: TYPE_TEMPLATE: {key!r} is no problem type known here"
            )
        asked = "{question}\nOptions:\n{options}" if name == _CHOICE else "{question}"
        table[name] = _filled(repository / SCRIPT, question, asked) + _literal(tail)
    if _CHOICE not in table:
        raise RepositoryError(f"{repository / SCRIPT}: TYPE_TEMPLATE has no {_CHOICE!r}")
    table[FALLBACK] = _filled(repository / SCRIPT, question, "{question}")
    table[PROTOCOLS] = {
        "vlmevalkit": {
            SYSTEM: _system_prompt(repository / CONFIG),
            _CHOICE: _choice_template(repository / CHOICES),
            FALLBACK: "{question}",
        }
    }
    return table


def _filled(path: Path, template: str, asked: str) -> str:
    """A template of `str.format` with {Question}, as one of ours."""
    if template.count("{Question}") != 1:
        raise RepositoryError(f"{path}: QUESTION_TEMPLATE needs {{Question}} once")
    before, _, after = template.partition("{Question}")
    plain = [text.replace("{{", "{").replace("}}", "}") for text in (before, after)]
    return asked.join(_literal(text) for text in plain)


def _literal(text: str) -> str:
    """A text in which no word in braces is a placeholder of ours."""
    return _WORD_IN_BRACES.sub(r"{{\1}}", text)


def _parsed(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RepositoryError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (ValueError, SyntaxError, RecursionError) as error:
        raise RepositoryError(f"{path}: is no Python file ({error})") from None


def _assigned(module: ast.Module, name: str) -> Any:
    """The value of a constant at the top of a module; None where it has none that is written out."""
    for node in module.body:
        if isinstance(node, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == name for target in node.targets
        ):
            return _value(node.value)
    return None


def _value(node: ast.AST) -> Any:
    try:
        return ast.literal_eval(node)  # type: ignore[arg-type]
    except (ValueError, TypeError, SyntaxError, RecursionError):
        return None


def _text(path: Path, what: str, value: object) -> str:
    if not isinstance(value, str):
        raise RepositoryError(f"{path}: has no text {what}")
    return value


def _system_prompt(path: Path) -> str:
    """The system turn of the only entry that names OneThinker and has one."""
    found = {
        text for entry in _entries(_parsed(path)) if (text := _keyword(entry, "system_prompt")) is not None
    }
    if len(found) != 1:
        raise RepositoryError(
            f"{path}: has {len(found)} models named OneThinker with a system_prompt of their own, one is expected"
        )
    return found.pop()


def _entries(module: ast.Module) -> Iterator[ast.Call]:
    """The calls that stand behind a name with OneThinker in it in any dictionary."""
    for node in ast.walk(module):
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                named = isinstance(key, ast.Constant) and "OneThinker" in str(key.value)
                if named and isinstance(value, ast.Call):
                    yield value


def _keyword(call: ast.Call, name: str) -> str | None:
    texts = [_value(keyword.value) for keyword in call.keywords if keyword.arg == name]
    return texts[0] if texts and isinstance(texts[0], str) else None


def _choice_template(path: Path) -> str:
    """The first `build_prompt` that adds a text with {question} to `prompt`, then one below the options."""
    for function in ast.walk(_parsed(path)):
        if isinstance(function, ast.FunctionDef) and function.name == "build_prompt":
            added = list(_added(function))
            asked = next((text for text in added if "{question}" in text), None)
            if asked is not None and (below := added[added.index(asked) + 1 :]):
                return f"{asked}Options:\n{{options}}\n{below[0]}"
    raise RepositoryError(f"{path}: no build_prompt adds a question and a line below its options to prompt")


def _added(function: ast.FunctionDef) -> Iterator[str]:
    """What `prompt += ...` adds, in order: constants, and f-strings of the question with {question} in its place."""
    nodes = [
        node
        for node in ast.walk(function)
        if isinstance(node, ast.AugAssign) and ast.unparse(node.target) == "prompt"
    ]
    for node in sorted(nodes, key=lambda node: node.lineno):
        value = node.value
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            yield _literal(value.value)
        elif isinstance(value, ast.JoinedStr):
            parts = [
                _literal(str(part.value)) if isinstance(part, ast.Constant) else f"{{{_name(part)}}}"
                for part in value.values
            ]
            if "{question}" in parts:
                yield "".join(parts)


def _name(part: ast.expr) -> str:
    """The variable that an f-string shows; "" for anything else."""
    shown = part.value if isinstance(part, ast.FormattedValue) else part
    return shown.id if isinstance(shown, ast.Name) else ""


def _toml(table: dict[str, Any]) -> str:
    """TOML: a basic string is written as in JSON."""
    rows = [f"{json.dumps(key)} = {_quoted(value)}" for key, value in table.items() if isinstance(value, str)]
    for name, words in table[PROTOCOLS].items():
        rows += ["", f"[{PROTOCOLS}.{name}]"]
        rows += [f"{json.dumps(key)} = {_quoted(value)}" for key, value in words.items()]
    return "\n".join(rows) + "\n"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


main = partial(
    command_line.main,
    PromptArguments,
    run,
    prog="python -m onethinker_jax.evaluate.onethinker_prompts",
    stopped="nothing is written",
)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
