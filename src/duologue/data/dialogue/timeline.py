"""When each side of a conversation speaks: gaps and overlaps, pauses, backchannels, interruptions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from duologue.data.dialogue.clips import Clip
from duologue.data.dialogue.config import Distribution, TimingConfig
from duologue.data.dialogue.texts import ASSISTANT, USER, Phrases, Script
from duologue.data.word_times import Word

TURN, BACKCHANNEL = "turn", "backchannel"
APART = 0.1  # seconds at least between two utterances of the same side
WITHIN = 0.5  # share of a turn that must be over before the answer to it may begin
CLAUSE = (",", ";", ":", ".", "?", "!")

Say = Callable[[str, str], Clip]  # role, text


@dataclass(kw_only=True)
class Utterance:
    """One stretch of one side. What was drawn for it stands beside what came of it; seconds."""

    role: str  # assistant | user
    kind: str  # turn | backchannel
    text: str  # as said: of a turn that was cut off, what was said of it
    start: float
    end: float
    words: list[Word]  # times from the conversation's start
    gap: float | None = None  # since the end of the turn before; none for the first turn and for interruptions
    gap_drawn: float | None = None
    pauses: list[float] = field(default_factory=list)  # silence between two words
    pauses_drawn: list[float] = field(default_factory=list)
    interrupts: bool = False  # began on purpose while the assistant spoke
    stop: float | None = None  # of a turn that was cut off: from the interruption to its last sound
    stop_drawn: float | None = None


@dataclass
class Timeline:
    """A conversation laid out in time."""

    utterances: list[Utterance]  # in order of their start
    clips: list[Clip]  # the sound of each
    seconds: float
    room: dict[str, float]  # side -> seconds in which it might have murmured something; backchannels come at their rate


def lay_out(script: Script, say: Say, *, timing: TimingConfig, phrases: Phrases, rng: np.random.Generator) -> Timeline:
    """Draws the timing of a conversation.

    Args:
        say: gives the sound of a text in the voice of a side.
    Raises:
        DataError: as `say`.
    """
    layout = _Layout(say, timing, phrases, rng)
    for number, line in enumerate(script.lines):
        following = script.lines[number + 1].role if number + 1 < len(script.lines) else ""
        layout.add_turn(line.role, line.text, following=following)
    pairs = sorted(zip(layout.utterances, layout.clips, strict=True), key=lambda pair: pair[0].start)
    end = max(utterance.end for utterance, _ in pairs) + timing.tail.draw(rng)
    return Timeline([utterance for utterance, _ in pairs], [clip for _, clip in pairs], end, layout.room)


class _Layout:
    def __init__(self, say: Say, timing: TimingConfig, phrases: Phrases, rng: np.random.Generator):
        self.say, self.timing, self.phrases, self.rng = say, timing, phrases, rng
        self.utterances: list[Utterance] = []
        self.clips: list[Clip] = []
        self.room = {ASSISTANT: 0.0, USER: 0.0}
        self._free = {ASSISTANT: 0.0, USER: 0.0}  # when each side has said its last
        self._last: Utterance | None = None  # turn
        self._break_in: float | None = None  # when the user's next turn begins, over the assistant's

    def add_turn(self, role: str, text: str, *, following: str) -> None:
        interrupts, start = self._break_in is not None, self._break_in
        self._break_in = None
        clip = self.say(role, self._broken_in(text) if interrupts else text)
        pauses = self._draw_pauses(role, clip)
        paused = clip.with_pauses(pauses)
        gap_drawn = None
        if start is None:
            start, gap_drawn = self._start(role)
            start = self._on_grid(role, start)
        turn = Utterance(role=role, kind=TURN, text=paused.text, start=start, end=0.0, words=[], interrupts=interrupts)
        if role == ASSISTANT and following == USER:
            paused = self._interrupted(turn, paused)
        if gap_drawn is not None and self._last is not None:
            turn.gap, turn.gap_drawn = round(start - self._last.end, 6), gap_drawn
        made = [number for number in pauses if number + 1 < len(paused.words)]
        turn.pauses_drawn = [pauses[number] for number in made]
        turn.pauses = [round(paused.words[n + 1].start - paused.words[n].end, 6) for n in made]
        self._place(turn, paused)
        self._last = turn
        self._murmur(USER if role == ASSISTANT else ASSISTANT, turn)

    def _broken_in(self, text: str) -> str:
        return f"{self._one_of(self.phrases.interruptions)} {text}".strip()

    def _one_of(self, texts: tuple[str, ...]) -> str:
        return texts[int(self.rng.integers(len(texts)))]

    def _place(self, utterance: Utterance, clip: Clip) -> None:
        utterance.text, utterance.end = clip.text, utterance.start + clip.seconds
        utterance.words = [word.moved(utterance.start) for word in clip.words]
        self._free[utterance.role] = max(self._free[utterance.role], utterance.end)
        self.utterances.append(utterance)
        self.clips.append(clip)

    def _start(self, role: str) -> tuple[float, float | None]:
        """When a turn begins, and the gap that was drawn for it."""
        if self._last is None:
            return self.timing.lead.draw(self.rng), None
        drawn = self._gap(role, self._last).draw(self.rng)
        heard = self._last.start + WITHIN * (self._last.end - self._last.start)
        return max(self._last.end + drawn, heard, self._free[role] + APART), drawn

    def _gap(self, role: str, last: Utterance) -> Distribution:
        if role == last.role:
            return self.timing.goes_on
        return self.timing.assistant_gap if role == ASSISTANT else self.timing.user_gap

    def _on_grid(self, role: str, start: float) -> float:
        """The next time at which this side may begin."""
        grid = self.timing.assistant_grid if role == ASSISTANT else 0.0
        return math.ceil(start / grid - 1e-6) * grid if grid else start

    def _draw_pauses(self, role: str, clip: Clip) -> dict[int, float]:
        timing, rng, found = self.timing, self.rng, {}
        user = role == USER
        at_clause = timing.user_pause_chance if user else timing.assistant_pause_chance
        elsewhere = timing.user_hesitation_chance if user else 0.0
        for number, word in enumerate(clip.words[:-1]):
            if rng.random() < (at_clause if word.text.endswith(CLAUSE) else elsewhere):
                found[number] = (timing.user_pause if user else timing.assistant_pause).draw(rng)
        return found

    def _interrupted(self, turn: Utterance, clip: Clip) -> Clip:
        """Whether and where the user breaks in; the assistant's turn then ends with a word soon after."""
        timing, rng, words = self.timing, self.rng, clip.words
        share, within, delay = timing.interruption_at.draw(rng), rng.random(), timing.stop_delay.draw(rng)
        if rng.random() >= timing.interruption_chance or len(words) < timing.interruption_words:
            return clip
        at = min(int(share * len(words)), len(words) - 2)
        begin = turn.start + words[at].start + within * (words[at].end - words[at].start)
        if begin < self._free[USER] + APART:
            return clip
        said = [n for n, word in enumerate(words) if turn.start + word.end <= begin + delay]
        cut = clip.cut_after(max([at, *said]))
        self._break_in = begin
        turn.stop, turn.stop_drawn = round(turn.start + cut.seconds - begin, 6), delay
        return cut

    def _murmur(self, role: str, turn: Utterance) -> None:
        """Backchannels of the one who listens: a Poisson process over the turn's time, without its edges."""
        timing, rng = self.timing, self.rng
        rate = (timing.user_backchannels if role == USER else timing.assistant_backchannels) / 60
        texts = self.phrases.user_backchannels if role == USER else self.phrases.assistant_backchannels
        begin = max(turn.start, self._free[role] + APART) + timing.backchannel_margin
        end = (self._break_in if self._break_in is not None else turn.end) - timing.backchannel_margin
        while rate > 0:
            clip = self.say(role, self._one_of(texts))
            last = end - clip.seconds - max(0.0, timing.backchannel_delay.high)
            wait = float(rng.exponential(1 / rate))
            self.room[role] += max(0.0, min(wait, last - begin))
            if begin + wait >= last:
                return
            start = self._on_grid(role, max(begin, self._after_a_word(turn.words, begin + wait)))
            murmur = Utterance(role=role, kind=BACKCHANNEL, text="", start=start, end=0.0, words=[])
            self._place(murmur, clip)
            begin = murmur.end + timing.backchannel_margin

    def _after_a_word(self, words: Sequence[Word], at: float) -> float:
        """A little after the end of the last word that has been said."""
        end = max((word.end for word in words if word.end <= at), default=at)
        return end + self.timing.backchannel_delay.draw(self.rng)
