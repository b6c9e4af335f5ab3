"""Bad input, each named in one line, with a non-zero exit and nothing half-written left behind."""

import json
from pathlib import Path

import pytest

from onethinker_jax.data_pipeline.shapes.world import build_shapes_world
from onethinker_jax.data_pipeline.worlds.world import WorldPaths
from onethinker_jax.rewards.client.server_process import start_server
from onethinker_jax.train.__main__ import main, parse
from onethinker_jax.train.config.presets import PRESETS, shapes
from tests.train import running


def error_of(
    capsys: pytest.CaptureFixture[str], *arguments: object, status: int, out: Path | None = None
) -> str:
    """The one line that the trainer says of what is wrong."""
    capsys.readouterr()
    where = () if out is None else ("--out", out)
    assert main([str(argument) for argument in (*arguments, *where)]) == status
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), lines
    return lines[0].removeprefix("error: ")


def leaves_nothing(directory: Path) -> None:
    """Neither a result nor a part of one."""
    for name in ("model", "index.html", "heldout", "checkpoints"):
        assert not list((directory / name).glob("**/*.*")), name
    assert not list(directory.rglob(".*"))


# ---------------------------------------------------------------- command line

WRONG_FLAGS = {
    "unknown preset": (["huge"], "unknown preset 'huge'; there are: shapes, smoke"),
    "unknown flag": (["smoke", "--sft.stepz", "3"], "unknown argument '--sft.stepz'"),
    "preset after a flag": (["--seed", "1", "smoke"], "unknown argument 'smoke'"),
    "no number": (["smoke", "--sft.steps", "many"], "--sft.steps: invalid literal for int()"),
    "no value": (["--rl.prompts-per-step"], "Missing value for argument '--rl.prompts-per-step'"),
    "no choice": (
        ["--rl.advantage.estimator", "ppo"],
        "invalid choice 'ppo' for argument '--rl.advantage.estimator'",
    ),
    "no bool": (["--sft.no-train-vision", "perhaps"], "unknown argument 'perhaps'"),
    "negative": (["--sft.optimizer.learning-rate", "-1"], "optimizer.learning_rate -1.0 must be positive"),
    "negative steps": (["--rl.steps", "-1"], "rl.steps -1 must not be negative"),
    "one sample": (
        ["--rl.rollout.group-size", "1"],
        "rl.rollout.group_size 1: a group needs at least 2 samples",
    ),
    "importance cap": (["--rl.loss.tis-cap", "0.5"], "rl.loss.tis_cap 0.5 must be at least 1"),
    "importance floor": (
        ["--rl.loss.tis-floor", "0.5", "--rl.loss.importance-sampling", "token_truncate"],
        "rl.loss.tis_floor 0.5 needs rl.loss.importance_sampling token_mask or sequence_mask, not token_truncate",
    ),
    "entropy": (
        ["--rl.loss.entropy-coefficient", "-1"],
        "rl.loss.entropy_coefficient -1.0 must not be negative",
    ),
    "overlong buffer": (
        ["--rl.loss.overlong", "penalty"],
        "rl.loss.overlong penalty needs rl.loss.overlong_buffer in 1 .. rl.rollout.max_new_tokens "
        f"{shapes().rl.rollout.max_new_tokens}, not 0",
    ),
    "overlap": (
        ["--rl.overlap"],
        "rl.overlap trains on samples that are one update old: set rl.loss.",
    ),
    "int8 matrices": (
        ["--rl.rollout.weights-dtype", "int8"],
        "rl.rollout.weights_dtype int8 trains on samples of other probabilities: set rl.loss.importance_sampling, ",
    ),
    "int8 cache": (
        ["--rl.rollout.kv-dtype", "int8"],
        "rl.rollout.kv_dtype int8 trains on samples of other probabilities: set rl.loss.importance_sampling, ",
    ),
    "devices of rollouts": (
        ["--rl.rollout-mesh", "1", "1", "1"],
        "rl.rollout_mesh is for rl.overlap, which is off",
    ),
    "rank": (["--model.lora.rank", "-1"], "model.lora.rank -1 must be positive, or 0 for no adapters"),
    "target": (["--model.lora.targets", "qproj"], "model.lora.targets 'qproj': there are q_proj, k_proj"),
    "vision without adapters": (
        ["--model.lora.rank", "2"],
        "sft.train_vision: of a vision tower without adapters nothing is trained; set model.lora.vision",
    ),
    "adapters that nothing trains": (
        ["--model.lora.rank", "2", "--model.lora.vision", "--sft.no-train-vision", "--rl.steps", "0"],
        "model.lora.vision: nothing trains these adapters; set sft.train_vision",
    ),
    "log": (["--log.rollout-groups", "0"], "log.rollout_groups 0 must be positive"),
    "reward weights": (
        ["--rl.advantage.weights", "1", "1", "1"],
        "rl.advantage.weights is for rl.advantage.estimator gdpo, not ema_grpo",
    ),
    "no reward weight": (
        ["--rl.advantage.estimator", "gdpo", "--rl.advantage.weights", "0", "0", "0"],
        "rl.advantage: weights are (0.0, 0.0, 0.0), all zero",
    ),
    "two reward weights": (
        ["--rl.advantage.estimator", "gdpo", "--rl.advantage.weights", "1", "2"],
        "rl.advantage.weights (1.0, 2.0): give three, of accuracy, format and structure",
    ),
    "sampler of RL": (
        ["--rl.rollout.prompt-patches", "10"],
        "rl.rollout: prompt_patches 10 is not a multiple of 4",
    ),
    "sampler of evaluation": (
        ["--evaluation.sampler.max-new-tokens", "0"],
        "evaluation.sampler: max_new_tokens 0 must be at least 1",
    ),
    "truncated rollouts": (["--rl.rollout.top-k", "5"], "top_k, top_p and min_p must be off"),
    "truncated evaluation": (["--evaluation.sampler.top-p", "0.5"], "top_k, top_p and min_p must be off"),
    "answers that are not greedy": (
        ["--evaluation.sampler.temperature", "1"],
        "evaluation.sampler.temperature 1.0 must be 0",
    ),
    "answers a held-out record": (
        ["--evaluation.sampler.group-size", "2"],
        "evaluation.sampler.group_size 2 must be 1",
    ),
    "uneven updates": (
        ["smoke", "--rl.num-minibatches", "3"],
        "rl.prompts_per_step 4 is not a multiple of rl.num_minibatches 3",
    ),
    "pixels": (["--data.image-min-pixels", "99999"], "data.image_min_pixels 99999 is not in 1 .. "),
    "patches": (["--sft.batch.patches", "10"], "batch.patches 10 is not a multiple of 4"),
    "mesh": (
        ["smoke", "--mesh.data", "3"],
        "sft.batch.rows 2 is not a multiple of mesh.data x mesh.fsdp = 3",
    ),
    "one file of three": (["--data.sft-file", "a.json"], "name all three, or none"),
    "name": (["--name", "../x"], "name '../x' must be a plain folder name"),
}


