"""The errors that a user can mend: shown as one line that names the thing, without a traceback."""

from onethinker_jax import evaluate
from onethinker_jax.data_pipeline.loader import StreamError
from onethinker_jax.data_pipeline.mixture import MixtureError
from onethinker_jax.data_pipeline.synthetic import ShapesError
from onethinker_jax.model.sharding import ShardingError
from onethinker_jax.train.checkpoint import CheckpointError
from onethinker_jax.train.config import SettingError
from onethinker_jax.train.dynamic_sampling import NoGroupsLeft
from onethinker_jax.train.hosts import HostError

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
