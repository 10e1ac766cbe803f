"""How much was heard, read, written and said, in the protocol's tokens.

The model's own tokens stay behind the engine, so these are counted by rules anybody can repeat: a text token is four
bytes of UTF-8, begun or full; a second of the user's audio is 10 audio tokens, a second of the model's is 20.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from duologue.server.realtime.conversation import Item

_INPUT_RATE, _OUTPUT_RATE = 10, 20  # tokens of a second of audio


def text_tokens(text: str) -> int:
    return math.ceil(len(text.encode()) / 4)


def input_audio_tokens(milliseconds: float) -> int:
    return _ceil(milliseconds / 1000 * _INPUT_RATE)


def output_audio_tokens(milliseconds: float) -> int:
    return _ceil(milliseconds / 1000 * _OUTPUT_RATE)


def _ceil(tokens: float) -> int:
    return math.ceil(round(tokens, 3))


def item_tokens(item: Item) -> tuple[int, int]:
    """Text and audio tokens of an item that is read."""
    text = text_tokens(item.arguments) + text_tokens(item.output)
    audio = 0
    for part in item.parts:
        if part.is_audio:
            count = output_audio_tokens if item.role == "assistant" else input_audio_tokens
            audio += count(part.milliseconds)
        else:
            text += text_tokens(part.text)
    return text, audio


class Reading:
    """What a response read before it began. Marks the items as read: the next response finds them cached."""

    def __init__(self, instructions: str, items: Iterable[Item]):
        self.text, self.audio = text_tokens(instructions), 0
        self.cached_text, self.cached_audio = 0, 0
        for item in items:
            text, audio = item_tokens(item)
            self.text, self.audio = self.text + text, self.audio + audio
            if item.counted:
                self.cached_text, self.cached_audio = self.cached_text + text, self.cached_audio + audio
            item.counted = True

    def usage(self, *, text: int, audio: int) -> dict[str, Any]:
        """The usage of a response that wrote so many tokens."""
        cached = {"text_tokens": self.cached_text, "audio_tokens": self.cached_audio, "image_tokens": 0}
        return {
            "total_tokens": self.text + self.audio + text + audio,
            "input_tokens": self.text + self.audio,
            "output_tokens": text + audio,
            "input_token_details": {
                "text_tokens": self.text,
                "audio_tokens": self.audio,
                "image_tokens": 0,
                "cached_tokens": self.cached_text + self.cached_audio,
                "cached_tokens_details": cached,
            },
            "output_token_details": {"text_tokens": text, "audio_tokens": audio},
        }


def transcription_usage(milliseconds: float, transcript: str) -> dict[str, Any]:
    """The usage of a transcription."""
    audio, text = input_audio_tokens(milliseconds), text_tokens(transcript)
    return {
        "type": "tokens",
        "total_tokens": audio + text,
        "input_tokens": audio,
        "output_tokens": text,
        "input_token_details": {"text_tokens": 0, "audio_tokens": audio},
    }
