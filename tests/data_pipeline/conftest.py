"""One small tokenizer directory for all tests of the data pipeline."""

import pytest

from onethinker_jax.data_pipeline.processor.processor import Processor
from onethinker_jax.data_pipeline.processor.processor_config import MediaBounds
from tests.data_pipeline.making import write_tokenizer


@pytest.fixture(scope="session")
def qwen_directory(tmp_path_factory):
    return write_tokenizer(tmp_path_factory.mktemp("qwen"), image_pixels=(4096, 40000))


@pytest.fixture(scope="session")
def processor(qwen_directory):
    return Processor.from_pretrained(
        qwen_directory, MediaBounds(video_min_pixels=4096, video_max_pixels=96 * 64)
    )
