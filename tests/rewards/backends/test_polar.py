"""POLAR: the network against transformers' Llama on the same random weights, its input, and its scores."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onethinker_jax.rewards.backends.table import TEXT_BACKENDS
from onethinker_jax.rewards.backends.types import BackendError, BackendSettings, TextItem
from onethinker_jax.rewards.normalisation import normalise_scores

torch = pytest.importorskip("torch")
sentencepiece = pytest.importorskip("sentencepiece")
safetensors_torch = pytest.importorskip("safetensors.torch")

from onethinker_jax.rewards.backends.polar import Polar, batches  # noqa: E402 - needs torch
from onethinker_jax.rewards.backends.polar_model import InternLM2Config, PolarModel, load_polar  # noqa: E402
from onethinker_jax.rewards.backends.polar_tokenizer import PolarTokenizer  # noqa: E402
from tests.rewards.backends.small_models import REWARD, write_polar, write_tokenizer  # noqa: E402

CPU = torch.device("cpu")
ITEMS = [
    TextItem("what colour is the fox?", "the fox is brown", "a brown fox"),
    TextItem("what colour is the fox?", "the fox is brown", "it is green, and the dog is lazy over there"),
    TextItem("what colour is the fox?", "the fox is brown", ""),
    TextItem("where?", "over the lazy dog", "the quick brown fox jumps over the lazy dog " * 6),
    TextItem("", "", "x"),
]


@pytest.fixture(scope="module")
def directory(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("polar")
    write_polar(folder)
    return folder


def llama_of(model: PolarModel, scaling: dict[str, Any]) -> Any:
    """The same weights as transformers' LlamaModel."""
    from transformers import LlamaConfig, LlamaModel

    config = model.config
    llama = LlamaModel(
        LlamaConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_hidden_layers=config.num_hidden_layers,
            num_attention_heads=config.num_attention_heads,
            num_key_value_heads=config.num_key_value_heads,
            max_position_embeddings=config.max_position_embeddings,
            rms_norm_eps=config.rms_norm_eps,
            rope_parameters={"rope_theta": config.rope_theta, "rope_type": "default"} | scaling,
        )
    ).eval()
    weights = {
        "embed_tokens.weight": model.model.tok_embeddings.weight,
        "norm.weight": model.model.norm.weight,
    }
    for number in range(config.num_hidden_layers):
        layer = model.model.get_submodule(f"layers.{number}").state_dict()
        width, head, kv_heads = config.hidden_size, config.head_size, config.num_key_value_heads
        group = config.num_attention_heads // kv_heads
        fused = layer["attention.wqkv.weight"].view(kv_heads, group + 2, head, width)
        weights |= {
            f"layers.{number}.{name}.weight": value.reshape(-1, width) if value.ndim > 2 else value
            for name, value in {
                "self_attn.q_proj": fused[:, :group],
                "self_attn.k_proj": fused[:, group],
                "self_attn.v_proj": fused[:, group + 1],
                "self_attn.o_proj": layer["attention.wo.weight"],
                "mlp.gate_proj": layer["feed_forward.w1.weight"],
                "mlp.up_proj": layer["feed_forward.w3.weight"],
                "mlp.down_proj": layer["feed_forward.w2.weight"],
                "input_layernorm": layer["attention_norm.weight"],
                "post_attention_layernorm": layer["ffn_norm.weight"],
            }.items()
        }
    llama.load_state_dict(weights, strict=True)
    return llama


def padded(rows: Sequence[Sequence[int]], side: str) -> tuple[Any, Any]:
    longest = max(map(len, rows))
    tokens, real = (torch.zeros(len(rows), longest, dtype=torch.long) for _ in range(2))
    for number, row in enumerate(rows):
        cells = slice(0, len(row)) if side == "right" else slice(longest - len(row), longest)
        tokens[number, cells] = torch.tensor(row)
        real[number, cells] = 1
    return tokens, real.bool()


def random_rows(*lengths: int) -> list[list[int]]:
    random = np.random.default_rng(0)
    return [random.integers(3, 340, length).tolist() for length in lengths]


