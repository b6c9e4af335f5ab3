"""The device programs of a preset with the shapes and shardings they run with, and no arrays: what `plan` compiles.

They are made by the functions that training itself uses: `sft_update`, `rl_update` and `make_programs`.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from onethinker_jax.model.attention.kv_cache import KVCache, Prefilled
from onethinker_jax.model.config import Qwen3VLConfig
from onethinker_jax.model.generation.generate import (
    Embedded,
    GenerationShape,
    Programs,
    Slots,
    decode_options,
    make_programs,
)
from onethinker_jax.model.generation.sampling import SamplingConfig
from onethinker_jax.model.inputs import ModelInputs
from onethinker_jax.model.parameters import join_adapters
from onethinker_jax.model.sharding import data_shards
from onethinker_jax.responses import generation_shape, sampling_config
from onethinker_jax.sampler_settings import SamplerSettings
from onethinker_jax.tasks import MOMENTS
from onethinker_jax.train.config.run import TrainConfig
from onethinker_jax.train.optimizer import make_optimizer
from onethinker_jax.train.plans.planned_program import Program, Updates
from onethinker_jax.train.plans.shapes import (
    BASE,
    batch_shapes,
    decoding_shapes,
    moved,
    prompt_shapes,
    rows_shape,
    shard_shapes,
    state_shapes,
    training_layout,
)
from onethinker_jax.train.policy import Policy, abstract_model
from onethinker_jax.train.rl.policy_update import PolicyBatch, rl_logprobs, rl_update
from onethinker_jax.train.sft import sft_update
from onethinker_jax.train.simulation.expected_programs import (
    Expected,
    expected_decoding,
    expected_prefills,
)
from onethinker_jax.train.simulation.expected_step import (
    ExpectedRL,
    expected_rl,
    expected_sft,
    largest_sizes,
)
from onethinker_jax.train.simulation.given_lengths import GivenLengths, full_lengths
from onethinker_jax.train.state import TrainState

END_ID = 151_645  # <|im_end|> of Qwen's tokenizer


@dataclass(frozen=True)
class _Sampler:
    """A sampler of the run: its settings, the prompts of a step, and what lies beside it on the devices."""

    stage: str
    settings: SamplerSettings
    prompts: int
    resident: dict[str, Any]
    full: ExpectedRL | None = None  # steps at full lengths; None: they are not known
    given: ExpectedRL | None = None  # at given ones


def plan_programs(
    config: TrainConfig,
    sizes: Qwen3VLConfig,
    mesh: Mesh,
    *,
    everything: bool = False,
    lengths: GivenLengths | None = None,
) -> list[Program]:
    """SFT's and RL's programs, each where its stage has steps; with `lengths` what is expected of each at these.

    With `everything` also those that take little time but memory: what moves KV caches, and the sampler of the held-out
    records.

    Raises ShardingError naming what does not divide; LengthsError or PackingError where no step can be made.
    """
    graphdef, shapes = nnx.split(abstract_model(sizes, config.model))
    policy = Policy(graphdef, mesh, config.model.compute_dtype)
    programs = []
    if config.sft.steps:
        programs += _sft_programs(config, policy, shapes, sizes, lengths)
    if config.rl.steps:
        programs += _rl_programs(config, policy, shapes, sizes, lengths, moves=everything)
    if everything:
        answers = config.evaluation.sampler
        lying = training_layout(shapes, mesh)
        heldout = _Sampler("held-out", answers, answers.together, lying)
        programs += _sampling_programs(heldout, policy, shapes, sizes, moves=True)
    return programs


def _sft_programs(
    config: TrainConfig,
    policy: Policy,
    shapes: nnx.State,
    sizes: Qwen3VLConfig,
    lengths: GivenLengths | None,
) -> list[Program]:
    sft, mesh = config.sft, policy.mesh
    optimizer = make_optimizer(sft.optimizer, sft.steps, train_vision=sft.train_vision)
    lying = training_layout(shapes, mesh)
    state, gradients = state_shapes(lying["parameters"], optimizer, 1, mesh, reference=False)
    update = sft_update(policy, optimizer, sft)
    shape = sft.batch
    batch = batch_shapes(shape.rows, shape.tokens, shape.patches, sizes, mesh)
    full = expected_sft(config, full_lengths(largest_sizes(config)))
    given = None if lengths is None else expected_sft(config, lengths)
    stage = Updates("SFT", full, given, 1, shape.rows, shape.tokens)
    return _update_programs(
        stage, update, (state, lying.get(BASE)), gradients, batch, single=sft.accumulate == 1
    )


def _rl_programs(
    config: TrainConfig,
    policy: Policy,
    shapes: nnx.State,
    sizes: Qwen3VLConfig,
    lengths: GivenLengths | None,
    *,
    moves: bool,
) -> list[Program]:
    rl, mesh = config.rl, policy.mesh
    sampling = _distribution(rl.rollout, sizes)
    optimizer = make_optimizer(rl.optimizer, rl.steps * rl.num_minibatches, train_vision=True)
    lying = training_layout(shapes, mesh)
    state, gradients = state_shapes(
        lying["parameters"], optimizer, len(MOMENTS), mesh, reference=rl.loss.kl_coefficient > 0
    )
    update = rl_update(policy, optimizer, rl, sampling)
    shape = rl.batch
    batch = batch_shapes(shape.rows, shape.tokens, shape.patches, sizes, mesh)
    floats: Any = rows_shape((shape.rows, shape.tokens), jnp.float32, mesh)
    numbers: Any = rows_shape((shape.rows, shape.tokens), jnp.int32, mesh)
    micro_batch = PolicyBatch(batch, floats, floats, numbers)
    whole = join_adapters(state.params, lying.get(BASE))
    lying["optimiser"] = (state.optimizer, state.reference)
    settings = rl.rollout.all_together(rl.prompts_per_step)
    full = expected_rl(config, full_lengths(largest_sizes(config)), None)
    given = None if lengths is None else expected_rl(config, lengths, _slots(settings, policy))
    stage = Updates("RL", full.updates, given and given.updates, rl.num_minibatches, shape.rows, shape.tokens)
    rollouts = _Sampler("RL", settings, rl.prompts_per_step, lying, full, given)
    sampler = _sampling_programs(rollouts, policy, shapes, sizes, moves=moves)
    beside = {}
    if rl.overlap and rl.rollout_mesh is None:  # the sampler's, which works meanwhile on the same devices
        decoding = next(program for program in sampler if program.name == "RL decoding")
        weights, cache = (decoding.arguments[kind] for kind in ("weights to decode", "KV cache"))
        beside = {"weights to decode": moved(weights, whole), "KV cache": cache}
    programs = []
    if rl.loss.importance_sampling != "none" and rl.num_minibatches > 1:
        score = rl_logprobs(policy, sampling)
        resident = {"optimiser": (state.optimizer, state.reference), **beside}
        arguments = {"parameters": whole, "batch": micro_batch}
        programs.append(stage.program("log-probabilities", score, arguments, resident))
        micro_batch = replace(micro_batch, old=floats)
    policy_state = (state, lying.get(BASE))
    programs += _update_programs(stage, update, policy_state, gradients, micro_batch, beside)
    return programs + sampler


def _distribution(settings: SamplerSettings, sizes: Qwen3VLConfig) -> SamplingConfig:
    media = (
        sizes.image_token_id,
        sizes.video_token_id,
        sizes.vision_start_token_id,
        sizes.vision_end_token_id,
    )
    return sampling_config(settings, eos_ids=(END_ID,), suppressed_ids=media)


def _sampling_programs(
    sampler: _Sampler,
    policy: Policy,
    shapes: nnx.State,
    sizes: Qwen3VLConfig,
    *,
    moves: bool,
) -> list[Program]:
    """Prefill and decoding, every prompt and sample at its full length; with `moves` what moves caches, too."""
    settings, dtype, mesh = sampler.settings, policy.compute_dtype, policy.mesh
    shape = _slots(settings, policy)
    functions = make_programs(policy.graphdef, _distribution(settings, sizes), shape)
    weights = decoding_shapes(shapes, mesh, dtype, settings.weights_dtype)
    fresh: Any = functions.empty
    cache = shard_shapes(jax.eval_shape(fresh, weights), fresh.lower(weights).compile().output_shardings)
    resident = {
        kind: moved(tree, weights) if kind in ("parameters", BASE) else tree
        for kind, tree in sampler.resident.items()
    }
    sampler = replace(sampler, resident=resident)
    beside = {**resident, "KV cache": cache}
    programs = _prefill_programs(sampler, functions, shape, weights, beside, sizes, mesh)
    beside, moving = sampler.resident, []
    if moves:
        waiting = prompt_shapes(programs[-1].function, programs[-1].arguments)
        moving = _moving_programs(sampler, functions, shape, weights, cache, waiting)
        beside = {**beside, "prompts that wait": waiting}

    def decode(weights: nnx.State, cache: KVCache, batch: tuple[Slots, Any]) -> Any:
        slots, key = batch
        zero, decode_block = jnp.int32(0), functions.decode_block
        # Compiler options can only be given to the outermost function.
        return decode_block.__wrapped__(weights, cache, slots, key, zero, zero, zero)  # pyright: ignore

    row, slot = (shape.prompt_slots,), (shape.prompt_slots, shape.sample_slots)
    numbers = [jax.ShapeDtypeStruct(size, jnp.int32) for size in (row, slot, slot, slot)]
    key = jax.eval_shape(lambda: jax.random.key(0))
    slots = Slots(*numbers, live=jax.ShapeDtypeStruct(slot, jnp.bool_))
    samples = sampler.prompts * settings.group_size / (shape.prompt_slots * shape.sample_slots)
    runs = math.ceil(samples * settings.max_new_tokens / shape.decode_block)
    arguments = {"weights to decode": weights, "KV cache": cache, "batch": (slots, key)}
    tokens = shape.prompt_slots * shape.sample_slots * shape.decode_block
    jitted = jax.jit(decode, donate_argnums=1, compiler_options=decode_options(shape.weights_dtype))
    name = f"{sampler.stage} decoding"
    expected = None if sampler.given is None else expected_decoding(sampler.given, shape, cache)
    programs.append(
        Program(name, jitted, arguments, beside, runs, tokens, trips=shape.decode_block, expected=expected)
    )
    return [*programs, *moving]


def _slots(settings: SamplerSettings, policy: Policy) -> GenerationShape:
    """The sampler's shapes; on several data shards it halves no rows."""
    shards = data_shards(policy.mesh)
    shape = generation_shape(settings, policy.compute_dtype, shards)
    return shape if shards == 1 else replace(shape, halvings=0)


