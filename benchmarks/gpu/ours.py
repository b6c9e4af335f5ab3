"""Our side: programs that `plan` makes, compiled and run on the first device that JAX sees, with random weights."""

import gc
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from benchmarks.gpu.attention_rows import attention_rows
from benchmarks.gpu.cases import Case, Part, Scale, sampling_config, training_config
from benchmarks.gpu.ceilings import ceilings
from benchmarks.gpu.inputs import example_of, packed_layout, packed_row, prompt_layout, waves_like
from benchmarks.gpu.programs import Compiled, Compiler, median_seconds
from benchmarks.gpu.rl_step import rl_step
from benchmarks.gpu.table import Row, Work
from benchmarks.gpu.weights import fresh_weights
from onethinker_jax.data_pipeline.batches.packing import stack_prompts
from onethinker_jax.model.generation.generate import Slots
from onethinker_jax.model.sharding import DECODE_RULES, make_mesh, shard_rows
from onethinker_jax.train.advantages import init_moments
from onethinker_jax.train.config.run import TrainConfig
from onethinker_jax.train.optimizer import make_optimizer
from onethinker_jax.train.policy import planned_sizes
from onethinker_jax.train.state import TrainState, init_state

GRADIENTS, UPDATE, PREFILL, DECODING = "SFT gradients", "SFT update", "RL prefill", "RL decoding"


@dataclass
class Training:
    """A model that is trained."""

    model: str
    state: TrainState


@dataclass
class Sampling:
    """A model that is sampled from."""

    model: str
    weights: nnx.State