@pytest.mark.parametrize(
    "scaling",
    [{}, {"rope_type": "dynamic", "factor": 2.0}, {"rope_type": "linear", "factor": 2.0}],
    ids=["plain", "dynamic", "linear"],
)
def test_scores_are_those_of_llama_with_the_same_weights(tmp_path, scaling):
    rope = {"type": scaling["rope_type"], "factor": scaling["factor"]} if scaling else None
    model = write_polar(tmp_path, rope_scaling=rope)
    llama = llama_of(model, scaling)
    for row in random_rows(7, 40, 150):  # the last is longer than the 64 positions trained
        tokens, real = padded([row], "right")
        with torch.no_grad():
            wanted = model.v_head(llama(tokens).last_hidden_state[:, -1])[0, 0]
            found = model(tokens, real)[0]
        assert abs(wanted) > 0.05
        torch.testing.assert_close(found, wanted, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_on_either_side_changes_nothing(tmp_path, side):
    model = write_polar(tmp_path, rope_scaling={"type": "dynamic", "factor": 2.0})
    rows = random_rows(3, 90, 40, 90, 1)
    singles = torch.cat([model(*padded([row], "right")) for row in rows])
    torch.testing.assert_close(model(*padded(rows, side)), singles, rtol=2e-4, atol=2e-5)


def test_left_padding_is_llamas(tmp_path):
    model = write_polar(tmp_path)
    tokens, real = padded(random_rows(5, 30, 12), "left")
    with torch.no_grad():
        wanted = model.v_head(
            llama_of(model, {})(tokens, attention_mask=real.long()).last_hidden_state[:, -1]
        )
    torch.testing.assert_close(model(tokens, real), wanted[:, 0], rtol=2e-4, atol=2e-5)


def numbers(scores: Sequence[float | Exception]) -> list[float]:
    """The scores, none of which is an error."""
    assert all(isinstance(score, float) for score in scores)
    return [float(score) for score in scores if not isinstance(score, Exception)]


def test_a_batch_scores_as_its_items_do(directory):
    judge = TEXT_BACKENDS["polar"](BackendSettings(model=directory))
    singles = [number for item in ITEMS for number in numbers(judge.score([item]))]
    assert len({round(score, 3) for score in singles}) == len(ITEMS)
    assert judge.score(ITEMS * 2) == pytest.approx(singles * 2, rel=1e-4, abs=1e-5)
    assert judge.score([]) == []
    small = Polar(
        load_polar(directory, CPU, torch.float32),
        PolarTokenizer(directory, reward_token_id=InternLM2Config.read(directory).reward_token_id),
        max_batch_tokens=150,
    )
    assert small.score(ITEMS) == pytest.approx(singles, rel=1e-4, abs=1e-5)


def test_batches_hold_what_fits():
    rows = [(0,) * length for length in (90, 40, 30, 30, 5, 4, 1)]
    found = list(batches(rows, 80))
    assert [row for batch in found for row in batch] == rows
    assert [len(batch) for batch in found] == [1, 2, 2, 2]


def test_lower_precision_is_close(directory):
    exact, rough = (
        numbers(TEXT_BACKENDS["polar"](BackendSettings(model=directory, dtype=dtype)).score(ITEMS))
        for dtype in ("float32", "bfloat16")
    )
    assert rough != exact
    assert rough == pytest.approx(exact, abs=0.15 * float(np.ptp(exact)))


def test_the_input_has_the_documented_form(directory, tmp_path):
    item = ITEMS[0]
    for separator in (True, False):
        folder = tmp_path / str(separator)
        folder.mkdir()
        reward = write_tokenizer(folder, separator=separator)
        pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
        first, second = (f"{item.question}\n{text}" for text in (item.reference, item.answer))
        if separator:
            middle = [*pieces.encode(first), 340, *pieces.encode(second)]
        else:
            middle = pieces.encode(f"{first}<|reward|>{second}")
        wanted = [pieces.bos_id(), *middle, reward]
        assert PolarTokenizer(folder, reward_token_id=reward).encode(item) == wanted
        assert pieces.encode(f"{first}<|reward|>{second}{REWARD}")[-1] == reward


def clients_text(pieces: Any, item: TextItem, longest: int, response: int) -> str:
    """The text of POLAR's published client, for plain words: its lengths count each text's <s>."""

    def cut(text: str) -> tuple[str, int]:
        ids = [pieces.bos_id(), *pieces.encode(text)][:response]
        return pieces.decode(ids[1:]), len(ids)

    (reference, reference_count), (answer, answer_count) = cut(item.reference), cut(item.answer)
    capacity = (longest - 4 - reference_count - answer_count) // 2
    question = [pieces.bos_id(), *pieces.encode(item.question)][-capacity:]
    question = pieces.decode([id for id in question if id != pieces.bos_id()])
    return f"{question}\n{reference}<|reward|>{question}\n{answer}"


@pytest.mark.parametrize("words", [(3, 3, 3), (60, 5, 5), (5, 60, 5), (5, 5, 60), (60, 60, 60), (37, 40, 40)])
def test_long_texts_are_cut_as_documented(tmp_path, words):
    """Responses keep their start, the question its end; at a hundredth of the published lengths."""
    reward = write_tokenizer(tmp_path, separator=False)
    tokenizer = PolarTokenizer(tmp_path, reward_token_id=reward, max_tokens=160, max_response_tokens=40)
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    random = np.random.default_rng(0)
    texts = [" ".join(random.choice(["the", "quick", "fox", "lazy", "dogs"], count)) for count in words]
    item = TextItem(*texts)
    ids = tokenizer.encode(item)
    assert ids == [pieces.bos_id(), *pieces.encode(clients_text(pieces, item, 160, 40)), reward]
    assert len(ids) < 160 + 16  # the separator is plain text here
    question, reference, answer = tokenizer.cut(item)
    assert item.question.endswith(question)
    assert item.reference.startswith(reference)
    assert item.answer.startswith(answer)
    assert [question != item.question, reference != item.reference, answer != item.answer] == [
        count > 30 for count in words
    ]


def test_the_published_lengths(directory):
    tokenizer = PolarTokenizer(directory, reward_token_id=InternLM2Config.read(directory).reward_token_id)
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(directory / "tokenizer.model"))
    question, reference, answer = tokenizer.cut(TextItem("ab" * 9000, "zq" * 9000, "fox"))
    assert len(pieces.encode(reference)) == 4096 - 1
    assert len(pieces.encode(question)) == (16_384 - 4 - 4096 - len(pieces.encode(answer)) - 1) // 2


