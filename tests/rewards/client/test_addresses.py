"""The addresses that a client takes."""

import pytest

from onethinker_jax.rewards.client.addresses import AddressError, channel_target, is_local


def test_several_addresses_of_one_client() -> None:
    assert channel_target(["unix:/a", "unix:///b"]) == "unix:/a,/b"
    assert channel_target(["10.0.0.1:1", "10.0.0.2:2"]) == "ipv4:10.0.0.1:1,10.0.0.2:2"
    assert channel_target(["[::1]:1", "[::2]:2"]) == "ipv6:[::1]:1,[::2]:2"
    assert channel_target(["rewards.example:50051"]) == "dns:///rewards.example:50051"
    for wrong in ([], ["a:1", "b:1"], ["unix:/a", "127.0.0.1:1"], ["[::1]:1", "127.0.0.1:1"], ["a"]):
        with pytest.raises(AddressError):
            channel_target(wrong)
    assert [is_local(address) for address in ("unix:/a", "127.9.9.9:1", "[::1]:1", "localhost:1")] == [
        True
    ] * 4
    assert [is_local(address) for address in ("0.0.0.0:1", "[::]:1", "a.example:1", "10.0.0.1:1")] == [
        False
    ] * 4
