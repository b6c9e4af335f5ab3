"""The trainer's three files are read for what they are for: a wrong one is a line before anything is compiled."""

from dataclasses import replace
from pathlib import Path

import pytest

from onethinker_jax.data_pipeline.photos.library import LibraryError
from onethinker_jax.data_pipeline.records import tfds_builder
from onethinker_jax.data_pipeline.records.record import RecordError
from onethinker_jax.train.config.checks import SettingError
from onethinker_jax.train.config.presets import shapes, smoke
from onethinker_jax.train.hosts import Hosts
from onethinker_jax.train.log.log import RunLog
from onethinker_jax.train.preflight.preflight import check_before
from onethinker_jax.train.run import prepare_data
from tests.data_pipeline.making import rl_row, sft_row, write_image, write_rows
from tests.data_pipeline.photos.drawn_library import draw_library


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({}, None),
        ({"sft_file": "rl.json"}, "rl.json: record 1 .problem_id 7.: messages: is missing, which SFT needs"),
        ({"rl_file": "sft.json"}, "sft.json: record 1: problem: is missing, which RL needs"),
        (
            {"heldout_file": "sft.json"},
            "sft.json: record 1: problem: is missing, which held-out records need",
        ),
        ({"rl_file": "masks.json"}, "masks.json: record 1 .*: answer: is missing, which .* points needs"),
    ],
)
def test_files_that_serve_another_purpose(
    tmp_path: Path, changed: dict[str, str], message: str | None
) -> None:
    write_image(tmp_path / "a.png", 4, 4)
    write_rows(tmp_path / "sft.json", [sft_row()])
    write_rows(tmp_path / "rl.json", [rl_row()])
    mask = {"segmentation_rle": {"size": [4, 4], "counts": [6, 10]}}
    row = rl_row(problem_type="segmentation", options=[], answer="", segmentation_output=mask)
    write_rows(tmp_path / "masks.json", [row])
    names = {"sft_file": "sft.json", "rl_file": "rl.json", "heldout_file": "rl.json"} | changed
    data = replace(shapes().data, **{name: tmp_path / file for name, file in names.items()})  # type: ignore[arg-type]
    config = replace(shapes(), out=tmp_path / "runs", data=data)
    with RunLog(tmp_path / "log") as log:
        if message is None:
            assert len(prepare_data(config, Hosts(), log).sft) == 1
            without = replace(
                config, sft=replace(config.sft, steps=0), data=replace(data, sft_file=data.rl_file)
            )
            assert len(prepare_data(without, Hosts(), log).sft) == 1
            return
        with pytest.raises(RecordError, match=message):
            prepare_data(config, Hosts(), log)


@pytest.mark.parametrize("form", ["list", "lines", "stored"])
@pytest.mark.parametrize("purpose", ["rl_file", "heldout_file"])
def test_an_sft_row_among_others_is_named(tmp_path: Path, form: str, purpose: str) -> None:
    """Whatever the corpus lies in, and however large: the third row is, before anything is trained."""
    write_image(tmp_path / "a.png", 4, 4)
    rows = [rl_row(problem_id=1), rl_row(problem_id=2), sft_row(problem_id="odd")]
    good = write_rows(tmp_path / "good.json", rows[:2])
    file = write_rows(tmp_path / "bad.json", rows, lines=form == "lines")
    if form == "stored":
        assert tfds_builder.main([str(file), "--out", str(tmp_path / "bad")]) == 0
        file = tmp_path / "bad"
    files = {"rl_file": good, "heldout_file": good} | {purpose: file}
    data = replace(shapes().data, **files)  # type: ignore[arg-type]
    config = replace(shapes(), out=tmp_path / "runs", data=replace(data, sft_file=good))
    config = replace(config, sft=replace(config.sft, steps=0))
    with (
        RunLog(tmp_path / "log") as log,
        pytest.raises(RecordError, match=r"bad.*: record 3 .*odd.*: problem: is"),
    ):
        prepare_data(config, Hosts(), log)


def test_the_photos_world_is_made_of_its_library(tmp_path: Path) -> None:
    draw_library(tmp_path / "library")
    data = replace(smoke().data, world="photos", world_library=tmp_path / "library")
    data = replace(data, world_sft=20, world_rl=20, world_heldout=20)
    config = replace(smoke(), out=tmp_path / "runs", data=data)
    check_before(config)
    with RunLog(tmp_path / "log") as log:
        corpora = prepare_data(config, Hosts(), log)
    assert [len(corpora.sft), len(corpora.rl), len(corpora.heldout)] == [20, 20, 20]
    assert {record.data_source for record in corpora.heldout} == {"photos_seen", "photos_unseen"}


def test_a_library_that_is_missing_or_of_no_use_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"data\.world photos needs data\.world_library"):
        replace(smoke().data, world="photos")
    with pytest.raises(SettingError, match=r"data\.world_library is for data\.world photos"):
        replace(smoke().data, world_library=tmp_path)
    data = replace(smoke().data, world="photos", world_library=tmp_path / "none")
    with pytest.raises(FileNotFoundError, match=r"data\.world_library .*none: no such folder"):
        check_before(replace(smoke(), data=data))
    config = replace(smoke(), out=tmp_path / "runs", data=replace(data, world_library=tmp_path))
    with RunLog(tmp_path / "log") as log, pytest.raises(LibraryError, match=r"has no library\.json"):
        prepare_data(config, Hosts(), log)
