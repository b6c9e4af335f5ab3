"""Sizes come from the records: measured once, no larger than they need, in slots that the devices divide."""

import logging
from pathlib import Path

import pytest

from onethinker_jax.data_pipeline.processor.processor import Processor
from onethinker_jax.data_pipeline.records.record import read_records
from onethinker_jax.evaluate.answers.sizes import fitted, lengths_of
from onethinker_jax.sampler_settings import SamplerSettings, padded
from tests.data_pipeline.making import rl_row, write_image, write_rows, write_tokenizer


@pytest.fixture
def file(tmp_path: Path) -> Path:
    rows = []
    for number in range(3):
        write_image(tmp_path / f"{number}.png", 32, 32 + 64 * number, seed=number)
        rows.append(rl_row(problem_id=number, images=[f"{number}.png"]))
    return write_rows(tmp_path / "eval.json", rows)


@pytest.fixture
def processor(tmp_path: Path) -> Processor:
    return Processor.from_pretrained(
        write_tokenizer(tmp_path / "tokenizer", image_pixels=(1024, 16_384)), grid_side=8
    )


def test_records_are_measured_once(
    file: Path, processor: Processor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until their media change; what cannot be measured has an error, and the others their lengths."""
    out, records = tmp_path / "out", read_records(file)
    first = lengths_of(records, processor, out)
    prompts = [processor.prompt(record) for record in records]
    assert first.lengths.tolist() == [[len(one.tokens), len(one.patches)] for one in prompts]
    asked = []
    lengths = Processor.lengths
    monkeypatch.setattr(
        Processor,
        "lengths",
        lambda self, record, **named: asked.append(record) or lengths(self, record, **named),
    )
    assert (lengths_of(records, processor, out).lengths == first.lengths).all() and not asked
    write_image(tmp_path / "1.png", 64, 128, seed=1)
    (tmp_path / "2.png").write_bytes(b"no picture")
    changed = lengths_of(records, processor, out)
    assert len(asked) == 3 and list(changed.errors) == [2] and "2.png" in changed.errors[2]
    assert changed.lengths[1, 1] > first.lengths[1, 1] and changed.lengths[0, 1] == first.lengths[0, 1]
    assert len(list(out.glob("lengths-*.npy"))) == 1


def test_settings_are_fitted(
    file: Path, processor: Processor, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    measured = lengths_of(read_records(file), processor, tmp_path / "out")
    tokens, patches = (int(most) for most in measured.lengths.max(0))
    caplog.set_level(logging.INFO, "onethinker_jax")
    caplog.clear()
    fit = fitted(SamplerSettings(prompt_buckets=3), measured, shards=1)
    assert (fit.prompt_slots, fit.prompt_tokens, fit.prompt_patches) == (3, padded(tokens), padded(patches))
    assert fitted(SamplerSettings(), measured, shards=8).prompt_slots == 8
    assert fitted(SamplerSettings(prompt_slots=2), measured, shards=2).prompt_slots == 2
    assert not caplog.messages
    few = int(measured.lengths[:2, 1].max())
    small = fitted(SamplerSettings(prompt_patches=few), measured, shards=1)
    assert (small.prompt_slots, small.prompt_patches) == (2, few)
    assert caplog.messages == [
        f"1 records have larger prompts than allowed; all fit with --prompt-patches {-(-patches // 16) * 16}"
    ]
