from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from duologue.config import from_dict, override, to_dict
from duologue.data import synthesis
from duologue.data.audio_augment import AugmentConfig
from duologue.data.manifest import Turn, decode_flac, read_rows
from duologue.data.speakers import Voice
from duologue.data.steps import find_step
from duologue.data.steps.base import Result, Step, SynthesisConfig, Tools, seed_of
from duologue.data.steps.sources import SourceConfig, read_source
from duologue.data.synthesis import synthesise
from duologue.errors import ConfigError, DataError

HERE = Path(__file__).parent
TONES = Voice(
    kind="command", name="tones", command=f"{sys.executable} {HERE / 'fake_voice.py'} {{out}} {{text}}", licence="CC0"
)


class FakeTextModel:
    """Writes numbered questions and an answer to each."""

    calls = 0

    def complete(self, chats, *, max_tokens, temperature=0.0, seed=0, opening=""):
        self.calls += 1
        if opening:
            return [f"{opening} thing {seed % 97} {n // 2}? And more" for n, _ in enumerate(chats)]
        return ["As an AI, no." if "thing" not in chat[-1].content else "Yes, it is so." for chat in chats]


class FakeRecogniser:
    """Always hears the same."""

    def transcribe(self, audio, rate):
        return "what is two plus two"


class FakeTeacher:
    sample_rate = 24_000

    def speak(self, text, *, speed=1.0, seed=0):
        if "mute" in text:
            raise DataError("nothing to say")
        units = [ord(letter) % 60 for letter in text]
        audio = np.full(300 * len(units), seed % 7 / 10, np.float32)
        return SimpleNamespace(audio_N=audio, units=units, prosody_UP=np.ones((len(units), 3), np.float32))


def write_source(path: Path, count: int = 14) -> SourceConfig:
    rows = [{"question": f"What is {n} + {n}?", "answer": f"It is {2 * n}."} for n in range(count)]
    rows.insert(3, {"question": "what is two plus 2", "answer": "Four again."})
    rows.insert(5, {"question": "Who?", "answer": "Nobody."})
    rows.insert(7, {"question": "Are you sorry?", "answer": "I'm sorry, I cannot help."})
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return SourceConfig(path=str(path), name="sums", licence="CC0")


@pytest.fixture
def recipe(tmp_path) -> SynthesisConfig:
    return SynthesisConfig(
        name="try",
        sources=(write_source(tmp_path / "sums.jsonl"),),
        shard_rows=4,
        voices=(TONES,),
        answers="given",
        steps=("instructions", "rewrite", "dedupe", "answers"),
        dev=0.2,
        test=0.2,
    )


