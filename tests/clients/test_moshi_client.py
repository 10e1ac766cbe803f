"""Moshi's own Python client, unmodified, with a sound card made of arrays: it asks, hears the answer, interrupts it."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import io
import sys
import threading
import time
from types import ModuleType

import numpy as np
import pytest
from fakes import ANSWER, EchoConfig, EchoModel, tone
from moshi_server import LONG, loud_seconds, served, silence

pytestmark = pytest.mark.clients

FRAME = 1_920  # samples of a block, 80 ms


class Stream:
    """What sounddevice calls a stream: a thread that calls back every 80 ms."""

    def __init__(self, *, samplerate, channels, blocksize, callback):
        assert (samplerate, channels, blocksize) == (24_000, 1, FRAME)
        self._callback, self._over = callback, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Stream:
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        due = time.monotonic()
        while not self._over.is_set():
            block = self.block()
            self._callback(block, FRAME, None, None)
            self.done(block)
            due += FRAME / 24_000
            time.sleep(max(0.0, due - time.monotonic()))


@pytest.fixture
def card(monkeypatch):
    """A sound card: `said` is spoken into the microphone, `heard` is what came out of the loudspeaker."""

    class Card:
        said = np.zeros(0, np.float32)
        heard = np.zeros(0, np.float32)

    class InputStream(Stream):
        def block(self) -> np.ndarray:
            block, Card.said = Card.said[:FRAME], Card.said[FRAME:]
            return np.pad(block, (0, FRAME - len(block)))[:, None]

        def done(self, block: np.ndarray) -> None:
            pass

    class OutputStream(Stream):
        def block(self) -> np.ndarray:
            return np.zeros((FRAME, 1), np.float32)

        def done(self, block: np.ndarray) -> None:
            Card.heard = np.concatenate([Card.heard, block[:, 0]])

    sounddevice = ModuleType("sounddevice")
    sounddevice.InputStream, sounddevice.OutputStream = InputStream, OutputStream  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sounddevice", sounddevice)
    monkeypatch.delitem(sys.modules, "moshi.client", raising=False)
    return Card


def converse(address: str, card, *, until) -> tuple[str, str]:
    """Runs the client until something is true. Gives what it printed: the words, and its complaints."""
    client = importlib.import_module("moshi.client")
    words, complaints = io.StringIO(), io.StringIO()
    printer = importlib.import_module("moshi.client_utils").RawPrinter(words, complaints)
    host, port = address.split(":")

    async def run() -> None:
        running = asyncio.ensure_future(
            client.run(printer, argparse.Namespace(url=None, https=False, host=host, port=port))
        )
        while not running.done() and not until(words.getvalue()):
            await asyncio.sleep(0.05)
        if running.done():
            return running.result()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(asyncio.wait_for(run(), 30))
    return words.getvalue(), complaints.getvalue()


def test_the_client_asks_twice_and_hears_both_answers(card):
    card.said = np.concatenate([silence(0.6), tone(1.0, rate=24_000), silence(2.0), tone(1.0, rate=24_000)])
    with served(EchoModel(EchoConfig(audio_ticks=13))) as (address, _):
        words, _ = converse(address, card, until=lambda text: loud_seconds(card.heard) > 1.95)
    assert words == f"{ANSWER} {ANSWER}"
    assert loud_seconds(card.heard) == pytest.approx(2.0, abs=0.06)
    assert np.abs(card.heard).max() == pytest.approx(0.3, abs=0.03)


def test_the_client_interrupts_by_speaking(card):
    card.said = np.concatenate([silence(0.6), tone(1.0, rate=24_000), silence(1.5), tone(1.0, rate=24_000)])
    with served(model := EchoModel(LONG)) as (address, engine):
        words, _ = converse(address, card, until=lambda text: text.count(ANSWER) == 2)
        assert model.truncated and words == f"{ANSWER} {ANSWER}"
        end = time.monotonic() + 5
        while engine.free < engine.runner.slots and time.monotonic() < end:
            time.sleep(0.02)
        assert engine.free == engine.runner.slots  # the client just went
