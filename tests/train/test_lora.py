"""LoRA in training: the base keeps every bit and is held once, adapters alone are saved, a resume changes no bit."""

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from onethinker_jax.data_pipeline.processor.processor import Processor
from onethinker_jax.lora_settings import LoRAError, LoRASettings
from onethinker_jax.model.hf_weights import load_hf, save_hf
from onethinker_jax.model.lora import add_adapters, merge_adapters
from onethinker_jax.model.parameters import join_adapters, split_adapters
from onethinker_jax.model.qwen3_vl import Qwen3VL
from onethinker_jax.model.safetensors_files import weights_digest
from onethinker_jax.model.sharding import make_mesh, shard_rows, tree_shardings
from onethinker_jax.responses import Sampler
from onethinker_jax.train.advantages import init_moments
from onethinker_jax.train.checkpoints.adapter_record import AdapterRecord, check_adapters
from onethinker_jax.train.checkpoints.checkpoints import CheckpointError, Checkpoints
from onethinker_jax.train.config.checkpoints import CheckpointSettings
from onethinker_jax.train.config.model import ModelSettings
from onethinker_jax.train.config.optimizer import OptimizerSettings
from onethinker_jax.train.config.presets import shapes
from onethinker_jax.train.export.__main__ import main
from onethinker_jax.train.export.stored_model import load_run
from onethinker_jax.train.hosts import Hosts
from onethinker_jax.train.log.compilation_watch import count_compilations
from onethinker_jax.train.log.log import RunLog
from onethinker_jax.train.open_run import Run
from onethinker_jax.train.optimizer import make_optimizer
from onethinker_jax.train.plans.programs import plan_programs
from onethinker_jax.train.plans.shapes import BASE
from onethinker_jax.train.policy import Policy, make_model
from onethinker_jax.train.run_folder import RunFolder
from onethinker_jax.train.sft import sft_update, train_sft
from onethinker_jax.train.state import init_state
from tests.tiny_model import write_model
from tests.train import making
from tests.train.plans.test_plan import narrow
from tests.train.rl.small_run import FIRST, SETTINGS, Rule, metrics, numbers, same
from tests.train.test_sft import SETTINGS as SFT
from tests.train.test_sft import Batches

