"""TRL's side of `rl_step`: `GRPOTrainer` with its transformers sampler, one step a turn.

Runs in an environment of its own, without JAX. Gradient checkpointing is off, and all samples of a step are generated
in one batch; the update sees them in one batch too, or in several of `--micro-batch`.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.rl_step import CLIP, LEARNING_RATE, NEW_TOKENS, PROMPTS, SAMPLES, Turns, reward

# A torchvision built for CUDA defines these in a library that a CPU torch cannot load; nothing here calls them.
MISSING = torch.library.Library("torchvision", "DEF")
for operator in (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
):
    MISSING.define(operator)

from datasets import Dataset, Image  # noqa: E402
from transformers import AutoProcessor, TrainerCallback  # noqa: E402
from trl import GRPOConfig, GRPOTrainer  # noqa: E402

NEVER_DRAWN = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")


class TimedTrainer(GRPOTrainer):
    """Notes how long generating and scoring took."""

    rollout = 0.0

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        began = time.perf_counter()
        outputs = super()._generate_and_score_completions(inputs)
        self.rollout = time.perf_counter() - began
        return outputs


class TakesTurns(TrainerCallback):
    """The end of an optimiser step is the end of a turn: the data loader's work is in the next."""

    def __init__(self, turns: Turns, trainer: TimedTrainer, agreement: dict[str, float]) -> None:
        self.turns, self.trainer, self.agreement = turns, trainer, agreement

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.turns.ready(**self.agreement)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.turns.done(last=state.global_step == state.max_steps, rollout=self.trainer.rollout)


def rewards(completions: list[list[dict[str, str]]], **_: Any) -> list[float]:
    return [reward(messages[0]["content"]) for messages in completions]


def check(trainer: TimedTrainer, path: Path) -> dict[str, float]:
    """TRL's log-probabilities and gradient of samples that ours has drawn, against ours."""
    ours = np.load(path)
    tokens = ours["tokens"].tolist()
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = trainer.args.steps_per_generation
    generate, trainer._generate_single_turn = trainer._generate_single_turn, lambda *_, **__: (tokens, None)
    batch = trainer._generate_and_score_completions(
        [trainer.train_dataset[number] for number in range(PROMPTS) for _ in range(SAMPLES)]
    )
    trainer._generate_single_turn = generate
    prompts = batch["prompt_ids"].numpy()[::SAMPLES]
    kept = batch["prompt_mask"].numpy()[::SAMPLES]
    if not np.array_equal(prompts * kept, ours["prompts"] * kept):
        raise SystemExit("the prompts differ from ours")
    batch["advantages"] = torch.from_numpy(ours["advantages"])
    found: list[torch.Tensor] = []
    score = trainer._get_per_token_logps_and_entropies

    def noting(*arguments: Any, **named: Any) -> Any:
        result = score(*arguments, **named)
        found.append(result[0].detach())
        return result

    trainer._get_per_token_logps_and_entropies = noting
    trainer.compute_loss(trainer.model, batch).backward()
    trainer._get_per_token_logps_and_entropies = score
    parameters = [p for p in trainer.model.parameters() if p.grad is not None]
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters]).item()
    trainer.model.zero_grad()
    trainer._metrics["train"].clear()
    apart = np.abs(found[0].numpy() - ours["logprobs"])
    return {
        "log-probability, mean": float(ours["logprobs"].mean()),
        "log-probability, mean difference": float(apart.mean()),
        "log-probability, largest difference": float(apart.max()),
        "gradient norm": norm,
        "gradient norm, ours": float(ours["gradient_norm"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("scratch", type=Path)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--micro-batch", type=int, required=True)
    arguments = parser.parse_args()
    scratch, turns = arguments.scratch, Turns()
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))

    processor = AutoProcessor.from_pretrained(scratch / "model", padding_side="left")
    processor.chat_template = processor.tokenizer.chat_template
    ids = {name: processor.tokenizer.convert_tokens_to_ids(name) for name in NEVER_DRAWN}
    prompts = json.loads((scratch / "prompts.json").read_text())
    data = Dataset.from_list(
        [{"prompt": [{"role": "user", "content": p["text"]}], "image": p["image"]} for p in prompts]
    ).cast_column("image", Image())
    slices = PROMPTS * SAMPLES // arguments.micro_batch
    config = GRPOConfig(
        output_dir=str(scratch / "trl"),
        use_cpu=True,
        bf16=False,
        model_init_kwargs={"dtype": "float32"},
        max_steps=arguments.steps,
        per_device_train_batch_size=arguments.micro_batch,
        gradient_accumulation_steps=slices,
        num_generations=SAMPLES,
        max_completion_length=NEW_TOKENS,
        generation_kwargs={"min_new_tokens": NEW_TOKENS, "suppress_tokens": list(ids.values())},
        temperature=1.0,
        beta=0.0,
        epsilon=CLIP[0],
        epsilon_high=CLIP[1],
        loss_type="dapo",
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="constant",
        weight_decay=0.0,
        max_grad_norm=1.0,
        gradient_checkpointing=False,
        dataloader_pin_memory=False,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    trainer = TimedTrainer(
        model=str(scratch / "model"),
        reward_funcs=rewards,
        args=config,
        train_dataset=data,
        processing_class=processor,
    )
    trainer.add_callback(TakesTurns(turns, trainer, check(trainer, scratch / "check.npz")))
    trainer.train()


if __name__ == "__main__":
    main()
