"""What a dry run says of memory."""

from dataclasses import replace

from onethinker_jax.model.family import family_member
from onethinker_jax.train.config.presets import shapes
from onethinker_jax.train.dry_run import kept_activations


def test_what_remat_keeps() -> None:
    sizes = family_member("8b")
    kept = {
        remat: kept_activations(
            replace(shapes().model, remat=remat, compute_dtype="bfloat16"), sizes, 1000, 0
        )
        for remat in ("none", "dots", "full")
    }
    assert kept["full"] == 1000 * 36 * 4096 * 2  # a layer's input
    assert kept["full"] < kept["dots"] < kept["none"]
