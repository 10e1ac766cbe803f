"""What one client may ask of the server."""

from __future__ import annotations

from dataclasses import dataclass

MOST_AUDIO = 15 * 2**20  # bytes of audio in one event, as the protocol has it
MOST_INSTRUCTED = 6_000  # characters of instructions; more would take the model minutes to read, and it forgets them


@dataclass(frozen=True, kw_only=True)
class RealtimeLimits:
    """Bounds of one connection."""

    event: int = MOST_AUDIO // 3 * 4 + 65_536  # characters of one event
    items: int = 500  # in a conversation
    text: int = 32_768  # characters of one item
    instructions: int = MOST_INSTRUCTED  # characters
    tools: int = 128
    tools_size: int = 65_536  # characters of all tools as JSON
    memory: int = 6_000  # characters of the conversation that are written anew where it has to be
    events: float = (
        300.0  # a second, in the long run: sound in pieces of 10 ms comes three times as fast as it is spoken
    )
    events_at_once: int = 3_000  # what comes faster is read later, and nothing of it is lost
    unread: int = 6_000  # that may wait to be read where the carrier cannot hold them back
    unread_size: int = 32 * 2**20  # characters of them
    backlog: float = 300.0  # seconds of audio that may wait to be heard
    longest_turn: float = 60.0  # seconds of audio in one item
    kept_audio: float = 180.0  # seconds of audio that can be retrieved
    waiting: int = 2_048  # events that may wait to be sent; a client that is slower loses its session
    waiting_size: int = 16 * 2**20  # characters of them
    apart: int = 2  # responses outside the conversation at once
    longest_session: float = 3_600.0  # seconds
    idle: float = 600.0  # seconds without a word from the client
    slowest: float = 20.0  # seconds that sending an event may take


@dataclass(frozen=True, kw_only=True)
class CallLimits:
    """Bounds of calls over WebRTC. Seconds, unless it says otherwise."""

    most: int = 64  # calls, also those that are being answered or closed
    answering: float = 5.0  # to find the answer to an offer
    connecting: float = 15.0  # from the answer until the caller is there
    vanished: float = 4.0  # without a packet, nor an answer when asked for one, after which a caller is gone
