"""Where servers listen, and who reaches them there."""

import re
import socket

import pytest

from sleicl_chains.errors import InputError, OptionError
from sleicl_chains.serving.listening import check_reach, is_called_here, listening

ASKS = {"option": "--key", "variable": "KEY"}


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "localhost", "::1"])
def test_on_this_machine_no_secret_is_needed(host: str) -> None:
    check_reach(host, None, **ASKS)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.1.2", "example.org", "localhost.example.org"])
def test_beyond_it_one_is(host: str) -> None:
    with pytest.raises(OptionError, match=rf"^--host {host} lets other machines in, so it takes \$KEY \(or --key"):
        check_reach(host, None, **ASKS)
    check_reach(host, "long enough", **ASKS)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
@pytest.mark.parametrize("secret", ["", "seven77"])
def test_a_short_secret_is_none(host: str, secret: str) -> None:
    with pytest.raises(OptionError, match=f"^--key: expected at least 8 characters, found {len(secret)}$"):
        check_reach(host, secret, **ASKS)


def test_a_host_header_names_this_machine_or_another() -> None:
    assert all(map(is_called_here, ("127.0.0.1", "127.0.0.2:80", "localhost:8000", "[::1]", "[::1]:8000")))
    assert not any(map(is_called_here, ("", "0.0.0.0", "evil.example:8000", "127.0.0.1.evil.example", "[::2]:1", "[")))


def test_an_address_is_told_and_one_that_is_taken_is_refused() -> None:
    with listening("127.0.0.1", 0) as (opened, address):
        port = opened.getsockname()[1]
        assert address == f"http://127.0.0.1:{port}"
        told = f"127.0.0.1, port {port}: Address already in use; --port names another (0 takes a free one)"
        with pytest.raises(InputError, match=f"^{re.escape(told)}$"), listening("127.0.0.1", port):
            pass
    with socket.create_server(("127.0.0.1", port)):
        pass  # it is free again


def test_a_host_that_is_none_is_refused_in_one_line() -> None:
    with pytest.raises(InputError, match=r"^nope.invalid, port 0: [^()]+; --port"), listening("nope.invalid", 0):
        pass
