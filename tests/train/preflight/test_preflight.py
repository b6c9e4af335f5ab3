"""What can be said before step 0 is said then: settings against files, every record against the settings, a dry run."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flax import nnx
from rich.console import Console

from onethinker_jax.data_pipeline.batches.bin_packing import PackingError
from onethinker_jax.data_pipeline.processor.processor import Processor
from onethinker_jax.data_pipeline.records.record import RecordError
from onethinker_jax.data_pipeline.records.record_table import table_of
from onethinker_jax.data_pipeline.shapes.world import build_shapes_world
from onethinker_jax.data_pipeline.worlds.world import WorldPaths
from onethinker_jax.lora_settings import LoRASettings
from onethinker_jax.model.family import family_member, family_name
from onethinker_jax.model.hf_weights import save_hf
from onethinker_jax.model.qwen3_vl import Qwen3VL
from onethinker_jax.train.__main__ import main, parse
from onethinker_jax.train.config.checks import SettingError
from onethinker_jax.train.config.presets import PRESETS, shapes, smoke
from onethinker_jax.train.config.run import TrainConfig
from onethinker_jax.train.dry_run import stage_rows
from onethinker_jax.train.hosts import Hosts
from onethinker_jax.train.log.compilation_watch import count_compilations
from onethinker_jax.train.log.log import RunLog
from onethinker_jax.train.preflight.preflight import check_before, check_fresh_settings
from onethinker_jax.train.preflight.prepare import Corpora, prepare_data
from onethinker_jax.train.preflight.record_limits import check_lengths, limits_of
from onethinker_jax.train.run import Ready
from tests.data_pipeline.making import rl_row, sft_row, write_image, write_rows, write_tokenizer
from tests.model import tiny
from tests.train import making


def said(capsys: pytest.CaptureFixture[str], *arguments: object, status: int = 1) -> str:
    """The one line of the command."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == status
    (line,) = capsys.readouterr().err.splitlines()
    return line.removeprefix("error: ")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A tiny model as a Hugging Face directory."""
    directory = write_tokenizer(tmp_path / "tokenizer", image_pixels=(1024, 4096))
    config = making.config_for(Processor.from_pretrained(directory))
    save_hf(Qwen3VL(config, rngs=nnx.Rngs(0)), tmp_path / "base", copy_from=directory)
    return tmp_path / "base"


@pytest.fixture
def files(tmp_path: Path) -> list[object]:
    """Flags of three small corpora."""
    write_image(tmp_path / "a.png")
    write_rows(tmp_path / "sft.json", [sft_row(problem_id=i) for i in range(4)])
    write_rows(tmp_path / "rl.json", [rl_row(problem_id=i) for i in range(4)])
    names = {"sft": "sft.json", "rl": "rl.json", "heldout": "rl.json"}
    return [part for name, file in names.items() for part in (f"--data.{name}-file", tmp_path / file)]


# ---------------------------------------------------------------- settings and files


def test_a_models_name_says_how_to_fetch_it(files, tmp_path, capsys) -> None:
    """Before anything is made: no folder of the run, no Shapes world."""
    name = "Qwen/Qwen3-VL-2B-Instruct"
    for named in ([], files):
        line = said(capsys, *named, "--model.init-from", name, "--out", tmp_path / "runs")
        assert line.startswith(f"{name}: no such directory")
        assert f"`hf download {name} --local-dir Qwen3-VL-2B-Instruct`" in line
    line = said(capsys, "--model.init-from", tmp_path / "gone", "--out", tmp_path / "runs")
    assert line.startswith(f"{tmp_path / 'gone'}: no such directory") and "hf download" in line
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "flag",
    ["data.rl-file", "data.prompt-file", "data.media-root", "sidecar.text-model", "sidecar.token-file"],
)
def test_a_file_that_is_not_there_is_named_with_its_flag(flag, files, tmp_path, capsys) -> None:
    line = said(capsys, "smoke", *files, f"--{flag}", tmp_path / "gone", "--out", tmp_path / "runs")
    assert line.startswith(f"{flag.replace('-', '_')} {tmp_path / 'gone'}: no such f")
    assert not (tmp_path / "runs").exists()


def test_a_folder_that_is_no_model_is_not_written_over(tmp_path, capsys) -> None:
    (tmp_path / "runs" / "smoke" / "model").mkdir(parents=True)
    line = said(capsys, "smoke", "--out", tmp_path / "runs")
    assert line.startswith(f"{tmp_path / 'runs' / 'smoke' / 'model'}: exists and is no model directory")
    assert [path.name for path in (tmp_path / "runs" / "smoke").iterdir()] == ["model"]


def test_weights_that_do_not_fit_are_found_by_their_headers(base, files, tmp_path, capsys) -> None:
    config = json.loads((base / "config.json").read_text())
    config["text_config"]["num_hidden_layers"] = 3
    (base / "config.json").write_text(json.dumps(config))
    line = said(
        capsys, "smoke", *files, "--model.init-from", base, "--model.tiny", "--out", tmp_path / "runs"
    )
    assert line.startswith(f"{base}: ") and "missing tensor(s)" in line
    assert not (tmp_path / "runs").exists()


def test_adapters_that_the_base_cannot_have_are_named(base, files, tmp_path, capsys) -> None:
    named = ("smoke", *files, "--sft.no-train-vision", "--model.lora.rank", "2", "--out", tmp_path / "runs")
    assert "model.lora.rank 2: name the base" in said(capsys, *named)
    config = tiny.CONFIGS[tiny.MOE]
    shutil.rmtree(base)
    save_hf(Qwen3VL(config, rngs=nnx.Rngs(0)), base, copy_from=tmp_path / "tokenizer")
    line = said(capsys, *named, "--model.init-from", base, "--model.tiny")
    assert line.startswith("model.lora.targets gate_proj up_proj down_proj: this model's layers have experts")
    assert not (tmp_path / "runs").exists()


def test_only_the_files_of_stages_that_run_are_needed(files, base) -> None:
    flags = [str(part) for part in files]
    without_sft, without_rl = flags[2:], flags[:2] + flags[4:]
    assert parse(["qwen3_vl_2b_rl", *without_sft, "--model.init-from", str(base)]).data.sft_file is None
    assert parse(["qwen3_vl_2b_sft", *without_rl, "--model.init-from", str(base)]).data.rl_file is None
    for preset, given in (
        ("qwen3_vl_2b_sft", without_sft),
        ("qwen3_vl_2b_rl", without_rl),
        ("smoke", flags[:4]),
    ):
        with pytest.raises(Exception, match=r"data\.\w+_file: not named; name"):
            parse([preset, *given, "--model.init-from", str(base)])


# ---------------------------------------------------------------- settings of a fresh tiny model


def test_settings_of_a_fresh_tiny_model_are_refused(base, files, tmp_path, capsys) -> None:
    line = said(capsys, *files, "--model.init-from", base, "--out", tmp_path / "runs")
    assert line.startswith(f"model.init_from {base} with settings made for a fresh tiny model")
    assert "sft.optimizer.learning_rate 0.008 (muon)" in line and "rl.optimizer.learning_rate 0.0003" in line
    assert "data.image_max_pixels 16384" in line
    assert "take the preset qwen3_vl_2b_sft, then qwen3_vl_2b_rl" in line
    assert not (tmp_path / "runs").exists()


OWN = replace(shapes().data, image_max_pixels=200_000, video_max_pixels=50_000)


def started(**changes: Any) -> TrainConfig:
    return replace(replace(shapes(), model=replace(shapes().model, init_from=Path("model"))), **changes)


@pytest.mark.parametrize(("size", "preset"), [("8b", "qwen3_vl_8b_sft"), ("30b-a3b", "qwen3_vl_30b_a3b_sft")])
def test_the_preset_is_the_models_own(size: str, preset: str) -> None:
    sizes = family_member(size)
    assert family_name(sizes) == size and preset in PRESETS
    with pytest.raises(SettingError, match=f"take the preset {preset}, then {preset[:-4]}_rl,"):
        check_fresh_settings(started(), sizes)


def test_what_is_refused_and_what_is_meant() -> None:
    sizes, config = family_member("2b"), started(data=OWN)
    gentle = replace(config.sft.optimizer, learning_rate=1e-5)
    sft, rl = replace(config.sft, optimizer=gentle), replace(config.rl, optimizer=gentle)
    check_fresh_settings(replace(config, sft=sft, rl=rl), sizes)
    with pytest.raises(SettingError, match=r"\(sft\.optimizer\.learning_rate 0\.008 \(muon\)\)"):
        check_fresh_settings(replace(config, rl=rl), sizes)
    check_fresh_settings(replace(config, rl=rl, sft=replace(config.sft, steps=0)), sizes)  # is not trained
    with pytest.raises(SettingError, match=r"\(rl\.optimizer\.learning_rate 0\.0003 \(adamw\)\)"):
        check_fresh_settings(replace(config, sft=sft), sizes)
    with pytest.raises(SettingError, match=r"\(data\.image_max_pixels 16384, data\.video_max_pixels 6144\)"):
        check_fresh_settings(replace(config, sft=sft, rl=rl, data=shapes().data), sizes)
    check_fresh_settings(started(model=replace(shapes().model, init_from=Path("model"), tiny=True)), sizes)
    check_fresh_settings(shapes(), sizes)  # nothing to start from
    adapted, seen = replace(config.model, lora=LoRASettings(rank=8)), replace(sft, train_vision=False)
    check_fresh_settings(replace(config, sft=seen, model=adapted), sizes)  # adapters take ten times the rate
    for preset in PRESETS.values():
        if "qwen3" in preset.__name__:
            check_fresh_settings(
                replace(preset(), model=replace(shapes().model, init_from=Path("model"))), sizes
            )


# ---------------------------------------------------------------- every record


@pytest.fixture
def corpora(tmp_path: Path) -> Iterator[Callable[..., tuple[TrainConfig, Corpora, Processor, RunLog]]]:
    write_image(tmp_path / "a.png")
    write_tokenizer(tmp_path / "base", image_pixels=(1024, 4096))

    def make(
        sft: list[dict], rl: list[dict], **changes: Any
    ) -> tuple[TrainConfig, Corpora, Processor, RunLog]:
        data = replace(
            shapes().data,
            sft_file=write_rows(tmp_path / "sft.json", sft),
            rl_file=write_rows(tmp_path / "rl.json", rl),
            heldout_file=write_rows(tmp_path / "eval.json", [rl_row(problem_id=1)]),
            **changes,
        )
        config = replace(smoke(), out=tmp_path / "runs", data=data)
        log = opened.enter_context(RunLog(config.directory, console=Console(quiet=True), beats=False))
        return config, prepare_data(config, Hosts(), log), Processor.from_pretrained(tmp_path / "base"), log

    with ExitStack() as opened:
        yield make


def long(count: int) -> str:
    return "word " * count


def test_the_first_record_that_is_too_long_and_what_would_do_for_all(corpora, tmp_path: Path) -> None:
    sft = [sft_row(problem_id=i, answer=long(n)) for i, n in enumerate((3, 600, 700, 3))]
    config, found, processor, log = corpora(sft, [rl_row(problem_id=1)])
    with log, pytest.raises(PackingError) as caught:
        check_lengths(config, found, processor, Hosts(), log)
    line = str(caught.value)
    needed = [len(processor.training(record).tokens) for record in found.sft]
    assert line.startswith(
        f"{tmp_path / 'sft.json'}: record 2 (problem_id 1): {needed[1]} tokens, more than "
    )
    flag = re.search(r"2 of 4 sft records are too long; --sft\.batch\.tokens (\d+) would do for all", line)
    assert flag is not None and 0 <= int(flag[1]) - max(needed) < 16
    assert "--data.on-bad-record skip leaves them out" in line
    with log:
        batch = replace(config.sft.batch, tokens=int(flag[1]))
        check_lengths(replace(config, sft=replace(config.sft, batch=batch)), found, processor, Hosts(), log)


def test_what_is_skipped_is_left_out_counted_and_named(corpora, tmp_path: Path, capsys) -> None:
    sft = [sft_row(problem_id=i, answer=long(n)) for i, n in enumerate((3, 600, 700, 3))]
    rl = [rl_row(problem_id=i, problem=f"<image>{long(n)}") for i, n in enumerate((300, 3, 3))]
    config, found, processor, _ = corpora(sft, rl, on_bad_record="skip")
    with RunLog(config.directory, beats=False) as log:
        kept, lengths = check_lengths(config, found, processor, Hosts(), log)
    assert [record.problem_id for record in kept.sft] == [0, 3]
    assert [record.problem_id for record in kept.rl] == [1, 2]
    assert kept.heldout is found.heldout and {len(of) for of in lengths.values()} == {1, 2}
    out = capsys.readouterr().out
    assert "2 sft records left out" in out and re.search(r"--sft\.batch\.tokens \d+ would do for all", out)
    folder = config.directory / "quarantine"
    rows = [json.loads(line) for line in (folder / "sft_lengths.jsonl").read_text().splitlines()]
    assert [row["problem_id"] for row in rows] == [1, 2]
    assert all(f"{tmp_path / 'sft.json'}: record " in row["reason"] for row in rows)
    (row,) = [json.loads(line) for line in (folder / "rl_lengths.jsonl").read_text().splitlines()]
    assert "more than --rl.rollout.prompt-tokens 256" in row["reason"]
    with RunLog(config.directory, console=Console(quiet=True), beats=False) as log:  # a resumed run
        again, _ = check_lengths(config, found, processor, Hosts(), log)
    checksums = [table_of(part.sft).checksum for part in (again, kept, found)]
    assert checksums[0] == checksums[1] != checksums[2]
    assert len((folder / "sft_lengths.jsonl").read_text().splitlines()) == 2


def test_every_limit_has_its_flag(corpora) -> None:
    config, found, processor, log = corpora([sft_row(problem_id=1)], [rl_row(problem_id=2)])
    rollout, sampler = config.rl.rollout, config.evaluation.sampler
    tight = {
        "--sft.batch.tokens": replace(
            config, sft=replace(config.sft, batch=replace(config.sft.batch, tokens=8))
        ),
        "--sft.batch.patches": replace(
            config, sft=replace(config.sft, batch=replace(config.sft.batch, patches=4))
        ),
        "--rl.rollout.prompt-tokens": replace(
            config, rl=replace(config.rl, rollout=replace(rollout, prompt_tokens=8))
        ),
        "--rl.rollout.prompt-patches": replace(
            config, rl=replace(config.rl, rollout=replace(rollout, prompt_patches=4))
        ),
        "--rl.batch.tokens": replace(
            config, rl=replace(config.rl, batch=replace(config.rl.batch, tokens=40))
        ),
        "--rl.batch.patches": replace(
            config, rl=replace(config.rl, batch=replace(config.rl.batch, patches=4))
        ),
        "--evaluation.sampler.prompt-tokens": replace(
            config,
            evaluation=replace(config.evaluation, sampler=replace(sampler, prompt_tokens=8)),
        ),
        "--evaluation.sampler.prompt-patches": replace(
            config,
            evaluation=replace(config.evaluation, sampler=replace(sampler, prompt_patches=4)),
        ),
    }
    assert set(tight) == {limit.flag for limits in limits_of(config).values() for limit in limits}
    with log:
        for flag, settings in tight.items():
            with pytest.raises(PackingError, match=rf"more than {flag} \d+; .*{flag} \d+ would do for all"):
                check_lengths(settings, found, processor, Hosts(), log)
        check_lengths(
            replace(config, data=replace(config.data, check_lengths="none")), found, processor, Hosts(), log
        )


def test_records_of_stages_without_steps_are_not_measured(corpora) -> None:
    config, found, processor, log = corpora(
        [sft_row(answer=long(900))], [rl_row(problem=f"<image>{long(900)}")]
    )
    idle = replace(config, sft=replace(config.sft, steps=0), rl=replace(config.rl, steps=0))
    with log:
        assert set(check_lengths(idle, found, processor, Hosts(), log)[1]) == {"heldout"}


def test_media_that_cannot_be_read_are_found_too(corpora, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    config, found, processor, log = corpora([sft_row()], [rl_row(problem_id=5, images=["broken.png"])])
    with (
        log,
        pytest.raises(
            RecordError, match=r"rl\.json: record 1 \(problem_id 5\): .*broken\.png: not a readable"
        ),
    ):
        check_lengths(config, found, processor, Hosts(), log)


def test_when_none_is_left(corpora) -> None:
    config, found, processor, log = corpora([sft_row(answer=long(900))], [rl_row()], on_bad_record="skip")
    with log, pytest.raises(PackingError, match="none of the sft records can be used"):
        check_lengths(config, found, processor, Hosts(), log)


# ---------------------------------------------------------------- a dry run


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> WorldPaths:
    return build_shapes_world(
        tmp_path_factory.mktemp("shapes") / "world", seed=3, train_rl=24, train_sft=60, heldout=24
    )


def test_a_dry_run_says_what_would_run_and_compiles_nothing(world, tmp_path, capsys) -> None:
    named = {"sft": world.sft_json, "rl": world.rl_json, "heldout": world.eval_json}
    flags = [part for name, file in named.items() for part in (f"--data.{name}-file", file)]
    flags = ["smoke", *flags, "--model.vocab-size", 512, "--out", tmp_path]
    with count_compilations() as compilations:
        assert main([str(part) for part in (*flags, "--dry-run")]) == 0
    assert compilations.names == []
    out = capsys.readouterr().out
    for text in (
        "What would run",
        "SFT",
        "4 prompts x 2 answers",
        "parameters",
        "KV cache",
        "nothing trained",
    ):
        assert text in out
    assert re.search(r"│ SFT +│ +6 │ +60 │", out) and re.search(r"│ RL +│ +4 │ +24 │", out)
    directory = tmp_path / "smoke"
    left = {path.name for path in directory.iterdir()}
    assert left == {"config.json", "records.json", "base", "lengths", "metrics.jsonl", "reward_server.log"}
    assert (directory / "metrics.jsonl").read_text() == ""
    settings = json.loads((directory / "config.json").read_text())
    assert "dry_run" not in settings


def test_a_dry_run_finds_what_a_run_would(world, tmp_path, capsys) -> None:
    named = {"sft": world.sft_json, "rl": world.rl_json, "heldout": world.eval_json}
    flags = [part for name, file in named.items() for part in (f"--data.{name}-file", file)]
    flags = ["smoke", *flags, "--model.vocab-size", 512, "--out", tmp_path, "--dry-run"]
    assert "--rl.rollout.prompt-tokens 40;" in said(capsys, *flags, "--rl.rollout.prompt-tokens", 40)
    assert "needs" in said(capsys, *flags, "--mesh.data", 64, "--sft.batch.rows", 64, "--rl.batch.rows", 64,
                           "--evaluation.sampler.prompt-slots", 64, "--rl.prompts-per-step", 64)  # fmt: skip


def test_what_a_stage_would_do(corpora) -> None:
    config, found, processor, log = corpora([sft_row(problem_id=i) for i in range(5)], [rl_row()] * 8)
    with log:
        found, lengths = check_lengths(config, found, processor, Hosts(), log)
    mesh: Any = None
    sft, rl, heldout = stage_rows(config, Ready(found, None, None, processor, mesh, lengths))
    tokens, patches = lengths["sft"].mean(axis=0)
    rows = config.sft.batch.rows
    most = min(rows * config.sft.batch.tokens / tokens, rows * config.sft.batch.patches / patches)
    assert sft[:4] == ["SFT", 6, 5, f"up to {most:,.0f}"] and sft[4] == pytest.approx(6 * most / 5)
    assert rl[:3] == ["RL", 4, 8] and rl[4] == 4 * config.rl.prompts_per_step / 8
    assert heldout[2] == 1 and heldout[4] == 5.0  # greedy of three models, sampled of two


def test_preflight_passes_a_good_base(base) -> None:
    check_before(replace(smoke(), model=replace(shapes().model, init_from=base, tiny=True)))