@pytest.mark.parametrize("case", WRONG_FLAGS)
def test_wrong_flags(case: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    arguments, message = WRONG_FLAGS[case]
    assert message in error_of(capsys, *arguments, status=2, out=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("preset", PRESETS)
def test_presets(preset: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each parses as it is; flags change one setting; --help says all of them and exits with 0."""
    assert parse([preset]) == PRESETS[preset]()
    changed = parse(
        [preset, "--rl.steps", "5", "--sft.no-train-vision", "--model.deepstack-layers", "0", "1"]
    )
    assert (changed.rl.steps, changed.sft.train_vision, changed.model.deepstack_layers) == (5, False, (0, 1))
    with pytest.raises(SystemExit) as stop:
        parse([preset, "--help"])
    assert not stop.value.code
    text = capsys.readouterr().out
    for flag in (
        "--sft.optimizer.learning-rate",
        "--rl.rollout.temperature",
        "--data.rl-file",
        "--model.init-from",
    ):
        assert flag in text


def test_the_first_preset_is_the_default() -> None:
    assert parse([]) == parse(["shapes"]) == PRESETS["shapes"]()


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("onethinker_jax.train", ["nope"], "unknown preset 'nope'"),
        ("onethinker_jax.train.export", ["--out", "x"], "run"),
        (
            "onethinker_jax.evaluate",
            ["model", "file.json", "--prompt-slots", "x"],
            "--prompt-slots: 'x' must be None or INT",
        ),
    ],
)
def test_wrong_flags_of_every_command(name: str, arguments: list[str], message: str, tmp_path: Path) -> None:
    result = running.module(name, *arguments)
    assert (result.returncode, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ") and message in line


@pytest.mark.parametrize("name", ["onethinker_jax.train.export", "onethinker_jax.evaluate"])
def test_a_folder_that_is_not_there(name: str, tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    more = ["--out", tmp_path / "out"] if name.endswith("export") else [tmp_path / "none.json"]
    result = running.module(name, missing, *more)
    said = (
        f"reading {tmp_path / 'none.json'}; answers go to evaluation\n" if name.endswith("evaluate") else ""
    )
    assert (result.returncode, result.stdout) == (1, said)
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ") and str(tmp_path) in line
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------- records and media


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> WorldPaths:
    directory = tmp_path_factory.mktemp("shapes") / "world"
    return build_shapes_world(directory, seed=3, train_rl=24, train_sft=60, heldout=24)


@pytest.fixture
def corpora(world: WorldPaths, tmp_path: Path):
    """flags(sft=..., rl=..., heldout=...) -> the flags that name these files, or the world's own."""

    def flags(**files: Path) -> list[object]:
        own = {"sft": world.sft_json, "rl": world.rl_json, "heldout": world.eval_json} | files
        named = [part for name, file in own.items() for part in (f"--data.{name}-file", file)]
        return ["smoke", *named, "--data.media-root", world.directory, "--model.vocab-size", 512]

    return flags


def changed(source: Path, target: Path, number: int, **fields: object) -> Path:
    """A copy of a record file with other values in one record; None leaves a field out."""
    rows = json.loads(source.read_text())
    rows[number] |= fields
    rows[number] = {name: value for name, value in rows[number].items() if value is not None}
    target.write_text(json.dumps(rows))
    return target


@pytest.mark.parametrize("corpus", ["sft", "rl", "heldout"])
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"problem_type": "riddle"}, "riddle"),
        ({"data_type": "hologram"}, "hologram"),
        ({"images": ["images/gone.png"], "path": "images/gone.png", "data_type": "image"}, "gone.png"),
    ],
)
def test_malformed_records(corpus, fields, message, world, corpora, capsys, tmp_path):
    source = {"sft": world.sft_json, "rl": world.rl_json, "heldout": world.eval_json}[corpus]
    rows = json.loads(source.read_text())
    number = next(n for n, row in enumerate(rows) if row["data_type"] == "image")
    file = changed(source, tmp_path / f"{corpus}.json", number, **fields)
    line = error_of(capsys, *corpora(**{corpus: file}), status=1, out=tmp_path / "runs")
    assert f"{file}: record {number + 1} (problem_id {rows[number]['problem_id']})" in line
    assert message in line
    leaves_nothing(tmp_path / "runs" / "smoke")


