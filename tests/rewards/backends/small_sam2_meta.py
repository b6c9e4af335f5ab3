"""The small random SAM2 of `small_models` as a checkpoint of Meta's, with its yaml."""

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.rewards.backends.small_models import MEMORY, SIZE, WIDTH, random_sam2

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


def write_checkpoint(path: Path) -> None:
    """The weights of `random_sam2` as Meta's `.pt`, with its yaml beside it."""
    torch.save({"model": meta_weights(random_sam2().state_dict())}, path)
    path.with_suffix(".yaml").write_text(json.dumps(meta_config()))  # JSON is YAML
