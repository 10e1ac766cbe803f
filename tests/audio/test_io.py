"""Audio files: what is read, what is refused with one clear line, and a WAV that is valid at every moment."""

from __future__ import annotations

import resource
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from fakes import tone

from duologue.audio import io
from duologue.errors import AudioError


def write(path, samples, rate=16_000, **kwargs):
    soundfile.write(path, samples, rate, **kwargs)
    return path


@pytest.mark.parametrize(
    ("name", "rate", "channels", "subtype"),
    [
        ("a.wav", 8_000, 1, "PCM_16"),
        ("a.wav", 96_000, 2, "PCM_24"),
        ("a.wav", 44_100, 6, "FLOAT"),
        ("a.wav", 16_000, 1, "ULAW"),
        ("a.flac", 48_000, 2, None),
        ("a.ogg", 22_050, 1, None),
        ("a.mp3", 44_100, 2, None),
        ("a.aiff", 11_025, 1, None),
    ],
)
def test_any_format_rate_and_channels_become_16_khz_mono(tmp_path, name, rate, channels, subtype):
    samples = np.repeat(tone(1.0, rate=rate)[:, None], channels, axis=1)
    path = write(tmp_path / name, samples, rate, subtype=subtype)
    got = io.load(path, 16_000)
    assert got.dtype == np.float32 and got.ndim == 1
    assert abs(len(got) - 16_000) <= (1_600 if name.endswith("mp3") else 2)  # mp3 pads its ends
    spectrum = np.abs(np.fft.rfft(got[4_000:12_000] * np.hanning(8_000)))
    assert np.argmax(spectrum) * 2 == pytest.approx(300, abs=2)  # Hz: the tone has kept its pitch
    assert np.abs(got[4_000:12_000]).max() == pytest.approx(0.3, abs=0.03)


def test_blocks_give_the_whole_of_a_long_file(tmp_path):
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 200_000).astype(np.float32)
    path = write(tmp_path / "a.wav", samples, 16_000, subtype="FLOAT")
    blocks = list(io.read_blocks(path, 16_000))
    assert len(blocks) > 3
    np.testing.assert_array_equal(np.concatenate(blocks), samples)
    resampled = np.concatenate(list(io.read_blocks(path, 24_000)))
    assert len(resampled) == 300_000


def test_stereo_is_averaged(tmp_path):
    both = np.stack([np.full(8_000, 0.5), np.full(8_000, -0.1)], axis=1)
    np.testing.assert_allclose(io.load(write(tmp_path / "a.wav", both), 16_000), 0.2, atol=1e-3)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_numbers_are_refused_with_their_place(tmp_path, bad):
    samples = tone(5.0)
    samples[70_000] = bad
    path = write(tmp_path / "a.wav", samples, subtype="FLOAT")
    with pytest.raises(AudioError, match=r"1 samples are not numbers.*sample 70000, 4\.38 s in"):
        io.load(path, 16_000)


def test_integers_saved_as_floats_are_refused(tmp_path):
    path = write(tmp_path / "a.wav", tone(1.0) * 32_768, subtype="FLOAT")
    with pytest.raises(AudioError, match="divide by 32768"):
        io.load(path, 16_000)


def test_float_samples_a_little_too_loud_are_clipped(tmp_path):
    path = write(tmp_path / "a.wav", tone(1.0, level=1.7), subtype="FLOAT")
    assert np.abs(io.load(path, 16_000)).max() == 1.0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no such file"),
        (b"", r"empty \(0 bytes\)"),
        (b"Dear reader, this is a letter and not a recording.\n", "looks like a text file"),
        (b"\x00\x01\x02\x03" * 50, "not an audio file"),
    ],
)
def test_what_is_not_audio_is_named_for_what_it_is(tmp_path, content, message):
    path = tmp_path / "question.wav"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(AudioError, match=message) as raised:
        io.check_question(path)
    assert str(path) in str(raised.value) and "\n" not in str(raised.value)


def test_a_folder_and_a_file_without_samples_are_refused(tmp_path):
    with pytest.raises(AudioError, match="is a folder"):
        io.inspect(tmp_path)
    with pytest.raises(AudioError, match="no samples in it"):
        io.inspect(write(tmp_path / "a.wav", np.zeros(0)))


def test_an_unreadable_file_says_why(tmp_path, monkeypatch):
    path = write(tmp_path / "a.wav", tone(1.0))

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)  # the tests may run as root, whom nothing is refused
    with pytest.raises(AudioError, match=r"cannot be read \(Permission denied\)"):
        io.inspect(path)


