"""Programs as `plan` makes them, compiled several at a time, and what the plan counts of each."""

import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import jax
from jax.sharding import Mesh

from benchmarks.gpu.table import Work
from onethinker_jax.model.config import Qwen3VLConfig
from onethinker_jax.train.config.run import TrainConfig
from onethinker_jax.train.cost.attention_layout import AttentionLayout
from onethinker_jax.train.plans.compiling import compile_program
from onethinker_jax.train.plans.planned_program import Program
from onethinker_jax.train.plans.programs import plan_programs
from onethinker_jax.train.plans.report import Report

COMPILERS = 8  # programs compiled at once


@dataclass(frozen=True)
class Compiled:
    """A program, its executable, and the plan's report of it."""

    program: Program
    executable: Any
    report: Report

    def work(self, runs: float = 1.0) -> Work:
        """What `runs` runs cost."""
        moved = self.report.traffic.hbm if self.report.traffic else 0.0
        return Work(self.report.flops, self.report.model_flops, moved, runs)

    @property
    def memory(self) -> float:
        """Bytes that it needs, with its arguments and what lies beside it."""
        return self.report.memory.total if self.report.memory else 0.0


class Compiler:
    """Compiles programs for a mesh, several at a time."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh, self._pool = mesh, ThreadPoolExecutor(COMPILERS, thread_name_prefix="compiling")

    def begin(
        self,
        config: TrainConfig,
        sizes: Qwen3VLConfig,
        names: Sequence[str] | None = None,
        layout: AttentionLayout | None = None,
    ) -> dict[str, Future[Compiled]]:
        """Begins to compile the plan's programs of these names, or all of them.

        With `layout`, the rows of those that have rows lie so, and not as the plan takes full rows to lie.
        """
        unrepeated = replace(config, model=replace(config.model, remat="none"))
        with jax.set_mesh(self._mesh):
            pairs = zip(
                plan_programs(config, sizes, self._mesh),
                plan_programs(unrepeated, sizes, self._mesh),
                strict=True,
            )
            chosen = [(one, plain) for one, plain in pairs if names is None or one.name in names]
        if layout is not None:
            chosen = [
                (one if one.layout is None else replace(one, layout=layout), plain) for one, plain in chosen
            ]
        return {one.name: self._pool.submit(self._compile, one, plain) for one, plain in chosen}

    def _compile(self, program: Program, plain: Program) -> Compiled:
        with jax.set_mesh(self._mesh):  # which is a thread's own
            report, executable = compile_program(program, plain, self._mesh)
        if executable is None:
            raise RuntimeError(f"out of memory: {program.name} {report.refusal}")
        return Compiled(program, executable, report)


def median_seconds(call: Callable[[], Any], repeats: int) -> float:
    """The median of some calls, waiting for the device each time, after one that does not count."""
    seconds = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        jax.block_until_ready(call())
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:])
