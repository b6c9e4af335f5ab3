"""The search: which settings it tries, what it keeps in its file, how it ends, and what a dead compiler is."""

import json
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from unittest.mock import patch

import jax
import jax.numpy as jnp
import pytest

from onethinker_jax.train import plan
from onethinker_jax.train.config.objective import PolicyLossSettings
from onethinker_jax.train.config.presets import PRESETS
from onethinker_jax.train.config.run import TrainConfig
from onethinker_jax.train.cost.hardware import CHIPS
from onethinker_jax.train.cost.program_cost import Traffic
from onethinker_jax.train.plans.planned_program import Program
from onethinker_jax.train.plans.report import Compiled
from onethinker_jax.train.plans.search import search
from onethinker_jax.train.plans.search.estimates import Estimator, usable
from onethinker_jax.train.plans.search.results import Outcome, Results, ResultsError
from onethinker_jax.train.plans.search.search import Compile, Found, Search, compile_in_process
from onethinker_jax.train.plans.search.space import CHANGES, Candidate, candidates, changed
from onethinker_jax.train.plans.search.table import describe_search
from onethinker_jax.train.policy import planned_sizes
from tests.train.config.test_presets import flat
from tests.train.plans.making import here, several, slice_of, small

V5P = slice_of(CHIPS["v5p"], 16, a_process=4)


def space(config: TrainConfig, *, buckets: bool = False) -> tuple[list[Candidate], Counter[str]]:
    sizes = planned_sizes(config.model)
    estimator = Estimator(config, sizes, V5P)
    return candidates(config, sizes, V5P, estimator, buckets=buckets)


@pytest.mark.parametrize("name", ["qwen3_vl_8b_rl", "qwen3_vl_8b_sft"])
def test_settings_change_the_speed_and_not_the_method(name: str) -> None:
    base = PRESETS[name]()
    found, refused = space(base)
    assert found[0] == Candidate(base, {})
    assert len(found) > 50
    before = flat(asdict(base))
    shapes = Counter()
    for one in found[::7]:
        after = flat(asdict(one.config))
        differ = {key for key in before if before[key] != after[key]}
        assert differ == set(one.changes) <= set(CHANGES)
        sft, rl, mesh = one.config.sft, one.config.rl, one.config.mesh
        shards = mesh.data * mesh.fsdp
        assert sft.batch.rows * sft.accumulate == base.sft.batch.rows * base.sft.accumulate or not sft.steps
        assert rl.prompts_per_step % rl.rollout.all_together(rl.prompts_per_step).together == 0
        longest = rl.rollout.prompt_tokens - 1 + rl.rollout.max_new_tokens
        assert not rl.steps or rl.batch.tokens >= longest
        assert mesh.size == 16 and sft.batch.rows % shards == rl.batch.rows % shards == 0
        shapes[mesh.tensor] += 1
    assert set(shapes) == {1, 2, 4}
    assert refused["tensor is split over processes of 4 devices"] == 3  # 1 x 2 x 8, 2 x 1 x 8, 1 x 1 x 16
    assert {"mesh.fsdp", "model.remat"} <= {key for one in found for key in one.changes}


def test_int8_is_tried_where_the_loss_corrects_for_it_and_buckets_where_lengths_differ() -> None:
    base = PRESETS["qwen3_vl_8b_rl"]()
    loss = PolicyLossSettings(importance_sampling="token_truncate")
    corrected = replace(base, rl=replace(base.rl, loss=loss))

    def tried(config: TrainConfig, *, buckets: bool) -> set[str]:
        return {key for one in space(config, buckets=buckets)[0] for key in one.changes}

    names = {f"rl.rollout.{name}" for name in ("kv_dtype", "weights_dtype", "prompt_buckets")}
    assert not tried(base, buckets=False) & names
    assert tried(corrected, buckets=True) >= names


