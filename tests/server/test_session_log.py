"""The log names conversations by a random number, and says nothing of what is said unless it is asked to."""

from __future__ import annotations

import base64
import json
import logging
import re

import httpx
import pytest
from fakes import ANSWER, EchoModel, tone
from realtime_talk import RATE, message, silence
from serving import served
from websockets.sync.client import connect

from duologue.audio import io
from duologue.audio.opus import OpusWriter
from duologue.errors import where
from duologue.server.witness import Several


class Noisy(EchoModel):
    """Hears words that are nowhere else."""

    def heard(self, state, slot):
        return "set a timer for my xylophone lesson" if super().heard(state, slot) else ""


SECRETS = ("xylophone", "marmalade", ANSWER, "zeppelin", "respond")


def talk(address: str) -> str:
    """A conversation over each protocol; the id of that over the Realtime API."""
    with connect(f"ws://{address}/v1/realtime", proxy=None, open_timeout=60) as line:
        session = json.loads(line.recv(timeout=60))["session"]
        sound = io.encode_pcm16(tone(1.0, rate=RATE).tolist() + silence(1.0).tolist())
        for event in (
            {"type": "session.update", "session": {"type": "realtime", "instructions": "Talk of a zeppelin."}},
            {"type": "conversation.item.create", "item": message("marmalade")},
            {"type": "input_audio_buffer.append", "audio": base64.b64encode(sound).decode()},
            {"type": "nonsense", "marmalade": "marmalade"},
        ):
            line.send(json.dumps(event))
        while json.loads(line.recv(timeout=60))["type"] != "response.done":
            pass
    with connect(f"ws://{address}/api/chat?text_prompt=zeppelin", proxy=None, open_timeout=60) as line:
        writer = OpusWriter(24_000)
        for _ in range(3):
            line.send(b"\x01" + writer.push(tone(0.3, rate=24_000)))
        line.send(b"\x03\x01")
        while line.recv(timeout=60)[:1] != b"\x02":
            pass
    chat = {"messages": [{"role": "user", "content": "marmalade"}]}
    assert re.fullmatch(
        "req_[0-9a-f]{24}", httpx.post(f"http://{address}/v1/chat/completions", json=chat).headers["x-request-id"]
    )
    return session["id"]


@pytest.mark.parametrize("wanted", [False, True])
def test_what_is_said_goes_to_the_log_only_where_that_is_asked_for(caplog, wanted):
    caplog.set_level(logging.INFO)
    with served(Noisy(), log_text=wanted) as (address, _):
        name = talk(address)
    lines = [record.getMessage() for record in caplog.records]
    found = {secret for secret in SECRETS for line in lines if secret in line}
    assert found == ({"xylophone", "marmalade", ANSWER} if wanted else set())
    assert f"{name[-8:]}: begins (realtime)" in lines
    assert any(re.match(rf"{name[-8:]}: answered, first sound after \d+ ms", line) for line in lines)
    assert any(re.match(rf"{name[-8:]}: over after \d+ s, 1 answers", line) for line in lines)
    assert sum(bool(re.fullmatch(r"[0-9a-f]{8}: begins \((moshi|http)\)", line)) for line in lines) == 2


def test_a_conversation_that_fails_is_one_line_over_every_protocol(caplog):
    class Forgetful(EchoModel):
        def end_turn(self, state, live_B):
            raise KeyError("xylophone")

    with served(Forgetful()) as (address, _):
        with connect(f"ws://{address}/v1/realtime", proxy=None, open_timeout=60) as line:
            name = json.loads(line.recv(timeout=60))["session"]["id"][-8:]
            line.send(json.dumps({"type": "conversation.item.create", "item": message("marmalade")}))
            line.send(json.dumps({"type": "response.create"}))
            while json.loads(line.recv(timeout=60))["type"] != "error":
                pass
        with connect(f"ws://{address}/api/chat", proxy=None, open_timeout=60) as line:
            writer = OpusWriter(24_000)
            line.send(b"\x01" + writer.push(tone(0.3, rate=24_000)))
            line.send(b"\x03\x01")
            while line.recv(timeout=60)[:1] != b"\x05":
                pass
        chat = {"messages": [{"role": "user", "content": "marmalade"}]}
        number = httpx.post(f"http://{address}/v1/chat/completions", json=chat).headers["x-request-id"]
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(lines) == 3 and all(re.match("[0-9a-f]{8}: failed: KeyError at ", line) for line in lines), lines
    assert [line[:8] for line in (lines[0], lines[2])] == [name, number[-8:]]


def test_an_error_is_told_without_what_it_holds(caplog):
    class Broken:
        def hear(self, samples):
            int("xylophone")

        def happen(self, event):
            raise AssertionError("told no more")

        def close(self):
            raise AssertionError("told no more")

    several = Several([Broken()])
    several.hear(tone(0.1))
    several.happen(None)
    several.close()
    assert "Broken failed and is told no more: ValueError at " in caplog.text and "xylophone" not in caplog.text
    assert where(KeyError("xylophone")) == "KeyError at an unknown place"
