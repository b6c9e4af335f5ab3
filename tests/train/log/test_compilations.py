"""Programs are compiled in the first step and never again, whatever the sizes of images and videos."""

from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
from flax import nnx

from onethinker_jax.data_pipeline.batches.packing import Batch, pack_rows
from onethinker_jax.data_pipeline.media.decoding import Video
from onethinker_jax.data_pipeline.processor.processor import Example, Processor
from onethinker_jax.data_pipeline.processor.processor_config import MediaBounds
from onethinker_jax.model.qwen3_vl import Qwen3VL
from onethinker_jax.model.sharding import make_mesh, shard_rows, tree_shardings
from onethinker_jax.responses import Sampler
from onethinker_jax.sampler_settings import SamplerSettings
from onethinker_jax.train.advantages import init_moments
from onethinker_jax.train.config.optimizer import OptimizerSettings
from onethinker_jax.train.config.presets import shapes
from onethinker_jax.train.log.compilation_watch import count_compilations
from onethinker_jax.train.optimizer import make_optimizer
from onethinker_jax.train.policy import Policy, model_config
from onethinker_jax.train.sft import sft_update
from onethinker_jax.train.state import init_state
from tests.data_pipeline.making import picture, write_tokenizer

BATCHES = 200
ROW = {"tokens": 320, "patches": 256}
SMALL = replace(
    shapes().model,
    vocab_size=512,
    hidden_size=32,
    intermediate_size=48,
    num_layers=2,
    num_heads=2,
    num_kv_heads=1,
    head_dim=16,
    vision_depth=2,
    vision_hidden_size=16,
    vision_intermediate_size=24,
    vision_heads=1,
    deepstack_layers=(0,),
)


def conversation(processor: Processor, rng: np.random.Generator, *, prompt: bool = False) -> Example:
    """A question with up to two media of any size, and its answer unless it is a prompt."""

    def side() -> int:
        return int(rng.integers(32, 160))

    kinds = rng.choice(["image", "video"], size=rng.integers(0, 3)).tolist()
    seed = int(rng.integers(1000))
    images = [picture(side(), side(), seed) for kind in kinds if kind == "image"]
    videos = []
    for _ in range(kinds.count("video")):
        times = np.arange(rng.integers(2, 9)) / 2
        frame = picture(side(), side(), seed)
        videos.append(
            Video(np.stack([frame] * len(times)), times, float(times[-1]) + 0.5, 2.0, Path("v.mp4"))
        )
    text = "".join(f"<{kind}>" for kind in kinds) + "What is this? " * int(rng.integers(1, 4))
    messages = [{"role": "user", "content": text}]
    if not prompt:
        messages.append({"role": "assistant", "content": "<answer>A</answer>" * int(rng.integers(1, 4))})
    return processor(messages, images=images, videos=videos, add_generation_prompt=prompt)


def batches(processor: Processor) -> list[Batch]:
    rng = np.random.default_rng(0)
    made, waiting = [], []
    while len(made) < BATCHES:
        waiting += [conversation(processor, rng) for _ in range(3)]
        batch, waiting = pack_rows(waiting, rows=1, **ROW)
        made.append(batch)
    return made


def test_two_hundred_mixed_batches_compile_nothing(tmp_path: Path) -> None:
    processor = Processor.from_pretrained(
        write_tokenizer(tmp_path, image_pixels=(1024, 96 * 96)),
        MediaBounds(video_min_pixels=1024, video_max_pixels=64 * 96),
        grid_side=SMALL.vision_grid,
    )
    mesh, settings = make_mesh(), replace(shapes().sft, optimizer=OptimizerSettings(learning_rate=1e-3))
    graphdef, params = nnx.split(Qwen3VL(model_config(SMALL, processor), rngs=nnx.Rngs(0)))
    params = jax.device_put(params, tree_shardings(params, mesh))
    optimizer = make_optimizer(settings.optimizer, BATCHES, train_vision=True)
    update = sft_update(Policy(graphdef, mesh), optimizer, settings)
    sampling = SamplerSettings(
        prompt_slots=2,
        group_size=2,
        prompt_tokens=ROW["tokens"],
        prompt_patches=ROW["patches"],
        max_new_tokens=4,
    )
    sampler = Sampler(graphdef, processor, sampling, mesh=mesh)
    state = init_state(params, optimizer, init_moments(1), mesh, reference=False)
    rng, seen, losses, warm = np.random.default_rng(1), set(), [], 0
    with jax.set_mesh(mesh), count_compilations() as compilations:
        for number, batch in enumerate(batches(processor)):
            gradients = update.zeros(state.params)
            gradients, sums = update.accumulate(state.params, None, gradients, shard_rows(batch, mesh))
            state, _ = update.apply(state, gradients, sums["tokens"], sums["loss"])
            if number % 20 == 0:
                prompts = [conversation(processor, rng, prompt=True) for _ in range(3)]
                sampler(state.params, prompts, seed=0, step=number)
            losses.append(sums["loss"] / sums["tokens"])
            assert batch.inputs.vision is not None
            seen.add(np.asarray(batch.inputs.vision.frame_ids).tobytes())
            if number == 0:
                warm = compilations.count
                assert warm > 2
        assert compilations.since(warm) == []
    assert len(seen) > BATCHES / 2  # layouts of media, by their frames
    assert float(losses[-1]) < 0.5 * float(losses[0])
