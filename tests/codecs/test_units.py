"""The alphabet between speech decoder and vocoder."""

from __future__ import annotations

import pytest

from duologue import config
from duologue.codecs.units import UnitInventory, mini_units, numbered_units
from duologue.errors import ConfigError, DataError


def test_units_and_symbols_are_the_same_both_ways():
    inventory, said = mini_units(), "həlˈO ðˈɛɹ, ɐ fɹˈɛnd!"
    assert inventory.decode(inventory.encode(said)) == said


def test_blank_is_the_index_after_the_last_unit_and_silent():
    inventory = numbered_units(1000)
    assert inventory.blank == len(inventory) == 1000
    assert inventory.decode([3, inventory.blank, 4]) == "<3><4>"


def test_order_of_minis_alphabet_is_pinned():
    """Trained weights count on it: a change of order has to be a new inventory."""
    assert (len(mini_units()), mini_units().digest) == (64, "ed08e00a3bf3e3d2")


def test_digest_tells_orders_apart():
    assert UnitInventory(symbols=("a", "b")).digest != UnitInventory(symbols=("b", "a")).digest


def test_survives_json():
    assert config.from_dict(UnitInventory, config.to_dict(mini_units())) == mini_units()


@pytest.mark.parametrize("symbols", [(), ("a", "b", "a")])
def test_refuses_an_alphabet_that_cannot_be_decoded(symbols):
    with pytest.raises(ConfigError, match="UnitInventory"):
        UnitInventory(symbols=symbols)


def test_names_what_it_has_no_unit_for():
    with pytest.raises(DataError, match="χ"):
        mini_units().encode("lIχ")
    with pytest.raises(DataError, match="65"):
        mini_units().decode([65])
    assert "".join(mini_units().keep("lIχ")) == "lI"