LORA = LoRASettings(rank=2, targets=("q_proj", "v_proj", "down_proj"))
RL = replace(SETTINGS, num_minibatches=1, steps=3, save_every=2)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face directory of the tiny policy."""
    return write_model(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def adapted(base: Path) -> tuple[nnx.GraphDef, nnx.State]:
    """That policy with adapters, as a run makes it."""
    return nnx.split(make_model(config_of(base), base, make_mesh()))


def config_of(base: Path, lora: LoRASettings = LORA) -> Any:
    model = ModelSettings(base, compute_dtype="float32", master_dtype="float32", remat="none", lora=lora)
    return replace(shapes(), model=model, sft=SFT)


def train(adapted: Any, directory: Path, batches: Any, record: AdapterRecord | None = None) -> nnx.State:
    graphdef, params = adapted
    params = copied(params)
    folder = RunFolder(directory)
    checkpoints = Checkpoints(folder.checkpoints, CheckpointSettings())
    with RunLog(directory) as log, count_compilations() as compilations:
        run = Run(Hosts(), log, checkpoints, folder, compilations, record)
        try:
            return train_sft(Policy(graphdef, make_mesh()), params, batches, SFT, run)
        finally:
            checkpoints.close()


def copied(params: nnx.State) -> nnx.State:
    """Adapters in buffers of their own, which training donates, beside the same base."""
    trained, base = split_adapters(params)
    return join_adapters(jax.tree.map(jnp.copy, trained), base)


def base_stands(before: nnx.State, after: nnx.State) -> None:
    """Every array of the base is the very same one; every adapter has moved."""
    (adapters, base), (moved, same_base) = split_adapters(before), split_adapters(after)
    for mine, other in zip(jax.tree.leaves(base), jax.tree.leaves(same_base), strict=True):
        assert mine is other
    old = making.named(adapters)
    for name, values in making.named(moved).items():
        assert np.any(values != old[name]), name


def test_sft_moves_adapters_alone_and_its_resume_changes_no_bit(
    adapted: Any, base: Path, tmp_path: Path
) -> None:
    record = AdapterRecord.of_run(config_of(base).model)
    before = {name: values.copy() for name, values in making.named(adapted[1]).items()}
    whole = train(adapted, tmp_path / "whole", Batches(), record)
    base_stands(adapted[1], whole)
    for name, values in making.named(split_adapters(whole)[1]).items():
        np.testing.assert_array_equal(values, before[name], err_msg=name)
    checkpoints = Checkpoints(tmp_path / "whole" / "checkpoints", CheckpointSettings())
    names = {f"decoder.layers.{name}.lora.{part}" for name in LORA.targets for part in "ab"}
    assert checkpoints.arrays(5).shapes.keys() == names
    checkpoints.close()
    with pytest.raises(KeyboardInterrupt):
        train(adapted, tmp_path / "stopped", Batches(6, lambda: signal.raise_signal(signal.SIGINT)), record)
    same(train(adapted, tmp_path / "stopped", Batches(), record), whole)


@pytest.mark.parametrize("overlap", [False, True])
def test_rl_moves_adapters_alone_and_its_resume_changes_no_bit(
    overlap: bool, base: Path, adapted: Any, records: Any, train: Any, tmp_path: Path
) -> None:
    """Sampler and trainer give a token one log-probability; of the base there is one copy, while it samples too."""
    graphdef, params = adapted
    settings = RL
    if overlap:
        settings = replace(
            RL, overlap=True, loss=replace(RL.loss, importance_sampling="token_truncate"), save_every=1
        )
    rollout = settings.rollout.all_together(settings.prompts_per_step)
    sampler = Sampler(graphdef, Processor.from_pretrained(base), rollout, mesh=make_mesh())
    kernel = params["decoder"]["layers"]["down_proj"]["kernel"][...]
    seen = []

    def count() -> None:
        seen.append(sum(leaf.shape == kernel.shape for leaf in jax.live_arrays()))

    def run(directory: Path, rule: Any = None) -> nnx.State:
        return train(directory, rule, settings, sampler, of=(graphdef, params))

    held = sum(leaf.shape == kernel.shape for leaf in jax.live_arrays())
    whole = run(tmp_path / "whole", cast(Any, Rule(2, count)))
    count()
    assert seen == [held + 1] * 2  # the copy that the fixture trains, which is left in `whole`
    base_of = [making.named(split_adapters(tree)[1]) for tree in (params, whole)]
    for name, values in base_of[0].items():
        np.testing.assert_array_equal(values, base_of[1][name], err_msg=name)
    rows = metrics(tmp_path / "whole")
    on_policy = rows[:1] if overlap else rows  # the sampler's adapters are then one update old
    assert all(row["mismatch"] < 1e-5 for row in on_policy)
    assert all(row["grad_norm"] > 0 for row in rows)
    assert (
        rows[0]["kl_reference"] == 0 < rows[-1]["kl_reference"]
    )  # the reference is the base with adapters off
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "stopped", Rule(2, lambda: signal.raise_signal(signal.SIGINT)))
    assert FIRST < numbers(tmp_path / "stopped")[-1] < FIRST + settings.steps
    same(run(tmp_path / "stopped"), whole)
    assert metrics(tmp_path / "stopped") == rows


@pytest.fixture(scope="module")
def finished(adapted: Any, base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, nnx.State]:
    """A run's folder after SFT, and its parameters at the end."""
    directory = tmp_path_factory.mktemp("finished")
    record = AdapterRecord.of_run(config_of(base).model)
    params = train(adapted, directory, Batches(), record)
    save_hf(load_hf(base), directory / "base", copy_from=base)
    return directory, params


