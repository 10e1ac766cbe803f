"""The protocol over WebRTC: aiortc calls, speaks, interrupts, hangs up and vanishes; offers that make no sense."""

from __future__ import annotations

import asyncio
import importlib.util

import httpx
import pytest
import serving
from aiortc.rtp import RtcpByePacket
from fakes import ANSWER, EchoConfig, EchoModel, tone
from realtime_talk import all_free, kinds, message, of, one, served
from webrtc_caller import PATH, RATE, Caller

from duologue.server.realtime import CallLimits, RealtimeLimits
from duologue.server.realtime.offers import check
from duologue.streaming.turns import OverlapConfig

LONG = EchoConfig(audio_ticks=100)
QUESTION = tone(0.8, rate=RATE)
TOOL = {"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}}
KEY = "a key of enough characters"


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 100))


def look(transcript, tools, **_):
    return ("look", "{}") if tools else None


def test_a_conversation_with_an_interruption_and_a_function():
    async def talk(address):
        async with Caller(address) as caller:
            assert (await caller.until("conversation.created"))[0]["type"] == "session.created"
            caller.voice.say(QUESTION)
            response = (await caller.until("output_audio_buffer.started"))[-1]["response_id"]
            assert one(caller.events, "response.created")["response"]["id"] == response
            await caller.hears(20)
            caller.voice.say(QUESTION)  # over the answer
            events = await caller.until("conversation.item.truncated")
            cleared, truncated = one(events, "output_audio_buffer.cleared"), events[-1]
            assert cleared["response_id"] == response
            done = one(events, "response.done")["response"]
            assert done["status_details"] == {"type": "cancelled", "reason": "turn_detected"}
            assert truncated["item_id"] == done["output"][0]["id"] and 0 < truncated["audio_end_ms"] < 8_000
            assert kinds(events).index("input_audio_buffer.speech_started") < kinds(events).index(cleared["type"])
            caller.send("session.update", session={"type": "realtime", "tools": [TOOL]})
            call = one(await caller.until("rate_limits.updated"), "response.function_call_arguments.done")
            result = {"type": "function_call_output", "call_id": call["call_id"], "output": "all is well"}
            caller.send("conversation.item.create", item=result)
            caller.send("response.create")
            await caller.until("output_audio_buffer.started")
            caller.send("output_audio_buffer.clear")
            await caller.until("conversation.item.truncated")
            await caller.hears(30)
            assert caller.sound[-20] > 0.02 or max(caller.sound[-10:]) < 0.02  # all that was queued is gone
            assert not of(caller.events, "response.output_audio.delta")

    with served(EchoModel(LONG), router=look) as (address, engine):
        run(talk(address))
        assert all_free(engine, 3)


def test_an_answer_is_played_to_its_end_and_said_to_be():
    async def talk(address):
        async with Caller(address) as caller:
            caller.voice.say(QUESTION)
            events = await caller.until("output_audio_buffer.stopped")
            names = kinds(events)
            assert names.index("response.content_part.added") < names.index("output_audio_buffer.started")
            assert names.index("response.done") < names.index("output_audio_buffer.stopped")
            assert one(events, "response.output_audio_transcript.done")["transcript"] == ANSWER
            assert max(caller.sound) == pytest.approx(0.3, abs=0.1)

    with served(EchoModel(EchoConfig(audio_ticks=20))) as (address, _):
        run(talk(address))


def test_the_answer_stands_still_for_a_sign_of_listening_and_goes_on():
    async def talk(address):
        async with Caller(address, path=f"{PATH}?duologue=1", strict=False) as caller:
            caller.voice.say(QUESTION)
            await caller.until("output_audio_buffer.started")
            caller.voice.say(tone(0.3, rate=RATE, level=0.05))
            events = await caller.until("output_audio_buffer.stopped")
            names = kinds(events)
            assert names.index("duologue.paused") < names.index("duologue.resumed")
            assert "output_audio_buffer.cleared" not in names and "conversation.item.truncated" not in names

    with served(EchoModel(EchoConfig(audio_ticks=40)), overlap=OverlapConfig()) as (address, _):
        run(talk(address))


