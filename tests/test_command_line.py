"""Every command: its flags, misspelt ones, what `python -m` lists, and Ctrl-C during its imports."""

import contextlib
import io
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

import onethinker_jax
from onethinker_jax.__main__ import COMMANDS, overview
from onethinker_jax.command_line import UsageError, flags_of, parse
from onethinker_jax.data_pipeline.annotate import __main__ as annotate
from onethinker_jax.data_pipeline.check import __main__ as check
from onethinker_jax.data_pipeline.photos import __main__ as photos
from onethinker_jax.data_pipeline.photos import own_folder
from onethinker_jax.data_pipeline.photos.packages import __main__ as packages
from onethinker_jax.data_pipeline.records import tfds_builder
from onethinker_jax.data_pipeline.sources import __main__ as sources
from onethinker_jax.demo import __main__ as demo
from onethinker_jax.evaluate import __main__ as evaluate
from onethinker_jax.evaluate import compare, onethinker_prompts, score
from onethinker_jax.evaluate.page import __main__ as page
from onethinker_jax.rewards.server import __main__ as server
from onethinker_jax.serve import __main__ as serve
from onethinker_jax.spelling import hint, nearest
from onethinker_jax.train import __main__ as train
from onethinker_jax.train import plan, replay
from onethinker_jax.train.checkpoints import __main__ as checkpoints
from onethinker_jax.train.config.presets import PRESETS
from onethinker_jax.train.config.run import TrainConfig
from onethinker_jax.train.export import __main__ as export
from tests.places import ROOT
from tests.waiting import HANG_S

PACKAGE = Path(onethinker_jax.__file__).parent
WORKERS = {
    "data_pipeline.media.reading.media_worker",
    "rewards.equivalence.math_worker",
    "train.plans.search.worker",
    "rewards.score_worker",
    "train.export.transformers_logits",
}  # our processes start these
HELP: dict[str, Callable[[], object]] = {
    "train": lambda: train.parse(["--help"], train.TrainCommand),
    "train.plan": lambda: train.parse(["--help"], plan.PlanConfig),
    "train.replay": lambda: parse(replay.Arguments, ["--help"], prog="replay", description=None),
    "train.checkpoints": lambda: checkpoints.main(["--help"]),
    "train.export": lambda: parse(export.Arguments, ["--help"], prog="export", description=None),
    "evaluate": lambda: parse(evaluate.Arguments, ["--help"], prog="evaluate", description=None),
    "evaluate.score": lambda: parse(score.ScoreArguments, ["--help"], prog="score", description=None),
    "evaluate.compare": lambda: compare.main(["--help"]),
    "evaluate.page": lambda: page.main(["--help"]),
    "evaluate.onethinker_prompts": lambda: onethinker_prompts.main(["--help"]),
    "demo": lambda: demo.parse(["--help"]),
    "demo --serve": lambda: demo.parse(["--serve", "--help"]),
    "serve": lambda: parse(serve.Arguments, ["--help"], prog="serve", description=None),
    "data_pipeline.check": lambda: check.main(["--help"]),
    "data_pipeline.sources": lambda: sources.main(["--help"]),
    "data_pipeline.photos": lambda: photos.main(["--help"]),
    "data_pipeline.photos.packages": lambda: packages.main(["--help"]),
    "data_pipeline.photos.own_folder": lambda: own_folder.main(["--help"]),
    "data_pipeline.annotate": lambda: annotate.main(["--help"]),
    "data_pipeline.records.tfds_builder": lambda: tfds_builder.main(["--help"]),
    "rewards.server": lambda: server.parse(["--help"]),
}


