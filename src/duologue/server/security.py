"""Who may come in: keys, secrets that expire, and pages of other sites that may not.

Off loopback the server wants a key, or to be told that it needs none. See docs/security.md.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from duologue.errors import ServerError

_SHORTEST_KEY = 16  # characters
_MOST_SECRETS = 10_000
_MOSHI = "/api/chat"  # where its clients name their key in the query
_BEARER = "openai-insecure-api-key."  # how a browser, which can set no header, names its key as a sub-protocol


def read_keys(path: str | Path) -> list[str]:
    """Keys of a file, one a line; empty lines and those that begin with # are left out.

    Raises:
        ServerError: the file cannot be read, has no keys, or one that is easily guessed.
    """
    try:
        lines = Path(path).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ServerError(f"{path}: cannot read the keys ({error})") from error
    keys = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    short = [key for key in keys if len(key) < _SHORTEST_KEY]
    if not keys or short:
        raise ServerError(
            f"{path}: need at least one key, each of {_SHORTEST_KEY} characters or more, one a line; "
            f"got {len(keys)} keys, {len(short)} of them too short"
        )
    return keys


class Keys:
    """The keys that open the server, and the secrets made with them.

    Args:
        keys: none: everybody may come in.
        clock: seconds since 1970.
    """

    def __init__(self, keys: Sequence[str] = (), *, clock: Callable[[], float] = time.time):
        self._digests = [_digest(key) for key in keys]
        self._secrets: OrderedDict[bytes, tuple[float, str]] = OrderedDict()  # digest: end, who made it
        self._clock = clock

    @property
    def needed(self) -> bool:
        return bool(self._digests)

    def issue(self, seconds: float, *, by: str) -> tuple[str, int]:
        """A secret that opens the server for so long, and the time at which it ends. It counts as the key it came from.

        Raises:
            ServerError: there are too many.
        """
        self._forget_old()
        if len(self._secrets) >= _MOST_SECRETS:
            raise ServerError(f"there are {_MOST_SECRETS} secrets that have not expired yet; try again later")
        secret, end = f"ek_{secrets.token_urlsafe(32)}", self._clock() + seconds
        self._secrets[_digest(secret)] = (end, by)
        return secret, int(end)

    def holder(self, key: str | None) -> str | None:
        """Whose key this is, as a name that tells nothing of the key; None: nobody's."""
        if not self.needed:
            return "anybody"
        if not key:
            return None
        given, found = _digest(key), None
        for number, digest in enumerate(self._digests):  # all of them, so that time tells nothing
            if hmac.compare_digest(digest, given):
                found = f"key {number + 1}"
        end, by = self._secrets.get(given, (0.0, ""))
        return by if found is None and end > self._clock() else found

    def who(self, connection: HTTPConnection) -> str | None:
        """Whose key a connection carries: in the Authorization header, as a WebSocket sub-protocol, or, where Moshi's
        clients call, which can do neither, in the address."""
        scheme, _, key = connection.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and key:
            return self.holder(key.strip())
        offered = (name.strip() for name in connection.headers.get("sec-websocket-protocol", "").split(","))
        key = next((name.removeprefix(_BEARER) for name in offered if name.startswith(_BEARER)), "")
        if not key and connection.scope["path"] == _MOSHI:
            key = connection.query_params.get("worker_auth_id", "")
        return self.holder(key)

    def _forget_old(self) -> None:
        now = self._clock()
        for digest in [digest for digest, (end, _) in self._secrets.items() if end <= now]:
            del self._secrets[digest]


def check_reach(host: str, keys: Keys, *, insecure: bool) -> None:
    """Refuses to be reached from elsewhere without a key.

    Raises:
        ServerError: the address is not of this machine, and there is neither a key nor leave to go without.
    """
    if not (host == "localhost" or is_loopback(host) or keys.needed or insecure):
        raise ServerError(
            f"{host} can be reached from other machines: give keys with --api-key-file, or say --insecure if anybody "
            "may use the server"
        )


def same_site(connection: HTTPConnection, allowed: Sequence[str] = ()) -> bool:
    """No other website may use a visitor's browser to talk to this server, by its own name or by a rebound one.

    Args:
        allowed: origins such as https://example.org whose pages may.
    """
    host, origin = connection.headers.get("host", ""), connection.headers.get("origin")
    if origin is not None and origin in allowed:
        return True
    try:
        if origin is not None and urlsplit(origin).netloc != host:
            return False
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:  # no address at all
        return False
    server = connection.scope.get("server")
    return not (server and is_loopback(server[0])) or name == "localhost" or is_loopback(name)


def is_loopback(address: str) -> bool:
    """Whether an address is of this machine alone."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
