"""SAM2: the Hugging Face port and Meta's package give the same masks from the same random weights."""

import importlib
import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onethinker_jax.rewards.backends import (
    MASK_BACKENDS,
    BackendError,
    BackendSettings,
    ItemError,
    MaskPrompt,
)

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from onethinker_jax.rewards import sam2_meta  # noqa: E402 - needs torch
from onethinker_jax.rewards.sam2 import Sam2, load_network  # noqa: E402
from tests.rewards.small_models import MEMORY, SIZE, WIDTH, random_sam2  # noqa: E402

PROMPT = MaskPrompt(
    box=(200, 250, 700, 800),
    positive_points=((400, 500), (450, 600), (500, 400)),
    negative_points=((100, 100), (900, 900), (100, 900)),
)
CPU = torch.device("cpu")

needs_meta = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("sam2", "iopath")),
    reason="the sam2 package is not installed: see the Makefile",
)


def sine(features: int) -> dict[str, Any]:
    name = "sam2.modeling.position_encoding.PositionEmbeddingSine"
    return {
        "_target_": name,
        "num_pos_feats": features,
        "normalize": True,
        "scale": None,
        "temperature": 10000,
    }


def attention(**more: Any) -> dict[str, Any]:
    common = {"rope_theta": 10000.0, "feat_sizes": [4, 4], "embedding_dim": WIDTH, "num_heads": 1}
    return {"_target_": "sam2.modeling.sam.transformer.RoPEAttention", "downsample_rate": 1} | common | more


def meta_config() -> dict[str, Any]:
    """A SAM2.1 yaml of the published form, small."""
    part = "sam2.modeling."
    layer = {
        "_target_": part + "memory_attention.MemoryAttentionLayer",
        "activation": "relu",
        "dim_feedforward": 48,
        "dropout": 0.1,
        "pos_enc_at_attn": False,
        "self_attention": attention(),
        "d_model": WIDTH,
        "pos_enc_at_cross_attn_keys": True,
        "pos_enc_at_cross_attn_queries": False,
        "cross_attention": attention(rope_k_repeat=True, kv_in_dim=MEMORY),
    }
    model = {
        "_target_": part + "sam2_base.SAM2Base",
        "image_encoder": {
            "_target_": part + "backbones.image_encoder.ImageEncoder",
            "scalp": 1,
            "trunk": {
                "_target_": part + "backbones.hieradet.Hiera",
                "embed_dim": 8,
                "num_heads": 1,
                "stages": [1, 1, 2, 1],
                "global_att_blocks": [3],
                "window_spec": [8, 4, 3, 2],
            },
            "neck": {
                "_target_": part + "backbones.image_encoder.FpnNeck",
                "position_encoding": sine(WIDTH),
                "d_model": WIDTH,
                "backbone_channel_list": [64, 32, 16, 8],
                "fpn_top_down_levels": [2, 3],
                "fpn_interp_model": "nearest",
            },
        },
        "memory_attention": {
            "_target_": part + "memory_attention.MemoryAttention",
            "d_model": WIDTH,
            "pos_enc_at_input": True,
            "layer": layer,
            "num_layers": 2,
        },
        "memory_encoder": {
            "_target_": part + "memory_encoder.MemoryEncoder",
            "in_dim": WIDTH,
            "out_dim": MEMORY,
            "position_encoding": sine(MEMORY),
            "mask_downsampler": {
                "_target_": part + "memory_encoder.MaskDownSampler",
                "embed_dim": WIDTH,
                "kernel_size": 3,
                "stride": 2,
                "padding": 1,
            },
            "fuser": {
                "_target_": part + "memory_encoder.Fuser",
                "layer": {
                    "_target_": part + "memory_encoder.CXBlock",
                    "dim": WIDTH,
                    "kernel_size": 7,
                    "padding": 3,
                    "layer_scale_init_value": 1e-6,
                    "use_dwconv": True,
                },
                "num_layers": 2,
            },
        },
        "num_maskmem": 4,
        "image_size": SIZE,
        "sigmoid_scale_for_mem_enc": 20.0,
        "sigmoid_bias_for_mem_enc": -10.0,
        "multimask_min_pt_num": 0,
        "multimask_max_pt_num": 1,
    }
    switches = (
        "use_mask_input_as_output_without_sam directly_add_no_mem_embed no_obj_embed_spatial "
        "use_high_res_features_in_sam multimask_output_in_sam iou_prediction_use_sigmoid use_obj_ptrs_in_encoder "
        "add_tpos_enc_to_obj_ptrs proj_tpos_enc_in_obj_ptrs use_signed_tpos_enc_to_obj_ptrs "
        "only_obj_ptrs_in_the_past_for_eval pred_obj_scores pred_obj_scores_mlp fixed_no_obj_ptr "
        "multimask_output_for_tracking use_multimask_token_for_obj_ptr use_mlp_for_obj_ptr_proj"
    )
    return {"model": model | dict.fromkeys(switches.split(), True)}


