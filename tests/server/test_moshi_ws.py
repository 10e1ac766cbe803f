"""Moshi's protocol over real sockets: what a client hears, what interrupts, and who gives the place back."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import time
from collections.abc import Callable
from urllib.parse import quote

import numpy as np
import pytest
from fakes import ANSWER, DuplexEcho, EchoConfig, EchoModel, tone
from moshi_server import LONG, all_free, loud_seconds, served, silence
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from duologue.audio.ogg import page
from duologue.audio.opus import OpusReader, OpusWriter
from duologue.errors import ConfigError
from duologue.server.moshi_ws import Kind, MoshiConfig


class Client:
    """Speaks the protocol; its microphone is an array."""

    def __init__(self, address: str, query: str = ""):
        self._open = contextlib.ExitStack()
        socket = connect(f"ws://{address}/api/chat{query}", close_timeout=0.2)
        self.socket: ClientConnection = self._open.enter_context(socket)
        self._writer, self._reader = OpusWriter(24_000), OpusReader(24_000)
        self.text, self.audio, self.error, self.kinds = "", np.zeros(0, np.float32), "", []

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_) -> None:
        self._open.close()

    def say(self, samples: np.ndarray) -> None:
        """In real time or faster: the server takes it as it comes."""
        for block in np.array_split(samples, max(1, len(samples) // 1_920)):
            self.socket.send(b"\x01" + self._writer.push(block))

    def take(self) -> int:
        """Takes one message. Gives its kind."""
        message = self.socket.recv(timeout=20)
        assert isinstance(message, bytes)
        kind, payload = message[0], message[1:]
        self.kinds.append(kind)
        if kind == Kind.AUDIO:
            self.audio = np.concatenate([self.audio, *self._reader.push(payload)])
        elif kind == Kind.TEXT:
            self.text += payload.decode()
        elif kind == Kind.ERROR:
            self.error += payload.decode()
        return kind

    def hear(self, seconds: float) -> np.ndarray:
        """So much more of the stream."""
        begin = len(self.audio)
        while len(self.audio) < begin + round(seconds * 24_000):
            self.take()
        return self.audio[begin:]

    def until(self, happens: Callable[[], bool], *, within: float = 20.0) -> None:
        """Takes messages until something is so; fails where so many seconds of the stream bring it not."""
        end = len(self.audio) + within * 24_000
        while not happens():
            assert len(self.audio) < end, f"never happened; text: {self.text!r}"
            self.take()

    def until_sound(self) -> None:
        begin = len(self.audio)
        self.until(lambda: loud_seconds(self.audio[begin:]) >= 0.1)

    def until_silence(self) -> None:
        begin = len(self.audio)
        self.until(lambda: len(self.audio) - begin >= 4_800 and loud_seconds(self.audio[-4_800:]) == 0)

    def until_closed(self) -> int:
        """Takes everything. Gives the code of the close."""
        with pytest.raises(ConnectionClosed) as closed:
            self.until(lambda: False)
        assert closed.value.rcvd is not None
        return closed.value.rcvd.code


def question(seconds: float = 1.0) -> np.ndarray:
    return np.concatenate([silence(0.5), tone(seconds, rate=24_000), silence(0.8)])


def test_the_first_message_is_the_handshake_and_the_stream_begins_with_silence():
    with served() as (address, _), Client(address) as client:
        assert client.socket.recv() == b"\x00"
        assert np.abs(client.hear(0.2)).max() < 1e-3 and set(client.kinds) == {Kind.AUDIO}


def test_turns_are_found_and_answered_with_sound_and_words():
    with served() as (address, _), Client(address, "?text_temperature=0.7&voice_prompt=a.pt&seed=1") as client:
        for turn in (1, 2):
            client.say(question())
            client.until_sound()
            client.until_silence()
            assert loud_seconds(client.audio) == pytest.approx(0.6 * turn, abs=0.03 * turn)  # 7.5 ticks, all of them
            assert np.abs(client.audio).max() == pytest.approx(0.3, abs=0.03)
            assert client.text == " ".join([ANSWER] * turn)
        assert set(client.kinds) == {Kind.HANDSHAKE, Kind.AUDIO, Kind.TEXT}


def test_the_answer_comes_as_fast_as_it_is_heard():
    with served(EchoModel(LONG)) as (address, _):
        begin = time.monotonic()
        with Client(address) as client:
            client.say(question())
            client.until(lambda: loud_seconds(client.audio) > 1.0)
            assert len(client.audio) / 24_000 <= time.monotonic() - begin + 0.1  # nothing comes ahead of its time


def test_speech_over_the_answer_ends_it_and_what_waited_is_not_sent():
    with served(model := EchoModel(LONG)) as (address, _), Client(address) as client:
        client.say(question())
        client.until_sound()
        client.say(tone(1.0, rate=24_000))
        client.until_silence()
        assert loud_seconds(client.audio) < 2.0  # of the eight seconds
        client.say(silence(0.8))
        client.until_sound()  # the new answer
        assert model.truncated
        client.until(lambda: client.text.endswith(f" {ANSWER}"))


def test_a_sign_of_listening_makes_the_answer_stand_still_and_go_on():
    with served(model := EchoModel(EchoConfig(audio_ticks=25))) as (address, _), Client(address) as client:
        client.say(question())
        client.until_sound()
        client.say(tone(0.4, rate=24_000, level=0.1))
        client.until_silence()
        client.say(silence(1.0))
        client.until_sound()
        client.until_silence()
        assert loud_seconds(client.audio) == pytest.approx(24.5 * 0.08, abs=0.05) and not model.truncated
        assert client.text == ANSWER


def test_control_ends_turns_pauses_and_begins_again():
    with served(model := EchoModel(LONG)) as (address, _), Client(address) as client:
        client.say(tone(0.5, rate=24_000))
        client.hear(0.2)
        client.socket.send(b"\x03\x01")  # end of the turn, at once
        client.until_sound()
        client.socket.send(b"\x03\x02")  # pause
        client.until_silence()
        assert len(model.truncated) == 1
        client.say(question())
        assert loud_seconds(client.hear(1.2)) == 0  # nobody listens
        client.socket.send(b"\x03\x00")  # start
        client.say(question())
        client.until_sound()
        client.socket.send(b"\x03\x03")  # restart
        client.until_silence()


def test_text_prompt_is_read_as_instructions():
    class Reading(EchoModel):
        read: list = []  # noqa: RUF012

        def write(self, state, slot, role, text):
            self.read.append((role, text))
            return super().write(state, slot, role, text)

    with served(Reading(), prompt=100) as (address, engine):
        with Client(address, f"?voice_prompt=NATF2.pt&text_prompt={quote('Be brief.')}") as client:
            client.say(question())
            client.until(lambda: client.text == ANSWER)
            assert Reading.read == [("system", "Be brief.")]
        with Client(address, f"?text_prompt={'x' * 101}") as client:
            assert client.until_closed() == 1008 and "at most 100 characters, got 101" in client.error
        assert all_free(engine)


def test_a_duplex_family_hears_and_speaks_all_the_time():
    with served(model := DuplexEcho()) as (address, engine):
        with Client(address, f"?text_prompt={quote('Be brief.')}") as client:
            client.hear(0.4)
            for _ in range(40):  # as a microphone does
                client.say(tone(0.04, rate=24_000))
                client.hear(0.04)
            client.until_sound()
            client.until_silence()
            assert 0.8 < loud_seconds(client.audio) < 2.2 and client.text.startswith("abcdefgh")
            assert model.told == [("system", "Be brief.")]
            for control in (0, 1, 2, 3, 0):  # there are no turns to end
                client.socket.send(bytes([3, control]))
            client.hear(0.4)
            assert client.error == ""
        assert all_free(engine)


def test_messages_without_a_meaning_here_are_passed_over():
    messages = [b"", b"\x00", b"\x02hello", b"\x03", b"\x03\x09", b"\x04{}", b"\x05", b"\x06", b"\x07", b"\xff", "text"]
    with served() as (address, _), Client(address) as client:
        for message in messages:
            client.socket.send(message)
        client.say(question())
        client.until(lambda: client.text == ANSWER)
        assert client.error == ""


def test_a_full_server_says_so_at_once_and_the_place_is_free_later():
    with served(slots=1) as (address, engine):
        with Client(address) as first:
            first.hear(0.1)
            with Client(address) as second:
                assert second.until_closed() == 1013
                assert second.kinds == [Kind.ERROR] and "places are taken" in second.error
            first.say(question())
            first.until(lambda: first.text == ANSWER)
        assert all_free(engine)


HEAD = OpusWriter(24_000).push(np.zeros(480, np.float32))[:47]


@pytest.mark.parametrize(
    ("payload", "told"),
    [
        (b"RIFF" * 16_500, "need Ogg pages"),
        (page([b"\x01vorbis" + bytes(20)], serial=1, sequence=0, position=0, first=True), "need a stream of Opus"),
        (HEAD[:-19], ""),  # a page that is not all there yet
        (page([b"OpusHead" + bytes([1, 9]) + bytes(9)], serial=1, sequence=0, position=0, first=True), "9 channels"),
        (HEAD + page([b"\xff\xff\xff"] * 120, serial=1, sequence=1, position=0), "are not Opus"),
        (HEAD + page([b"\x0b\x06"] * 200, serial=1, sequence=1, position=0), "came ahead of time"),
    ],
)
def test_audio_that_is_none_or_too_much_is_refused_with_a_reason(payload, told):
    with served() as (address, engine), Client(address) as client:
        for start in range(0, len(payload), 60_000):
            client.socket.send(b"\x01" + payload[start : start + 60_000])
        if told:
            assert client.until_closed() == 1008 and told in client.error
            assert all_free(engine)
        else:
            client.hear(0.1)


def test_too_large_and_too_many_messages_are_refused():
    with served(largest=1_000, messages=50) as (address, engine):
        for _ in range(20):  # whatever is being sent at that moment
            with Client(address) as client:
                client.hear(0.01)
                client.socket.send(bytes(1_001))
                assert client.until_closed() == 1009 and "at most 1000 bytes, got 1001" in client.error
        with Client(address) as client:
            with contextlib.suppress(ConnectionClosed):
                for _ in range(500):
                    client.socket.send(b"\x06")
            assert client.until_closed() == 1008 and "50 messages a second" in client.error
        assert all_free(engine)


def test_who_sends_nothing_or_stays_too_long_gives_the_place_back():
    with served(idle=0.3) as (address, engine), Client(address) as client:
        assert client.until_closed() == 1000 and "nothing came" in client.error and all_free(engine)
    with served(longest=0.5) as (address, engine), Client(address) as client:
        client.say(silence(0.2))
        assert client.until_closed() == 1000 and "begin a new one" in client.error and all_free(engine)


def test_a_model_that_fails_ends_its_own_conversation_alone():
    class Broken(EchoModel):
        def end_turn(self, state, live_B):
            if bool(live_B[0]):  # the first place that is given away
                raise ValueError("broken")
            super().end_turn(state, live_B)

    with served(Broken()) as (address, engine), Client(address) as first, Client(address) as second:
        for client in (first, second):
            client.hear(0.1)
            with contextlib.suppress(ConnectionClosed):  # it may fail before all of the question is sent
                client.say(question())
        assert first.until_closed() == 1011 and "the model failed" in first.error
        second.until(lambda: second.text == ANSWER)
        assert engine.free == 2


def raw(address: str, path: str = "/api/chat") -> socket.socket:
    """A WebSocket without a library: shakes hands, and reads no further."""
    host, port = address.split(":")
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    client.connect((host, int(port)))
    key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    client.sendall(
        f"GET {path} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{key}\r\n".encode()
    )
    assert client.recv(12).endswith(b" 101")
    return client


def test_a_client_that_sends_and_never_reads_loses_its_place():
    ping = bytes([0x82, 0x81]) + bytes(4) + b"\x06"  # masked with zeros
    with served(ping=0.5) as (address, engine):
        client = raw(address)
        end = time.monotonic() + 10
        with contextlib.suppress(OSError):
            while time.monotonic() < end:
                client.sendall(ping)
                time.sleep(0.1)
        assert time.monotonic() < end and all_free(engine)


def test_fifty_who_hang_up_and_a_hundred_pieces_of_garbage_leave_every_place_free():
    chance = random.Random(1)
    with served(EchoModel(LONG), slots=4) as (address, engine), Client(address) as bystander:
        bystander.say(question())
        for number in range(50):
            client = raw(address)
            if number % 2:
                audio = b"\x01" + OpusWriter(24_000).push(tone(0.5, rate=24_000))
                client.sendall(bytes([0x82, 0xFE]) + struct.pack(">H", len(audio)) + bytes(4) + audio)
            if number % 3:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset
            client.close()
        for _ in range(100):
            with contextlib.suppress(ConnectionClosed), Client(address) as client:
                data = chance.randbytes(chance.choice([1, 30, 3_000]))
                client.socket.send(b"\x01" + chance.choice([b"", b"OggS", HEAD]) + data)
                client.socket.send(data)
        bystander.until(lambda: loud_seconds(bystander.audio) > 1.0)
        end = time.monotonic() + 5
        while engine.free < 3 and time.monotonic() < end:
            time.sleep(0.02)
        assert engine.free == 3


def test_a_limit_of_nothing_is_refused():
    with pytest.raises(ConfigError, match="more than 0"):
        MoshiConfig(idle=0)
