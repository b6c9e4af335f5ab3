"""Stand-ins for a cluster's commands: each writes what it was asked, and does what a test's Python says."""

import sys
from pathlib import Path

START = f"""#!{sys.executable}
import sys
from pathlib import Path
here = Path(__file__).parent
"""


def fake(folder: Path, name: str, code: str) -> None:
    """A command `name` in a folder of the PATH: `sys.argv[1:]` are its words, `here` the folder."""
    folder.mkdir(exist_ok=True)
    command = folder / name
    command.write_text(START + code, encoding="utf-8")
    command.chmod(0o755)
