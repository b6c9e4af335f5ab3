"""THE table of layouts: the name that a benchmark or a command gives -> the function that reads it."""

from onethinker_jax.data_pipeline.sources import onethinker, vlmevalkit_tsv
from onethinker_jax.data_pipeline.sources.sample import Layout

LAYOUTS: dict[str, Layout] = {
    "onethinker": onethinker.read,
    "vlmevalkit": vlmevalkit_tsv.read,
}
