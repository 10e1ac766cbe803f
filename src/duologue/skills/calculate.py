"""Arithmetic, exact: numbers and operators as they are said, read by a small grammar, never evaluated as code."""

from __future__ import annotations

import re
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Any

from duologue.skills import say
from duologue.skills.base import Context, Match, schema
from duologue.skills.words import NUMBER

MOST_TOKENS = 60
_MOST_DIGITS = 30  # of a number that is said
_MOST_BITS = 4_000  # of a number on the way
_ORDINALS = {"half": 2, "halves": 2, "quarter": 4, "quarters": 4} | {
    f"{n}{end}{s}": n for n in range(3, 101) for end in ("rd", "th", "st", "nd") for s in ("", "s")
}
_SAID = [  # in this order; what is left over is no arithmetic
    (r"(?:multiply|multiplied) (.+?) (?:by|with|and) (.+)", r"\1 times \2"),
    (r"divide (.+?) by (.+)", r"\1 divided by \2"),
    (r"subtract (.+?) from (.+)", r"\2 minus \1"),
    (r"(?:add|the sum of) (.+?) (?:and|to) (.+)", r"\1 plus \2"),
    (r"the difference between (.+?) and (.+)", r"\1 minus \2"),
    (r"the product of (.+?) and (.+)", r"\1 times \2"),
    (r"(?:the )?square root of", "sqrt"),
    (r"\bto the power of\b|\bto the power\b|\braised to\b|\* \*", "^"),
    (r"\bto the (\d+)(?:st|nd|rd|th)(?: power)?\b", r"^ \1"),
    (r"\bsquared\b", "^ 2"),
    (r"\bcubed\b", "^ 3"),
    (r"\bmultiplied by\b|\btimes\b|\bx\b", "*"),
    (r"\bdivided by\b|\bover\b", "/"),
    (r"\bplus\b|\badded to\b", "+"),
    (r"\bminus\b|\bless\b|\btake away\b", "-"),
    (r"\bpercent of\b|\bper cent of\b|% of\b", "% *"),
    (r"\bpercent\b|\bper cent\b", "%"),
    (r"\bopen (?:bracket|parenthesis)\b", "("),
    (r"\bclose (?:bracket|parenthesis)\b", ")"),
]
_SOUNDS = {"to": "2", "too": "2", "two": "2", "for": "4", "won": "1", "ate": "8", "tree": "3", "sex": "6", "tin": "10"}
_ASK = re.compile(
    r"(?:what is|how much is|how much are|what are|what do (?:you|i) get (?:when|if) (?:you|i)|calculate"
    r"|compute|work out|solve|what does"
    r"|figure out|the result of|what about|the value of) "
)
_TOKEN = re.compile(rf"{NUMBER}|sqrt|[-+*/^%()]")


class TooLargeError(ArithmeticError):
    """A number with more digits than anybody wants to hear."""


class Calculate:
    name = "calculate"
    description = "Work out an arithmetic expression."
    parameters = schema(
        ("expression",),
        expression={
            "type": "string",
            "maxLength": 400,
            "description": "Numbers, + - * / ^ % sqrt and brackets, with spaces between them",
        },
    )
    examples = ("what is twelve times seven", "what's fifteen percent of eighty")

    def match(self, text: str, context: Context) -> Match | None:
        asked = _ASK.match(text)
        said = _ASK.sub("", text, count=1)
        said = re.sub(r"(?: equals?| equal to| is| make| makes| come to)?(?: what)?$", "", said)
        said = re.sub(rf"(?:\$|€|£) ({NUMBER})|({NUMBER}) (?:dollars?|euros?|bucks)\b", r"\1\2", said)
        for pattern, sign in _SAID:
            said = re.sub(pattern, sign, said)
        said = _fractions(said)
        tokens = [word for word in said.split() if word]
        tokens = _digit_by_digit(_homophones(tokens))
        if len(tokens) < 2 or not all(_TOKEN.fullmatch(token) for token in tokens):
            return None
        if not any(re.fullmatch(NUMBER, token) for token in tokens) or all(
            re.fullmatch(NUMBER, token) for token in tokens
        ):
            return None
        if tokens[0] in "*/^%+)" or (len(tokens) == 2 and tokens[0] == "-"):
            return None
        return Match({"expression": " ".join(tokens)[:400]}, 0.97 if asked else 0.9)

    def answer(self, arguments: dict[str, Any], context: Context) -> str:
        try:
            result, exact = evaluate(arguments["expression"])
        except ZeroDivisionError:
            return "Nothing can be divided by zero."
        except TooLargeError:
            return "That number is too large for me."
        except ArithmeticError:
            return "That has no answer among the real numbers."
        except ValueError:
            return "I did not understand that calculation."
        said = say.decimal(result, places=3)
        if not exact and not said.startswith("about"):
            said = f"about {said}"
        return f"That is {said}."


