"""Where the sounds without words come from. A source's files are dealt to training and testing by turns."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from duologue.data.recordings.clips import Sound, read
from duologue.data.recordings.fetch import debian
from duologue.data.recordings.speech import queen_archive

PIECE = 15.0  # seconds: music is cut into pieces of this length
_SUFFIXES = (".wav", ".ogg", ".oga", ".flac", ".g722")
_VOICE_ONLY = re.compile(r"[<(][A-Za-z]+[>)]\W*")  # "(sigh)", "<sneeze>"


@dataclass(frozen=True, kw_only=True)
class _Folder:
    """The sound files of one Debian package."""

    source: str
    package: str
    licence: str
    kind: str
    below: str  # folder inside the package
    leave: str = "$^"  # file names that are left out: they speak or sing

    def __call__(self, cache: Path) -> Iterator[tuple[str, Sound]]:
        root = debian(self.package, cache) / self.below
        files = sorted(path for path in root.rglob("*") if path.suffix in _SUFFIXES)
        kept = [path for path in files if not re.search(self.leave, path.name)]
        for number, path in enumerate(kept):
            yield from self._pieces(path, path.relative_to(root).as_posix(), "test" if number % 2 else "train")

    def _pieces(self, path: Path, name: str, split: str) -> Iterator[tuple[str, Sound]]:
        samples, rate = read(path)
        size = round(PIECE * rate)
        for start in range(0, len(samples), size):
            piece = samples[start : start + size]
            if start and len(piece) < size // 3:
                continue
            yield (
                split,
                Sound(
                    audio=piece,
                    sample_rate=rate,
                    source=self.source,
                    name=f"{name}@{start / rate:.0f}" if len(samples) > size else name,
                    licence=self.licence,
                    kind=self.kind,
                ),
            )


def _voices(cache: Path) -> Iterator[tuple[str, Sound]]:
    """What actors did without words: a sigh, a sneeze, a gulp. Only for training, as their words are."""
    archive = queen_archive(cache)
    for name, _, subtitle in archive.lines():
        if _VOICE_ONLY.fullmatch(subtitle):
            samples, rate = read(archive[name], name=name)
            yield (
                "train",
                Sound(
                    audio=samples,
                    sample_rate=rate,
                    source="voices",
                    name=name,
                    licence="Flight of the Amazon Queen licence",
                    kind="voice",
                ),
            )


def _effects(cache: Path) -> Iterator[tuple[str, Sound]]:
    """The sound effects of the same game, which it keeps as recordings of their own."""
    archive = queen_archive(cache)
    for number, name in enumerate(
        name for name in archive.names(".SB") if re.fullmatch(r"\d{1,3}[A-Z]?S{3,}\.SB", name)
    ):
        samples, rate = read(archive[name], name=name)
        sound = Sound(
            audio=samples,
            sample_rate=rate,
            source="queen-effects",
            name=name,
            licence="Flight of the Amazon Queen licence",
            kind="effect",
        )
        yield "test" if number % 2 else "train", sound


_FOLDERS = (
    _Folder(
        source="bucklespring",
        package="bucklespring-data",
        licence="GPL-2+",
        kind="keyboard",
        below="usr/share",
    ),
    _Folder(
        source="opsound",
        package="asterisk-moh-opsound-g722",
        licence="CC-BY-SA-3.0",
        kind="music",
        below="usr/share/asterisk",
    ),
    _Folder(
        source="lomiri",
        package="lomiri-sounds",
        licence="CC0-1.0, CC-BY-3.0, CC-BY-4.0, CC-BY-SA-3.0, as named in the package",
        kind="music",
        below="usr/share/sounds",
    ),
    _Folder(
        source="colobot",
        package="colobot-common-sounds",
        licence="GPL-3+",
        kind="effect",
        below="usr/share",
    ),
    _Folder(
        source="sonic-pi",
        package="sonic-pi-samples",
        licence="CC0-1.0",
        kind="effect",
        below="usr/share",
        leave=r"rand-stream|voxy|choir|ambi_haunted",
    ),
    _Folder(
        source="oxygen",
        package="oxygen-sounds",
        licence="LGPL-3+",
        kind="effect",
        below="usr/share/sounds",
    ),
    _Folder(
        source="freedesktop",
        package="sound-theme-freedesktop",
        licence="CC-BY-SA-3.0, GPL-2+, CC-BY-3.0, as named in the package",
        kind="effect",
        below="usr/share/sounds",
        leave=r"audio-channel",
    ),
    _Folder(
        source="sound-icons",
        package="sound-icons",
        licence="GPL-2+",
        kind="effect",
        below="usr/share/sounds",
    ),
)

NOISES: dict[str, Callable[[Path], Iterator[tuple[str, Sound]]]] = {
    **{folder.source: partial(_Folder.__call__, folder) for folder in _FOLDERS},
    "queen-effects": _effects,
    "voices": _voices,
}
