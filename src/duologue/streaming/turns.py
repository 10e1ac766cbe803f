"""Whose turn is it: from the probability of speech, window by window, to where the user's turns begin and end.

Nothing here knows audio, models or clocks: time is counted in windows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto

from duologue.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class TurnConfig:
    """When a turn begins and ends. Seconds throughout."""

    threshold: float = 0.5  # probability from which a window is speech; it stays speech down to 0.15 less
    start: float = 0.096  # of speech begin a turn
    before: float = 0.4  # before the beginning belong to the turn
    pause: float = 0.2  # of silence make an answer worth preparing
    end: float = 0.6  # of silence end the turn
    end_complete: float = 0.6  # ... where what was said sounds complete
    end_incomplete: float = 0.6  # ... where it does not

    def __post_init__(self):
        if not 0 < self.threshold < 1:
            raise ConfigError(f"TurnConfig: threshold must lie between 0 and 1, got {self.threshold}")
        if min(self.start, self.before, self.pause, self.end, self.end_complete, self.end_incomplete) < 0:
            raise ConfigError(f"TurnConfig: seconds cannot be negative, got {self}")


@dataclass(frozen=True, kw_only=True)
class OverlapConfig:
    """What speech over an answer does to it. The answer pauses at once; whether it was meant is found out meanwhile."""

    start: float = 0.032  # seconds of speech that make the answer stand still
    start_echo: float = 0.064  # ... where the microphone hears the answer too
    silence: float = 0.25  # seconds after which speech is over and judged
    enough: float = 0.6  # seconds of speech that are judged while they go on
    again: float = 0.3  # seconds more, after which they are judged again, or half as many again as there were
    longest: float = 8.0  # seconds that are listened to at once
    lead: float = 0.15  # seconds before the speech that are kept when it is heard a second time
    ending: float = 0.5  # seconds before the end of an answer in which any word is one to it

    def __post_init__(self):
        if (
            min(self.start, self.start_echo, self.lead) < 0
            or min(self.silence, self.again) <= 0
            or not 0 < self.enough <= self.longest
        ):
            raise ConfigError(f"OverlapConfig: need 0 < silence, 0 < again and 0 < enough <= longest, got {self}")


_SIGNS = """
uh huh uhhuh aha mhm mm mmhmm hm hmm ah oh ooh wow whoa yeah yes yep yup ok okay right alright sure really true indeed
exactly absolutely definitely certainly totally precisely great good nice cool fine lovely wonderful amazing awesome
excellent perfect brilliant fantastic interesting fascinating funny gotcha so well um er huh gosh
"""
BACKCHANNELS = frozenset(_SIGNS.split())
"""Words that people say while they listen. A few of them in a row ask for nothing."""
_TOGETHER_SIGNS = """
i see|i know|i understand|all right|of course|no doubt|no way|no kidding|got it|got you|go on|that is right|
that is true|that is good|that is great|that is nice|that is interesting|that is amazing|that is fine|
that is cool|you are right|good idea|very good|very nice|very interesting|very true|quite right|fair enough|
makes sense|is that so|is that right|i bet|oh my god|oh my goodness|my goodness|oh my|oh dear|good to know|
good point|how nice|how interesting|how funny
"""
PHRASES = _TOGETHER_SIGNS.replace("\n", "").split("|")
"""... and a few words in a row that do so together."""
_REQUESTS = """
stop|wait|hold on|hang on|one moment|wait a minute|no|no no|not that|but|actually|hey|hello|excuse me|sorry|pardon|
what|why|who|when|where|how|which|what is that|what about|can you|could you|tell me|say that again|again|repeat|
pause|quiet|be quiet|shut up|enough|that is enough|stop it|okay stop|okay wait|listen|help|cancel|never mind|go back|
next|louder|slower|thank you|thanks
"""


def _as_written(words: str) -> str:
    return f"{words[0].upper()}{words[1:]}.".replace("hat is ", "hat's ")


EXPECTED = tuple(
    dict.fromkeys(
        [_as_written(words) for words in [*_SIGNS.split(), *PHRASES]]
        + ["Mm-hmm.", "Uh-huh.", "Oh, okay.", "Oh, wow.", "Oh, yeah.", "Oh, really?", "Yeah, yeah.", "Okay, okay."]
        + [_as_written(words) for words in _REQUESTS.replace("\n", "").split("|")]
        + ["Stop!", "Wait!", "No!", "Hey!", "Why?", "What?", "Who?"]
    )
)
"""Short things that people say over an answer: signs of listening, and requests that sound like them. Who listens to
such may expect them (`StreamingModel.overhear`)."""
_TOGETHER = re.compile(rf"\b(?:{'|'.join(PHRASES)})\b")
_GRUNT = re.compile(r"(?:[aeou]*h+[aeoumn]*h*m*|[aeou]?h*m+(?:h+m+)*|(?:tsk|ha|heh))+")  # hmm, ahem, heh, aah, tsk tsk


def is_backchannel(text: str, *, most: int = 4) -> bool:
    """Whether these words, said over an answer, leave it to go on: none at all, or a few signs of listening."""
    plain = re.sub(r"'re\b", " are", re.sub(r"'s\b", " is", text.lower()))
    words = re.findall(r"[a-z']+|\d+", _TOGETHER.sub(" okay ", " ".join(re.findall(r"[a-z']+|\d+", plain))))
    return len(words) <= most and all(word in BACKCHANNELS or _GRUNT.fullmatch(word) for word in words)


class Turn(Enum):
    """What became of the user's turn in a window."""

    BEGAN = auto()
    PAUSED = auto()  # they may have finished
    WENT_ON = auto()  # they had not
    ENDED = auto()


class TurnDetector:
    """Follows one stream of windows.

    Args:
        window: seconds of a window.
    """

    def __init__(self, config: TurnConfig, *, window: float):
        self.config, self.window = config, window
        self.reset()

    def reset(self) -> None:
        """Nobody is speaking."""
        self.speaking = self.paused = False
        self.complete: float | None = None  # how complete what was said sounds, where somebody knows; 0 to 1
        self._speech = self._silence = 0  # windows in a row

    def step(self, probability: float, *, start: float | None = None) -> Turn | None:
        """Takes the next window's probability of speech.

        Args:
            start: seconds of speech that begin a turn now; None: those of the configuration.
        """
        config = self.config
        start = config.start if start is None else start
        speech = probability >= config.threshold - (0.15 if self.speaking else 0.0)
        self._speech = self._speech + 1 if speech else 0
        self._silence = 0 if speech else self._silence + 1
        if not self.speaking:
            if self._speech and self._speech * self.window >= start:
                self.speaking = True
                return Turn.BEGAN
            return None
        if speech and self.paused:
            self.paused, self.complete = False, None
            return Turn.WENT_ON
        if speech:
            return None
        if self._silence * self.window >= self._end():
            self.reset()
            return Turn.ENDED
        if not self.paused and self._silence * self.window >= config.pause:
            self.paused = True
            return Turn.PAUSED
        return None

    @property
    def silence(self) -> float:
        """Seconds of silence up to now."""
        return self._silence * self.window

    def _end(self) -> float:
        if self.complete is None:
            return self.config.end
        return self.config.end_complete if self.complete >= 0.5 else self.config.end_incomplete
