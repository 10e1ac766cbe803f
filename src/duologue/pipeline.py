"""One conversation with a model: a question's audio in, what was heard, the answer's text and its speech out.

pipe = Pipeline.from_pretrained("mini")
for event in pipe.stream("question.wav"):
    ...
pipe("question.wav").save("answer.wav")
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from duologue.audio import io
from duologue.audio.frames import Framer
from duologue.checkpoints import Resolver, load_model
from duologue.errors import AudioError, PartError
from duologue.streaming.events import Audio, Clock, Done, Event, Heard, Metrics, Text
from duologue.streaming.protocol import Frame, StreamingModel
from duologue.streaming.writing import Writing

_LONGEST_ANSWER = 300.0  # seconds of speech
REST = 2.0  # seconds
_QUIET = 0.01  # samples below -40 dB
_MOST_IDLE = 2_000  # steps in a row that bring neither text nor speech


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A whole answer."""

    transcript: str
    text: str
    audio: np.ndarray
    sample_rate: int
    metrics: Metrics

    def save(self, path: str | Path) -> Path:
        """Writes the speech as WAV.

        Raises:
            AudioError: there is no speech, or the file cannot be written.
        """
        if not len(self.audio):
            raise AudioError(f"{path}: there is no speech to save; nothing was understood in the question")
        with io.WavWriter(path, self.sample_rate) as writer:
            writer.write(self.audio)
        return Path(path)


@runtime_checkable
class HasParts(Protocol):
    """A family whose parts can be exchanged."""

    def parts(self) -> Mapping[str, Any]:
        """The exchangeable parts by name."""
        ...

    def replace_part(self, name: str, part: Any) -> None:
        """Puts another part in.

        Raises:
            PartError: it does not fit; the old part stays.
        """
        ...


class Conversation:
    """One user's turns with a model: feed `listen`, then take the events of `answer`. One thread at a time."""

    def __init__(self, model: StreamingModel):
        if model.spec.duplex:
            raise PartError("Conversation: need a turn-taking model, got a duplex one; use Pipeline.stream")
        self.model, self.spec = model, model.spec
        self._live = torch.tensor([True])
        self._framer = Framer(self.spec.input_samples)
        self._state = model.init_state(1)
        self.reset()

    @torch.inference_mode()
    def reset(self) -> None:
        """Forgets everything: the next turn is the first."""
        self._state.reset(self._live)
        self._framer.flush()
        self._begin_turn()
        self._unheard = False  # the model has something to say that was never taken

    @property
    def question_seconds(self) -> float:
        """How much of the present turn's audio has been handed in."""
        return self._question_samples / self.spec.input_rate

    def listen(self, samples: np.ndarray) -> list[Heard]:
        """Hands in the next samples of the question: mono float32 in [-1, 1] at the model's input rate, any number."""
        if self._unheard:
            self.interrupt(0.0)
        if len(samples):
            self._handed_in = time.perf_counter()
            self._question_samples += len(samples)
        return [heard for frame in self._framer.push(samples) for heard in self._hear(frame)]

    def answer(self) -> Generator[Event, None, None]:
        """Ends the question and gives the answer as it comes. A question without speech gets none.

        Closing the iterator early leaves the rest unsaid: tell with `interrupt` how much of it was heard.
        """
        if (rest := self._framer.flush()) is not None:
            yield from self._hear(rest)
        with torch.inference_mode():
            self.model.end_turn(self._state, self._live)
        self._unheard = True
        transcript = self._transcript()
        yield Heard(transcript, final=True)
        clock = Clock(self._handed_in, self.spec.output_rate)
        yield from self._speak(clock)  # over at once where nothing was heard
        self._unheard = False
        yield Done(clock.metrics(transcript=transcript, question_seconds=self.question_seconds))
        self._begin_turn()

    @torch.inference_mode()
    def interrupt(self, heard_seconds: float) -> None:
        """After an answer that was cut short: the model forgets what was not heard of it, and listens again."""
        ticks = torch.tensor([int(max(0.0, heard_seconds) / self.spec.tick)])
        self.model.truncate(self._state, self._live, ticks)
        self._unheard = False
        self._begin_turn()

    def _begin_turn(self) -> None:
        self._heard = ""
        self._question_samples = 0
        self._handed_in = time.perf_counter()

    @torch.inference_mode()
    def _hear(self, frame: np.ndarray) -> list[Heard]:
        audio_BN = torch.from_numpy(np.array(frame, np.float32))[None]
        self.model.listen(self._state, audio_BN, self._live)
        before, self._heard = self._heard, self._transcript()
        return [Heard(self._heard, final=False)] if self._heard != before else []

    @torch.inference_mode()
    def _transcript(self) -> str:
        return self.model.heard(self._state, 0).strip()

    @torch.inference_mode()
    def _step(self) -> Frame:
        return self.model.speak(self._state, self._live)

    def _speak(self, clock: Clock) -> Iterator[Event]:
        ids: list[int] = []
        text, idle, done = "", 0, False
        while not done:
            frame = self._step()
            new = [token for token in frame.ids_BT[0].tolist() if token >= 0]
            samples = frame.audio_BN[0, : int(frame.samples_B[0])].float().numpy()
            done, idle = bool(frame.done_B[0]), idle + 1
            if new:
                ids, idle = ids + new, 0
                before, text = text, self.model.text(ids)
                if len(text) > len(before):
                    clock.text(text)
                    yield Text(text[len(before) :])
            if len(samples):
                idle = 0
                clock.audio(samples)
                yield Audio(samples)
            if not done and (idle > _MOST_IDLE or clock.audio_seconds > _LONGEST_ANSWER):
                raise PartError(
                    f"the model does not come to the end of its answer ({clock.audio_seconds:.0f} s of speech so far); "
                    "use another model or retrain this one"
                )


