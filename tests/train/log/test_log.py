"""The run log: what reaches the console, the metrics file and TensorBoard, over a resume and an interrupt."""

import io
import json
import logging
import struct
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from onethinker_jax.train.log.compilation_watch import count_compilations
from onethinker_jax.train.log.log import RunLog, read_metrics


def console(*, terminal: bool = False) -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    return Console(file=out, width=100, force_terminal=terminal, color_system=None), out


def steps(directory: Path, stage: str) -> list[int]:
    return [row["step"] for row in read_metrics(directory / "metrics.jsonl") if row["stage"] == stage]


def test_metrics_are_one_json_object_a_line(tmp_path: Path) -> None:
    with RunLog(tmp_path, console=console()[0]) as log:
        log.stage("sft", 2)
        log.metrics(1, {"loss": jnp.float32(1.5), "reward/OCR (image)": np.float64(0.25)})
        log.metrics(2, {"loss": 1})
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    first = json.loads(lines[0])
    assert first.pop("time") > 1.7e9
    assert first == {"stage": "sft", "step": 1, "loss": 1.5, "reward/OCR (image)": 0.25}
    assert len(lines) == 2


def test_resume_drops_what_lies_past_the_checkpoint(tmp_path: Path) -> None:
    with RunLog(tmp_path, console=console()[0]) as log:
        for stage, last in (("sft", 4), ("rl", 7)):
            log.stage(stage, last)
            for step in range(1, last + 1):
                log.metrics(step, {"loss": step})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "rl", "st')  # killed while writing
    with RunLog(tmp_path, console=console()[0]) as log:
        log.stage("rl", 7, start_step=5)
        log.metrics(6, {"loss": 60})
    assert steps(tmp_path, "sft") == [1, 2, 3, 4]
    assert steps(tmp_path, "rl") == [1, 2, 3, 4, 5, 6]
    assert read_metrics(tmp_path / "metrics.jsonl")[-1]["loss"] == 60
    with RunLog(tmp_path, console=console()[0]) as log:
        log.stage("rl", 7, start_step=6, recorded=5)  # the metrics of step 6 come again
    assert steps(tmp_path, "rl") == [1, 2, 3, 4, 5]
    with RunLog(tmp_path, console=console()[0]) as log:
        log.stage("rl", 7)
    assert steps(tmp_path, "rl") == []


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"stage": "a", "step": 1}\nnonsense\n{"stage": "a", "step": 2}\n')
    with pytest.raises(ValueError, match="line 2"):
        read_metrics(path)
    assert read_metrics(tmp_path / "none.jsonl") == []


def test_plain_lines_without_a_terminal(tmp_path: Path) -> None:
    screen, out = console()
    with RunLog(tmp_path, console=screen, interval=0.0) as log:
        log.stage("EMA-GRPO", 60, start_step=20)
        log.metrics(21, {"reward": 0.5, "loss": 0.01, "tokens_per_second": 1234.5})
        log.metrics(60, {"reward": 0.75})
        log.info("wrote [not markup] runs/a")
    text = out.getvalue()
    assert "EMA-GRPO: 60 steps from step 20" in text
    assert "21/60  reward 0.500  loss 0.010  tok/s 1,234  elapsed" in text
    assert "60/60  reward 0.750" in text
    assert "took" in text
    assert "wrote [not markup] runs/a" in text
    assert "\x1b" not in text


def test_lines_come_at_an_interval(tmp_path: Path) -> None:
    screen, out = console()
    with RunLog(tmp_path, console=screen, interval=3600) as log:
        log.stage("sft", 50)
        for step in range(1, 51):
            log.metrics(step, {"loss": 1.0})
    assert out.getvalue().count("loss") == 2  # the first and the last


def test_live_line_on_a_terminal(tmp_path: Path) -> None:
    screen, out = console(terminal=True)
    with RunLog(tmp_path, console=screen) as log:
        log.stage("sft", 10)
        log.phase("compiling")
        log.metrics(5, {"loss": 0.5})
        log.info("saved")
        log.metrics(10, {"loss": 0.25})
    text = out.getvalue()
    assert "compiling" in text
    assert "10/10" in text
    assert "\x1b[?25h" in text  # the cursor is back


def test_an_interrupt_leaves_everything_in_order(tmp_path: Path) -> None:
    screen, out = console(terminal=True)
    log = RunLog(tmp_path, console=screen)
    with pytest.raises(KeyboardInterrupt), log:
        log.stage("rl", 10)
        log.metrics(1, {"loss": 0.5})
        raise KeyboardInterrupt
    assert out.getvalue().rstrip().endswith("\x1b[?25h")
    assert steps(tmp_path, "rl") == [1]
    assert not logging.getLogger("onethinker_jax").handlers
    log.close()


