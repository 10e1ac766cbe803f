"""What a codec keeps of speech: `duologue eval mimi --model FOLDER`.

Speech goes through the codec and back, and so it does through Opus at 6 kbit/s and through a codec of the same shape
that has learnt nothing. A recogniser and a model of listeners judge each, and the speech as it was. The first codebook
is asked which phones it tells apart (`abx`). Voices are those that no training heard.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, Protocol

import numpy as np
import soundfile
import torch
from torch import Tensor

from duologue.checkpoints.codecs import load_codec
from duologue.data.speakers import HibariSpeaker, Voice
from duologue.errors import ShapeError
from duologue.eval import abx, testsets
from duologue.eval.bench_mimi import own_stream
from duologue.eval.context import Context
from duologue.eval.judges import resample
from duologue.eval.metrics import Edits, Interval, bootstrap, error_rate, mean, percentile
from duologue.eval.opus_codec import through_opus
from duologue.eval.tasks import Outcome, Row, Task, judged
from duologue.eval.testsets import Clip

Array = np.ndarray
OPUS_RATE = 6_000  # bits a second that Opus is asked for
KEPT = 3  # clips whose sound is kept in the report's folder, through every system
SYSTEMS = ("original", "codec", "opus", "untrained")
SENTENCES, FEWEST = 120, 40  # of the phone test, each by every voice; fewer than the second hold few pairs of triphones
FRAMES = 100  # that are timed

# No training hears hibari-tts with British phonemes (`voices.is_reserved`); one pitch and throat make one person.
PEOPLE = tuple(
    Voice(kind="hibari", name=f"abx-{name}", voice="gb", pitch=(pitch, pitch), formant=(formant, formant))
    for name, pitch, formant in (("woman", 1.0, 1.0), ("man", 0.58, 0.87), ("child", 1.25, 1.12))
)
STRESS, PAUSES = "ˈˌː", ';:,.!?—…"()“” '


class Codec(Protocol):
    """What is needed of `codecs.mimi.Mimi`."""

    config: Any
    quantizer: Any
    encoder: Any
    decoder: Any

    def init_state(self, slots: int) -> Any: ...
    def encode(self, audio_BN: Tensor, state: Any, live_B: Tensor, *, num_codebooks: int | None = None) -> Tensor: ...
    def decode(self, codes_BKT: Tensor, state: Any, live_B: Tensor) -> Tensor: ...


def encoded(codec: Codec, audio_N: Array, rate: int) -> Tensor:
    """Codes [1, K, T] of a whole recording; its end is filled up with silence."""
    frame, audio_N = codec.config.frame_samples, resample(audio_N, rate, codec.config.sample_rate)
    audio_1N = torch.from_numpy(np.pad(audio_N, (0, -len(audio_N) % frame)))[None]
    with torch.inference_mode():
        return codec.encode(audio_1N, codec.init_state(1).encoder, torch.ones(1, dtype=torch.bool))


def through(codec: Codec, audio_N: Array, rate: int) -> tuple[Array, int]:
    """A recording as it comes out of the codec, and its rate."""
    codes_1KT = encoded(codec, audio_N, rate)
    with torch.inference_mode():
        heard_1N = codec.decode(codes_1KT, codec.init_state(1).decoder, torch.ones(1, dtype=torch.bool))
    return heard_1N[0].clamp(-1, 1).numpy(), codec.config.sample_rate


def bit_rate(codec: Codec) -> float:
    """Bits a second, each code in whole bits."""
    c = codec.config
    return c.num_codebooks * math.ceil(math.log2(c.quantizer.codebook_size)) * c.frame_rate


def untrained(codec: Codec, speech: Sequence[tuple[Array, int]]) -> Codec:
    """A codec of the same shape with random weights, its codebooks begun by k-means on the speech."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        other: Any = type(codec)(codec.config).eval()  # type: ignore[call-arg, attr-defined]
        frame = codec.config.frame_samples
        joined_N = np.concatenate([resample(audio, rate, codec.config.sample_rate) for audio, rate in speech])
        audio_1N = torch.from_numpy(joined_N[: len(joined_N) // frame * frame])[None]
        x_1TD = other.encoder(audio_1N, other.init_state(1).encoder, torch.ones(1, dtype=torch.bool))
        other.quantizer.begin(x_1TD, codec.config.num_codebooks, step=x_1TD.shape[1])
    return other


def resynthesis(context: Context) -> Outcome:
    """Made speech by held-out voices, at full length and undisturbed."""
    return _resynthesised(context, context.clean(100), "")


def resynthesis_real(context: Context) -> Outcome:
    """Recordings of people."""
    clips = testsets.real(context.real_speech(), cache=context.cache)
    return _resynthesised(context, clips[:: max(1, len(clips) // 200)][: context.count(200)], "_real")


def _resynthesised(context: Context, clips: Sequence[Clip], suffix: str) -> Outcome:
    codec = load_codec(context.name)
    random = untrained(codec, [(clip.audio(), testsets.RATE) for clip in clips[:12]])
    bits: list[float] = []
    systems: dict[str, Callable[[Array, int], tuple[Array, int]]] = {
        "original": lambda audio, rate: (audio, rate),
        "codec": lambda audio, rate: through(codec, audio, rate),
        "opus": lambda audio, rate: _opus(audio, rate, bits),
        "untrained": lambda audio, rate: through(random, audio, rate),
    }
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in systems}
    for number, clip in enumerate(context.each(clips)):
        for name, system in systems.items():
            audio, rate = system(clip.audio(), testsets.RATE)
            found[name].append({"voice": clip.voice, **judged(context, clip.text, audio, rate)})
            if number < KEPT:
                _keep(context, f"{number}{suffix}-{name}", audio, rate)
    values = {f"bits_opus{suffix}": bootstrap(bits, mean)}
    for name, rows in found.items():
        values[f"wer_{name}{suffix}"] = bootstrap([Edits(**row["words"]) for row in rows], error_rate)
        values[f"dnsmos_{name}{suffix}"] = bootstrap([row["dnsmos"] for row in rows], mean)
    bits_a_second = bit_rate(codec)
    values[f"bits_codec{suffix}"] = Interval(bits_a_second, bits_a_second, bits_a_second)
    return Outcome(values=values, count=len(clips), details={"rows": found, "by_voice": _by_voice(found)})


def _opus(audio: Array, rate: int, bits: list[float]) -> tuple[Array, int]:
    heard, used = through_opus(audio, rate, bit_rate=OPUS_RATE)
    bits.append(used)
    return heard, 24_000


def _keep(context: Context, name: str, audio: Array, rate: int) -> None:
    folder = context.out / "sounds"
    folder.mkdir(parents=True, exist_ok=True)
    soundfile.write(folder / f"{name}.flac", np.clip(audio, -1, 1), rate, subtype="PCM_16")


def _by_voice(found: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, float]]:
    """The codec's errors beside the judge's on the speech as it was."""
    groups: dict[str, list[tuple[Edits, Edits]]] = {}
    for row, as_it_was in zip(found["codec"], found["original"], strict=True):
        groups.setdefault(row["voice"], []).append((Edits(**row["words"]), Edits(**as_it_was["words"])))
    return {
        voice: {
            "wer": error_rate([one for one, _ in pairs]),
            "judge_wer": error_rate([other for _, other in pairs]),
            "clips": len(pairs),
        }
        for voice, pairs in sorted(groups.items())
    }


def phones(context: Context) -> Outcome:
    """Which phones the first codebook tells apart, beside a codec that learnt nothing and a spectrum a frame."""
    codec = load_codec(context.name)
    said = list(_utterances(context))
    random = untrained(codec, [(audio, rate) for audio, rate, _, _ in said[:12]])
    rate = codec.config.frame_rate
    systems: dict[str, Callable[[Array, int], Array]] = {
        "codec": lambda audio, at: first_codes(codec, audio, at),
        "untrained": lambda audio, at: first_codes(random, audio, at),
        "spectrum": lambda audio, at: spectra(audio, at, rate),
    }
    values, rates = {}, {}
    for name, system in systems.items():
        tokens = [
            token
            for audio, at, symbols, voice in said
            for run in symbols
            for token in abx.tokens(run, system(audio, at), rate=rate, voice=voice)
        ]
        for kind in ("within", "across"):
            found = abx.error_rates(tokens, across=kind == "across")
            values[f"abx_{kind}_{name}"] = bootstrap(found, mean)
            rates[f"{kind} {name}"] = {"pairs": len(found), "tokens": len(tokens)}
    return Outcome(values=values, count=len(said), details=rates)


Run = list[tuple[str, float, float]]  # phones without a pause between them: symbol, start and end in seconds


def _utterances(context: Context) -> Any:
    """Audio, rate, runs of phones and voice of each utterance."""
    rows = testsets.read_lines(context.data / "heldout_questions.jsonl", "question")
    questions = [str(row["question"]) for row in rows[: FEWEST if context.quick else SENTENCES]]
    speakers = [HibariSpeaker(person) for person in PEOPLE]
    for number, question in enumerate(context.each(questions)):
        for speaker in speakers:
            audio, symbols = speaker.speak_symbols(question, number)
            yield audio, speaker.sample_rate, phone_runs(symbols), speaker.name


def phone_runs(symbols: Sequence[tuple[str, float, float]]) -> list[Run]:
    """Phones without the marks between them: stress belongs to the phone behind it, a pause ends a run, a space does
    not where it takes no time."""
    runs: list[Run] = [[]]
    stressed: float | None = None
    for symbol, start, end in symbols:
        if symbol in STRESS:
            stressed = start if stressed is None else stressed
        elif symbol in PAUSES:
            if symbol != " " or end - start > 0.05:
                runs.append([])
        else:
            runs[-1].append((symbol, start if stressed is None else stressed, end))
            stressed = None
    return [run for run in runs if run]


def first_codes(codec: Codec, audio: Array, rate: int) -> Array:
    """The vector that the first codebook gives to each frame, [T, D]."""
    with torch.inference_mode():
        return codec.quantizer.decode(encoded(codec, audio, rate)[:, :1])[0].numpy()


def spectra(audio: Array, rate: int, frame_rate: float, *, bands: int = 40) -> Array:
    """Log energies in bands of equal width on the mel scale, one vector a frame, without their mean: [T, bands]."""
    audio = resample(audio, rate, 16_000)
    frame = round(16_000 / frame_rate)
    frames = np.pad(audio, (0, -len(audio) % frame)).reshape(-1, frame)
    power = np.abs(np.fft.rfft(frames * np.hanning(frame), axis=1)) ** 2
    mel = 2595 * np.log10(1 + np.fft.rfftfreq(frame, 1 / 16_000) / 700)
    band = np.minimum((mel / mel[-1] * bands).astype(int), bands - 1)
    sums = np.stack([power[:, band == index].sum(1) for index in range(bands)], axis=1)
    logs = np.log(sums + 1e-6)
    return logs - logs.mean(0)


def speed(context: Context) -> Outcome:
    """A frame at a time on one core, as in a conversation."""
    codec = load_codec(context.name)
    if not hasattr(codec, "pack"):
        raise ShapeError("eval mimi: need a codec that can be packed for a CPU")
    codec.pack()
    threads, frame = torch.get_num_threads(), codec.config.frame_samples
    times = []
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            stream = own_stream(codec, 1)
            for _ in context.each(range(context.count(FRAMES) + 5)):
                begin = time.perf_counter()
                stream.decode(stream.encode(0.1 * torch.randn(1, frame)))
                times.append(1000 * (time.perf_counter() - begin))
    finally:
        torch.set_num_threads(threads)
    size = sum(p.numel() for p in load_codec(context.name).parameters()) / 1e6
    values = {
        "frame_ms": bootstrap(times[5:], lambda items: percentile(items, 50)),
        "parameters": Interval(size, size, size),
    }
    return Outcome(values=values, count=len(times) - 5, details={"rows": [asdict(v) for v in values.values()]})


NAMES = {
    "original": "as it was",
    "codec": "this codec",
    "opus": "Opus at 6 kbit/s",
    "untrained": "the same shape, untrained",
    "spectrum": "40 bands of a spectrum a frame",
}


def _rows(suffix: str, what: str) -> tuple[Row, ...]:
    rows = [
        Row(key=f"wer_{name}{suffix}", title=f"WER of the judge, {what}: {NAMES[name]}", unit="%") for name in SYSTEMS
    ]
    rows += [Row(key=f"dnsmos_{name}{suffix}", title=f"DNSMOS, {what}: {NAMES[name]}", higher=True) for name in SYSTEMS]
    rows += [
        Row(key=f"bits_{name}{suffix}", title=f"bits a second, {what}: {NAMES[name]}", unit="bit/s")
        for name in ("codec", "opus")
    ]
    return tuple(rows)


_ABX = tuple(
    Row(key=f"abx_{kind}_{name}", title=f"ABX error {kind} voices: first codebook, {NAMES[name]}", unit="%")
    for kind in ("within", "across")
    for name in ("codec", "untrained", "spectrum")
)

CODEC: tuple[Task, ...] = (
    Task(name="resynthesis", rows=_rows("", "made speech"), run=resynthesis),
    Task(name="resynthesis_real", rows=_rows("_real", "real people"), run=resynthesis_real),
    Task(name="phones", rows=_ABX, run=phones),
    Task(
        name="codec_speed",
        rows=(
            Row(key="frame_ms", title="80 ms coded and decoded on one core", unit="ms", must=80, aim=27),
            Row(key="parameters", title="million parameters"),
        ),
        run=speed,
    ),
)
