"""transformers' Qwen3-VL on the same GPU: sdpa, a static cache, random weights made on the device.

Its rows have the same tokens and images as ours. A batch of a training step is as many examples of one length as our
row packs, so that nothing of it is padding; weights are float32 and it computes in bfloat16 by autocast, with gradient
checkpointing and torch's AdamW. A decode step is timed between two tokens of `generate`, which computes the prompt once
for each sample; "compiled" is what `generate` does with a static cache by default, "eager" is without.
"""

import inspect
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import transformers

from benchmarks.gpu.cases import Case, Scale, model_settings
from benchmarks.gpu.inputs import example_of
from benchmarks.gpu.table import Row
from onethinker_jax.data_pipeline.processor.processor import Example
from onethinker_jax.model.config import Qwen3VLConfig
from onethinker_jax.train.policy import planned_sizes


class Peer:
    """The device between two cases: it holds one model."""

    def __init__(self, scale: Scale) -> None:
        self._scale = scale
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._held: tuple[str, bool, Any] | None = None  # name, whether it is trained, model
        self.kind = torch.cuda.get_device_name() if self._device == "cuda" else "cpu"
        self.description = (
            f"torch {torch.__version__}, transformers {transformers.__version__} on {self.kind}"
        )

    def clear(self) -> None:
        """Lets go of what the device holds."""
        self._held = None
        if self._device == "cuda":
            torch.cuda.empty_cache()

    def measure(self, case: Case) -> Iterator[Row]:
        """The row of a case."""
        part = {"training": self._training, "prefill": self._prefill, "decode": self._decode}[case.part]
        seconds, tokens, notes = part(case)
        yield Row(case.part, case.size, f"transformers, {case.kind}", seconds, tokens, notes=notes)

    def _model(self, case: Case, *, trained: bool) -> Any:
        if self._held is None or self._held[:2] != (case.model, trained):
            self.clear()
            dtype = torch.float32 if trained else getattr(torch, self._scale.dtype)
            config = transformers.Qwen3VLConfig.from_dict(self._sizes(case).to_hf())
            with torch.device(self._device):
                model = transformers.AutoModelForImageTextToText.from_config(
                    config, dtype=dtype, attn_implementation="sdpa"
                )
            if trained:
                model.train()
                model.gradient_checkpointing_enable()
            else:
                model.eval()
            self._held = case.model, trained, model.to(self._device)
        return self._held[2]

    def _sizes(self, case: Case) -> Qwen3VLConfig:
        return planned_sizes(model_settings(case.model, self._scale))

    def _inputs(self, model: Any, sizes: Qwen3VLConfig, examples: Sequence[Example]) -> dict[str, Any]:
        """Rows of equal length, as this version's forward pass takes them."""
        tokens = torch.tensor(np.stack([one.tokens for one in examples]).astype(np.int64))
        pixels = torch.tensor(np.concatenate([one.patches for one in examples])).float()
        inputs = {
            "input_ids": tokens,
            "attention_mask": torch.ones_like(tokens),
            "mm_token_type_ids": (tokens == sizes.image_token_id).long(),
            "pixel_values": (pixels / 255 - 0.5) / 0.5,
            "image_grid_thw": torch.tensor(np.concatenate([one.grids for one in examples]).astype(np.int64)),
        }
        known = inspect.signature(model.forward).parameters
        return {name: value.to(self._device) for name, value in inputs.items() if name in known}

    def _seconds(self, call: Callable[[], object]) -> float:
        """The median of some calls, after one that does not count."""
        seconds = []
        for _ in range(self._scale.repeats + 1):
            self._wait()
            began = time.perf_counter()
            call()
            self._wait()
            seconds.append(time.perf_counter() - began)
        return statistics.median(seconds[1:])

    def _wait(self) -> None:
        if self._device == "cuda":
            torch.cuda.synchronize()

    def _training(self, case: Case) -> tuple[float, float, str]:
        """Forward, backward and AdamW of a batch of the row's examples."""
        model, sizes, scale = self._model(case, trained=True), self._sizes(case), self._scale
        examples = [example_of(sizes, scale.unit, scale, seed) for seed in range(case.tokens // scale.unit)]
        inputs = self._inputs(model, sizes, examples)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=self._device == "cuda")
        narrow = scale.dtype == "bfloat16"
        losses = []

        def step() -> None:
            with torch.autocast(self._device, torch.bfloat16, enabled=narrow):
                loss = model(**inputs, labels=inputs["input_ids"], use_cache=False).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.detach())

        seconds = self._seconds(step)
        model.zero_grad()
        return seconds, case.tokens, f"{len(examples)} x {scale.unit:,} tokens; loss {float(losses[0]):.2f}"

    def _prefill(self, case: Case) -> tuple[float, float, str]:
        model, sizes = self._model(case, trained=False), self._sizes(case)
        inputs = self._inputs(model, sizes, [example_of(sizes, case.tokens, self._scale)])

        def prefill() -> None:
            with torch.no_grad():
                model(**inputs, use_cache=True, logits_to_keep=1)

        return self._seconds(prefill), case.tokens, ""

    def _decode(self, case: Case) -> tuple[float, float, str]:
        model, sizes, scale = self._model(case, trained=False), self._sizes(case), self._scale
        prompts = case.samples // scale.group
        examples = [example_of(sizes, case.tokens, scale, seed) for seed in range(prompts)]
        inputs = self._inputs(model, sizes, examples)
        times: list[float] = []

        def note_time(tokens: torch.Tensor, _: Any, **__: Any) -> torch.Tensor:
            self._wait()
            times.append(time.perf_counter())
            return torch.zeros(len(tokens), dtype=torch.bool, device=tokens.device)

        ids = (
            sizes.image_token_id,
            sizes.video_token_id,
            sizes.vision_start_token_id,
            sizes.vision_end_token_id,
        )
        for _ in range(2):  # the first call compiles, where it does
            times.clear()
            with torch.no_grad():
                model.generate(
                    **inputs,
                    num_return_sequences=scale.group,
                    max_new_tokens=scale.decode_block + 1,
                    min_new_tokens=scale.decode_block + 1,
                    do_sample=True,
                    temperature=1.0,
                    top_k=0,
                    top_p=1.0,
                    suppress_tokens=list(ids),
                    eos_token_id=None,
                    pad_token_id=0,
                    cache_implementation="static",
                    disable_compile=case.kind == "eager",
                    stopping_criteria=transformers.StoppingCriteriaList([note_time]),
                )
        if len(times) != scale.decode_block + 1:
            raise RuntimeError(f"generate made {len(times)} of {scale.decode_block + 1} tokens")
        step = (times[-1] - times[0]) / scale.decode_block
        return (
            step,
            case.samples,
            f"{prompts} prompts x {scale.group} samples, first {scale.decode_block} tokens",
        )
