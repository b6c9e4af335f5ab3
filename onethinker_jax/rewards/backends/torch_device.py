"""Where a neural back end runs: the settings' names as torch's device and data type, checked."""

from __future__ import annotations

import torch

from onethinker_jax.rewards.backends.types import BackendError, BackendSettings


def torch_device(settings: BackendSettings) -> tuple[torch.device, torch.dtype]:
    """Raises BackendError for a GPU that is not there."""
    device = torch.device(settings.device)
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if (device.index or 0) >= count:
            raise BackendError(f"the device {settings.device} is not there: torch sees {count} GPUs")
    return device, getattr(torch, settings.dtype)
