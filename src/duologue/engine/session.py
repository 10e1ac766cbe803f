"""One user's conversation in the engine: what was heard, whose turn it is, what is being said.

The first methods may be called from any thread: they post to the engine's thread, on which all else runs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING

import numpy as np

from duologue.audio.frames import Framer
from duologue.audio.vad import SAMPLE_RATE, WINDOW, VadState
from duologue.engine.answer import Answer
from duologue.engine.duplex import Intake
from duologue.engine.loudspeaker import Loudspeaker
from duologue.engine.overlap import Overlap
from duologue.engine.runner import Spoken
from duologue.errors import BusyError, PartError
from duologue.streaming.events import (
    Audio,
    Clock,
    Declined,
    Done,
    Event,
    Failed,
    Heard,
    Interrupted,
    Late,
    Metrics,
    Paused,
    Resumed,
    SpeechStarted,
    SpeechStopped,
    Text,
)
from duologue.streaming.turns import EXPECTED, OverlapConfig, Turn, TurnConfig, TurnDetector, is_backchannel
from duologue.streaming.writing import Writing

if TYPE_CHECKING:
    from duologue.engine.engine import Engine

Decide = Callable[[str], "bool | str"]
"""What follows a turn of the user's that was transcribed so: True, an answer; False, nothing yet (`Session.answer` or
`Session.say` will tell); a text, that text as the answer. On the engine's thread; it must not wait."""

Sink = Callable[[Event], None]
"""Takes a session's events, on the engine's thread; it must not wait."""


@dataclass(frozen=True, kw_only=True)
class SessionConfig:
    """What one session may do."""

    turns: TurnConfig | None = None  # None: the user says when a turn ends
    decide: Decide = field(default=lambda transcript: True)
    interrupts: bool = True  # whether speech over an answer cuts it short, where turns are found
    overlap: OverlapConfig | None = None  # how it is found out what speech over an answer means; None: it interrupts
    echo: bool = False  # whether the answer is taken out of what the microphone hears, where turns are found
    paced: bool = True  # the answer is listened to as it comes; False: it is wanted as fast as can be. A duplex
    # family's ticks are on the clock where it is paced, with silence where no audio came; else they wait for audio
    late: float = 0.24  # seconds of audio that may wait where it came too late for its tick; duplex families only
    ahead: bool = True  # audio may come before its time and waits; False: what waits is late, as from a microphone
    longest_question: float = 60.0  # seconds after which a turn ends by itself
    longest_answer: float = 300.0  # seconds of speech
    backlog: float = 30.0  # seconds of audio that may wait to be heard
    idle_steps: int = 2_000  # in a row without text or speech, after which an answer counts as stuck


_PREPARED = 0.5  # seconds of speech that are made of an answer while the user may yet go on


class _Phase(Enum):
    HEARING = auto()  # the user has the floor, or nobody
    ENDING = auto()  # the turn is over (or seems so) and will be heard as a whole
    ENDED = auto()  # it was heard; nothing is to be said yet
    ANSWERING = auto()  # ... and the loudspeaker may still be playing it when all is said


