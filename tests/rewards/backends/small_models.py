"""Small judges with random weights, in the files of the published ones: for the tests and the benchmark."""

import io
import json
from pathlib import Path
from typing import Any

import safetensors.torch
import sentencepiece
import torch
import transformers

from onethinker_jax.rewards.backends.polar_model import InternLM2Config, PolarModel

SIZE, WIDTH, MEMORY = 64, 128, 64  # of SAM2's square, its network, a memory (transformers takes 64 alone)
REWARD = "[UNUSED_TOKEN_130]"
SIZES: dict[str, Any] = {
    "model_type": "internlm2",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10_000.0,
    "hidden_act": "silu",
    "bias": False,
}


def write_tokenizer(folder: Path, *, separator: bool) -> int:
    """A sentencepiece model made here, and the reward token's id in it."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(
            ["the quick brown fox jumps over the lazy dog", "what colour is it? where?"] * 20
        ),
        model_writer=model,
        model_type="bpe",
        vocab_size=340,
        byte_fallback=True,
        add_dummy_prefix=False,
        user_defined_symbols=[REWARD],
        minloglevel=2,
    )
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    tokens = {"1": {"content": "<s>"}, "2": {"content": "</s>"}}
    if separator:
        tokens["340"] = {"content": "<|reward|>"}
    config = {"added_tokens_decoder": tokens, "add_bos_token": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue()).piece_to_id(REWARD)


def write_polar(folder: Path, **changes: Any) -> PolarModel:
    """A directory with a random model, and that model."""
    reward = write_tokenizer(folder, separator=True)
    (folder / "config.json").write_text(
        json.dumps(SIZES | {"vocab_size": 344, "reward_token_id": reward} | changes)
    )
    torch.manual_seed(0)
    model = PolarModel(InternLM2Config.read(folder)).eval().requires_grad_(False)
    for parameter in model.parameters():
        spread = parameter.shape[-1] ** -0.5 if parameter.ndim > 1 else 0.3
        parameter.normal_(mean=float(parameter.ndim == 1), std=2 * spread)
    safetensors.torch.save_file(model.state_dict(), folder / "model.safetensors")
    return model


def sam2_config() -> Any:
    """The same sizes for transformers."""
    backbone = transformers.Sam2HieraDetConfig(
        hidden_size=8,
        image_size=[SIZE, SIZE],
        blocks_per_stage=[1, 1, 2, 1],
        embed_dim_per_stage=[8, 16, 32, 64],
        global_attention_blocks=[3],
        window_size_per_stage=[8, 4, 3, 2],
        # the default of Meta's Hiera, which the published yaml overrides
        window_positional_embedding_background_size=[14, 14],
    )
    vision = transformers.Sam2VisionConfig(
        backbone_config=backbone,
        backbone_channel_list=[64, 32, 16, 8],
        backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
        fpn_hidden_size=WIDTH,
    )
    return transformers.Sam2VideoConfig(
        vision_config=vision,
        prompt_encoder_config={"hidden_size": WIDTH, "image_size": SIZE},
        mask_decoder_config={"hidden_size": WIDTH},
        num_maskmem=4,
        image_size=SIZE,
        memory_attention_hidden_size=WIDTH,
        memory_attention_num_layers=2,
        memory_attention_feed_forward_hidden_size=48,
        memory_attention_rope_feat_sizes=[4, 4],
        memory_encoder_hidden_size=WIDTH,
        memory_encoder_output_channels=MEMORY,
        mask_downsampler_embed_dim=WIDTH,
        memory_fuser_embed_dim=WIDTH,
        memory_fuser_intermediate_dim=4 * WIDTH,
    )


def random_sam2() -> Any:
    """Weights large enough that masks are mixed, and an object that is seen."""
    torch.manual_seed(1)
    model = transformers.Sam2VideoModel(sam2_config()).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if "norm" in name and name.endswith("weight"):
            parameter.normal_(1.0, 0.1)
        elif parameter.ndim > 1 and "embed" not in name:
            parameter.normal_(0.0, 1.2 * parameter[0].numel() ** -0.5)
        else:
            parameter.normal_(0.0, 0.3)
    model.mask_decoder.pred_obj_score_head.proj_out.bias.fill_(20.0)
    model.shared_image_embedding.load_state_dict(model.prompt_encoder.shared_embedding.state_dict())
    return model