def evaluate(expression: str) -> tuple[Fraction, bool]:
    """The value, and whether it is exact.

    Raises:
        ValueError: not an expression. ZeroDivisionError. TooLargeError. ArithmeticError: no real value.
    """
    tokens = _TOKEN.findall(expression)
    if "".join(tokens) != re.sub(r"\s", "", expression) or not 0 < len(tokens) <= MOST_TOKENS:
        raise ValueError(f"not an expression: {expression[:60]!r}")
    if any(len(token) > _MOST_DIGITS for token in tokens):
        raise TooLargeError
    reader = _Reader(tokens)
    value = reader.sum()
    if reader.tokens:
        raise ValueError(f"{reader.tokens[-1]!r} is left over")
    return value, reader.exact


class _Reader:
    """Recursive descent; `tokens` is a stack with the next one last."""

    def __init__(self, tokens: list[str]):
        self.tokens = tokens[::-1]
        self.exact = True

    def take(self, *wanted: str) -> str:
        return self.tokens.pop() if self.tokens and self.tokens[-1] in wanted else ""

    def sum(self) -> Fraction:
        value = self.product()
        while sign := self.take("+", "-"):
            share = self.percent()
            part = value * share if share is not None else self.product()
            value = _bounded(value + part if sign == "+" else value - part)
        return value

    def percent(self) -> Fraction | None:
        """A lone percentage behind plus or minus is one of what stands before it: 200 + 10 % is 220."""
        alone = len(self.tokens) < 3 or self.tokens[-3] in ("+", "-", ")")
        if len(self.tokens) > 1 and self.tokens[-2] == "%" and self.tokens[-1][0].isdigit() and alone:
            number, _ = self.tokens.pop(), self.tokens.pop()
            return Fraction(number) / 100
        return None

    def product(self) -> Fraction:
        value = self.signed()
        while sign := self.take("*", "/"):
            part = self.signed()
            value = _bounded(value * part if sign == "*" else value / part)
        return value

    def signed(self) -> Fraction:
        if self.take("-"):
            return -self.signed()
        return self.power()

    def power(self) -> Fraction:
        base = self.atom()
        while self.take("%"):
            base = base / 100
        if not self.take("^"):
            return base
        exponent = self.signed()
        if exponent.denominator != 1:
            return self._real(base, exponent)
        size = max(base.numerator.bit_length(), base.denominator.bit_length())
        if size > 1 and size * abs(exponent.numerator) > _MOST_BITS:
            raise TooLargeError
        return Fraction(base) ** exponent.numerator if size > 1 else _unit_power(base, exponent.numerator)

    def atom(self) -> Fraction:
        if self.take("sqrt"):
            return self._real(self.signed(), Fraction(1, 2))
        if self.take("("):
            value = self.sum()
            if not self.take(")"):
                raise ValueError("a bracket is not closed")
            return value
        if not self.tokens or not self.tokens[-1][0].isdigit():
            raise ValueError("a number is missing")
        return Fraction(self.tokens.pop())

    def _real(self, base: Fraction, exponent: Fraction) -> Fraction:
        with localcontext() as context:
            context.prec, context.Emax, context.Emin = 40, 2000, -2000
            value = Decimal(base.numerator) / Decimal(base.denominator)
            if value < 0 or (value == 0 and exponent < 0):
                raise ArithmeticError("a root of a negative number")
            try:
                power = (
                    value.sqrt()
                    if exponent == Fraction(1, 2)
                    else value ** (Decimal(exponent.numerator) / exponent.denominator)
                )
            except ArithmeticError as error:
                raise TooLargeError from error
            result = Fraction(power)
        self.exact = self.exact and exponent == Fraction(1, 2) and result * result == base
        return _bounded(result)


def _unit_power(base: Fraction, exponent: int) -> Fraction:
    if base == 0 and exponent < 0:
        raise ZeroDivisionError
    return base ** (exponent % 2 if base == -1 else min(abs(exponent), 1))


def _bounded(value: Fraction) -> Fraction:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > 2 * _MOST_BITS:
        raise TooLargeError
    return value


def _fractions(text: str) -> str:
    """2 3rds -> 2 / 3; a half -> 1 / 2; of behind a fraction is times."""
    names = "|".join(sorted(_ORDINALS, key=len, reverse=True))

    def read(match: re.Match[str]) -> str:
        top = match[1] if match[1] and match[1].isdigit() else "1"
        said = f"{top} / {_ORDINALS[match[2]]}"
        whole = match.string[: match.start()].rstrip().endswith(("^", "/", "sqrt"))
        return (f"( {said} )" if whole else said) + (" *" if match[3] else "")

    return re.sub(rf"\b(?:(\d+|an?) )?({names})\b( of\b)?", read, text)


def _digit_by_digit(tokens: list[str]) -> list[str]:
    """Numbers of which every digit was said alone: 3 7 5 -> 375."""
    found: list[str] = []
    alone = False
    for token in tokens:
        digit = len(token) == 1 and token.isdigit()
        if digit and alone:
            found[-1] += token
        else:
            found.append(token)
        alone = digit
    return found


def _homophones(tokens: list[str]) -> list[str]:
    """Where a number must stand, words that sound like one: too + too."""
    if not any(token in "+-*/^%" for token in tokens):
        return tokens
    out = list(tokens)
    for place, token in enumerate(tokens):
        before = tokens[place - 1] if place else "+"
        if token in _SOUNDS and before in ("+", "-", "*", "/", "^", "(", "sqrt"):
            out[place] = _SOUNDS[token]
    return out
