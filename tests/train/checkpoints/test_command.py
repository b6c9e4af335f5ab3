"""python -m onethinker_jax.train.checkpoints: what it lists, verifies and deletes."""

import json
import shutil
from pathlib import Path

import pytest

from onethinker_jax.train.checkpoints.__main__ import main
from onethinker_jax.train.checkpoints.checkpoints import Checkpoints
from onethinker_jax.train.config.checkpoints import CheckpointSettings, KeepSettings
from tests.train.checkpoints.test_checkpoints import break_file, fresh


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with checkpoints 1 (SFT), 2, 3 and 4, the second scored; some of them nothing keeps."""
    folder = tmp_path_factory.mktemp("made")
    keep = KeepSettings(last=2, every=None, best=1)
    checkpoints = Checkpoints(folder / "checkpoints", CheckpointSettings(keep=KeepSettings(last=None)))
    for number in (1, 2, 3, 4):
        stage = "sft" if number == 1 else "rl"
        checkpoints.save(number, fresh(4), {"stage": stage}, heldout=0.25 if number == 2 else None)
    checkpoints.close()
    settings = {"checkpoints": {"keep": {"last": keep.last, "every": keep.every, "best": keep.best}}}
    (folder / "config.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "run"))


def rows(said: str) -> list[list[str]]:
    """The cells of the lines of the table, which two spaces or more divide."""
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in said.splitlines()]


def test_the_list(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "checkpoints" / "5.orbax-checkpoint-tmp").mkdir()
    assert main([str(run)]) == 0
    header, *lines = rows(capsys.readouterr().out)
    assert header == ["number", "stage", "size", "heldout", "kept as"]
    assert [[line[0], line[1], *line[3:]] for line in lines[:4]] == [
        ["1", "sft", "nothing keeps it"],
        ["2", "rl", "0.2500", "best"],
        ["3", "rl", "last"],
        ["4", "rl", "last"],
    ]
    assert lines[4][0].startswith("5.orbax-checkpoint-tmp: not whole")
    assert all(line[2].endswith("MiB") for line in lines[:4])
    assert Checkpoints(run / "checkpoints").numbers() == [1, 2, 3, 4]


def test_verifying(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(run), "--verify"]) == 0
    assert [line[-1] for line in rows(capsys.readouterr().out)[1:]] == ["good"] * 4
    break_file("state/manifest.ocdbt", "flip")(run / "checkpoints" / "2")
    (run / "checkpoints" / "3" / "checksums.json").unlink()
    assert main([str(run), "--verify"]) == 1
    found = [line[-1] for line in rows(capsys.readouterr().out)[1:]]
    damaged = "damaged: state/manifest.ocdbt is not as it was written (SHA-256)"
    assert found == ["good", damaged, "has no checksums", "good"]


def test_deleting(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is asked; each one that goes is named; the newest stays whatever is said."""
    assert main([str(run), "--keep.best", "1"]) == 0
    gone = [line for line in capsys.readouterr().out.splitlines() if line.startswith("deleted ")]
    assert [line.split(" ")[1] for line in gone] == [str(run / "checkpoints" / name) for name in "13"]
    assert Checkpoints(run / "checkpoints").numbers() == [2, 4]
    assert main([str(run), "--keep.every", "3"]) == 0
    assert Checkpoints(run / "checkpoints").numbers() == [4]


def test_what_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 1
    assert (
        capsys.readouterr().err == f"error: {tmp_path}: holds no checkpoints; is this the folder of a run?\n"
    )
    assert not list(tmp_path.iterdir())
    (tmp_path / "checkpoints").mkdir()
    assert main([str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"error: {tmp_path / 'checkpoints'}: holds no checkpoint yet\n"