def help_of(command: str) -> dict[str, str]:
    """Flag, or name of a positional argument -> its help text, without its default."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), pytest.raises(SystemExit) as stop:
        HELP[command]()
    assert not stop.value.code
    found: dict[str, str] = {}
    lines = re.sub(r"\x1b\[[0-9;]*m", "", said.getvalue()).splitlines()
    indents = {"│": r"│ (\S.*?)\s*│$", " ": r"  ?(\S.*)$"}  # of tyro's boxes, of argparse
    flag = ""
    for line in lines:
        pattern = indents["│" if line.startswith("│") else " "]
        if (head := re.fullmatch(pattern, line)) and head[1].strip("─- "):
            if flag.count("{") > flag.count("}"):  # its choices go on
                found[f"{flag} {head[1].strip()}"] = found.pop(flag)
                flag = f"{flag} {head[1].strip()}"
                continue
            is_flag = head[1].startswith("-") or re.fullmatch(r"[A-Z\[\]. ]+", head[1].split("  ")[0])
            flag, _, text = (head[1] + "  ").partition("  ") if is_flag else ("", "", "")
            if flag:
                found[flag] = text.strip()
        elif flag and not head:
            found[flag] += " " + line.strip("│ ")
    return {
        name: re.sub(r"\((default|required|repeatable|fixed to)\b.*", "", text).strip()
        for name, text in found.items()
    }


def entry_points() -> set[str]:
    """Every module that can be run, below the package."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        if re.search(r'^if __name__ == "__main__":', path.read_text(), re.MULTILINE):
            parts = path.relative_to(PACKAGE).with_suffix("").parts
            found.add(".".join(part for part in parts if part != "__main__"))
    return found - {""} - WORKERS


def test_every_entry_point_is_known() -> None:
    """To these tests, and to whoever runs `python -m onethinker_jax`."""
    assert entry_points() == {name.split()[0] for name in HELP} == {name.split()[0] for name in COMMANDS}


@pytest.mark.parametrize("command", HELP)
def test_no_flag_is_without_help(command: str) -> None:
    texts = help_of(command)
    assert len(texts) >= 3
    assert [flag for flag, text in texts.items() if len(text) < 8] == []


def test_flags_are_those_of_the_help() -> None:
    flags = flags_of(TrainConfig, default=PRESETS["shapes"]())
    assert {"--rl.steps", "--sft.no-train-vision", "--reward.format-weight"} <= set(flags)
    assert len(set(flags)) > 160
    assert len(help_of("train")) > 160


def test_choices_are_listed() -> None:
    assert any("{ema_grpo,grpo,dr_grpo,rloo,gdpo}" in flag for flag in help_of("train"))
    assert any("{rouge,minilm,polar,judge}" in flag for flag in help_of("evaluate"))
    texts = help_of("rewards.server")
    (masks,) = (text for flag, text in texts.items() if flag.startswith("--mask-backend"))
    assert masks.startswith("one of grabcut, sam2:")


@pytest.mark.parametrize(
    ("settings", "word", "meant"),
    [
        (evaluate.Arguments, "--sidecar.mask-backnd=sam2", "--sidecar.mask-backend"),
        (check.CheckSettings, "--max-frame", "--max-frames"),
    ],
)
def test_a_misspelt_flag_names_the_nearest(settings: type, word: str, meant: str) -> None:
    with pytest.raises(UsageError, match=f"did you mean '{meant}'") as caught:
        parse(settings, ["a", "b", word], prog="x", description=None)
    assert "\n" not in str(caught.value)


def test_a_misspelt_preset_or_server_flag_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match=r"unknown preset 'smok'.*did you mean 'smoke'"):
        train.parse(["smok"])
    assert server.main(["--adress", "unix:x"]) == 2
    assert capsys.readouterr().err == "error: unknown argument '--adress'; did you mean '--address'?\n"


def test_spelling() -> None:
    assert nearest("sam", ["grabcut", "sam2"]) == "sam2" and nearest("zebra", ["grabcut", "sam2"]) is None
    assert (hint("zebra", ["sam2"]), hint("sam", ["sam2"])) == ("", "; did you mean 'sam2'?")
    flags = ["--rl.prompts-per-step", "--rl.prompts-ahead", "--rl.steps"]
    assert hint("--rl.prompts", flags) == "; did you mean '--rl.prompts-ahead' or '--rl.prompts-per-step'?"


