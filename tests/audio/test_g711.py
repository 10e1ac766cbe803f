"""G.711 against its tables and against libsndfile."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile

from duologue.audio.g711 import decode_alaw, decode_mulaw, encode_alaw, encode_mulaw

LAWS = {"ULAW": (encode_mulaw, decode_mulaw), "ALAW": (encode_alaw, decode_alaw)}
CODES = bytes(range(256))


@pytest.mark.parametrize(
    ("decode", "code", "value"),
    [
        (decode_mulaw, 0x80, 8_031 * 4),  # table 2a of the recommendation counts to 8,159
        (decode_mulaw, 0x8F, 4_191 * 4),
        (decode_mulaw, 0xFE, 2 * 4),
        (decode_mulaw, 0xFF, 0),
        (decode_mulaw, 0x7F, 0),
        (decode_mulaw, 0x00, -8_031 * 4),
        (decode_alaw, 0xAA, 4_032 * 8),  # table 1a counts to 4,096
        (decode_alaw, 0xD5, 1 * 8),
        (decode_alaw, 0x55, -1 * 8),
        (decode_alaw, 0x2A, -4_032 * 8),
    ],
)
def test_codes_mean_what_the_tables_say(decode, code, value):
    assert (decode(bytes([code])) * 32_768).tolist() == [value]


@pytest.mark.parametrize("law", LAWS)
def test_every_code_and_every_sample_is_as_libsndfile_has_it(law):
    encode, decode = LAWS[law]
    file = io.BytesIO(CODES)
    values, _ = soundfile.read(file, dtype="int16", format="RAW", subtype=law, samplerate=8_000, channels=1)
    assert np.array_equal(decode(CODES) * 32_768, values)
    samples, file = np.arange(-32_768, 32_768).astype(np.int16), io.BytesIO()
    soundfile.write(file, samples, 8_000, format="RAW", subtype=law)
    assert encode(samples / 32_768) == file.getvalue()


@pytest.mark.parametrize("law", LAWS)
def test_every_code_comes_back(law):
    encode, decode = LAWS[law]
    back = encode(decode(CODES))
    assert [code for code in range(256) if back[code] != code] == ([0x7F] if law == "ULAW" else [])  # minus zero


@pytest.mark.parametrize("law", LAWS)
def test_what_is_too_loud_is_clipped(law):
    encode, _ = LAWS[law]
    assert encode(np.array([9.0, -9.0, 1.0, -1.0])) == encode(np.array([0.999, -0.999] * 2))


@pytest.mark.parametrize("law", LAWS)
def test_nothing_is_nothing(law):
    encode, decode = LAWS[law]
    assert encode(np.zeros(0, np.float32)) == b"" and decode(b"").shape == (0,) and decode(b"a").dtype == np.float32
