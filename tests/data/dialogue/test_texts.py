"""What is said: given dialogues as they are, questions and answers once each, and clear errors for bad files."""

from __future__ import annotations

import dataclasses
import json

import pytest
from fake_speakers import recipe

from duologue.data.dialogue import DialogueSource
from duologue.data.dialogue.texts import ASSISTANT, USER, Line, Phrases, Texts, read_dialogues
from duologue.data.manifest import Turn, write_shard
from duologue.data.prompts import Prompts
from duologue.errors import ConfigError, DataError


def dialogues(path, *rows) -> DialogueSource:
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return DialogueSource(path=str(path), name=path.stem, licence="CC0")


def pairs(path, count=9) -> DialogueSource:
    names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
    rows = [{"question": f"What comes after {names[n]}?", "answer": f"It is {names[n + 1]}."} for n in range(count)]
    path.write_text("\n".join(map(json.dumps, rows)))
    return DialogueSource(path=str(path), name=path.stem, licence="CC0", kind="pairs")


CHAT = {"messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "I owe $5."}]}
SHARED = {
    "conversations": [
        {"from": "human", "value": "Hi."},
        {"from": "gpt", "value": "Hello,"},
        {"from": "gpt", "value": "you."},
    ]
}
PLAIN = {"turns": [["assistant", "Hello."], ["user", "Bye."]]}


def test_the_usual_shapes_of_dialogues_are_read(tmp_path):
    source = dialogues(tmp_path / "talks.jsonl", CHAT, "", SHARED, PLAIN)
    scripts = Texts(recipe([source])).scripts()
    assert [script.lines for script in scripts] == [
        (Line(USER, "I owe five dollars."),),
        (Line(USER, "Hi."), Line(ASSISTANT, "Hello, you.")),
        (Line(ASSISTANT, "Hello."), Line(USER, "Bye.")),
    ]
    assert [script.id for script in scripts] == ["talks-000000", "talks-000001", "talks-000002"]


def test_a_dialogue_that_is_there_already_or_says_nothing_is_left_out(tmp_path):
    again = {"turns": [["assistant", "hello!"], ["user", "bye"]]}
    texts = Texts(recipe([dialogues(tmp_path / "talks.jsonl", PLAIN, again, {"turns": [["user", "..."]]})]))
    assert len(texts.scripts()) == 1
    assert texts.dropped == {"dialogue already there": 1, "dialogue without words": 1}


def test_given_dialogues_are_taken_again_under_another_name_when_more_are_wanted(tmp_path):
    source = dialogues(tmp_path / "talks.jsonl", SHARED, PLAIN)
    scripts = Texts(recipe([source], conversations=5)).scripts()
    assert len({script.id for script in scripts}) == 5
    assert [script.lines for script in scripts[2:4]] == [script.lines for script in scripts[:2]]


@pytest.mark.parametrize("wanted", [0, 3, 20])
def test_every_question_is_asked_once_before_any_is_asked_again(tmp_path, wanted):
    plain = {"greeting_chance": 0.0, "closing_chance": 0.0, "follow_up_chance": 0.0, "exchanges": (1, 3)}
    scripts = Texts(recipe([pairs(tmp_path / "q.jsonl")], conversations=wanted, **plain)).scripts()
    answers = [line.text for script in scripts for line in script.lines if line.role == ASSISTANT]
    assert all(answers.count(answer) in (len(answers) // 9, -(-len(answers) // 9)) for answer in answers)
    assert len(scripts) == wanted or (not wanted and len(answers) == 9)


def test_given_dialogues_come_before_questions_and_count(tmp_path):
    sources = [dialogues(tmp_path / "talks.jsonl", SHARED, PLAIN), pairs(tmp_path / "q.jsonl")]
    ids = {n: [script.source for script in Texts(recipe(sources, conversations=n)).scripts()] for n in (1, 2, 4)}
    assert ids == {1: ["talks"], 2: ["talks"] * 2, 4: ["talks"] * 2 + ["q"] * 2}


def test_greetings_follow_ups_and_goodbyes_are_put_around_questions(tmp_path):
    every = {"greeting_chance": 1.0, "closing_chance": 1.0, "follow_up_chance": 1.0, "exchanges": (1, 1)}
    for script in Texts(recipe([pairs(tmp_path / "q.jsonl")], **every)).scripts():
        roles = [line.role for line in script.lines]
        assert roles[-6:] == [USER, ASSISTANT] * 3 and len(roles) in (7, 8)
        assert "{answer}" not in script.lines[-3].text


def test_a_question_keeps_to_one_split(tmp_path):
    scripts = Texts(recipe([pairs(tmp_path / "q.jsonl", 12)], conversations=40, dev=0.3, test=0.3)).scripts()
    answers = {
        split: {line.text for s in scripts if s.split == split for line in s.lines if line.text.startswith("It is")}
        for split in ("train", "dev", "test")
    }
    assert len(scripts) == 40 and all(answers.values())
    assert not answers["train"] & answers["dev"] and not answers["train"] & answers["test"]


def test_a_closed_set_is_asked_in_every_split(tmp_path):
    config = recipe([pairs(tmp_path / "q.jsonl", 12)], conversations=40, dev=0.3, test=0.2, closed=True)
    scripts = Texts(config).scripts()
    answers = {
        split: {line.text for s in scripts if s.split == split for line in s.lines if line.text.startswith("It is")}
        for split in ("train", "dev", "test")
    }
    assert len(answers["train"]) == 12 and answers["train"] == answers["dev"] == answers["test"]
    assert [sum(script.split == split for script in scripts) for split in ("train", "dev", "test")] == [20, 12, 8]


def statements(path, count=40) -> DialogueSource:
    path.write_text(
        "\n".join(json.dumps({"text": f"I saw number {chr(97 + n % 26)}{n // 26} there."}) for n in range(count))
    )
    return DialogueSource(path=str(path), name=path.stem, licence="CC0", kind="statements")


def test_users_tell_things_and_begin_questions_that_nobody_answers(tmp_path):
    sources = [pairs(tmp_path / "q.jsonl", 12), statements(tmp_path / "s.jsonl")]
    plain = dict(conversations=60, closed=True, dev=0.3, greeting_chance=0.0, closing_chance=0.0, follow_up_chance=0.0)
    config = recipe(sources, telling_chance=0.5, telling=(2, 3), beginning_chance=1.0, **plain)
    texts = Texts(config)
    scripts = texts.scripts()
    told = {split: set[str]() for split in ("train", "dev")}
    lengths = set()
    for script in scripts:
        before: list[str] = []
        for line in script.lines:
            if line.role == USER:
                before.append(line.text)
                continue
            *before, question = before
            sentences = [text for text in before if text.startswith("I saw")]
            beginning, *thoughts = before[len(sentences) :]
            assert sentences == before[: len(sentences)] and "what comes after" in question.lower()
            assert beginning in texts.phrases.beginnings and set(thoughts) <= set(texts.phrases.thoughts)
            lengths.add((len(sentences), len(thoughts)))
            told[script.split] |= set(sentences)
            before = []
        assert not before  # the last word is the assistant's
    assert lengths == {(told, thoughts) for told in (0, 2, 3) for thoughts in (0, 1)}
    assert told["train"] and told["dev"] and not told["train"] & told["dev"]


def test_a_statement_without_text_is_named(tmp_path):
    source = dataclasses.replace(pairs(tmp_path / "q.jsonl"), kind="statements")
    with pytest.raises(DataError, match=r"q\.jsonl: line 1: need .*text"):
        Texts(recipe([pairs(tmp_path / "p.jsonl"), source])).scripts()


def test_users_may_be_alone(tmp_path):
    recipes = [recipe([pairs(tmp_path / "q.jsonl", 12)], conversations=9, answered=each) for each in (True, False)]
    both, alone = (Texts(config).scripts() for config in recipes)
    for talk, asked in zip(both, alone, strict=True):
        assert asked.lines == tuple(line for line in talk.lines if line.role == USER) and asked.lines


def test_pairs_with_longer_answers_than_wanted_are_left_out(tmp_path):
    rows = [("Who are you?", "I am mini."), ("And why is that?", "Because I was made here.")]
    path = tmp_path / "q.jsonl"
    path.write_text("\n".join(json.dumps({"question": q, "answer": a}) for q, a in rows))
    source = DialogueSource(path=str(path), name="q", licence="CC0", kind="pairs", longest_answer=3)
    texts = Texts(recipe([source]))
    assert len(texts.scripts()) == 1 and texts.dropped == {"longer answer than wanted": 1}


def test_answers_that_cannot_be_said_are_left_out(tmp_path):
    rows = [("What day is it?", "It is {weekday}."), ("Who are you?", "word " * 60), ("And why is that?", "Because.")]
    path = tmp_path / "q.jsonl"
    path.write_text("\n".join(json.dumps({"question": q, "answer": a}) for q, a in [*rows, rows[-1]]))
    texts = Texts(recipe([DialogueSource(path=str(path), name="q", licence="CC0", kind="pairs")]))
    assert len(texts.scripts()) == 1
    assert sorted(texts.dropped.values()) == [1, 1, 1] and "answer with a placeholder" in texts.dropped


def test_data_that_synth_made_is_talked_about_in_its_own_split(tmp_path):
    rows = [Turn(id="1", split="dev", question="Why 2?", question_spoken="Um, why two?", answer="So it is.")]
    write_shard(tmp_path / "shards" / "shard-00000.parquet", rows)
    source = DialogueSource(path=str(tmp_path), name="made", licence="CC0", kind="synth")
    (script,) = Texts(recipe([source])).scripts()
    assert script.split == "dev" and any("why two?" in line.text.lower() for line in script.lines)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", "line 2 is not JSON"),
        ('{"text": "x"}', "line 2: no dialogue"),
        ('{"turns": "x"}', "line 2: no dialogue"),
        ('{"turns": [["dog", "wuff"]]}', "role .*got .*dog"),
        ('{"turns": [["user", 5]]}', "role .*got"),
        ('{"turns": ["hello"]}', "role .*got"),
    ],
)
def test_a_bad_line_is_named(tmp_path, row, message):
    source = dialogues(tmp_path / "talks.jsonl", PLAIN, row)
    with pytest.raises(DataError, match=message):
        Texts(recipe([source])).scripts()


def test_a_missing_file_and_an_empty_one_are_errors(tmp_path):
    with pytest.raises(DataError, match=r"no\.jsonl: cannot be read"):
        list(read_dialogues(tmp_path / "no.jsonl"))
    with pytest.raises(DataError, match="no text is left"):
        Texts(recipe([dialogues(tmp_path / "empty.jsonl")])).scripts()


def test_phrases_of_ones_own_are_read_and_checked(tmp_path):
    own = {name: [["Hi.", "Hello."]] for name in ("greetings", "follow_ups", "closings")}
    own |= {name: ["Mm."] for name in ("beginnings", "thoughts", "interruptions")}
    own |= {name: ["Mm."] for name in ("user_backchannels", "assistant_backchannels")}
    path = tmp_path / "dialogue.json"
    path.write_text(json.dumps(own))
    assert Phrases.read(Prompts(str(tmp_path))).greetings == (("Hi.", "Hello."),)
    for key, value in (("greetings", ["Hi."]), ("interruptions", []), ("user_backchannels", [["a", "b"]])):
        path.write_text(json.dumps(own | {key: value}))
        with pytest.raises(DataError, match=key):
            Phrases.read(Prompts(str(tmp_path)))
    path.write_text(json.dumps(own | {"more": []}))
    with pytest.raises(DataError, match="no other"):
        Phrases.read(Prompts(str(tmp_path)))


def test_a_recipe_is_checked():
    source = DialogueSource(path="x", name="x", licence="CC0")
    for change in (
        {"exchanges": (0, 2)},
        {"telling": (3, 2)},
        {"telling_chance": 0.1},
        {"dev": 1.0},
        {"follow_up_chance": 2.0},
        {"shard_rows": 0},
    ):
        with pytest.raises(ConfigError, match=next(iter(change))):
            recipe([source], **change)
    with pytest.raises(ConfigError, match="one of dialogues"):
        dataclasses.replace(source, kind="poems")
    with pytest.raises(ConfigError, match="at least one source"):
        recipe([])
