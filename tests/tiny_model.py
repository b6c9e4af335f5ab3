"""A Hugging Face directory of a fresh, very small model, as tests ask, train and evaluate it."""

from pathlib import Path

from flax import nnx

from onethinker_jax.data_pipeline.processor.processor import Processor
from onethinker_jax.model.hf_weights import save_hf
from onethinker_jax.model.qwen3_vl import Qwen3VL
from tests.data_pipeline.making import write_tokenizer
from tests.train import making


def write_model(folder: Path) -> Path:
    """Writes one below `folder`; returns its directory."""
    tokenizer = write_tokenizer(folder / "tokenizer", image_pixels=(1024, 4096))
    config = making.config_for(Processor.from_pretrained(tokenizer, grid_side=8))
    save_hf(Qwen3VL(config, rngs=nnx.Rngs(0)), folder / "model", copy_from=tokenizer)
    return folder / "model"
