"""Memory of an evaluation holds the prompts that are read ahead, however many records there are."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from onethinker_jax.data_pipeline.processor.processor import Processor
from onethinker_jax.data_pipeline.processor.processor_config import MediaBounds
from onethinker_jax.data_pipeline.records.record import read_records
from onethinker_jax.data_pipeline.shapes.world import build_shapes_world
from tests.places import ROOT
from tests.tiny_model import write_model
from tests.train.running import in_tests
from tests.waiting import HANG_S

FEW, MANY = 100, 2000
VIDEOS = 20

MEASURED = """
import resource, sys, time
from onethinker_jax.evaluate import __main__ as evaluate
from onethinker_jax.evaluate.answers import local_model
from contextlib import contextmanager

read, waited, began = local_model.read_prompts, [0.0], []

@contextmanager
def watched(*given, **named):
    with read(*given, **named) as prompts:
        began.append(time.monotonic())
        def each():
            while True:
                at = time.monotonic()
                prompt = next(prompts, None)
                waited[0] += time.monotonic() - at
                if prompt is None:
                    return
                yield prompt
        yield each()

local_model.read_prompts = watched
status = evaluate.main(sys.argv[1:])
print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
print("waited", waited[0] / (time.monotonic() - began[0]))
sys.exit(status)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_records(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """2,000 videos in the memory of 100; all prompts at once would be 3 GB more."""
    model = write_model(tmp_path)
    world = build_shapes_world(tmp_path / "world", seed=1, train_rl=1, train_sft=1, heldout=60, processes=1)
    videos = [row for row in json.loads(world.eval_json.read_text()) if row["data_type"] == "video"]
    videos = [row for row in videos if row["problem_type"] != "segmentation"][:VIDEOS]
    sizes = {"video_fps": 4.0, "video_max_frames": 16, "video_min_pixels": 32_768, "video_max_pixels": 32_768}
    flags = [word for name, value in sizes.items() for word in (f"--{name.replace('_', '-')}", value)]
    flags += ["--max-new-tokens", 8, "--prompts-ahead", 8, "--mesh.data", 1, "--sidecar.score-workers", 0]
    found: dict[int, dict[str, float]] = {}
    for count in (FEW, MANY):
        file = tmp_path / "world" / f"{count}.json"
        chosen = [{**videos[number % VIDEOS], "problem_id": number} for number in range(count)]
        file.write_text(json.dumps(chosen))
        command = [sys.executable, "-c", MEASURED, model, file, "--out", tmp_path / str(count), *flags]
        done = subprocess.run(
            [*map(str, command)],
            cwd=ROOT,
            env=in_tests(),
            capture_output=True,
            text=True,
            timeout=HANG_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        found[count] = {
            name: float(value) for name, value in re.findall(r"^(peak|waited) (\S+)$", done.stdout, re.M)
        }
    processor = Processor.from_pretrained(model, MediaBounds(**sizes))  # type: ignore[arg-type]
    some = read_records(tmp_path / "world" / f"{FEW}.json")[:VIDEOS]
    prompt = sum(processor.prompt(record).nbytes for record in some) / len(some) / 2**20  # MiB
    record_property("measured", found)
    record_property("prompt_mib", prompt)
    sys.stdout.write(f"{found} {prompt:.2f} MiB a prompt\n")
    grown = found[MANY]["peak"] - found[FEW]["peak"]
    assert grown < 0.1 * (MANY - FEW) * prompt, (found, prompt)
