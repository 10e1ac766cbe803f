"""Recordings: only where asked for, whole, bounded, and gone after their days."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest
import soundfile
from fakes import ANSWER, tone
from realtime_talk import RATE, Desk, silence

from duologue.errors import ServerError
from duologue.server.recordings import RecordingConfig, Recordings
from duologue.streaming.events import Audio, Text

NOON = 1_772_452_800.0  # 2026-03-02 12:00 UTC


@pytest.fixture
def time():
    return [0.0]


def recordings(folder, time, **config) -> Recordings:
    made = Recordings(RecordingConfig(folder=folder, **config), clock=lambda: time[0], wall=lambda: NOON + time[0])
    made.start()
    return made


def settle(made: Recordings) -> None:
    """Until the thread has done what it was given."""
    done = threading.Event()
    assert made.post(0, lambda: (made.step(), done.set()))
    assert done.wait(20)


def opened(made: Recordings, name: str = "sess_0123456789abcdef"):
    return made.open("realtime", name, model="echo", rate_in=16_000, rate=24_000)


def told(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "transcript.jsonl").read_text("utf-8").splitlines()]


def test_a_conversation_becomes_a_folder(tmp_path, time):
    made = recordings(tmp_path, time)
    desk = Desk(witnesses=lambda kind, name: made.open(kind, name, model="echo", rate_in=16_000, rate=24_000))
    for piece in np.split(np.concatenate([silence(0.4), tone(1.0, rate=RATE), silence(1.0)]), 24):
        desk.say(piece)
        time[0] = desk.time
    time[0] = desk.time = desk.time + 3
    desk.connection.close()
    made.close()
    (folder,) = tmp_path.iterdir()
    assert folder.name == f"20260302T120000Z-{desk.connection.id[-8:]}"
    sound, rate = soundfile.read(folder / "conversation.wav")
    user, model = sound.T
    assert rate == 24_000 and 0.28 < np.abs(user).max() < 0.32 and 0.28 < np.abs(model).max() < 0.32
    first, last = (np.flatnonzero(np.abs(user) > 0.1) / rate)[[0, -1]]
    assert first == pytest.approx(0.4, abs=0.15) and 1.25 < last < 2  # a busy machine brings it late
    begin = np.flatnonzero(np.abs(model) > 0.1)[0] / rate
    assert 1.7 < begin < 3
    about, asked, answered = told(folder)
    assert about == {
        "session": desk.connection.id,
        "protocol": "realtime",
        "model": "echo",
        "began": "2026-03-02T12:00:00+00:00",
    }
    assert asked["role"] == "user" and asked["text"].startswith("sound for")
    assert (answered["role"], answered["text"]) == ("assistant", ANSWER)
    assert answered["from"] == pytest.approx(begin, abs=0.05)


def test_a_session_in_which_nothing_happens_leaves_nothing(tmp_path, time):
    made = recordings(tmp_path, time)
    opened(made).close()
    made.close()
    assert list(tmp_path.iterdir()) == []


def test_what_was_recorded_is_a_whole_file_while_it_goes_on(tmp_path, time):
    made = recordings(tmp_path, time)
    recording = opened(made)
    recording.hear(tone(1.0))
    time[0] = 3.0
    settle(made)
    (folder,) = tmp_path.iterdir()
    assert soundfile.info(folder / "conversation.wav").frames == 2.5 * 24_000
    made.close()


@pytest.mark.parametrize("bounds", [{"longest": 250_000}, {"most": 250_000}], ids=["one", "all"])
def test_no_more_is_written_than_there_may_be(tmp_path, time, bounds, caplog):
    made = recordings(tmp_path, time, **bounds)
    recording = opened(made)
    for second in range(10):
        time[0] = second
        recording.hear(tone(1.0))
        settle(made)
    recording.close()
    made.close()
    (folder,) = tmp_path.iterdir()
    assert 150_000 < sum(path.stat().st_size for path in folder.iterdir()) < 251_000
    assert soundfile.info(folder / "conversation.wav").frames > 24_000
    assert "89abcdef: is recorded no further" in caplog.text


def test_what_cannot_be_written_disturbs_nobody(tmp_path, time, caplog):
    made = recordings(tmp_path, time)
    recording, other = opened(made), opened(made, "sess_another_00000000")
    recording.hear(tone(0.1))
    other.hear(tone(0.1))
    time[0] = 2.0
    settle(made)
    first, second = sorted(tmp_path.iterdir())
    (first / "transcript.jsonl").unlink()
    (first / "transcript.jsonl").mkdir()  # as good as a full disk
    for each in (other, recording):
        each.happen(Text("Hi."))
        each.happen(Audio(tone(0.1, rate=24_000)))
    time[0] = 5.0
    settle(made)
    made.close()
    assert caplog.text.count("is recorded no further") == 1
    assert [entry["text"] for entry in told(second)[1:]] == ["Hi."]


def test_a_writer_that_does_not_keep_up_loses_a_recording_and_no_memory(tmp_path, time, caplog):
    made = Recordings(RecordingConfig(folder=tmp_path, waiting=100_000), clock=lambda: time[0])
    recording = opened(made)
    for _ in range(100):
        recording.hear(tone(1.0))
    assert made._jobs.qsize() < 3  # of 64,000 bytes each
    made.start()
    settle(made)
    made.close()
    assert "as fast as it comes" in caplog.text


def test_old_recordings_go_and_what_is_not_ours_stays(tmp_path, time):
    for name in ("20260101T000000Z-0123abcd", "20260301T000000Z-0123abcd", "20260101T000000Z", "notes"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "transcript.jsonl").write_text("{}\n")
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "20260101T000000Z-0000abcd").symlink_to(outside)
    made = recordings(tmp_path, time, keep_days=30)
    settle(made)
    made.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "20260101T000000Z",
        "20260101T000000Z-0000abcd",
        "20260301T000000Z-0123abcd",
        "notes",
        "outside",
    ]


def test_a_folder_or_days_that_cannot_be_are_refused_at_the_start(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ServerError, match="--recordings: cannot write to"):
        Recordings(RecordingConfig(folder=tmp_path / "file"))
    with pytest.raises(ServerError, match="more than 0 days"):
        RecordingConfig(folder=tmp_path, keep_days=0)
