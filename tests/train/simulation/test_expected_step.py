"""Simulated steps against real ones: the same scheduler, the same packers, and so the same counts exactly."""

import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flax import nnx

from onethinker_jax.data_pipeline.batches.bin_packing import BatchShape
from onethinker_jax.data_pipeline.batches.loader import RecordStream, TrainingBatches
from onethinker_jax.data_pipeline.batches.packing import GroupSize, packing_efficiency
from onethinker_jax.model.attention.decode_attention import CHUNK
from onethinker_jax.model.generation.continuous_batching import ContinuousBatching
from onethinker_jax.model.generation.sampling import SamplingConfig
from onethinker_jax.model.qwen3_vl import Qwen3VL
from onethinker_jax.responses import generation_shape
from onethinker_jax.train.config.presets import shapes
from onethinker_jax.train.cost.attention_layout import row_ids
from onethinker_jax.train.simulation.decoded import Decoded, decode, ring_columns
from onethinker_jax.train.simulation.expected_step import expected_rl, expected_sft, largest_sizes
from onethinker_jax.train.simulation.given_lengths import LengthsError, full_lengths, given_lengths
from onethinker_jax.train.simulation.packed_rows import ConversationBatches
from tests.model import tiny
from tests.model.generation.making import WHOLE, prompts_of, shape_of
from tests.train import making
from tests.train.rl.small_run import SETTINGS


def test_decoding_takes_the_steps_of_a_real_sampler() -> None:
    """Prompts in turn through few slots, in two buckets, halved when few are left; samples that end anywhere."""
    model = Qwen3VL(making.CONFIG, rngs=nnx.Rngs(0))
    graphdef, params = nnx.split(model)
    shape = shape_of(
        prompt_slots=4,
        sample_slots=2,
        prefill_rows=2,
        decode_block=5,
        halvings=2,
        prompt_buckets=((48, 48), *WHOLE),
    )
    ends = tuple(range(0, making.CONFIG.text.vocab_size, 9))
    config = SamplingConfig(max_new_tokens=24, eos_ids=ends, suppressed_ids=tiny.SUPPRESSED)
    examples = [tiny.example(kind, seed) for seed in range(2) for kind in tiny.KINDS]
    decoding = ContinuousBatching(graphdef, config, shape)
    seen: Counter[str] = Counter()
    prefill, block = decoding.programs.prefill, decoding.programs.decode_block

    def counted_prefill(params: nnx.State, inputs: Any, *others: Any) -> Any:
        seen[f"prefill of {inputs.tokens.shape[1]}"] += 1
        return prefill(params, inputs, *others)

    def counted_block(params: nnx.State, cache: Any, slots: Any, *others: Any) -> Any:
        cache, drawn = block(params, cache, slots, *others)
        seen["blocks"] += 1
        seen["steps"] += int(drawn.steps)
        seen["row steps"] += int(drawn.steps) * len(slots.prompt)
        return cache, drawn

    decoding.warm_up(params)
    decoding.programs = replace(decoding.programs, prefill=counted_prefill, decode_block=counted_block)
    prompts = prompts_of(examples, making.CONFIG.vision.grid_side)
    lengths = np.zeros((len(examples), 3), int)
    for part in decoding(params, prompts, group_size=3, seed=3, step=1):
        for one in part:
            lengths[one.prompt, one.sample] = len(one.tokens)
    assert lengths.min() >= 1 and len(np.unique(lengths)) > 5

    groups = [
        GroupSize(len(example.tokens), len(example.patches), tuple(of_prompt))
        for example, of_prompt in zip(examples, lengths.tolist(), strict=True)
    ]
    found = Decoded()
    decode(groups, shape, 24, found)
    assert seen == {
        "blocks": found.decode_blocks,
        "steps": found.steps,
        "row steps": found.row_steps,
        **{
            f"prefill of {tokens}": sum(n for sizes, n in found.prefills.items() if sizes[0] == tokens)
            for tokens, _ in found.prefills
        },
    }
    assert found.tokens == lengths.sum()
    assert 0 < found.occupancy(shape) < 1


def test_columns_of_the_ring_that_are_read() -> None:
    """As `decode_attention` decides it: every chunk that has one of the newest entries."""
    capacity = 4 * CHUNK
    for entries in (0, 1, 255, 256, 257, 700, 1023, 1024):
        for column in (0, 1, 255, 256, 600, 1023):
            age = (column - np.arange(capacity) - 1) % capacity
            needed = (age < entries).reshape(4, CHUNK).any(1).sum()
            assert ring_columns(entries, column, capacity) == CHUNK * needed, (entries, column)
    assert ring_columns(0, 5, 200) == 200  # one chunk is always read


