"""What the recipes of deploy/ run, as the commands' own parsers read it."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from onethinker_jax.rewards.server import __main__ as server
from onethinker_jax.train import __main__ as train
from onethinker_jax.train.config.run import TrainConfig
from onethinker_jax.train.hosts import Hosts
from tests.places import ROOT

DEPLOY = ROOT / "deploy"
MANIFESTS = sorted(DEPLOY.glob("*.yaml"))
SCRIPTS = [*sorted(DEPLOY.glob("*.sh")), DEPLOY / "slurm.sbatch", ROOT / ".ci" / "run"]


def documents(manifest: Path) -> list[dict[str, Any]]:
    """Of a file of Kubernetes."""
    return list(yaml.safe_load_all(manifest.read_text(encoding="utf-8")))


def pods(document: dict[str, Any]) -> Iterator[tuple[int, dict[str, Any]]]:
    """How many pods of one kind there are, and their spec."""
    spec = document["spec"]
    if document["kind"] == "JobSet":
        for job in spec["replicatedJobs"]:
            inner = job["template"]["spec"]
            yield job["replicas"] * inner["completions"], inner["template"]["spec"]
    elif "template" in spec:
        yield spec["replicas"], spec["template"]["spec"]


def divided(arguments: Sequence[str], processes: int) -> TrainConfig:
    """The settings of a trainer's command line, which must divide over that number of processes.

    Raises UsageError or SettingError where they cannot be used.
    """
    config = train.parse([word.replace("$(JOB_COMPLETION_INDEX)", "0") for word in arguments])
    for index in range(processes):
        Hosts(index, processes).share(config)
    return config


def served(arguments: Sequence[str]) -> Any:
    """The settings of a reward service's command line."""
    return server.parse(arguments)