def test_a_caller_stops_what_is_still_playing():
    async def talk(address):
        async with Caller(address) as caller:
            caller.send("conversation.item.create", item=message("Hello"))
            caller.send("response.create")
            await caller.until("output_audio_buffer.started")
            caller.send("output_audio_buffer.clear")
            events = await caller.until("conversation.item.truncated")
            assert one(events, "output_audio_buffer.cleared") and events[-1]["audio_end_ms"] < 7_900
            caller.send("output_audio_buffer.clear")  # there is nothing left
            caller.send("response.cancel")
            assert one(await caller.until("error"), "error")["error"]["code"] == "response_cancel_not_active"

    with served(model := EchoModel(LONG)) as (address, _):
        run(talk(address))
        assert len(model.truncated) == 1 and model.truncated[0] < 99


def test_a_form_brings_the_sessions_settings():
    turns = {"audio": {"input": {"turn_detection": None}}}
    session = {"type": "realtime", "instructions": "Be brief.", "model": "mine", **turns}

    async def talk(address):
        async with Caller(address, session=session) as caller:
            shown = (await caller.until("session.created"))[-1]["session"]
            assert (shown["instructions"], shown["model"]) == ("Be brief.", "mine")
            caller.voice.say(QUESTION)
            await caller.hears(80)
            caller.send("input_audio_buffer.commit")
            caller.send("response.create")
            said = one(await caller.until("response.done"), "response.done")["response"]["output"][0]
            assert said["content"][0]["transcript"] == ANSWER
            caller.send("conversation.item.create", item=message("x" * 33_000))
            assert (await caller.until("error"))[-1]["error"]["type"] == "invalid_request_error"
            refused = await Caller(address, session={"type": "poem"}).post(await Caller(address).offer())
            assert refused.status_code == 400 and refused.json()["error"]["param"] == "session.type"

    with served() as (address, _):
        run(talk(address))


def test_events_that_the_data_channel_cannot_take_become_errors():
    async def talk(address):
        async with Caller(address, largest=6_000, strict=False) as caller:
            caller.send("conversation.item.create", item=message("x" * 7_000, id="item_long"))
            assert (await caller.until("error"))[-1]["error"]["code"] == "event_too_large"
            caller.voice.say(QUESTION)
            item = (await caller.until("input_audio_buffer.committed"))[-1]["item_id"]
            caller.send("conversation.item.retrieve", item_id=item)
            assert "audio" not in (await caller.until("conversation.item.retrieved"))[-1]["item"]["content"][0]

    with served() as (address, _):
        run(talk(address))


def test_whoever_hangs_up_gives_the_place_back():
    async def talk(address, engine):
        caller = Caller(address)
        await caller.call()
        assert engine.free == 2
        other = Caller(address)
        other.location = f"{PATH}/rtc_0"
        assert (await other.hang_up()).status_code == 404
        assert (await caller.hang_up()).status_code == 200
        await asyncio.wait_for(caller.closed.wait(), 20)
        assert await asyncio.to_thread(all_free, engine, 3)
        await caller.peer.close()
        async with Caller(address):  # and the next closes its peer connection
            assert engine.free == 2
        assert await asyncio.to_thread(all_free, engine, 3)

    with served() as (address, engine):
        run(talk(address, engine))


def test_who_vanishes_or_never_comes_gives_the_place_back():
    async def talk(address, engine):
        absent = Caller(address)
        assert (await absent.post(await absent.offer())).status_code == 201
        assert engine.free == 2
        caller = Caller(address)
        await caller.call()
        for transceiver in caller.peer.getTransceivers():  # the cable is cut
            for protocol in transceiver.receiver.transport.transport._connection._protocols:
                protocol.transport.abort()
        assert await asyncio.to_thread(all_free, engine, 3, within=20)

    with served(bounds=CallLimits(connecting=2.0, vanished=1.0)) as (address, engine):
        run(talk(address, engine))


