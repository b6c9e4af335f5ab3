"""Real pretrained weights through our own Qwen3-VL: loading, logits, perplexity, sampling, saving.

SmolLM2 is compared with two computations that share nothing with ours: the Llama graph in plain numpy, and the Llama of
transformers. `make test ARGS="-m slow -k smollm2"` takes a minute and 4 GB.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from flax import nnx

from onethinker_jax.data_pipeline.batches.packing import pack_rows
from onethinker_jax.data_pipeline.processor.example import Example
from onethinker_jax.data_pipeline.processor.processor import Processor
from onethinker_jax.model.hf_weights import load_hf, save_hf
from onethinker_jax.model.qwen3_vl import Qwen3VL
from onethinker_jax.model.sharding import make_mesh
from onethinker_jax.responses import Sampler, Samples, suppressed_ids
from onethinker_jax.sampler_settings import SamplerSettings
from tests.data_pipeline.making import picture
from tests.model.conftest import open_in_transformers, runner
from tests.model.smollm2 import FILE, PACKAGE, SmolLM2
from tests.model.test_whole_way import reference
from tests.registry import python_package

torch = pytest.importorskip("torch")
pytest.importorskip("gguf")
pytestmark = pytest.mark.slow
TOKENS = 128
BAR = 5e-4  # of logits and log-probabilities
# Text -> its perplexity where another numpy run of the same weights, made before this test, gave it.
TEXTS = {
    "A train is moving slowly along the river while a man in a red coat waits on the platform with his dog. "
    "The weather is cold and there is snow on the roofs of the houses.": 31.4,
    "Question: what do bees make? Answer: they make honey, in cells of wax, from the nectar of 1,000 flowers.": None,
}
QUESTIONS = {
    "What is the capital of France?": "The capital of France is Paris.",
    "Write one short sentence about the sea.": None,
    "Name three colours.": None,
}


@pytest.fixture(scope="module")
def smol() -> Iterator[SmolLM2]:
    with TemporaryDirectory() as folder:
        yield SmolLM2.read(python_package(PACKAGE, Path(folder)) / FILE)


@pytest.fixture(scope="module")
def directory(smol: SmolLM2) -> Iterator[Path]:
    with TemporaryDirectory() as folder:
        yield smol.write_qwen3_vl(Path(folder) / "model")


@pytest.fixture(scope="module")
def model(directory: Path) -> Qwen3VL:
    return load_hf(directory)


@pytest.fixture(scope="module")
def processor(directory: Path) -> Processor:
    return Processor.from_pretrained(directory)


@pytest.fixture(scope="module")
def prompts(processor: Processor) -> list[Example]:
    return [processor([{"role": "user", "content": text}], add_generation_prompt=True) for text in QUESTIONS]


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def perplexity(logits: np.ndarray, ids: np.ndarray) -> float:
    """By the tokens after the first."""
    taken = np.take_along_axis(log_softmax(logits[:-1]), ids[1:, None], axis=1)
    return float(np.exp(-taken.mean()))


@pytest.fixture(scope="module")
def llama(smol: SmolLM2) -> Callable[[np.ndarray], np.ndarray]:
    made = smol.llama()

    def logits(ids: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return made(input_ids=torch.tensor(ids[None].astype(np.int64))).logits[0].numpy()

    return logits


@pytest.fixture(scope="module")
def ours(model: Qwen3VL, processor: Processor) -> Callable[[list[Example]], list[np.ndarray]]:
    """Examples, packed into rows -> the logits of each."""
    run = runner(model)

    def logits(examples: list[Example]) -> list[np.ndarray]:
        batch, left = pack_rows(examples, rows=2, tokens=TOKENS, patches=0)
        assert not left
        found, inputs = run(batch.inputs), batch.inputs
        pieces = {
            inputs.tokens[row][here].tobytes(): found[row][here]
            for row, segments in enumerate(inputs.segment_ids)
            for here in (segments == number for number in np.unique(segments[segments > 0]))
        }
        return [pieces[example.tokens.tobytes()] for example in examples]

    return logits


def plain(ids: np.ndarray) -> Example:
    """A text without chat marks, which no processor makes."""
    count, nothing = len(ids), np.zeros((0, 2), np.int32)
    return Example(
        tokens=ids.astype(np.int32),
        positions=np.broadcast_to(np.arange(count, dtype=np.int32), (3, count)),
        loss_mask=np.ones(count, bool),
        visual_index=np.full(count, -1, np.int32),
        patches=np.zeros((0, 1536), np.uint8),
        grids=np.zeros((0, 3), np.int32),
        frame_ids=np.zeros(0, np.int32),
        coords=nothing,
        embed_index=np.zeros((0, 4), np.int32),
        embed_weight=np.zeros((0, 4), np.float32),
        next_position=count,
    )


def test_logits_and_perplexity(smol, processor, prompts, ours, llama) -> None:
    """In a row with others, against the text alone in numpy and in transformers."""
    for text, known in TEXTS.items():
        ids = np.array(processor.tokenizer.encode(text))
        expected, theirs = smol.logits(ids), llama(ids)
        found, *_ = ours([plain(ids), *prompts])
        assert np.abs(expected).max() > 10
        np.testing.assert_allclose(theirs, expected, rtol=0, atol=BAR)
        np.testing.assert_allclose(found, expected, rtol=0, atol=BAR)
        assert perplexity(found, ids) == pytest.approx(perplexity(expected, ids), rel=1e-4)
        if known is not None:
            assert perplexity(found, ids) == pytest.approx(known, abs=0.1)


def test_prompts_of_chat(smol, prompts, ours, llama) -> None:
    for example, found in zip(prompts, ours(prompts), strict=True):
        np.testing.assert_allclose(found, smol.logits(example.tokens), rtol=0, atol=BAR)
        np.testing.assert_allclose(found, llama(example.tokens), rtol=0, atol=BAR)


def sample(model: Qwen3VL, processor: Processor, prompts: list[Example], **changes) -> list[Samples]:
    settings = SamplerSettings(
        prompt_slots=2,
        prompt_tokens=64,
        prompt_patches=0,
        max_new_tokens=24,
        **{"decode_block": 8, **changes},
    )
    graphdef, params = nnx.split(model)
    return Sampler(graphdef, processor, settings, mesh=make_mesh())(params, prompts, seed=1, step=0)


def continued(smol: SmolLM2, processor: Processor, prompt: Example, tokens: np.ndarray) -> np.ndarray:
    """The numpy graph's log-probabilities where each of the tokens is drawn; what may not be drawn is left out."""
    logits = smol.logits(np.concatenate([prompt.tokens, tokens]))[len(prompt.tokens) - 1 : -1]
    logits[:, list(suppressed_ids(processor))] = -np.inf
    return log_softmax(logits)