def _moving_programs(
    sampler: _Sampler,
    functions: Programs,
    shape: GenerationShape,
    weights: nnx.State,
    cache: KVCache,
    prompts: Prefilled,
) -> list[Program]:
    """Prefilled prompts into the cache; and, on one data shard, half of its rows out of it when few are left."""
    beside = {**sampler.resident, "weights to decode": weights}
    runs = math.ceil(sampler.prompts / shape.prefill_rows)
    at = jax.ShapeDtypeStruct((shape.prefill_rows,), jnp.int32)
    into = {"KV cache": cache, "prompts that wait": prompts, "batch": at}
    programs = [Program(f"{sampler.stage} filling", functions.insert, into, beside, runs, 0)]
    if shape.prompt_slots > 1 and shape.halvings:
        half = jax.ShapeDtypeStruct((shape.prompt_slots // 2,), jnp.int32)
        out_of = {"KV cache": cache, "batch": half}
        programs.append(Program(f"{sampler.stage} halving", functions.take, out_of, beside, 1, 0))
    return programs


def _prefill_programs(
    sampler: _Sampler,
    functions: Programs,
    shape: GenerationShape,
    weights: nnx.State,
    beside: dict[str, Any],
    sizes: Qwen3VLConfig,
    mesh: Mesh,
) -> list[Program]:
    """Prompts whole, or their media and then their chunks, each as if it were the last one."""
    settings, stage = sampler.settings, sampler.stage
    longest = settings.prompt_tokens
    prompts = batch_shapes(shape.prefill_rows, longest, settings.prompt_patches, sizes, mesh).inputs
    integers: Any = rows_shape((shape.prefill_rows,), jnp.int32, mesh)
    batch = (prompts, integers, integers)
    runs = math.ceil(sampler.prompts / shape.prefill_rows)
    tokens = shape.prefill_rows * longest

    def prefill(weights: nnx.State, batch: tuple[ModelInputs, Any, Any]) -> Any:
        return functions.prefill(weights, *batch)

    def embed(weights: nnx.State, batch: tuple[ModelInputs, Any, Any]) -> Any:
        return functions.embed(weights, *batch)

    def prefill_chunk(weights: nnx.State, batch: tuple[Embedded, Any], prompts: Prefilled) -> Prefilled:
        return functions.prefill_chunk(weights, batch[0], prompts, batch[1])

    arguments: dict[str, Any] = {"weights to decode": weights, "batch": batch}
    whole, in_chunks = (
        None if sampler.given is None else expected_prefills(sampler.given, shape, chunks=chunks)
        for chunks in (False, True)
    )
    layout = None if sampler.full is None else sampler.full.prompts
    if shape.prefill_chunk_tokens is None:
        prefills = Program(f"{stage} prefill", jax.jit(prefill), arguments, beside, runs, tokens)
        return [replace(prefills, layout=layout, expected=whole)]
    media = jax.jit(embed)
    shardings = media.lower(weights, batch).compile().output_shardings
    embedded, computed = shard_shapes(jax.eval_shape(embed, weights, batch), shardings)
    start = jax.ShapeDtypeStruct((), jnp.int32)
    chunk_arguments = {
        "weights to decode": weights,
        "batch": (embedded, start),
        "prompts' keys and values": computed,
    }
    chunks = len(shape.chunk_starts(longest, longest))
    chunk_tokens = shape.prefill_rows * shape.chunk_size(longest)
    jitted = jax.jit(prefill_chunk, donate_argnums=2)
    jitted_chunks = Program(
        f"{stage} prefill", jitted, chunk_arguments, beside, runs * chunks, chunk_tokens, expected=in_chunks
    )
    of_media = Program(f"{stage} media", media, arguments, beside, runs, tokens)
    return [replace(of_media, layout=layout, expected=whole), jitted_chunks]


def _update_programs(
    stage: Updates,
    update: Any,
    state_and_base: tuple[TrainState, nnx.State | None],
    gradients: nnx.State,
    batch: Any,
    beside: dict[str, Any] | None = None,
    *,
    single: bool = False,
) -> list[Program]:
    """Gradients and update; with `single` an update has one micro-batch."""
    state, base = state_and_base
    beside = beside or {}
    count = jax.ShapeDtypeStruct((), jnp.float32)
    return [
        stage.program(
            "gradients",
            update.accumulate,
            {
                "parameters": state.params,
                "reference": state.reference,
                "gradients": None if single else gradients,
                "batch": batch,
                BASE: base,
            },
            {"optimiser": state.optimizer, **beside},
        ),
        Program(
            f"{stage.stage} update",
            update.apply,
            {"parameters, optimiser": state, "gradients": gradients, "count": count, "loss": count},
            beside if base is None else {BASE: base, **beside},
            stage.updates,
            0,
            expected=None if stage.given is None else Expected(stage.updates),
        ),
    ]