def test_who_says_nothing_at_all_but_is_there_stays():
    async def talk(address):
        async with Caller(address) as caller:
            await caller.until("conversation.created")
            for transceiver in caller.peer.getTransceivers():  # neither sound nor reports
                await transceiver.stop()
            await asyncio.sleep(3.5)
            caller.send("session.update", session={"type": "realtime", "instructions": "Be brief."})
            await caller.until("session.updated")

    with served(bounds=CallLimits(vanished=1.5)) as (address, _):
        run(talk(address))


def test_a_caller_that_was_muted_is_heard_again():
    async def talk(address):
        async with Caller(address) as caller:
            (sender,) = caller.peer.getSenders()
            await sender._send_rtcp([RtcpByePacket(sources=[sender._ssrc])])
            await caller.hears(10)
            caller.voice.say(QUESTION)
            await caller.until("response.done")

    with served() as (address, _):
        run(talk(address))


def test_a_session_that_ends_says_so_and_hangs_up():
    async def talk(address, engine):
        async with Caller(address) as caller:
            assert (await caller.until("error"))[-1]["error"]["code"] == "session_expired"
            await asyncio.wait_for(caller.closed.wait(), 20)
            assert await asyncio.to_thread(all_free, engine, 3)

    with served(limits=RealtimeLimits(longest_session=1.0)) as (address, engine):
        run(talk(address, engine))


@pytest.mark.parametrize("bounds", [{"slots": 1}, {"bounds": CallLimits(most=1)}])
def test_a_full_server_says_so_at_once(bounds):
    async def talk(address):
        async with Caller(address):
            other = Caller(address)
            refused = await other.post(await other.offer())
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "server_busy")

    with served(**bounds) as (address, _):
        run(talk(address))


def test_a_key_opens_so_many_calls_and_a_secret_counts_as_its_key():
    async def talk(address, server):
        stranger = Caller(address, key="another key of some length")
        offer = await stranger.offer()
        assert (await stranger.post(offer)).status_code == 401
        headers = {"Authorization": f"Bearer {KEY}"}
        session = {"type": "realtime", "instructions": "Be brief."}
        async with httpx.AsyncClient(headers=headers, base_url=f"http://{address}") as client:
            secret = (await client.post("/v1/realtime/client_secrets", json={"session": session})).json()["value"]
        async with Caller(address, key=secret) as caller:
            shown = (await caller.until("session.created"))[-1]["session"]
            assert shown["instructions"] == "Be brief." and shown["model"] == "echo"
            other = Caller(address, key=KEY)
            assert (await other.post(offer)).status_code == 429
            other.location = caller.location
            assert (await other.hang_up()).status_code == 200  # also where no more calls may begin
            await asyncio.wait_for(caller.closed.wait(), 20)
        assert await asyncio.to_thread(serving.all_free, server, within=20)

    with serving.served(keys=[KEY], per_key=1) as (address, server):
        run(talk(address, server))


def without(sdp: str, head: str) -> str:
    return "".join(line for line in sdp.splitlines(keepends=True) if not line.startswith(head))


def sections(sdp: str) -> tuple[str, str, str]:
    head, audio, channel = sdp.split("m=")
    return head, f"m={audio}", f"m={channel}"


