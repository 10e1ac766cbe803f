"""The page's server, over real sockets: turns by button and hands-free, interruption, the seat, and strangers."""

from __future__ import annotations

import contextlib
import json
import threading
import time
import urllib.request

import numpy as np
import pytest
import uvicorn
from fakes import ANSWER, EchoConfig, EchoModel, tone
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from duologue.audio import io
from duologue.errors import DuologueError, ServerError
from duologue.pipeline import Conversation, Pipeline
from duologue.server import messages
from duologue.server.app import bind, create_app
from duologue.server.talk import TalkConfig


@contextlib.contextmanager
def served(model: EchoModel | None = None, **settings):
    """A running server; gives its address."""
    pipeline = Pipeline(model or EchoModel(), name="echo")
    with bind("127.0.0.1", 0) as listener:
        settings_ = uvicorn.Config(
            create_app(pipeline, config=TalkConfig(**settings)),
            log_level="warning",
            ws_max_size=messages.LONGEST_SOUND,
            timeout_graceful_shutdown=1,
        )
        server = uvicorn.Server(settings_)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(10)


class Client:
    """What the page does, without ears and eyes."""

    def __init__(self, address: str, **kwargs):
        self._open = contextlib.ExitStack()
        self.socket = self._open.enter_context(connect(f"ws://{address}/talk", **kwargs))
        self.first = self.event()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_) -> None:
        self._open.close()

    def tell(self, kind: str, **values) -> None:
        self.socket.send(json.dumps({"type": kind, **values}))

    def say(self, samples: np.ndarray, *, block: int = 1_024) -> None:
        for begin in range(0, len(samples), block):
            self.socket.send(io.encode_pcm16(samples[begin : begin + block]))

    def event(self):
        received = self.socket.recv(timeout=20)
        return received if isinstance(received, bytes) else json.loads(received)

    def until(self, kind: str) -> list:
        events = [self.event()]
        while isinstance(events[-1], bytes) or events[-1]["type"] != kind:
            events.append(self.event())
        return events

    def ask(self, samples: np.ndarray, *, rate: int = 16_000) -> list:
        self.tell("hello", rate=rate)
        self.tell("begin", played=None)
        self.say(samples)
        self.tell("end")
        return self.until("done")


def texts(events: list) -> str:
    return "".join(event["text"] for event in events if not isinstance(event, bytes) and event["type"] == "text")


def test_the_page_and_the_state_of_the_seat_are_served():
    with served() as address:
        with urllib.request.urlopen(f"http://{address}/") as page:
            text = page.read().decode()
            assert page.headers["content-type"].startswith("text/html") and "/talk" in text
            assert "https://" not in text.replace("https: browsers", "")  # nothing is fetched from elsewhere
        with urllib.request.urlopen(f"http://{address}/health") as health:
            assert json.load(health) == {"model": "echo", "free": True}


@pytest.mark.parametrize("rate", [16_000, 48_000, 44_100])
def test_a_held_button_is_one_question(rate):
    with served() as address, Client(address) as client:
        assert client.first == {"type": "ready", "model": "echo", "rate": 24_000}
        events = client.ask(tone(1.0, rate=rate), rate=rate)
        assert events[0] == {"type": "listening"}
        heard = [event for event in events if not isinstance(event, bytes) and event["type"] == "heard"]
        assert heard[-1] == {"type": "heard", "text": "sound for 13 ticks in turn 1", "final": True}
        assert texts(events) == ANSWER
        audio = io.decode_pcm16(b"".join(event for event in events if isinstance(event, bytes)))
        assert len(audio) == 14_400 and np.abs(audio).max() == pytest.approx(0.3, abs=0.01)
        assert events[-1]["metrics"]["text"] == ANSWER
        assert client.ask(tone(0.4, rate=rate), rate=rate)[-1]["metrics"]["transcript"].endswith("in turn 2")


def test_silence_gets_no_answer_and_a_short_press_a_hint():
    with served() as address, Client(address) as client:
        events = client.ask(np.zeros(16_000))
        assert [event["type"] for event in events] == ["listening", "heard", "done"]
        client.tell("begin", played=None)
        client.say(tone(0.1))
        client.tell("end")
        assert "very short" in client.until("notice")[-1]["message"]
        assert client.ask(tone(0.4))[-1]["metrics"]["transcript"] == "sound for 5 ticks in turn 2"


class Loudness:
    """Voice activity by level, so that a tone is a voice."""

    def init_state(self, slots):
        return None

    def __call__(self, window_BN, state):
        return window_BN.abs().amax(1).gt(0.05).float()


@pytest.mark.parametrize("tidying", [0.0, 0.3])  # seconds between telling that it is done and the answer's end
def test_hands_free_finds_the_turns(monkeypatch, tidying):
    def answer(conversation, answer=Conversation.answer):
        yield from answer(conversation)
        time.sleep(tidying)

    monkeypatch.setattr(Conversation, "answer", answer)
    monkeypatch.setattr("duologue.server.app.VoiceActivity.load", Loudness)
    with served() as address, Client(address) as client:
        client.tell("hello", rate=16_000)
        client.tell("hands_free", on=True)
        for turn in (1, 2):
            client.say(np.concatenate([np.zeros(8_000), tone(1.0), np.zeros(12_000)]))
            events = client.until("done")
            assert events[0] == {"type": "speech"}
            assert events[-1]["metrics"]["transcript"].startswith("sound for 13 ticks")
            assert events[-1]["metrics"]["transcript"].endswith(f"in turn {turn}")
            assert 1.8 < events[-1]["metrics"]["question_seconds"] < 2.2  # 0.4 s before, 0.6 s of silence after