# The Hugging Face port's names -> Meta's, by rules applied in order.
MLP = r"(iou_prediction_head|pred_obj_score_head|output_hypernetworks_mlps\.\d+|object_pointer_proj)"
RULES: dict[str, Any] = {
    rf"{MLP}\.layers\.0": r"\1.layers.1",
    rf"{MLP}\.proj_in": r"\1.layers.0",
    rf"{MLP}\.proj_out": r"\1.layers.2",
    r"mlp\.proj_in": "mlp.layers.0",
    r"mlp\.proj_out": "mlp.layers.1",
    r"mask_downsampler\.layers\.(\d)\.(conv|layer_norm)": lambda found: (
        f"mask_downsampler.encoder.{3 * int(found[1]) + (found[2] == 'layer_norm')}"
    ),
    r"mask_downsampler\.final_conv": "mask_downsampler.encoder.12",
    r"neck\.convs\.(\d)\.": r"neck.convs.\1.conv.",
    r"^vision_encoder\.backbone": "image_encoder.trunk",
    r"^vision_encoder": "image_encoder",
    r"patch_embed\.projection": "patch_embed.proj",
    r"^prompt_encoder": "sam_prompt_encoder",
    r"^mask_decoder": "sam_mask_decoder",
    r"shared_embedding\.positional_embedding": "pe_layer.positional_encoding_gaussian_matrix",
    r"mask_embed\.conv1": "mask_downscaling.0",
    r"mask_embed\.layer_norm1": "mask_downscaling.1",
    r"mask_embed\.conv2": "mask_downscaling.3",
    r"mask_embed\.layer_norm2": "mask_downscaling.4",
    r"mask_embed\.conv3": "mask_downscaling.6",
    r"upscale_conv1": "output_upscaling.0",
    r"upscale_layer_norm": "output_upscaling.1",
    r"upscale_conv2": "output_upscaling.3",
    r"o_proj": "out_proj",
    r"layer_norm": "norm",
    r"memory_encoder\.projection": "memory_encoder.out_proj",
    r"feature_projection": "pix_feat_proj",
    r"memory_fuser": "fuser",
    r"depthwise_conv": "dwconv",
    r"pointwise_conv": "pwconv",
    r"(fuser\.layers\.\d)\.scale": r"\1.gamma",
    r"^object_pointer_proj": "obj_ptr_proj",
    r"^no_object_pointer": "no_obj_ptr",
    r"^temporal_positional_encoding_projection_layer": "obj_ptr_tpos_proj",
    r"^occlusion_spatial_embedding_parameter": "no_obj_embed_spatial",
    r"^memory_temporal_positional_encoding": "maskmem_tpos_enc",
    r"^no_memory_embedding": "no_mem_embed",
    r"^no_memory_positional_encoding": "no_mem_pos_enc",
}


def meta_weights(weights: dict[str, Any]) -> dict[str, Any]:
    result = {}
    for name, value in weights.items():
        if name == "shared_image_embedding.positional_embedding":
            continue  # the prompt encoder's, once more
        if name == "prompt_encoder.point_embed.weight":
            for number, row in enumerate(value):
                result[f"sam_prompt_encoder.point_embeddings.{number}.weight"] = row[None].clone()
            continue
        for pattern, replacement in RULES.items():
            name = re.sub(pattern, replacement, name)
        result[name] = value
    return result


