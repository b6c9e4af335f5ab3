"""How long a step's programs take at least, and what memory they need at least, from shapes alone.

FLOPs are those of the plan; bytes and what goes over the links are those of products, attention, weights and cache,
scaled by what XLA's programs were seen to move beside them. Memory is a bound from below: arguments and what lies
beside them, which the plan knows as well, and what the backward pass is told to keep.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from onethinker_jax.data_pipeline.batches.packing import GroupSize
from onethinker_jax.model.attention.decode_attention import whole_chunks
from onethinker_jax.model.attention.flash import Kernels
from onethinker_jax.model.config import Qwen3VLConfig
from onethinker_jax.model.layers import Remat
from onethinker_jax.responses import generation_shape
from onethinker_jax.sampler_settings import SamplerSettings
from onethinker_jax.train.config.hosts import MeshSettings
from onethinker_jax.train.config.optimizer import BatchSettings
from onethinker_jax.train.config.run import TrainConfig
from onethinker_jax.train.cost.attention_layout import AttentionLayout, RowLayouts, frames_of
from onethinker_jax.train.cost.hardware import Chip
from onethinker_jax.train.plans.search.holdings import Holdings, ModelShapes
from onethinker_jax.train.plans.search.towers import (
    Tower,
    Trained,
    attention_runs,
    head_flops,
    merger_flops,
    passes_of,
    text_tower,
    vision_tower,
)
from onethinker_jax.train.plans.targets import Target
from onethinker_jax.train.simulation.expected_step import expected_rl, expected_sft, largest_sizes
from onethinker_jax.train.simulation.given_lengths import GivenLengths, full_lengths
from onethinker_jax.train.simulation.packed_rows import ConversationBatches, group_batches, largest_frame

# XLA's programs move, as the reports of docs/plan.md have it, 1.6 to 2.6 times what the products of training and
# prefill read and write (norms, rotary, softmax, sums), and 1.05 to 1.2 times the weights and the cache a token.
AROUND_PRODUCTS = 2.0
AROUND_DECODING = 1.1
# What `remat none` keeps, times what `dots` keeps, as XLA compiled the 8B's gradients for eight H100.
WITHOUT_REMAT = 4.7
_ITEM = {"float32": 4, "bfloat16": 2, "int8": 1}


@dataclass(frozen=True)
class Estimate:
    """A program of a step: its runs, the least seconds of one by what limits them, bytes of a device.

    It needs no fewer bytes than `memory`; `likely` is what it may be expected to need.
    """

    name: str
    runs: float
    seconds: dict[str, float]
    memory: float
    likely: float

    @property
    def step(self) -> float:
        """Least seconds of its runs of a step."""
        return max(self.seconds.values()) * self.runs


def _same(name: str, runs: float, seconds: dict[str, float], memory: float) -> Estimate:
    """A program that keeps nothing for a backward pass: its bound is near what it needs."""
    return Estimate(name, runs, seconds, memory, memory)


@dataclass(frozen=True)
class _Sampling:
    """A step's sampling: how often prefill and decode blocks run, and the shares of full runs that they are."""

    prefills: float
    prefill_share: float
    blocks: float
    rows: float = 1.0  # of the prompt slots that a decode step works on
    cache: float = 1.0  # of the cache that it reads


