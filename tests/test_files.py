"""Files and folders that are whole or absent: after an error, a kill at the worst moment, and several writers."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from onethinker_jax import files
from onethinker_jax.files import undo_broken_swap, whole_file, whole_folder, write_whole
from tests.places import ROOT
from tests.waiting import HANG_S


def content(folder: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in folder.iterdir()}


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def make(folder: Path, text: str) -> None:
    with whole_folder(folder) as new:
        (new / "a").write_text(text)
        (new / "b").write_text(text)


def test_a_file_is_replaced_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "a[1].json"
    for text in ("one", "two", "a lone half: \ud83d"):
        write_whole(path, text)
    assert content(tmp_path) == {"a[1].json": "a lone half: \\ud83d"}


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "made"
    make(folder, "one")
    (folder / "c").write_text("of the old one")
    make(folder, "two")
    assert content(folder) == {"a": "two", "b": "two"}
    assert [path.name for path in folder.parent.iterdir()] == ["made"]


def test_an_error_leaves_the_old_and_no_temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, folder = tmp_path / "file", tmp_path / "folder"
    write_whole(file, "old")
    make(folder, "old")

    def write() -> None:
        with whole_file(file) as aside:
            aside.write_text("half")
            raise KeyboardInterrupt

    def fill() -> None:
        with whole_folder(folder) as new:
            (new / "a").write_text("half")
            raise OSError("No space left on device")

    rename = os.rename

    def second_fails(source: Path, target: Path) -> None:
        if source.name.endswith(".writing"):
            raise OSError("No space left on device")
        rename(source, target)

    with pytest.raises(KeyboardInterrupt):
        write()
    with pytest.raises(OSError, match="No space"):
        fill()
    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr(files.os, "rename", second_fails)
        make(folder, "new")
    assert file.read_text() == "old" and content(folder) == {"a": "old", "b": "old"}
    assert {path.name for path in tmp_path.iterdir()} == {"file", "folder"}


KILLED = """
import os, signal, sys
from pathlib import Path
from onethinker_jax import files
place, moment = Path(sys.argv[1]), sys.argv[2]
def kill(*_): os.kill(os.getpid(), signal.SIGKILL)
rename = os.rename
def kill_second(source, target): kill() if source.name.endswith(".writing") else rename(source, target)
if moment == "written":
    files.os.replace = files.os.rename = kill
elif moment == "between":
    files.os.rename = kill_second
elif moment == "after":
    files.shutil.rmtree = lambda path, **_: kill() if path.exists() else None
if place.name == "file":
    files.write_whole(place, "new")
else:
    with files.whole_folder(place) as new:
        (new / "a").write_text("new")
"""


@pytest.mark.parametrize(
    ("name", "moment"),
    [("file", "written"), ("folder", "written"), ("folder", "between"), ("folder", "after")],
)
def test_a_process_killed_before_or_in_the_swap(tmp_path: Path, name: str, moment: str) -> None:
    """What it left goes with the next write, and until then no reader sees a mixture."""
    place = tmp_path / name
    if name == "file":
        write_whole(place, "old")
    else:
        make(place, "old")
    process = python(KILLED, place, moment)
    process.communicate(timeout=HANG_S)
    assert process.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 2  # the place or its old content, and what was left
    if name == "file":
        assert place.read_text() == "old"
        write_whole(place, "next")
        assert content(tmp_path) == {"file": "next"}
        return
    undo_broken_swap(place)
    assert content(place) == ({"a": "new"} if moment == "after" else {"a": "old", "b": "old"})
    make(place, "next")
    assert content(place) == {"a": "next", "b": "next"}
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_temporary_of_another_machine_goes_when_it_is_old(tmp_path: Path) -> None:
    young, old = (tmp_path / f".file.elsewhere.1.{token}.writing" for token in ("aaaa", "bbbb"))
    for left in (young, old):
        left.mkdir()
        (left / "weights").write_text("half")
    for path in (old, old / "weights"):
        os.utime(path, (1, 1))
    write_whole(tmp_path / "file", "new")
    assert young.exists() and not old.exists()
    shutil.rmtree(young)
    assert content(tmp_path) == {"file": "new"}


WRITERS = """
import sys
from pathlib import Path
from onethinker_jax.files import whole_folder, write_whole
place, text = Path(sys.argv[1]), sys.argv[2]
print("ready", flush=True)
for _ in range(150):
    write_whole(place / "file", text * 5000)
    with whole_folder(place / "folder") as new:
        (new / "a").write_text(text)
        (new / "b").write_text(text)
"""


def test_two_processes_at_once(tmp_path: Path) -> None:
    """Neither fails, a reader of the file sees one writer's content whole, and at the end nothing is left over."""
    write_whole(tmp_path / "file", "x" * 5000)
    writers = [python(WRITERS, tmp_path, text) for text in ("x", "y")]
    seen = set()
    while any(writer.poll() is None for writer in writers):
        text = (tmp_path / "file").read_text()
        assert len(text) == 5000 and len(set(text)) == 1
        seen.add(text[0])
    assert seen == {"x", "y"}
    assert [writer.communicate(timeout=HANG_S)[0] for writer in writers] == ["ready\n"] * 2
    assert [writer.returncode for writer in writers] == [0, 0]
    assert len(set(content(tmp_path / "folder").values())) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"file", "folder"}
