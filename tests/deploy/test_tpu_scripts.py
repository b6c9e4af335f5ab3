"""The scripts for TPUs, with stand-ins for gcloud and xpk: what they ask for, and what they do when a pod is gone."""

import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.deploy.commands import DEPLOY, divided
from tests.deploy.fake_command import fake

RUN = ["qwen3_vl_8b_rl", "--name", "it's mine", "--out", "/data/runs", "--data.rl-file", "/data/rl.json"]
RUN += ["--data.heldout-file", "/data/eval.json", "--model.init-from", "/data/cold/model"]

# Answers as gcloud would, and keeps every call; `states` are those of the pod, one a question, the last one kept.
GCLOUD = """
import json
words = sys.argv[1:]
with (here / "calls").open("a") as file:
    file.write(json.dumps(words) + "\\n")
there, states = here / "there", here / "states"
verb = next(word for word in words if word in ("create", "describe", "delete", "ssh"))
if verb == "create":
    there.touch()
elif verb == "delete":
    there.unlink()
elif verb == "describe":
    if not there.exists():
        sys.exit("NOT_FOUND")
    first, *rest = states.read_text().split()
    states.write_text(" ".join(rest or [first]))
    print(first)
elif "docker run" in words[-1]:
    results = here / "results"
    first, *rest = results.read_text().split()
    results.write_text(" ".join(rest))
    sys.exit(int(first))
"""


def run_pod(
    folder: Path, states: str, results: str
) -> tuple[subprocess.CompletedProcess[str], list[list[str]]]:
    """The script's end and its calls; `results` are the statuses of the trainer, one a start."""
    fake(folder / "bin", "gcloud", GCLOUD)
    (folder / "bin" / "states").write_text(states)
    (folder / "bin" / "results").write_text(results)
    names = {
        "NAME": "pod",
        "ZONE": "us-east5-a",
        "TYPE": "v5p-32",
        "VERSION": "v2-alpha-tpuv5",
        "POLL_S": "0",
    }
    names |= {"NFS": "10.0.0.2:/share", "IMAGE": "us-docker.pkg.dev/p/r/onethinker-jax:tpu"}
    path = f"{folder / 'bin'}:{os.environ['PATH']}"
    result = subprocess.run(
        [DEPLOY / "tpu_pod.sh", *RUN],
        env={**os.environ, **names, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    return result, [json.loads(line) for line in (folder / "bin" / "calls").read_text().splitlines()]


def verbs(calls: list[list[str]]) -> list[str]:
    names = ("create", "delete", "ssh")
    return [word for call in calls for word in call if word in names]


def test_a_run_on_a_pod(tmp_path: Path) -> None:
    result, calls = run_pod(tmp_path, "WAITING_FOR_RESOURCES PROVISIONING ACTIVE", "0")
    assert result.returncode == 0, result.stderr
    assert verbs(calls) == ["create", "ssh", "ssh", "delete"]
    (create,) = [call for call in calls if "create" in call]
    assert create[create.index("--accelerator-type") + 1] == "v5p-32" and "--spot" in create
    commands = [call[-1] for call in calls if "ssh" in call]
    for command in commands:  # what a host's shell is given
        subprocess.run(["bash", "-n", "-c", command], check=True)
    start = shlex.split(commands[1].split("docker run", 1)[1])
    arguments = start[start.index("us-docker.pkg.dev/p/r/onethinker-jax:tpu") + 1 :]
    assert arguments == [*RUN, "--hosts.coordinator", "auto"]
    assert divided(arguments, 4).mesh.size == 16  # a v5p-32: 4 hosts of 4 chips


def test_a_pod_that_is_taken_away(tmp_path: Path) -> None:
    result, calls = run_pod(tmp_path, "ACTIVE SUSPENDING SUSPENDED ACTIVE", "143 0")
    assert result.returncode == 0, result.stderr
    assert verbs(calls) == ["create", "ssh", "ssh", "delete", "create", "ssh", "ssh", "delete"]


def test_a_stop_that_the_state_does_not_show_yet(tmp_path: Path) -> None:
    """The trainer has saved and ended before the pod is said to go: the next start finds out."""
    result, calls = run_pod(tmp_path, "ACTIVE ACTIVE ACTIVE SUSPENDED SUSPENDED ACTIVE", "143 255 0")
    assert result.returncode == 0, result.stderr
    assert verbs(calls) == ["create", *["ssh"] * 4, "delete", "create", "ssh", "ssh", "delete"]


def test_a_step_that_hangs_again_and_again(tmp_path: Path) -> None:
    """The trainer is started again on the same pod three times, and no more."""
    result, calls = run_pod(tmp_path, "ACTIVE", "124 124 143 124 124")
    assert result.returncode == 1
    assert (
        "on a pod that is still there, status 124" in result.stderr and "a step hung, 3 of 3" in result.stdout
    )
    assert verbs(calls) == ["create", *["ssh"] * 10]


@pytest.mark.parametrize(
    ("states", "results", "said"),
    [
        ("ACTIVE", "1", "the trainer failed on a pod that is still there"),
        ("FAILED", "", "the request pod failed"),
    ],
)
def test_errors_end_it(tmp_path: Path, states: str, results: str, said: str) -> None:
    result, calls = run_pod(tmp_path, states, results)
    assert result.returncode == 1 and said in result.stderr
    assert "delete" not in verbs(calls)


def test_xpk(tmp_path: Path) -> None:
    """One workload, whose shell is replaced by the trainer."""
    fake(tmp_path / "bin", "xpk", "import json\nprint(json.dumps(sys.argv[1:]))\n")
    names = {"CLUSTER": "c", "PROJECT": "p", "ZONE": "z", "IMAGE": "r/onethinker-jax:tpu", "STORAGE": "data"}
    result = subprocess.run(
        [DEPLOY / "xpk.sh", "v5p-32", *RUN],
        env={**os.environ, **names, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    words = json.loads(result.stdout)
    assert words[:2] == ["workload", "create"]
    given = dict(zip(words[2::2], words[3::2], strict=True))
    assert set(given) <= XPK_FLAGS
    start = shlex.split(given["--command"])
    assert start[:4] == ["exec", "python", "-m", "onethinker_jax.train"]
    assert divided(start[4:], 4).name == "it's mine"
    assert re.fullmatch(r"\d+", given["--max-restarts"])


# Of `xpk workload create --help`, xpk 1.16; the script's command also went through its --dry-run.
XPK_FLAGS = {
    *("--cluster", "--project", "--zone", "--workload", "--tpu-type", "--docker-image", "--storage"),
    *("--max-restarts", "--restart-on-exit-codes", "--termination-grace-period-seconds", "--command"),
}