def test_a_real_run(train: Any, sampler: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """From the lengths that the run wrote: its rounds, micro-batches, tokens and decode steps."""
    blocks: Counter[str] = Counter()
    programs = sampler._decoding.programs

    def counted(params: Any, cache: Any, slots: Any, *others: Any) -> Any:
        cache, drawn = programs.decode_block(params, cache, slots, *others)
        blocks["steps"] += int(drawn.steps)
        return cache, drawn

    monkeypatch.setattr(sampler._decoding, "programs", replace(programs, decode_block=counted))
    train(tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    lines = [json.loads(line) for line in (tmp_path / "lengths.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [
        row["step"] for row in rows for _ in range(int(row["prompts_drawn"]))
    ]

    config = replace(shapes(), rl=SETTINGS)
    given = given_lengths(str(tmp_path / "lengths.jsonl"), largest_sizes(config))
    shape = generation_shape(
        SETTINGS.rollout.all_together(SETTINGS.prompts_per_step), config.model.compute_dtype, 1
    )
    found = expected_rl(config, given, shape)
    assert found.updates.steps == len(rows) == 4
    assert found.updates.micro_batches == sum(row["micro_batches"] for row in rows)
    assert found.prompts.text.rows.total() == sum(row["prompts_drawn"] for row in rows)
    assert found.decoded.tokens == sum(row["sampled_tokens"] for row in rows)
    assert found.decoded.steps == blocks["steps"]
    assert any(not line["kept"] for line in lines)

    # A run that goes on has each step's lengths once.
    resumed = tmp_path / "resumed"
    train(resumed, settings=replace(SETTINGS, steps=2, save_every=2))
    before = (resumed / "lengths.jsonl").read_text()
    with (resumed / "lengths.jsonl").open("a") as file:
        file.write(json.dumps({**lines[-1], "step": 3}) + "\n")  # of a step that no checkpoint holds
    train(resumed, settings=SETTINGS)
    assert (resumed / "lengths.jsonl").read_text().startswith(before)
    steps = [json.loads(line)["step"] for line in (resumed / "lengths.jsonl").read_text().splitlines()]
    assert Counter(steps) == Counter(line["step"] for line in lines)


def test_rows_of_sft_are_those_of_the_loader(processor: Any, sft_records: Any) -> None:
    """The same examples in the same order: the same rows, batch by batch."""
    shape = BatchShape(rows=2, tokens=160, patches=96)
    data = replace(shapes().data, window=9, packing_strategy="best_fit")
    stream = RecordStream(sft_records, seed=0)
    sizes = []
    for position in range(60):
        example = processor.training(stream.at(position))
        sizes.append((len(example.tokens), len(example.patches)))
    simulated = ConversationBatches(sizes, shape, data)
    options: dict[str, Any] = {"strategy": data.packing_strategy, "window": data.window, "prefetch": 0}
    with TrainingBatches(RecordStream(sft_records, seed=0), processor, shape, **options) as batches:
        for _ in range(5):
            batch, layout = next(batches), simulated.next()
            rows = sorted(np.asarray(batch.inputs.segment_ids).tolist())
            ours = [
                row_ids(row, shape.tokens)[0][0].tolist()
                for row, count in layout.text.rows.items()
                for _ in range(count)
            ]
            assert sorted(ours) == rows
            assert (layout.text.efficiency, layout.patches.efficiency) == pytest.approx(
                packing_efficiency(batch)
            )


@pytest.mark.parametrize(
    ("prompt", "tokens", "slots"),
    [(96, 160, None), (90, 200, 2), (96, 101, 4)],
    ids=["whole", "more", "split"],
)
def test_constant_lengths_at_the_maximum_are_the_full_step(
    prompt: int, tokens: int, slots: int | None
) -> None:
    """And the full step is what stands in the plan: micro-batches of the packer, decode blocks of every sample."""
    rollout = replace(SETTINGS.rollout, prompt_tokens=prompt, prompt_slots=slots, decode_block=3)
    rl = replace(SETTINGS, rollout=rollout, batch=replace(SETTINGS.batch, tokens=tokens))
    config = replace(shapes(), rl=rl, sft=replace(shapes().sft, accumulate=2))
    sizes = largest_sizes(config)
    stated = f"conversation={sizes.conversation[0]},prompt={prompt},response={rollout.max_new_tokens}"
    shape = generation_shape(rollout.all_together(rl.prompts_per_step), "float32", 1)
    full, given = (
        expected_rl(config, lengths, shape) for lengths in (full_lengths(sizes), given_lengths(stated, sizes))
    )
    for one in (full, given):
        steps = one.updates.steps
        assert one.updates.runs == full.updates.runs
        assert one.updates.layout.shares("tpu") == full.updates.layout.shares("tpu")
        assert one.decoded.occupancy(shape) == 1
        samples = rl.prompts_per_step * rollout.group_size / (shape.prompt_slots * shape.sample_slots)
        assert one.decoded.steps / steps == samples * rollout.max_new_tokens
        assert one.decoded.decode_blocks / steps == math.ceil(samples * rollout.max_new_tokens / 3)
    together = (tokens - prompt + 1) // rollout.max_new_tokens
    parts = rl.prompts_per_step // 2 * math.ceil(rollout.group_size / together)
    a_row = max(tokens // (prompt - 1 + min(together, rollout.group_size) * rollout.max_new_tokens), 1)
    assert full.updates.runs == 2 * math.ceil(parts / a_row / rl.batch.rows)
    sft = [expected_sft(config, lengths) for lengths in (full_lengths(sizes), given_lengths(stated, sizes))]
    assert sft[0].runs == sft[1].runs == 2
    assert sft[0].layout.shares("gpu") == sft[1].layout.shares("gpu")


def test_steps_that_cannot_be(tmp_path: Path) -> None:
    config = replace(shapes(), rl=SETTINGS)
    path = tmp_path / "lengths.jsonl"
    path.write_text(json.dumps({"tokens": 9, "patches": 0, "responses": [3, 4]}) + "\n")
    with pytest.raises(LengthsError, match=r"a prompt has 2 responses, but rl\.rollout\.group_size is 3"):
        expected_rl(config, given_lengths(str(path), largest_sizes(config)), None)
    path.write_text(json.dumps({"tokens": 9, "patches": 0, "responses": [3, 4, 1], "kept": False}) + "\n")
    with pytest.raises(LengthsError, match="only 0 of 4 groups of a step are kept after 6 rounds"):
        expected_rl(config, given_lengths(str(path), largest_sizes(config)), None)