class Slow(EchoModel):
    def __init__(self):
        super().__init__(EchoConfig(audio_ticks=400))

    def speak(self, state, live_B):
        time.sleep(0.02)
        return super().speak(state, live_B)


def test_a_new_question_cuts_the_answer_short():
    model = Slow()
    with served(model) as address, Client(address) as client:
        client.tell("hello", rate=16_000)
        client.tell("begin", played=None)
        client.say(tone(0.4))
        client.tell("end")
        while not isinstance(client.event(), bytes):
            pass
        client.tell("begin", played=0.5)
        client.say(tone(0.8))
        stale = client.until("listening")
        assert not any(not isinstance(event, bytes) and event["type"] == "done" for event in stale)
        assert model.truncated == [6]
        client.tell("end")
        client.until("heard")
        client.tell("stop", played=0.0)
        client.until("listening")
        assert model.truncated == [6, 0]


def test_one_visitor_talks_the_next_is_told_and_gets_the_seat_later():
    with served() as address:
        with Client(address) as first, Client(address) as second:
            assert second.first["type"] == "busy" and "Somebody else" in second.first["message"]
            with pytest.raises(ConnectionClosed) as closed:
                second.event()
            assert closed.value.rcvd.code == 1013
            assert first.ask(tone(0.4))[-1]["type"] == "done"
        for _ in range(100):
            with Client(address) as third:
                if third.first["type"] == "ready":
                    break
            time.sleep(0.05)
        else:
            pytest.fail("the seat was not given back")


def test_a_visitor_who_vanishes_in_the_middle_of_an_answer_frees_the_seat():
    with served(Slow()) as address:
        client = Client(address)
        client.tell("hello", rate=16_000)
        client.tell("begin", played=None)
        client.say(tone(0.4))
        client.tell("end")
        client.until("heard")
        client.socket.socket.close()
        for _ in range(200):
            with urllib.request.urlopen(f"http://{address}/health") as health:
                if json.load(health)["free"]:
                    return
            time.sleep(0.05)
        pytest.fail("the seat was not given back")


def test_a_silent_visitor_loses_the_seat():
    with served(idle=0.3) as address, Client(address) as client:
        client.tell("hello", rate=16_000)
        client.tell("hands_free", on=True)
        with pytest.raises(ConnectionClosed) as closed:
            for _ in range(100):
                client.say(np.zeros(1_024))  # a microphone that hears nothing is no sign of life
                time.sleep(0.02)
            client.until("never")
        assert closed.value.rcvd.code == 1000


def test_an_endless_question_is_ended():
    with served(longest_question=1.0) as address, Client(address) as client:
        client.tell("hello", rate=16_000)
        client.tell("begin", played=None)
        client.say(tone(1.5))
        events = client.until("done")
        assert any(not isinstance(e, bytes) and e["type"] == "notice" and "1 seconds" in e["message"] for e in events)
        assert events[-1]["metrics"]["transcript"].startswith("sound for")


def test_an_error_in_a_turn_is_told_and_the_next_turn_works():
    class Broken(EchoModel):
        broken = True

        def end_turn(self, state, live_B):
            if self.broken:
                self.broken = False
                raise DuologueError("the context is full")
            super().end_turn(state, live_B)

    with served(Broken()) as address, Client(address) as client:
        client.tell("hello", rate=16_000)
        client.tell("begin", played=None)
        client.say(tone(0.4))
        client.tell("end")
        assert client.until("error")[-1]["message"] == "the context is full"
        assert client.ask(tone(0.4))[-1]["metrics"]["transcript"] == "sound for 5 ticks in turn 1"


@pytest.mark.parametrize(
    "message",
    [
        "not json",
        "[]",
        '{"type": "nothing"}',
        '{"type": "hello", "rate": 7}',
        '{"type": "hello", "rate": "16000"}',
        '{"type": "hello", "rate": true}',
        '{"type": "begin", "played": -1}',
        '{"type": "begin", "played": NaN}',
        '{"type": "stop", "played": "x"}',
        "[" * 1_000,
        "x" * 5_000,
        b"abc",
    ],
)
def test_a_stranger_who_breaks_the_protocol_is_told_and_dropped(message):
    with pytest.raises(ServerError):
        messages.parse(message)


def test_dropping_a_stranger_frees_the_seat():
    with served() as address:
        with Client(address) as client:
            client.socket.send("not json")
            assert client.event() == {"type": "error", "message": "message: not JSON"}
            with pytest.raises(ConnectionClosed) as closed:
                client.event()
            assert closed.value.rcvd.code == 1008
        with Client(address) as client, pytest.raises(ConnectionClosed) as closed:
            client.socket.send(bytes(messages.LONGEST_SOUND + 2))
            client.until("never")
        assert closed.value.rcvd.code == 1009


def test_sound_before_hello_is_an_error_and_not_the_end():
    with served() as address, Client(address) as client:
        client.tell("begin", played=None)
        client.say(tone(0.1))
        assert "hello must come first" in client.until("error")[-1]["message"]
        assert client.ask(tone(0.4))[-1]["type"] == "done"


@pytest.mark.parametrize("headers", [{"Origin": "http://elsewhere.example"}, {"Host": "elsewhere.example"}])
def test_other_websites_cannot_use_the_visitors_browser(headers):
    with served() as address:
        host = headers.get("Host")
        with pytest.raises(InvalidStatus) as refused:
            if host:  # a name that was rebound to this machine
                Client(host, sock=_socket(address), proxy=None)
            else:
                Client(address, additional_headers=headers)
        assert refused.value.response.status_code == 403


def _socket(address: str):
    import socket

    host, port = address.split(":")
    return socket.create_connection((host, int(port)))
