"""Asks a question in a WAV file over Moshi's protocol, and writes the answer to another.

    python examples/moshi_client.py question.wav answer.wav [--url ws://127.0.0.1:8998/api/chat]

Needs duologue and websockets.
"""

from __future__ import annotations

import argparse
import asyncio

import numpy as np
import websockets

from duologue.audio import io
from duologue.audio.opus import OpusReader, OpusWriter

RATE = 24_000  # Hz
BLOCK = 1_920  # samples, 80 ms
QUIET = 2.0  # seconds of silence after the answer


async def speak(socket: websockets.ClientConnection, samples: np.ndarray) -> None:
    """Sends a question in real time, and silence for ever after it, as a microphone does."""
    writer, clock = OpusWriter(RATE), asyncio.get_running_loop().time
    begin, sent = clock(), 0
    while True:
        block = samples[sent : sent + BLOCK]
        await socket.send(b"\x01" + writer.push(np.pad(block, (0, BLOCK - len(block)))))
        sent += BLOCK
        await asyncio.sleep(begin + sent / RATE - clock())


async def ask(url: str, question: np.ndarray) -> np.ndarray:
    """Gives everything that was heard, up to the silence after the answer."""
    reader = OpusReader(RATE)
    heard: list[np.ndarray] = []
    quiet = -np.inf  # seconds since the answer's last sound
    async with websockets.connect(url) as socket:
        if await socket.recv() != b"\x00":
            raise SystemExit("the server did not shake hands: is there a place free?")
        microphone = asyncio.create_task(speak(socket, question))
        while quiet < QUIET:
            message = await socket.recv()
            kind, payload = message[0], bytes(message[1:])
            if kind == 1:
                for samples in reader.push(payload):
                    heard.append(samples)
                    quiet = 0.0 if np.abs(samples).max() > 0.01 else quiet + len(samples) / RATE
            elif kind == 2:
                print(payload.decode(), end="", flush=True)
            elif kind == 5:
                raise SystemExit(payload.decode())
        microphone.cancel()
    print()
    return np.concatenate(heard)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("question")
    parser.add_argument("answer")
    parser.add_argument("--url", default="ws://127.0.0.1:8998/api/chat")
    options = parser.parse_args()
    heard = asyncio.run(ask(options.url, io.load(options.question, RATE)))
    with io.WavWriter(options.answer, RATE) as file:
        file.write(heard)


if __name__ == "__main__":
    main()