def test_values_that_are_not_finite_are_null_and_named(tmp_path: Path) -> None:
    screen, out = console()
    with RunLog(tmp_path, console=screen) as log:
        log.stage("rl", 2)
        log.metrics(1, {"loss": float("nan"), "kl": jnp.inf, "reward": 0.5})
    row = read_metrics(tmp_path / "metrics.jsonl")[0]
    assert row["loss"] is None
    assert row["kl"] is None
    assert "not finite: loss, kl" in out.getvalue()


def test_messages_of_the_package_appear(tmp_path: Path) -> None:
    screen, out = console()
    with RunLog(tmp_path, console=screen):
        logging.getLogger("onethinker_jax.data_pipeline.records.record").warning("skipped %d [of] 7", 3)
    logging.getLogger("onethinker_jax.data_pipeline.records.record").warning("later")
    assert "warning: skipped 3 [of] 7" in out.getvalue()
    assert "later" not in out.getvalue()


def test_messages_of_the_package_appear_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Handlers of the root logger, which some libraries install, do not repeat them meanwhile."""
    module = logging.getLogger("onethinker_jax.data_pipeline.records.record")
    with RunLog(tmp_path, console=console()[0]):
        module.warning("within")
    module.warning("after")
    assert [record.message for record in caplog.records] == ["after"]


def test_table(tmp_path: Path) -> None:
    screen, out = console()
    with RunLog(tmp_path, console=screen) as log:
        log.table("Held-out [reward]", ["task", "fresh", "RL"], [["OCR (image)", 0.12345, None]])
    assert "Held-out [reward]" in out.getvalue()
    assert "0.123" in out.getvalue()
    assert "–" in out.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_no_cell_of_a_table_is_cut_off(tmp_path: Path, terminal: bool) -> None:
    out = io.StringIO()
    screen = Console(file=out, width=40, force_terminal=terminal, color_system=None)
    with RunLog(tmp_path, console=screen) as log:
        log.table(
            "Wide", ["stage", "examples of a step"], [["held-out answers", "4 prompts x 2 answers of each"]]
        )
    assert "…" not in out.getvalue()
    assert ("4 prompts x 2 answers of each" in out.getvalue()) is not terminal


def test_metrics_need_a_stage(tmp_path: Path) -> None:
    with RunLog(tmp_path, console=console()[0]) as log, pytest.raises(RuntimeError, match="stage"):
        log.metrics(1, {"loss": 1.0})


def test_event_files_are_tensorboards(tmp_path: Path) -> None:
    """Read back with another implementation of the format and of the checksum."""
    crc = pytest.importorskip("tensorboardX.crc32c")
    events = pytest.importorskip("tensorboardX.proto.event_pb2")
    with RunLog(tmp_path, console=console()[0]) as log:
        log.stage("rl", 300, start_step=128)
        log.metrics(200, {"loss": 0.5, "reward/tracking (video)": 0.75})

    def masked(data: bytes) -> int:
        value = crc._crc32c(data)
        return (((value >> 15) | (value << 17)) + 0xA282EAD8) & 0xFFFFFFFF

    (path,) = (tmp_path / "tensorboard" / "rl").glob("events.out.tfevents.*")
    data, read = path.read_bytes(), []
    while data:
        (size, checksum), body = struct.unpack("<QI", data[:12]), data[12:]
        assert checksum == masked(data[:8])
        assert struct.unpack("<I", body[size : size + 4])[0] == masked(body[:size])
        read.append(events.Event.FromString(body[:size]))
        data = body[size + 4 :]
    version, restart, point = read
    assert version.file_version == "brain.Event:2"
    assert (restart.step, restart.session_log.status) == (129, 1)
    assert point.step == 200
    assert {v.tag: v.simple_value for v in point.summary.value} == {
        "loss": 0.5,
        "reward/tracking (video)": 0.75,
    }


def test_compilations_after_warm_up_are_seen() -> None:
    @jax.jit
    def doubled(x: jax.Array) -> jax.Array:
        return 2 * x

    inputs = [jnp.arange(n) for n in (3, 4, 3)]
    with count_compilations() as compilations:
        doubled(inputs[0])
        warm = compilations.count
        doubled(inputs[2])
        assert compilations.since(warm) == []
        doubled(inputs[1])
        assert compilations.since(warm) == ["doubled"]
        assert compilations.seconds > 0
    doubled(jnp.arange(7))
    assert compilations.count == warm + 1