def test_flags_lead_to_the_settings() -> None:
    """What the table prints can be given to training."""
    name = "qwen3_vl_8b_rl"
    for one in space(PRESETS[name]())[0][::397]:
        words = [name, *one.flags.split()]
        assert plan.parse(words) == one.config


def outcome(least: float, bytes_needed: float = 0.0) -> Outcome:
    """A compilation that moves as many bytes as CHIP does in `least` seconds."""
    return Outcome(
        Compiled(
            1.0,
            Counter({"matmul": 7}),
            Counter(),
            0,
            0,
            bytes_needed,
            Traffic(hbm=least * here().chip.hbm_bandwidth),
        )
    )


class Compiler:
    """Says of a program what `said` says, and remembers what it was asked."""

    def __init__(self, said: dict[str, Outcome]):
        self.said, self.asked = said, list[tuple[TrainConfig, str]]()

    def __call__(self, config: TrainConfig, program: str) -> Outcome:
        self.asked.append((config, program))
        for key in (f"{config.model.remat} {program}", f"{config.rl.batch.tokens} {program}", program):
            if key in self.said:
                return self.said[key]
        return outcome(0.001)


def made_up(
    config: TrainConfig, sizes: object, mesh: object, *, everything: bool = False, lengths: object = None
) -> list[Program]:
    """Programs that are lowered at once, and whose texts differ where a plan's would."""
    rl = config.rl
    texts = {
        "RL gradients": rl.batch.tokens + (config.model.remat == "none"),
        "RL update": 0,
        "RL prefill": 1,
        "RL decoding": rl.rollout.prompt_slots,
    }
    if everything:
        texts["held-out decoding"] = 2
    x = jax.ShapeDtypeStruct((2,), jnp.float32)
    return [
        Program(name, jax.jit(lambda x, n=number: x + n), {"batch": x}, {}, 1, 0)
        for name, number in texts.items()
    ]


def looked(
    path: Path, compiler: Compile, chosen: list[TrainConfig], budget_s: float = 1e6
) -> tuple[Found, Search]:
    base = small()
    found = [Candidate(config, changed(base, config)) for config in chosen]
    looking = Search(base, here(), Results(path), compiler, topology="made up")
    with (
        patch.object(search, "candidates", lambda *args, **kwargs: (found, Counter())),
        patch.object(search, "plan_programs", made_up),
    ):
        return looking(budget_s), looking


def test_a_failed_compilation_is_a_row_and_the_search_goes_on(tmp_path: Path) -> None:
    """The most promising is tried first; the next best is taken; the same command compiles nothing anew."""
    chosen = several(small())
    error = Outcome(error="the compiler crashed (SIGSEGV)")
    fast, slow = outcome(0.005), outcome(0.01)
    compiler = Compiler({"none RL gradients": error, "1024 RL gradients": fast, "RL gradients": slow})
    path = tmp_path / "results.jsonl"
    found, looking = looked(path, compiler, chosen)
    assert compiler.asked[0][0].model.remat == "none"
    failed = [trial for trial in found.trials if trial.failure]
    assert failed and {trial.failure for trial in failed} == {"RL gradients: the compiler crashed (SIGSEGV)"}
    assert found.best is not None and found.best.candidate.config.model.remat == "full"
    assert found.ended == "no other setting is expected to be faster"
    texts = [json.loads(line)["text"] for line in path.read_text().splitlines()]
    assert len(compiler.asked) == len(set(texts)) < len(texts)  # settings share programs
    text = describe_search(found, looking.target, "made up")
    assert "RL gradients: the compiler crashed (SIGSEGV)" in text
    assert f"    {found.best.candidate.flags}\n" in text and "the same numbers up to rounding" in text

    again = Compiler({})
    repeated, _ = looked(path, again, chosen)
    assert not again.asked
    assert describe_search(repeated, looking.target, "made up") == text


