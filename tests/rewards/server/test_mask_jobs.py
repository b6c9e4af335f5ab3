"""What a mask back end is given: which jobs are malformed, which share a medium; and GrabCut's batches."""

import hashlib

import numpy as np
import pytest

from onethinker_jax.rewards.backends.grabcut import GrabCut
from onethinker_jax.rewards.backends.types import ItemError, MaskJob, MaskPrompt

PROMPT = MaskPrompt((200, 250, 700, 800), ((400, 500),))


def frames(count: int, height: int, width: int) -> np.ndarray:
    """A disc over noise."""
    pictures = np.random.default_rng(count).integers(0, 90, (count, height, width, 3), dtype=np.uint8)
    rows, columns = np.mgrid[:height, :width]
    pictures[:, (rows - height / 2) ** 2 + (columns - width / 2) ** 2 < height**2 / 16] = (220, 200, 40)
    return pictures


def test_malformed_items_are_the_items_error():
    video = frames(3, 50, 80)
    for key_frame in (3, -1):
        with pytest.raises(ItemError, match=f"key frame {key_frame} of a video of 3 frames"):
            MaskJob(video, PROMPT, key_frame, video=True)
    with pytest.raises(ItemError, match="an image is one frame, not 3"):
        MaskJob(video, PROMPT)
    with pytest.raises(ItemError, match=r"uint8 \[N, H, W, 3\], not float64"):
        MaskJob(video[:1] / 255, PROMPT)
    with pytest.raises(ItemError, match=r"not uint8 \[50, 80, 3\]"):
        MaskJob(video[0], PROMPT)
    with pytest.raises(ItemError, match=r"\[1, 0, 80, 3\]"):
        MaskJob(video[:1, :0], PROMPT)
    with pytest.raises(ItemError, match="four finite numbers"):
        MaskPrompt((0, 0, float("inf"), 1))


def test_a_medium_is_its_pixels_and_their_shape():
    video = frames(2, 20, 30)
    job = MaskJob(video, PROMPT, video=True)
    assert job.medium == MaskJob(video.copy(), MaskPrompt((0, 0, 9, 9)), 1, video=True).medium
    assert job.medium == MaskJob(np.asfortranarray(video), PROMPT, video=True).medium
    digest = hashlib.sha256(video.tobytes()).digest()
    assert job.medium == MaskJob(video, PROMPT, video=True, sha256=digest).medium
    assert job.medium != MaskJob(video, PROMPT, video=True, sha256=b"another").medium
    assert job.medium != MaskJob(video.reshape(2, 30, 20, 3), PROMPT, video=True).medium
    assert job.medium != MaskJob(video[::-1], PROMPT, video=True).medium
    assert MaskJob(video[:1], PROMPT).medium != MaskJob(video[:1], PROMPT, video=True).medium


def test_grabcut_takes_images_and_videos_of_any_size_in_one_batch():
    jobs = [
        MaskJob(frames(1, 40, 60), PROMPT),
        MaskJob(frames(3, 60, 90), PROMPT, 2, video=True),
        MaskJob(frames(1, 40, 60), MaskPrompt((0, 0, 300, 300))),
    ]
    masks = GrabCut().segment(jobs)
    assert [mask.shape for mask in masks] == [job.frames.shape[:3] for job in jobs]
    for mask, job in zip(masks, jobs, strict=True):
        (alone,) = GrabCut().segment([job])
        assert np.array_equal(mask, alone)
    assert masks[1].any((1, 2)).all()
    assert not np.array_equal(masks[0], masks[2])
    assert GrabCut().segment([]) == []