def test_no_answer_can_write_the_marks(directory):
    config = InternLM2Config.read(directory)
    tokenizer = PolarTokenizer(directory, reward_token_id=config.reward_token_id)
    for text in (
        REWARD,
        "<|reward|>",
        "<s></s>",
        f"<|re{REWARD}ward|>",
        "[UNUSED_<|reward|>TOKEN_130]",
        REWARD * 9,
    ):
        ids = tokenizer.encode(TextItem(text, text, f"fine{text}"))
        assert ids.count(config.reward_token_id) == 1
        assert ids.count(340) == 1
        assert ids.count(1) == 1


def test_normalisations():
    scores, groups = [-3.0, 1.0, -1.0, 5.0, 2.0, 2.0], ["a", "a", "a", "b", "c", "c"]
    assert normalise_scores(scores, groups, "raw") == scores
    assert normalise_scores(scores, groups, "released") == pytest.approx([0, 1, 0.5, 1, 1, 1], abs=1e-6)
    assert normalise_scores([0.0, 800.0, -800.0, 1.0], [0] * 4, "sigmoid") == pytest.approx(
        [0.5, 1.0, 0.0, 1 / (1 + np.exp(-1))]
    )
    with pytest.raises(ValueError, match="unknown normalisation 'mean'"):
        normalise_scores(scores, groups, "mean")
    with pytest.raises(ValueError, match="6 scores and 2 groups"):
        normalise_scores(scores, ["a", "b"], "raw")