class OpenLine:
    """A recording played to a full-duplex model, which speaks whenever it wants to, and then silence until it has been
    quiet for `REST` seconds."""

    def __init__(self, model: StreamingModel):
        self.model, self.spec = model, model.spec

    def play(self, samples: np.ndarray) -> Iterator[Event]:
        """The model's side from the first sample of the recording on: every tick of it, silent or not, and its text.

        Times in the metrics are on the line's own clock, from the recording's end, below 0 before it. How long the
        machine computed is in `real_time_factor` alone.
        """
        size, tick, seconds = self.spec.input_samples, self.spec.tick, len(samples) / self.spec.input_rate
        ticks, rest, begin = 0, 0.0, time.perf_counter()
        clock = Clock(seconds, self.spec.output_rate, time=lambda: ticks * tick)
        live_B, writing, text = torch.tensor([True]), Writing(self.model.text, endless=True), ""
        with torch.inference_mode():
            state = self.model.init_state(1)
        while ticks * tick < seconds or (rest < REST and ticks * tick < seconds + _LONGEST_ANSWER):
            heard_N = samples[ticks * size : (ticks + 1) * size]
            heard_BN = torch.from_numpy(np.pad(heard_N, (0, size - len(heard_N))).astype(np.float32))[None]
            with torch.inference_mode():
                self.model.listen(state, heard_BN, live_B)
                frame = self.model.speak(state, live_B)
            ticks += 1
            more = writing.add([token for token in frame.ids_BT[0].tolist() if token >= 0])
            said_N = frame.audio_BN[0, : int(frame.samples_B[0])].float().numpy()
            loud = float(np.abs(said_N).max(initial=0.0)) >= _QUIET  # what is below is a codec's silence
            rest = rest + tick if not loud and not more and ticks * tick > seconds else 0.0
            if more:
                text += more
                clock.text(text)
                yield Text(more)
            if len(said_N):
                clock.audio(said_N if loud else np.zeros_like(said_N))
                yield Audio(said_N)
        taken = (time.perf_counter() - begin) / (ticks * tick)
        metrics = clock.metrics(transcript="", question_seconds=seconds)
        yield Done(replace(metrics, real_time_factor=round(taken, 4)))


