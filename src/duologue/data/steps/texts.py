"""The steps that make text: questions, how they are said, no question twice, answers in spoken style."""

from __future__ import annotations

import re

import numpy as np

from duologue.codecs.text import Message
from duologue.data.manifest import Turn
from duologue.data.spoken_text import key_of, plain, sentences, speakable, tidy, with_fillers
from duologue.data.steps.base import Place, Result, Step, SynthesisConfig, Tools, seed_of
from duologue.data.steps.sources import read_source

SAMPLED = "sampled"  # the source of questions that the text model wrote
TOGETHER = 64  # questions sampled in one call: they share their opening


def planned_rows(config: SynthesisConfig) -> list[Turn]:
    """Every row to be: those of the sources with their texts, then those to be sampled, still without."""
    rows = []
    for source in config.sources:
        for number, (question, answer) in enumerate(read_source(source)):
            rows.append(
                Turn(
                    id=f"{source.name}-{number:06d}",
                    source=source.name,
                    question=tidy(plain(question)),
                    answer=answer,
                    split=source.split or split_of(question, config),
                )
            )
    rows += [Turn(id=f"{SAMPLED}-{number:06d}", source=SAMPLED) for number in range(config.sampled)]
    for row in rows:
        row.seed = seed_of(config.seed, row.id)
    return rows


def split_of(question: str, config: SynthesisConfig) -> str:
    """The same question is in the same split, whatever its source and punctuation."""
    draw = seed_of(config.seed, "split", key_of(question)) / 2**63
    return "test" if draw < config.test else "dev" if draw < config.test + config.dev else "train"


def instructions(rows: list[Turn], tools: Tools) -> Result:
    """Step 1: has the text model write the questions that are still empty; drops what cannot be asked."""
    config, result = tools.config, Result()
    low, high = tools.prompts.rules["question_words"]
    empty = [row for row in rows if row.source == SAMPLED and not row.question]
    for start in range(0, len(empty), TOGETHER):
        _sample(empty[start : start + TOGETHER], tools)
    for row in rows:
        words = len(row.question.split())
        if not low <= words <= high:
            result.drop("question too short or too long")
        elif not re.search("[A-Za-z]{2}", row.question) or re.search(r"[<>{}|\\\[\]]|\n", row.question):
            result.drop("question that cannot be said")
        else:
            if row.source == SAMPLED:
                row.split = split_of(row.question, config)
            result.rows.append(row)
    return result


