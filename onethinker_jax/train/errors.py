"""The errors that a user can mend: shown as one line that names the thing, without a traceback."""

from onethinker_jax.data_pipeline.batches.loader import StreamError
from onethinker_jax.data_pipeline.batches.mixture import MixtureError
from onethinker_jax.data_pipeline.shapes.world import ShapesError
from onethinker_jax.evaluate import evaluation as evaluate
from onethinker_jax.model.sharding import ShardingError
from onethinker_jax.train.checkpoint import CheckpointError
from onethinker_jax.train.config.config import SettingError
from onethinker_jax.train.hosts import HostError
from onethinker_jax.train.rl.dynamic_sampling import NoGroupsLeft

EXPECTED = (
    *evaluate.EXPECTED,
    CheckpointError,
    HostError,
    MixtureError,
    NoGroupsLeft,
    SettingError,
    ShapesError,
    ShardingError,
    StreamError,
)
