"""`OLLAMA_HOST` in every form that Ollama takes."""

import pytest
from ollama._client import _parse_host

from sleicl_chains.errors import OptionError
from sleicl_chains.models.ollama.address import server_address

FORMS = [
    "1.2.3.4", ":56789", "1.2.3.4:56789", "http://1.2.3.4", "https://1.2.3.4", "https://1.2.3.4:56789", "example.com",
    "example.com:56789", "http://example.com", "https://example.com", "example.com/", "example.com:56789/",
    "example.com/path", "example.com:56789/path/", "https://example.com:56789/path/",
    "[0001:002:003:0004::1]:56789", "http://[1:2:3:4::1]", "localhost", "localhost:80",
]  # fmt: skip


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OLLAMA_API_KEY", raising=False)


@pytest.mark.parametrize("form", FORMS)
def test_the_address_is_the_one_that_the_ollama_package_finds(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = _parse_host(form).replace("0001:002:003:0004::1", "1:2:3:4::1")
    assert server_address(form).url == expected
    monkeypatch.setenv("OLLAMA_HOST", form)
    assert server_address().url == expected


@pytest.mark.parametrize(
    ("form", "url"),
    [
        ("", "http://127.0.0.1:11434"),
        ("  '127.0.0.1:5000' ", "http://127.0.0.1:5000"),  # quoted in a service's file
        ("0.0.0.0", "http://127.0.0.1:11434"),  # what a server listens on is no address to connect to
        ("0.0.0.0:5000", "http://127.0.0.1:5000"),
        ("http://0.0.0.0:5000", "http://127.0.0.1:5000"),
        ("[::]:5000", "http://[::1]:5000"),
        ("::1", "http://[::1]:11434"),
    ],
)
def test_forms_that_only_a_server_understands(form: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", form)
    assert server_address().url == url


@pytest.mark.parametrize("form", ["ftp://x", "http://not a host", "host:port", "localhost:99999", "http://[::1"])
def test_what_is_no_address_is_said(form: str) -> None:
    with pytest.raises(OptionError, match="There is no Ollama server at .*expected HOST, HOST:PORT or http"):
        server_address(form)


def test_an_explicit_address_comes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", "far.example:1")
    assert server_address("near.example:2").url == "http://near.example:2"


def test_passwords_and_keys_are_sent_but_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    address = server_address("http://me:pa%20ss@example.com:1")
    assert (address.url, address.headers) == ("http://example.com:1", {"authorization": "Basic bWU6cGEgc3M="})
    assert "bWU6" not in repr(address) and "pa" not in address.url
    monkeypatch.setenv("OLLAMA_API_KEY", "sk-1")
    assert server_address().headers == {"authorization": "Bearer sk-1"}


@pytest.mark.parametrize(
    ("form", "local"),
    [("", True), ("localhost", True), ("127.0.0.2:1", True), ("[::1]", True), ("10.0.0.5", False), ("box.lan", False)],
)
def test_whether_a_server_is_on_this_machine(form: str, local: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OLLAMA_HOST", raising=False)
    assert server_address(form).is_local is local
