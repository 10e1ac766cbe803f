"""The steps that make and check sound: speech for both sides, a recogniser's hearing, units and their prosody."""

from __future__ import annotations

from collections import deque

import numpy as np
import soxr

from duologue.data.audio_augment import RATE, Array, Augmentation, apply, change_voice, draw
from duologue.data.manifest import ANSWER_RATE, QUESTION_RATE, Turn, decode_flac, encode_flac
from duologue.data.recognisers import word_error_rate
from duologue.data.speakers import choose_voice
from duologue.data.steps.base import Result, Tools, seed_of
from duologue.errors import DataError

BACKGROUND = 16  # voices at most that may be heard behind a question


def speech(rows: list[Turn], tools: Tools) -> Result:
    """Step 4: a voice drawn for the question, augmented; the answer in its own voice where the recipe names one.

    Who talks in the background of a question are the askers before it in its shard, of its own split.
    """
    result, heard = Result(), dict[str, deque[Array]]()
    for row in rows:
        try:
            _ask(row, tools, heard.setdefault(row.split, deque(maxlen=BACKGROUND)))
            if tools.config.answer_voice:
                _tell(row, tools)
        except DataError:  # a synthesiser that is not there is a ConfigError and ends the run
            result.drop("the synthesiser failed")
        else:
            result.rows.append(row)
    return result


def _ask(row: Turn, tools: Tools, others: deque[Array]) -> None:
    """The question's audio; `others` are clean questions at 16 kHz, to which it is added."""
    config = tools.config
    rng = np.random.default_rng(seed_of(row.seed, "speech"))
    voice = choose_voice(config.voices, row.split, rng)
    speaker = tools.speaker(voice)
    clean = speaker.speak(row.question_spoken or row.question, seed_of(row.seed, "voice"))
    held_out = config.augment_held_out if row.split != "train" else None
    plan = draw(held_out or config.augment, rng, voices=bool(others))
    if rng.random() < config.clean:
        plan = Augmentation(seed=plan.seed, lead=plan.lead, tail=plan.tail)
    audio = apply(clean, plan, rate=speaker.sample_rate, voices=others)
    others.append(change_voice(clean, rate=speaker.sample_rate))
    row.question_speaker, row.augmentation = voice.name, plan.to_json()
    row.question_audio, row.question_seconds = encode_flac(audio, QUESTION_RATE), len(audio) / RATE


def _tell(row: Turn, tools: Tools) -> None:
    voice = tools.config.answer_voice
    if voice is None:
        return
    speaker = tools.speaker(voice)
    audio = speaker.speak(row.answer, seed_of(row.seed, "answer-voice"))
    if speaker.sample_rate != ANSWER_RATE:
        audio = soxr.resample(audio, speaker.sample_rate, ANSWER_RATE)
    row.answer_audio, row.answer_seconds = encode_flac(audio, ANSWER_RATE), len(audio) / ANSWER_RATE
    row.answer_speaker = voice.name


def recognise(rows: list[Turn], tools: Tools) -> Result:
    """Step 5: a recogniser listens to the question; what it cannot understand is dropped."""
    result = Result()
    for row in rows:
        row.transcript = tools.recogniser.transcribe(decode_flac(row.question_audio, QUESTION_RATE), QUESTION_RATE)
        row.wer = float(np.float32(word_error_rate(row.question_spoken or row.question, row.transcript)))
        if row.wer > tools.config.max_wer:
            result.drop("not understood by the recogniser")
        else:
            result.rows.append(row)
    return result


def units(rows: list[Turn], tools: Tools) -> Result:
    """Step 6: the teacher says the answer and tells its units and their prosody."""
    result, config, teacher = Result(), tools.config, tools.teacher
    for row in rows:
        try:
            spoken = teacher.speak(row.answer, seed=seed_of(row.seed, "units") % 2**31)
        except DataError:
            result.drop("nothing to say")
            continue
        row.units = [int(unit) for unit in spoken.units]
        row.unit_prosody = [float(value) for value in np.asarray(spoken.prosody_UP, np.float32).reshape(-1)]
        if config.answer_voice is None:
            row.answer_seconds = len(spoken.audio_N) / teacher.sample_rate
            row.answer_speaker = "teacher"
            row.answer_audio = encode_flac(spoken.audio_N, ANSWER_RATE) if config.answer_audio else b""
        result.rows.append(row)
    return result
