"""What the documents name is there: files, links, and the modules of the Python they show."""

import re
from pathlib import Path

import pytest

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