def test_greedy_answers(smol, model, processor, prompts) -> None:
    """Each token is the likeliest of the numpy graph, with its probability."""
    for (question, known), prompt, found in zip(
        QUESTIONS.items(), prompts, sample(model, processor, prompts, temperature=0.0), strict=True
    ):
        (tokens,), (text,) = found.tokens, found.texts
        logprobs = continued(smol, processor, prompt, tokens)
        assert logprobs.argmax(-1).tolist() == tokens.tolist(), question
        np.testing.assert_allclose(found.logprobs[0], logprobs.max(-1), rtol=0, atol=BAR)
        assert known is None or (text == known and found.ended[0])


def test_sampled_answers_share_their_prompt(smol, model, processor, prompts) -> None:
    """Four samples a prompt, whose prefix is computed once: each has the probabilities that numpy gives it alone."""
    found = sample(model, processor, prompts, group_size=4, temperature=0.7)
    assert len({text for one in found for text in one.texts}) > 6
    for prompt, one in zip(prompts, found, strict=True):
        for tokens, drawn, own in zip(one.tokens, one.logprobs, one.model_logprobs, strict=True):
            plain = continued(smol, processor, prompt, tokens)
            for logprobs, expected in ((own, plain), (drawn, log_softmax(plain / 0.7))):
                taken = np.take_along_axis(expected, tokens[:, None], axis=1)[:, 0]
                np.testing.assert_allclose(logprobs, taken, rtol=0, atol=BAR)


def test_transformers_loads_what_is_saved(model, processor, directory, prompts, ours) -> None:
    """Its Qwen3-VL, with texts and with a picture through the random vision tower."""
    with TemporaryDirectory() as folder:
        save_hf(model, Path(folder) / "saved", copy_from=directory)
        theirs = open_in_transformers(Path(folder) / "saved")
        for prompt, found in zip(prompts, ours(prompts), strict=True):
            np.testing.assert_allclose(found, reference(theirs, processor, prompt), rtol=0, atol=BAR)
        question = [{"role": "user", "content": "<image>What is this?"}]
        asked = processor(question, images=[picture(64, 96)], add_generation_prompt=True)
        batch, _ = pack_rows([asked], rows=1, tokens=64, patches=64)
        found = runner(model)(batch.inputs)[0, : len(asked.tokens)]
        np.testing.assert_allclose(found, reference(theirs, processor, asked), rtol=0, atol=BAR)
