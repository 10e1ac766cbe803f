"""The protocol over real sockets: a scripted client, the old names, secrets, a full house, slow readers, hang-ups."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import threading

import httpx
import pytest
from fakes import ANSWER, EchoConfig, EchoModel, tone
from openai.types.beta.realtime import RealtimeServerEvent
from openai.types.realtime import ClientSecretCreateResponse
from pydantic import TypeAdapter
from realtime_talk import RATE, Order, all_free, kinds, message, of, one, served, silence, valid
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from duologue.audio import io
from duologue.server.realtime import RealtimeLimits

OLD = TypeAdapter(RealtimeServerEvent)
OLD_MODEL = "?model=gpt-realtime"  # the old types know no other


class Client:
    """Speaks to the server event by event."""

    def __init__(self, address: str, *, query: str = "?model=mini", beta: bool = False, **options):
        if beta:
            options["additional_headers"] = {"OpenAI-Beta": "realtime=v1"}
        self._open = contextlib.ExitStack()
        url = f"ws://{address}/v1/realtime{query}"
        self.socket = self._open.enter_context(connect(url, max_size=None, proxy=None, close_timeout=1.0, **options))
        self.order, self._beta = Order(), beta

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._open.close()

    def send(self, kind: str, **fields):
        self.socket.send(json.dumps({"type": kind, **fields}))

    def say(self, *pieces):
        for piece in pieces:
            for begin in range(0, len(piece), 1920):
                data = io.encode_pcm16(piece[begin : begin + 1920])
                self.send("input_audio_buffer.append", audio=base64.b64encode(data).decode())

    def event(self):
        event = json.loads(self.socket.recv(timeout=20))
        if self._beta:
            OLD.validate_python(event)
        else:
            valid(event)
            self.order.take(event)
        return event

    def until(self, kind: str):
        events = [self.event()]
        while events[-1]["type"] != kind:
            events.append(self.event())
        return events


def test_a_conversation_over_a_socket():
    with served() as (address, engine), Client(address) as client:
        assert client.event()["session"]["model"] == "mini"
        client.say(tone(1.0, rate=RATE), silence(1.0))
        done = client.until("rate_limits.updated")[-2]["response"]
        assert done["output"][0]["content"][0]["transcript"] == ANSWER
        client.send("conversation.item.create", item=message("Hello"))
        client.send("response.create")
        assert client.until("rate_limits.updated")[-2]["response"]["status"] == "completed"
        client.socket.close()
        assert all_free(engine, 3)


def test_the_old_names_are_spoken_to_who_asks_for_them():
    with served() as (address, _), Client(address, query=OLD_MODEL, beta=True) as client:
        session = client.event()["session"]
        assert session["modalities"] == ["text", "audio"] and session["input_audio_format"] == "pcm16"
        old = {"modalities": ["text", "audio"], "voice": "alloy", "turn_detection": {"type": "server_vad"}}
        client.send("session.update", session={**old, "input_audio_transcription": {"model": "whisper-1"}})
        session = client.until("session.updated")[-1]["session"]
        assert session["voice"] == "alloy" and session["input_audio_transcription"] == {"model": "whisper-1"}
        client.say(tone(1.0, rate=RATE), silence(1.0))
        events = [event for event in client.until("rate_limits.updated") if "transcription" not in event["type"]]
        assert kinds([event for event in events if not event["type"].endswith("delta")]) == [
            "input_audio_buffer.speech_started",
            "input_audio_buffer.speech_stopped",
            "input_audio_buffer.committed",
            "conversation.item.created",
            "response.created",
            "response.output_item.added",
            "conversation.item.created",
            "response.content_part.added",
            "response.audio.done",
            "response.audio_transcript.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.done",
            "rate_limits.updated",
        ]
        assert of(events, "response.audio.delta") and of(events, "response.audio_transcript.delta")
        response = one(events, "response.done")["response"]
        assert response["output"][0]["content"][0]["type"] == "audio" and response["modalities"] == ["text", "audio"]
        part = {"type": "text", "text": "Before."}
        client.send("conversation.item.create", item={"type": "message", "role": "assistant", "content": [part]})
        assert client.until("conversation.item.created")[-1]["item"]["content"] == [part]
        client.send("response.create", response={"modalities": ["text"], "max_response_output_tokens": "inf"})
        assert "response.text.delta" in kinds(client.until("response.done"))
        client.send("nonsense")
        assert client.until("error")[-1]["error"]["param"] == "type"


def test_old_transcription_sessions_are_understood():
    with served() as (address, _), Client(address, query="?intent=transcription", beta=True) as client:
        client.socket.recv()
        client.send("transcription_session.update", session={"input_audio_transcription": {"model": "whisper-1"}})
        client.until("transcription_session.updated")
        client.say(tone(1.0, rate=RATE), silence(1.0))
        client.until("conversation.item.input_audio_transcription.completed")


def test_a_secret_begins_its_sessions_with_what_it_was_made_for():
    with served() as (address, _):
        url = f"http://{address}/v1/realtime/client_secrets"
        session = {"type": "realtime", "instructions": "Be brief.", "audio": {"input": {"turn_detection": None}}}
        answer = httpx.post(url, json={"session": session}).json()
        ClientSecretCreateResponse.model_validate(answer)
        protocols = ["realtime", f"openai-insecure-api-key.{answer['value']}"]
        with Client(address, subprotocols=protocols) as client:
            assert client.socket.subprotocol == "realtime"
            shown = client.event()["session"]
            assert shown["instructions"] == "Be brief." and shown["audio"]["input"]["turn_detection"] is None
        assert httpx.post(url, content=b"").json()["value"].startswith("ek_")
        refused = httpx.post(url, json={"session": {"type": "poem"}})
        assert refused.status_code == 400 and refused.json()["error"]["param"] == "session.type"
        assert httpx.post(url, content=b"[" * 200_000).status_code == 400


def test_a_full_server_says_so_at_once():
    with served(slots=1) as (address, engine):
        with Client(address), Client(address) as second:
            error = second.event()["error"]
            assert (error["code"], error["type"]) == ("server_busy", "server_error")
            with pytest.raises(ConnectionClosed) as closed:
                second.event()
            assert closed.value.rcvd.code == 1013
        assert all_free(engine, 1)
        with Client(address) as third:
            assert third.event()["type"] == "session.created"


def narrow(address: str) -> socket.socket:
    """A connection in which little is on its way: some systems keep many megabytes for who does not read."""
    host, port = address.split(":")
    line = socket.socket()
    line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    line.connect((host, int(port)))
    return line


def test_who_does_not_read_loses_the_session_and_nobody_else_does():
    limits = RealtimeLimits(waiting_size=100_000, slowest=1.0)
    with (
        served(limits=limits) as (address, engine),
        Client(address, max_queue=1, compression=None, sock=narrow(address)) as slow,
        Client(address) as other,
    ):
        with contextlib.suppress(ConnectionClosed):
            for _ in range(400):  # texts of 32,000 characters, each of which comes back twice
                slow.send("conversation.item.create", item=message("x" * 32_000))
        assert all_free(engine, 2)
        other.send("session.update", session={"type": "realtime", "output_modalities": ["text"]})
        assert other.until("session.updated")


def test_hang_ups_give_every_place_back():
    with served(EchoModel(EchoConfig(audio_ticks=500)), slots=4) as (address, engine):

        def hang_up():
            client = Client(address)
            client.say(tone(0.5, rate=RATE))
            client.send("response.create")
            client.send("response.create", response={"conversation": "none"})
            client.socket.socket.close()

        for _ in range(3):
            threads = [threading.Thread(target=hang_up) for _ in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert all_free(engine, 4)
