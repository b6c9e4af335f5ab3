"""What is known of a compiled program: its memory, and the least time of a run by what limits it."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from onethinker_jax.train.cost.hardware import Chip
from onethinker_jax.train.cost.program_cost import Traffic
from onethinker_jax.train.plans.planned_program import Program


@dataclass(frozen=True)
class Memory:
    """Bytes of one device: arguments by kind, what the program adds, what else lies there meanwhile."""

    arguments: dict[str, float]
    outputs: float  # beyond those that take an argument's place
    aliased: float
    temporaries: float
    resident: dict[str, float]

    @property
    def total(self) -> float:
        """Bytes that the program and what stays beside it need; aliased outputs lie in arguments."""
        kinds = (self.arguments, self.resident)
        return sum(sum(kind.values()) for kind in kinds) + self.outputs + self.temporaries


@dataclass(frozen=True)
class Compiled:
    """What a trace and its compilation say of a program; of all devices the FLOPs, of one the bytes.

    `refusal` is the compiler's, when the program needs too much memory; then there are no sizes and no traffic.
    """

    seconds: float  # to trace and to compile
    flops: Counter[str]  # by kind, as `count_flops` counts them
    model_flops: Counter[str]  # the same without recomputation
    outputs: float = 0.0
    aliased: float = 0.0
    temporaries: float = 0.0
    traffic: Traffic | None = None
    refusal: str = ""

    def to_json(self) -> dict[str, Any]:
        """As JSON, for a file of results."""
        traffic = self.traffic
        if traffic is not None:  # `asdict` would count the items of a `Counter` anew
            traffic = {**vars(traffic), "calls": dict(traffic.calls), "wire": dict(traffic.wire)}
        flops = {"flops": dict(self.flops), "model_flops": dict(self.model_flops)}
        return {**vars(self), **flops, "traffic": traffic}

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> "Compiled":
        """What `to_json` gave."""
        traffic = saved["traffic"]
        if traffic is not None:
            kinds = {name: Counter(traffic[name]) for name in ("calls", "wire")}
            traffic = Traffic(**{**traffic, **kinds})
        flops = {name: Counter(saved[name]) for name in ("flops", "model_flops")}
        return cls(**{**saved, **flops, "traffic": traffic})


@dataclass(frozen=True)
class Report:
    """What is known of one compiled program; `refusal` is the compiler's, when it needs too much memory."""

    program: Program
    seconds_to_compile: float
    flops: float  # of one device and run
    model_flops: float  # the same without recomputation
    memory: Memory | None = None
    traffic: Traffic | None = None
    refusal: str = ""
    expected_flops: float = 0.0  # of a run at the given lengths
    expected_model_flops: float = 0.0

    def seconds(self, chip: Chip) -> dict[str, float]:
        """Least time of one run by what limits it."""
        assert self.traffic is not None
        seconds = {
            "compute": self.flops / chip.flops,
            "HBM": self.traffic.hbm / chip.hbm_bandwidth,
            chip.link: sum(self.traffic.wire.values()) / chip.link_bandwidth,
        }
        if self.traffic.network:
            seconds["network"] = self.traffic.network / chip.network
        return seconds

    def fits(self, chip: Chip) -> bool:
        """Whether the compiler took the program and its total is within the chip's usable HBM."""
        return self.memory is not None and self.memory.total <= (1 - chip.margin) * chip.hbm
