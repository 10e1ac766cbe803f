"""Plain HTTP, as clients of OpenAI's audio and chat endpoints use it: one request, one session of the engine.

Nothing is kept between requests. What mini cannot do (images, tools, several answers) is refused by name.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import io as bytes_io
import json
import re
import secrets
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import soundfile
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from duologue.audio import io
from duologue.engine import Engine, SessionConfig
from duologue.errors import AudioError, BusyError, DuologueError, ServerError
from duologue.server.bodies import read_form, read_object
from duologue.server.live import Live
from duologue.server.session_log import short
from duologue.server.witness import Witnesses, Wrote, nobody
from duologue.streaming.events import Audio, Done, Event, Heard, Text

_FORMATS = {  # name: media type, soundfile's format and subtype; None: raw samples
    "wav": ("audio/wav", ("WAV", "PCM_16")),
    "flac": ("audio/flac", ("FLAC", "PCM_16")),
    "mp3": ("audio/mpeg", ("MP3", "MPEG_LAYER_III")),
    "opus": ("audio/ogg", ("OGG", "OPUS")),
    "pcm": ("audio/pcm", None),
    "pcm16": ("audio/pcm", None),
}
_STATUS = {BusyError: 503, AudioError: 400, ServerError: 400}


@dataclass(frozen=True, kw_only=True)
class HttpLimits:
    """What one request may ask for."""

    body: int = 32 * 2**20  # bytes
    text: int = 4_096  # characters to be said, and of one message
    messages: int = 64
    wait: float = 60.0  # seconds until the next event of the model


class HttpApi:
    """The endpoints.

    Args:
        name: the model's, which answers carry.
        witnesses: who is told what happens.
    """

    def __init__(self, engine: Engine, *, name: str, limits: HttpLimits | None = None, witnesses: Witnesses = nobody):
        self.engine, self.name, self.limits, self._witnesses = engine, name, limits or HttpLimits(), witnesses
        self._rate = engine.runner.spec.output_rate

    def routes(self) -> list[Route]:
        return [
            Route("/v1/models", self._guarded(self.models)),
            Route("/v1/audio/speech", self._guarded(self.speech), methods=["POST"]),
            Route("/v1/audio/transcriptions", self._guarded(self.transcription), methods=["POST"]),
            Route("/v1/chat/completions", self._guarded(self.chat), methods=["POST"]),
        ]

    def _guarded(self, endpoint: Callable[[Request], Any]) -> Callable[[Request], Any]:
        async def guarded(request: Request) -> Response:
            request.state.id = f"req_{secrets.token_hex(12)}"
            response = await answered(request)
            response.headers["x-request-id"] = request.state.id
            return response

        async def answered(request: Request) -> Response:
            try:
                length = request.headers.get("content-length", "0")
                if not length.isdigit() or int(length) > self.limits.body:
                    raise ServerError(f"a request may have {self.limits.body} bytes, got {length}")
                return await endpoint(request)
            except DuologueError as error:
                status = next((code for kind, code in _STATUS.items() if isinstance(error, kind)), 500)
                return failure(str(error), status=status)

        return guarded

    async def models(self, request: Request) -> Response:
        about: dict[str, Any] = {"id": self.name, "object": "model", "created": 0, "owned_by": "duologue"}
        about["duplex"] = self.engine.runner.spec.duplex  # beyond the protocol: whether it is spoken to without turns
        return JSONResponse({"object": "list", "data": [about]})

    # -- speech -------------------------------------------------------------------------------------------------------

    async def speech(self, request: Request) -> Response:
        data = await read_object(request, self.limits.body)
        text, form = data.get("input"), data.get("response_format", "mp3")
        if not isinstance(text, str) or not text.strip() or len(text) > self.limits.text:
            raise ServerError(f"input: need a text of 1 to {self.limits.text} characters")
        if not isinstance(form, str) or form not in _FORMATS:
            raise ServerError(f"response_format: need one of {', '.join(_FORMATS)}, got {form!r}")
        if data.get("speed", 1.0) != 1.0:
            raise ServerError(f"speed: this model speaks at speed 1 only, got {data['speed']!r}")
        media, kind = _FORMATS[form]
        parts = self._said(request, sentences(text))
        first = await anext(parts)  # so that what fails at once is an error and not half an answer
        if kind is None or form == "wav":
            return StreamingResponse(self._stream(first, parts, header=form == "wav"), media_type=media)
        samples = np.concatenate([first] + [part async for part in parts])
        return Response(encode(samples, self._rate, form), media_type=media)

    async def _said(self, request: Request, texts: list[str]) -> AsyncIterator[np.ndarray]:
        async with self._live(request, SessionConfig(paced=False)) as live:
            for text in texts:
                live.session.say(text)
                async for event in self._answer(live):
                    if isinstance(event, Audio):
                        yield event.samples

    async def _stream(
        self, first: np.ndarray, rest: AsyncIterator[np.ndarray], *, header: bool
    ) -> AsyncIterator[bytes]:
        if header:
            yield wav_header(self._rate)
        yield io.encode_pcm16(first)
        async for samples in rest:
            yield io.encode_pcm16(samples)

    # -- transcription ------------------------------------------------------------------------------------------------

    async def transcription(self, request: Request) -> Response:
        async with read_form(request, self.limits.body, files=1, fields=20) as form:
            file, kind = form.get("file"), form.get("response_format", "json")
            if file is None or isinstance(file, str):
                raise ServerError("file: need the audio as a file of a multipart form")
            samples = await asyncio.to_thread(decode, await file.read(self.limits.body), self._input_rate)
        if kind not in ("json", "text", "verbose_json"):
            raise ServerError(f"response_format: need json, text or verbose_json, got {kind!r}")
        text, seconds = await self._transcript(request, samples), len(samples) / self._input_rate
        if kind == "text":
            return PlainTextResponse(text + "\n")
        if kind == "verbose_json":
            about = {"task": "transcribe", "language": "english", "duration": round(seconds, 2), "segments": []}
            return JSONResponse({**about, "text": text})
        return JSONResponse({"text": text, "usage": {"type": "duration", "seconds": round(seconds, 2)}})

    async def _transcript(self, request: Request, samples: np.ndarray) -> str:
        config = SessionConfig(decide=lambda _: False, longest_question=len(samples) / self._input_rate + 1)
        async with self._live(request, config) as live:
            await live.listen(samples)
            live.session.end_turn()
            while True:
                event = await live.event(within=self.limits.wait)
                if isinstance(event, Heard) and event.final:
                    return event.text

    @property
    def _input_rate(self) -> int:
        return self.engine.runner.spec.input_rate

    # -- chat ---------------------------------------------------------------------------------------------------------

    async def chat(self, request: Request) -> Response:
        data = await read_object(request, self.limits.body)
        for name, only in (("n", 1), ("tools", []), ("functions", [])):
            if data.get(name) not in (None, only):
                raise ServerError(f"{name}: this model does not take it here; leave it out")
        wanted = data.get("modalities") or ["text"]
        if not isinstance(wanted, list) or any(each not in ("text", "audio") for each in wanted):
            raise ServerError(f"modalities: need text, or text and audio, got {wanted!r}")
        history, question = await asyncio.to_thread(self._read_messages, data.get("messages"))
        audio = data.get("audio") or {}
        if not isinstance(audio, dict):
            raise ServerError(f"audio: need an object, got {audio!r}")
        form = audio.get("format", "wav") if "audio" in wanted else None
        known = ("pcm", "pcm16") if data.get("stream") else tuple(_FORMATS)
        if form is not None and form not in known:
            raise ServerError(f"audio.format: need one of {', '.join(_FORMATS)} (pcm16 in a stream), got {form!r}")
        answer, events = _Completion(self.name, form, self._rate), self._asked(request, history, question)
        first = await anext(events)  # so that what fails at once is an error and not half an answer
        if data.get("stream"):
            return StreamingResponse(self._chunks(first, events, answer), media_type="text/event-stream")
        answer.take(first)
        async for event in events:
            answer.take(event)
        return JSONResponse(answer.whole())

    async def _asked(
        self, request: Request, history: list[tuple[str, str]], question: list[str | np.ndarray]
    ) -> AsyncIterator[Event]:
        async with self._live(request, SessionConfig(paced=False)) as live:
            live.session.forget(*history)
            for part in question:
                if isinstance(part, str):
                    live.witness.happen(Wrote("user", part))
                    live.session.write("user", part)
                else:
                    await live.listen(part)
            live.session.answer()
            async for event in self._answer(live):
                yield event

    def _live(self, request: Request, config: SessionConfig) -> Live:
        name = request.state.id
        return Live(self.engine, config, name=short(name), witness=lambda: self._witnesses("http", name))

    async def _answer(self, live: Live) -> AsyncIterator[Event]:
        while True:
            event = await live.event(within=self.limits.wait)
            yield event
            if isinstance(event, Done):
                return

    async def _chunks(self, first: Event, rest: AsyncIterator[Event], answer: _Completion) -> AsyncIterator[str]:
        yield answer.chunk({"role": "assistant", "content": ""})
        event: Event | None = first
        try:
            while event is not None:
                if isinstance(event, Text):
                    yield answer.chunk({"content": event.text})
                elif isinstance(event, Audio) and answer.form is not None:
                    coded = base64.b64encode(io.encode_pcm16(event.samples)).decode()
                    yield answer.chunk({"audio": {"id": answer.audio_id, "data": coded}})
                event = await anext(rest, None)
        except DuologueError as error:
            yield f"data: {json.dumps({'error': {'message': str(error), 'type': 'server_error'}})}\n\n"
            return
        yield answer.chunk({}, finish="stop")
        yield "data: [DONE]\n\n"

    def _read_messages(self, messages: Any) -> tuple[list[tuple[str, str]], list[str | np.ndarray]]:
        """What was said before, and the parts of the question."""
        if not isinstance(messages, list) or not 0 < len(messages) <= self.limits.messages:
            raise ServerError(f"messages: need a list of 1 to {self.limits.messages} messages")
        history: list[tuple[str, str]] = []
        for place, message in enumerate(messages):
            role = message.get("role") if isinstance(message, dict) else None
            parts = self._parts(message.get("content"), where=f"messages[{place}]") if role else []
            if role in ("system", "developer") and place == 0:
                role = "system"
            elif role not in ("user", "assistant"):
                raise ServerError(f"messages[{place}].role: need system (first), user or assistant, got {role!r}")
            if place == len(messages) - 1:
                if role != "user":
                    raise ServerError("messages: the last one must be the user's")
                return history, parts
            if not all(isinstance(part, str) for part in parts):
                raise ServerError(
                    f"messages[{place}]: audio is heard in the last message only; give its transcript here"
                )
            history.append((role, " ".join(map(str, parts))))
        raise ServerError("messages: need at least one")

    def _parts(self, content: Any, *, where: str) -> list[str | np.ndarray]:
        content = [{"type": "text", "text": content}] if isinstance(content, str) else content
        if not isinstance(content, list) or not content:
            raise ServerError(f"{where}.content: need a text or a list of parts")
        found: list[str | np.ndarray] = []
        for part in content:
            match part:
                case {"type": "text" | "input_text" | "output_text", "text": str(text)} if (
                    len(text) <= self.limits.text
                ):
                    found.append(text)
                case {"type": "input_audio", "input_audio": {"data": str(data)}}:
                    found.append(decode(_base64(data, where=where), self._input_rate))
                case _:
                    raise ServerError(
                        f"{where}.content: need parts of the types text (up to {self.limits.text} characters) and "
                        "input_audio"
                    )
        return found


class _Completion:
    """An answer in the shapes of a chat completion."""

    def __init__(self, model: str, form: str | None, rate: int):
        self.form, self._rate, self._model = form, rate, model
        self.audio_id = f"audio_{secrets.token_hex(12)}"
        self._id, self._created = f"chatcmpl-{secrets.token_hex(12)}", int(time.time())
        self._text, self._audio = "", [np.zeros(0, np.float32)]

    def take(self, event: Event) -> None:
        if isinstance(event, Text):
            self._text += event.text
        elif isinstance(event, Audio):
            self._audio.append(event.samples)

    def whole(self) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": self._text.strip(), "refusal": None}
        if self.form is not None:
            coded = base64.b64encode(encode(np.concatenate(self._audio), self._rate, self.form)).decode()
            message["content"] = None
            message["audio"] = {
                "id": self.audio_id,
                "data": coded,
                "transcript": self._text.strip(),
                "expires_at": self._created + 3600,
            }
        choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
        return {**self._head("chat.completion"), "choices": [choice]}

    def chunk(self, delta: dict[str, Any], *, finish: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
        return f"data: {json.dumps({**self._head('chat.completion.chunk'), 'choices': [choice]})}\n\n"

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self._id, "object": kind, "created": self._created, "model": self._model}


def failure(message: str, *, status: int, code: str | None = None) -> JSONResponse:
    """An error as OpenAI's clients read it."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return JSONResponse({"error": {"message": message, "type": kind, "param": None, "code": code}}, status_code=status)