SPOILED = {
    "nothing": lambda sdp: "",
    "nonsense": lambda sdp: "v=0\r\nhello\r\n",
    "binary": lambda sdp: b"v=0\xff\xfe",
    "long": lambda sdp: sdp + "a=x\r\n" * 20_000,
    "much": lambda sdp: sdp + "a=rtcp-fb:* x\r\n" * 70,
    "no audio": lambda sdp: sections(sdp)[0] + sections(sdp)[2],
    "two voices": lambda sdp: sdp + sections(sdp)[1],
    "a picture": lambda sdp: sdp + sections(sdp)[1].replace("m=audio", "m=video"),
    "no Opus": lambda sdp: sdp.replace("opus", "speex"),
    "no password": lambda sdp: without(sdp, "a=ice-pwd"),
    "no fingerprint": lambda sdp: without(sdp, "a=fingerprint"),
    "no bundle": lambda sdp: without(sdp, "a=group"),
    "another bundle": lambda sdp: sdp.replace("BUNDLE ", "BUNDLE 7 "),
    "one name": lambda sdp: sdp.replace("a=mid:1", "a=mid:0"),
    "a strange number": lambda sdp: sdp.replace("a=sctp-port:5000", "a=sctp-port:x"),
    "a strange role": lambda sdp: sdp.replace("actpass", "holdconn"),
    "no formats": lambda sdp: sdp.replace("SAVPF 96", "SAVPF x"),
}


def test_offers_that_make_no_sense_are_refused_and_keep_no_place():
    async def talk(address, engine):
        caller = Caller(address)
        offer = await caller.offer()
        for name, spoil in SPOILED.items():
            refused = await caller.post(spoil(offer))
            assert refused.status_code == 400, name
            error = refused.json()["error"]
            assert error["type"] == "invalid_request_error" and len(error["message"]) < 400, name
        refused = await caller.post(offer, kind="text/plain")
        assert refused.status_code == 415
        refused = await caller.post(offer, kind="multipart/form-data")
        assert refused.status_code == 400
        refused = await caller.post("x" * 400_000)
        assert refused.json()["error"]["code"] == "request_too_large"
        async with httpx.AsyncClient() as client:
            for files in ({"session": (None, "{}")}, {"sdp": (None, offer), "session": (None, "{")}):
                assert (await client.post(f"http://{address}{PATH}", files=files)).status_code == 400
            large = {"sdp": ("offer.sdp", "x" * 400_000, "application/sdp")}
            assert (await client.post(f"http://{address}{PATH}", files=large)).status_code == 400
        assert engine.free == 3

    with served() as (address, engine):
        run(talk(address, engine))


def test_a_server_without_the_library_says_how_to_install_it(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "aiortc" else found(name, *rest)
    )
    with served() as (address, _):
        refused = httpx.post(f"http://{address}{PATH}", content="v=0")
        assert refused.status_code == 501 and "pip install aiortc" in refused.json()["error"]["message"]


OFFER = """v=0
a=group:BUNDLE 0 1
a=ice-ufrag:abcd
a=ice-pwd:0123456789012345678901
a=fingerprint:sha-256 00
a=setup:actpass
m=audio 9 UDP/TLS/RTP/SAVPF 111
a=mid:0
a=rtcp-mux
a=rtpmap:111 opus/48000/2
a=candidate:1 1 udp 1 12ab.local 50000 typ host
a=candidate:2 1 tcp 1 192.0.2.7 9 typ host tcptype active
a=candidate:3 1 UDP 1 192.0.2.7 50000 typ host
a=end-of-candidates
m=application 9 UDP/DTLS/SCTP webrtc-datachannel
a=mid:1
a=max-message-size:1000
"""


def test_what_is_offered_is_read():
    offer = check(OFFER)
    assert offer.speaks and offer.listens and offer.events and offer.largest == 1_000
    assert [line[:13] for line in offer.sdp.splitlines() if "candidate" in line] == ["a=candidate:3"]
    alone = OFFER.partition("m=application")[0].replace("BUNDLE 0 1", "BUNDLE 0")
    offer = check(alone.replace("a=rtcp-mux", "a=rtcp-mux\na=recvonly"))
    assert offer.listens and not offer.speaks and not offer.events
    many = "a=candidate:3 1 udp 1 192.0.2.7 50000 typ host\n" * 30
    assert check(OFFER.replace("a=end-of-candidates\n", many)).sdp.count("a=candidate") == 16
