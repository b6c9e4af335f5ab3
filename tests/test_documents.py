"""What the documents name is there: files, links, and the modules of the Python they show."""

import re
from pathlib import Path

import pytest

from onethinker_jax.command_line import flags_of
from onethinker_jax.data_pipeline.annotate.__main__ import AnnotateSettings
from onethinker_jax.demo.arguments import Arguments as DemoArguments
from onethinker_jax.evaluate.arguments import Arguments as EvaluateArguments
from onethinker_jax.train.config.presets import PRESETS
from onethinker_jax.train.config.run import TrainConfig
from tests.places import ROOT

DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
PACKAGE = ROOT / "onethinker_jax"
FOLDERS = "benchmarks|docs|examples|tests|onethinker_jax|data_pipeline|demo|evaluate|model|rewards|train"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_that_a_document_names_are_there(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    named = re.findall(rf"(?<![\w/.-])((?:{FOLDERS})/[\w./-]+\.(?:css|js|json|md|png|proto|py))\b", text)
    gone = [name for name in named if not (ROOT / name).exists() and not (PACKAGE / name).exists()]
    links = re.findall(r"\]\(([\w./-]+)(?:#[\w-]*)?\)", text)
    gone += [link for link in links if not (document.parent / link).exists()]
    assert not gone


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_modules_that_a_document_names_are_there(document: Path) -> None:
    named = re.findall(r"(?:from|import|-m) (onethinker_jax[\w.]*)", document.read_text(encoding="utf-8"))
    paths = {name: ROOT.joinpath(*name.rstrip(".").split(".")) for name in named}
    assert not [
        name for name, path in paths.items() if not path.is_dir() and not path.with_suffix(".py").exists()
    ]


def test_there_are_documents() -> None:
    assert len(DOCUMENTS) > 10


def test_nested_flags_that_documents_name_are_there() -> None:
    """Such as --rl.rollout.group-size; a section alone is named too. The changelog also names what is gone."""
    known = set(flags_of(TrainConfig, default=PRESETS["shapes"]()))
    for settings in (AnnotateSettings, DemoArguments, EvaluateArguments):
        known |= set(flags_of(settings))
    sections = {flag.rsplit(".", count)[0] for flag in known for count in range(1, flag.count(".") + 1)}
    for document in DOCUMENTS:
        if document.name == "CHANGELOG.md":
            continue
        named = set(re.findall(r"--[a-z]+(?:\.[a-z][a-z-]*[a-z])+", document.read_text(encoding="utf-8")))
        assert not named - known - sections, document.name
