"""Training: supervised fine-tuning and EMA-GRPO, their state, checkpoints, logs and export."""
