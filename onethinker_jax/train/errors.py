"""The errors that a user can mend: shown as one line that names the thing, without a traceback."""

from onethinker_jax.data_pipeline.chat import ProcessorError
from onethinker_jax.data_pipeline.loader import StreamError
from onethinker_jax.data_pipeline.media import MediaError
from onethinker_jax.data_pipeline.packing import PackingError
from onethinker_jax.data_pipeline.records import RecordError
from onethinker_jax.data_pipeline.synthetic import ShapesError
from onethinker_jax.model.config import ConfigError
from onethinker_jax.model.hf_weights import WeightsError
from onethinker_jax.model.sharding import ShardingError
from onethinker_jax.rewards.addresses import AddressError
from onethinker_jax.rewards.client import RewardRequestError, RewardUnavailable
from onethinker_jax.rewards.pool import ScoringError
from onethinker_jax.rewards.score import GroundTruthError
from onethinker_jax.rewards.security import SecurityError
from onethinker_jax.train.checkpoint import CheckpointError
from onethinker_jax.train.config import SettingError
from onethinker_jax.train.ema_grpo import NoGroupsLeft

EXPECTED = (
    AddressError,
    CheckpointError,
    ConfigError,
    GroundTruthError,
    MediaError,
    NoGroupsLeft,
    PackingError,
    ProcessorError,
    RecordError,
    RewardRequestError,
    RewardUnavailable,
    ScoringError,
    SecurityError,
    SettingError,
    ShapesError,
    ShardingError,
    StreamError,
    WeightsError,
    OSError,
)
