"""Sound over WebRTC without a network: the track that keeps time, the stream without gaps, the gate, and what the
engine is told of what was played."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import av
import numpy as np
import pytest
from aiortc import RTCPeerConnection
from aiortc.mediastreams import MediaStreamError
from fakes import ANSWER, EchoConfig, EchoModel, tone
from realtime_talk import RATE, Desk, kinds, message, of, one, silence

from duologue.server.realtime.audio import PCM16
from duologue.server.realtime.call import _BUFFER
from duologue.server.realtime.opus_packets import seconds_of
from duologue.server.realtime.rtp_audio import Gate, Microphone, Speaker

LONG = EchoConfig(audio_ticks=100)
SECOND = tone(1.0, rate=24_000)


class Track:
    """A speaker whose time the test drives. `opus`: the packets that went out."""

    def __init__(self, rate: int = 24_000):
        self.time, self.events, self.packets = 100.0, [], []
        self.speaker = Speaker(rate, self.events.append, clock=lambda: self.time)

    async def run(self, packets: int) -> np.ndarray:
        """So many packets, each at the time when it is due. Gives what is heard of them."""
        decoder = av.codec.CodecContext.create("libopus", "r")
        decoder.layout, decoder.sample_rate = "mono", 48_000
        heard = []
        for _ in range(packets):
            self.time += 0.02
            self.packets.append(await self.speaker.recv())
            decoded = decoder.decode(av.Packet(bytes(self.packets[-1])))
            heard += [each.to_ndarray()[0].astype(np.float32) / 32_768 for each in decoded]
        return np.concatenate(heard)


def response(name: str = "resp"):
    return SimpleNamespace(id=name, seconds=1.0)


def test_speech_goes_out_in_time_and_its_events_with_it():
    async def play():
        track, said = Track(), response()
        assert np.abs(await track.run(5)).max() < 0.001 and not track.events
        track.speaker.play(said, SECOND)
        heard = await track.run(25)
        assert np.abs(heard).max() > 0.25 and track.speaker.played(said) == pytest.approx(0.5)
        track.speaker.finish()
        assert kinds(track.events) == ["output_audio_buffer.started"]
        await track.run(25)
        assert kinds(track.events) == ["output_audio_buffer.started", "output_audio_buffer.stopped"]
        assert {event["response_id"] for event in track.events} == {"resp"}
        assert [packet.pts for packet in track.packets] == [960 * number for number in range(55)]
        track.speaker.stop()
        with pytest.raises(MediaStreamError):
            await track.speaker.recv()

    asyncio.run(play())


def test_what_is_cleared_is_not_heard_and_it_is_known_what_was():
    async def play():
        track, first, second = Track(22_050), response("first"), response("second")
        track.speaker.play(first, tone(1.0, rate=22_050))
        track.speaker.finish()
        track.speaker.play(second, tone(1.0, rate=22_050))
        await track.run(25)
        assert track.speaker.played(second) == pytest.approx(-0.5, abs=0.01)
        cut = track.speaker.clear()
        assert [(each.id, seconds) for each, seconds in cut] == [("first", 0.5), ("second", 0.0)]
        assert kinds(track.events) == ["output_audio_buffer.started", "output_audio_buffer.cleared"]
        heard = await track.run(20)
        assert np.abs(heard[48 * 60 :]).max() < 0.01  # but for what the codec still holds, and the fading away
        assert track.speaker.clear() == []

    asyncio.run(play())


def test_a_track_that_stands_still_goes_on_where_it_stood():
    async def play():
        track, said = Track(), response()
        track.speaker.play(said, SECOND)
        await track.run(10)
        track.speaker.stand(True)
        assert np.abs((await track.run(20))[-4_800:]).max() < 0.01
        assert track.speaker.played(said) == pytest.approx(0.2)
        track.speaker.stand(False)
        assert np.abs((await track.run(20))[-4_800:]).max() > 0.25
        assert track.speaker.played(said) == pytest.approx(0.6)

    asyncio.run(play())


class Listener:
    """What a microphone speaks into."""

    def __init__(self):
        self.input_format, self.heard = PCM16, b""

    def hear(self, data: bytes) -> None:
        self.heard += data


def frame(begin: int, seconds: float = 0.02) -> av.AudioFrame:
    samples = (tone(seconds, rate=48_000) * 32_767).astype(np.int16)
    made = av.AudioFrame.from_ndarray(np.repeat(samples, 2)[None], "s16", "stereo")
    made.sample_rate, made.pts = 48_000, begin
    return made


class Coming:
    """A track that gives these frames, with a wait in place of None."""

    def __init__(self, *frames):
        self._frames = list(frames)

    async def recv(self):
        if not self._frames:
            raise MediaStreamError
        if (first := self._frames.pop(0)) is None:
            await asyncio.sleep(0.45)
            first = self._frames.pop(0)
        return first


@pytest.mark.parametrize(
    "frames, seconds",
    [
        ([frame(0), frame(960), frame(1_920)], 0.06),
        ([frame(0), frame(9_600)], 0.22),  # what is missing between two packets is silence
        ([frame(0), frame(2**33)], 0.04),  # but not for a year
        ([frame(0), None, frame(960)], 0.34),  # where nothing comes, silence does
        ([frame(0), None, frame(24_000)], 0.52),  # ... and once only
    ],
)
def test_a_microphone_is_a_stream_without_gaps(frames, seconds):
    listener = Listener()
    asyncio.run(Microphone(listener).run(Coming(*frames)))
    assert len(listener.heard) / 48_000 == pytest.approx(seconds, abs=0.006)  # but for what the resampler holds


def packet(number: int, data: bytes = b"\x08" + bytes(30)) -> SimpleNamespace:  # 20 ms
    return SimpleNamespace(sequence_number=number % 2**16, timestamp=960 * number, _data=data)


def test_the_gate_passes_on_what_is_new_and_in_time():
    now = [0.0]
    gate = Gate(lambda: now[0])
    passed = []
    for number in [65_534, 65_535, 65_536, 65_536, 65_535, 65_538, 65_537, 65_539]:  # wraps, twice, late
        passed += [number] if gate.add(packet(number))[1] else []
    assert passed == [65_534, 65_535, 65_536, 65_538, 65_539]
    burst = sum(gate.add(packet(number))[1] is not None for number in range(10, 1_010))
    assert 150 < burst < 210  # four seconds at once
    now[0] += 2.0
    assert gate.add(packet(1_010))[1] is not None  # and who sent too much is heard again
    assert sum(gate.add(packet(5))[1] is not None for _ in range(110)) > 0  # a sender that began anew


def test_aiortc_has_what_the_gate_replaces():
    async def look():
        peer = RTCPeerConnection()
        receiver = peer.addTransceiver("audio").receiver
        await peer.close()
        return hasattr(getattr(receiver, _BUFFER), "add")

    assert asyncio.run(look())


@pytest.mark.parametrize(
    "data, seconds",
    [
        (b"", None),
        (b"\x08" + bytes(30), 0.02),
        (b"\x08" + bytes(1_276), None),  # too long
        (b"\x18" + bytes(9), 0.06),
        (b"\x80" + bytes(9), 0.0025),
        (b"\x09" + bytes(30), 0.04),
        (b"\x09" + bytes(31), None),  # two frames of one size
        (b"\x0a\x05" + bytes(9), 0.04),
        (b"\x0a\x0a" + bytes(9), None),  # more than there is
        (b"\x0a\xfc", None),
        (b"\x0b", None),
        (b"\x0b\x00" + bytes(9), None),  # no frames
        (b"\x0b\x03" + bytes(9), 0.06),
        (b"\x0b\x03" + bytes(10), None),
        (b"\x0b\x07" + bytes(7), None),  # longer than 120 ms
        (b"\x0b\x43\x02" + bytes(11), 0.06),  # padded
        (b"\x0b\x43\xff" + bytes(3), None),
        (b"\x0b\x82\x04" + bytes(9), 0.04),  # of different sizes
        (b"\x0b\x82\x0a" + bytes(9), None),
    ],
)
def test_packets_of_opus_are_measured_without_being_decoded(data, seconds):
    assert seconds_of(data) == (None if seconds is None else pytest.approx(seconds))


def test_what_is_measured_is_what_libopus_writes():
    encoder = av.codec.CodecContext.create("libopus", "w")
    encoder.sample_rate, encoder.layout, encoder.format = 48_000, "stereo", "s16"
    encoder.options = {"frame_duration": "60"}
    encoder.open()
    packets = [bytes(each) for number in range(9) for each in encoder.encode(frame(2_880 * number, 0.06))]
    assert packets and all(seconds_of(each) == pytest.approx(0.06) for each in packets)


class Slow:
    """A player that is behind, by a time that the test sets."""

    def __init__(self):
        self.at, self.standing, self.cut = 0.0, [], []

    def play(self, response, samples):
        self.cut = [(response, max(0.0, self.at))]

    def finish(self):
        pass

    def played(self, response):
        return self.at

    def stand(self, still):
        self.standing.append(still)

    def clear(self):
        cut, self.cut = self.cut, []
        return cut


@pytest.mark.parametrize("played, heard", [(-1.0, 0.0), (0.3, 0.7)])
def test_the_engine_is_told_what_was_played(played, heard):
    player = Slow()
    player.at = played
    desk = Desk(model := EchoModel(LONG), player=player)
    desk.say(tone(1.0, rate=RATE), silence(0.6))
    assert not of(desk.events, "response.output_audio.delta") and player.cut
    model.truncated.clear()
    events = desk.say(tone(0.4, rate=RATE))
    assert kinds(events)[-1] == "conversation.item.truncated"
    assert model.truncated[0] * 0.08 == pytest.approx(heard, abs=0.5 if heard else 0.01)
    assert one(events, "conversation.item.truncated")["audio_end_ms"] == round(max(0.0, played) * 1000)


def test_cancelling_stops_the_player_and_cuts_what_was_not_heard():
    player = Slow()
    desk = Desk(model := EchoModel(LONG), player=player)
    desk.send("conversation.item.create", item=message("Hello"))
    desk.send("response.create", run=False)
    desk.run(20)
    player.cut = [(player.cut[0][0], 0.4)]
    events = desk.send("response.cancel")
    assert kinds(events)[-3:] == ["response.done", "rate_limits.updated", "conversation.item.truncated"]
    assert model.truncated == [5] and events[-1]["audio_end_ms"] == 400
    item = one(desk.send("conversation.item.retrieve", item_id=events[-1]["item_id"]), "conversation.item.retrieved")
    assert item["item"]["content"][0]["transcript"] is None  # nobody knows which of the words were heard
    assert ANSWER.startswith(desk.connection.conversation.items[-1].text)