@pytest.fixture(scope="module")
def hf_directory(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("hf")
    random_sam2().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("meta") / "small.pt"
    torch.save({"model": meta_weights(random_sam2().state_dict())}, path)
    path.with_suffix(".yaml").write_text(json.dumps(meta_config()))  # JSON is YAML
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


def test_an_image_gives_a_mask(hf):
    frame = video()[2]
    mask = hf.segment_image(frame, PROMPT)
    assert mask.shape == frame.shape[:2]
    assert mask.dtype == bool
    assert mask.any() and not mask.all()
    assert np.array_equal(mask, hf.segment_image(frame, PROMPT))
    moved = MaskPrompt((600, 100, 900, 400), ((700, 200),) * 3, ((100, 900),) * 3)
    assert not np.array_equal(mask, hf.segment_image(frame, moved))
    assert not np.array_equal(mask, hf.segment_image(frame, MaskPrompt(PROMPT.box)))  # the points are read


def test_a_video_gives_a_mask_a_frame_both_ways(hf):
    frames = video(6)
    masks = hf.segment_video(frames, 2, PROMPT)
    assert masks.shape == frames.shape[:3]
    assert all(mask.any() and not mask.all() for mask in masks)
    assert np.array_equal(masks[2], hf.segment_video(frames[2:3], 0, PROMPT)[0])
    changed = frames.copy()
    changed[0] = 255  # the last of the backward pass: no other frame has seen it
    assert np.array_equal(hf.segment_video(changed, 2, PROMPT)[1:], masks[1:])


POINTS = torch.tensor([[10.0, 12.0], [50.0, 40.0], [30.0, 20.5], [25.0, 30.0], [2.0, 3.0]])
LABELS = torch.tensor([2, 3, 1, 1, 0], dtype=torch.int32)


@needs_meta
def test_the_two_give_the_same_image_mask(hf_directory, checkpoint):
    port, meta = load_network(hf_directory, CPU), load_network(checkpoint, CPU)
    frame = torch.randn(3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found, wanted = (network.image_logits(frame, POINTS, LABELS) for network in (port, meta))
    assert wanted.std() > 0.1
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3 * float(wanted.std()))
    masks = [Sam2(network).segment_image(video()[1], PROMPT) for network in (port, meta)]
    assert (masks[0] == masks[1]).mean() > 0.999


@needs_meta
@pytest.mark.parametrize("key_frame", [0, 3, 6])
def test_the_two_give_the_same_video_masks(hf_directory, checkpoint, key_frame):
    port, meta = load_network(hf_directory, CPU), load_network(checkpoint, CPU)
    frames = torch.randn(7, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found, wanted = (list(each.video_logits(frames, key_frame, POINTS, LABELS)) for each in (port, meta))
    order = [key_frame, *range(key_frame + 1, 7), *range(key_frame - 1, -1, -1)]
    assert [index for index, _ in found] == [index for index, _ in wanted] == order
    logits = torch.stack([frame for _, frame in wanted])
    assert logits.min() > -1000  # the object is seen in every frame
    assert logits.std((1, 2)).min() > 0.1
    assert (logits[1:] - logits[:-1]).abs().amax((1, 2)).min() > 0.1
    # Memories are bfloat16, whose last bit may differ.
    close = 0.02 * float(logits.std())
    torch.testing.assert_close(torch.stack([frame for _, frame in found]), logits, rtol=0.02, atol=close)
    masks = [Sam2(each).segment_video(video(4), key_frame % 4, PROMPT) for each in (port, meta)]
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
    found = Sam2(network).segment_video(frames, key_frame, PROMPT)
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
        assert not hf.segment_image(frames[0], MaskPrompt(box, PROMPT.positive_points)).any()
        assert not hf.segment_video(frames, 1, MaskPrompt(box)).any()


def test_malformed_items_are_the_items_fault(hf):
    frames = video(3)
    with pytest.raises(ItemError, match="key frame 3 of a video of 3 frames"):
        hf.segment_video(frames, 3, PROMPT)
    with pytest.raises(ItemError, match=r"uint8 \[H, W, 3\], not float64"):
        hf.segment_image(frames[0] / 255, PROMPT)
    with pytest.raises(ItemError, match=r"uint8 \[N, H, W, 3\], not uint8 \[50, 80, 3\]"):
        hf.segment_video(frames[0], 0, PROMPT)
    with pytest.raises(ItemError, match=r"\[0, 80, 3\]"):
        hf.segment_image(frames[0, :0], PROMPT)
    with pytest.raises(ItemError, match="four finite numbers"):
        MaskPrompt((0, 0, float("inf"), 1))


def test_lower_precision_is_close(hf_directory):
    """By logits: which of its masks a random network takes may turn on the last bit."""
    network = load_network(hf_directory, CPU)
    frame = torch.randn(3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        exact = network.image_logits(frame, POINTS, LABELS)
        with torch.autocast("cpu", torch.bfloat16):
            rough = network.image_logits(frame, POINTS, LABELS)
    error = float((rough.float() - exact).square().mean().sqrt() / exact.std())
    assert 0 < error < 0.03
    masks = MASK_BACKENDS["sam2"](BackendSettings(model=hf_directory, dtype="bfloat16"))
    assert masks.segment_video(video(3), 1, PROMPT).shape == (3, 50, 80)
    with pytest.raises(BackendError, match="compute in float32 or bfloat16"):
        MASK_BACKENDS["sam2"](BackendSettings(model=hf_directory, dtype="float16"))


def test_the_image_part_alone_follows_no_video(tmp_path, hf_directory, hf):
    transformers.Sam2Model.from_pretrained(hf_directory).save_pretrained(tmp_path)
    alone = MASK_BACKENDS["sam2"](BackendSettings(model=tmp_path))
    frames = video(2)
    assert np.array_equal(alone.segment_image(frames[0], PROMPT), hf.segment_image(frames[0], PROMPT))
    with pytest.raises(RuntimeError, match="image part alone"):
        alone.segment_video(frames, 0, PROMPT)


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
