"""The Live API over real sockets: the unmodified `openai` client, sockets at the side, WebRTC, hang-ups."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import socket
import threading
import time

import httpx
import numpy as np
import pytest
from fakes import ANSWER, DuplexEcho, EchoConfig, EchoModel, tone
from live_server import PATH, Caller, all_free, served
from live_talk import heard, loud_seconds, of, one, silence, transcript, valid
from openai import AsyncOpenAI, OpenAI
from openai.lib.live import AsyncTranscriptGrouper
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from duologue.audio import io
from duologue.server.realtime import CallLimits, RealtimeLimits

QUESTION = tone(0.8, rate=24_000)


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 100))


class Sdk:
    """The `openai` package's client, which speaks as a microphone does."""

    def __init__(self, address: str, **session):
        self._client = AsyncOpenAI(
            base_url=f"http://{address}/v1", websocket_base_url=f"ws://{address}/v1", api_key="x"
        )
        self._session = {"model": "mini", **session}
        self.events, self.voice = [], np.zeros(0, np.float32)

    async def __aenter__(self):
        self._manager = self._client.live.connect()
        self.connection = await self._manager.__aenter__()
        await self.connection.session.start(session=self._session)
        assert (await self.event())["type"] == "session.started"
        self._microphone = asyncio.ensure_future(self._speak())
        return self

    async def __aexit__(self, *_):
        self._microphone.cancel()
        await asyncio.gather(self._microphone, return_exceptions=True)
        await self._manager.__aexit__(None, None, None)
        await self._client.close()

    async def _speak(self):
        begin, sent = time.monotonic(), 0
        while True:
            block, self.voice = self.voice[:960], self.voice[960:]
            data = io.encode_pcm16(np.pad(block, (0, 960 - len(block))))
            await self.connection.session.input_audio.append(audio=base64.b64encode(data).decode())
            sent += 960
            await asyncio.sleep(max(0.0, begin + sent / 24_000 - time.monotonic()))

    async def event(self):
        event = await asyncio.wait_for(self.connection.recv(), 20)
        found = event.to_dict()
        valid(found)
        self.events.append(found)
        return found

    async def until(self, happens):
        count = len(self.events)
        while not happens(self.events[count:]):
            await self.event()
        return self.events[count:]


def test_the_openai_client_talks_with_a_family_of_turns_and_interrupts_it():
    async def talk(address):
        async with Sdk(address, instructions="Be brief.") as sdk:
            sdk.voice = QUESTION
            events = await sdk.until(lambda events: loud_seconds(heard(events)) > 0.3)
            assert transcript(events, "input") and transcript(events)
            sdk.voice = QUESTION  # over the answer
            await sdk.until(lambda events: len(heard(events)) > 24_000 and loud_seconds(heard(events)[-9_600:]) == 0)
            await sdk.until(lambda events: of(events, "session.input_transcript.delta"))
            await sdk.connection.session.close()
            closed = (await sdk.until(lambda events: of(events, "session.closed")))[-1]
            assert closed["reason"] == "close_requested" and closed["usage"]["seconds"] > 1

    with served(model := EchoModel(EchoConfig(audio_ticks=100))) as (address, engine):
        run(talk(address))
        assert all_free(engine) and model.truncated


def test_the_openai_client_talks_with_a_duplex_family_and_groups_what_was_said():
    async def talk(address):
        async with Sdk(address) as sdk, AsyncTranscriptGrouper() as grouper:
            sdk.voice = tone(1.2, rate=24_000)
            events = await sdk.until(lambda events: len(heard(events)) > 3 * 24_000)
            assert loud_seconds(heard(events)) == pytest.approx(1.2, abs=0.1)
            assert transcript(events).startswith("abcdefgh")
            for event in sdk.events:
                await grouper.push(sdk.connection.parse_event(json.dumps(event)))
            await sdk.connection.session.commentary.append(content="It is sunny.", delegation_id=None)
            await sdk.until(lambda events: "It is sunny." in transcript(events))

    with served(DuplexEcho()) as (address, engine):
        run(talk(address))
        assert all_free(engine)


