"""The token of a client, from a file or the environment."""

from pathlib import Path

import pytest

from onethinker_jax.rewards.client.security import TOKEN_VARIABLE, SecurityError, read_token

TOKEN = "a-token-of-this-test-0123456789"


def test_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    assert read_token(None) is None
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    assert read_token(None) == TOKEN
    (tmp_path / "token").write_text(f"{TOKEN}2\n")
    assert read_token(tmp_path / "token") == f"{TOKEN}2"
    for bad in ("short", "", "with a space in the token", "mit Umlaut äöü 0123456789"):
        (tmp_path / "token").write_text(bad)
        with pytest.raises(SecurityError, match="needs a token of 16 or more"):
            read_token(tmp_path / "token")
    with pytest.raises(SecurityError, match=r"cannot read the token file .*none: No such file"):
        read_token(tmp_path / "none")
