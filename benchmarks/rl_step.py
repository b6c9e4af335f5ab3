"""Seconds of a whole GRPO step, ours and TRL's `GRPOTrainer`, with one small Qwen3-VL, prompts and lengths.

    python -m benchmarks.rl_step                                  # ours alone
    python -m benchmarks.rl_step --peer TRL_ENV/bin/python        # by turns: ours, TRL's, ours

A step is 4 prompts of one image each, 8 samples a prompt, 64 tokens a sample, the reward, and one AdamW update.
The model has the vocabulary of the published ones, 151,936, and 7.7M parameters in all, or (`--vocabulary 8192`) a
small one and more and wider layers, 8.0M. An image of 128x128 is 16 tokens of a prompt of 85, one of 512x512
(`--side 512`) is 256. Both load the same random float32 weights and run on the same cores. The end token is never
drawn: every sample has its full length, and so has every step. The reward is the share of letters in a text.

Each side is a process of its own that takes one step at a time when it is told to, so that what else the machine
does meets both alike. Steps of warm-up are not counted, and a compilation in a counted step of ours is an error.
Before its first step TRL computes log-probabilities and gradient of samples that ours drew; a difference from ours
beyond rounding is an error.

The peer's environment: `pip install trl==1.16.0 torchvision` beside a CPU torch, and `pillow`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROMPTS, SAMPLES, NEW_TOKENS = 4, 8, 64
MODELS: dict[int, tuple[dict[str, Any], dict[str, Any]]] = {  # vocabulary -> text, vision
    151_936: (
        {"hidden_size": 48, "intermediate_size": 128, "num_layers": 2},
        {"hidden_size": 64, "intermediate_size": 128, "depth": 2, "num_heads": 2, "deepstack_layers": (0,)},
    ),
    8192: (
        {"hidden_size": 256, "intermediate_size": 768, "num_layers": 6},
        {"hidden_size": 96, "intermediate_size": 192, "depth": 3, "num_heads": 3, "deepstack_layers": (0, 1)},
    ),
}
RECORDS = 32
WARM_UP = {"ours": 2, "TRL": 1}
LEARNING_RATE = 1e-6
CLIP = (0.2, 0.3)


def reward(text: str) -> float:
    """The share of letters: next to nothing to compute, and unequal within a group."""
    return sum(letter.isalpha() for letter in text) / max(len(text), 1)


class Turns:
    """A child's end of the talk with the parent: it takes a step when told to and says what the step took."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # what libraries print is not for the parent
        self._began = self._processor = 0.0

    def ready(self, **values: Any) -> None:
        """All is set up; waits for the first turn."""
        self._say(values)
        self._wait()

    def done(self, *, last: bool, rollout: float, **values: Any) -> None:
        """A step is through, `rollout` seconds of it for samples and rewards; waits for the next, if there is one."""
        seconds, processor = time.perf_counter() - self._began, time.process_time() - self._processor
        peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line)
        spent = {"seconds": seconds, "rollout": rollout, "update": seconds - rollout, "processor": processor}
        self._say({**spent, "peak_bytes": int(peak.split()[1]) * 1024, **values})
        if not last:
            self._wait()

    def _say(self, values: dict[str, Any]) -> None:
        self._out.write(json.dumps(values) + "\n")
        self._out.flush()

    def _wait(self) -> None:
        if not sys.stdin.readline():
            sys.exit("the parent is gone")
        self._began, self._processor = time.perf_counter(), time.process_time()


class Child:
    """The parent's end: a process, its steps one at a time, and what else ran on the machine meanwhile."""

    def __init__(self, name: str, command: Sequence[str], scratch: Path, threads: int) -> None:
        self.name = name
        self._errors = scratch / f"{name}.log"
        with self._errors.open("w") as errors:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": str(threads), "JAX_PLATFORMS": "cpu"},
            )
        self.started = self._read()

    def step(self) -> dict[str, Any]:
        """What one step took; `others` is the cores that other processes kept busy meanwhile."""
        assert self._process.stdin is not None
        busy, began = machine_seconds(), time.perf_counter()
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        values = self._read()
        busy, wall = machine_seconds() - busy, time.perf_counter() - began
        return {**values, "others": max(busy - values["processor"], 0) / wall}

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=120)

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            sys.exit(f"{self.name} ended early:\n{self._errors.read_text()[-3000:]}")
        return json.loads(line)