def test_the_openai_client_answers_what_is_delegated_to_it_and_what_functions_are_called():
    def look(transcript, tools, **_):
        return ("look", "{}") if tools else None

    tool = {"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}}

    async def talk(address):
        async with Sdk(address, delegation={"type": "client"}) as sdk:
            sdk.voice = QUESTION
            events = await sdk.until(lambda events: of(events, "session.delegation.created"))
            name = events[-1]["delegation"]["id"]
            await sdk.connection.session.commentary.append(content="It is sunny.", delegation_id=name)
            await sdk.until(lambda events: "It is sunny." in transcript(events))
        async with Sdk(address, delegation={"type": "responses", "responses": {"model": "m", "tools": [tool]}}) as sdk:
            sdk.voice = QUESTION
            events = await sdk.until(
                lambda events: any(
                    each["event"]["type"] == "response.completed" for each in of(events, "response.event")
                )
            )
            inner = [each["event"] for each in of(events, "response.event")]
            call = one(inner, "response.output_item.done")["item"]
            output = {"type": "function_call_output", "call_id": call["call_id"], "output": "fine"}
            await sdk.connection.response.item.create(item=output)
            await sdk.connection.response.create()
            await sdk.until(lambda events: ANSWER in transcript(events))

    with served(router=look) as (address, _):
        run(talk(address))


class Plain:
    """A client event by event."""

    def __init__(self, address: str, path: str = "", **options):
        self._open = contextlib.ExitStack()
        url = f"ws://{address}{PATH}{path}"
        self.socket = self._open.enter_context(connect(url, max_size=None, proxy=None, close_timeout=1.0, **options))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._open.close()

    def send(self, kind, **fields):
        self.socket.send(json.dumps({"type": kind, **fields}))

    def event(self):
        event = json.loads(self.socket.recv(timeout=20))
        valid(event)
        return event

    def until(self, kind):
        events = [self.event()]
        while events[-1]["type"] != kind:
            events.append(self.event())
        return events


def test_a_socket_at_the_side_sees_everything_and_speaks_for_the_session():
    with served(DuplexEcho()) as (address, engine), Plain(address) as client:
        client.send(
            "session.start", session={"model": "mini", "audio": {"format": {"type": "audio/pcmu", "rate": 8_000}}}
        )
        name = client.until("session.started")[-1]["session"]["id"]
        with Plain(address, f"/{name}/attach") as side:
            side.send("session.commentary.append", content="It is sunny.", delegation_id=None)
            client.send("session.input_audio.append", audio=base64.b64encode(b"\xff" * 640).decode())
            events = side.until("session.output_transcript.delta")
            sound = side.until("session.output_audio.delta")[-1]
            assert sound["end_ms"] > sound["start_ms"] and set(sound) == {"type", "delta", "start_ms", "end_ms"}
            assert of(client.until("session.commentary.appended"), "session.commentary.appended")
            events += side.until("session.input_audio.append") if not of(events, "session.input_audio.append") else []
            for kind, fields in [("session.start", {"session": {}}), ("session.input_audio.append", {"audio": "AAAA"})]:
                side.send(kind, **fields)
                assert one(side.until("error"), "error")["error"]["code"] == "event_not_allowed"
            side.send("session.close")
            assert side.until("session.closed")[-1]["reason"] == "close_requested"
        client.until("session.closed")
        assert all_free(engine)
        with Plain(address, f"/{name}/attach") as late:
            assert late.event()["error"]["code"] == "session_not_found"


def test_a_session_is_hung_up_over_http_and_what_there_is_not_says_so():
    with served() as (address, engine), Plain(address) as client:
        client.send("session.start", session={"model": "mini"})
        name = client.until("session.started")[-1]["session"]["id"]
        sdk = OpenAI(base_url=f"http://{address}/v1", api_key="x", max_retries=0)
        sdk.live.sessions.hangup(name)
        assert client.until("session.closed")[-1]["reason"] == "close_requested"
        assert all_free(engine)
        assert httpx.post(f"http://{address}{PATH}/{name}/hangup").status_code == 404
        assert httpx.post(f"http://{address}{PATH}/{name}/fork").status_code == 501
        assert httpx.get(f"http://{address}{PATH}/{name}/content").json()["error"]["code"] == "not_supported"
        sdk.close()


def test_a_full_server_says_so_at_once():
    with served(slots=1) as (address, engine), Plain(address) as first, Plain(address) as second:
        first.send("session.start", session={"model": "mini"})
        first.until("session.started")
        second.send("session.start", session={"model": "mini"})
        assert second.event()["error"]["code"] == "server_busy"
        with pytest.raises(ConnectionClosed) as closed:
            second.event()
        assert closed.value.rcvd.code in (1000, 1013)
        first.socket.close()
        assert all_free(engine)


def test_hang_ups_and_garbage_give_every_place_back():
    with served(DuplexEcho(), slots=4) as (address, engine):

        def hang_up(number):
            client = Plain(address)
            with contextlib.suppress(ConnectionClosed):
                client.send("session.start", session={"model": "mini"})
                client.socket.send(b"\x00\xff" * number)
                client.socket.send("{" * number)
                client.send("session.input_audio.append", audio=base64.b64encode(bytes(9_600)).decode())
            client.socket.socket.close()

        for _ in range(3):
            threads = [threading.Thread(target=hang_up, args=(number,)) for number in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert all_free(engine)


def narrow(address: str) -> socket.socket:
    """A connection in which little is on its way: some systems keep many megabytes for who does not read."""
    host, port = address.split(":")
    line = socket.socket()
    line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    line.connect((host, int(port)))
    return line


def test_who_does_not_read_loses_the_session():
    limits = RealtimeLimits(waiting_size=100_000, slowest=1.0, instructions=16_000)
    with served(limits=limits) as (address, engine):
        client = Plain(address, max_queue=1, compression=None, sock=narrow(address))
        client.send("session.start", session={"model": "mini", "instructions": "x" * 16_000})
        client.until("session.started")
        with contextlib.suppress(ConnectionClosed, OSError):
            for _ in range(800):
                client.send("session.update", session={})  # each brings all of the settings back
        assert all_free(engine)
        client.socket.socket.close()


@pytest.mark.parametrize("model", [lambda: EchoModel(EchoConfig(audio_ticks=20)), DuplexEcho])
def test_a_conversation_over_webrtc(model):
    async def talk(address):
        async with Caller(address, instructions="Be brief.") as caller:
            started = (await caller.until("session.started"))[-1]["session"]
            assert started["id"] == caller.id and "format" not in started["audio"]
            caller.voice.say(QUESTION)
            await caller.until("session.output_transcript.delta")
            caller.voice.say(silence(1.0))
            while max(caller.sound[-50:], default=0) < 0.1:
                await caller.hears(10)
            caller.send("session.input_audio.append", audio="AAAA")
            assert one(await caller.until("error"), "error")["error"]["code"] == "event_not_allowed"
            assert not of(caller.events, "session.output_audio.delta")
            caller.send("session.close")
            assert (await caller.until("session.closed"))[-1]["reason"] == "close_requested"

    with served(model()) as (address, engine):
        run(talk(address))
        assert all_free(engine)


def test_a_page_may_be_allowed_little_and_a_socket_at_the_side_sees_the_rest():
    allowed = {"allowed_client_events": ["session.close"], "allowed_server_events": [{"type": "session.started"}]}

    async def talk(address):
        async with Caller(address, client={"data_channel": allowed}) as caller:
            await caller.until("session.started")
            with Plain(address, f"/{caller.id}/attach") as side:
                caller.send("session.commentary.append", content="Hello.", delegation_id=None)
                side.send("session.commentary.append", content="It is sunny.", delegation_id=None)
                events = []
                while "It is sunny." not in transcript(events):
                    events += await asyncio.to_thread(side.until, "session.output_transcript.delta")
                await asyncio.to_thread(side.until, "session.output_audio.delta")
            await caller.hears(20)
            assert {event["type"] for event in caller.events} <= {"session.started", "error"}

    with served() as (address, engine):
        run(talk(address))
        assert all_free(engine)


def test_offers_that_make_no_sense_are_refused_by_name():
    with served() as (address, engine):
        for body, param in [
            ({}, "transport.type"),
            ({"transport": {"type": "sip"}}, "transport.type"),
            ({"transport": {"type": "webrtc"}}, "transport.sdp"),
            ({"transport": {"type": "webrtc", "sdp": "v=0"}}, "session"),
            ({"transport": {"type": "webrtc", "sdp": "nonsense"}, "session": {"model": "m"}}, "sdp"),
            ({"extra": 1}, "body.extra"),
        ]:
            answer = httpx.post(f"http://{address}{PATH}", json=body)
            assert answer.status_code == 400 and answer.json()["error"]["param"] == param
        assert httpx.post(f"http://{address}{PATH}", content=b"[").status_code == 400
        assert engine.free == 3


def test_who_never_comes_over_webrtc_gives_the_place_back():
    async def talk(address):
        caller = Caller(address)
        caller.peer.addTrack(caller.voice)
        await caller.peer.setLocalDescription(await caller.peer.createOffer())
        answer = await caller.post({"type": "webrtc", "sdp": caller.peer.localDescription.sdp})
        assert answer.status_code == 201
        await caller.peer.close()

    with served(DuplexEcho(), bounds=CallLimits(connecting=1.0)) as (address, engine):
        run(talk(address))
        assert all_free(engine)