def test_a_file_that_is_not_there_or_not_json(corpora, capsys, tmp_path):
    missing = tmp_path / "none.json"
    assert str(missing) in error_of(capsys, *corpora(rl=missing), status=1, out=tmp_path / "runs")
    missing.write_text("[{]")
    line = error_of(capsys, *corpora(rl=missing), status=1, out=tmp_path / "runs")
    assert str(missing) in line and "not JSON" in line
    leaves_nothing(tmp_path / "runs" / "smoke")


@pytest.mark.parametrize(("kind", "suffix"), [("image", ".png"), ("video", ".mp4")])
def test_truncated_media(kind, suffix, world, corpora, capsys, tmp_path):
    """Found when it is read, here before anything is trained; the answers begun are not kept."""
    rows = json.loads(world.eval_json.read_text())
    number = next(n for n, row in enumerate(rows) if row["data_type"] == kind)
    whole = (world.directory / rows[number]["path"]).read_bytes()
    broken = tmp_path / f"broken{suffix}"
    broken.write_bytes(whole[: len(whole) // 2])
    file = changed(world.eval_json, tmp_path / "eval.json", number, path=str(broken))
    line = error_of(capsys, *corpora(heldout=file), status=1, out=tmp_path / "runs")
    assert str(broken) in line
    leaves_nothing(tmp_path / "runs" / "smoke")


@pytest.mark.parametrize("error", ["truncated", "too long"])
def test_a_bad_record_met_in_training(error, world, corpora, capsys, tmp_path):
    """Raised by the thread that makes batches; what was done before it stays, and no model is written."""
    rows = json.loads(world.sft_json.read_text())
    number = next(n for n, row in enumerate(rows) if row["data_type"] == "image")
    if error == "truncated":
        whole = (world.directory / rows[number]["images"][0]).read_bytes()
        (tmp_path / "broken.png").write_bytes(whole[: len(whole) // 2])
        fields, message = {"images": [str(tmp_path / "broken.png")]}, str(tmp_path / "broken.png")
    else:
        messages = rows[number]["messages"]
        longer = [messages[0], {**messages[1], "content": "word " * 600 + messages[1]["content"]}]
        fields, message = {"messages": longer}, f"sft.json: record {number + 1} (problem_id "
    file = changed(world.sft_json, tmp_path / "sft.json", number, **fields)
    unseen = ["--data.check-lengths", "none"]
    line = error_of(capsys, *corpora(sft=file), *unseen, status=1, out=tmp_path / "runs")
    assert message in line
    assert error == "truncated" or line.endswith("tokens do not fit in a row of 512")
    directory = tmp_path / "runs" / "smoke"
    assert [path.name for path in (directory / "heldout").iterdir()] == ["fresh.jsonl"]
    assert not (directory / "model").exists() and not (directory / "index.html").exists()


def test_a_record_too_long(world, corpora, capsys, tmp_path):
    flags = ["--evaluation.sampler.prompt-tokens", 40]
    line = error_of(capsys, *corpora(), *flags, status=1, out=tmp_path / "runs")
    first = json.loads(world.eval_json.read_text())[0]["problem_id"]
    assert line.startswith(f"{world.eval_json}: record 1 (problem_id {first}): ")
    assert ", more than --evaluation.sampler.prompt-tokens 40; 24 of 24 heldout records are too long" in line
    leaves_nothing(tmp_path / "runs" / "smoke")
    unseen = ["--data.check-lengths", "none"]
    line = error_of(capsys, *corpora(), *flags, *unseen, status=1, out=tmp_path / "runs")
    assert "prompt of " in line and line.endswith("more than the 40 allowed")
    leaves_nothing(tmp_path / "runs" / "smoke")


def test_a_busy_socket(corpora, capsys, tmp_path):
    """Another server's socket is neither taken over nor removed."""
    directory = tmp_path / "runs" / "smoke"
    with start_server(directory / "reward.sock", tmp_path / "other.log"):
        line = error_of(capsys, *corpora(), status=1, out=tmp_path / "runs")
        assert str(directory / "reward.sock") in line
        assert "is busy: another reward server runs there" in line
        assert (directory / "reward.sock").exists()
    leaves_nothing(directory)


def test_init_from_what_is_no_model(corpora, capsys, tmp_path):
    out = tmp_path / "runs"
    missing = tmp_path / "nothing"
    line = error_of(capsys, *corpora(), "--model.init-from", missing, status=1, out=out)
    assert line.startswith(f"{missing}: no such directory") and "hf download" in line
    assert not out.exists()
    missing.mkdir()
    (missing / "config.json").write_text('{"model_type": "llama"}')
    line = error_of(capsys, *corpora(), "--model.init-from", missing, status=1, out=out)
    assert str(missing / "config.json") in line and "llama" in line
    leaves_nothing(out / "smoke")


def test_a_run_that_came_to_nothing_is_begun_again(corpora, capsys, tmp_path):
    """Its settings may be mended; a run with results refuses others (see test_run)."""
    out, missing = tmp_path / "runs", tmp_path / "none.json"
    assert str(missing) in error_of(capsys, *corpora(rl=missing), status=1, out=out)
    flags = ["--evaluation.sampler.prompt-tokens", 40]
    assert "--evaluation.sampler.prompt-tokens 40;" in error_of(capsys, *corpora(), *flags, status=1, out=out)
    saved = json.loads((out / "smoke" / "config.json").read_text())
    assert saved["evaluation"]["sampler"]["prompt_tokens"] == 40


def test_a_broken_config(corpora, capsys, tmp_path):
    directory = tmp_path / "runs" / "smoke"
    directory.mkdir(parents=True)
    (directory / "config.json").write_text('{"name": ')
    line = error_of(capsys, *corpora(), status=1, out=tmp_path / "runs")
    assert str(directory / "config.json") in line


def test_a_data_folder_of_something_else(capsys, tmp_path):
    data = tmp_path / "runs" / "smoke" / "data"
    data.mkdir(parents=True)
    (data / "thesis.txt").write_text("all of it")
    assert str(data) in error_of(capsys, "smoke", status=1, out=tmp_path / "runs")
    assert (data / "thesis.txt").read_text() == "all of it"
