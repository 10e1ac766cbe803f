"""Clients that hang up without a word, and clients that stay without a word, while others have a conversation.

Every place has to come back, and the conversations that go on meanwhile have to be what they are alone.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from duologue.audio import io
from duologue.audio.opus import OpusWriter
from duologue.errors import DataError
from duologue.eval.metrics import Interval, percentile
from duologue.eval.soak_memory import hum
from duologue.eval.talk import RATE, Question, Said, hold
from duologue.eval.tasks import Outcome
from duologue.eval.watched import Watched
from duologue.eval.wire import BINARY, TEXT, Line, frames, line, request, upgrade
from duologue.eval.wire import frame as framed

WAVE = 5  # that take a place, at once
WITNESSES = 2
_NEVER = 999.0  # stands for seconds of what did not happen
_FIRST = 30.0  # seconds until an answer begins
_LONG = "Tell me all that you know about the sea, the sky and the land, slowly."


def event(kind: str, **fields: Any) -> bytes:
    return framed(TEXT, json.dumps({"type": kind, **fields}).encode())


def question() -> bytes:
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": _LONG}]}
    return event("conversation.item.create", item=item) + event("response.create")


async def until(reader: asyncio.StreamReader, word: bytes) -> None:
    """Reads until a frame holds a word."""

    async def read() -> None:
        async for _, payload in frames(reader):
            if word in payload:
                return
        raise DataError("the server hung up first")

    await asyncio.wait_for(read(), _FIRST)


async def opened(reader: asyncio.StreamReader, sender: Line, path: str, address: str) -> None:
    """A WebSocket.

    Raises:
        DataError: it is refused.
    """
    await sender.send(upgrade(path, host=address))
    if b" 101 " not in (head := await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), _FIRST)).split(b"\r\n")[0]:
        raise DataError(f"an honest handshake is refused: {head[:60]!r}")


# -- who hangs up -----------------------------------------------------------------------------------------------------

Client = Callable[[asyncio.StreamReader, Line, random.Random, str], Awaitable[None]]
"""What a client does before it is gone."""


async def in_handshake(reader: asyncio.StreamReader, sender: Line, chance: random.Random, address: str) -> None:
    whole = upgrade(chance.choice(["/v1/realtime", "/api/chat"]), host=address)
    await sender.send(whole[: chance.randrange(1, len(whole))])


async def after_handshake(reader: asyncio.StreamReader, sender: Line, chance: random.Random, address: str) -> None:
    await sender.send(upgrade(chance.choice(["/v1/realtime", "/api/chat"]), host=address))
    await asyncio.sleep(chance.random() * 0.05)


async def listening(reader: asyncio.StreamReader, sender: Line, chance: random.Random, address: str) -> None:
    await opened(reader, sender, "/v1/realtime", address)
    sound = base64.b64encode(io.encode_pcm16(hum(0.2))).decode()
    for _ in range(chance.randint(1, 8)):
        await sender.send(event("input_audio_buffer.append", audio=sound))
    half = event("input_audio_buffer.append", audio=sound)
    await sender.send(half[: chance.randrange(1, len(half))])


async def answered(reader: asyncio.StreamReader, sender: Line, chance: random.Random, address: str) -> None:
    await opened(reader, sender, "/v1/realtime", address)
    await sender.send(question())
    await until(reader, chance.choice([b"response.created", b"response.output_audio.delta"]))


async def moshi(reader: asyncio.StreamReader, sender: Line, chance: random.Random, address: str) -> None:
    await opened(reader, sender, "/api/chat", address)
    writer = OpusWriter(RATE)
    for begin in range(0, RATE // 2, 1_920):
        await sender.send(framed(BINARY, b"\x01" + writer.push(hum(0.5)[begin : begin + 1_920])))
    if chance.random() < 0.5:
        await sender.send(framed(BINARY, b"\x03\x01"))  # the end of the turn
        await asyncio.sleep(chance.random())


async def in_body(reader: asyncio.StreamReader, sender: Line, chance: random.Random, address: str) -> None:
    path = chance.choice(["/v1/audio/speech", "/v1/chat/completions", "/v1/audio/transcriptions", "/v1/realtime/calls"])
    kind = {"Content-Type": "application/sdp" if "calls" in path else "multipart/form-data; boundary=limit"}
    await sender.send(request("POST", path, b"--limit\r\n" + bytes(5_000), headers=kind)[: -chance.randrange(1, 4_000)])
    await asyncio.sleep(chance.random() * 0.05)


async def in_stream(reader: asyncio.StreamReader, sender: Line, chance: random.Random, address: str) -> None:
    body = json.dumps({"input": _LONG, "response_format": "pcm"}).encode()
    await sender.send(request("POST", "/v1/audio/speech", body, headers={"Content-Type": "application/json"}))
    await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), _FIRST)


GONE: tuple[Client, ...] = (in_handshake, after_handshake, listening, answered, moshi, in_body, in_stream)


# -- who stays --------------------------------------------------------------------------------------------------------


async def says_nothing(reader: asyncio.StreamReader, sender: Line, chance: random.Random, address: str) -> None:
    pass


async def upgraded(reader: asyncio.StreamReader, sender: Line, chance: random.Random, address: str) -> None:
    """... and does not answer when it is asked whether it is there."""
    await opened(reader, sender, chance.choice(["/v1/realtime", "/api/chat"]), address)


async def half_a_frame(reader: asyncio.StreamReader, sender: Line, chance: random.Random, address: str) -> None:
    await opened(reader, sender, "/v1/realtime", address)
    await sender.send(event("input_audio_buffer.append", audio="A" * 8_000)[: chance.randrange(1, 8_000)])


async def reads_no_more(reader: asyncio.StreamReader, sender: Line, chance: random.Random, address: str) -> None:
    """Has much sent to it that it does not take."""
    await opened(reader, sender, "/v1/realtime", address)
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "x" * 32_000}]}
    put = event("conversation.item.create", item={**item, "role": "system"}, previous_item_id="root")
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(sender.send(*[put] * 200), 1.0)  # 13 MB come back


async def reads_no_answer(reader: asyncio.StreamReader, sender: Line, chance: random.Random, address: str) -> None:
    await opened(reader, sender, "/v1/realtime", address)
    await sender.send(question())


STAYING: tuple[Client, ...] = (upgraded, half_a_frame, reads_no_more, reads_no_answer)  # each with a place
IDLE: tuple[Client, ...] = (says_nothing, in_handshake, in_body)  # ... with none


# -- who must not notice ----------------------------------------------------------------------------------------------


@dataclass
class Witness:
    """Has the same conversation again and again."""

    address: str
    questions: Sequence[Question]
    alone: Sequence[Said]
    turns: int = 0
    harm: list[str] = field(default_factory=list)

    async def run(self, over: asyncio.Event) -> None:
        while not over.is_set():
            try:
                said = await hold(self.address, self.questions)
            except DataError as error:
                self.harm.append(str(error))
                await asyncio.sleep(0.2)
                continue
            self.turns += len(said)
            for one, other in zip(self.alone, said, strict=True):
                if not one.same(other):
                    self.harm.append(f"{one.text!r} ({len(one.samples)}) became {other.text!r} ({len(other.samples)})")


@contextlib.asynccontextmanager
async def watching(server: Watched, questions: Sequence[Question], count: int) -> AsyncIterator[list[Witness]]:
    """So many witnesses at work. They end with what they are at."""
    alone = await hold(server.address, questions)
    found = [Witness(server.address, questions, alone) for _ in range(count)]
    over = asyncio.Event()
    tasks = [asyncio.create_task(each.run(over)) for each in found]
    try:
        yield found
    finally:
        over.set()
        await asyncio.gather(*tasks)


# -- the measure ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Found:
    """Seconds until the places were back, wave by wave (None: never), and what the witnesses say."""

    gone: list[float | None]
    stayed: list[float | None]
    clients: tuple[int, int]
    turns: int
    harm: list[str]
    refused: list[str]  # clients that were not even let in
    complaints: list[str]
    lost: int


async def measure(
    server: Watched,
    questions: Sequence[Question],
    *,
    hang_ups: int,
    half_open: int,
    seed: int = 0,
    witnesses: int = WITNESSES,
    wave: int = WAVE,
    latest: float = 30.0,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> Found:
    """Waves of both, one after the other. Half of the half-open ones take a place.

    Args:
        latest: seconds after which a place counts as lost.
    """
    chance, refused = random.Random(seed), list[str]()
    gone: list[float | None] = []
    stayed: list[float | None] = []
    async with watching(server, questions, witnesses) as found:
        for begin in range(0, hang_ups, wave):
            numbers = range(begin, min(begin + wave, hang_ups))
            clients = [(GONE[number % len(GONE)], random.Random(chance.random())) for number in numbers]
            await asyncio.gather(*(hang_up(server.address, *client, refused) for client in clients))
            gone.append(await server.freed(lambda: witnesses, within=latest))
            tell(begin + len(clients), hang_ups + half_open)
        for begin in range(0, half_open, 2 * wave):
            numbers = range(begin, min(begin + 2 * wave, half_open))
            clients = [(_staying(number), random.Random(chance.random())) for number in numbers]
            stayed.append(await stay(server, clients, refused, taken=witnesses, latest=latest))
            tell(hang_ups + begin + len(clients), hang_ups + half_open)
    lost = 0
    if await server.freed(within=latest) is None:
        free, places = await server.places()
        lost = places - free
    harm = [each for witness in found for each in witness.harm]
    turns = sum(witness.turns for witness in found)
    return Found(gone, stayed, (hang_ups, half_open), turns, harm, refused, server.complaints(), lost)


def _staying(number: int) -> Client:
    """Every second one takes a place."""
    kinds = IDLE if number % 2 else STAYING
    return kinds[number // 2 % len(kinds)]


async def hang_up(address: str, client: Client, chance: random.Random, refused: list[str]) -> None:
    """One client, ended by a reset."""
    async with line(address) as (reader, sender):
        await _do(client, reader, sender, chance, address, refused)
        sender.reset()


async def stay(
    server: Watched, clients: Sequence[tuple[Client, random.Random]], refused: list[str], *, taken: int, latest: float
) -> float | None:
    """Clients that keep their connections open; seconds from the last sign of them until the places are free."""
    async with contextlib.AsyncExitStack() as stack:

        async def begin(client: Client, chance: random.Random) -> None:
            reader, sender = await stack.enter_async_context(line(server.address, narrow=client in STAYING[2:]))
            await _do(client, reader, sender, chance, server.address, refused)

        await asyncio.gather(*(begin(client, chance) for client, chance in clients))
        return await server.freed(lambda: taken, within=latest)


async def _do(
    client: Client,
    reader: asyncio.StreamReader,
    sender: Line,
    chance: random.Random,
    address: str,
    refused: list[str],
) -> None:
    try:
        await client(reader, sender, chance, address)
    except (DataError, OSError, asyncio.IncompleteReadError) as error:
        refused.append(f"{client.__name__}: {type(error).__name__} {error}")


def outcome(found: Found) -> Outcome:
    def worst(times: Sequence[float | None]) -> Interval:
        all_times = [_NEVER if each is None else each for each in times] or [0.0]
        return Interval(max(all_times), min(all_times), max(all_times))

    values = {
        "hangups_back": worst(found.gone),
        "half_open_back": worst(found.stayed),
        "hangups_harm": Interval(*[float(len(found.harm))] * 3),
        "hangups_lost": Interval(*[float(found.lost)] * 3),
        "hangups_complaints": Interval(*[float(len(found.complaints))] * 3),
    }
    known = [each for each in found.gone if each is not None]
    details = {
        "gone": found.gone,
        "gone_p50": percentile(known, 50) if known else None,
        "stayed": found.stayed,
        "witness_turns": found.turns,
        "harm": found.harm[:100],
        "refused": found.refused[:100],
        "complaints": found.complaints[:100],
    }
    return Outcome(values=values, count=sum(found.clients), details=details)