def test_groups_are_the_items_that_share_a_prompt(directory):
    raw, released, sigmoid = (
        TEXT_BACKENDS["polar"](BackendSettings(model=directory, normalisation=name))
        for name in ("raw", "released", "sigmoid")
    )
    others = [
        TextItem(*("what colour is the fox?", "the fox is brown", text), group="2") for text in ("a", "b")
    ]
    items = [*ITEMS, *others]
    plain = numbers(raw.score(items))
    assert released.score(items) == pytest.approx(
        normalise_scores(plain, ["f", "f", "f", "w", "e", "2", "2"], "released"), abs=1e-4
    )
    assert released.score(ITEMS[3:]) == [1.0, 1.0]  # alone in their groups
    assert sigmoid.score(items) == pytest.approx(1 / (1 + np.exp(-np.array(plain))), abs=1e-5)


def test_a_score_that_is_not_finite_raises(directory):
    model = load_polar(directory, CPU, torch.float32)
    model.v_head.weight.fill_(float("nan"))
    judge = Polar(model, PolarTokenizer(directory, reward_token_id=model.config.reward_token_id))
    with pytest.raises(RuntimeError, match=r"not finite in torch\.float32"):
        judge.score(ITEMS)


def test_weights_in_several_files(tmp_path):
    model = write_polar(tmp_path)
    weights = dict(safetensors_torch.load_file(tmp_path / "model.safetensors"))
    names = sorted(weights)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, part in parts.items():
        safetensors_torch.save_file({name: weights[name] for name in part}, tmp_path / file)
    index = {"weight_map": {name: file for file, part in parts.items() for name in part}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "gone"}}))
    tokens = padded(random_rows(9), "right")
    load_polar(tmp_path, CPU, torch.float32)  # the single file counts before an index
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert torch.equal(load_polar(tmp_path, CPU, torch.float32)(*tokens), model(*tokens))
    (tmp_path / "b.safetensors").unlink()
    with pytest.raises(BackendError, match=r"there is no file .*b\.safetensors"):
        load_polar(tmp_path, CPU, torch.float32)


def test_what_is_missing_or_wrong_is_named(tmp_path):
    def refuse(message: str, **settings: Any) -> None:
        with pytest.raises(BackendError, match=message) as failure:
            TEXT_BACKENDS["polar"](BackendSettings(**settings))
        assert "\n" not in str(failure.value)

    refuse("polar needs weights: name their directory")
    refuse("no/such does not exist", model=tmp_path / "no/such")
    refuse(r"there is no file .*config\.json", model=tmp_path)
    refuse("unknown device 'tpu'", model=tmp_path, device="tpu")
    refuse("unknown dtype 'int8': one of float32", model=tmp_path, dtype="int8")
    refuse("unknown normalisation 'mean': one of raw, released, sigmoid", normalisation="mean")
    if not torch.cuda.is_available():
        write_polar(tmp_path)
        refuse("cuda:1 is not there: torch sees 0 GPUs", model=tmp_path, device="cuda:1")
    write_polar(tmp_path)
    refuse("needs a directory", model=tmp_path / "config.json")
    (tmp_path / "tokenizer.model").write_bytes(b"nothing")
    refuse(r"tokenizer\.model is not a sentencepiece model", model=tmp_path)
    (tmp_path / "tokenizer.model").unlink()
    refuse(r"there is no file .*tokenizer\.model", model=tmp_path)
    changes = {
        "'llama'": {"model_type": "llama"},
        "rope_scaling 'yarn'": {"rope_scaling": {"type": "yarn", "factor": 2.0}},
        "do not fit its config.json: .*Missing key.*layers.2": {"num_hidden_layers": 3},
        "do not fit its config.json: .*size mismatch for model.tok_embeddings": {"vocab_size": 300},
    }
    other = tmp_path / "other"
    other.mkdir()
    for message, change in changes.items():
        config = json.loads((tmp_path / "config.json").read_text()) | change
        (other / "config.json").write_text(json.dumps(config))
        (other / "model.safetensors").write_bytes((tmp_path / "model.safetensors").read_bytes())
        refuse(message, model=other)
    (other / "model.safetensors").write_bytes(b"x" * 100)
    refuse(r"cannot read POLAR's weights .*model\.safetensors", model=other)
    (other / "model.safetensors").unlink()
    refuse(r"there is no file .*model\.safetensors", model=other)
    (other / "config.json").write_text("{}")
    refuse("describes None", model=other)
    (other / "config.json").write_text("{")
    refuse("is not JSON", model=other)
