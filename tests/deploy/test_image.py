"""The Dockerfile, without a daemon: hadolint, the files it copies, the extras it installs, what its images start."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.deploy.commands import DEPLOY, SCRIPTS
from tests.places import ROOT

DOCKERFILE = DEPLOY / "Dockerfile"
BIN = Path(sys.executable).parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def instructions() -> list[tuple[str, str]]:
    """Each instruction of the Dockerfile and what follows it, on one line."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in lines if line]


def arguments_of(name: str) -> list[str]:
    return [words for instruction, words in instructions() if instruction == name]


def test_hadolint() -> None:
    result = subprocess.run([BIN / "hadolint", DOCKERFILE], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, ""), result.stdout


def test_files_that_it_copies_are_there_and_in_the_context() -> None:
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").split()
    copied = [name for words in arguments_of("COPY") for name in words.split()[:-1]]
    assert copied
    for name in copied:
        assert (ROOT / name).exists(), name
        assert f"!{name}" in ignored, name
    # What the build of the wheel reads must be among them.
    project = PROJECT["project"]
    packages = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert {"pyproject.toml", project["readme"], *project["license-files"], *packages} == set(copied)


def extras(command: str) -> list[str]:
    return [extra for group in re.findall(r'"\.\[(.*?)\]"', command) for extra in group.split(",")]


def test_extras_that_it_installs_exist() -> None:
    known = set(PROJECT["project"]["optional-dependencies"])
    installed = [extra for command in arguments_of("RUN") for extra in extras(command)]
    assert {"${EXTRAS}", "sidecar"} <= set(installed)
    assert set(installed) - {"${EXTRAS}"} <= known
    (default,) = arguments_of("ARG")
    named = re.findall(r"EXTRAS=([\w,-]+)", DOCKERFILE.read_text(encoding="utf-8"))
    assert default == "EXTRAS=gpu" and {"gpu", "tpu"} <= {
        extra for names in named for extra in names.split(",")
    }
    assert {extra for names in named for extra in names.split(",")} <= known


def test_the_base_has_a_python_that_the_project_takes() -> None:
    version = re.match(r"python:(\d+)\.(\d+)-", arguments_of("FROM")[0])
    least = re.fullmatch(r">=(\d+)\.(\d+)", PROJECT["project"]["requires-python"])
    assert version and least
    assert tuple(map(int, version.groups())) >= tuple(map(int, least.groups()))


def test_stages_and_what_they_start() -> None:
    """The trainer is what process 1 hands signals to, so no shell stands between."""
    stages = [words.rsplit(" AS ", 1)[1] for words in arguments_of("FROM")]
    assert stages == ["base", "trainer", "rewards"]
    starts = [json.loads(words) for words in arguments_of("ENTRYPOINT")]
    assert [words[:4] for words in starts] == [["tini", "--", "python", "-m"]] * 2
    assert [words[4] for words in starts] == ["onethinker_jax.train", "onethinker_jax.rewards.server"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck(script: Path) -> None:
    result = subprocess.run([BIN / "shellcheck", script], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "")


def test_every_shell_script_of_the_project_is_checked() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:  # no clone
        pytest.skip("no git here")
    named = [ROOT / line for line in listed.stdout.splitlines()]
    first = {path: path.read_bytes()[:64].split(b"\n")[0] for path in named if path.is_file()}
    shells = {path for path, line in first.items() if re.match(rb"#!.*\b(ba|da|z|)sh\b", line)}
    assert shells and shells <= set(SCRIPTS)
