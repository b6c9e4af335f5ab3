"""Rows of the table, as the children write them and as the parent prints them."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace

from onethinker_jax.train.cost.hardware import GIB, Chip

OURS = "ours"
CEILINGS = "ceilings"
TITLES = (
    *("part", "case", "form", "ms", "tokens/s", "TFLOP/s", "of ceiling", "MFU", "GB/s", "of ceiling"),
    *("plan, ms", "ceilings, ms", "GiB", "ours is x", "notes"),
)


@dataclass(frozen=True)
class Work:
    """What a program costs by the plan's count, and how often it ran."""

    computed: float  # FLOPs
    needed: float  # FLOPs without recomputation
    moved: float = 0.0  # bytes of the GPU's memory; 0: not known
    runs: float = 1.0

    def least(self, flops: float, bandwidth: float) -> float:
        """Seconds at these FLOP/s and bytes/s: the longer one of the two."""
        return self.runs * max(self.computed / flops, self.moved / bandwidth)


@dataclass(frozen=True)
class Row:
    """One line of the table; without `seconds` its notes say why nothing was measured."""

    part: str
    case: str
    form: str = OURS
    seconds: float = 0.0
    tokens: float = 0.0
    work: tuple[Work, ...] = ()
    memory: float = 0.0  # bytes, by XLA's count of the largest program
    notes: str = ""

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> "Row":
        """The row that `to_json` wrote."""
        values = json.loads(line)
        return cls(**{**values, "work": tuple(Work(**one) for one in values["work"])})


@dataclass(frozen=True)
class Ceilings:
    """What the device was measured to do, FLOP/s and bytes/s, and its data sheet where that is known."""

    flops: float = 0.0
    bandwidth: float = 0.0
    chip: Chip | None = None

    @property
    def known(self) -> bool:
        """Whether they were measured."""
        return bool(self.flops and self.bandwidth)

    def of(self, row: Row) -> "Ceilings":
        """These, or what a row of ceilings says; of two bandwidths the larger one."""
        if row.part != CEILINGS or not row.seconds:
            return self
        flops, moved = (sum(getattr(one, name) for one in row.work) for name in ("computed", "moved"))
        return replace(
            self,
            flops=max(self.flops, flops / row.seconds),
            bandwidth=max(self.bandwidth, moved / row.seconds),
        )


@dataclass
class Table:
    """All rows so far."""

    ceilings: Ceilings = field(default_factory=Ceilings)
    rows: list[Row] = field(default_factory=list)
    devices: dict[str, None] = field(default_factory=dict)  # what ran where, in order

    def add(self, row: Row) -> list[str]:
        """Adds a row; returns its cells, as far as they are known by now."""
        self.rows.append(row)
        self.ceilings = self.ceilings.of(row)
        return self.cells(row)

    def markdown(self) -> str:
        """The whole table."""
        lines = [TITLES, ["---"] * len(TITLES), *map(self.cells, self.rows)]
        return "".join("| " + " | ".join(cells) + " |\n" for cells in lines)

    def document(self) -> str:
        """What ran where, the whole table, and what MFU is measured by."""
        chip = self.ceilings.chip
        peak = (
            f"{chip.flops / 1e12:,.0f} TFLOP/s of the {chip.name}'s data sheet"
            if chip
            else "the measured ceiling"
        )
        return f"{'; '.join(self.devices)}. MFU: by {peak}.\n\n{self.markdown()}"

    def cells(self, row: Row) -> list[str]:
        """A row's cells; empty is what is not known, or does not apply."""
        if not row.seconds:
            return [row.part, row.case, row.form, *[""] * (len(TITLES) - 4), row.notes]
        ceilings, chip, seconds = self.ceilings, self.ceilings.chip, row.seconds
        computed, needed, moved = (
            sum(one.runs * getattr(one, name) for one in row.work) for name in ("computed", "needed", "moved")
        )
        peak = chip.flops if chip else ceilings.flops
        speed, bandwidth = computed / seconds, moved / seconds
        return [
            *(row.part, row.case, row.form, number(seconds * 1e3)),
            f"{row.tokens / seconds:,.0f}" if row.tokens else "",
            number(speed / 1e12) if computed else "",
            share(speed, ceilings.flops),
            share(needed / seconds, peak),
            number(bandwidth / 1e9) if moved else "",
            share(bandwidth, ceilings.bandwidth),
            least(row, chip.flops, chip.hbm_bandwidth) if chip else "",
            least(row, ceilings.flops, ceilings.bandwidth) if ceilings.known else "",
            f"{row.memory / GIB:.1f}" if row.memory else "",
            self._times(row),
            row.notes,
        ]

    def _times(self, row: Row) -> str:
        """How many times as fast as this row ours is, by the tokens of a second."""
        if row.form == OURS or not row.tokens:
            return ""
        ours = [one for one in self.rows if one.form == OURS and (one.part, one.case) == (row.part, row.case)]
        ours = [one for one in ours if one.seconds and one.tokens]
        return f"{ours[0].tokens / ours[0].seconds / (row.tokens / row.seconds):.2f}" if ours else ""


def number(value: float) -> str:
    """Three digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def share(value: float, whole: float) -> str:
    """A percentage; empty where one of the two is not known."""
    return f"{value / whole:.0%}" if value and whole else ""


def least(row: Row, flops: float, bandwidth: float) -> str:
    """Milliseconds that the row's work takes at least."""
    return number(1e3 * sum(one.least(flops, bandwidth) for one in row.work)) if row.work else ""


def one_line(cells: Sequence[str]) -> str:
    """A row for the console: what is known, by its title."""
    named = (f"{title} {cell}" for title, cell in zip(TITLES[3:-1], cells[3:-1], strict=True) if cell)
    return ", ".join(part for part in (*cells[:3], *named, cells[-1]) if part)
