"""Full-Duplex-Bench's folders are read as they are published."""

import json

import numpy as np
import pytest
import soundfile

from duologue.errors import DataError
from duologue.eval.duplex_cases import INTERRUPTION, PAUSE, TELLING, TURN
from duologue.eval.duplex_official import EXPECTED, read_official


def sample(root, folder, name, *, seconds=4.0, **files):
    path = root / folder / name
    path.mkdir(parents=True)
    soundfile.write(path / "input.wav", np.zeros(round(seconds * 8_000), np.float32), 8_000)
    for stem, content in files.items():
        (path / f"{stem}.json").write_text(json.dumps(content))
    return path


def word(text, start, end):
    return {"text": text, "timestamp": [start, end]}


def test_pauses_in_the_order_of_their_numbers(tmp_path):
    for name in ("10", "2"):
        pause = [word("[PAUSE]", 1.5, 2.25)]
        sample(tmp_path, "v1_0/candor_pause_handling", name, pause=pause, transcription=[word("so", 0.5, 1.5)])
    first, last = read_official(tmp_path, "v1_0/candor_pause_handling")
    assert [first.name, last.name] == ["candor_pause_handling-2", "candor_pause_handling-10"]
    assert first.kind == PAUSE and first.marked == ((1.5, 2.25),) and first.said == (("so", 0.5, 1.5),)
    assert first.end == first.seconds == 4.0, "what is said anywhere in the recording is a take-over"


def test_a_turn_ends_where_the_other_begins(tmp_path):
    speakers = [{"speaker": 0, "item": [word("I", 2.0, 2.4)]}, {"speaker": 1, "item": [word("this", 1.0, 2.0)]}]
    marked = [word("[TURN-TAKING]", 2.0, 2.4)]
    sample(tmp_path, "v1_0/candor_turn_taking", "1", turn_taking=marked, transcription=speakers)
    (case,) = read_official(tmp_path, "v1_0/candor_turn_taking")
    assert (case.kind, case.end, case.said) == (TURN, 2.0, (("this", 1.0, 2.0),))


def test_backchannels_with_the_listeners_distribution(tmp_path):
    chunks = {"chunks": [word("well", 0.5, 1.0), word("then", 1.0, None)]}
    sample(tmp_path, "v1_0/icc_backchannel", "7", transcription=chunks)
    assert read_official(tmp_path, "v1_0/icc_backchannel")[0].expected == ()
    (tmp_path / EXPECTED).write_text(json.dumps({"7": [0.25, 0.75]}))
    (case,) = read_official(tmp_path, "v1_0/icc_backchannel")
    assert (case.kind, case.expected, case.end) == (TELLING, (0.25, 0.75), 4.0)
    assert case.said == (("well", 0.5, 1.0), ("then", 1.0, 1.0))


def test_interruptions_of_both_versions(tmp_path):
    row = {"context": "Books?", "interrupt": "No, films.", "timestamp": [2.0, 3.0]}
    path = sample(tmp_path, "v1_0/synthetic_user_interruption", "1", interrupt=[row])
    soundfile.write(path / "context.wav", np.zeros(8_000, np.float32), 8_000)
    meta = {"context_text": "Books?", "current_turn_text": "No, films.", "timestamps": [2.0, 3.0]}
    sample(tmp_path, "v1_5/background_speech", "1", metadata=meta)
    old, new = (
        read_official(tmp_path, name)[0] for name in ("v1_0/synthetic_user_interruption", "v1_5/background_speech")
    )
    assert old.kind == new.kind == INTERRUPTION and old.marked == new.marked == ((2.0, 3.0),)
    assert old.said == (("Books?", 0.0, 1.0), ("No, films.", 2.0, 3.0)) and old.end == 3.0
    assert new.said == (("No, films.", 2.0, 3.0),)


def test_what_is_not_as_published_is_told_with_its_place(tmp_path):
    with pytest.raises(DataError, match="known are v1_0/candor_pause_handling"):
        read_official(tmp_path, "v9")
    with pytest.raises(DataError, match="there are no samples"):
        read_official(tmp_path, "v1_0/icc_backchannel")
    path = sample(tmp_path, "v1_0/candor_turn_taking", "1", turn_taking=[{"text": "?"}])
    with pytest.raises(DataError, match=r"1/turn_taking\.json: need \"timestamp\""):
        read_official(tmp_path, "v1_0/candor_turn_taking")
    (path / "turn_taking.json").write_text("{")
    with pytest.raises(DataError, match="not valid JSON"):
        read_official(tmp_path, "v1_0/candor_turn_taking")
    (path / "input.wav").unlink()
    with pytest.raises(DataError, match=r"input\.wav: cannot be read"):
        read_official(tmp_path, "v1_0/candor_turn_taking")
