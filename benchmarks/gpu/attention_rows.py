"""Rows of `benchmarks.attention`: the flash kernels, XLA's form and cuDNN, and how far they agree."""

from collections.abc import Iterator

from benchmarks.attention import measure
from benchmarks.gpu.cases import Case, Scale
from benchmarks.gpu.table import OURS, Row, Work

KERNELS = ("flash_gpu", "flash_tpu")  # what the model itself uses


def attention_rows(case: Case, scale: Scale) -> Iterator[Row]:
    """Two rows a form: forward; forward and backward. FLOPs are those of the pairs that see each other."""
    for one in measure(case.kind, case.tokens, scale.repeats + 2):
        what = zip(("forward", "with backward"), one.seconds, one.flops, one.errors, strict=True)
        for passes, seconds, flops, error in what:
            yield Row(
                *(case.part, f"{case.size}, {passes}", OURS if one.form in KERNELS else one.form),
                *(seconds, case.tokens, (Work(flops, flops),)),
                notes=f"error {error:.1e}",
            )