def machine_seconds() -> float:
    """Seconds that the cores together were not idle, since the machine started."""
    user, nice, system, _, _, *interrupts = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")


def write_records(scratch: Path, image_side: int) -> None:
    """Images of `image_side` pixels a side with rectangles to count, and `records.json` that asks for them."""
    import numpy as np
    from PIL import Image

    draw = np.random.default_rng(0)
    rows = []
    for number in range(RECORDS):
        pixels = np.full((image_side, image_side, 3), 128, np.uint8)
        for _ in range(4):
            top, left = draw.integers(0, image_side - 40, 2)
            height, width = draw.integers(12, 40, 2)
            pixels[top : top + height, left : left + width] = draw.integers(0, 256, 3)
        Image.fromarray(pixels).save(scratch / f"{number}.png")
        colour, side = ("red", "green", "blue")[number % 3], ("left", "right")[number % 2]
        rows.append(
            {
                "problem_id": number,
                "problem": f"<image>How many rectangles of the image are more {colour} than grey, and how many "
                f"of these lie in its {side} half? Count each one once, and add the two numbers.",
                "answer": "<answer>3</answer>",
                "problem_type": "numerical",
                "data_type": "image",
                "images": [f"{number}.png"],
            }
        )
    (scratch / "records.json").write_text(json.dumps(rows))


def make(scratch: Path, image_side: int, vocabulary: int) -> int:
    """Images of `image_side` pixels a side, prompts and model directory; returns the number of parameters."""
    import jax
    from flax import nnx

    from onethinker_jax.data_pipeline.processor.processor import Processor
    from onethinker_jax.data_pipeline.processor.prompts import question_text
    from onethinker_jax.data_pipeline.processor.tokenizer import record_texts, train_tokenizer
    from onethinker_jax.data_pipeline.records.record import read_records
    from onethinker_jax.model.config import Qwen3VLConfig, TextConfig, VisionConfig
    from onethinker_jax.model.hf_weights import save_hf
    from onethinker_jax.model.qwen3_vl import Qwen3VL

    write_records(scratch, image_side)
    records = read_records(scratch / "records.json")
    prompts = [{"image": str(r.images[0]), "text": question_text(r).removeprefix("<image>")} for r in records]
    (scratch / "prompts.json").write_text(json.dumps(prompts))

    train_tokenizer(record_texts(records), scratch / "base", 8192)
    tokens = Processor.from_pretrained(scratch / "base", grid_side=16)
    names = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    text, vision = MODELS[vocabulary]
    config = Qwen3VLConfig(
        text=TextConfig(
            vocab_size=vocabulary,
            num_heads=4,
            num_kv_heads=2,
            head_dim=64,
            rope_theta=10_000.0,
            mrope_section=(12, 10, 10),
            max_position_embeddings=4096,
            **text,
        ),
        vision=VisionConfig(out_hidden_size=text["hidden_size"], num_position_embeddings=256, **vision),
        tie_word_embeddings=True,
        **{name: getattr(tokens, name) for name in names},
    )
    model = Qwen3VL(config, rngs=nnx.Rngs(0))
    ids = {"eos_token_id": tokens.eos_token_id, "pad_token_id": tokens.pad_token_id}
    (scratch / "base" / "generation_config.json").write_text(json.dumps(ids))
    save_hf(model, scratch / "model", copy_from=scratch / "base", extra_config=ids)
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))


