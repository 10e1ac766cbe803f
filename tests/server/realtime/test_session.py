"""What a client may set, how it is mapped, and what it may not."""

from __future__ import annotations

import pytest
from fakes import EchoModel, tone
from openai.types.realtime import ClientSecretCreateResponse
from realtime_talk import RATE, Desk, Noting, kinds, message, of, one, silence

from duologue.server.realtime import ClientError, RealtimeLimits, SecretStore, Settings, TurnDetection
from duologue.server.realtime.session import update

LIMITS = RealtimeLimits()


def test_settings_are_reported_as_they_are_in_effect():
    desk = Desk()
    session = desk.events[0]["session"]
    assert session["audio"]["input"]["turn_detection"]["silence_duration_ms"] == 500
    assert session["id"].startswith("sess_") and session["expires_at"] == 1_003_600
    (event,) = desk.update(
        instructions="Be brief.",
        output_modalities=["text"],
        tools=[{"type": "function", "name": "f", "parameters": {}}],
        tracing="auto",
        audio={
            "input": {"turn_detection": {"type": "semantic_vad", "eagerness": "high"}, "noise_reduction": None},
            "output": {"voice": "marin", "speed": 1.2, "format": {"type": "audio/pcma"}},
        },
    )
    session = event["session"]
    assert session["instructions"] == "Be brief." and session["tools"][0]["name"] == "f" and session["tracing"] is None
    assert session["audio"]["output"] == {"format": {"type": "audio/pcma"}, "voice": "marin", "speed": 1.0}
    turns = {"type": "semantic_vad", "eagerness": "high", "create_response": True, "interrupt_response": True}
    assert session["audio"]["input"]["turn_detection"] == turns
    (event,) = desk.update(audio={"input": {"turn_detection": None}})
    assert event["session"]["audio"]["input"]["turn_detection"] is None
    assert event["session"]["instructions"] == "Be brief."  # what is not named stays


def test_turn_detection_is_mapped_to_the_engines():
    turns = TurnDetection(threshold=0.7, prefix_padding_ms=100, silence_duration_ms=900).turns()
    assert (turns.threshold, turns.before, turns.end, turns.end_complete, turns.end_incomplete) == (
        0.7,
        0.1,
        *[0.9] * 3,
    )
    low, high = (TurnDetection(type="semantic_vad", eagerness=each).turns() for each in ("low", "high"))
    assert (low.end_incomplete, high.end_incomplete) == (8.0, 2.0) and low.end > high.end > high.end_complete
    assert TurnDetection(silence_duration_ms=50).turns().pause == 0.05


@pytest.mark.parametrize("silence_ms, ended", [(300, True), (900, False)])
def test_the_silence_that_ends_a_turn_is_the_clients(silence_ms, ended):
    desk = Desk()
    desk.update(audio={"input": {"turn_detection": {"type": "server_vad", "silence_duration_ms": silence_ms}}})
    events = desk.say(tone(0.5, rate=RATE), silence(0.6))
    assert bool(of(events, "input_audio_buffer.speech_stopped")) == ended


def hearing(**incoming):
    return {"type": "realtime", "audio": {"input": incoming}}


@pytest.mark.parametrize(
    "session, param, code",
    [
        ({}, "session.type", "missing_required_parameter"),
        ({"type": "realtime", "voice": "x"}, "session.voice", "unknown_parameter"),
        ({"type": "transcription"}, "session.type", "invalid_value"),
        ({"type": "realtime", "instructions": 5}, "session.instructions", "invalid_type"),
        ({"type": "realtime", "instructions": "x" * 20_000}, "session.instructions", "invalid_value"),
        ({"type": "realtime", "output_modalities": ["text", "audio"]}, "session.output_modalities", "invalid_value"),
        ({"type": "realtime", "max_output_tokens": 0}, "session.max_output_tokens", "invalid_value"),
        ({"type": "realtime", "max_output_tokens": True}, "session.max_output_tokens", "invalid_value"),
        ({"type": "realtime", "tools": [{"type": "mcp"}]}, "session.tools[0].type", "invalid_value"),
        ({"type": "realtime", "tools": [{"type": "function"}]}, "session.tools[0].name", "missing_required_parameter"),
        ({"type": "realtime", "tools": "x"}, "session.tools", "invalid_type"),
        ({"type": "realtime", "tool_choice": 5}, "session.tool_choice", "invalid_value"),
        (hearing(format={"type": "audio/mp3"}), "session.audio.input.format.type", "invalid_value"),
        (hearing(format={"type": "audio/pcm", "rate": 16_000}), "session.audio.input.format.rate", "invalid_value"),
        (hearing(turn_detection={"threshold": 2}), "session.audio.input.turn_detection.threshold", "invalid_value"),
        (hearing(turn_detection={"x": "low"}), "session.audio.input.turn_detection.x", "unknown_parameter"),
        ({"type": "realtime", "audio": {"output": {"speed": 9}}}, "session.audio.output.speed", "invalid_value"),
        ({"type": "realtime", "audio": []}, "session.audio", "invalid_type"),
        ({"type": "realtime", "model": "another"}, "session.model", "invalid_value"),
    ],
)  # fmt: skip
def test_a_change_that_makes_no_sense_changes_nothing(session, param, code):
    desk = Desk(settings=Settings(model="mini"))
    desk.update()
    before = desk.connection.settings
    (error,) = desk.send("session.update", session=session)
    assert (error["error"]["param"], error["error"]["code"]) == (param, code)
    assert error["error"]["event_id"] == "mine_2" and desk.connection.settings == before


