"""Settings for one GPU by LoRA: the base in bfloat16 stands still, adapters on every map of the language model train.

Lengths, prompts, rewards and updates are those of the preset of all weights (`presets_gpu`); learning rates are ten
times as large, as LoRA wants them in SFT and RL alike ("LoRA Without Regret", Thinking Machines Lab 2025), at alpha 32.
`docs/lora.md` says what is kept and exported, and `docs/plan.md` what each program needs of a GPU.
"""

from collections.abc import Callable
from dataclasses import replace

from onethinker_jax.lora_settings import LoRASettings
from onethinker_jax.train.config.hosts import MeshSettings
from onethinker_jax.train.config.presets_gpu import decoding_together, on_mesh
from onethinker_jax.train.config.presets_qwen3_vl import qwen3_vl_8b_rl
from onethinker_jax.train.config.run import TrainConfig

RANK = 32
LEARNING_RATE = 2e-5  # of RL


def qwen3_vl_8b_rl_lora_gpu() -> TrainConfig:
    """EMA-GRPO of Qwen3-VL-8B by LoRA of rank 32, one GPU of 80 GB.

    With `XLA_PYTHON_CLIENT_MEM_FRACTION=0.92` in the environment:
    `python -m onethinker_jax.train qwen3_vl_8b_rl_lora_gpu --model.init-from Qwen3-VL-8B-Instruct …`

    For an H100 or A100. Needs the weights of Qwen/Qwen3-VL-8B-Instruct, `--data.rl-file` and `--data.heldout-file`.
    AdamW at 2e-5 on the adapters of the language model, 128 prompts x 8 answers a step; 4 prompts with their 8 answers
    are decoded together, a group at a time is trained on.
    Planned, not run: 58.0 of 74.5 GiB. A step of full lengths takes an H100 at least 2,460 s, 200 steps 137 h.
    """
    config = on_mesh(qwen3_vl_8b_rl(), "qwen3_vl_8b_rl_lora_gpu", MeshSettings(), rows=1, heldout_slots=4)
    config = decoding_together(config, 4)
    optimizer = replace(config.rl.optimizer, learning_rate=LEARNING_RATE)
    return replace(
        config,
        model=replace(config.model, lora=LoRASettings(rank=RANK)),
        rl=replace(config.rl, optimizer=optimizer),
    )


LORA_PRESETS: dict[str, Callable[[], TrainConfig]] = {
    preset.__name__: preset for preset in (qwen3_vl_8b_rl_lora_gpu,)
}
