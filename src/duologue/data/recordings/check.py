"""Does what a recogniser hears agree with the text that a recording comes with? Finds wrong texts, makes the table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from duologue.data.recordings.clips import Recording, Samples
from duologue.errors import DataError

Hear = Callable[[Samples, int], str]  # samples in [-1, 1] and their rate in Hz -> the words


@dataclass(frozen=True, kw_only=True)
class Heard:
    """One recording, what was heard, and the share of its words that differ."""

    recording: Recording
    text: str
    errors: int  # words
    words: int

    @property
    def wer(self) -> float:
        return self.errors / max(1, self.words)


def listen(recordings: Iterable[Recording], hear: Hear) -> Iterator[Heard]:
    """Lets a recogniser hear each recording by itself; both texts are normalised as Whisper's are before comparing.

    Raises:
        DataError: the packages that compare texts are not installed.
    """
    try:
        import jiwer
        from whisper_normalizer.english import EnglishTextNormalizer
    except ImportError as error:
        raise DataError(f"recordings: {error.name} is missing; pip install duologue[train]") from error
    plain = EnglishTextNormalizer()
    for recording in recordings:
        text = hear(recording.audio, recording.sample_rate)
        wanted, got = plain(recording.text), plain(text)
        words = len(wanted.split())
        if words:
            found = jiwer.process_words(wanted, got)
            errors = found.substitutions + found.deletions + found.insertions
        else:
            errors = len(got.split())
        yield Heard(recording=recording, text=text, errors=errors, words=words)


def table(heard: Iterable[Heard]) -> str:
    """A Markdown table of utterances, minutes, speakers and word error rate a source."""
    groups: dict[str, list[Heard]] = defaultdict(list)
    for one in heard:
        groups[one.recording.source].append(one)
    rows = ["| source | utterances | minutes | speakers | WER % |", "| --- | ---: | ---: | ---: | ---: |"]
    for source, group in groups.items():
        minutes = sum(one.recording.seconds for one in group) / 60
        speakers = len({one.recording.speaker for one in group})
        wer = 100 * sum(one.errors for one in group) / max(1, sum(one.words for one in group))
        rows.append(f"| {source} | {len(group)} | {minutes:.1f} | {speakers} | {wer:.1f} |")
    return "\n".join(rows)
