from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serve.serving import Running, served


@pytest.fixture(scope="session")
def running_server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server of the tiny model, which no test changes."""
    folder = tmp_path_factory.mktemp("media")
    with served(model, media_folder=folder) as one:
        yield one
