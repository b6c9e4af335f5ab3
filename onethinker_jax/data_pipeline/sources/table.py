"""THE table of layouts: the name that a benchmark or a command gives -> the function that reads it."""

from onethinker_jax.data_pipeline.sources import vlmevalkit_tsv
from onethinker_jax.data_pipeline.sources.sample import Layout

LAYOUTS: dict[str, Layout] = {
    "vlmevalkit": vlmevalkit_tsv.read,
}
