"""From pictures and text to numbers: our processor, packing and model against transformers' model.

The other tests of this folder build their inputs by hand; here they come from the data pipeline, so that an
error in how the two meet would show. A saved directory carries tokenizer and processor along.
"""

from pathlib import Path

import numpy as np
import pytest
from flax import nnx

from onethinker_jax.data_pipeline.batches.packing import pack_groups, pack_rows
from onethinker_jax.data_pipeline.media.decoding import Video
from onethinker_jax.data_pipeline.processor.processor import Processor
from onethinker_jax.data_pipeline.processor.processor_config import MediaBounds
from onethinker_jax.model.hf_weights import load_hf, save_hf
from onethinker_jax.model.sharding import make_mesh
from onethinker_jax.responses import Sampler
from onethinker_jax.sampler_settings import SamplerSettings
from tests.data_pipeline.making import picture, write_tokenizer
from tests.model import tiny
from tests.model.conftest import open_in_transformers, runner

torch = pytest.importorskip("torch")
TOKENS, PATCHES = 256, 128


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A model whose vocabulary is a real tokenizer's, saved with its files."""
    root = tmp_path_factory.mktemp("whole")
    (root / "tokenizer").mkdir()
    processor = Processor.from_pretrained(write_tokenizer(root / "tokenizer", image_pixels=(1024, 8192)))
    config = tiny.variant(
        text={"vocab_size": 512},
        image_token_id=processor.image_token_id,
        video_token_id=processor.video_token_id,
        vision_start_token_id=processor.vision_start_token_id,
        vision_end_token_id=processor.vision_end_token_id,
    )
    model = tiny.noisy_model(config, root / "formula")
    save_hf(model, root / "model", copy_from=root / "tokenizer")
    return root / "model"


@pytest.fixture(scope="module")
def processor(directory):
    return Processor.from_pretrained(directory, MediaBounds(video_min_pixels=1024, video_max_pixels=4096))


@pytest.fixture(scope="module")
def model(directory):
    return load_hf(directory)


@pytest.fixture(scope="module")
def hf(directory):
    return open_in_transformers(directory)


@pytest.fixture(scope="module")
def prompts(processor):
    """Text; an image; two images of different sizes; a video; an image and a video."""
    video = Video(
        frames=np.stack([picture(64, 96, seed) for seed in range(5)]),
        timestamps=np.array([0.0, 0.5, 1.0, 1.6, 2.1]),
        duration=2.6,
        source_fps=10.0,
        path=Path("made.mp4"),
    )
    wide, tall = picture(64, 128, 1), picture(96, 64, 2)

    def ask(question, images=(), videos=()):
        messages = [{"role": "user", "content": question}]
        return processor(messages, images=list(images), videos=list(videos), add_generation_prompt=True)

    return {
        "text": ask("What is red? Think, then answer."),
        "image": ask("<image>What is this?", [wide]),
        "two images": ask("<image>What is this, and <image> this?", [tall, wide]),
        "video": ask("<video>What is this?", videos=[video]),
        "image and video": ask("Is <image> in <video>?", [tall], [video]),
    }


