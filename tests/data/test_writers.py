from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from duologue.codecs.text import Message
from duologue.data.writers import EndpointConfig, EndpointModel
from duologue.errors import ConfigError, DataError


class Endpoint(ThreadingHTTPServer):
    """Echoes the last message; answers with the statuses it is given first."""

    def __init__(self, statuses: list[int], reply: str = ""):
        self.statuses, self.reply, self.seen = statuses, reply, []
        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def model(self, **changes) -> EndpointModel:
        self.waits: list[float] = []
        config = EndpointConfig(url=f"http://127.0.0.1:{self.server_port}/v1", model="tiny", **changes)
        return EndpointModel(config, key="secret", wait=self.waits.append)


class Handler(BaseHTTPRequestHandler):
    server: Endpoint

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append((self.path, self.headers["Authorization"], body))
        status = self.server.statuses.pop(0) if self.server.statuses else 200
        text = self.server.reply or "Echo: " + body["messages"][-1]["content"]
        data = json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}) if status == 200 else "no"
        self.send_response(status)
        self.end_headers()
        self.wfile.write(data.encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def serve():
    servers = []

    def start(statuses=(), reply="") -> Endpoint:
        servers.append(Endpoint(list(statuses), reply))
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def chats(count: int) -> list[list[Message]]:
    return [[Message("system", "Be brief."), Message("user", f"question {n}")] for n in range(count)]


def test_many_chats_come_back_in_order(serve):
    server = serve()
    texts = server.model(concurrency=3).complete(chats(8), max_tokens=9, temperature=0.5, seed=4)
    assert texts == [f"Echo: question {n}" for n in range(8)]
    path, key, body = server.seen[0]
    assert (path, key) == ("/v1/chat/completions", "Bearer secret")
    assert (body["model"], body["max_tokens"], body["temperature"], body["seed"]) == ("tiny", 9, 0.5, 4)
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}


def test_what_passes_is_tried_again_after_longer_and_longer_waits(serve):
    server = serve([429, 503])
    model = server.model()
    assert model.complete(chats(1), max_tokens=9) == ["Echo: question 0"]
    assert server.waits == [1.0, 2.0]


def test_it_gives_up_after_the_last_try(serve):
    server = serve([500] * 9)
    with pytest.raises(DataError, match="failed 3 times"):
        server.model(retries=2).complete(chats(1), max_tokens=9)


def test_a_refusal_is_not_repeated(serve):
    server = serve([401])
    with pytest.raises(DataError, match="HTTP 401"):
        server.model().complete(chats(1), max_tokens=9)
    assert len(server.seen) == 1


def test_the_opening_comes_first_once(serve):
    assert serve(reply="how do planes fly?").model().complete(chats(1), max_tokens=9, opening="How do") == [
        "how do planes fly?"
    ]
    assert serve(reply="planes fly?").model().complete(chats(1), max_tokens=9, opening="How do") == [
        "How do planes fly?"
    ]


def test_an_address_that_is_none_is_refused():
    with pytest.raises(ConfigError, match="http"):
        EndpointConfig(url="localhost:8000", model="x")
    with pytest.raises(DataError, match="failed 1 times"):
        EndpointModel(EndpointConfig(url="http://127.0.0.1:1/v1", model="x", retries=0)).complete(
            chats(1), max_tokens=1
        )