def test_a_damaged_file_is_refused_in_the_middle(tmp_path):
    path = write(tmp_path / "a.flac", np.random.default_rng(0).uniform(-0.5, 0.5, 160_000), subtype="PCM_16")
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 2_000] = bytes(2_000)
    path.write_bytes(data)
    with pytest.raises(AudioError, match=r"damaged after \d"):
        io.load(path, 16_000)


@pytest.mark.parametrize(("seconds", "message"), [(0.19, "too short"), (600.5, "10.0 minutes long; the longest")])
def test_the_length_of_a_question_is_limited(tmp_path, seconds, message):
    path = write(tmp_path / "a.wav", np.zeros(round(seconds * 8_000)), 8_000)
    with pytest.raises(AudioError, match=message):
        io.check_question(path)


@pytest.mark.parametrize("seconds", [0.2, 600.0])
def test_the_shortest_and_the_longest_question_are_taken(tmp_path, seconds):
    assert io.check_question(write(tmp_path / "a.wav", np.zeros(round(seconds * 8_000)), 8_000)).seconds == seconds


def test_samples_from_a_program_become_mono():
    np.testing.assert_allclose(io.as_mono(np.array([[16_384, 0], [0, 0]], np.int16)), [0.25, 0.0])
    assert io.as_mono(np.zeros(10)).dtype == np.float32
    for bad in (np.zeros(0, np.float32), np.zeros((2, 3, 4)), np.zeros((1, 16_000)), np.array([1, 2]), [np.nan, 0.0]):
        with pytest.raises(AudioError):
            io.as_mono(bad)


def test_the_wav_is_whole_after_every_write(tmp_path):
    path = tmp_path / "answer.wav"
    samples = tone(1.0, rate=24_000)
    with io.WavWriter(path, 24_000) as writer:
        assert not path.exists()  # nothing is overwritten before there is something to put there
        for end in (1_000, 1_001, 24_000):
            writer.write(samples[writer.samples : end])
            got, rate = soundfile.read(path)
            assert rate == 24_000 and len(got) == end
            assert path.stat().st_size == 44 + 2 * end
            np.testing.assert_allclose(got, samples[:end], atol=1e-4)


def test_an_interrupted_answer_stays_and_a_failed_one_goes(tmp_path):
    for error, stays in ((KeyboardInterrupt, True), (ValueError, False)):
        path = tmp_path / "answer.wav"
        with pytest.raises(error), io.WavWriter(path, 24_000) as writer:
            writer.write(tone(0.5, rate=24_000))
            raise error
        assert path.exists() == stays
        if stays:
            assert soundfile.info(path).frames == 12_000


def test_a_full_disk_removes_the_file_and_says_so(tmp_path):
    path = tmp_path / "answer.wav"
    code = (
        "import numpy, sys; from duologue.audio.io import WavWriter; from duologue.errors import AudioError\n"
        "with WavWriter(sys.argv[1], 24000) as writer:\n"
        "    try:\n"
        "        for _ in range(100): writer.write(numpy.zeros(2000, numpy.float32))\n"
        "    except AudioError as error: print(error)\n"
    )

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))

    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, preexec_fn=limit)
    assert "cannot write the audio (File too large); the unfinished file was removed" in done.stdout, done.stderr
    assert not path.exists()


def test_a_device_without_space_is_reported_and_left_alone():
    with pytest.raises(AudioError, match="No space left on device"), io.WavWriter("/dev/full", 24_000) as writer:
        writer.write(np.zeros(100))
    with open("/dev/full", "rb"):
        pass


@pytest.mark.parametrize(("name", "message"), [("", "is a folder"), ("no/such/answer.wav", "there is no folder")])
def test_a_place_that_cannot_be_written_is_known_at_once(tmp_path, name, message):
    with pytest.raises(AudioError, match=message):
        io.WavWriter(tmp_path / name, 24_000)


def test_pcm16_goes_there_and_back():
    samples = np.array([0.0, 0.5, -0.5, 1.0, -1.0, 3.0], np.float32)
    np.testing.assert_allclose(io.decode_pcm16(io.encode_pcm16(samples)), samples.clip(-1, 1), atol=1e-4)
    with pytest.raises(AudioError, match="even number"):
        io.decode_pcm16(b"abc")
