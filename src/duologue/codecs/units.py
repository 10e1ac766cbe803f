"""Unit inventories: the small alphabet between a speech decoder and a vocoder.

LLaMA-Omni's units are k-means numbers of HuBERT; mini's are phonetic symbols with stress, spaces and punctuation, one
character each. Either way a unit is an index, and CTC's blank is the index after the last unit, as in the paper.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from duologue.errors import ConfigError, DataError

PUNCTUATION = ' .,?!;:—…()"“”'
STRESS = "ˈˌ"
VOWELS = "AIOWYaæɐɑɔəɛɜɪᵊᵻiuʊʌ"  # A I O W Y: the vowels of day, my, go, now, boy
CONSONANTS = "bdfhjklmnpstvwyzðŋɡɹɾʃʒʔʤʧθT"  # y and T: rare spellings of j and of a flapped t


@dataclass(frozen=True, kw_only=True)
class UnitInventory:
    """An ordered alphabet of units. Its order is part of every model that was trained with it: compare `digest`."""

    symbols: tuple[str, ...]

    def __post_init__(self):
        if not self.symbols:
            raise ConfigError("UnitInventory: need at least one symbol, got none")
        twice = sorted(symbol for symbol, count in Counter(self.symbols).items() if count > 1)
        if twice:
            raise ConfigError(f"UnitInventory: every symbol once, got several of {twice}")

    def __len__(self) -> int:
        return len(self.symbols)

    @property
    def blank(self) -> int:
        """CTC's blank: the index after the last unit."""
        return len(self.symbols)

    @property
    def digest(self) -> str:
        """Names the alphabet and its order in 16 hexadecimal digits."""
        return hashlib.sha256("\0".join(self.symbols).encode()).hexdigest()[:16]

    def encode(self, symbols: Iterable[str]) -> list[int]:
        """Symbols, such as the characters of a phonetic string, to units.

        Raises:
            DataError: a symbol that the inventory does not have.
        """
        index = {symbol: unit for unit, symbol in enumerate(self.symbols)}
        symbols = list(symbols)
        unknown = sorted({symbol for symbol in symbols if symbol not in index})
        if unknown:
            raise DataError(
                f"UnitInventory.encode: no unit for {unknown}. Drop them first (`keep`), or use another inventory."
            )
        return [index[symbol] for symbol in symbols]

    def keep(self, symbols: Iterable[str]) -> list[str]:
        """The symbols that the inventory has, in order; the others are dropped."""
        own = set(self.symbols)
        return [symbol for symbol in symbols if symbol in own]

    def decode(self, units: Sequence[int]) -> str:
        """Units to one string of symbols; the blank is left out.

        Raises:
            DataError: a number that is no unit.
        """
        wrong = sorted({unit for unit in units if not 0 <= unit <= self.blank})
        if wrong:
            raise DataError(f"UnitInventory.decode: need numbers from 0 to {self.blank}, got {wrong}")
        return "".join(self.symbols[unit] for unit in units if unit != self.blank)


def mini_units() -> UnitInventory:
    """The alphabet of mini: 64 symbols of American English. Runs without the synthesiser that taught it."""
    return UnitInventory(symbols=tuple(PUNCTUATION + STRESS + VOWELS + CONSONANTS))


def numbered_units(count: int) -> UnitInventory:
    """Units with no meaning to a reader, such as the 1000 clusters of LLaMA-Omni's HuBERT."""
    return UnitInventory(symbols=tuple(f"<{number}>" for number in range(count)))
