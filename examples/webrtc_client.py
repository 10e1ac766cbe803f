"""Asks a question in a WAV file over WebRTC, and writes the answer to another.

    python examples/webrtc_client.py question.wav answer.wav [--url http://127.0.0.1:8998/v1/realtime/calls] [--key KEY]

Needs duologue, aiortc and httpx.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from fractions import Fraction

import av
import httpx
import numpy as np
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription

from duologue.audio import io

RATE = 48_000  # Hz
FRAME = 960  # samples, 20 ms


class Question(MediaStreamTrack):
    """The question in real time, and silence for ever after it, as a microphone gives it."""

    kind = "audio"

    def __init__(self, samples: np.ndarray):
        super().__init__()
        self._samples, self._sent, self._begin = samples, 0, 0.0

    async def recv(self) -> av.AudioFrame:
        now = asyncio.get_running_loop().time()
        self._begin = self._begin or now
        await asyncio.sleep(self._begin + self._sent / RATE - now)
        block = self._samples[self._sent : self._sent + FRAME]
        pcm = np.frombuffer(io.encode_pcm16(np.pad(block, (0, FRAME - len(block)))), "<i2")
        frame = av.AudioFrame.from_ndarray(pcm[None], "s16", "mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, self._sent, Fraction(1, RATE)
        self._sent += FRAME
        return frame


class Call:
    """One question and its answer."""

    def __init__(self) -> None:
        self.peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.heard: list[np.ndarray] = []  # the answer, once it has begun
        self.over = asyncio.Event()
        self._speaking = False

    async def listen(self, track: MediaStreamTrack) -> None:
        while True:
            frame = await track.recv()
            if self._speaking:
                self.heard.append(io.decode_pcm16(frame.to_ndarray().tobytes())[::2])  # one of two channels

    def follow(self, message: str) -> None:
        event = json.loads(message)
        kind = event["type"]
        if kind == "response.output_audio_transcript.delta":
            print(event["delta"], end="", flush=True)
        elif kind == "output_audio_buffer.started":
            self._speaking = True
        elif kind == "output_audio_buffer.stopped":
            self.over.set()
        elif kind == "error":
            raise SystemExit(event["error"]["message"])

    async def ask(self, url: str, key: str, question: np.ndarray) -> np.ndarray:
        self.peer.addTrack(Question(question))
        self.peer.createDataChannel("oai-events").on("message", self.follow)
        listening: list[asyncio.Task[None]] = []
        self.peer.on("track", lambda track: listening.append(asyncio.create_task(self.listen(track))))
        await self.peer.setLocalDescription(await self.peer.createOffer())
        headers = {"Content-Type": "application/sdp", **({"Authorization": f"Bearer {key}"} if key else {})}
        async with httpx.AsyncClient() as client:
            answer = await client.post(url, content=self.peer.localDescription.sdp, headers=headers)
        if answer.status_code != 201:
            raise SystemExit(answer.text)
        await self.peer.setRemoteDescription(RTCSessionDescription(answer.text, "answer"))
        await self.over.wait()
        await asyncio.sleep(0.3)  # what is still on its way
        for task in listening:
            task.cancel()
        await self.peer.close()
        return np.concatenate(self.heard)


async def run(options: argparse.Namespace) -> np.ndarray:
    return await Call().ask(options.url, options.key, io.load(options.question, RATE))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("question")
    parser.add_argument("answer")
    parser.add_argument("--url", default="http://127.0.0.1:8998/v1/realtime/calls")
    parser.add_argument("--key", default="")
    options = parser.parse_args()
    heard = asyncio.run(run(options))
    print()
    with io.WavWriter(options.answer, RATE) as file:
        file.write(heard)


if __name__ == "__main__":
    main()