def hf_inputs(processor, example) -> dict:
    """A processor's Example for transformers, its patches sorted into images and videos by their tokens."""
    tokens = example.tokens.astype(np.int64)[None]
    types = (tokens == processor.image_token_id) + 2 * (tokens == processor.video_token_id)
    inputs = {
        "input_ids": torch.tensor(tokens),
        "attention_mask": torch.ones(tokens.shape, dtype=torch.long),
        "mm_token_type_ids": torch.tensor(types),
    }
    kinds = types[0][example.visual_index >= 0]  # of each merged patch, in order
    pixels = torch.tensor((example.patches.astype(np.float64) / 255 - 0.5) / 0.5, dtype=torch.float32)
    starts = np.cumsum(example.grids.prod(1)) - example.grids.prod(1)
    for code, name, grid in (
        (1, "pixel_values", "image_grid_thw"),
        (2, "pixel_values_videos", "video_grid_thw"),
    ):
        if (kinds == code).any():
            inputs[name] = pixels[np.repeat(kinds == code, 4)]
            inputs[grid] = torch.tensor(example.grids[kinds[starts // 4] == code].astype(np.int64))
    return inputs


def reference(hf, processor, example, completion=()) -> np.ndarray:
    inputs = hf_inputs(processor, example)
    more = torch.tensor(np.array(completion, np.int64)[None])
    for name, values in (
        ("input_ids", more),
        ("attention_mask", more * 0 + 1),
        ("mm_token_type_ids", more * 0),
    ):
        inputs[name] = torch.cat([inputs[name], values], dim=1)
    with torch.no_grad():
        return hf(**inputs).logits[0].numpy()


def test_packed_rows(model, hf, processor, prompts):
    batch, left = pack_rows(list(prompts.values()), rows=3, tokens=TOKENS, patches=PATCHES)
    assert not left
    logits = runner(model)(batch.inputs)
    found = 0
    for example in prompts.values():
        expected = reference(hf, processor, example)
        for row, segment in segments(batch.inputs):
            here = batch.inputs.segment_ids[row] == segment
            if np.array_equal(batch.inputs.tokens[row][here], example.tokens):
                np.testing.assert_allclose(logits[row][here], expected, atol=5e-5, rtol=0)
                found += 1
    assert found == len(prompts)


def segments(inputs) -> list[tuple[int, int]]:
    return [(row, int(s)) for row, ids in enumerate(inputs.segment_ids) for s in np.unique(ids[ids > 0])]


def test_groups_that_share_their_prompt(model, hf, processor, prompts):
    """Each target's logits in the shared layout = those of prompt and completion alone."""
    rng = np.random.default_rng(0)
    groups = [
        (prompts[kind], [rng.integers(0, 300, size).astype(np.int32) for size in sizes])
        for kind, sizes in (("image and video", (6, 1, 9)), ("text", (4, 0, 5)))
    ]
    completions = [completion for _, group in groups for completion in group]
    owners = [prompt for prompt, group in groups for _ in group]
    run, seen = runner(model), 0
    for packed in pack_groups(groups, rows=3, tokens=TOKENS, patches=PATCHES):
        logits = run(packed.batch.inputs)
        for number, (prompt, completion) in enumerate(zip(owners, completions, strict=True)):
            rows, columns = np.nonzero(packed.sample_index == number)
            if len(rows):
                expected = reference(hf, processor, prompt, completion)[len(prompt.tokens) - 1 : -1]
                offsets = packed.sample_offset[rows, columns]
                np.testing.assert_allclose(logits[rows, columns], expected[offsets], atol=5e-5, rtol=0)
                np.testing.assert_array_equal(packed.batch.targets[rows, columns], completion[offsets])
                seen += len(rows)
    assert seen == sum(map(len, completions))


def test_greedy_continuations(model, hf, processor, prompts):
    suppressed = (
        processor.image_token_id,
        processor.video_token_id,
        processor.vision_start_token_id,
        processor.vision_end_token_id,
    )
    settings = SamplerSettings(
        prompt_slots=2, prompt_tokens=TOKENS, prompt_patches=PATCHES, max_new_tokens=32, temperature=0.0
    )
    graphdef, params = nnx.split(model)
    sampler = Sampler(graphdef, processor, settings, mesh=make_mesh())
    got = sampler(params, list(prompts.values()), seed=0, step=0)
    for row, (kind, example) in enumerate(prompts.items()):
        expected = hf.generate(
            **hf_inputs(processor, example),
            max_new_tokens=32,
            do_sample=False,
            suppress_tokens=list(suppressed),
            eos_token_id=processor.eos_token_id,
            pad_token_id=processor.pad_token_id,
        )[0, len(example.tokens) :].tolist()
        assert got[row].tokens[0].tolist() == expected, kind