class Estimator:
    """Estimates of settings that differ from `config` in what a search may change."""

    def __init__(
        self, config: TrainConfig, sizes: Qwen3VLConfig, target: Target, given: GivenLengths | None = None
    ):
        self.chip, self._target, self._sizes, self._given = target.chip, target, sizes, given
        self._kernels: Kernels = "tpu" if target.devices[0].platform == "tpu" else "gpu"
        self._text, self._vision = text_tower(sizes), vision_tower(sizes)
        self._shapes = ModelShapes(config, sizes)
        self._known: dict[Any, Any] = {}

    def holdings(self, mesh: MeshSettings) -> Holdings:
        """What lies on a device; raises ShardingError where the mesh does not divide a parameter."""
        return self._once(("holdings", mesh), lambda: self._shapes.on(mesh))

    def estimates(self, config: TrainConfig) -> list[Estimate]:
        """A step's programs, in the plan's order."""
        found = []
        for stage, settings in (("SFT", config.sft), ("RL", config.rl)):
            if settings.steps:
                found += self._updates(stage, config)
        return [*found, *self._sampler(config)] if config.rl.steps else found

    def _once(self, key: Any, make: Any) -> Any:
        if key not in self._known:
            self._known[key] = make()
        return self._known[key]

    def _updates(self, stage: str, config: TrainConfig) -> list[Estimate]:
        batch = config.sft.batch if stage == "SFT" else config.rl.batch
        mesh, model, held = config.mesh, config.model, self.holdings(config.mesh)
        runs, layout = self.micro_batches(stage, config)
        shares = self._once((stage, batch, "shares"), lambda: layout.shares(self._kernels))
        text: Trained = "through" if model.lora.rank else "all"
        trains_vision = model.lora.vision if model.lora.rank else stage == "RL" or config.sft.train_vision
        vision: Trained = text if trains_vision else "nothing"
        rows = partial(self._rows_seconds, batch, mesh, model.compute_dtype, held, shares)
        seconds = rows(text, vision, model.remat)
        scoring = rows("nothing", "nothing", "none")
        loss, scores = config.rl.loss, []
        if stage == "RL" and loss.kl_coefficient:
            seconds = {name: seconds[name] + scoring[name] for name in seconds}
        beside = held.training(stage)
        if stage == "RL" and config.rl.overlap and config.rl.rollout_mesh is None:
            beside += held.apart[config.rl.rollout.weights_dtype] + self.cache_bytes(config)
        if stage == "RL" and loss.importance_sampling != "none" and config.rl.num_minibatches > 1:
            scores = [_same("RL log-probabilities", runs, scoring, beside - held.gradients)]
        kept = self._text.kept_numbers(batch.rows * batch.tokens / mesh.size, model.remat)
        if vision != "nothing":
            kept += self._vision.kept_numbers(batch.rows * batch.patches / mesh.size, model.remat)
        kept *= _ITEM[model.compute_dtype]
        working = self._working_bytes(batch, mesh, model.compute_dtype)
        if model.remat == "none":  # what is between the products, and weights, once gathered
            working += (WITHOUT_REMAT - 1) * kept + held.decoder[None]
        moved = 2 * (held.parameters + held.optimizer[stage]) + held.gradients
        update = {"HBM": moved / self.chip.hbm_bandwidth}
        updates = 1 if stage == "SFT" else config.rl.num_minibatches
        return [
            *scores,
            Estimate(f"{stage} gradients", runs, seconds, beside + kept, beside + kept + working),
            _same(f"{stage} update", updates, update, beside),
        ]

    def _working_bytes(self, batch: BatchSettings, mesh: MeshSettings, dtype: str) -> float:
        """What a layer's and the head's backward pass may hold, in float32, and the head's weights beside it."""
        text, shards = self._sizes.text, mesh.data * mesh.fsdp
        lengths = ((self._text, batch.tokens), (self._vision, batch.patches))
        layer = max(
            tower.product_numbers(batch.rows * length / shards, mesh.tensor, 1) / tower.layers
            for tower, length in lengths
        )
        return 4 * layer + (4 + _ITEM[dtype]) * text.hidden_size * text.vocab_size / mesh.tensor

    def _rows_seconds(
        self,
        batch: BatchSettings,
        mesh: MeshSettings,
        dtype: str,
        held: Holdings,
        shares: Mapping[str, float],
        text: Trained,
        vision: Trained,
        remat: Remat,
    ) -> dict[str, float]:
        """Of one run over rows: what limits it."""
        tokens, patches = batch.rows * batch.tokens, batch.rows * batch.patches
        flops = head_flops(self._sizes, tokens, text) + merger_flops(self._sizes, patches, vision)
        numbers, sent = 0.0, 0.0
        shards, item = mesh.data * mesh.fsdp, _ITEM[dtype]
        towers: tuple[tuple[Tower, int, Trained], ...]
        towers = ((self._text, batch.tokens, text), (self._vision, batch.patches, vision))
        for tower, length, trained in towers:
            passes = passes_of(remat, trained)
            runs = attention_runs(shares, self._kernels, remat, trained, causal=tower.causal)
            repeated = remat == "full" and trained != "nothing"
            flops += tower.product_flops(batch.rows * length, passes, repeated=repeated)
            flops += tower.attention_flops(batch.rows, length, runs)
            numbers += tower.product_numbers(batch.rows * length / shards, mesh.tensor, passes)
            # Two gathers and two scatters of a layer's input along `tensor` a pass.
            layer = batch.rows * length / shards * tower.width * (mesh.tensor - 1) / mesh.tensor
            sent += item * 4 * passes * tower.layers * layer
        gathers = 1 if text == "nothing" else 2
        scatters = 1 if text == "all" else 0
        gathered = held.decoder[None] * (mesh.fsdp - 1) / mesh.fsdp
        sent += (gathers + scatters) * gathered
        if text == "all":  # sums of gradients over `data`, in float32
            sent += 2 * held.gradients * (mesh.data - 1) / mesh.data
        return self._seconds(
            flops / mesh.size, AROUND_PRODUCTS * item * numbers + gathers * held.decoder[None], sent, mesh
        )

    def _seconds(self, flops: float, moved: float, sent: float, mesh: MeshSettings) -> dict[str, float]:
        chip = self.chip
        seconds = {
            "compute": flops / chip.flops,
            "HBM": moved / chip.hbm_bandwidth,
            chip.link: sent / chip.link_bandwidth,
        }
        hosts = len({device.process_index for device in self._target.devices})
        if chip.network and hosts > 1:  # the devices of a host share a ring's traffic with the next host
            seconds["network"] = sent / (mesh.size / hosts) / chip.network
        return seconds

    def micro_batches(self, stage: str, config: TrainConfig) -> tuple[float, AttentionLayout]:
        """Runs of a step over rows, and how these lie."""
        batch = config.sft.batch if stage == "SFT" else config.rl.batch
        accumulate = config.sft.accumulate if stage == "SFT" else 0

        def find() -> tuple[float, AttentionLayout]:
            if self._given is not None:
                found = (
                    expected_sft(config, self._given)
                    if stage == "SFT"
                    else expected_rl(config, self._given, None).updates
                )
                return found.runs, found.layout
            full = full_lengths(largest_sizes(config))
            if stage == "SFT":
                return accumulate, ConversationBatches(full.conversations, batch, config.data).next()
            rl = config.rl
            groups: list[GroupSize] = full.groups * (rl.prompts_per_step // rl.num_minibatches)
            layouts = list(group_batches(groups, batch, config.data))
            whole = layouts[0]
            for other in layouts[1:]:
                whole.text.rows.update(other.text.rows)
                whole.patches.rows.update(other.patches.rows)
            return len(layouts) * rl.num_minibatches, whole

        return self._once((stage, batch, accumulate), find)

    def _sampler(self, config: TrainConfig) -> list[Estimate]:
        rollout, mesh = config.rl.rollout.all_together(config.rl.prompts_per_step), config.mesh
        held, item = self.holdings(mesh), _ITEM[config.model.compute_dtype]
        shape = generation_shape(rollout, config.model.compute_dtype, mesh.data * mesh.fsdp)
        sampling = self._once(("sampling", rollout, shape), lambda: self._sampling(config, rollout))
        cache = self.cache_bytes(config)
        slots = shape.prompt_slots * shape.sample_slots
        waiting = cache * self._prefix_share(config) * shape.prefill_rows / shape.prompt_slots
        prompts = BatchSettings(shape.prefill_rows, rollout.prompt_tokens, rollout.prompt_patches)
        shares = self._once(("prompts", prompts.tokens, prompts.patches), lambda: self._prompt_shares(config))
        tensor, text = mesh.tensor, self._sizes.text
        prefill = self._rows_seconds(
            prompts, mesh, config.model.compute_dtype, held, shares, "nothing", "nothing", "none"
        )
        prefill["compute"] -= head_flops(self._sizes, prompts.rows * prompts.tokens, "nothing") / (
            mesh.size * self.chip.flops
        )
        prefill[self.chip.link] -= (
            held.decoder[None] * (mesh.fsdp - 1) / mesh.fsdp / self.chip.link_bandwidth
        )  # weights lie whole
        prefill = {name: seconds * sampling.prefill_share for name, seconds in prefill.items()}
        weights = (
            _ITEM[rollout.weights_dtype or config.model.compute_dtype] * self._decoder_numbers() / tensor
        )
        moved = weights + sampling.cache * cache
        columns = rollout.prompt_tokens + rollout.max_new_tokens
        seen = 4 * text.num_heads * text.head_dim * text.num_layers * columns
        flops = slots * (self._text.product_flops(1, 1) + head_flops(self._sizes, 1, "nothing") + seen)
        layer = slots / (mesh.data * mesh.fsdp) * text.hidden_size * (tensor - 1) / tensor
        sent = 4 * item * text.num_layers * layer
        token = self._seconds(
            sampling.rows * flops / mesh.size, AROUND_DECODING * moved, sampling.rows * sent, mesh
        )
        block = {name: seconds * shape.decode_block for name, seconds in token.items()}
        memory = held.sampling(rollout.weights_dtype) + cache
        return [
            _same("RL prefill", sampling.prefills, prefill, memory + waiting),
            _same("RL decoding", sampling.blocks, block, memory),
        ]

    def _sampling(self, config: TrainConfig, rollout: SamplerSettings) -> _Sampling:
        rl, shards = config.rl, config.mesh.data * config.mesh.fsdp
        shape = generation_shape(rollout, config.model.compute_dtype, shards)
        if self._given is None:
            samples = rl.prompts_per_step * rollout.group_size / (shape.prompt_slots * shape.sample_slots)
            blocks = math.ceil(samples * rollout.max_new_tokens / shape.decode_block)
            return _Sampling(math.ceil(rl.prompts_per_step / shape.prefill_rows), 1.0, blocks)
        found = expected_rl(config, self._given, shape)
        decoded, steps = found.decoded, found.updates.steps
        longest, runs = shape.prompt_buckets[-1][0], decoded.prefills.total()
        tokens = sum(count * bucket for (bucket, _), count in decoded.prefills.items())
        whole = shape.prompt_slots * max(decoded.steps, 1)
        prefix, suffix = whole_chunks(longest), shape.sample_slots * whole_chunks(rollout.max_new_tokens)
        read = decoded.prefix_columns + shape.sample_slots * decoded.suffix_columns
        return _Sampling(
            runs / steps,
            tokens / (runs * longest),
            decoded.steps / shape.decode_block / steps,
            decoded.row_steps / whole,
            read / (whole * (prefix + suffix)),
        )

    def _prompt_shares(self, config: TrainConfig) -> dict[str, float]:
        rollout = config.rl.rollout
        layout = AttentionLayout(RowLayouts(rollout.prompt_tokens), RowLayouts(rollout.prompt_patches))
        layout.text.add([((rollout.prompt_tokens,),)])
        frame = largest_frame(config.data, rollout.prompt_patches)
        layout.patches.add([frames_of(rollout.prompt_patches, frame)])
        return layout.shares(self._kernels)

    def _columns(self, config: TrainConfig) -> tuple[int, int]:
        """Columns of a prompt slot's cache: the prompt's, and its samples' own."""
        rollout = config.rl.rollout
        own = min(rollout.sample_slots or rollout.group_size, rollout.group_size)
        return whole_chunks(rollout.buckets()[-1][0]), own * whole_chunks(rollout.max_new_tokens)

    def _prefix_share(self, config: TrainConfig) -> float:
        prefix, own = self._columns(config)
        return prefix / (prefix + own)

    def cache_bytes(self, config: TrainConfig) -> float:
        """The KV cache of one device, in int8 with a float32 scale a token and head."""
        rollout, text = config.rl.rollout.all_together(config.rl.prompts_per_step), self._sizes.text
        dtype = rollout.kv_dtype or config.model.compute_dtype
        entry = text.head_dim * _ITEM[dtype] + (4 if dtype == "int8" else 0)
        numbers = 2 * text.num_layers * text.num_kv_heads * rollout.together * sum(self._columns(config))
        return float(numbers) * entry / config.mesh.size

    def _decoder_numbers(self) -> float:
        """Weights that a token needs read: the layers' with all experts, and the head's."""
        text = self._sizes.text
        layer = self._text.product_flops(1, 1) / 2
        if text.moe is not None:
            expert = 3 * text.hidden_size * text.moe.intermediate_size * text.num_layers
            layer += expert * (text.moe.num_experts - text.moe.experts_per_token)
        return layer + text.hidden_size * text.vocab_size


def usable(chip: Chip) -> float:
    """Bytes of a device that a program may need."""
    return (1 - chip.margin) * chip.hbm