def test_export_merged_and_as_adapters(finished: Any, adapted: Any, base: Path, tmp_path: Path) -> None:
    """The merged directory holds what the run came to, and PEFT gives the same logits with the adapters."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForImageTextToText

    directory, params = finished
    expected: Qwen3VL = merge_adapters(nnx.merge(adapted[0], params))
    assert main([str(directory), "--out", str(tmp_path / "merged")]) == 0
    same(nnx.state(load_hf(tmp_path / "merged")), nnx.state(expected))
    assert main([str(directory), "--out", str(tmp_path / "adapter"), "--adapter"]) == 0
    same(nnx.state(load_run(directory)), params)

    ids = torch.tensor([[5, 9, 2, 11, 3, 30]])
    logits = []
    for path, adapter in ((tmp_path / "merged", None), (base, tmp_path / "adapter")):
        model: Any = AutoModelForImageTextToText.from_pretrained(path, dtype=torch.float32).eval()
        model = model if adapter is None else PeftModel.from_pretrained(model, str(adapter))
        with torch.no_grad():
            logits.append(model(input_ids=ids).logits.numpy())
    np.testing.assert_allclose(logits[1], logits[0], atol=1e-5)


def test_a_base_that_has_changed_is_named(finished: Any, tmp_path: Path, capsys: Any) -> None:
    """Weights of the same shapes: only their digest tells them apart."""
    directory, _ = finished
    other = write_model(tmp_path / "other")
    weights = other / "model.safetensors"
    changed = bytearray(weights.read_bytes())
    changed[-1] ^= 1
    weights.write_bytes(changed)
    (checkpoint,) = (path for path in (directory / "checkpoints").iterdir() if path.name == "5")
    saved = json.loads((checkpoint / "host" / "metadata").read_text())["adapters"]
    record = AdapterRecord.from_json(saved)
    assert record.lora == LORA and record.digest == weights_digest(Path(record.base)) != weights_digest(other)
    with pytest.raises(
        CheckpointError, match=r"5 holds adapters of the weights with SHA-256 .*other.*put those back"
    ):
        replace(record, base=str(other)).check_base(checkpoint)
    mine = AdapterRecord.of_run(config_of(other).model)
    with pytest.raises(CheckpointError, match=r"5 holds adapters of the weights with SHA-256"):
        check_adapters(saved, mine, checkpoint)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rank": 3}, r"5 holds adapters with model\.lora\.rank 2, not 3"),
        (
            {"targets": ("q_proj",)},
            r"model\.lora\.targets \('q_proj', 'v_proj', 'down_proj'\), not \('q_proj',\)",
        ),
        ({"rank": 0}, r"5 holds adapters, and this run trains every weight"),
    ],
)
def test_a_checkpoint_of_other_adapters_is_named(
    change: dict[str, Any], message: str, finished: Any, adapted: Any, base: Path, tmp_path: Path
) -> None:
    record = AdapterRecord.of_run(config_of(base, replace(LORA, **change)).model)
    with pytest.raises(CheckpointError, match=message) as caught:
        train(adapted, finished[0], Batches(), record)
    assert "\n" not in str(caught.value)
    with pytest.raises(
        CheckpointError, match=r"holds every weight, and this run trains adapters \(.*rank 2\)"
    ):
        check_adapters(None, AdapterRecord.of_run(config_of(base).model), tmp_path)


def test_adapters_need_a_base_on_disk(base: Path) -> None:
    config = config_of(base)
    fresh = replace(config, model=replace(config.model, init_from=None))
    with pytest.raises(LoRAError, match=r"model\.lora\.rank 2: name the base .* --model\.init-from"):
        make_model(fresh, base, make_mesh())


def test_what_is_kept(base: Path) -> None:
    """The base in what is computed in, adapters in `master_dtype`."""
    config = config_of(base)
    config = replace(config, model=replace(config.model, compute_dtype="bfloat16"))
    adapters, frozen = split_adapters(nnx.state(make_model(config, base, make_mesh())))
    assert {leaf.dtype.name for leaf in jax.tree.leaves(adapters)} == {"float32"}
    assert {leaf.dtype.name for leaf in jax.tree.leaves(frozen)} == {"bfloat16"}


@pytest.mark.skipif(jax.device_count() < 8, reason="needs eight devices, virtual ones do")
def test_an_update_on_eight_devices_is_that_of_one() -> None:
    """Loss, gradients and stepped adapters."""
    found = []
    for mesh in (make_mesh(), make_mesh(data=2, fsdp=2, tensor=2)):

        def make() -> Qwen3VL:
            model = Qwen3VL(making.CONFIG_FOR_TWO, rngs=nnx.Rngs(0))
            add_adapters(model, replace(LORA, vision=True), rngs=nnx.Rngs(1), dtype=jnp.dtype(jnp.float32))
            return model

        graphdef, abstract = nnx.split(nnx.eval_shape(make))
        optimizer = make_optimizer(OptimizerSettings(1e-3, warmup=0.0), 4, train_vision=True)
        with jax.set_mesh(mesh):
            params = jax.jit(lambda m=make: nnx.state(m()), out_shardings=tree_shardings(abstract, mesh))()
            adapters, frozen = split_adapters(params)
            adapters = jax.tree.map(lambda leaf: leaf + 0.01, adapters)  # else the gradient of A is zero
            state = init_state(adapters, optimizer, init_moments(1), mesh, reference=False)
            update = sft_update(Policy(graphdef, mesh), optimizer, replace(SFT, train_vision=True))
            rows = shard_rows(making.batch(making.ROWS), mesh)
            gradients, sums = update.accumulate(state.params, None, update.zeros(state.params), rows, frozen)
            gradients = jax.device_get(gradients)
            state, _ = update.apply(state, jax.device_put(gradients), sums["tokens"], sums["loss"])
            found.append((float(sums["loss"]), making.named(gradients), making.named(state.params)))
    (one_loss, one_gradients, one_params), (loss, gradients, params) = found
    np.testing.assert_allclose(loss, one_loss, rtol=1e-5)
    for name, values in one_gradients.items():
        assert np.any(values), name
        np.testing.assert_allclose(gradients[name], values, atol=1e-4 * np.abs(values).max(), err_msg=name)
        np.testing.assert_allclose(params[name], one_params[name], atol=2e-4, err_msg=name)


def test_the_plan_counts_adapters_and_one_base() -> None:
    """On one device the base is an argument of the gradients and the decoder's own weights, never both at once."""
    config, sizes = narrow(4)
    lora = LoRASettings(rank=8)
    config = replace(
        config,
        model=replace(config.model, lora=lora),
        mesh=replace(config.mesh, fsdp=1, tensor=1),
        sft=replace(config.sft, accumulate=2),  # gradients that add up
    )
    programs = {program.name: program for program in plan_programs(config, sizes, make_mesh())}
    text, layers = sizes.text, 4
    attention = text.num_heads * text.head_dim
    keys = text.num_kv_heads * text.head_dim
    widths = 2 * (text.hidden_size + attention) + 2 * (text.hidden_size + keys)
    widths += 3 * (text.hidden_size + text.intermediate_size)
    gradients = programs["SFT gradients"]
    for kind in ("parameters", "gradients"):
        assert sum(leaf.size for leaf in jax.tree.leaves(gradients.arguments[kind])) == layers * 8 * widths
    frozen = jax.tree.leaves(gradients.arguments[BASE])
    assert {leaf.dtype.name for leaf in frozen} == {"bfloat16"}
    update = programs["RL update"]
    assert update.resident[BASE] is not None and BASE not in update.arguments
    decoding = programs["RL decoding"]
    assert decoding.resident[BASE] == []  # the weights to decode are these
    assert len(decoding.resident["parameters"]) == 2 * 7  # float32, beside bfloat16 ones to decode with
    compiled = gradients.function.lower(*gradients.arguments.values()).compile()
    analysis: Any = compiled.memory_analysis()
    assert analysis.output_size_in_bytes < 2 * 4 * layers * 8 * widths