class Ours:
    """The device between two cases: it holds the weights of one model."""

    def __init__(self, scale: Scale, cases: Sequence[Case]) -> None:
        self._scale, self._cases = scale, cases
        self._mesh = make_mesh()
        self._compiler = Compiler(self._mesh)
        self._compiled: dict[Case, dict[str, Future[Compiled]]] = {}
        self._held: Training | Sampling | None = None
        self.kind = jax.devices()[0].device_kind
        self.description = f"{self.kind}, JAX {jax.__version__}"

    def clear(self) -> None:
        """Lets go of what the device holds."""
        self._held = None
        gc.collect()

    def measure(self, case: Case) -> Iterator[Row]:
        """The rows of a case."""
        parts: dict[Part, Callable[[Case], Iterator[Row]]] = {
            "training": self._training,
            "prefill": self._prefill,
            "decode": self._decode,
            "RL step": self._rl_step,
        }
        if case.part == "ceilings":
            yield from ceilings(self._scale)
        elif case.part == "attention":
            yield from attention_rows(case, self._scale)
        else:
            with jax.set_mesh(self._mesh):
                yield from parts[case.part](case)

    def _programs(self, case: Case) -> dict[str, Compiled]:
        """The case's programs. Those of its neighbours are compiled with them, since each alone leaves cores idle.

        Nothing is measured meanwhile: XLA's compiler tries kernels on the GPU.
        """
        if case not in self._compiled:
            alike = [one for one in self._cases if (one.part, one.model) == (case.part, case.model)]
            for one in alike[alike.index(case) :]:
                self._compiled[one] = self._begin(one)
            wait([future for one in alike for future in self._compiled.get(one, {}).values()])
        return {name: future.result() for name, future in self._compiled.pop(case).items()}

    def _begin(self, case: Case) -> dict[str, Future[Compiled]]:
        if case.part == "training":
            config, layout = training_config(case, self._scale), packed_layout(case.tokens, self._scale)
            names = [GRADIENTS, UPDATE]
        else:
            config, layout = sampling_config(case, self._scale), prompt_layout(case.tokens, self._scale)
            names = [PREFILL if case.part == "prefill" else DECODING]
        return self._compiler.begin(config, planned_sizes(config.model), names, layout)

    def _training(self, case: Case) -> Iterator[Row]:
        """A micro-batch's gradients and the optimiser's update."""
        config, scale = training_config(case, self._scale), self._scale
        programs = self._programs(case)
        gradients_of, update = programs[GRADIENTS], programs[UPDATE]
        held = self._trained(config, case.model)
        batch = shard_rows(packed_row(planned_sizes(config.model), case.tokens, scale), self._mesh)
        made: dict[str, Any] = {}  # of the newest micro-batch

        def micro_batch() -> jax.Array:
            made.clear()  # memory holds one set of gradients
            # An update has one micro-batch, whose gradients need no sum.
            made["gradients"], made["sums"] = gradients_of.executable(
                held.state.params, None, None, batch, None
            )
            return made["sums"]["loss"]

        def step() -> jax.Array:
            sums = made["sums"]
            held.state, norm = update.executable(held.state, made["gradients"], sums["tokens"], sums["loss"])
            return norm

        loss = micro_batch()
        first = float(loss / made["sums"]["tokens"])  # of the weights as they were made
        seconds = median_seconds(micro_batch, scale.repeats), median_seconds(step, scale.repeats)
        yield Row(
            case.part,
            case.size,
            seconds=sum(seconds),
            tokens=case.tokens,
            work=(gradients_of.work(), update.work()),
            memory=max(gradients_of.memory, update.memory),
            notes=f"update {seconds[1] * 1e3:.0f} ms of it; loss {first:.2f}; {_kept(config)}",
        )

    def _trained(self, config: TrainConfig, model: str) -> Training:
        if not isinstance(self._held, Training) or self._held.model != model:
            self.clear()
            _, params = fresh_weights(planned_sizes(config.model), config, self._mesh)
            optimizer = make_optimizer(config.sft.optimizer, config.sft.steps, train_vision=True)
            state = init_state(params, optimizer, init_moments(1), self._mesh, reference=False)
            self._held = Training(model, state)
        return self._held

    def _weights(self, config: TrainConfig, model: str) -> nnx.State:
        if not isinstance(self._held, Sampling) or self._held.model != model:
            self.clear()
            settings = replace(config.model, master_dtype=config.model.compute_dtype)
            made = replace(config, model=settings)
            _, weights = fresh_weights(planned_sizes(settings), made, self._mesh, rules=DECODE_RULES)
            self._held = Sampling(model, weights)
        return self._held.weights

    def _prefill(self, case: Case) -> Iterator[Row]:
        """One prompt with its images, to keys and values."""
        config, scale = sampling_config(case, self._scale), self._scale
        program = self._programs(case)[PREFILL]
        weights = self._weights(config, case.model)
        prompt = example_of(planned_sizes(config.model), case.tokens, scale)
        inputs, lengths = stack_prompts([prompt], tokens=case.tokens, patches=len(prompt.patches))
        following = np.array([prompt.next_position], np.int32)
        batch = shard_rows((inputs, lengths, following), self._mesh)
        seconds = median_seconds(lambda: program.executable(weights, batch), scale.repeats)
        yield Row(case.part, case.size, "ours", seconds, case.tokens, (program.work(),), program.memory)

    def _decode(self, case: Case) -> Iterator[Row]:
        """A decode step of all samples: the last decode block of samples of `scale.new_tokens`."""
        config, scale = sampling_config(case, self._scale), self._scale
        rollout, prompts = config.rl.rollout, config.rl.prompts_per_step
        program = self._programs(case)[DECODING]
        weights = self._weights(config, case.model)
        shapes = program.program.arguments["KV cache"]
        cache: Any = waves_like(shapes)
        numbers = {"length": case.tokens, "next_position": case.tokens}
        cache = replace(
            cache,
            **{
                name: jax.device_put(np.full(prompts, value, np.int32), getattr(shapes, name).sharding)
                for name, value in numbers.items()
            },
        )
        steps = scale.decode_block
        batch = decoded_slots(prompts, scale.group, rollout.max_new_tokens - steps), jax.random.key(0)

        def block() -> jax.Array:
            nonlocal cache
            cache, drawn = program.executable(weights, cache, batch)
            return drawn.steps

        seconds = median_seconds(block, scale.repeats)
        if (made := int(block())) != steps:
            raise RuntimeError(f"a decode block ended after {made} of {steps} steps")
        work = program.work()
        one = Work(work.computed / steps, work.needed / steps, work.moved / steps)
        notes = f"{prompts} prompts x {scale.group} samples at their last of {rollout.max_new_tokens} tokens"
        yield Row(
            *(case.part, case.size, "ours", seconds / steps, case.samples, (one,), program.memory, notes)
        )

    def _rl_step(self, case: Case) -> Iterator[Row]:
        self.clear()
        yield rl_step(case, self._scale, self._mesh, self._compiler)


def decoded_slots(prompts: int, group: int, length: int) -> Slots:
    """Live samples of `length` tokens each."""
    slots = (prompts, group)
    return Slots(
        prompt=jnp.arange(prompts, dtype=jnp.int32),
        sample=jnp.broadcast_to(jnp.arange(group, dtype=jnp.int32), slots),
        token=jnp.zeros(slots, jnp.int32),
        length=jnp.full(slots, length, jnp.int32),
        live=jnp.ones(slots, bool),
    )


def _kept(config: TrainConfig) -> str:
    model = config.model
    return f"weights {model.master_dtype}, computes in {model.compute_dtype}, remat {model.remat}"
