"""The numpy processor against transformers' where that needs no torchvision, and hand-made layouts."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from transformers import AutoImageProcessor, AutoTokenizer
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize as hf_smart_resize

from onethinker_jax.data_pipeline.media.decoding import MediaError, Video
from onethinker_jax.data_pipeline.media.resizing import smart_resize
from onethinker_jax.data_pipeline.processor.chat import ChatTokenizer
from onethinker_jax.data_pipeline.processor.patches import timestamps_of_pairs
from onethinker_jax.data_pipeline.processor.processor import Processor
from onethinker_jax.data_pipeline.processor.processor_config import MediaBounds
from onethinker_jax.data_pipeline.processor.prompts import PromptError, chat_messages
from onethinker_jax.data_pipeline.records.record import RecordError, read_records
from tests.data_pipeline.making import picture, rl_row, sft_row, write_image, write_rows, write_video
from tests.waiting import HANG_S

PAD = "<|image_pad|>"


def video_of(count: int, *, height: int = 64, width: int = 96, rate: float = 2.0) -> Video:
    frames = np.stack([picture(height, width, seed) for seed in range(count)])
    return Video(frames, np.arange(count) / rate, count / rate, rate, Path("made"))


def user(content: str) -> dict:
    return {"role": "user", "content": content}


def assistant(content: str) -> dict:
    return {"role": "assistant", "content": content}


def test_smart_resize_equals_transformers():
    rng = np.random.default_rng(0)
    for _ in range(3000):
        height, width = (int(v) for v in rng.integers(1, 1500, 2))
        low = int(rng.integers(1, 100_000))
        bounds = low, low + int(rng.integers(0, 1_000_000))
        if max(height, width) > 200 * min(height, width):
            with pytest.raises(ValueError, match="200 times"):
                smart_resize(height, width, 32, *bounds)
        else:
            assert smart_resize(height, width, 32, *bounds) == hf_smart_resize(height, width, 32, *bounds)


@pytest.mark.parametrize("size", [(64, 96), (100, 37), (333, 211), (20, 20), (64, 64), (31, 900)])
def test_image_patches_equal_transformers(processor, size):
    settings = {"patch_size": 16, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    hf = Qwen2VLImageProcessorPil(size={"shortest_edge": 4096, "longest_edge": 40000}, **settings)
    image = picture(*size)
    expected = hf(image, input_data_format="channels_last")
    example = processor([user("<image>?")], images=[image], add_generation_prompt=True)
    np.testing.assert_array_equal(example.grids, np.asarray(expected["image_grid_thw"]))
    got = (example.patches.astype(np.float32) / 255 - 0.5) / 0.5
    np.testing.assert_allclose(got, np.asarray(expected["pixel_values"]), atol=1e-6)
    assert example.patches.dtype == np.uint8 and example.patches.shape[1] == 1536


def test_image_tokens_are_those_of_the_expanded_text(processor, qwen_directory):
    """Two images of different sizes: ids as if each placeholder had been repeated in the text."""
    tokenizer = AutoTokenizer.from_pretrained(str(qwen_directory))
    images = [picture(64, 96), picture(96, 96)]
    example = processor(
        [user("One <image> and\n<image>: differ?")], images=images, add_generation_prompt=True
    )
    vision = [f"<|vision_start|>{PAD * n}<|vision_end|>" for n in (6, 9)]
    text = f"<|im_start|>user\nOne {vision[0]} and\n{vision[1]}: differ?<|im_end|>\n<|im_start|>assistant\n"
    assert example.tokens.tolist() == tokenizer.encode(text, add_special_tokens=False)
    assert example.tokens.dtype == example.visual_index.dtype == np.int32
    visual = example.tokens == processor.image_token_id
    np.testing.assert_array_equal(example.visual_index[visual], np.arange(15))
    assert (example.visual_index[~visual] == -1).all()
    assert example.frame_ids.max() == 2 and len(example.patches) == 60 == len(example.coords)
    assert example.next_position == example.positions.max() + 1 == example.positions[0, -1] + 1
    assert not example.loss_mask.any()


def test_video_layout_by_hand(processor):
    """Five frames at 2 fps: pairs at 0.25, 1.25 and 2.0 s, the last frame repeated; no outer vision pair."""
    example = processor([user("<video>When?")], videos=[video_of(5)], add_generation_prompt=True)
    pair = "<|vision_start|>" + "<|video_pad|>" * 6 + "<|vision_end|>"
    text = f"<|im_start|>user\n<0.2 seconds>{pair}<1.2 seconds>{pair}<2.0 seconds>{pair}When?<|im_end|>\n"
    assert processor.tokenizer.decode(example.tokens) == text + "<|im_start|>assistant\n"
    assert example.grids.tolist() == [[3, 4, 6]]
    assert example.frame_ids.tolist() == [1] * 24 + [2] * 24 + [3] * 24
    patches = example.patches.reshape(3, 24, 3, 2, 16, 16)
    frames = video_of(5).frames
    # Merge-block order, as (row, column).
    for pair_number, time, frame in ((0, 0, 0), (0, 1, 1), (1, 0, 2), (2, 0, 4), (2, 1, 4)):
        for patch, (row, column) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1), (0, 2)]):
            cut = frames[frame, 16 * row : 16 * row + 16, 16 * column : 16 * column + 16]
            np.testing.assert_array_equal(patches[pair_number, patch, :, time], cut.transpose(2, 0, 1))


@pytest.mark.parametrize("count", [1, 2, 7, 10])
def test_video_text_equals_transformers(processor, count):
    """transformers' own replacement text for a video of constant rate (its outer pair is not in it)."""
    from transformers.models.qwen3_vl.processing_qwen3_vl import Qwen3VLProcessor

    rate = 7.0
    stub = SimpleNamespace(
        video_processor=SimpleNamespace(merge_size=2, temporal_patch_size=2),
        vision_start_token="<|vision_start|>",
        vision_end_token="<|vision_end|>",
        video_token="<|video_pad|>",
    )
    stub._calculate_timestamps = lambda *a: Qwen3VLProcessor._calculate_timestamps(stub, *a)  # type: ignore[arg-type]
    inputs = {
        "video_grid_thw": np.array([[(count + 1) // 2, 4, 6]]),
        "video_metadata": [SimpleNamespace(fps=rate, frames_indices=np.arange(count))],
    }
    expected = Qwen3VLProcessor.replace_video_token(stub, inputs, 0)  # type: ignore[arg-type]
    example = processor([user("<video>?")], videos=[video_of(count, rate=rate)], add_generation_prompt=False)
    assert processor.tokenizer.decode(example.tokens) == f"<|im_start|>user\n{expected}?<|im_end|>\n"


def test_timestamps_of_uneven_frames():
    np.testing.assert_allclose(timestamps_of_pairs(np.array([0.0, 0.7, 3.0])), [0.35, 3.0])


def test_chat_tokenizer_equals_transformers(qwen_directory, tmp_path):
    hf, ours = AutoTokenizer.from_pretrained(str(qwen_directory)), ChatTokenizer(qwen_directory)
    parts = [{"type": "image"}, {"type": "text", "text": "a \u00e9\u4e2d"}, {"type": "video"}]
    messages = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": parts},
        assistant("<think>b</think>"),
    ]
    for prompt in (False, True):
        expected = hf.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
        assert ours.render(messages, add_generation_prompt=prompt) == expected
    texts = [expected, "  two\n\n\tlines 1234 it's", "e\u0301 <|im_end|>\ufb01", "", "\x00\u2028\U0001f600"]
    for text in texts:
        ids = hf.encode(text, add_special_tokens=False)
        assert ours.encode(text) == ids
        for skip in (False, True):
            assert ours.decode(ids, skip_special_tokens=skip) == hf.decode(ids, skip_special_tokens=skip)
    assert len(ours) == len(hf) and ours.token_id("<|nothing|>") is None
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((qwen_directory / name).read_bytes())
    (tmp_path / "chat_template.jinja").write_text("{{ raise_exception('no tools') }}")
    with pytest.raises(ValueError, match="no tools"):
        ChatTokenizer(tmp_path).render(messages, add_generation_prompt=True)


def test_torch_is_not_imported(qwen_directory):
    """Torch is installed here: reading a directory must not find its way to it."""
    code = (
        "import sys; from onethinker_jax.data_pipeline import Processor, RecordStream; "
        f"Processor.from_pretrained({str(qwen_directory)!r}); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=HANG_S)


def test_mixed_media_keep_their_order(processor):
    videos, images = [video_of(2)], [picture(64, 64), picture(64, 96)]
    messages = [user("<image>a<video>"), assistant("Yes."), user("<image>b")]
    example = processor(messages, images=images, videos=videos, add_generation_prompt=True)
    assert example.grids.tolist() == [[1, 4, 4], [1, 4, 6], [1, 4, 6]]
    order = example.tokens[example.visual_index >= 0]
    image, video = processor.image_token_id, processor.video_token_id
    assert order.tolist() == [image] * 4 + [video] * 6 + [image] * 6


@pytest.mark.parametrize("answer", ["<think>a</think>\n<answer>b</answer>", "\nstarts with a break "])
def test_targets_are_the_answers_alone(processor, answer):
    messages = [{"role": "system", "content": "Be short."}, user("<image>Say assistant\n twice")]
    messages += [assistant(answer), user("And?"), assistant("Second.")]
    example = processor(messages, images=[picture(64, 64)], add_generation_prompt=False)
    targets = processor.tokenizer.decode(example.tokens[example.loss_mask])
    assert targets == f"{answer}<|im_end|>Second.<|im_end|>"
    assert example.loss_mask[-1] and example.tokens[-1] == processor.eos_token_id
    # The tokens before an answer are those a sampler would be given, and the answer's those it would give.
    prompt = processor(messages[:2], images=[picture(64, 64)], add_generation_prompt=True)
    np.testing.assert_array_equal(example.tokens[: len(prompt.tokens)], prompt.tokens)
    np.testing.assert_array_equal(example.positions[:, : len(prompt.tokens)], prompt.positions)
    first = processor.tokenizer.encode(answer + "<|im_end|>")
    assert example.tokens[len(prompt.tokens) :][: len(first)].tolist() == first
    assert prompt.next_position == example.positions[0, len(prompt.tokens)]
    assert processor.decode(first) == answer


def test_bad_messages(processor):
    image = picture(64, 64)
    with pytest.raises(ValueError, match=r"^messages: 2 <image> for 1 image files"):
        processor([user("<image><image>")], images=[image], add_generation_prompt=True)
    with pytest.raises(ValueError, match=r"^messages: 0 <video> for 1 video files"):
        processor([user("?")], videos=[video_of(2)], add_generation_prompt=True)
    with pytest.raises(ValueError, match=r"^messages\[0\].content: holds the reserved token <\|im_end\|>"):
        processor([user("a<|im_end|>b")], add_generation_prompt=True)
    with pytest.raises(ValueError, match="uint8 RGB"):
        processor([user("<image>")], images=[image.astype(float)], add_generation_prompt=True)


@pytest.fixture
def records(tmp_path):
    write_image(tmp_path / "a.png", 70, 90)
    write_video(tmp_path / "v.mp4", [i / 8 for i in range(40)])
    video = rl_row(data_type="video", problem="<video>?", videos=["v.mp4"], images=..., problem_id=2)
    bare = rl_row(images=..., answer=..., path="a.png", solution="A", problem="Which?", problem_id=3)
    rows = [sft_row(problem_id=0), rl_row(), video, bare]
    return read_records(write_rows(tmp_path / "rows.json", rows))


def test_records(processor, records):
    sft, image, video, bare = records
    training, prompt = processor.training(sft), processor.prompt(sft)
    assert training.loss_mask.any() and len(prompt.tokens) < len(training.tokens)
    np.testing.assert_array_equal(training.tokens[: len(prompt.tokens)], prompt.tokens)
    assert processor.decode(training.tokens[training.loss_mask]) == sft.messages[-1]["content"]
    assert processor.prompt(video).grids.tolist() == [[5, 4, 6]]
    assert "<0.2 seconds><|vision_start|>" in processor.tokenizer.decode(processor.prompt(video).tokens)
    # An evaluation question without placeholders gets its media in front.
    text = processor.tokenizer.decode(processor.prompt(bare).tokens)
    assert text.startswith("<|im_start|>user\n<|vision_start|>") and "<image>" not in text
    with pytest.raises(RecordError, match=r"rows\.json: record 2 .problem_id 7.: messages: is missing"):
        processor.training(image)
    video.videos[0].write_bytes(b"")
    with pytest.raises(MediaError, match=r"v\.mp4"):
        processor.prompt(video)


@pytest.mark.parametrize("total", [None, 30_000])
def test_a_videos_total_bounds_what_the_reader_gives(qwen_directory, records, total):
    """Ten frames of 64 x 96 have 61,440 pixels."""
    processor = Processor.from_pretrained(qwen_directory, MediaBounds(video_total_pixels=total))
    whole = Processor.from_pretrained(
        qwen_directory, MediaBounds(video_min_pixels=None, video_max_pixels=None)
    )
    video = records[2].videos[0]
    frames = whole.media.video(video, None, fps=2.0, max_frames=99)
    by_hand = processor([user("<video>?")], videos=[frames], add_generation_prompt=True)
    sizes = [[5, 4, 6]] if total is None else [[5, 2, 4]]
    assert processor.prompt(records[2]).grids.tolist() == by_hand.grids.tolist() == sizes


@pytest.mark.parametrize("size", [(30, 5990), (2, 390), (1, 150), (700, 500)])
def test_pictures_are_resized_once(processor, tmp_path, size):
    """The reader has resized them; the rule, applied to its own result, would shrink very long ones again."""
    write_image(tmp_path / "a.png", *size)
    (record,) = read_records(
        write_rows(tmp_path / "rl.json", [rl_row(problem="<image>?", problem_type="OCR")])
    )
    read = processor.prompt(record)
    message = chat_messages(record)[0]
    given = processor([message], images=[picture(*size)], add_generation_prompt=True)
    assert read.grids.tolist() == given.grids.tolist()
    np.testing.assert_array_equal(read.patches, given.patches)


def test_prompts_come_from_the_directory_or_the_caller(qwen_directory, records, tmp_path):
    for file in qwen_directory.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    others = {"multiple choice": "{question} {options}!", "default": "{question} One word."}
    (tmp_path / "prompts.json").write_text(json.dumps(others))
    own, theirs = Processor.from_pretrained(qwen_directory), Processor.from_pretrained(tmp_path)
    mine = Processor.from_pretrained(tmp_path, prompts=own.prompts)
    texts = [p.tokenizer.decode(p.prompt(records[1]).tokens.tolist()) for p in (own, theirs, mine)]
    assert texts[0] == texts[2] and "<think></think>" in texts[0]
    assert texts[1].endswith("Which letter? A. one\nB. two!<|im_end|>\n<|im_start|>assistant\n")
    (tmp_path / "prompts.json").write_text("{}")
    with pytest.raises(PromptError, match=r"prompts\.json: has no template for multiple choice \(image\)"):
        Processor.from_pretrained(tmp_path)


def test_cache_is_bounded_and_gives_the_same(qwen_directory, records):
    limits: dict[str, Any] = {"video_min_pixels": 4096, "video_max_pixels": 96 * 64}
    plain = Processor.from_pretrained(qwen_directory, MediaBounds(**limits))
    size = plain.prompt(records[2]).nbytes
    cached = Processor.from_pretrained(qwen_directory, MediaBounds(**limits), cache_bytes=size + 1000)
    first = cached.prompt(records[2])
    assert cached.prompt(records[2]) is first
    np.testing.assert_array_equal(first.tokens, plain.prompt(records[2]).tokens)
    cached.prompt(records[1])  # pushes the video out
    assert cached.prompt(records[2]) is not first
    assert cached.cached_bytes <= size + 1000 and plain.cached_bytes == 0


def test_directories(qwen_directory, tmp_path):
    """Settings are read from the directory, in both layouts, and what we would get wrong is refused."""
    hf = AutoImageProcessor.from_pretrained(str(qwen_directory), backend="pil")
    assert hf.size["shortest_edge"] == 4096 and hf.patch_size == 16
    for file in qwen_directory.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "config.json").write_text(json.dumps({"vision_config": {"num_position_embeddings": 64}}))
    processor = Processor.from_pretrained(tmp_path)
    assert processor.grid_side == 8 and processor.limits.image_max_pixels == 40000
    image = json.loads((tmp_path / "preprocessor_config.json").read_text())
    (tmp_path / "preprocessor_config.json").unlink()
    assert Processor.from_pretrained(tmp_path).limits.image_max_pixels == 16777216
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": image}))
    assert Processor.from_pretrained(tmp_path).limits.image_max_pixels == 40000
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**image, "image_mean": [0.4, 0.4, 0.4]}))
    with pytest.raises(ValueError, match="image_mean"):
        Processor.from_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match="has no tokenizer"):
        ChatTokenizer(tmp_path)
    with pytest.raises(ValueError, match="no such directory"):
        Processor.from_pretrained(tmp_path / "none")
    with pytest.raises(ValueError, match="image pixel bounds"):
        Processor.from_pretrained(qwen_directory, MediaBounds(image_min_pixels=50000))
    with pytest.raises(ValueError, match="video pixel bounds"):
        Processor.from_pretrained(qwen_directory, MediaBounds(video_min_pixels=None))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(image))
    (tmp_path / "tokenizer.json").write_bytes((qwen_directory / "tokenizer.json").read_bytes())
    (tmp_path / "video_preprocessor_config.json").write_text('{"size": {"longest_edge": 0}}')
    with pytest.raises(ValueError, match="a video's total pixels must be 0 < min <= max, got 4096 and 0"):
        Processor.from_pretrained(tmp_path)
