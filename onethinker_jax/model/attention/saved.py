"""What attention keeps for its backward pass, under a name by which `layers.recompute` finds it."""

from jax import Array
from jax.ad_checkpoint import checkpoint_name

SAVED = "attention"


def name_saved(out: Array, logsumexp: Array) -> tuple[Array, Array]:
    """The output, and the logarithm of each query's sum of exponentials, named.

    A layer that keeps them and is otherwise computed anew computes its queries, keys and values, and not its attention.
    """
    return checkpoint_name(out, SAVED), checkpoint_name(logsumexp, SAVED)
