"""Many conversations in one engine: step by step, with a clock by hand and a voice detector that hears loudness."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from fakes import ANSWER, EchoConfig, EchoModel, tone
from loudness import Loudness
from tiny_omni import sounds, tiny_omni

from duologue.engine import Engine, Session, SessionConfig
from duologue.errors import BusyError, PartError
from duologue.streaming.events import (
    Audio,
    Done,
    Event,
    Failed,
    Heard,
    Interrupted,
    Paused,
    Resumed,
    SpeechStarted,
    SpeechStopped,
    Text,
)
from duologue.streaming.turns import OverlapConfig, TurnConfig

RATE = 16_000
TURNS = TurnConfig(end=0.5, pause=0.2)


class Driver:
    """An engine whose thread is the test."""

    def __init__(self, model=None, *, slots: int = 3):
        self.time = 0.0
        self.engine = Engine(model or EchoModel(), slots=slots, voice=Loudness(), clock=lambda: self.time)

    def open(self, turns: TurnConfig | None = None, **options) -> tuple[Session, list[Event]]:
        events: list[Event] = []
        return self.engine.open(events.append, SessionConfig(turns=turns, **options)), events

    def run(self, steps: int = 10_000) -> None:
        """Until there is nothing to do, or for so many steps."""
        for _ in range(steps):
            self.engine._take_posts(wait=None)
            if not self.engine.step():
                return

    def say(self, session: Session, *pieces: np.ndarray, each: float = 0.08, steps: int = 10_000) -> None:
        """Hands audio in as it would come, in real time."""
        for block in np.split(audio := np.concatenate(pieces), range(size := round(each * RATE), len(audio), size)):
            session.listen(block)
            self.run(steps)
            self.time += len(block) / RATE


class Chunky(EchoModel):
    """Notes the sizes of chunks that it is told."""

    omegas = (1, 20, 4)

    def __init__(self):
        super().__init__()
        self.told: list[tuple[int, int]] = []

    def set_omega(self, state, slot, omega):
        self.told.append((slot, omega))


def silence(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * RATE), np.float32)


def kinds(events: list[Event]) -> list[str]:
    """Names of the events, runs of one kind as one."""
    names = [type(event).__name__ for event in events]
    return [name for index, name in enumerate(names) if not index or names[index - 1] != name]


def spoken(events: list[Event]) -> tuple[str, np.ndarray]:
    text = "".join(event.text for event in events if isinstance(event, Text))
    return text, np.concatenate([np.zeros(0)] + [event.samples for event in events if isinstance(event, Audio)])


def test_a_turn_ended_by_hand_is_answered():
    driver = Driver()
    session, events = driver.open()
    driver.say(session, tone(1.0))
    session.end_turn()
    driver.run()
    text, audio = spoken(events)
    assert text == ANSWER and len(audio) == 14_400
    assert isinstance(events[-1], Done) and events[-1].metrics.transcript == "sound for 13 ticks in turn 1"
    assert [event.text for event in events if isinstance(event, Heard) and event.final] == [
        "sound for 13 ticks in turn 1"
    ]


def test_the_engine_finds_the_turns_and_prepares_the_answer_in_the_pause():
    driver = Driver(EchoModel(EchoConfig(audio_ticks=30)))
    session, events = driver.open(TURNS)
    driver.say(session, silence(0.5), tone(1.0), silence(0.4))
    assert kinds(events) == ["SpeechStarted", "Heard"] and not any(e.final for e in events if isinstance(e, Heard))
    started = events[0]
    assert isinstance(started, SpeechStarted) and started.at == pytest.approx(0.5 - TURNS.before, abs=0.1)
    driver.say(session, silence(0.2), steps=1)  # a single step of the model, and half a second of speech is there
    assert kinds(events)[2:6] == ["SpeechStopped", "Heard", "Text", "Audio"]
    assert sum(len(event.samples) for event in events if isinstance(event, Audio)) >= 0.4 * 24_000
    driver.run()
    assert spoken(events)[0] == ANSWER and isinstance(events[-1], Done)
    stopped = next(event for event in events if isinstance(event, SpeechStopped))
    assert stopped.at == pytest.approx(0.5 + 1.0 + TURNS.end, abs=0.1)
    assert next(e for e in events if isinstance(e, Done)).metrics.first_audio_ms == 0.0


@pytest.mark.parametrize("complete,seconds", [(0.9, 0.3), (0.1, 1.2), (None, 0.5)])
def test_how_complete_a_turn_sounds_decides_how_long_a_silence_ends_it(complete, seconds):
    driver = Driver(EchoModel(EchoConfig(complete=complete)))
    session, events = driver.open(TurnConfig(pause=0.2, end=0.5, end_complete=0.3, end_incomplete=1.2))
    driver.say(session, tone(1.0), silence(2.0), each=0.032)
    stopped = next(event for event in events if isinstance(event, SpeechStopped))
    assert stopped.at == pytest.approx(1.0 + seconds, abs=0.07)


def test_who_goes_on_after_a_pause_is_heard_as_one_turn():
    driver = Driver()
    session, events = driver.open(TURNS)
    driver.say(session, tone(0.96), silence(0.32), tone(0.96), silence(0.6))
    driver.run()
    assert [type(event) for event in events].count(SpeechStarted) == 1
    assert spoken(events)[0] == ANSWER
    heard = [event.text for event in events if isinstance(event, Heard) and event.final]
    assert len(heard) == 1 and heard[0].endswith("in turn 1") and int(heard[0].split()[2]) >= 23


def test_an_answer_is_cut_short_where_the_user_speaks_over_it():
    driver = Driver(model := EchoModel(EchoConfig(audio_ticks=100)))
    session, events = driver.open(TURNS)
    driver.say(session, tone(1.0), silence(1.6), tone(0.4))
    cut = next(event for event in events if isinstance(event, Interrupted))
    assert 0.8 < cut.heard < 1.5 and model.truncated == [int(cut.heard / 0.08)]
    after = events[events.index(cut) :]
    assert kinds(after) == ["Interrupted", "SpeechStarted", "Heard"]
    driver.say(session, silence(1.0))
    assert kinds(events[events.index(cut) :])[3:6] == ["SpeechStopped", "Heard", "Text"]


def test_an_answer_that_is_all_made_but_still_playing_is_cut_short_too():
    driver = Driver(model := EchoModel(EchoConfig(audio_ticks=40)))
    session, events = driver.open(TURNS)
    driver.say(session, tone(1.0), silence(2.0))
    assert isinstance(events[-1], Done)
    driver.say(session, tone(0.4))
    assert [int(event.heard / 0.08) for event in events if isinstance(event, Interrupted)] == model.truncated != []


@pytest.mark.parametrize("level,seconds", [(0.1, 0.4), (0.1, 0.9), (0.02, 0.3)], ids=["word", "long", "soft"])
def test_a_sign_of_listening_only_makes_the_answer_stand_still(level, seconds):
    driver = Driver(model := EchoModel(EchoConfig(audio_ticks=100)))
    session, events = driver.open(TURNS, overlap=OverlapConfig())
    driver.say(session, tone(1.0), silence(1.6))
    count = len(events)
    driver.say(session, tone(seconds, level=level), silence(0.6))
    assert [type(event) for event in events[count:] if not isinstance(event, Audio)] == [Paused, Resumed]
    driver.time += 20.0
    driver.run()
    assert isinstance(events[-1], Done) and not model.truncated
    text, audio = spoken(events)
    assert text == ANSWER and len(audio) == 99.5 * 1_920  # nothing of it is lost


def test_the_time_of_standing_still_does_not_count_as_heard():
    driver = Driver(EchoModel(EchoConfig(audio_ticks=100)))
    session, events = driver.open(TURNS, overlap=OverlapConfig())
    driver.say(session, tone(1.0), silence(1.6), tone(0.4, level=0.1), silence(0.6))
    paused = next(event for event in events if isinstance(event, Paused))
    driver.say(session, silence(0.5), tone(0.9))
    cut = next(event for event in events if isinstance(event, Interrupted))
    resumed_for = 0.6 - 0.25 + 0.5 + 0.1  # of silence after the word was over, and a little of the speech
    assert cut.heard == pytest.approx(paused.heard + resumed_for, abs=0.15)


@pytest.mark.parametrize("seconds", [0.3, 0.9, 2.0])
def test_words_over_an_answer_stop_it_and_begin_the_next_turn(seconds):
    driver = Driver(model := EchoModel(EchoConfig(audio_ticks=100)))
    session, events = driver.open(TURNS, overlap=OverlapConfig())
    driver.say(session, tone(1.0), silence(1.6))
    count = len(events)
    driver.say(session, tone(seconds), silence(0.9))
    driver.run()
    others = [event for event in events[count:] if not isinstance(event, (Audio, Text))]
    assert [type(event) for event in others][:3] == [Paused, Interrupted, SpeechStarted]
    assert others[1].heard == others[0].heard and model.truncated
    final = next(event for event in others if isinstance(event, Heard) and event.final)
    assert int(final.text.split()[2]) >= seconds / 0.08 - 1  # all that was said is in the turn
    assert final.text.endswith("turn 2") and isinstance(others[-1], (Done, Heard))


@pytest.mark.parametrize("seconds", [0.3, 0.55, 0.9])
def test_a_turn_that_ends_before_it_is_judged_ends_all_the_same(seconds):
    driver = Driver(EchoModel(EchoConfig(audio_ticks=100)))
    quick = TurnConfig(pause=0.1, end=0.2, end_complete=0.2, end_incomplete=0.2)
    session, events = driver.open(quick, overlap=OverlapConfig(silence=0.4))
    driver.say(session, tone(1.0), silence(1.6))
    count = len(events)
    driver.say(session, tone(seconds), silence(1.5))
    turns = [type(event) for event in events[count:] if isinstance(event, (SpeechStarted, SpeechStopped, Interrupted))]
    assert turns == [Interrupted, SpeechStarted, SpeechStopped]
    assert any(isinstance(event, Heard) and event.final for event in events[count:])


def test_a_long_noise_without_words_does_not_stop_an_answer():
    class Deaf(EchoModel):
        def overhear(self, audio_N, expected=()):
            return ""

    driver = Driver(model := Deaf(EchoConfig(audio_ticks=100)))
    session, events = driver.open(TURNS, overlap=OverlapConfig())
    driver.say(session, tone(1.0), silence(1.6), tone(2.0), silence(0.6))
    assert [type(event) for event in events].count(Paused) == 1 and not model.truncated


def test_after_the_answer_has_been_heard_nothing_is_cut():
    driver = Driver(model := EchoModel())
    session, events = driver.open(TURNS)
    driver.say(session, tone(1.0), silence(3.0), tone(0.4))
    assert not any(isinstance(event, Interrupted) for event in events) and not model.truncated
    assert [type(event) for event in events].count(SpeechStarted) == 2


def test_a_client_may_say_what_it_has_heard():
    driver = Driver(model := EchoModel())
    session, events = driver.open()
    driver.say(session, tone(0.5))
    session.end_turn()
    driver.run(8)
    session.stop(0.25)
    driver.run()
    assert model.truncated == [3] and events[-1] == Interrupted(0.25)
    driver.say(session, tone(0.5))
    session.end_turn()
    driver.run()
    assert events[-1].metrics.transcript.endswith("in turn 2")


def test_what_comes_during_an_answer_by_hand_is_the_next_question():
    driver = Driver()
    session, events = driver.open()
    driver.say(session, tone(0.5))
    session.end_turn()
    driver.run(3)
    driver.say(session, tone(0.8), steps=1)
    driver.run()
    session.end_turn()
    driver.run()
    finals = [event.text for event in events if isinstance(event, Heard) and event.final]
    assert finals == ["sound for 7 ticks in turn 1", "sound for 10 ticks in turn 2"]


def test_a_turn_that_is_ended_by_hand_behind_an_answer_is_answered_after_it():
    driver = Driver()
    session, events = driver.open()
    for seconds in (0.5, 0.8):
        session.listen(tone(seconds))
        session.end_turn()
        driver.run(10)
    driver.run()
    finals = [event.text for event in events if isinstance(event, Heard) and event.final]
    assert finals == ["sound for 7 ticks in turn 1", "sound for 10 ticks in turn 2"]
    assert [type(event) for event in events].count(Done) == 2


def test_a_turn_behind_one_that_gets_no_answer_is_heard():
    driver = Driver()
    session, events = driver.open(decide=lambda transcript: False)
    for seconds in (0.5, 0.8):
        session.listen(tone(seconds))
        session.end_turn()
    driver.run()
    finals = [event.text for event in events if isinstance(event, Heard) and event.final]
    assert [text[:14] for text in finals] == ["sound for 7 ti", "sound for 10 t"]


def test_sessions_do_not_hear_each_other():
    """Sessions at different steps give what each gives alone."""
    alone = []
    for seed in (1, 2, 3):
        driver = Driver(tiny_omni(), slots=1)
        session, events = driver.open()
        driver.say(session, sounds(0.8, seed).numpy())
        session.end_turn()
        driver.run()
        alone.append(events)
    driver = Driver(tiny_omni(), slots=3)
    sessions = [driver.open() for _ in range(3)]
    audio = [sounds(0.8, seed).numpy() for seed in (1, 2, 3)]
    for start in range(0, 24):  # the second begins four ticks later, the third eight
        for number, (session, _) in enumerate(sessions):
            tick = start - 4 * number
            if 0 <= tick < 10:
                session.listen(audio[number][tick * 1280 : (tick + 1) * 1280])
            elif tick == 10:
                session.end_turn()
        driver.run(2)
    driver.run()
    for (_, events), want in zip(sessions, alone, strict=True):
        assert isinstance(events[-1], Done) and spoken(events)[0] == spoken(want)[0]
        np.testing.assert_allclose(spoken(events)[1], spoken(want)[1], atol=2e-3)


def test_one_batched_call_serves_all_who_speak():
    calls: list[int] = []

    class Counting(EchoModel):
        def speak(self, state, live_B):
            calls.append(int(live_B.sum()))
            return super().speak(state, live_B)

    driver = Driver(Counting())
    for session, _ in (sessions := [driver.open() for _ in range(3)]):
        driver.say(session, tone(0.4))
    for session, _ in sessions:
        session.end_turn()
    driver.run()
    assert set(calls) == {3} and all(isinstance(events[-1], Done) for _, events in sessions)


def test_a_full_engine_says_so_and_a_closed_session_makes_room():
    driver = Driver(slots=1)
    first, events = driver.open()
    with pytest.raises(BusyError, match="all 1 places are taken"):
        driver.open()
    driver.say(first, tone(0.5))
    first.end_turn()
    driver.run(4)
    first.close()
    driver.run()
    count, (second, later) = len(events), driver.open()
    driver.say(second, tone(0.5))
    second.end_turn()
    driver.run()
    assert len(events) == count  # nothing comes after the close
    assert later[-1].metrics.transcript == "sound for 7 ticks in turn 1"  # and nothing is left of the first


def test_what_a_closed_session_is_told_does_not_reach_who_has_its_place_now():
    driver = Driver(model := EchoModel(), slots=1)
    first, _ = driver.open()
    first.close()
    driver.run()
    second, events = driver.open()
    driver.say(second, tone(0.5))
    second.end_turn()
    driver.run(2)
    first.stop(0.0)
    first.forget()
    first.write("user", "spoilt")
    first.say("spoilt")
    driver.run()
    assert spoken(events)[0] == ANSWER and isinstance(events[-1], Done) and not model.truncated


def test_too_much_that_waits_is_refused_and_the_rest_kept():
    driver = Driver()
    session, events = driver.open(backlog=1.0)
    session.listen(tone(0.9))
    with pytest.raises(BusyError, match="at most 1 seconds"):
        session.listen(tone(0.2))
    session.end_turn()
    driver.run()
    assert events[-1].metrics.transcript == "sound for 12 ticks in turn 1"


def test_a_question_ends_by_itself():
    driver = Driver()
    session, events = driver.open(longest_question=1.0)
    driver.say(session, tone(1.2))
    driver.run()
    assert any(isinstance(event, Done) for event in events)


@pytest.mark.parametrize("operation", ["listen", "end_turn", "speak"])
def test_trouble_in_one_conversation_ends_that_one_alone(operation):
    class Troubled(EchoModel):
        broken = None

        def _check(self, live_B):
            if self.broken is not None and live_B[self.broken]:
                raise RuntimeError("out of something")

        def listen(self, state, audio_BN, live_B):
            if operation == "listen":
                self._check(live_B)
            super().listen(state, audio_BN, live_B)

        def end_turn(self, state, live_B):
            if operation == "end_turn":
                self._check(live_B)
            super().end_turn(state, live_B)

        def speak(self, state, live_B):
            if operation == "speak":
                self._check(live_B)
            return super().speak(state, live_B)

    driver = Driver(model := Troubled())
    sessions = [driver.open() for _ in range(3)]
    model.broken = sessions[1][0].slot
    for session, _ in sessions:
        session.listen(tone(0.5))
        session.end_turn()
    driver.run()
    assert sessions[1][1][-1] == Failed("the model failed; begin a new conversation") and sessions[1][0].closed
    assert all(isinstance(sessions[index][1][-1], Done) for index in (0, 2))
    assert driver.engine.free == 1


def test_a_sink_that_fails_closes_its_session_alone(caplog):
    driver = Driver()

    def broken(event):
        raise OSError("a xylophone")

    bad, (good, events) = driver.engine.open(broken, name="89abcdef"), driver.open()
    for session in (bad, good):
        session.listen(tone(0.5))
        session.end_turn()
    driver.run()
    assert bad.closed and isinstance(events[-1], Done)
    (line,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert line.getMessage().startswith("89abcdef: its events cannot be delivered, it is closed: OSError at ")
    assert line.exc_info is None and "xylophone" not in caplog.text


@pytest.mark.parametrize(
    "error,level,told",
    [
        (PartError("say: at most 3 tokens"), logging.WARNING, "89abcdef: failed: say: at most 3 tokens"),
        (IndexError("a xylophone"), logging.ERROR, "89abcdef: failed: IndexError at "),
    ],
)
def test_a_conversation_that_fails_is_one_line_of_the_log_with_its_name(error, level, told, caplog):
    class Broken(EchoModel):
        def end_turn(self, state, live_B):
            if live_B[mine.slot]:
                raise error
            super().end_turn(state, live_B)

    driver = Driver(Broken())
    mine, (other, events) = driver.engine.open(lambda event: None, name="89abcdef"), driver.open()
    caplog.set_level(logging.DEBUG, logger="duologue")
    for session in (mine, other):
        session.listen(tone(0.5))
        session.end_turn()
    driver.run()
    assert isinstance(events[-1], Done)
    (line,) = [record for record in caplog.records if record.levelno > logging.DEBUG]
    assert line.levelno == level and line.getMessage().startswith(told) and "\n" not in line.getMessage()
    assert line.exc_info is None and "xylophone" not in line.getMessage()
    (detail,) = [record for record in caplog.records if record.levelno == logging.DEBUG]
    assert detail.exc_info[1] is error  # how it came to it, for who asks for it


def test_a_call_that_fails_for_several_and_for_none_alone_is_told(caplog):
    class Cramped(EchoModel):
        def end_turn(self, state, live_B):
            if live_B.sum() > 1:
                raise MemoryError
            super().end_turn(state, live_B)

    driver = Driver(Cramped())
    sessions = [driver.open() for _ in range(2)]
    for session, _ in sessions:
        session.listen(tone(0.5))
        session.end_turn()
    driver.run()
    assert all(isinstance(events[-1], Done) for _, events in sessions)
    (line,) = caplog.records
    assert "for each alone not: MemoryError at " in line.getMessage()


def test_a_step_that_fails_again_and_again_is_told_once(caplog):
    driver = Driver()
    steps = []

    def step():
        steps.append(len(steps))
        if len(steps) == 4:
            driver.engine._inbox.put(None)
        if len(steps) != 3:
            raise ZeroDivisionError
        return True

    driver.engine.step = step
    driver.engine._run()
    lines = [record.getMessage() for record in caplog.records]
    assert len(steps) == 4 and len(lines) == 2  # before and after the one that went well
    assert all(line.startswith("a step of the engine failed: ZeroDivisionError at ") for line in lines)


def test_speech_is_made_ahead_of_the_listener_but_not_far():
    driver = Driver(EchoModel(EchoConfig(audio_ticks=200)))
    session, events = driver.open()
    driver.say(session, tone(0.5))
    session.end_turn()
    driver.run()
    made = sum(len(event.samples) for event in events if isinstance(event, Audio)) / 24_000
    assert 4.0 <= made <= 4.2
    driver.time += 3.0
    driver.run()
    assert sum(len(event.samples) for event in events if isinstance(event, Audio)) / 24_000 == pytest.approx(
        made + 3, abs=0.1
    )


def test_what_was_written_is_read_in_pieces_between_which_others_speak():
    driver = Driver(EchoModel(EchoConfig(audio_ticks=100)))
    (talker, spoken_events), (reader, events) = driver.open(), driver.open()
    talker.listen(tone(0.5))
    talker.end_turn()
    reader.write("user", "one two three four five six seven eight")
    reader.answer()
    driver.run(6 + 1 + 12)  # heard, ended, and a few steps
    assert any(isinstance(event, Audio) for event in spoken_events) and not events
    driver.run()
    driver.time += 10.0
    driver.run()
    assert spoken(events)[0] == ANSWER and isinstance(events[-1], Done)


def test_the_caller_may_decide_what_follows_a_turn():
    driver, asked = Driver(), []

    def decide(transcript: str) -> bool | str:
        asked.append(transcript)
        return [False, "It is noon.", True][len(asked) - 1]

    session, events = driver.open(decide=decide)
    texts = []
    for _ in range(3):
        del events[:]
        session.listen(tone(0.5))
        session.end_turn()
        driver.run()
        texts.append(spoken(events)[0])
    assert texts == ["", "It is noon.", ANSWER] and all(text.startswith("sound for 7") for text in asked)


def test_an_answer_that_waits_comes_when_it_is_asked_for():
    driver = Driver()
    session, events = driver.open(decide=lambda transcript: False)
    session.listen(tone(0.5))
    session.end_turn()
    driver.run()
    assert kinds(events) == ["Heard"]
    session.say("By request.")
    driver.run()
    assert spoken(events)[0] == "By request." and isinstance(events[-1], Done)
    del events[:]
    session.listen(tone(0.5))
    session.answer()  # which ends the turn too
    driver.run()
    assert spoken(events)[0] == ANSWER


def test_a_turn_that_is_left_without_an_answer_makes_way_for_the_next():
    driver = Driver()
    session, events = driver.open(decide=lambda transcript: False)
    for _ in range(2):
        session.listen(tone(0.5))
        session.end_turn()
        driver.run()
    assert [event.text[-6:] for event in events if isinstance(event, Heard) and event.final] == ["turn 1", "turn 2"]


def test_text_out_of_the_blue_is_said():
    driver = Driver()
    session, events = driver.open(TURNS)
    session.say("Your timer is over.")
    driver.run()
    assert spoken(events)[0] == "Your timer is over." and isinstance(events[-1], Done)
    session.say("x" * 500)
    driver.run()
    assert isinstance(events[-1], Failed)


def test_a_forgotten_conversation_begins_again_with_what_is_given():
    driver = Driver(tiny_omni())
    (first, events), (second, later) = driver.open(), driver.open()
    driver.say(first, sounds(0.8, 1).numpy())
    first.end_turn()
    driver.run()
    for session in (first, second):
        session.forget(("system", "Be brief."), ("user", "one"), ("assistant", "two"))
        session.listen(sounds(0.8, 2).numpy())
        session.end_turn()
    del events[:]
    driver.run()
    assert spoken(events)[0] == spoken(later)[0] != ""


def test_the_thread_does_what_the_steps_do():
    import threading

    engine, over, events = Engine(EchoModel(), slots=2, voice=Loudness()), threading.Event(), []

    def sink(event: Event) -> None:
        events.append(event)
        if isinstance(event, Done):
            over.set()

    engine.start()
    session = engine.open(sink)
    session.listen(tone(1.0))
    session.end_turn()
    assert over.wait(30)
    engine.close()
    assert spoken(events)[0] == ANSWER


def test_who_may_not_interrupt_is_answered_next():
    driver = Driver(EchoModel(EchoConfig(audio_ticks=100)))
    session, events = driver.open(TURNS, interrupts=False)
    driver.say(session, tone(1.0), silence(1.0), tone(0.5), silence(1.0))
    assert kinds(events)[-1] == "Audio" and "SpeechStopped" in kinds(events)[-4:]
    for _ in range(2):
        driver.time += 10.0
        driver.run()
    order = [name for name in kinds(events) if name not in ("Text", "Audio", "Heard")]
    assert order == ["SpeechStarted", "SpeechStopped", "SpeechStarted", "SpeechStopped", "Done", "Done"]


def test_a_turn_behind_an_answer_that_is_stopped_is_not_lost():
    driver = Driver(EchoModel(EchoConfig(audio_ticks=100)))
    session, events = driver.open(TURNS, interrupts=False)
    driver.say(session, tone(1.0), silence(1.0), tone(0.5), silence(1.0))
    session.stop(0.5)
    driver.run()
    after = events[events.index(Interrupted(0.5)) :]
    assert kinds(after)[1:4] == ["Heard", "Text", "Audio"]
    assert [event.text[-6:] for event in after if isinstance(event, Heard) and event.final] == ["turn 2"]


def test_an_answer_is_cut_short_before_its_first_sound():
    driver = Driver(EchoModel(EchoConfig(lead=50)))
    session, events = driver.open(TURNS)
    driver.say(session, tone(1.0), silence(0.6), steps=1)
    driver.say(session, tone(0.5), steps=1)
    assert not any(isinstance(event, Audio) for event in events)
    assert any(isinstance(event, Interrupted) for event in events) and "SpeechStarted" in kinds(events)[3:]
    driver.say(session, silence(0.7))
    driver.run()
    assert spoken(events)[0].endswith(ANSWER) and isinstance(events[-1], Done)


def test_who_decides_knows_before_those_who_are_told():
    driver, order = Driver(), []

    def sink(event: Event) -> None:
        if isinstance(event, Heard) and event.final:
            order.append("told")

    session = driver.engine.open(sink, SessionConfig(decide=lambda transcript: order.append("decided") or False))
    session.listen(tone(0.5))
    session.end_turn()
    driver.run()
    assert order == ["decided", "told"]


def test_a_rush_of_audio_is_looked_at_piece_by_piece():
    driver = Driver()
    session, events = driver.open(TURNS)
    session.listen(np.concatenate([silence(20), tone(1.0), silence(1.0)]))
    driver.run(5)
    assert not events
    driver.run()
    assert kinds(events)[-1] == "Done"


def test_the_size_of_chunks_is_a_sessions_own_and_outlasts_what_it_forgets():
    driver = Driver(model := Chunky())
    (session, _), (other, _) = driver.open(), driver.open()
    session.set_omega(9)
    session.forget()
    other.forget()
    driver.run()
    assert model.told == [(0, 9), (0, 9), (1, 0)]
    plain, _ = (driver := Driver()).open()  # a family without chunks passes it over
    plain.set_omega(9)
    driver.run()
    assert not plain.closed


def test_forgetting_many_times_at_once_is_done_once():
    driver = Driver(tiny_omni())
    session, events = driver.open()
    done = []
    reset = driver.engine.runner.reset
    driver.engine.runner.reset = lambda slot: (done.append(slot), reset(slot))
    for number in range(100):
        session.forget(("system", f"Be brief, {number}."))
    driver.run()
    assert done == [session.slot]
    for _ in range(3):
        session.forget(("system", "Be brief."))
        session.write("user", "one")
    driver.run()
    assert len(done) == 4
    session.forget()
    driver.run()
    session.forget()
    driver.run()
    assert len(done) == 6 and not events


def test_beside_others_an_answer_begins_with_a_head_start():
    driver = Driver(EchoModel(EchoConfig(audio_ticks=100)))
    (alone, events), (other, _) = driver.open(), driver.open()

    def begins() -> float:
        """Seconds of speech that come at once."""
        del events[:]
        while not any(isinstance(event, Audio) for event in events):
            driver.run(1)
        seconds = sum(len(event.samples) for event in events if isinstance(event, Audio)) / 24_000
        driver.time += 20.0
        driver.run()
        driver.time += 20.0
        return seconds

    for beside, least, most in ((False, 0.01, 0.1), (True, 0.3, 0.4), (False, 0.01, 0.1)):
        if beside:
            other.listen(tone(0.5))
        alone.listen(tone(0.5))
        alone.end_turn()
        assert least <= begins() <= most
        if beside:
            assert isinstance(events[-1], Done)
            other.forget()
            driver.run()


def test_on_a_slow_machine_an_answer_begins_later_so_that_it_does_not_run_dry():
    class Slow(EchoModel):
        def speak(self, state, live_B):
            driver.time += 0.07
            return super().speak(state, live_B)

    driver = Driver(Slow(EchoConfig(audio_ticks=100)))
    session, events = driver.open()
    session.listen(tone(0.5))
    session.end_turn()
    while not any(isinstance(event, Audio) for event in events):
        driver.run(1)
    assert len(spoken(events)[1]) == round(0.32 * 24_000)


def test_a_short_answer_beside_others_is_given_whole():
    driver = Driver(EchoModel(EchoConfig(audio_ticks=1)))
    (session, events), (other, _) = driver.open(), driver.open()
    other.listen(tone(0.5))
    session.listen(tone(0.5))
    session.end_turn()
    driver.run()
    assert kinds(events)[-2:] == ["Audio", "Done"]
    assert not any(isinstance(event, Failed) for event in events)
