"""English number words."""

from __future__ import annotations

ONES = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
TENS = ["", "", *["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]]
SCALES = ["", *["thousand", "million", "billion", "trillion", "quadrillion", "quintillion"]]
ORDINALS = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}


def cardinal(number: int) -> str:
    """127 -> one hundred twenty-seven; beyond quintillions digit by digit."""
    if number < 0:
        return "minus " + cardinal(-number)
    if number < 20:
        return ONES[number]
    if number < 100:
        return TENS[number // 10] + (f"-{ONES[number % 10]}" if number % 10 else "")
    if number < 1000:
        rest = f" {cardinal(number % 100)}" if number % 100 else ""
        return f"{ONES[number // 100]} hundred{rest}"
    if number >= 1000 ** len(SCALES):
        return digits(str(number))
    words = []
    for scale in range(len(SCALES) - 1, -1, -1):
        part = number // 1000**scale % 1000
        if part:
            words.append(f"{cardinal(part)} {SCALES[scale]}".strip())
    return " ".join(words)


def ordinal(number: int) -> str:
    """21 -> twenty-first."""
    words = cardinal(number)
    head, joint, last = words[:-1].rpartition("-")[0], "-", words.rpartition("-")[2]
    if "-" not in words.rpartition(" ")[2]:
        head, joint, last = words.rpartition(" ")[0], " ", words.rpartition(" ")[2]
    if last in ORDINALS:
        last = ORDINALS[last]
    else:
        last = last[:-1] + "ieth" if last.endswith("y") else last + "th"
    return f"{head}{joint}{last}" if head else last


def digits(text: str) -> str:
    """905 -> nine zero five."""
    return " ".join(ONES[int(digit)] for digit in text if digit.isdigit())


def decimal(text: str) -> str:
    """3.14 -> three point one four; 1,250 -> one thousand two hundred fifty; 007 -> zero zero seven."""
    whole, point, fraction = text.replace(",", "").partition(".")
    sign = "minus " if whole.startswith(("-", "−")) else ""
    whole = whole.lstrip("-−")
    if len(whole) > 1 and whole.startswith("0"):
        said = digits(whole)
    else:
        said = cardinal(int(whole or 0))
    return sign + said + (f" point {digits(fraction)}" if point and fraction else "")


def year(number: int) -> str:
    """1984 -> nineteen eighty-four; 2007 -> two thousand seven; 1905 -> nineteen oh five."""
    high, low = divmod(number, 100)
    if not 1000 <= number <= 2999 or (number % 1000 < 10 and high % 10 == 0):
        return cardinal(number)
    if low == 0:
        return f"{cardinal(high)} hundred"
    return f"{cardinal(high)} {f'oh {ONES[low]}' if low < 10 else cardinal(low)}"


def decade(number: int) -> str:
    """1980 -> nineteen eighties."""
    words = year(number)
    return words[:-1] + "ies" if words.endswith("y") else words + "s"


def roman(text: str) -> int:
    """XIV -> 14; 0 for what is no Roman numeral."""
    values = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100}
    if not text or set(text) - set(values):
        return 0
    total = 0
    for here, after in zip(text, [*text[1:], ""], strict=True):
        total += -values[here] if values.get(after, 0) > values[here] else values[here]
    return total if _to_roman(total) == text else 0


def _to_roman(number: int) -> str:
    pairs = [(100, "C"), (90, "XC"), (50, "L"), (40, "XL"), (10, "X"), (9, "IX"), (5, "V"), (4, "IV"), (1, "I")]
    text = ""
    for value, letters in pairs:
        while number >= value:
            text, number = text + letters, number - value
    return text
