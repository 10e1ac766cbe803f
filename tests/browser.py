"""A real Chromium, without a window, whose microphone is a WAV file."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

RATE = 24_000
_OURS = Path(sys.prefix) / "clients" / "chromium"  # where `make test-clients` unpacks one, with libraries it may miss
_NAMES = (str(_OURS / "chromium"), "chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


@contextlib.contextmanager
def chromium(microphone: Path | None = None, *, allow: bool = True, switches: tuple[str, ...] = ()) -> Iterator[Any]:
    """A browser of playwright's.

    Args:
        microphone: what it hears, once, from when the page opens the microphone; None: a beep every second.
        allow: whether it lets pages hear without asking.
    """
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        pytest.fail("the page is tested in a browser: pip install playwright (no browser has to come with it)")
    path = next((found for name in _NAMES if (found := shutil.which(name))), None)
    if path is None:
        pytest.fail(f"the page is tested in a browser: run `make test-clients` (looked for {', '.join(_NAMES)})")
    libraries = [os.environ.get("LD_LIBRARY_PATH"), str(_OURS / "al2023" / "lib")]
    variables: dict[str, str | float | bool] = {**os.environ, "LD_LIBRARY_PATH": ":".join(filter(None, libraries))}
    flags = ["--use-fake-device-for-media-stream", "--autoplay-policy=no-user-gesture-required", *switches]
    flags += ["--use-fake-ui-for-media-stream"] if allow else []
    flags += [f"--use-file-for-fake-audio-capture={microphone}%noloop"] if microphone else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=flags, env=variables)
        try:
            yield browser
        finally:
            browser.close()


class Page:
    """The page, as somebody uses it who also reads the wire. An error in it fails the test at `check`."""

    def __init__(self, browser: Any, address: str, *, before: str = "", **context: Any):
        self.context = browser.new_context(viewport=context.pop("viewport", {"width": 900, "height": 760}), **context)
        self.page = self.context.new_page()
        self.errors: list[str] = []
        self.sent: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda line: self.errors.append(line.text) if _bad(line) else None)
        self.page.on("websocket", lambda line: line.on("framesent", lambda frame: self.sent.append(str(frame))))
        if before:
            self.page.add_init_script(before)
        self.page.goto(address if "://" in address else f"http://{address}/")

    def phase(self, name: str, *, within: float = 15.0) -> None:
        """Waits until the conversation stands so."""
        self.page.wait_for_selector(f"body[data-phase={name}]", timeout=within * 1000)

    def sees(self, text: str, *, within: float = 15.0) -> None:
        self.page.get_by_text(text).first.wait_for(timeout=within * 1000)

    def wait(self, seconds: float) -> None:
        self.page.wait_for_timeout(seconds * 1000)

    def kinds(self) -> list[str]:
        """What the page sent, without the audio."""
        found = [frame.split('"')[3] for frame in self.sent]
        return [kind for kind in found if kind != "input_audio_buffer.append"]

    def saved(self, button: str, path: Path) -> Path:
        """Saves the conversation as somebody does who clicks."""
        self.page.click("#open-save")
        with self.page.expect_download() as download:
            self.page.click(f"#{button}")
        download.value.save_as(path)
        self.page.keyboard.press("Escape")
        return path

    def heard(self, path: Path) -> tuple[np.ndarray, np.ndarray]:
        """The two sides of the saved sound: what was said, and what was played."""
        stereo, rate = soundfile.read(self.saved("save-sound", path), dtype="float32")
        assert rate == RATE
        return stereo[:, 0], stereo[:, 1]

    def check(self) -> None:
        assert not self.errors, self.errors


def _bad(line: Any) -> bool:
    return line.type == "error" and "Failed to load resource" not in line.text and "WebSocket" not in line.text


def wav(path: Path, *pieces: np.ndarray) -> Path:
    """What a microphone is to hear."""
    soundfile.write(path, np.concatenate(pieces), RATE, subtype="PCM_16")
    return path


def silence(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * RATE), np.float32)


def between(samples: np.ndarray, begin: float, end: float) -> np.ndarray:
    """A piece, by seconds."""
    return samples[round(begin * RATE) : round(end * RATE)]


def pure(samples: np.ndarray) -> bool:
    """Whether most of it is one tone and next to nothing else. Not its multiples, which a browser that turns a
    microphone up too far adds; nor a gap now and then, which one on a busy machine leaves."""
    size = RATE // 5
    pieces = [samples[at : at + size] for at in range(0, len(samples) - size, size)]
    return bool(np.median([_share_of_tone(piece) for piece in pieces]) > 0.98)


def _share_of_tone(samples: np.ndarray) -> float:
    """Of the power: the strongest tone and its multiples."""
    power = np.abs(np.fft.rfft(samples * np.hanning(len(samples)))) ** 2
    peak = int(power.argmax())
    width = round(40 * len(samples) / RATE)  # 40 Hz
    place = np.arange(len(power)) + peak // 2
    own = (place >= peak) & (np.abs(place % peak - peak // 2) <= width)
    return float(power[own].sum() / power.sum())


def pitch(samples: np.ndarray) -> float:
    """Hz of the strongest tone."""
    return float(np.abs(np.fft.rfft(samples * np.hanning(len(samples)))).argmax() * RATE / len(samples))


def sounding(samples: np.ndarray, *, level: float = 0.02, apart: float = 0.1) -> list[tuple[float, float]]:
    """Where there is sound, as seconds (from, to); gaps shorter than `apart` seconds belong to it."""
    (places,) = np.nonzero(np.abs(samples) > level)
    if not len(places):
        return []
    cuts = np.nonzero(np.diff(places) > apart * RATE)[0]
    begins, ends = np.r_[places[0], places[cuts + 1]], np.r_[places[cuts], places[-1]]
    return [(begin / RATE, end / RATE) for begin, end in zip(begins, ends, strict=True)]