def test_a_search_ends_where_nothing_faster_is_expected(tmp_path: Path) -> None:
    """Where the estimates are right the best is compiled, then the settings as given, and no other."""
    estimator = Estimator(small(), planned_sizes(small().model), here())

    def as_estimated(config: TrainConfig, program: str) -> Outcome:
        steps = {one.name: one.step for one in estimator.estimates(config)}
        return outcome(steps.get(program, 0.0))

    found, _ = looked(tmp_path / "results.jsonl", as_estimated, several(small()))
    assert found.ended == "no other setting is expected to be faster"
    best, as_given = found.trials
    assert (
        found.best is best and best.candidate.config.model.remat == "none" and not as_given.candidate.changes
    )


def test_what_does_not_fit_is_not_the_best_and_the_budget_ends_the_search(tmp_path: Path) -> None:
    chosen = several(small())
    large = outcome(0.001, usable(here().chip))
    found, _ = looked(tmp_path / "a.jsonl", Compiler({"RL decoding": large}), chosen)
    assert found.best is None and all("GiB of 1.0" in trial.failure for trial in found.trials)
    compiler = Compiler({})
    found, looking = looked(tmp_path / "b.jsonl", compiler, chosen, budget_s=0)
    assert not compiler.asked and not found.trials and found.ended == "the budget is used up"
    assert "Nothing that was compiled fits." in describe_search(found, looking.target, None)


def test_the_held_out_sampler_is_compiled_last_and_must_fit(tmp_path: Path) -> None:
    large = Outcome(Compiled(1.0, Counter(), Counter(), refusal="needs 9 GiB of 1 GiB"))
    compiler = Compiler({"held-out decoding": large})
    found, _ = looked(tmp_path / "results.jsonl", compiler, [small()])
    assert found.best is None and "held-out decoding, compiled last: needs 9 GiB of 1 GiB" in found.notes[0]


def test_results_are_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A line that was cut off when the search was killed is left out; any other is refused by its number."""
    path = tmp_path / "results.jsonl"
    traffic = Traffic(3.0, 1.0, Counter({"all-gather": 2}), Counter({"all-gather": 5}))
    kept = Outcome(Compiled(2.0, Counter({"matmul": 7}), Counter({"matmul": 6}), 1, 2, 3, traffic))
    results = Results(path)
    results.add("a", "t", kept, {"program": "RL update"})
    results.add("b", "t", kept, {"program": "RL update"})
    results.add("c", "u", Outcome(error="too large"), {})
    whole = path.read_text()
    again = Results(path)
    assert again.of("a") == again.of("b") == again.of_text("t") == kept
    assert again.of("c") == Outcome(error="too large") and again.of("d") is None
    assert "compiled" not in json.loads(whole.splitlines()[1])
    path.write_text(whole + '{"key": "d", "te')
    assert Results(path).of("a") == kept
    assert "the last line was cut off" in capsys.readouterr().err and path.read_text() == whole
    path.write_text('{"key": 1}\n' + whole)
    with pytest.raises(ResultsError, match="line 1: it is no result of a search"):
        Results(path)


def test_a_compilation_has_a_process_of_its_own() -> None:
    """What it raises, and what ends it, is said in a line."""
    said = compile_in_process(None, None)(small(), "RL update")
    assert said.error.startswith("TopologyError: there is no GPU here") and said.compiled is None
    said = compile_in_process(None, 1.0)(small(), "RL update")
    assert said == Outcome(error="the compilation took more than 0.0 GiB of this machine's memory")


@pytest.mark.parametrize(
    ("flags", "status", "message"),
    [
        (["--only", "RL"], 2, "only is not for search"),
        (["--budget", "0"], 2, "search.budget 0.0 must be positive"),
        (["--results", "{}/results.jsonl"], 1, "results.jsonl, line 1: it is no result of a search"),
    ],
)
def test_errors_are_one_line(tmp_path: Path, capsys, flags: list[str], status: int, message: str) -> None:
    (tmp_path / "results.jsonl").write_text("hello\n")
    flags = [flag.format(tmp_path) for flag in flags]
    assert plan.main(["shapes", "--topology", "v6e-1", "--search", *flags]) == status
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and message in err