class Pipeline:
    """Answers questions with a model; every call is a conversation of its own."""

    def __init__(self, model: StreamingModel, *, name: str = ""):
        self.model, self.name = model, name

    @classmethod
    def from_pretrained(
        cls,
        name_or_dir: str | Path = "mini",
        *,
        resolver: Resolver | None = None,
        settings: Mapping[str, Any] | None = None,
        **parts: Any,
    ) -> Pipeline:
        """Loads a packaged model by name, or a model folder.

        Args:
            resolver: where outside parts are found; None for the default cache.
            settings: changes to the model's config, such as {"omega": 10}.
            parts: parts to use in place of the model's own, by name; of a release also where its other downloads lie
                (`whisper`, `vocoder`: paths).
        Raises:
            CheckpointError, ConfigError, PartError: as `checkpoints.load_model`.
        """
        model = load_model(name_or_dir, resolver=resolver, settings=settings, **parts)
        return cls(model, name=Path(name_or_dir).name)

    @property
    def input_rate(self) -> int:
        return self.model.spec.input_rate

    @property
    def output_rate(self) -> int:
        return self.model.spec.output_rate

    def conversation(self) -> Conversation:
        """A conversation of several turns, fed by hand."""
        return Conversation(self.model)

    def stream(self, source: str | Path | np.ndarray, *, sample_rate: int | None = None) -> Iterator[Event]:
        """Asks one question and gives what happens as it happens; `Done` comes last.

        A full-duplex model has the recording played to it (`OpenLine`): its sound is its whole side of the line.

        Args:
            source: an audio file, or samples in [-1, 1], [N] or [N, channels].
            sample_rate: of samples; None for the model's own.
        Raises:
            AudioError: the source is not usable audio.
        """
        if self.model.spec.duplex:
            yield from OpenLine(self.model).play(np.concatenate(list(self._blocks(source, sample_rate))))
            return
        conversation = self.conversation()
        tick = self.model.spec.input_samples
        for block in self._blocks(source, sample_rate):
            for begin in range(0, len(block), tick):
                yield from conversation.listen(block[begin : begin + tick])
        yield from conversation.answer()

    def __call__(self, source: str | Path | np.ndarray, *, sample_rate: int | None = None) -> Answer:
        """Asks one question and waits for the whole answer."""
        pieces: list[np.ndarray] = [np.zeros(0, np.float32)]
        for event in self.stream(source, sample_rate=sample_rate):
            if isinstance(event, Audio):
                pieces.append(event.samples)
            elif isinstance(event, Done):
                metrics = event.metrics
        return Answer(
            transcript=metrics.transcript,
            text=metrics.text,
            audio=np.concatenate(pieces),
            sample_rate=self.output_rate,
            metrics=metrics,
        )

    def replace(self, **parts: Any) -> Pipeline:
        """Exchanges parts by name (encoder, adapter, llm, speech_decoder, vocoder), for conversations begun later.

        Raises:
            PartError: no such part, or one that does not fit; nothing is exchanged then.
        """
        if not isinstance(self.model, HasParts):
            raise PartError(f"{type(self.model).__name__}: this model has no parts that can be exchanged")
        own = dict(self.model.parts())
        for name in parts:
            if name not in own:
                raise PartError(f"replace: there is no part {name!r}; the parts are {', '.join(own)}")
        done: list[str] = []
        try:
            for name, part in parts.items():
                self.model.replace_part(name, part)
                done.append(name)
        except PartError:
            for name in done:
                self.model.replace_part(name, own[name])
            raise
        return self

    def _blocks(self, source: str | Path | np.ndarray, sample_rate: int | None) -> Iterator[np.ndarray]:
        if isinstance(source, (str, Path)):
            io.check_question(source)
            return io.read_blocks(source, self.input_rate)
        samples = io.as_mono(np.asarray(source))
        io.check_length(len(samples) / (sample_rate or self.input_rate), where="the audio")
        resampler = io.Resampler(sample_rate or self.input_rate, self.input_rate)
        return iter([resampler(samples, final=True)])