def run(
    scratch: Path, peer: Path | None, *, rounds: int, threads: int, micro_batch: int
) -> tuple[list["Measured"], dict[str, float] | None]:
    """Both sides' counted steps, taken by turns, and how far they agree on the same samples."""
    turns = {"ours": 2 * rounds, "TRL": rounds}
    pythons = {"ours": Path(sys.executable)} | ({} if peer is None else {"TRL": peer})
    options = {"ours": [], "TRL": ["--micro-batch", str(micro_batch)]}
    children = {}
    for name, python in pythons.items():  # one after the other: the second checks itself against the first
        command = [str(python), "-m", f"benchmarks.rl_step_{name.lower()}", str(scratch)]
        command += ["--steps", str(WARM_UP[name] + turns[name]), *options[name]]
        children[name] = Child(name, command, scratch, threads)
    for name, child in children.items():
        for _ in range(WARM_UP[name]):
            child.step()
    order = ["ours", "TRL", "ours"] if peer is not None else ["ours", "ours"]
    measured = {name: Measured(name, []) for name in children}
    for _ in range(rounds):
        for name in order:
            measured[name].steps.append(children[name].step())
            say(f"{name:<5}{measured[name].steps[-1]['seconds']:8.2f} s")
    for child in children.values():
        child.end()
    return list(measured.values()), None if peer is None else children["TRL"].started


@dataclass(frozen=True)
class Measured:
    """The counted steps of one side."""

    name: str
    steps: list[dict[str, Any]]

    def median(self, part: str) -> float:
        return statistics.median(step[part] for step in self.steps)

    def line(self) -> str:
        seconds = [step["seconds"] for step in self.steps]
        parts = [self.median("seconds"), min(seconds), max(seconds)]
        parts += [self.median(part) for part in ("rollout", "update", "processor")]
        parts += [self.steps[-1]["peak_bytes"] / 2**20, statistics.mean(one["others"] for one in self.steps)]
        return f"{self.name:<5}" + "".join(f"{value:>11.2f}" for value in parts)


def report(measured: list[Measured], agreement: dict[str, float] | None) -> None:
    """A line for each side, and what a step of TRL's costs relative to ours."""
    heads = ("s/step", "least", "most", "rollout", "update", "processor", "peak MiB", "others")
    say(" " * 5 + "".join(f"{head:>11}" for head in heads))
    for one in measured:
        say(one.line())
    say(
        "medians; processor: seconds of all cores together; others: cores that other processes kept busy, mean"
    )
    if agreement is None:
        say("no --peer: ours was measured alone, and nothing compared")
        return
    ours, theirs = measured
    parts = ("seconds", "rollout", "update", "processor")
    ratios = [f"{part} {theirs.median(part) / ours.median(part):.1f}" for part in parts]
    say(f"TRL's / ours: {', '.join(ratios)}")
    for name, value in agreement.items():
        say(f"{name:<44}{value:.7g}")
    apart = abs(agreement["gradient norm"] / agreement["gradient norm, ours"] - 1)
    if agreement["log-probability, largest difference"] > 1e-3 or apart > 1e-3:
        sys.exit("the two do not agree on the same samples")


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description="Time of a GRPO step, ours and TRL's.")
    parser.add_argument("--peer", type=Path, help="python of an environment with TRL; without it ours alone")
    parser.add_argument("--rounds", type=int, default=3, help="of two steps of ours and one of the peer")
    parser.add_argument("--cores", type=int, nargs="+", help="cores to run on; by default all")
    parser.add_argument(
        "--micro-batch",
        type=int,
        default=PROMPTS * SAMPLES,
        metavar="SAMPLES",
        help="of the peer's update; by default all at once",
    )
    parser.add_argument("--side", type=int, default=128, help="of an image, in pixels, a multiple of 32")
    parser.add_argument("--vocabulary", type=int, choices=MODELS, default=151_936, help="of the model")
    arguments = parser.parse_args()
    if arguments.cores:
        os.sched_setaffinity(0, arguments.cores)
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as scratch:
        parameters = make(Path(scratch), arguments.side, arguments.vocabulary)
        say(
            f"{parameters / 1e6:.1f}M parameters, float32; {PROMPTS} prompts x {SAMPLES} samples x "
            f"{NEW_TOKENS} tokens, images of {arguments.side}x{arguments.side}; "
            f"cores {cores}, load {os.getloadavg()[0]:.1f}"
        )
        measured, agreement = run(
            Path(scratch),
            arguments.peer,
            rounds=arguments.rounds,
            threads=len(cores),
            micro_batch=arguments.micro_batch,
        )
    late = {name for step in measured[0].steps for name in step["compiled"]}
    if late:
        sys.exit(f"compiled after warm-up: {', '.join(sorted(late))}")
    report(measured, agreement)


if __name__ == "__main__":
    main()
