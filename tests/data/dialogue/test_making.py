"""Whole runs: the same bytes however often they are stopped, one clear line for what goes wrong, and the way in and out
by moshi-finetune's layout."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from fake_speakers import Hum, hums, recipe
from typer.testing import CliRunner

from duologue.cli import app
from duologue.config import from_dict, override, to_dict
from duologue.data.dialogue import (
    DialogueConfig,
    DialogueSource,
    import_stereo,
    is_stereo_list,
    make_dialogues,
    read_conversations,
)
from duologue.data.dialogue.clips import RATE
from duologue.data.dialogue.rows import duplex_rows
from duologue.data.dialogue.stereo import read_stereo
from duologue.data.manifest import Turn, write_shard
from duologue.data.speakers import Voice
from duologue.data.word_times import Word
from duologue.errors import ConfigError, DataError

TALKS = [
    [
        ["user", "Hello, is anyone there?"],
        ["assistant", "Yes, I am here all day, and I listen."],
        ["user", "Good."],
    ],
    [["assistant", "What would you like to know today?"], ["user", "Nothing, thanks."], ["assistant", "Fine."]],
    [["user", "Tell me a story, please."], ["assistant", "Once there was a fox, a hen and a very long road."]],
]


@pytest.fixture
def config(tmp_path) -> DialogueConfig:
    path = tmp_path / "talks.jsonl"
    path.write_text("\n".join(json.dumps({"turns": turns}) for turns in TALKS))
    source = DialogueSource(path=str(path), name="talks", licence="CC0")
    return recipe([source], conversations=5, shard_rows=2)


def make(config, out, **options):
    return make_dialogues(config, out, **{"progress": False, "speakers": hums(), **options})


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_run_says_what_it_holds(config, tmp_path):
    seen = []
    summary = make(config, tmp_path / "out", progress=lambda *step: seen.append(step))
    assert summary.conversations == 5 and summary.dropped == {} and seen[-1] == ("dialogue", 3, 3)
    rows = list(read_conversations(tmp_path / "out"))
    assert summary.hours == pytest.approx(sum(row.seconds for row in rows) / 3600)
    assert {row.word_times for row in rows} == {"counted"} and {row.assistant for row in rows} == {"hum"}
    assert rows[0].sound().shape == (2, round(rows[0].seconds * RATE))
    card = (tmp_path / "out" / "README.md").read_text()
    for told in ("| train | 5 |", "| talks | CC0 | 5 |", "assistant gap", "counted: 5", "overlap, s a minute"):
        assert told in card


def test_a_run_that_was_stopped_gives_the_same_bytes(config, tmp_path):
    make(config, tmp_path / "whole")
    make(config, tmp_path / "again")
    for name in ("shards/shard-00001.parquet", "README.md"):
        (tmp_path / "again" / name).unlink()
    make(config, tmp_path / "again", speakers=hums())
    assert files(tmp_path / "again") == files(tmp_path / "whole")


def test_what_is_there_is_not_made_again(config, tmp_path):
    make(config, tmp_path / "out")
    make(config, tmp_path / "out", speakers={})  # nobody could speak
    assert len(list(read_conversations(tmp_path / "out"))) == 5


def test_a_folder_keeps_to_its_recipe_and_texts(config, tmp_path):
    make(config, tmp_path / "out")
    with pytest.raises(DataError, match=r"another recipe .*seed"):
        make(dataclasses.replace(config, seed=1), tmp_path / "out")
    source = Path(config.sources[0].path)
    source.write_text(source.read_text().replace("fox", "cat"))
    with pytest.raises(DataError, match="other texts"):
        make(config, tmp_path / "out")


def test_a_user_has_one_voice_in_a_conversation_and_the_assistant_one_in_all(config, tmp_path):
    speakers = hums()
    make(dataclasses.replace(config, people=0), tmp_path / "out", speakers=speakers)
    assert len({seed for _, seed in speakers["hum"].said}) == 1
    seeds = {seed for name in ("drone", "whine") for _, seed in speakers[name].said}
    assert len(seeds) == 5  # a person for each conversation
    again = hums()
    make(dataclasses.replace(config, people=1), tmp_path / "one", speakers=again)
    said = [text for name in ("drone", "whine") for text in again[name].said]
    assert len({seed for _, seed in said}) == 1 and len(said) == len(set(said))  # nothing is synthesised twice


def test_the_times_of_words_say_how_they_were_found(config, tmp_path):
    make(config, tmp_path / "out", speakers=hums() | {"hum": Hum()})
    assert {row.word_times for row in read_conversations(tmp_path / "out")} == {"spread"}


def test_a_text_that_cannot_be_said_is_left_out_and_counted(config, tmp_path):
    source = Path(config.sources[0].path)
    source.write_text(source.read_text().replace("fox", "unsayable"))
    summary = make(dataclasses.replace(config, conversations=3), tmp_path / "out")
    assert summary.conversations == 2 and summary.dropped == {"the synthesiser failed": 1}
    source.write_text(json.dumps({"turns": [["user", "unsayable"]]}))
    with pytest.raises(DataError, match="nothing is left"):
        make(config, tmp_path / "none")


def test_a_split_without_a_voice_is_an_error(config, tmp_path):
    voices = tuple(dataclasses.replace(voice, splits=("dev",)) for voice in config.voices)
    with pytest.raises(ConfigError, match="no voice"):
        make(dataclasses.replace(config, voices=voices), tmp_path / "out")


def test_the_stereo_layout_comes_back_as_it_was(config, tmp_path):
    make(config, tmp_path / "out", stereo=True)
    listed = tmp_path / "out" / "stereo" / "train.jsonl"
    assert is_stereo_list(listed) and not is_stereo_list(Path(config.sources[0].path))
    summary = import_stereo(listed, tmp_path / "in", progress=False)
    made, read = list(read_conversations(tmp_path / "out")), list(read_conversations(tmp_path / "in"))
    assert summary.conversations == 5 and [row.id for row in read] == [f"train-{row.id}" for row in made]
    for a, b in zip(made, read, strict=True):
        np.testing.assert_array_equal(a.sound(), b.sound())
        assert a.words_of("assistant") == b.words_of("assistant") and b.words_of("user") == []
    assert import_stereo(listed, tmp_path / "in", progress=False) == summary


def write_call(folder: Path, *, channels=2, rate=RATE, alignment='{"alignments": [["a", [0.1, 0.4], "SPEAKER_MAIN"]]}'):
    audio = np.linspace(0, 0.5, rate)[:, None].repeat(channels, 1)
    soundfile.write(folder / "a.wav", audio, rate)
    if alignment is not None:
        (folder / "a.json").write_text(alignment)
    (folder / "dev.jsonl").write_text('{"path": "a.wav", "duration": 1.0}\n')
    return folder / "dev.jsonl"


def test_calls_at_another_rate_and_of_several_speakers_are_read(tmp_path):
    words = '{"alignments": [["b", [0.5, 0.6], "SPEAKER_B"], ["a", [0.1, 0.4], "SPEAKER_MAIN"]], "text_conditions": {}}'
    (row,) = read_stereo(write_call(tmp_path, rate=8000, alignment=words))
    assert row.split == "dev" and row.sound().shape == (2, RATE)
    assert row.words_of("assistant") == [Word("a", 0.1, 0.4)] and row.words_of("user") == [Word("b", 0.5, 0.6)]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"channels": 1}, "a.wav: need two channels"),
        ({"alignment": None}, "a.json: there is no alignment"),
        ({"alignment": "[]"}, "a.json: need"),
        ({"alignment": '{"alignments": [["a", [3, 4], "SPEAKER_MAIN"]]}'}, "from 3.0 to 4.0 s, in a sound of 1.0 s"),
    ],
)
def test_a_bad_call_is_named(tmp_path, call, message):
    with pytest.raises(DataError, match=message):
        list(read_stereo(write_call(tmp_path, **call)))


def test_a_bad_list_is_named(tmp_path):
    listed = write_call(tmp_path)
    listed.write_text('{"path": "b.wav", "duration": 1}')
    with pytest.raises(DataError, match=r"b\.wav: there is no such file"):
        list(read_stereo(listed))
    listed.write_text('{"path": "a.wav", "duration": 1}\nx')
    with pytest.raises(DataError, match="line 2: need"):
        list(read_stereo(listed))


def test_rows_hold_the_text_at_its_frames(config, tmp_path):
    make(config, tmp_path / "out")
    row = next(read_conversations(tmp_path / "out"))
    rows = list(duplex_rows(row, encode=lambda word: [len(word) + 100], seconds=4.0))
    assert all(each.text_T.shape == (50,) and each.audio_CN.shape == (2, 96_000) for each in rows)
    assert sum(each.known for each in rows) == round(row.seconds * 12.5)
    text = np.concatenate([each.text_T for each in rows])
    for word in row.words_of("assistant"):
        assert text[int(word.start * 12.5)] == len(word.text) + 100
    assert set(text[sum(each.known for each in rows) :]) <= {-1} and {0, 3} < set(text)
    sound = np.concatenate([each.audio_CN for each in rows], axis=1)
    np.testing.assert_array_equal(sound[:, : round(row.seconds * RATE)], row.sound())
    assert set(next(duplex_rows(row, encode=list, seconds=4.0, with_text=False)).text_T) == {-1}
    with pytest.raises(ConfigError, match="whole frames"):
        next(duplex_rows(row, encode=list, seconds=1.0))


def test_a_folder_of_something_else_is_refused(tmp_path):
    write_shard(tmp_path / "shards" / "shard-00000.parquet", [Turn(id="1")])
    with pytest.raises(DataError, match="not a shard of conversations"):
        list(read_conversations(tmp_path))
    with pytest.raises(DataError, match="split 'x' is unknown"):
        list(read_conversations(tmp_path, split="x"))


def test_a_recipe_survives_json_and_settings_reach_into_it(config):
    assert from_dict(DialogueConfig, to_dict(config)) == config
    changed = override(config, ["timing.assistant_gap.middle=0.1", 'channels.noises=["hum"]', "exchanges=[1,2]"])
    assert changed.timing.assistant_gap.middle == 0.1 and changed.channels.noises == ("hum",)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.jsonl"], "nothing.jsonl: cannot be read"),
        (["talks.jsonl", "--set", "timing.lead.high=-1"], "low <= high"),
        (["talks.jsonl", "--set", "colour=1"], "unknown key 'colour'"),
        (["dev.jsonl", "--stereo"], "read as they are"),
        (["recipe.py"], "there is no file recipe.py"),
    ],
)
def test_the_command_fails_in_one_line(config, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    write_call(tmp_path)
    result = CliRunner().invoke(app, ["data", "dialogue", *arguments, "--out", "out"], catch_exceptions=False)
    (line,) = [line for line in result.stderr.strip().splitlines() if line.startswith("duologue")]
    assert result.exit_code == 2 and message in line


def test_the_command_reads_calls_and_writes_a_report(tmp_path):
    listed = write_call(tmp_path)
    result = CliRunner().invoke(app, ["data", "dialogue", str(listed), "--out", str(tmp_path / "out")])
    assert result.exit_code == 0 and "1 conversations" in result.stderr
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<svg" in page and "What was drawn" not in page  # nobody knows what was drawn for them


def test_two_processes_give_the_same_bytes(config, tmp_path):
    tones = f"{sys.executable} {Path(__file__).parents[1] / 'fake_voice.py'} {{out}} {{text}}"
    voice = Voice(kind="command", name="tones", command=tones, licence="CC0")
    calm = dataclasses.replace(config.timing, user_backchannels=0.0, assistant_backchannels=0.0)
    config = dataclasses.replace(config, assistant=voice, voices=(voice,), conversations=3, shard_rows=1, timing=calm)
    make(config, tmp_path / "one", speakers=None)
    make(dataclasses.replace(config, workers=2), tmp_path / "two", speakers=None)
    assert files(tmp_path / "one") == files(tmp_path / "two")
