"""Checkpoints in a bucket: through Orbax, TensorStore, gcsfs and google-cloud-storage, against one on loopback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from orbax.checkpoint._src.serialization.tensorstore_utils import build_kvstore_tspec

from onethinker_jax.train.config.checkpoints import CheckpointSettings
from onethinker_jax.train.config.checks import SettingError
from tests.places import ROOT
from tests.train.checkpoints.fake_bucket import bucket_on_loopback
from tests.waiting import HANG_S


def test_a_bucket_holds_checkpoints(tmp_path: Path) -> None:
    pytest.importorskip("gcsfs", reason="needs the extra gcs")
    with bucket_on_loopback() as (address, bucket):
        clients = {"STORAGE_EMULATOR_HOST": address, "TENSORSTORE_GCS_HTTP_URL": address}
        # A token for TensorStore; and gcsfs must not ask over gRPC what kind of bucket it is.
        known = {"GOOGLE_AUTH_TOKEN_FOR_TESTING": "made", "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false"}
        command = [sys.executable, "-m", "tests.train.checkpoints.in_bucket", "gs://made/runs/mine", tmp_path]
        environment = {**os.environ, **clients, **known, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=HANG_S, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    names = {name.split("/")[2] for name in bucket.objects}
    assert names - {"4.damaged"} == {"3"}
    assert "deleted gs://made/runs/mine/1" in done.stdout


@pytest.mark.parametrize("place", ["s3://bucket/folder", "az://bucket/folder"])
def test_what_orbax_does_not_write_to_is_refused(place: str) -> None:
    with pytest.raises(
        SettingError, match=rf"checkpoints.directory {place}: Orbax writes arrays into folders and"
    ):
        CheckpointSettings(directory=place)


def test_orbax_still_makes_no_store_for_them() -> None:
    """Once it does, the refusal may go."""
    for place in ("s3://bucket/folder", "az://bucket/folder"):
        with pytest.raises(ValueError, match="should be absolute"):
            build_kvstore_tspec(place, "array")
    assert build_kvstore_tspec("gs://bucket/folder", "array")
