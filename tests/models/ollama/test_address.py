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
    address = server_address("https://me:pa%20ss@example.com:1")
    assert (address.url, address.headers) == ("https://example.com:1", {"authorization": "Basic bWU6cGEgc3M="})
    assert "bWU6" not in repr(address) and "pa" not in address.url
    monkeypatch.setenv("OLLAMA_API_KEY", "sk-1")
    assert server_address().headers == {"authorization": "Bearer sk-1"}


@pytest.mark.parametrize("form", ["box.lan", "10.0.0.5:1", "http://192.168.1.2", "[fd00::1]:1", "http://a.example/x"])
def test_a_key_of_the_environment_is_never_sent_in_clear(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_API_KEY", "sk-1")
    with pytest.raises(OptionError, match=r"OLLAMA_API_KEY would go to http://.* unencrypted; use https://"):
        server_address(form)
    # Over TLS it is, and a key that the user names goes where the user says.
    assert server_address("https://box.lan").headers == {"authorization": "Bearer sk-1"}
    assert server_address(form, "sk-2").headers == {"authorization": "Bearer sk-2"}


def test_a_password_that_others_can_read_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.warns(UserWarning, match=r"go to http://box.lan:80 unencrypted; use https://") as warned:
        address = server_address("http://me:pass@box.lan")
    assert address.headers and "pass@" not in str(warned[0].message)
    server_address("http://me:pass@127.0.0.1")  # which no one else can read: a warning would be an error here


@pytest.mark.parametrize("form", ["127.0.0.1:5000/v1", "http://me:pw@127.0.0.1:5000/v1/", "http://127.0.0.1:5000/v1"])
def test_the_address_of_another_protocol_is_said(form: str) -> None:
    with pytest.raises(OptionError, match=r"drop /v1 .*\(http://127.0.0.1:5000\), or take openai:NAME with") as found:
        server_address(form)
    assert "pw@" not in str(found.value)


@pytest.mark.parametrize(
    ("form", "local"),
    [("", True), ("localhost", True), ("127.0.0.2:1", True), ("[::1]", True), ("10.0.0.5", False), ("box.lan", False)],
)
def test_whether_a_server_is_on_this_machine(form: str, local: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OLLAMA_HOST", raising=False)
    assert server_address(form).is_local is local
