"""A text model over the Responses API: a small server of the test's own stands for it."""

from __future__ import annotations

import contextlib
import http.server
import json
import queue
import threading

import pytest

from duologue.errors import ConfigError, ServerError
from duologue.server.openai_live import RemoteTextModel, TextModelConfig

EVENTS = [{"type": "response.created"}, {"type": "response.output_text.delta", "delta": "Hi – there."}]


@contextlib.contextmanager
def answering(body: bytes, *, status: int = 200):
    """A server that answers every request so. Gives its address, and the requests."""
    requests = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            data = self.rfile.read(int(self.headers["content-length"]))
            requests.append((self.path, dict(self.headers), json.loads(data)))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1", requests
        server.shutdown()
        thread.join(5)


def asked(config: TextModelConfig):
    """Everything that comes of a request."""
    came = queue.Queue()
    RemoteTextModel(config).ask({"model": "m", "input": []}, came.put)
    found = [came.get(timeout=10)]
    while isinstance(found[-1], dict):
        found.append(came.get(timeout=10))
    return found


def stream(*events) -> bytes:
    return "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events).encode()


def test_events_come_as_they_are_streamed_and_the_key_goes_along(tmp_path):
    (key := tmp_path / "key").write_text("secret\n")
    with answering(stream(*EVENTS) + b"data: [DONE]\n\n") as (url, requests):
        assert asked(TextModelConfig(url=url, key_file=str(key))) == [*EVENTS, None]
        ((path, headers, body),) = requests
        assert path == "/v1/responses" and headers["Authorization"] == "Bearer secret"
        assert body == {"model": "m", "input": [], "stream": True}


@pytest.mark.parametrize(("body", "status"), [(b"", 500), (b"data: {\n\n", 200)])
def test_what_goes_wrong_is_told(body, status):
    with answering(body, status=status) as (url, _):
        (error,) = asked(TextModelConfig(url=url))
        assert isinstance(error, ServerError) and "the text model" in str(error)


def test_nobody_there_is_told():
    with answering(b"") as (url, _):
        pass
    (error,) = asked(TextModelConfig(url=url))
    assert "does not answer" in str(error)


def test_settings_that_make_no_sense_are_refused(tmp_path):
    for settings in ({"url": "localhost:1"}, {"timeout": 0}):
        with pytest.raises(ConfigError):
            TextModelConfig(**settings)
    with pytest.raises(ConfigError, match="cannot read"):
        RemoteTextModel(TextModelConfig(url="http://x", key_file=str(tmp_path / "none")))