def _sample(rows: list[Turn], tools: Tools) -> None:
    config = tools.config
    rng = np.random.default_rng(seed_of(config.seed, "sample", rows[0].id))
    openings, topics = tools.prompts.lines("openings.txt"), tools.prompts.lines("topics.txt")
    template, opening = tools.prompts.text("sample_turn.txt"), openings[int(rng.integers(len(openings)))]
    places = np.concatenate([rng.permutation(len(topics)) for _ in range(len(rows) // len(topics) + 1)])
    chats = []
    for place in places[: len(rows)]:
        chats.append([Message("user", template.format(topic=topics[int(place)], opening=opening))])
    texts = tools.text_model.complete(
        chats,
        max_tokens=config.sample_tokens,
        temperature=config.sample_temperature,
        seed=seed_of(config.seed, "sample-model", rows[0].id) % 2**31,
        opening=opening,
    )
    for row, text in zip(rows, texts, strict=True):
        question = _first_question(text)
        row.question = question if len(question.split()) >= len(opening.split()) + 2 else ""


def _first_question(text: str) -> str:
    """The first sentence of what a model wrote, without quotes; nothing if it did not come to an end."""
    first = next(iter(text.strip().splitlines()), "").strip().strip("\"'* ")
    said = sentences(tidy(plain(first)))
    return said[0].strip("\"' ") if said and said[0].endswith(("?", ".", "!")) else ""


def rewrite(rows: list[Turn], tools: Tools) -> Result:
    """Step 2: how the question is said, by rule: numbers and symbols in words, fillers here and there."""
    rules, fillers = tools.prompts.rules, tools.prompts.lines("fillers.txt")
    for row in rows:
        row.question_spoken = with_fillers(
            tools.spoken.spell_out(row.question_spoken or row.question),
            np.random.default_rng(seed_of(row.seed, "rewrite")),
            fillers=fillers,
            chance=rules["filler_chance"],
            endings=rules["endings"],
            ending_chance=rules["ending_chance"],
        )
    return Result(rows)


def rewrite_model(rows: list[Turn], tools: Tools) -> Result:
    """Step 2 with the text model: it puts the question as one would say it; the rules finish and guard it."""
    template, (low, high) = tools.prompts.text("rewrite.txt"), tools.prompts.rules["question_words"]
    chats = [[Message("user", template.format(question=row.question))] for row in rows]
    texts = tools.text_model.complete(chats, max_tokens=64, seed=0) if chats else []
    for row, text in zip(rows, texts, strict=True):
        said = speakable(text, most_sentences=2, spell=tools.spoken.spell_out)
        if low <= len(said.split()) <= high and row.question.rstrip().endswith("?") == said.endswith("?"):
            row.question_spoken = said
    return rewrite(rows, tools)


def dedupe(rows: list[Turn], tools: Tools) -> Result:
    """No question twice, by its words alone; of two, the held-out one stays, then the first."""
    result, seen = Result(), set()
    keys = [key_of(row.question) for row in rows]
    kept = set()
    for split in ("test", "dev", "train"):
        for place, (row, key) in enumerate(zip(rows, keys, strict=True)):
            if row.split == split and key not in seen:
                seen.add(key)
                kept.add(place)
    for place, row in enumerate(rows):
        if place in kept:
            result.rows.append(row)
        else:
            result.drop("question already there")
    return result


def answers(rows: list[Turn], tools: Tools) -> Result:
    """Step 3: answers in spoken style, given or by the text model; drops what is no answer."""
    config, result = tools.config, Result()
    if config.answers == "model":
        for row in rows:
            row.answer = ""
    asked = [row for row in rows if not row.answer.strip()] if config.answers != "given" else []
    if asked:
        system = Message("system", tools.prompts.text("answer.txt"))
        texts = tools.text_model.complete(
            [[system, Message("user", row.question)] for row in asked],
            max_tokens=config.answer_tokens,
            temperature=config.answer_temperature,
            seed=seed_of(config.seed, "answers", asked[0].id) % 2**31,
        )
        for row, text in zip(asked, texts, strict=True):
            row.answer = text
    refused = [re.compile(pattern, re.I) for pattern in tools.prompts.lines("refused.txt")]
    for row in rows:
        reason = _settle(row, tools, refused)
        if reason:
            result.drop(reason)
        else:
            result.rows.append(row)
    return result


def _settle(row: Turn, tools: Tools, refused: list[re.Pattern[str]]) -> str:
    """Puts the answer in spoken style, or says why it is dropped."""
    rules = tools.prompts.rules
    low, high = rules["answer_words"]
    if len(re.findall(r"^\s*(?:[-*•]|\d{1,2}[.)])\s", row.answer, re.M)) > 1:
        return "answer is a list"
    if any(pattern.search(row.answer) for pattern in refused):
        return "answer excuses itself or points elsewhere"
    spell = tools.spoken.spell_out if tools.config.spell_answers else plain
    text = speakable(row.answer, most_sentences=rules["answer_sentences"], spell=spell)
    while len(text.split()) > high and len(sentences(text)) > 1:
        text = " ".join(sentences(text)[:-1])
    words = text.lower().split()
    if not low <= len(words) <= high:
        return "answer empty or too long"
    if len(words) >= 12 and len({tuple(words[i : i + 3]) for i in range(len(words) - 2)}) < 0.6 * (len(words) - 2):
        return "answer repeats itself"
    row.answer = text
    return ""


STEPS = {
    "instructions": Step(instructions, Place.HERE),
    "rewrite": Step(rewrite),
    "rewrite_model": Step(rewrite_model, Place.HERE),
    "dedupe": Step(dedupe, Place.WHOLE),
    "answers": Step(answers, Place.HERE),
}