class Session:
    """A place in the engine. Made by `Engine.open`."""

    def __init__(self, engine: Engine, slot: int, sink: Sink, config: SessionConfig):
        spec = engine.runner.spec
        self._engine, self._slot, self._sink, self._config = engine, slot, sink, config
        self._input_rate, self._output_rate, self._tick = spec.input_rate, spec.output_rate, spec.tick
        self._framer, self._windows = Framer(spec.input_samples), Framer(WINDOW)
        self._ticks: deque[np.ndarray] = deque()  # audio of the turn that waits to be heard
        self._waiting: deque[np.ndarray] = deque()  # windows that wait for the voice detector
        self._writings: deque[tuple[str, str]] = deque()  # text that waits to be read
        self._writing: Iterator[None] | None = None  # ... the one that is being read
        self._waiting_since = 0.0
        self._forgetting: list[Sequence[tuple[str, str]]] = []  # what is begun with, posted last and not yet done
        self._posted = 0  # samples handed in that the engine's thread has not taken yet
        self._samples = 0  # taken since the session began
        self._omega = 0
        self.vad: VadState = engine.voice.init_state(1)
        self.closed = False
        self._duplex = spec.duplex
        self._clock: Clock | None = None
        echoes = config.echo and config.paced and not spec.duplex
        self._loudspeaker = Loudspeaker(spec.output_rate) if echoes else None
        most = max(1, round(config.late / spec.tick))
        on_clock = spec.duplex and config.paced
        self._intake = Intake(spec.input_samples, most=most, ahead=config.ahead) if on_clock else None
        self._cleaned: tuple[np.ndarray, bool] | None = None  # the first that waits: its rest, and whether it is more
        self._start_turn()
        self._set_turns(None if spec.duplex else config.turns, config.interrupts)

    # -- for any thread -----------------------------------------------------------------------------------------------

    def listen(self, samples: np.ndarray) -> None:
        """Hands in the user's next audio: mono float32 in [-1, 1] at the model's input rate, any number of samples.

        Raises:
            BusyError: more audio waits than the session may keep waiting; this was not taken.
        """
        waiting = self._posted + len(self._waiting) * WINDOW + len(self._ticks) * self._framer.size
        waiting += self._intake.waiting if self._intake else 0
        if waiting + len(samples) > self._config.backlog * self._input_rate:
            raise BusyError(
                f"at most {self._config.backlog:.0f} seconds of audio may wait to be heard; "
                "send no faster than real time, and nothing during an answer"
            )
        self._posted += len(samples)
        self._post(lambda: self._take(samples))

    def end_turn(self) -> None:
        """The user has finished. In a duplex family there are no turns: nothing happens, nor at `answer` and `stop`."""
        self._post(self._end_by_hand)

    def answer(self) -> None:
        """Answers the turn that has ended, or what was written. Nothing happens while an answer is being made."""
        self._post(self._answer)

    def say(self, text: str) -> None:
        """Says a text as the answer to the turn that has ended, or out of the blue. Nothing happens while an answer is
        being made. A duplex family says it as soon as it can, or `Declined` comes."""
        self._post(lambda: self._answer(text))

    def write(self, role: str, text: str) -> None:
        """Adds text to the conversation, in order with what else is asked; see `StreamingModel.write`."""
        self._post(lambda: self._add_text(role, text))

    def forget(self, *turns: tuple[str, str]) -> None:
        """Forgets the conversation, and begins another with these (role, text)."""
        if self._forgetting:  # nothing came between: once is enough
            with suppress(IndexError):  # it was just done
                self._forgetting[0] = turns
                return
        to_come: list[Sequence[tuple[str, str]]] = [turns]
        self._post(lambda: self._forget(to_come.pop()))
        self._forgetting = to_come

    def stop(self, heard: float | None = None) -> None:
        """Cuts the answer short. `heard`: seconds that were heard of it; None: as many as can have been."""
        self._post(lambda: self._stop(heard))

    def playing(self, heard: float) -> None:
        """Tells how many seconds of the answer have been played by now, where somebody knows; negative while it waits
        for what was said before it. Otherwise it counts as played from when it comes."""
        at = self._engine.now()
        self._post(lambda: self._saying.told(heard, at))

    def set_turns(self, config: TurnConfig | None, *, interrupts: bool | None = None) -> None:
        """Whether the engine finds the turns, from now on; a turn that has begun is forgotten. `interrupts`: whether
        speech over an answer cuts it short, from now on; None: as before."""
        self._post(lambda: self._set_turns(config, interrupts))

    def set_omega(self, omega: int) -> None:
        """The size of the answers' chunks from now on, in a family that has such; 0: the model's own."""
        self._post(lambda: self._set_omega(omega))

    def close(self) -> None:
        """Gives the place back. No event comes after the engine has taken this in."""
        self._engine.post(lambda: self._engine.release(self))

    def _post(self, call: Callable[[], None]) -> None:
        """Does something on the engine's thread, unless the place is somebody else's by then."""
        self._forgetting = []
        self._engine.post(lambda: None if self.closed else call())

    # -- what the scheduler sees --------------------------------------------------------------------------------------

    @property
    def slot(self) -> int:
        return self._slot

    @property
    def can_write(self) -> bool:
        """Text waits to be read. It goes before audio that waits, and after an answer that is being made."""
        return self._writing is not None or (bool(self._writings) and self._held is None and not self.speaking)

    @property
    def on_clock(self) -> bool:
        """Has a tick whenever one is due, whether there is audio for it or not."""
        return self._intake is not None

    @property
    def can_listen(self) -> bool:
        if self._intake is not None:
            return self._engine.tick_due and not self._reading
        return not self._reading and bool(self._ticks) and (self._phase is _Phase.HEARING or self._before_end > 0)

    @property
    def can_end(self) -> bool:
        """The end of the turn waits to be heard."""
        return self._phase is _Phase.ENDING and not self._before_end and not self._reading

    @property
    def waiting_since(self) -> float:
        """The time since which text, or the end of the turn, waits."""
        return self._waiting_since

    @property
    def active(self) -> bool:
        """Somebody speaks in it, or is about to."""
        if self._phase is _Phase.HEARING:
            return self._question > 0
        return self._phase is _Phase.ENDING or self.speaking

    @property
    def speaking(self) -> bool:
        if self._phase is not _Phase.ANSWERING or self._saying.complete or self._writing is not None:
            return False
        return self._held is None or self._saying.made < _PREPARED

    def lead(self, now: float) -> float:
        """Seconds of speech made that cannot have been heard yet; -inf before the first."""
        return self._saying.lead(now)

    # -- on the engine's thread: audio and turns ----------------------------------------------------------------------

    def _start_turn(self) -> None:
        if self._intake is not None:
            self._intake.clear()
        self._framer.flush()
        self._ticks.clear()
        self._question = 0  # samples of the turn
        self._open_turn()

    def _open_turn(self) -> None:
        """The user has the floor; audio that waits is the beginning of the turn."""
        self._phase = _Phase.HEARING
        self._behind: bool | None = None  # whether a turn goes on behind the one that is answered; False: it is over
        self._before_end = 0  # ticks that belong before the end of the turn
        self._ended_at = 0.0
        self._heard = ""
        self._asked: bool | str | None = None  # the answer that was asked for before the turn was heard
        self._held: list[Event] | None = None  # events of an answer that is prepared while the user may yet go on
        self._clear_answer()

    def _clear_answer(self) -> None:
        self._clock = self._timer() if self._duplex else None
        writing = Writing(self._engine.runner.model.text, endless=self._duplex)
        self._saying = Answer(writing, paced=self._config.paced)
        self._overlap: Overlap | None = None

    def _set_turns(self, config: TurnConfig | None, interrupts: bool | None = None) -> None:
        if interrupts is not None:
            self._interrupts = interrupts
        if self._phase is _Phase.HEARING or self._held is not None:
            self._abandon()
        self._windows.flush()
        self._waiting.clear()
        self._cleaned = None
        self._recent: deque[np.ndarray] = deque()  # windows before the turn that may belong to it
        self._detector = None if config is None else TurnDetector(config, window=WINDOW / SAMPLE_RATE)

    def _abandon(self) -> None:
        """Drops the turn that has begun, with an answer that nobody has heard of."""
        if self._phase is not _Phase.HEARING or self._question:
            self._engine.report(self._engine.runner.truncate({self._slot: 0.0}))
        self._start_turn()

    def _set_omega(self, omega: int) -> None:
        self._omega = omega
        self._engine.runner.set_omega(self._slot, omega)

    def _forget(self, turns: Sequence[tuple[str, str]] = ()) -> None:
        self._engine.runner.reset(self._slot)
        self._set_omega(self._omega)
        self._writing, self._writings = None, deque(turns)
        self._start_turn()
        if self._detector is not None:
            self._detector.reset()

    def _take(self, samples: np.ndarray) -> None:
        self._posted -= len(samples)
        self._samples += len(samples)
        if self._intake is not None:
            self._intake.push(samples)
        elif self._detector is None:
            self._hear(samples)
        else:
            self._waiting.extend(window.copy() for window in self._windows.push(samples))

    def _hear(self, samples: np.ndarray) -> None:
        """More audio of the turn; during an answer it is the next turn's."""
        if self._phase is _Phase.ENDED and self._held is None:  # that turn stays without an answer
            self._stop(0.0)
        elif self._audible and self._saying.complete:
            self._start_turn()
        elif self._phase is not _Phase.HEARING and self._held is None:
            self._behind = True
        self._question += len(samples)
        self._ticks.extend(tick.copy() for tick in self._framer.push(samples))
        if (
            self._phase is _Phase.HEARING
            and not self._duplex
            and self._question > self._config.longest_question * self._input_rate
        ):
            self._end_by_hand()

    def next_window(self) -> np.ndarray | None:
        """The window that the voice detector is to look at next, without the answer that is playing."""
        if self._waiting and self._cleaned is None:
            window = self._waiting[0]
            if self._loudspeaker is None:
                self._cleaned = window, True
            else:
                left = max(0.0, self._saying.left(self._engine.now()))
                self._cleaned = self._loudspeaker.clean(window, left=left)
        return self._cleaned[0] if self._cleaned else None

    def take_window(self, probability: float) -> None:
        """What the voice detector says to it."""
        assert self._detector is not None and self._cleaned is not None
        (window, more), self._cleaned = self._cleaned, None
        self._waiting.popleft()
        at = (self._samples - len(self._waiting) * WINDOW) / self._input_rate
        config = self._config.overlap or OverlapConfig()
        if self._overlap is not None:
            self._overlap.add(window)
            if not more and self._saying.stands:
                return  # the echo that is still on its way: neither speech nor silence
        turn = self._detector.step(probability if more else 0.0, start=self._start(config))
        if self._overlap is not None:
            return self._judge(self._overlap, self._detector, ended=at if turn is Turn.ENDED else None)
        if turn is Turn.BEGAN:
            self._began(window, at)
        elif (self._detector.speaking or turn is Turn.ENDED) and (not self._audible or self._behind):
            self._hear(window)
        else:
            self._recent.append(window)
            while len(self._recent) * self._detector.window > self._detector.config.before:
                self._recent.popleft()
        if turn is Turn.PAUSED and self._phase is _Phase.HEARING:
            self._held = []
            self._close_turn()
        elif turn is Turn.WENT_ON and self._held is not None:
            self._go_on()
        elif turn is Turn.ENDED:
            self._ended(at)

    def _start(self, config: OverlapConfig) -> float | None:
        """Seconds of speech that begin something now; None: a turn."""
        if not self._audible or self._config.overlap is None:
            return None
        echoes = self._loudspeaker is not None and self._loudspeaker.echoes
        return config.start_echo if echoes else config.start

    @property
    def _audible(self) -> bool:
        """An answer is being given, or still playing."""
        return self._phase is _Phase.ANSWERING and self._held is None

    def _began(self, window: np.ndarray, at: float) -> None:
        windows = [*self._recent, window]
        self._recent.clear()
        begin = max(0.0, at - len(windows) * WINDOW / self._input_rate)
        if self._audible and not self._saying.complete and not self._interrupts:
            self._behind = True
        elif self._audible and self._interrupts and (not self._saying.complete or self.lead(self._engine.now()) > 0):
            now, config = self._engine.now(), self._config.overlap
            self._saying.stand(now)
            self._overlap = Overlap(config or OverlapConfig(), windows, begin, len(windows) - 1)
            if config is None:
                return self._stop(None)
            if self._loudspeaker is not None:
                self._loudspeaker.stand(True)
            return self._emit(Paused(self._saying.heard(now)))
        self._speech_started(begin, windows)

    def _speech_started(self, at: float, windows: list[np.ndarray]) -> None:
        self._emit(SpeechStarted(at))
        for window in windows:
            self._hear(window)

    def _judge(self, overlap: Overlap, detector: TurnDetector, *, ended: float | None) -> None:
        """Goes on with the answer where what was said over it asks for nothing, and stops it where it does.

        Args:
            ended: where in the session's audio what was said ended, if the detector says so already.
        """
        config, saying = overlap.config, self._saying
        over = ended is not None or detector.silence >= config.silence
        if not overlap.due(silence=detector.silence, over=over):
            return
        words = overlap.words(lambda audio_N: self._engine.runner.overhear(audio_N, EXPECTED))
        now = self._engine.now()
        left = saying.lead(now)
        at_its_end = bool(words) and over and saying.complete and left < config.ending
        if not is_backchannel(words) or at_its_end:
            if left > 0 or not saying.complete:
                self._stop(None)
            else:  # it was heard to its end meanwhile
                self._overlap = None
                self._speech_started(overlap.at, overlap.windows)
            if ended is not None:
                self._ended(ended)
            return
        if saying.stands:  # a sign of listening, or a noise that sounds like speech
            saying.go_on(now)
            if self._loudspeaker is not None:
                self._loudspeaker.stand(False)
            self._emit(Resumed())
        if over:
            self._overlap = None
            detector.reset()

    def _ended(self, at: float) -> None:
        if self._audible and not self._behind:
            return
        self._emit(SpeechStopped(at))
        if self._behind:  # answered once the present answer has been given
            self._behind = False
            return
        if self._phase is _Phase.HEARING:
            return self._close_turn()
        held, self._held = self._held or [], None
        self._ended_at = self._waiting_since = self._engine.now()
        self._framer.flush()  # the silence since the pause
        while len(self._ticks) > self._before_end:
            self._ticks.pop()
        if self._phase is not _Phase.ENDING:
            self._clock = self._timer()
            for event in held:
                self._deliver(event)

    def _end_by_hand(self) -> None:
        if self._duplex:
            return
        if self._phase is _Phase.HEARING:
            if (rest := self._framer.flush()) is not None:
                self._ticks.append(rest)
            self._close_turn()
        elif self._held is not None:  # an answer is prepared already
            self._ended(self._samples / self._input_rate)
        elif self._behind:
            if (rest := self._framer.flush()) is not None:
                self._ticks.append(rest)
            self._behind = False
        if self._detector is not None:
            self._detector.reset()

    def _close_turn(self) -> None:
        self._phase, self._before_end = _Phase.ENDING, len(self._ticks)
        self._ended_at = self._waiting_since = self._engine.now()

    def _go_on(self) -> None:
        """The turn was not over: what was prepared is undone."""
        if self._phase is not _Phase.ENDING:
            self._engine.report(self._engine.runner.resume([self._slot]))
        self._phase, self._before_end, self._held = _Phase.HEARING, 0, None
        self._clear_answer()

    # -- on the engine's thread: steps of the model -------------------------------------------------------------------

    def next_tick(self) -> np.ndarray:
        """The tick to be heard now."""
        if self._intake is not None:
            tick, dropped = self._intake.take()
            if dropped:
                self._emit(Late(dropped * self._tick))
            return tick
        self._before_end = max(0, self._before_end - 1)
        return self._ticks.popleft()

    def skip(self, ticks: int) -> None:
        """So many ticks were due in which this session had none."""
        if self._intake is not None:
            self._intake.skip(ticks)

    def listened(self) -> None:
        """A tick was heard."""
        self._note(final=False)

    def _add_text(self, role: str, text: str) -> None:
        self._writings.append((role, text))
        self._waiting_since = self._engine.now()

    def write_on(self) -> None:
        """Reads one piece of what was written."""
        runner = self._engine.runner
        if self._phase is _Phase.ENDED:  # text belongs before the end of the turn
            self._go_on()
        elif self._saying.complete:
            self._start_turn()
        if self._writing is None:
            self._writing = runner.writing(self._slot, *self._writings.popleft())
        more, failed = runner.write(self._slot, self._writing)
        if not more:
            self._writing = None
        self._report(failed)

    def _report(self, failed: dict[int, Exception]) -> None:
        """Of what was asked for by a client: what a duplex family cannot do does not end the conversation."""
        error = failed.get(self._slot)
        if self._duplex and isinstance(error, PartError):
            self._emit(Declined(str(error)))
        else:
            self._engine.report(failed)

    @property
    def _reading(self) -> bool:
        return self._writing is not None or bool(self._writings)

    def turn_ended(self) -> None:
        """The end of the turn was heard as a whole, and the answer can begin."""
        self._phase, self._clock = _Phase.ENDED, self._timer()
        if self._held is not None and self._detector is not None:
            self._detector.complete = self._engine.runner.complete(self._slot)
        reply = self._asked  # who decides knows before those who are told
        if reply is None:
            reply = self._config.decide(self._engine.runner.transcript(self._slot))
        self._note(final=True)
        if reply is not False:
            self._answer(None if reply is True else reply)
        elif self._behind is not None:  # the next turn has begun, so that this one stays without an answer
            self._stop(0.0)

    def _answer(self, text: str | None = None) -> None:
        if self._duplex:
            if text is not None:
                self._report(self._engine.runner.say(self._slot, text))
            return
        if self.speaking:
            return
        if self._saying.complete:
            self._start_turn()
        if self._phase in (_Phase.HEARING, _Phase.ENDING) or self._reading:  # once all is heard and read
            if self._phase is _Phase.ENDED:
                self._go_on()
            self._asked = True if text is None else text
            if self._phase is _Phase.HEARING:
                self._end_by_hand()
            return
        if text is not None:
            failed = self._engine.runner.say(self._slot, text)
            self._engine.report(failed)
        self._phase = _Phase.ANSWERING

    def _note(self, *, final: bool) -> None:
        before, self._heard = self._heard, self._engine.runner.transcript(self._slot)
        if final or self._heard != before:
            self._deliver(Heard(self._heard, final=final))

    def spoke(self, step: Spoken) -> None:
        """One step of the answer."""
        if self._duplex:
            return self._spoke_on(step)
        saying, config = self._saying, self._config
        saying.idle = 0 if step.ids or len(step.samples) else saying.idle + 1
        if step.ids and (more := saying.writing.add(step.ids)):
            self._deliver(Text(more))
        if len(step.samples):
            if config.paced and saying.begun and self.lead(self._engine.now()) < 0 and self._engine.watch:
                self._engine.watch.underrun()
            saying.made += len(step.samples) / self._output_rate
            self._deliver(Audio(step.samples))
        if step.done or saying.idle > config.idle_steps or saying.made > config.longest_answer:
            saying.complete = True
            self._deliver(Done(self._metrics()))

    def _spoke_on(self, step: Spoken) -> None:
        """One tick of a family that has no turns: it goes on for as long as the conversation does."""
        if step.ids and (more := self._saying.writing.add(step.ids)):
            self._emit(Text(more))
        if len(step.samples):
            self._emit(Audio(step.samples))

    def _deliver(self, event: Event) -> None:
        """Gives an event of the answer, or keeps it while the user may yet go on."""
        if self._held is not None and not (isinstance(event, Heard) and not event.final):
            self._held.append(event)
        elif isinstance(event, Audio):
            self._saying.kept.append(event)
            if not self._waits:
                self._give_kept()
        else:
            if isinstance(event, Done):
                self._give_kept()
            self._give(event)

    @property
    def _waits(self) -> bool:
        """There is so little of the answer that it could run dry at once."""
        saying, engine = self._saying, self._engine
        if not self._config.paced or saying.begun:
            return False
        return saying.made < engine.pace.headstart(alone=not engine.serves_others(self))

    def _give_kept(self) -> None:
        kept, self._saying.kept = self._saying.kept, []
        for event in kept:
            self._give(event)

    def _give(self, event: Event) -> None:
        match event:
            case Text(text):
                self._saying.delivered += text
                self._timed.text(self._saying.delivered)
            case Audio(samples):
                self._timed.audio(samples)
                if self._loudspeaker is not None:
                    waiting = self._posted + self._windows.held + len(self._waiting) * WINDOW
                    self._loudspeaker.play(samples, late=waiting)
                self._saying.play(self._engine.now())
            case Done():
                event = Done(self._metrics())
        self._emit(event)
        if isinstance(event, Done) and self._ticks:  # the next turn began during the answer
            self._next_turn()

    def _next_turn(self) -> None:
        """The turn that began during the answer has the floor, or is over already."""
        self._question, behind = len(self._ticks) * self._framer.size, self._behind
        self._open_turn()
        if behind is False:
            self._close_turn()

    def _timer(self) -> Clock:
        """Times the answer from the end of the turn."""
        return Clock(self._ended_at, self._output_rate, time=self._engine.now)

    @property
    def _timed(self) -> Clock:
        assert self._clock is not None, "an answer without a beginning"
        return self._clock

    def _metrics(self) -> Metrics:
        return self._timed.metrics(transcript=self._heard, question_seconds=self._question / self._input_rate)

    def _stop(self, heard: float | None) -> None:
        if self._phase is _Phase.HEARING:
            return
        audible, overlap = self._audible, self._overlap
        heard = self._saying.heard(self._engine.now()) if heard is None else max(0.0, heard)
        self._engine.report(self._engine.runner.truncate({self._slot: heard}))
        if self._loudspeaker is not None:
            self._loudspeaker.stop()
        if self._behind is None:
            self._start_turn()
        else:
            self._next_turn()
        if audible:
            self._emit(Interrupted(heard))
        if overlap is not None:  # what was said over the answer begins the next turn
            self._speech_started(overlap.at, overlap.windows)

    def fail(self, message: str) -> None:
        """The session is over."""
        self._emit(Failed(message))
        self._engine.release(self)

    def _emit(self, event: Event) -> None:
        if not self.closed:
            self._engine.deliver(self, self._sink, event)
