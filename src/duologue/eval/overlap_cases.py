"""What is said over an answer, for tests: signs of listening, noises, and requests, each as it reaches a microphone.

The half "test" is spoken by voices and people that training never used; "dev" by others, and with other requests.
Nothing may be chosen by the test half.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from duologue.data.audio_augment import active_rms, room
from duologue.data.recordings import Recording, Sound
from duologue.data.speakers import Speaker, Voice, default_voices, make_speaker, system_voices
from duologue.errors import DataError
from duologue.eval import body_sounds, sounds
from duologue.eval.judges import resample
from duologue.eval.testsets import shoebox
from duologue.eval.voices import reserved_speakers

Array = np.ndarray
Kind = Literal["sign", "noise", "echo", "request"]
Split = Literal["dev", "test"]
RATE = 16_000  # Hz
LONGEST = 3.0  # seconds of a noise
ECHO_DB = (-6.0, -10.0, -14.0, -20.0)

HUMS = ("mm-hm", "hmm", "mm")
SIGNS: dict[Split, tuple[str, ...]] = {
    "dev": (
        "uh-huh", "yeah", "okay", "right", "I see", "oh wow", "mm-hm", "oh", "sure", "really", "hmm", "yes", "got it",
        "oh okay", "great", "all right", "ah", "that's right", "cool", "yeah, yeah", "of course", "mm", "oh really",
    ),
    "test": (
        "uh-huh", "yeah", "okay", "right", "I see", "oh wow", "mm-hm", "oh yeah", "exactly", "yep", "hmm", "oh really",
        "aha", "nice", "that's true", "absolutely", "wow", "sure", "good", "mm", "interesting", "okay, okay", "huh",
        "makes sense", "no kidding", "that's great", "oh nice", "indeed", "fair enough", "yes",
    ),
}  # fmt: skip
URGENT = ("stop", "wait", "no", "hold on", "stop it", "hang on", "wait a minute", "no, no", "hey", "be quiet")
REQUESTS: dict[Split, tuple[str, ...]] = {
    "dev": (
        "No, I meant the other one.", "What about London?", "How far away is it?", "Can you say that again?",
        "Stop talking, please.", "Actually, tell me about the sun.", "That's not what I asked.", "What time is it?",
        "Wait, who was that?", "Skip this part.", "Yes, but what does it cost?", "Who told you that?",
        "Okay, stop now.", "Tell me something else.", "I have another question.", "Could you speak louder?",
        "Sorry, what was the name?", "Is it still there today?", "Let me ask you something.", "Never mind.",
    ),
    "test": (
        "No, I meant Sunday.", "What about the winter?", "Where is that?", "Please say it once more.",
        "That's enough, thank you.", "Actually, I wanted the recipe for bread.", "You misunderstood me.",
        "How old is she?", "Hang on, how many was that?", "Skip to the end, please.", "Yeah, but is it safe?",
        "Why do they do that?", "Right, and what happened next?", "Can we talk about music instead?",
        "I need to ask about something else.", "A little slower, please.", "Sorry, I didn't get that.",
        "Does it hurt?", "Excuse me, one question.", "Forget it.", "What's the capital of Norway?",
        "Set a timer for ten minutes.", "Okay, but who built it?", "Turn it down a bit.", "Give me a shorter answer.",
        "Which one is the biggest?", "Is that the same as a comet?", "I already know that.", "When was it discovered?",
        "Oh, that reminds me, what day is it today?", "Please stop now.", "Repeat the last sentence.",
        "How do you spell that?", "That is wrong.", "Pause for a second.", "Wait, what did you say?",
        "Hold on a second, I have a question.", "What was the first thing?", "Tell me a joke instead.",
        "Who invented the telephone?",
    ),
}  # fmt: skip
PEOPLE = ("drascula", "asterisk")  # sources of the recordings of the half "test"
RECORDED_SIGNS = (
    "uh huh", "yeah", "okay", "oh yeah", "yes", "exactly", "of course", "you're right", "absolutely", "wow",
    "very good", "that's right", "good idea", "oh", "really", "huh", "ah", "good", "oh i see", "ah yes", "indeed",
    "no kidding", "great", "oh yes", "is that so", "all right", "yes sure", "ahh yes",
)  # fmt: skip
RECORDED_REQUESTS: dict[Split, tuple[str, ...]] = {  # as they stand in data.recordings
    "dev": (
        "Hang on!", "What?", "What are you doing here?", "How may I help you?", "Why did you do that?",
        "No.", "Why's that?", "What do you want to know?", "What's inside the temple?", "How's your rash?", "Why?",
    ),
    "test": (
        "Why?", "No", "What?", "Hey.", "Why not?", "Hello?", "Hey, what's up man?", "How is the family?",
        "How is the game going?", "I have to talk to him.", "What's your name, my skeleton friend?",
        "Tell me something about pelayo", "Come on!", "Get out!", "Ok, wait a minute", "What do you want now?",
        "Is that clear?", "Do not disturb.", "no", "Please try again.", "One moment, please.",
        "Change to which folder?", "press 0 to reach an operator", "Goodbye!", "pause",
    ),
}  # fmt: skip
ANSWERS = (
    "The moon has no air and no weather, so the footprints that people left there will stay for millions of years. It "
    "goes around the earth in about twenty seven days, and the same side always faces us.",
    "To make bread you need flour, water, salt and yeast. Mix them and knead the dough for ten minutes. Let it rest in "
    "a warm place until it is twice as big, and then bake it in a hot oven.",
    "Bees live in large groups, with one queen and many workers. The workers fly from flower to flower and carry the "
    "pollen home. In summer a hive can hold fifty thousand of them.",
    "The first trains were slow and loud, and many people were afraid of them. Soon they carried coal, letters and "
    "travellers from town to town, and every country began to build its own lines.",
    "Rivers begin as small streams high in the mountains. They grow as other streams join them, they cut valleys into "
    "the rock, and in the end they bring sand and mud down to the sea.",
    "A piano has eighty eight keys, and behind each key there is a small hammer. When you press a key, the hammer hits "
    "a string, and the string begins to move and makes the sound that you hear.",
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """Something that happens while an answer is spoken."""

    kind: Kind
    text: str  # what is said, or which noise it is
    voice: str
    audio: Array  # 16 kHz, from its onset on; at the level that the microphone hears
    answer: str  # what the model is saying
    start: float  # seconds of the answer before the onset
    echo_db: float | None  # of the answer in the microphone, relative to the answer; None: it is not heard there
    room: Array  # what a pulse of the loudspeaker is in the microphone, of unit energy
    delay: float  # seconds until a client's sound comes back
    floor_db: float  # of the microphone's noise, full scale
    block: float  # seconds of audio that the client sends at once
    seed: int


def onset(audio: Array, *, below: float = 30.0) -> int:
    """The sample at which a clean clip begins to be heard: its first 10 ms within `below` decibels of its loudest."""
    frame = RATE // 100
    power = np.square(audio[: len(audio) // frame * frame]).reshape(-1, frame).mean(1)
    loud = power >= power.max() * 10 ** (-below / 10)
    return int(np.argmax(loud)) * frame


def dev_speakers() -> list[Speaker]:
    """Voices that training uses, or watches itself by."""
    wanted = ("pico-us", "flite-rms", "flite-awb", "espeak-en-us", "festival-kal_diphone")
    own = [voice for voice in default_voices() if voice.voice != "gb"]
    return [make_speaker(voice) for voice in (*own, *(v for v in system_voices() if v.name in wanted))]


def test_speakers() -> list[Speaker]:
    """Those that the tests keep, and the British ones of two more synthesisers, which training leaves out too."""
    british = [voice for voice in default_voices() if voice.voice == "gb"]
    espeak = [Voice(kind="espeak", name=f"espeak-{name}", voice=name) for name in ("en-gb", "en-gb-x-rp+f2")]
    return [*reserved_speakers(), *(make_speaker(voice) for voice in (*british, *espeak))]


def cases(
    split: Split,
    *,
    speakers: Sequence[Speaker],
    recorded: Iterable[Recording] = (),
    noises: Sequence[Sound] = (),
    count: int = 200,
    seed: int = 0,
) -> list[Case]:
    """Half of them requests; the other half signs of listening, half of it, noises, and a tenth of it echo alone.

    Args:
        recorded: of which those are taken whose words are in the lists above.
        noises: without words; up to half of the noises, evenly drawn.
    Raises:
        DataError: a voice cannot speak here.
    """
    if split not in SIGNS:
        raise DataError(f"overlaps: no split {split!r}; there are {', '.join(SIGNS)}")
    people = list(recorded)
    half, quarter, echoes = count // 2, count // 4, count // 20
    made: list[tuple[Kind, str, str, Array]] = [
        *(("sign", *each) for each in _signs(split, speakers, people, quarter, seed)),
        *(("noise", *each) for each in _noises(noises, half - quarter - echoes, seed)),
        *(("echo", "", "", np.zeros(2 * RATE, np.float32)) for _ in range(echoes)),
        *(("request", *each) for each in _requests(split, speakers, people, count - half, seed)),
    ]
    rooms = shoebox if split == "test" else _training_room
    return [_placed(index, *each, rooms=rooms, seed=seed) for index, each in enumerate(made)]


def _training_room(rng: np.random.Generator) -> Array:
    return room(float(rng.uniform(0.1, 0.5)), float(rng.uniform(-2, 10)), rng)


def _placed(
    index: int,
    kind: Kind,
    text: str,
    voice: str,
    audio: Array,
    *,
    rooms: Callable[[np.random.Generator], Array],
    seed: int,
) -> Case:
    rng = np.random.default_rng([seed, 7, index])
    response = rooms(rng)
    level = rng.uniform(-45, -18) if kind == "noise" else rng.uniform(-34, -18)
    loud = active_rms(audio)
    if loud > 0:
        audio = audio[onset(audio) :] * (10 ** (level / 20) / loud)
    echo = ECHO_DB[index % len(ECHO_DB)] if kind == "echo" or rng.random() < 0.4 else None
    return Case(
        kind=kind,
        text=text,
        voice=voice,
        audio=np.clip(audio, -1, 1).astype(np.float32),
        answer=ANSWERS[index % len(ANSWERS)],
        start=float(rng.uniform(1.2, 4.0)),
        echo_db=echo,
        room=(response / np.sqrt(np.sum(response**2))).astype(np.float32),
        delay=float(rng.uniform(0.06, 0.4)),
        floor_db=float(rng.uniform(-75, -52)),
        block=float(rng.choice([0.02, 0.04, 0.06, 0.08])),
        seed=int(rng.integers(2**31)),
    )


def _signs(
    split: Split, speakers: Sequence[Speaker], people: Sequence[Recording], count: int, seed: int
) -> list[tuple[str, str, Array]]:
    found = [each for each in people if _plain(each.text) in RECORDED_SIGNS]
    real = _spread(found, count // 3, seed)
    rest, texts = count - len(real), SIGNS[split]
    return [*real, *(_say(speakers[i % len(speakers)], texts[i % len(texts)], i, seed) for i in range(rest))]


def _requests(
    split: Split, speakers: Sequence[Speaker], people: Sequence[Recording], count: int, seed: int
) -> list[tuple[str, str, Array]]:
    wanted = {text: number for number, text in enumerate(RECORDED_REQUESTS[split])}
    by_text = {each.text: each for each in people if each.text in wanted}
    real = _spread(list(by_text.values()), count // 4, seed)
    urgent = round(0.3 * count)
    texts = [URGENT[i % len(URGENT)] for i in range(urgent)]
    texts += [REQUESTS[split][i % len(REQUESTS[split])] for i in range(count - len(real) - urgent)]
    return [*real, *(_say(speakers[i % len(speakers)], text, i, seed) for i, text in enumerate(texts))]


def _noises(recorded: Sequence[Sound], count: int, seed: int) -> list[tuple[str, str, Array]]:
    num_real = min(len(recorded), count // 2)
    by_source: dict[str, list[Sound]] = {}
    for each in recorded:
        by_source.setdefault(each.source, []).append(each)
    queues = [iter(group[:: max(1, len(group) // 8)]) for group in by_source.values()]
    found: list[tuple[str, str, Array]] = []
    while len(found) < num_real and queues:
        queues = [queue for queue in queues if _take(queue, found)]
    made: list[tuple[str, Callable[[np.random.Generator], Array]]] = [
        ("cough", body_sounds.cough),
        ("laugh", body_sounds.laugh),
    ]
    kinds = [kind for kind in sounds.KINDS if kind not in ("silence", "dither")]
    found = found[:num_real]
    for number in range(count - len(found)):
        rng = np.random.default_rng([seed, 11, number])
        if number % 3 < 2 and number < count // 3:
            name, make = made[number % 3]
            found.append((name, "made", make(rng)))
        else:
            kind = kinds[number % len(kinds)]
            found.append((kind, "made", sounds.clip(kind, seed=seed, index=number).audio))
    return [(name, source, audio[: round(LONGEST * RATE)]) for name, source, audio in found]


def _take(queue: object, found: list[tuple[str, str, Array]]) -> bool:
    each = next(queue, None)  # type: ignore[call-overload]
    if each is not None:
        audio = resample(each.audio, each.sample_rate, RATE)
        if len(audio) > RATE // 20 and np.abs(audio).max() > 0:
            found.append((each.kind, f"{each.source}/{each.name}", audio))
    return each is not None


def _spread(people: Sequence[Recording], count: int, seed: int) -> list[tuple[str, str, Array]]:
    """So many of them, spread over speakers and words."""
    order = np.random.default_rng([seed, 3]).permutation(len(people))
    ranked: list[tuple[int, int, Recording]] = []
    seen: dict[str, int] = {}
    for place, index in enumerate(order):
        each = people[int(index)]
        times = max(seen.get(each.speaker, 0), seen.get(_plain(each.text), 0))
        ranked.append((times, place, each))
        for key in (each.speaker, _plain(each.text)):
            seen[key] = seen.get(key, 0) + 1
    chosen = [each for *_, each in sorted(ranked, key=lambda row: row[:2])[:count]]
    return [(each.text, each.speaker, resample(each.audio, each.sample_rate, RATE)) for each in chosen]


def _say(speaker: Speaker, text: str, number: int, seed: int) -> tuple[str, str, Array]:
    if text in HUMS and not speaker.name.startswith(("hibari", "pico")):  # others spell it
        rng = np.random.default_rng([seed, 13, number])
        return text, "hum", body_sounds.hum(rng, syllables=2 if text == "mm-hm" else 1)
    return text, speaker.name, resample(speaker.speak(text, 1000 * seed + number), speaker.sample_rate, RATE)


def _plain(text: str) -> str:
    return " ".join(re.findall(r"[a-z']+", text.lower()))


def quiet(case: Case) -> Case:
    """The same without the echo."""
    return replace(case, echo_db=None)
