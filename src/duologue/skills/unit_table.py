"""Units of measure: what they are called and how large they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

# What is said for one and for many, the size in the first unit of the kind, and what else it is called.
TABLE: dict[str, list[tuple[str, str, str, str]]] = {
    "length": [
        ("meter", "meters", "1", "metre m"),
        ("kilometer", "kilometers", "1000", "kilometre km k kilo_meter"),
        ("centimeter", "centimeters", "0.01", "centimetre cm"),
        ("millimeter", "millimeters", "0.001", "millimetre mm"),
        ("mile", "miles", "1609.344", "mi"),
        ("yard", "yards", "0.9144", "yd"),
        ("foot", "feet", "0.3048", "ft"),
        ("inch", "inches", "0.0254", ""),
        ("nautical mile", "nautical miles", "1852", ""),
        ("light year", "light years", "9460730472580800", ""),
    ],
    "mass": [
        ("gram", "grams", "1", "gramme g"),
        ("kilogram", "kilograms", "1000", "kilo kg kilo_gram"),
        ("milligram", "milligrams", "0.001", "mg"),
        ("ton", "tons", "907184.74", "short_ton"),
        ("metric ton", "metric tons", "1000000", "tonne"),
        ("pound", "pounds", "453.59237", "lb"),
        ("ounce", "ounces", "28.349523125", "oz"),
        ("stone", "stone", "6350.29318", ""),
    ],
    "volume": [
        ("liter", "liters", "1", "litre l"),
        ("milliliter", "milliliters", "0.001", "millilitre ml"),
        ("gallon", "gallons", "3.785411784", ""),
        ("quart", "quarts", "0.946352946", ""),
        ("pint", "pints", "0.473176473", ""),
        ("cup", "cups", "0.2365882365", ""),
        ("fluid ounce", "fluid ounces", "0.0295735295625", ""),
        ("tablespoon", "tablespoons", "0.01478676478125", ""),
        ("teaspoon", "teaspoons", "0.00492892159375", ""),
    ],
    "time": [
        ("second", "seconds", "1", "sec"),
        ("minute", "minutes", "60", "min"),
        ("hour", "hours", "3600", "hr"),
        ("day", "days", "86400", ""),
        ("week", "weeks", "604800", ""),
        ("year", "years", "31557600", ""),
        ("millisecond", "milliseconds", "0.001", ""),
    ],
    "speed": [
        ("meter per second", "meters per second", "1", ""),
        ("kilometer per hour", "kilometers per hour", "1000/3600", "kph km/h kilometre_per_hour"),
        ("mile per hour", "miles per hour", "1609.344/3600", "mph"),
        ("knot", "knots", "1852/3600", ""),
    ],
    "area": [
        ("square meter", "square meters", "1", "square_metre"),
        ("square kilometer", "square kilometers", "1000000", "square_kilometre"),
        ("square mile", "square miles", "2589988.110336", ""),
        ("square foot", "square feet", "0.09290304", ""),
        ("acre", "acres", "4046.8564224", ""),
        ("hectare", "hectares", "10000", ""),
    ],
    "energy": [
        ("joule", "joules", "1", ""),
        ("kilojoule", "kilojoules", "1000", ""),
        ("calorie", "calories", "4184", "kilocalorie"),
        ("kilowatt hour", "kilowatt hours", "3600000", "kwh"),
    ],
    "data": [
        ("byte", "bytes", "1", ""),
        ("kilobyte", "kilobytes", "1000", "kb"),
        ("megabyte", "megabytes", "1000000", "mb meg"),
        ("gigabyte", "gigabytes", "1000000000", "gb gig"),
        ("terabyte", "terabytes", "1000000000000", "tb"),
    ],
    "temperature": [
        ("celsius", "degrees Celsius", "1", "centigrade c"),
        ("fahrenheit", "degrees Fahrenheit", "5/9", "f"),
        ("kelvin", "kelvin", "1", ""),
    ],
}
ZERO = {"celsius": Fraction("273.15"), "fahrenheit": Fraction(45967, 180), "kelvin": Fraction(0)}  # in kelvin
NAMES = [row[0] for rows in TABLE.values() for row in rows]


@dataclass(frozen=True)
class Unit:
    """A unit. `size` is in the first unit of its kind."""

    name: str
    kind: str
    many: str
    size: Fraction


@lru_cache(maxsize=1)
def units() -> Mapping[str, Unit]:
    """Every unit by its name."""
    found = {}
    for kind, rows in TABLE.items():
        for name, many, size, _ in rows:
            top, _, bottom = size.partition("/")
            found[name] = Unit(name, kind, many, Fraction(top) / Fraction(bottom or 1))
    return found


@lru_cache(maxsize=1)
def called() -> Mapping[str, str]:
    """Everything that a unit is called, to its name."""
    names: dict[str, str] = {}
    for rows in TABLE.values():
        for name, many, _, others in rows:
            other = [word.replace("_", " ") for word in others.split()]
            names |= dict.fromkeys([name, many, many.lower(), *other, *(f"{word}s" for word in other)], name)
            for said in (name, many):
                first, per, last = said.partition(" per ")
                links = ("per", "an", "a") if per else ()
                names |= dict.fromkeys((f"{first} {link} {last}" for link in links), name)
    return names
