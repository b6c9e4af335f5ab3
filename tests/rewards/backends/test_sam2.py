"""SAM2: the Hugging Face port and Meta's package give the same masks from the same random weights."""

import importlib
import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onethinker_jax.rewards.backends.table import MASK_BACKENDS
from onethinker_jax.rewards.backends.types import BackendError, BackendSettings, MaskJob, MaskPrompt

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from onethinker_jax.rewards.backends import sam2_meta  # noqa: E402 - needs torch
from onethinker_jax.rewards.backends.sam2 import Sam2, load_network  # noqa: E402
from tests.rewards.backends.small_models import SIZE, random_sam2  # noqa: E402
from tests.rewards.backends.small_sam2_meta import meta_config, needs_meta, write_checkpoint  # noqa: E402

PROMPT = MaskPrompt(
    box=(200, 250, 700, 800),
    positive_points=((400, 500), (450, 600), (500, 400)),
    negative_points=((100, 100), (900, 900), (100, 900)),
)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def hf_directory(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("hf")
    random_sam2().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("meta") / "small.pt"
    write_checkpoint(path)
    return path


@pytest.fixture(scope="module")
def hf(hf_directory) -> Any:
    return MASK_BACKENDS["sam2"](BackendSettings(model=hf_directory))


def video(count: int = 5, height: int = 50, width: int = 80) -> np.ndarray:
    """A bright disc that moves over noise, uint8 [N, H, W, 3]."""
    frames = np.random.default_rng(0).integers(0, 90, (count, height, width, 3), dtype=np.uint8)
    rows, columns = np.mgrid[:height, :width]
    for index, frame in enumerate(frames):
        frame[(rows - 25) ** 2 + (columns - 30 - 4 * index) ** 2 < 150] = (200, 220, 80 + 20 * index)
    return frames


def image_mask(backend: Any, image: np.ndarray, prompt: MaskPrompt = PROMPT) -> np.ndarray:
    """bool [H, W]."""
    return backend.segment([MaskJob(image[None], prompt)])[0][0]


def video_masks(backend: Any, frames: np.ndarray, key_frame: int, prompt: MaskPrompt = PROMPT) -> np.ndarray:
    """bool [N, H, W]."""
    return backend.segment([MaskJob(frames, prompt, key_frame, video=True)])[0]


def test_an_image_gives_a_mask(hf):
    frame = video()[2]
    mask = image_mask(hf, frame)
    assert mask.shape == frame.shape[:2]
    assert mask.dtype == bool
    assert mask.any() and not mask.all()
    assert np.array_equal(mask, image_mask(hf, frame))
    moved = MaskPrompt((600, 100, 900, 400), ((700, 200),) * 3, ((100, 900),) * 3)
    assert not np.array_equal(mask, image_mask(hf, frame, moved))
    assert not np.array_equal(mask, image_mask(hf, frame, MaskPrompt(PROMPT.box)))  # the points are read


def test_a_video_gives_a_mask_a_frame_both_ways(hf):
    frames = video(6)
    masks = video_masks(hf, frames, 2)
    assert masks.shape == frames.shape[:3]
    assert all(mask.any() and not mask.all() for mask in masks)
    assert np.array_equal(masks[2], video_masks(hf, frames[2:3], 0)[0])
    changed = frames.copy()
    changed[0] = 255  # the last of the backward pass: no other frame has seen it
    assert np.array_equal(video_masks(hf, changed, 2)[1:], masks[1:])


def image_logits(network: Any, frame: Any) -> Any:
    return network.image_logits(network.encode(frame[None]), POINTS, LABELS)[0]


def video_logits(network: Any, frames: Any, key_frame: int) -> list[tuple[int, Any]]:
    order = [*range(key_frame, len(frames)), *range(key_frame - 1, -1, -1)]
    features = zip(order, network.encode(frames[order]), strict=True)
    found = network.video_logits(features, key_frame, len(frames), POINTS, LABELS)
    return [(index, logits[0]) for index, logits in found]


POINTS = torch.tensor([[[10.0, 12.0], [50.0, 40.0], [30.0, 20.5], [25.0, 30.0], [2.0, 3.0]]])
LABELS = torch.tensor([[2, 3, 1, 1, 0]], dtype=torch.int32)


@needs_meta
def test_the_two_give_the_same_image_mask(hf_directory, checkpoint):
    port, meta = load_network(hf_directory, CPU), load_network(checkpoint, CPU)
    frame = torch.randn(3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found, wanted = (image_logits(network, frame) for network in (port, meta))
    assert wanted.std() > 0.1
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3 * float(wanted.std()))
    masks = [image_mask(Sam2(network), video()[1]) for network in (port, meta)]
    assert (masks[0] == masks[1]).mean() > 0.999


@needs_meta
@pytest.mark.parametrize("key_frame", [0, 3, 6])
def test_the_two_give_the_same_video_masks(hf_directory, checkpoint, key_frame):
    port, meta = load_network(hf_directory, CPU), load_network(checkpoint, CPU)
    frames = torch.randn(7, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found, wanted = (video_logits(network, frames, key_frame) for network in (port, meta))
    order = [key_frame, *range(key_frame + 1, 7), *range(key_frame - 1, -1, -1)]
    assert [index for index, _ in found] == [index for index, _ in wanted] == order
    logits = torch.stack([frame for _, frame in wanted])
    assert logits.min() > -1000  # the object is seen in every frame
    assert logits.std((1, 2)).min() > 0.1
    assert (logits[1:] - logits[:-1]).abs().amax((1, 2)).min() > 0.1
    # Memories are bfloat16, whose last bit may differ.
    close = 0.02 * float(logits.std())
    torch.testing.assert_close(torch.stack([frame for _, frame in found]), logits, rtol=0.02, atol=close)
    masks = [video_masks(Sam2(network), video(4), key_frame % 4) for network in (port, meta)]
    assert (masks[0] == masks[1]).mean((1, 2)).min() > 0.99


@needs_meta
def test_the_video_masks_are_those_of_metas_predictor(checkpoint, monkeypatch):
    """The package's own predictor, on the same prepared frames and with the box and points it is given."""
    network = load_network(checkpoint, CPU)
    package = importlib.import_module("sam2.sam2_video_predictor")
    settings = {key: value for key, value in meta_config()["model"].items() if key != "_target_"}
    parts = {key: sam2_meta.build(value) for key, value in (settings | sam2_meta.PREDICTING).items()}
    predictor = package.SAM2VideoPredictor(**parts).eval()
    predictor.load_state_dict(torch.load(checkpoint, weights_only=True)["model"])
    frames, key_frame = video(6), 2
    height, width = frames.shape[1:3]
    prepared = torch.nn.functional.interpolate(
        torch.tensor(frames).permute(0, 3, 1, 2) / 255.0, (SIZE, SIZE), mode="bilinear", antialias=True
    )
    mean, std = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    monkeypatch.setattr(package, "load_video_frames", lambda **_: ((prepared - mean) / std, height, width))
    state = predictor.init_state("unused")
    scale = np.array([width, height]) / 1000
    predictor.add_new_points_or_box(
        state,
        frame_idx=key_frame,
        obj_id=1,
        box=(np.array(PROMPT.box).reshape(2, 2) * scale).reshape(4).astype(np.float32),
        points=(np.array(PROMPT.positive_points + PROMPT.negative_points) * scale).astype(np.float32),
        labels=np.array([1, 1, 1, 0, 0, 0], dtype=np.int32),
    )
    wanted = np.zeros(frames.shape[:3], dtype=bool)
    for reverse in (False, True):
        for index, _, logits in predictor.propagate_in_video(
            state, start_frame_idx=key_frame, reverse=reverse
        ):
            wanted[index] = (logits[0, 0] > 0).numpy()
    found = video_masks(Sam2(network), frames, key_frame)
    assert (found == wanted).mean((1, 2)).min() > 0.999


@needs_meta
def test_what_a_yaml_may_not_ask_for(checkpoint, tmp_path):
    copy = tmp_path / "sam2.1_hiera_tiny.pt"
    copy.write_bytes(checkpoint.read_bytes())
    assert sam2_meta.config_path(copy).name == "sam2.1_hiera_t.yaml"  # the package's own
    with pytest.raises(BackendError, match=r"sam2\.1_hiera_t\.yaml asks for"):
        load_network(tmp_path, CPU)
    stranger = meta_config()
    stranger["model"]["image_encoder"]["neck"]["position_encoding"] = {"_target_": "os.getcwd"}
    copy.with_suffix(".yaml").write_text(json.dumps(stranger))
    with pytest.raises(BackendError, match=r"calls os\.getcwd, which is no class"):
        load_network(tmp_path, CPU)
    stranger["model"]["image_encoder"] = {"_target_": "sam2.modeling.sam2_base.select_closest_cond_frames"}
    copy.with_suffix(".yaml").write_text(json.dumps(stranger))
    with pytest.raises(BackendError, match="select_closest_cond_frames, which is no class"):
        load_network(tmp_path, CPU)
    copy.with_suffix(".yaml").write_text("a: b: c")
    with pytest.raises(BackendError, match="is not a SAM2 configuration"):
        load_network(copy, CPU)


def test_a_box_without_pixels_gives_an_empty_mask(hf):
    frames = video(3)
    for box in ((500, 500, 500, 600), (600, 600, 500, 500), (1000, 0, 2000, 900)):
        assert not image_mask(hf, frames[0], MaskPrompt(box, PROMPT.positive_points)).any()
        assert not video_masks(hf, frames, 1, MaskPrompt(box)).any()


def test_lower_precision_is_close(hf_directory):
    """By logits: which of its masks a random network takes may turn on the last bit."""
    network = load_network(hf_directory, CPU)
    frame = torch.randn(3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        exact = image_logits(network, frame)
        with torch.autocast("cpu", torch.bfloat16):
            rough = image_logits(network, frame)
    error = float((rough.float() - exact).square().mean().sqrt() / exact.std())
    assert 0 < error < 0.03
    masks = MASK_BACKENDS["sam2"](BackendSettings(model=hf_directory, dtype="bfloat16"))
    assert video_masks(masks, video(3), 1).shape == (3, 50, 80)
    with pytest.raises(BackendError, match="compute in float32 or bfloat16"):
        MASK_BACKENDS["sam2"](BackendSettings(model=hf_directory, dtype="float16"))


def test_the_image_part_alone_follows_no_video(tmp_path, hf_directory, hf):
    transformers.Sam2Model.from_pretrained(hf_directory).save_pretrained(tmp_path)
    alone = MASK_BACKENDS["sam2"](BackendSettings(model=tmp_path))
    frames = video(2)
    assert np.array_equal(image_mask(alone, frames[0]), image_mask(hf, frames[0]))
    with pytest.raises(RuntimeError, match="image part alone"):
        video_masks(alone, frames, 0)


def test_what_is_missing_or_wrong_is_named(tmp_path, hf_directory):
    def refuse(message: str, model: Path | None) -> None:
        with pytest.raises(BackendError, match=message) as failure:
            MASK_BACKENDS["sam2"](BackendSettings(model=model))
        assert "\n" not in str(failure.value)

    refuse("sam2 needs weights", None)
    refuse("no/such does not exist", tmp_path / "no/such")
    refuse(r"no config\.json and no \.pt file", tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    refuse("describes 'llama', not SAM2's", tmp_path)
    (tmp_path / "config.json").write_text("[]")
    refuse("is not a model's configuration", tmp_path)
    config = (hf_directory / "config.json").read_text()
    (tmp_path / "config.json").write_text(config)
    refuse("cannot load SAM2 from", tmp_path)
    from safetensors.torch import load_file, save_file

    weights = load_file(hf_directory / "model.safetensors")
    del weights["no_memory_embedding"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    refuse("lack no_memory_embedding", tmp_path)
    (tmp_path / "config.json").unlink()
    (tmp_path / "mine.pt").write_bytes(b"")
    installed = importlib.util.find_spec("sam2") and importlib.util.find_spec("iopath")
    refuse(
        r"the configuration of .*mine\.pt is missing: put mine\.yaml beside it"
        if installed
        else r"needs the sam2 package|cannot be imported",
        tmp_path,
    )
    (tmp_path / "other.pt").write_bytes(b"")
    refuse(r"no config\.json and 2 \.pt files", tmp_path)
