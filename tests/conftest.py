"""Settings of every test: JAX on the CPU as eight virtual devices, compilations cached between runs."""

import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from onethinker_jax import command_line

CACHE = (
    Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "onethinker_jax" / "test-compilations"
)

# Before the first import of JAX. Eight virtual devices cost nothing where a test uses one; what LLVM's optimiser
# would gain on tiny models, compiling loses twice over. XLA's older emitters and one module a program compile in 40%
# of the time. Child processes that a test starts inherit all of it.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["TPU_SKIP_MDS_QUERY"] = "1"
os.environ["XLA_FLAGS"] = " ".join(
    [
        *os.environ.get("XLA_FLAGS", "").split(),
        "--xla_force_host_platform_device_count=8",
        "--xla_backend_optimization_level=0",
        "--xla_cpu_use_fusion_emitters=false",
        "--xla_cpu_parallel_codegen_split_count=1",
    ]
)
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# As commands do: hundreds of thousands of objects live as long as a worker.
gc.set_threshold(*command_line.GARBAGE_THRESHOLDS)

# What a shell's script runs in the background ignores Ctrl-C, and so would the processes that tests send one to.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


LONGEST_FIRST = ("experiments", "train", "evaluate", "examples", "benchmarks", "deploy", "serve")
"""Folders whose tests begin first, so that no worker ends with a long file when the others have nothing left."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`LONGEST_FIRST`, the rest as collected; `make test` hands files to workers in this order."""

    def number(item: pytest.Item) -> int:
        folder = item.path.relative_to(Path(__file__).parent).parts[0]
        return LONGEST_FIRST.index(folder) if folder in LONGEST_FIRST else len(LONGEST_FIRST)

    items.sort(key=number)


@pytest.fixture(autouse=True)
def _signals_as_before() -> Iterator[None]:
    """A command that ends by Ctrl-C lets the next one end its process at once: not that of the tests after it."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face directory of a fresh, very small model, which no test changes."""
    from tests.tiny_model import write_model

    return write_model(tmp_path_factory.mktemp("model"))
