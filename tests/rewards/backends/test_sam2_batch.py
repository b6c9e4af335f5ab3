"""SAM2 over a batch: each mask is that of the job alone, and what jobs share is encoded once."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onethinker_jax.rewards.backends.types import MaskJob, MaskPrompt
from onethinker_jax.rewards.server.batching import BatchingQueue
from onethinker_jax.rewards.server.service import mask_runner
from tests.waiting import HANG_S

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from onethinker_jax.rewards.backends.sam2 import Sam2, load_network  # noqa: E402 - needs torch
from tests.rewards.backends.small_models import random_sam2  # noqa: E402
from tests.rewards.backends.small_sam2_meta import needs_meta, write_checkpoint  # noqa: E402

BOX = (200, 250, 700, 800)
INSIDE, OUTSIDE = ((400, 500), (450, 600), (500, 400)), ((100, 100), (900, 900), (100, 900))
PROMPT = MaskPrompt(BOX, INSIDE, OUTSIDE)
CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=["hf", pytest.param("meta", marks=needs_meta)])
def network(request, tmp_path_factory) -> Any:
    path: Path = tmp_path_factory.mktemp("sam2") / "small.pt"
    if request.param == "hf":
        random_sam2().save_pretrained(path.parent)
    else:
        write_checkpoint(path)
    return load_network(path.parent, CPU)


@contextmanager
def encoder_passes(network: Any) -> Iterator[list[int]]:
    """The number of frames in each pass of the vision encoder from here on."""
    passes: list[int] = []
    encoder = network._image.vision_encoder if hasattr(network, "_image") else network._model.image_encoder
    hook = encoder.register_forward_pre_hook(lambda _, frames: passes.append(len(frames[0])))
    try:
        yield passes
    finally:
        hook.remove()


def disc(count: int, height: int = 50, width: int = 80, seed: int = 0) -> np.ndarray:
    """A bright disc that moves over noise, uint8 [N, H, W, 3]."""
    frames = np.random.default_rng(seed).integers(0, 90, (count, height, width, 3), dtype=np.uint8)
    rows, columns = np.mgrid[:height, :width]
    for index, frame in enumerate(frames):
        frame[(rows - height / 2) ** 2 + (columns - 30 - 4 * index) ** 2 < 150] = (200, 220, 80 + 20 * index)
    return frames


def assert_as_alone(network: Any, jobs: list[MaskJob], masks: list[np.ndarray]) -> None:
    """The last bit of a sum depends on the batch, and may turn a pixel over."""
    for job, mask in zip(jobs, masks, strict=True):
        (alone,) = Sam2(network, batch=1).segment([job])
        assert mask.shape == alone.shape == job.frames.shape[:3]
        assert (mask == alone).mean() > 0.999


def test_images_are_encoded_once_and_together(network):
    first, second, third = disc(1), disc(1, 64, 48, seed=1), disc(1, 33, 90, seed=2)
    jobs = [
        MaskJob(first, PROMPT),
        MaskJob(second, MaskPrompt(BOX)),
        MaskJob(first.copy(), MaskPrompt(BOX, INSIDE[:1])),  # the pixels of the first in another array
        MaskJob(first, MaskPrompt((600, 100, 900, 700))),
        MaskJob(second, MaskPrompt((500, 500, 500, 600))),  # no pixel
        MaskJob(third, MaskPrompt((100, 200, 900, 600), OUTSIDE, INSIDE)),
        MaskJob(first, MaskPrompt((0, 0, 900, 700))),
        MaskJob(third, MaskPrompt(BOX, (), OUTSIDE[:1])),
    ]
    with encoder_passes(network) as passes:
        masks = Sam2(network).segment(jobs)
    assert passes == [3]
    assert_as_alone(network, jobs, masks)
    assert not masks[4].any()
    assert sum(mask.any() and not mask.all() for mask in masks) >= 6
    assert not np.array_equal(masks[0], masks[3])
    with encoder_passes(network) as passes:
        smaller = Sam2(network, batch=2).segment(jobs)
    assert passes == [2, 1]
    assert_as_alone(network, jobs, smaller)
    with encoder_passes(network) as passes:
        Sam2(network).segment(jobs[4:5])
        assert Sam2(network).segment([]) == []
    assert passes == []


def test_prompts_on_one_video_share_its_frames(network):
    video, other = disc(5), disc(3, 40, 64, seed=1)
    jobs = [
        MaskJob(video, PROMPT, 2, video=True),
        MaskJob(other, PROMPT, 1, video=True),
        MaskJob(video[:1], PROMPT),
        MaskJob(video.copy(), MaskPrompt((300, 200, 900, 700), INSIDE[:1]), 0, video=True),
        MaskJob(video, MaskPrompt(BOX), 4, video=True),
    ]
    with encoder_passes(network) as passes:
        masks = Sam2(network, batch=3).segment(jobs)
    assert passes == [1, 3, 2, 3]  # the image, the first video in two passes, the other
    assert_as_alone(network, jobs, masks)
    assert all(mask.any() and not mask.all() for mask in masks)
    assert len({masks[number].tobytes() for number in (0, 3, 4)}) == 3


def test_what_is_kept_of_a_long_video_is_bounded(network):
    video = disc(5)
    jobs = [MaskJob(video, prompt, 0, video=True) for prompt in (PROMPT, MaskPrompt(BOX))]
    with encoder_passes(network) as passes:
        masks = Sam2(network, batch=2, kept_frames=3).segment(jobs)
    assert passes == [2, 2, 1, 1, 1]  # the second prompt finds frames 0, 1, 2
    assert_as_alone(network, jobs, masks)
    with encoder_passes(network) as passes:
        Sam2(network, batch=2).segment(jobs)
        Sam2(network, batch=2).segment(jobs)  # nothing outlasts a batch
    assert passes == [2, 2, 1] * 2


def test_an_item_that_fails_does_not_fail_its_batch(tmp_path):
    """The image part alone cannot follow a video."""
    random_sam2().save_pretrained(tmp_path / "whole")
    transformers.Sam2Model.from_pretrained(tmp_path / "whole").save_pretrained(tmp_path / "images")
    backend = Sam2(load_network(tmp_path / "images", CPU))
    good = [MaskJob(disc(1), PROMPT), MaskJob(disc(1, 40, 40), MaskPrompt(BOX))]
    bad = MaskJob(disc(2), PROMPT, video=True)
    run = mask_runner(backend)
    batches = []

    def counted(jobs: Any) -> list[Any]:
        batches.append(len(jobs))
        return run(jobs)

    queue = BatchingQueue("masks", [lambda: counted], max_batch=3, max_wait_s=HANG_S, max_waiting=3)
    futures = queue.submit([good[0], bad, good[1]])
    assert [futures[0].result(60), futures[2].result(60)] == [run([job])[0] for job in good]
    with pytest.raises(RuntimeError, match="image part alone"):
        futures[1].result(60)
    assert batches == [3, 1, 1, 1]
    assert queue.close(60)