def everything(folder: Path) -> dict[str, bytes]:
    """Every file that a run leaves, but for its notes on steps that are cleared."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def quiet(recipe: SynthesisConfig, out: Path, **options):
    return synthesise(recipe, out, progress=False, **options)


def test_all_six_steps_give_whole_turns_and_a_card(recipe, tmp_path):
    recipe = dataclasses.replace(recipe, steps=SynthesisConfig.__dataclass_fields__["steps"].default, max_wer=0.3)
    recipe = dataclasses.replace(recipe, sources=(write_source(tmp_path / "few.jsonl", 4),))
    tools = Tools(recipe, recogniser=FakeRecogniser(), teacher=FakeTeacher())
    seen = []
    summary = synthesise(recipe, tmp_path / "out", tools=tools, progress=lambda *step: seen.append(step))
    rows = list(read_rows(tmp_path / "out"))
    assert summary.turns == len(rows) == 1
    assert summary.dropped["recognise"] == {"not understood by the recogniser": 3}
    assert summary.dropped["dedupe"] == {"question already there": 1}
    assert summary.dropped["answers"] == {"answer excuses itself or points elsewhere": 1}
    row = next(row for row in rows if row.question == "What is 2 + 2?")
    assert "two plus two" in row.question_spoken.lower() and row.answer == "It is four."
    assert row.wer < 0.3 and row.transcript == "what is two plus two"
    assert len(decode_flac(row.question_audio, 16_000)) / 16_000 == pytest.approx(row.question_seconds)
    assert len(row.units) == len(row.answer) and row.prosody().shape == (len(row.units), 3)
    assert row.answer_seconds == pytest.approx(len(row.units) * 300 / 24_000)
    assert row.question_speaker == "tones" and row.answer_speaker == "teacher"
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| sums | CC0 |" in card and "| tones | CC0 |" in card and "question already there" in card
    assert seen[-1][0] == "units" and seen[-1][1] == seen[-1][2]


def test_a_run_is_the_same_again_and_another_with_another_seed(recipe, tmp_path):
    quiet(recipe, tmp_path / "a")
    quiet(recipe, tmp_path / "b")
    quiet(dataclasses.replace(recipe, seed=1), tmp_path / "c")
    assert everything(tmp_path / "a") == everything(tmp_path / "b")
    assert [row.seed for row in read_rows(tmp_path / "a")] != [row.seed for row in read_rows(tmp_path / "c")]


def test_a_killed_run_goes_on_to_the_same_bytes(recipe, tmp_path, monkeypatch):
    recipe = dataclasses.replace(
        recipe, steps=(*recipe.steps, "speech"), sources=(write_source(tmp_path / "f.jsonl", 5),)
    )
    quiet(recipe, tmp_path / "whole")
    real, real_whole = synthesis.run_task, synthesis._write_notes
    total = 0
    for stop in range(1, 40):
        countdown = [stop]

        def killed(call, left=countdown):
            def until(*arguments):
                left[0] -= 1
                if left[0] <= 0:
                    raise KeyboardInterrupt
                return call(*arguments)

            return until

        monkeypatch.setattr(synthesis, "run_task", killed(real))
        monkeypatch.setattr(synthesis, "_write_notes", killed(real_whole))
        try:
            quiet(recipe, tmp_path / "killed")
            break
        except KeyboardInterrupt:
            total += 1
    assert total > 3
    assert everything(tmp_path / "killed") == everything(tmp_path / "whole")


def test_a_finished_run_does_nothing_but_its_card(recipe, tmp_path, monkeypatch):
    quiet(recipe, tmp_path / "a")
    before = everything(tmp_path / "a")
    monkeypatch.setattr(synthesis, "run_task", lambda *_: pytest.fail("a finished shard was made again"))
    (tmp_path / "a" / "README.md").unlink()
    quiet(recipe, tmp_path / "a")
    assert everything(tmp_path / "a") == before


def test_several_processes_give_the_same_bytes(recipe, tmp_path):
    recipe = dataclasses.replace(
        recipe, steps=(*recipe.steps, "speech"), sources=(write_source(tmp_path / "f.jsonl", 4),)
    )
    quiet(recipe, tmp_path / "one")
    quiet(dataclasses.replace(recipe, workers=2), tmp_path / "two")
    assert everything(tmp_path / "one") == everything(tmp_path / "two")


def die(rows, tools):
    """A step that takes its process with it."""
    os._exit(3)


def test_a_process_that_dies_ends_the_run_with_one_line(recipe, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))
    recipe = dataclasses.replace(recipe, steps=("instructions", "test_synthesis:die"), workers=2)
    with pytest.raises(DataError, match="worker process died"):
        quiet(recipe, tmp_path / "a")


def test_another_recipe_does_not_mix_in(recipe, tmp_path):
    quiet(recipe, tmp_path / "a")
    with pytest.raises(DataError, match=r"another recipe .*seed"):
        quiet(dataclasses.replace(recipe, seed=5), tmp_path / "a")
    quiet(dataclasses.replace(recipe, workers=3), tmp_path / "a")  # changes nothing of the result


def test_the_text_model_writes_what_is_missing(recipe, tmp_path):
    recipe = dataclasses.replace(recipe, sources=(), sampled=70, answers="given_or_model")
    model = FakeTextModel()
    summary = quiet(recipe, tmp_path / "a", text_model=model)
    rows = list(read_rows(tmp_path / "a"))
    assert rows and all(row.question.endswith("?") and row.answer == "Yes, it is so." for row in rows)
    assert summary.dropped["dedupe"]["question already there"] >= 30  # the fake writes each question twice
    assert len({row.question.split(" thing")[0] for row in rows}) > 3  # several openings
    assert {row.split for row in rows} == {"train", "dev", "test"}
    with pytest.raises(DataError, match="needs a text model"):
        quiet(recipe, tmp_path / "b")


def test_the_text_model_may_reword_questions(recipe, tmp_path):
    class Rewording(FakeTextModel):
        def complete(self, chats, **_):
            return ["So what would 1 and 1 be?" if "1 + 1" in chat[-1].content else "" for chat in chats]

    recipe = dataclasses.replace(recipe, steps=("instructions", "rewrite_model"))
    quiet(recipe, tmp_path / "a", text_model=Rewording())
    said = {row.question: row.question_spoken for row in read_rows(tmp_path / "a")}
    assert "what would one and one be?" in said["What is 1 + 1?"]
    assert "two plus two" in said["What is 2 + 2?"].lower()


def test_held_out_questions_stay_held_out(recipe, tmp_path):
    test_source = SourceConfig(path=recipe.sources[0].path, name="exam", licence="CC0", split="test")
    quiet(dataclasses.replace(recipe, sources=(*recipe.sources, test_source)), tmp_path / "a")
    assert {row.split for row in read_rows(tmp_path / "a")} == {"test"}


def test_held_out_voices_ask_only_where_they_may(recipe, tmp_path):
    voices = (
        dataclasses.replace(TONES, splits=("train",)),
        dataclasses.replace(TONES, name="unseen", splits=("dev", "test")),
    )
    recipe = dataclasses.replace(recipe, voices=voices, steps=(*recipe.steps, "speech"))
    quiet(recipe, tmp_path / "a")
    rows = list(read_rows(tmp_path / "a"))
    assert {(row.split == "train", row.question_speaker) for row in rows} == {(True, "tones"), (False, "unseen")}


def test_held_out_questions_may_be_augmented_otherwise(recipe, tmp_path):
    training = AugmentConfig(noise_chance=1.0, noises=("hiss",))
    other = AugmentConfig(noise_chance=1.0, noises=("crowd",))
    recipe = dataclasses.replace(recipe, augment=training, augment_held_out=other, clean=0.0)
    quiet(dataclasses.replace(recipe, steps=(*recipe.steps, "speech")), tmp_path / "a")
    found = {(row.split == "train", json.loads(row.augmentation)["noise"]) for row in read_rows(tmp_path / "a")}
    assert found == {(True, "hiss"), (False, "crowd")}


def test_askers_of_the_same_split_talk_in_the_background(recipe):
    noisy = AugmentConfig(noise_chance=1.0, noises=("crowd",), noise_db=(0.0, 0.0))
    recipe = dataclasses.replace(recipe, augment=noisy, clean=0.0)

    def last(*rows: tuple[str, str]) -> bytes:
        turns = [Turn(id=text, split=split, question=text, seed=3) for split, text in rows]
        return find_step("speech").run(turns, Tools(recipe)).rows[-1].question_audio

    alone = last(("train", "Who is it?"))
    assert last(("dev", "Aaaa"), ("train", "Who is it?")) == alone
    among = [last(("train", other), ("train", "Who is it?")) for other in ("Aaaa", "Zzzz", "Aaaa")]
    assert among[0] == among[2] != among[1] and alone not in among


def test_a_voice_that_is_not_installed_ends_the_run(recipe, tmp_path):
    missing = dataclasses.replace(TONES, command="no-such-voice {out}")
    recipe = dataclasses.replace(recipe, voices=(missing,), steps=(*recipe.steps, "speech"))
    with pytest.raises(ConfigError, match="no-such-voice"):
        quiet(recipe, tmp_path / "a")


def test_a_run_that_loses_everything_says_why(recipe, tmp_path):
    recipe = dataclasses.replace(recipe, steps=("instructions", "tests_own_steps:drop_all"))
    sys.modules["tests_own_steps"] = SimpleNamespace(  # type: ignore[assignment]
        drop_all=lambda rows, tools: Result(
            [], dropped=Result().dropped + type(Result().dropped)({"on purpose": len(rows)})
        )
    )
    try:
        with pytest.raises(DataError, match=r"nothing is left .*on purpose"):
            quiet(recipe, tmp_path / "a")
    finally:
        del sys.modules["tests_own_steps"]


def test_steps_are_found_by_name():
    assert isinstance(find_step("rewrite"), Step)
    assert find_step("duologue.data.steps.texts:rewrite").run is find_step("rewrite").run
    with pytest.raises(ConfigError, match="unknown; there are: instructions"):
        find_step("rewriting")
    with pytest.raises(ConfigError, match="cannot be imported"):
        find_step("no.such:thing")


def test_a_recipe_survives_json_and_settings(recipe):
    assert from_dict(SynthesisConfig, to_dict(recipe)) == recipe
    assert override(recipe, ["augment.noise_chance=0", "sampled=5"]).augment == AugmentConfig(noise_chance=0.0)
    with pytest.raises(ConfigError, match="need sources"):
        SynthesisConfig(name="x")
    with pytest.raises(ConfigError, match="below 1"):
        SynthesisConfig(name="x", sampled=1, dev=0.5, test=0.5)


def test_prompts_of_ones_own_go_before_the_packaged(recipe, tmp_path):
    folder = tmp_path / "prompts"
    folder.mkdir()
    (folder / "refused.txt").write_text("# a remark\n\\b1\\d\\b\n")
    recipe = dataclasses.replace(recipe, prompts=str(folder), answers="given")
    quiet(recipe, tmp_path / "a")
    answers = [row.answer for row in read_rows(tmp_path / "a")]
    assert "It is eight." in answers and "It is twenty." in answers
    assert not {"It is ten.", "It is fourteen."} & set(answers)
    assert any(answer.startswith("I'm sorry") for answer in answers)
    with pytest.raises(DataError, match="no such folder"):
        quiet(dataclasses.replace(recipe, prompts=str(tmp_path / "none")), tmp_path / "b")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("1. One\n2. Two\n3. Three", "answer is a list"),
        ("As an AI language model I know it.", "answer excuses itself or points elsewhere"),
        ("", "answer empty or too long"),
        ("word " * 100, "answer empty or too long"),
        ("it is so and " * 8, "answer repeats itself"),
    ],
)
def test_answers_that_cannot_be_spoken_are_dropped(recipe, answer, reason):
    rows = [Turn(id="x", question="What is it?", answer=answer)]
    assert dict(find_step("answers").run(rows, Tools(recipe)).dropped) == {reason: 1}


def test_long_answers_lose_their_last_sentences(recipe):
    sentence = " ".join(f"word{chr(97 + n)}" for n in range(20)).capitalize() + "."
    other = sentence.replace("ord", "ire")
    rows = [Turn(id="x", question="What is it?", answer=f"{sentence} {other} {sentence}")]
    assert find_step("answers").run(rows, Tools(recipe)).rows[0].answer == f"{sentence} {other}"


def test_seeds_of_items_are_their_own():
    assert seed_of(0, "a", "b") == seed_of(0, "a", "b") != seed_of(0, "a", "c")
    assert seed_of(0, "ab") != seed_of(0, "a", "b")
    assert 0 <= seed_of(2**62, "x") < 2**63


def test_sources_of_the_usual_shapes_are_read(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    def read(path: Path, **options):
        return list(read_source(SourceConfig(path=str(path), name="s", licence="-", **options)))

    rows = [
        {"instruction": "Add these.", "input": "1 and 2", "output": "Three."},
        {"messages": [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Hello."}]},
        {"question": "Capital of Spain?", "answers": ["Madrid"]},
        {"prompt": "Say nothing"},
        {"text": "He owns a vineyard."},
    ]
    expected = [
        ("Add these. 1 and 2", "Three."),
        ("Hi?", "Hello."),
        ("Capital of Spain?", "Madrid"),
        ("Say nothing", ""),
        ("He owns a vineyard.", ""),
    ]
    lines = tmp_path / "a.jsonl"
    lines.write_text("\n\n".join(json.dumps(row) for row in rows))
    assert read(lines) == expected
    assert read(lines, limit=2) == expected[:2]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    assert read(tmp_path / "a.json") == expected
    pq.write_table(pa.Table.from_pylist([rows[0]]), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") == expected[:1]
    lines.write_text('{"question": "fine"}\n{broken')
    with pytest.raises(DataError, match="line 2"):
        read(lines)
    lines.write_text('{"title": "no"}')
    with pytest.raises(DataError, match="none of the keys"):
        read(lines)
    with pytest.raises(DataError, match="no such source"):
        read(tmp_path / "none.jsonl")


def test_wordnet_gives_what_common_words_mean(tmp_path):
    lines = [
        '00 03 n 01 dog 0 000 | a tame animal that barks (usually); "he has a dog"  \n',
        "05 03 n 01 axolotl 0 000 | a rare animal of lakes  \n",
    ]
    (tmp_path / "data.noun").write_text("".join(lines))
    (tmp_path / "index.noun").write_text(
        f"  1 remarks\ndog n 1 0 1 1 00000000  \naxolotl n 1 0 1 0 {len(lines[0]):08d}  \n"
    )
    (tmp_path / "cntlist.rev").write_text("dog%1:05:00:: 1 42\ndog%2:38:00:: 1 2\n")
    source = SourceConfig(path=str(tmp_path), name="wordnet", licence="WordNet", kind="wordnet")
    assert list(read_source(source)) == [("What does the word dog mean?", "It means a tame animal that barks.")]

    examples = dataclasses.replace(source, kind="wordnet-examples")
    with pytest.raises(DataError, match=r"data\.verb.*apt-get install wordnet-base"):
        list(read_source(examples))
    for name in ("verb", "adj", "adv"):
        (tmp_path / f"data.{name}").write_text('00 29 v 01 x 0 000 | to y; "it\'s 5 o\'clock"; "Did they `bark\'?"  \n')
    assert sorted(read_source(examples)) == [("Did they 'bark'?", ""), ("He has a dog.", "")]