def sentences(text: str, *, longest: int = 240) -> list[str]:
    """A text in pieces that the model can say at once: sentences, or parts of sentences up to `longest` characters."""
    found: list[str] = []
    for sentence in re.split(r"(?<=[.!?;:])\s+|\n+", text.strip()):
        while len(sentence) > longest:
            cut = max(sentence.rfind(mark, 0, longest) for mark in (", ", " "))
            cut = cut + 1 if cut > 0 else longest
            found.append(sentence[:cut].strip())
            sentence = sentence[cut:].strip()
        if sentence:
            found.append(sentence)
    return found


def decode(data: bytes, sample_rate: int) -> np.ndarray:
    """A sound file's bytes to mono samples.

    Raises:
        AudioError: it is not audio, or too long.
    """
    try:
        with soundfile.SoundFile(bytes_io.BytesIO(data)) as file:
            io.check_length(len(file) / file.samplerate, where="the audio")
            resampler = io.Resampler(file.samplerate, sample_rate)
            pieces = [resampler(io.as_mono(block)) for block in file.blocks(2**16, dtype="float32", always_2d=True)]
    except (soundfile.LibsndfileError, ValueError, TypeError) as error:
        raise AudioError(f"the audio cannot be read ({error}); send WAV, FLAC, Ogg or MP3") from error
    return np.concatenate([*pieces, resampler(np.zeros(0, np.float32), final=True)])


def encode(samples: np.ndarray, rate: int, form: str) -> bytes:
    """Mono samples as a sound file of one of the known formats."""
    _, kind = _FORMATS[form]
    if kind is None:
        return io.encode_pcm16(samples)
    file = bytes_io.BytesIO()
    soundfile.write(file, samples, rate, format=kind[0], subtype=kind[1])
    return file.getvalue()


def wav_header(rate: int) -> bytes:
    """The head of a mono 16-bit WAV whose length is not known yet."""
    file = bytes_io.BytesIO()
    soundfile.write(file, np.zeros(0, np.float32), rate, format="WAV", subtype="PCM_16")
    head = bytearray(file.getvalue()[:44])
    head[4:8] = head[40:44] = b"\xff\xff\xff\xff"
    return bytes(head)


def _base64(data: str, *, where: str) -> bytes:
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise AudioError(f"{where}: the audio is not base64") from error
