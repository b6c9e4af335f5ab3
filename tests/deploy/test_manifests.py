"""The Kubernetes manifests: their schemas, what their containers run, and what they say of each other."""

import json
import math
import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest

from tests.deploy.commands import DEPLOY, MANIFESTS, divided, documents, pods, served

JOBSET = json.loads((Path(__file__).parent / "jobset_schema.json").read_text(encoding="utf-8"))
VERSION = "1.33"  # the first in which a container beside another is stable


def validate(document: dict[str, Any]) -> None:
    """Raises ValidationError of either library where a field is unknown, missing or of a wrong type."""
    if document["kind"] != "JobSet":
        kubernetes_validate.validate(document, VERSION, strict=True)
        return
    jsonschema.validate(document, JOBSET)
    for job in document["spec"]["replicatedJobs"]:
        whole = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": job["name"]},
            **job["template"],
        }
        kubernetes_validate.validate(whole, VERSION, strict=True)


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: path.name)
def test_schema(manifest: Path) -> None:
    for document in documents(manifest):
        validate(document)


def changed(*path: str | int, to: Any) -> dict[str, Any]:
    """The JobSet of GPUs with another value at a place."""
    (original,) = documents(DEPLOY / "jobset_gpu.yaml")
    document = deepcopy(original)
    place: Any = document
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = to
    return document


JOB = ("spec", "replicatedJobs", 0, "template", "spec")
POD = (*JOB, "template", "spec")


@pytest.mark.parametrize(
    "document",
    [
        changed("spec", "failurePolicy", "maxRestart", to=3),
        changed("spec", "failurePolicy", "rules", 0, "action", to="Restart"),
        changed(*JOB, "podFailurePolicy", "rules", 0, "onExitCodes", "value", to=[143]),
        changed(*JOB, "completions", to="two"),
        changed(*POD, "containers", 0, "volumeMount", to=[]),
        changed(*POD, "initContainers", 0, "restartPolicy", to=1),
    ],
    ids=lambda document: document["metadata"]["name"],
)
def test_a_wrong_manifest_is_found(document: dict[str, Any]) -> None:
    with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
        validate(document)


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: path.name)
def test_what_containers_run_and_mount(manifest: Path) -> None:
    """Each command line parses and divides over its pods; each mount has its volume."""
    seen = 0
    for document in documents(manifest):
        for count, pod in pods(document):
            volumes = {volume["name"] for volume in pod["volumes"]}
            for container in (*pod.get("initContainers", ()), *pod["containers"]):
                assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
                if container["name"] == "trainer":
                    assert divided(container["args"], count).hosts.coordinator
                else:
                    served(container["args"])
                seen += 1
    assert seen


@pytest.mark.parametrize("name", ["jobset_tpu.yaml", "jobset_gpu.yaml"])
def test_every_process_has_its_devices(name: str) -> None:
    (document,) = documents(DEPLOY / name)
    ((count, pod),) = pods(document)
    (trainer,) = pod["containers"]
    ((resource, each),) = trainer["resources"]["limits"].items()
    config = divided(trainer["args"], count)
    assert config.mesh.size == count * each
    assert config.sft.steps == 0 and config.rl.steps > 0
    job = document["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert job["parallelism"] == job["completions"] == count and job["completionMode"] == "Indexed"
    if resource == "google.com/tpu":
        topology = pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"]
        assert math.prod(map(int, topology.split("x"))) == count * each
    else:  # who they are is not found by itself: the first pod's name, as JobSet makes it
        hosts = config.hosts
        where = f"{document['metadata']['name']}-{document['spec']['replicatedJobs'][0]['name']}-0-0"
        assert hosts.coordinator == f"{where}.{document['metadata']['name']}:8476"
        assert (hosts.count, hosts.index) == (count, 0)
        assert "--hosts.index=$(JOB_COMPLETION_INDEX)" in trainer["args"]


@pytest.mark.parametrize("name", ["jobset_tpu.yaml", "jobset_gpu.yaml"])
def test_a_preempted_trainer_is_started_again(name: str) -> None:
    """JobSet does not count the restarts of a Job that failed by its pod failure policy, which knows the status."""
    (document,) = documents(DEPLOY / name)
    policy = document["spec"]["failurePolicy"]
    (rule,) = policy["rules"]
    assert rule["action"] == "RestartJobSetAndIgnoreMaxRestarts"
    assert rule["onJobFailureReasons"] == ["PodFailurePolicy"]
    job = document["spec"]["replicatedJobs"][0]["template"]["spec"]
    by_status, by_node = job["podFailurePolicy"]["rules"]
    ((count, pod),) = pods(document)
    preemption = divided(pod["containers"][0]["args"], count).preemption
    assert by_status["onExitCodes"]["values"] == [preemption.exit_status]
    assert preemption.deadline < pod["terminationGracePeriodSeconds"]
    names = {container["name"] for container in job["template"]["spec"]["containers"]}
    assert by_status["onExitCodes"]["containerName"] in names
    assert by_node["onPodConditions"][0]["type"] == "DisruptionTarget"
    assert job["template"]["spec"]["restartPolicy"] == "Never"  # what a pod failure policy needs


def test_trainers_find_their_reward_service() -> None:
    """On a socket of the same pod, or under the name and port of the service, with what its certificate says."""
    (document,) = documents(DEPLOY / "jobset_gpu.yaml")
    ((_, pod),) = pods(document)
    trainer, beside = pod["containers"][0], pod["initContainers"][0]
    (address,) = divided(trainer["args"], 2).sidecar.addresses
    assert served(beside["args"]).address == address
    assert beside["restartPolicy"] == "Always"
    assert beside["startupProbe"]["exec"]["command"][-1] == address.removeprefix("unix:")

    service, deployment = documents(DEPLOY / "rewards.yaml")
    ((_, pod),) = pods(deployment)
    port = re.fullmatch(r"0\.0\.0\.0:(\d+)", served(pod["containers"][0]["args"]).address)
    assert port is not None
    (document,) = documents(DEPLOY / "jobset_tpu.yaml")
    ((_, pod),) = pods(document)
    sidecar = divided(pod["containers"][0]["args"], 4).sidecar
    assert sidecar.addresses == (f"{service['metadata']['name']}:{port.group(1)}",)
    assert (
        service["spec"]["ports"][0]["port"] == int(port.group(1)) and service["spec"]["clusterIP"] == "None"
    )
    assert service["spec"]["selector"] == deployment["spec"]["template"]["metadata"]["labels"]