def test_the_voice_stays_once_it_was_heard():
    desk = Desk()
    desk.update(audio={"output": {"voice": "marin"}})
    desk.send("response.create")
    (error,) = desk.update(audio={"output": {"voice": "cedar"}})
    assert error["error"]["code"] == "cannot_update_voice"
    assert kinds(desk.update(audio={"output": {"voice": "marin"}})) == ["session.updated"]


def test_instructions_may_change_in_the_middle():
    desk = Desk(model := Noting())
    desk.update(instructions="Be brief.")
    desk.send("conversation.item.create", item=message("one"))
    desk.send("response.create")
    desk.update(instructions="Be rude.")
    assert model.told[0] == ("system", "Be rude.") and model.told[1] == ("user", "one") and len(model.told) == 3


def test_a_transcription_session_hears_and_says_nothing():
    desk = Desk(settings=Settings(type="transcription", transcription={"model": "mini"}))
    assert set(desk.events[0]["session"]["audio"]) == {"input"}
    events = desk.say(tone(1.0, rate=RATE), silence(1.0))
    assert kinds(events)[-1] == "conversation.item.input_audio_transcription.completed"
    (error,) = desk.send("response.create")
    assert "no responses" in error["error"]["message"]
    assert kinds(desk.say(tone(1.0, rate=RATE), silence(1.0)))[-1] == kinds(events)[-1]


def test_a_session_is_over_after_its_time_and_when_nobody_is_there():
    desk = Desk(limits=RealtimeLimits(longest_session=60.0, idle=20.0))
    desk.wait(19)
    desk.update()
    desk.wait(19)
    assert not desk.connection.over
    assert one(desk.wait(2), "error")["error"]["code"] == "session_idle" and desk.connection.over
    desk.run()
    assert desk.engine.free == 3
    desk = Desk(limits=RealtimeLimits(longest_session=1.0))
    error = one(desk.wait(2), "error")["error"]
    assert error["code"] == "session_expired" and "maximum duration" in error["message"]


def test_what_was_said_is_given_up_where_the_model_never_tells():
    class Deaf(EchoModel):
        def end_turn(self, state, live_B):
            raise AssertionError("not reached")

    desk = Desk(Deaf())
    desk.update(audio={"input": {"turn_detection": None, "transcription": {}}})
    desk.say(tone(0.5, rate=RATE), steps=0)
    desk.send("input_audio_buffer.commit", run=False)
    desk.time += 150
    desk.connection.poll()
    assert desk.events[-1]["type"] == "conversation.item.input_audio_transcription.failed"


# -- secrets ----------------------------------------------------------------------------------------------------


class Carrying:
    def __init__(self, key: str):
        self.headers = {"authorization": f"Bearer {key}"}


def test_a_secret_carries_the_settings_of_its_sessions_until_it_expires():
    now = [1_000.0]
    store = SecretStore(clock=lambda: now[0])
    session = {"type": "realtime", "instructions": "Be brief.", "model": "mini"}
    answer = store.create({"expires_after": {"anchor": "created_at", "seconds": 60}, "session": session})
    ClientSecretCreateResponse.model_validate(answer)
    assert answer["expires_at"] == 1_060 and answer["value"].startswith("ek_")
    assert store.settings(Carrying(answer["value"])).instructions == "Be brief."
    assert store.settings(Carrying("ek_other")) is None
    now[0] = 1_060.0
    assert store.settings(Carrying(answer["value"])) is None
    transcription = store.create({"session": {"type": "transcription"}})
    assert ClientSecretCreateResponse.model_validate(transcription).session.type == "transcription"


@pytest.mark.parametrize("body", [{"expires_after": {"seconds": 5}}, {"session": {"type": "poem"}}, {"x": 1}])
def test_a_secret_that_makes_no_sense_is_refused(body):
    with pytest.raises(ClientError):
        SecretStore().create(body)


def test_changes_keep_what_they_do_not_name():
    settings = Settings(instructions="Be brief.", transcription={"model": "x"}, turn_detection=None)
    assert update(settings, {"type": "realtime"}, LIMITS, spoken=False) == settings
    assert (
        update(
            settings, {"type": "realtime", "audio": {"input": {"transcription": None}}}, LIMITS, spoken=False
        ).transcription
        is None
    )
