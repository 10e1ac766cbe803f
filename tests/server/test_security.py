"""Who may come in."""

from __future__ import annotations

import contextlib
import socket

import httpx
import pytest
from serving import all_free, served
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from duologue.errors import ServerError
from duologue.server.security import Keys, check_reach, read_keys

KEY, OTHER = "a-key-of-some-length", "another-key-that-is-long"


def test_keys_are_read_from_a_file_and_weak_ones_refused(tmp_path):
    file = tmp_path / "keys"
    file.write_text(f"# of the lab\n{KEY}\n\n{OTHER}  \n")
    assert read_keys(file) == [KEY, OTHER]
    for text in ("", "# nothing\n", "short\n"):
        file.write_text(text)
        with pytest.raises(ServerError, match="at least one key, each of 16"):
            read_keys(file)
    with pytest.raises(ServerError, match="cannot read"):
        read_keys(tmp_path / "none")


def test_a_secret_opens_until_it_ends_and_counts_as_the_key_that_made_it():
    now = [1000.0]
    keys = Keys([KEY, OTHER], clock=lambda: now[0])
    assert keys.holder(OTHER) == "key 2" and keys.holder("wrong") is None and keys.holder(None) is None
    secret, end = keys.issue(60, by="key 2")
    assert end == 1060 and keys.holder(secret) == "key 2"
    now[0] = 1061.0
    assert keys.holder(secret) is None
    assert Keys().holder(None) == "anybody"


@pytest.mark.parametrize(
    "host,keys,insecure,refused",
    [
        ("127.0.0.1", (), False, False),
        ("localhost", (), False, False),
        ("::1", (), False, False),
        ("0.0.0.0", (), False, True),
        ("192.168.0.4", (), False, True),
        ("0.0.0.0", (KEY,), False, False),
        ("0.0.0.0", (), True, False),
    ],
)
def test_off_loopback_a_key_is_wanted(host, keys, insecure, refused):
    if refused:
        with pytest.raises(ServerError, match="--api-key-file"):
            check_reach(host, Keys(keys), insecure=insecure)
    else:
        check_reach(host, Keys(keys), insecure=insecure)


def test_without_the_key_only_the_page_and_the_health_are_seen():
    with served(keys=[KEY]) as (address, _), httpx.Client(base_url=f"http://{address}") as client:
        for path in ("/", "/healthz", "/readyz"):
            assert client.get(path).status_code == 200
        for path in ("/metrics", "/v1/models"):
            refused = client.get(path)
            assert refused.status_code == 401 and refused.json()["error"]["code"] == "invalid_api_key"
            assert client.get(path, headers={"authorization": f"Bearer {KEY}x"}).status_code == 401
            assert client.get(path, headers={"authorization": f"Bearer {KEY}"}).status_code == 200


def test_moshis_clients_name_their_key_in_the_address_and_nobody_else_does():
    with served(keys=[KEY]) as (address, server):
        for query, opens in ((f"?worker_auth_id={OTHER}", False), ("", False), (f"?worker_auth_id={KEY}", True)):
            with contextlib.ExitStack() as stack:
                if opens:
                    line = stack.enter_context(connect(f"ws://{address}/api/chat{query}", proxy=None))
                    assert line.recv(timeout=10) == b"\x00"
                else:
                    with pytest.raises(InvalidStatus, match="401"):
                        connect(f"ws://{address}/api/chat{query}", proxy=None)
        with pytest.raises(InvalidStatus, match="401"):
            connect(f"ws://{address}/v1/realtime?worker_auth_id={KEY}", proxy=None)
        assert httpx.get(f"http://{address}/v1/models?worker_auth_id={KEY}").status_code == 401
        assert all_free(server)


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"host": "evil.example"},
        {"origin": "null"},
        {"host": "["},
        {"origin": "http://["},
    ],
    ids=["another site", "a rebound name", "no site", "no name", "no address"],
)
def test_pages_of_other_sites_may_not_use_the_server(headers):
    with served() as (address, server):
        refused = httpx.get(f"http://{address}/v1/models", headers=headers)
        assert refused.status_code == 403 and "other sites" in refused.json()["error"]["message"]
        own = httpx.get(f"http://{address}/v1/models", headers={"origin": f"http://{address}"})
        assert own.status_code == 200 and all_free(server)


def test_a_site_that_was_allowed_may():
    with served(origins=("https://good.example",)) as (address, _):
        found = httpx.get(f"http://{address}/v1/models", headers={"origin": "https://good.example"})
        assert found.status_code == 200


def asked(address: str, head: str, *, each: int = 2**16) -> bytes:
    """What comes back for a request that is sent in pieces."""
    host, port = address.split(":")
    answer = b""
    with socket.create_connection((host, int(port)), timeout=10) as line, contextlib.suppress(ConnectionError):
        data = f"{head}\r\nHost: {address}\r\n\r\n".encode()
        for begin in range(0, len(data), each):
            line.sendall(data[begin : begin + each])
        while not answer.endswith(b"}") and (more := line.recv(65_536)):
            answer += more
    return answer


UPGRADE = (
    "Connection: Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + "A" * 22 + "=="
)


@pytest.mark.parametrize("path", ["/v1/realtime", "/api/chat"])
@pytest.mark.parametrize(
    ("query", "headers"),
    [("x" * 8_200, ""), ("x" * 60_000, ""), ("", "X: " + "x" * 8_200), ("", "\r\n".join(["X: 1"] * 130))],
    ids=["long line", "longer line", "long header", "many headers"],
)
def test_a_head_too_large_for_a_websocket_is_told_so(path, query, headers):
    with served() as (address, server):
        head = f"GET {path}?text_prompt={query} HTTP/1.1\r\n{UPGRADE}" + ("\r\n" + headers if headers else "")
        answer = asked(address, head)
        assert answer.startswith(b"HTTP/1.1 431 ") and b"8190 bytes in a line, and 128 headers" in answer
        assert all_free(server)


def test_a_head_that_never_ends_is_cut_off():
    with served() as (address, _):
        assert asked(address, f"GET /?{'x' * 500_000} HTTP/1.1", each=16_384)[:12] in (b"HTTP/1.1 400", b"")


def test_the_longest_head_that_is_taken_opens_a_websocket():
    with served() as (address, _):
        rest = len("GET /api/chat?text_prompt= HTTP/1.1")
        with connect(f"ws://{address}/api/chat?text_prompt={'x' * (8_190 - rest)}", proxy=None) as line:
            assert b"at most 4000 characters" in line.recv(timeout=10)
