"""Opus at a low rate, to compare codecs with: all of a recording at once, tuned for speech, in packets of 60 ms."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from duologue.errors import AudioError
from duologue.eval.judges import resample

RATE = 24_000  # Hz
PACKET = 0.06  # seconds: the longest, which leaves most bits for speech


def through_opus(audio_N: np.ndarray, rate: int, *, bit_rate: int) -> tuple[np.ndarray, float]:
    """A recording as it comes out of libopus, at 24 kHz and as long as it was, and the bits a second that were used.

    Raises:
        AudioError: this PyAV has no libopus, or it refuses the rate.
    """
    import av

    audio_N = resample(audio_N, rate, RATE)
    frame = round(RATE * PACKET)
    try:
        encoder = av.codec.CodecContext.create("libopus", "w")
        encoder.sample_rate, encoder.layout, encoder.format = RATE, "mono", "flt"  # type: ignore[attr-defined]
        encoder.bit_rate, encoder.time_base = bit_rate, Fraction(1, RATE)  # type: ignore[attr-defined]
        encoder.options = {"application": "voip", "frame_duration": "60", "vbr": "off"}
        encoder.open()
    except (av.FFmpegError, ValueError) as error:
        raise AudioError(f"libopus cannot code at {bit_rate} bit/s ({error}); update av") from error
    padded_N = np.pad(audio_N, (0, -len(audio_N) % frame + frame))  # the last packet brings out what is held back
    packets = []
    for begin in range(0, len(padded_N), frame):
        sound = av.AudioFrame.from_ndarray(padded_N[None, begin : begin + frame], "flt", "mono")
        sound.sample_rate, sound.pts = RATE, begin
        packets += encoder.encode(sound)  # type: ignore[attr-defined]
    packets += encoder.encode(None)  # type: ignore[attr-defined]
    heard_N = _decoded(packets, bytes(encoder.extradata or b""))
    bits = 8 * sum(packet.size for packet in packets)
    return heard_N[: len(audio_N)], bits / (len(packets) * PACKET)


def _decoded(packets: list, head: bytes) -> np.ndarray:  # type: ignore[type-arg]
    import av

    decoder = av.codec.CodecContext.create("libopus", "r")
    decoder.sample_rate, decoder.layout = RATE, "mono"  # type: ignore[attr-defined]
    decoder.extradata = head  # it says how much the encoder looks ahead, which the decoder leaves out
    parts = []
    for packet in packets:
        for sound in decoder.decode(av.Packet(bytes(packet))):  # type: ignore[attr-defined]
            samples = sound.to_ndarray().reshape(-1)
            samples = samples.astype(np.float32) / 32_768 if samples.dtype == np.int16 else samples
            parts.append(resample(samples, sound.sample_rate, RATE) if sound.sample_rate != RATE else samples)
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)