def test_what_there_is() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "onethinker_jax"],
        capture_output=True,
        text=True,
        check=False,
        cwd=PACKAGE.parent,
    )
    assert (done.returncode, done.stderr, done.stdout) == (0, "", overview())
    lines = done.stdout.splitlines()
    for name in [*COMMANDS, *PRESETS]:
        (line,) = (line for line in lines if line.startswith(f"  {name} "))
        assert 10 < len(line) < 120 and "`" not in line


def test_a_reader_who_has_seen_enough_of_the_help() -> None:
    """`--help | head`: no traceback."""
    command = [sys.executable, "-m", "onethinker_jax.train", "--help"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=PACKAGE.parent
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 0


def test_packages_list_their_names() -> None:
    """`dir()` says what is public, importing a package imports no library, and every name is there."""
    code = (
        "import importlib, sys\n"
        "for name in ('', '.model', '.data_pipeline', '.rewards', '.train'):\n"
        "    package = importlib.import_module('onethinker_jax' + name)\n"
        "    print(name, *dir(package))\n"
        "print(*{'jax', 'numpy', 'PIL', 'tyro'} & set(sys.modules))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent
    )
    *packages, loaded = done.stdout.splitlines()
    assert loaded == ""
    names = {line.split(" ")[0]: line.split()[1:] if line[0] == "." else line.split() for line in packages}
    assert {"model", "data_pipeline", "rewards", "train", "evaluate", "demo"} <= set(names[""])
    public = {"load", "load_hf", "save_hf", "Processor", "Sampler", "read_records", "score_response"}
    assert public <= set(names[""])
    assert names[".model"] == [
        "ModelInputs",
        "Qwen3VL",
        "Qwen3VLConfig",
        "VisionInputs",
        "load_hf",
        "save_hf",
    ]
    assert {"compute_advantages", "AdvantageConfig", "init_moments"} <= set(names[".train"])
    for package, listed in names.items():
        module = __import__(f"onethinker_jax{package}", fromlist=["x"])
        names_alone = [name for name in listed if not isinstance(getattr(module, name), ModuleType)]
        assert sorted(module.__all__) == names_alone
        for name in listed:
            assert getattr(module, name) is not None
        with pytest.raises(AttributeError, match="has no attribute 'nonesuch'"):
            _ = module.nonesuch


@pytest.mark.parametrize(
    ("name", "imported"),
    [
        ("evaluate", "jax"),
        ("evaluate", "tyro"),
        ("demo", "tyro"),
        ("serve", "tyro"),
        ("train", "tyro"),
        ("train.plan", "tyro"),
        ("data_pipeline.check", "tyro"),
        ("data_pipeline.annotate", "tyro"),
    ],
)
def test_ctrl_c_during_imports(name: str, imported: str, tmp_path: Path) -> None:
    """A module in the way of the real one presses it while it is imported."""
    code = "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nraise SystemExit('it went on')\n"
    (tmp_path / f"{imported}.py").write_text(code)
    result = subprocess.run(
        [
            sys.executable,
            "-m",
            f"onethinker_jax.{name}",
            *(["model", "eval.json"] if imported == "jax" else ["--help"]),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        timeout=HANG_S,
        check=False,
    )
    assert result.returncode == 130, result.stderr
    assert result.stderr.startswith("stopped") and result.stderr.count("\n") == 1


LINES = """
import atexit, logging, sys
from onethinker_jax import command_line
atexit.register(sys.stderr.write, "Python's own end")
command_line.show_log(command_line.LogLines(sys.stdout), level=logging.INFO)
sys.stdin.read()
for _ in range(3):
    logging.getLogger("onethinker_jax.x").info("a line")
command_line.leave(int(sys.argv[1]))
"""


@pytest.mark.parametrize(("status", "said"), [(0, "Python's own end"), (3, "Python's own end"), (130, "")])
def test_lines_that_nobody_reads_and_leaving(status: int, said: str) -> None:
    """A reader who has gone costs no work and no traceback; after Ctrl-C no thread of a library is waited for."""
    command = [sys.executable, "-c", LINES, str(status)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        process.stdout.close()
        process.stdin.close()
        assert process.stderr.read() == said
        assert process.wait(HANG_S) == status
