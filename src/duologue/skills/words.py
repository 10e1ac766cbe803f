"""A transcript as the grammars want it: one line of lower-case words, numbers in digits, nothing that only polishes.

Numbers are read by `text_to_num`; what it leaves (halves, dozens, scales after a decimal) is folded here.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from decimal import Decimal
from functools import lru_cache, partial

from text_to_num import alpha2digit

MOST_CHARACTERS = 600  # of a request; number reading is quadratic beyond this, and nobody asks for a timer in a speech
_MONTHS = "january february march april may june july august september october november december"
MONTHS = _MONTHS.split()
NUMBER = r"\d+(?:\.\d+)?"

_SECOND = re.compile(rf"\b(the|{'|'.join(MONTHS)})?((?:[ -](?:twenty|thirty|forty|fifty))?)[ -]?\bsecond\b", re.I)
_CONTRACTIONS = {
    r"\b(what|when|where|how|who|that|it|there|here)'?s\b": r"\1 is",
    r"\b(i|you|we|they)'d\b": r"\1 would",
    r"\b(i|you|we|they)'ll\b": r"\1 will",
    r"\bi'?m\b": "i am",
    r"\b(you|we|they)'re\b": r"\1 are",
    r"\bcan't\b": "can not",
    r"\b(do|does|did|is|are|was)n'?t\b": r"\1 not",
    r"\blet'?s\b": "let us",
}
_POLITE = (
    r"(?:um+|uh+|er+|hm+|hey|hi|hello|okay|ok|so|well|now|right|please|and|oh|alright|quick question|listen|computer)"
    r"|(?:can|could|would|will) you (?:please )?(?:just )?"
    r"|(?:do|can|could|would) you (?:know|tell me|say)|(?:i )?(?:want|would like|need) you to"
    r"|(?:please )?(?:tell|give) me"
    r"|i am(?= (?:what|how|when|who|can|could|set|tell)\b)"  # um
    r"|i (?:want|would like|need) to know|go ahead and|just"
)
_OPENING = re.compile(rf"^(?:(?:{_POLITE})\b[ ,]*)+")
_ENDING = re.compile(
    r"(?:[ ,]+(?:please|thanks|thank you|for me|would you|will you|could you|can you|right now|now|then))+$"
)


def clean(text: str) -> str:
    """Cut to a bounded length, typographic characters made plain, one line. Case and wording stay."""
    text = (
        re.sub("([½¼¾⅓⅔])", r" \1", text[:MOST_CHARACTERS])
        .replace("’", "'")
        .replace("−", "-")
        .replace("×", " times ")
        .replace("÷", " divided by ")
    )
    text = re.sub(r"[\u0000-\u001f\u007f\ud800-\udfff]", " ", unicodedata.normalize("NFKC", text).replace("⁄", "/"))
    return re.sub(r"\s+", " ", text).strip()


@lru_cache(maxsize=256)
def digits(text: str) -> str:
    """Number words to digits, case and the other words kept; only punctuation inside a number or a word stays."""
    text = re.sub(r"(?<=[a-zA-Z])-(?=[a-zA-Z])", " ", clean(text))
    text = re.sub(r"(?<=\d)-(?=[a-zA-Z])", " ", text)
    text = re.sub(r"\b([ap])\.\s?m\b\.?", r"\1m", text, flags=re.I)
    text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text)
    text = _SECOND.sub(lambda m: m[0] if m[1] else f"{m[2]} secondx", text)
    text = alpha2digit(text, "en", 0.0).replace("secondx", "second")
    text = re.sub(r"([+*/^=%()$€£¥])", r" \1 ", text)
    text = re.sub(r"(?<![\w.])-(?=\d)|(?<=\d)\s*-\s*(?=\d)|(?<=\s)-(?=\s)", " - ", text)
    text = re.sub(r"(\d)-(?=\d)", r"\1 - ", text)
    text = re.sub(r"[^\w\s.:'+*/^%()$€£¥-]|(?<!\d)[.:](?!\d)|[.:](?=\s|$)|(?<!\w)'|'(?!\w)", " ", text)
    return _fold(re.sub(r"\s+", " ", text).strip())


def request(text: str) -> str:
    """`digits`, lower case, contractions opened, politeness dropped from both ends."""
    text = digits(text).lower()
    for pattern, full in _CONTRACTIONS.items():
        text = re.sub(pattern, full, text)
    text = _ENDING.sub("", text)
    stripped = _OPENING.sub("", text).strip()
    return stripped or text


def _fold(text: str) -> str:
    """Halves, quarters, dozens and scales into one number: 2 and a half million -> 2500000."""
    flags = re.I
    text = re.sub(r"\b(?:a|an|1) ([a-z]+) and (?:a|1) half\b", r"1.5 \1", text, flags=flags)
    text = re.sub(rf"\b({NUMBER}) and (?:a|1) half\b", lambda m: _add(m[1], "0.5"), text, flags=flags)
    text = re.sub(rf"\b({NUMBER}) and (?:a|1) quarter\b", lambda m: _add(m[1], "0.25"), text, flags=flags)
    text = re.sub(rf"\b({NUMBER}) and 3 quarters\b", lambda m: _add(m[1], "0.75"), text, flags=flags)
    text = re.sub(r"\b(?:a )?half (?:of )?(?:a|an|1)\b(?! hundred| dozen)", "0.5", text, flags=flags)
    text = re.sub(r"\b(?:a|1) quarter (?:of )?(?:a|an|1)\b", "0.25", text, flags=flags)
    text = re.sub(r"\b3 quarters (?:of )?(?:a|an|1)\b", "0.75", text, flags=flags)
    text = re.sub(r"\ban? (?=(?:thousand|million|billion|trillion)\b)", "1 ", text, flags=flags)
    text = re.sub(r"\bhalf (?:a )?dozen\b", "6", text, flags=flags)
    text = re.sub(r"\b(?:a|1) dozen\b", "12", text, flags=flags)
    text = re.sub(r"\ba couple (?:of )?\b", "2 ", text, flags=flags)
    text = re.sub(r"(?<![\d.] )\b(?:zero )?point (\d+)\b", r"0.\1", text, flags=flags)
    text = re.sub(rf"\b({NUMBER}) (1000|1000000|1000000000)\b", lambda m: _times(m[1], m[2]), text)
    for word, scale in (("thousand", 10**3), ("million", 10**6), ("billion", 10**9), ("trillion", 10**12)):
        text = re.sub(rf"\b({NUMBER}) {word}\b", partial(_scaled, scale=scale), text, flags=flags)
    return re.sub(r"\ban? (\d)", r"\1", text, flags=flags)


def _add(number: str, part: str) -> str:
    return _plain(Decimal(number) + Decimal(part))


def _times(number: str, scale: str) -> str:
    return _plain(Decimal(number) * Decimal(scale))


def _scaled(match: re.Match[str], *, scale: int) -> str:
    return _times(match[1], str(scale))


def _plain(number: Decimal) -> str:
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def number(text: str) -> int | float:
    """A number of the transcript as JSON has it: 5, not 5.0; never infinite."""
    value = min(max(float(text), -1e300), 1e300)
    return int(value) if value.is_integer() and abs(value) < 2**53 else value


def as_said(original: str, folded: list[str], first: int, last: int) -> str:
    """The words `folded[first:last]` as they stand in the original, with its capitals, numbers and contractions."""
    spoken = clean(original).split()
    bare = [re.sub(r"^[^\w$€£¥]+|[^\w%]+$", "", word).lower() for word in spoken]
    matcher = difflib.SequenceMatcher(None, [word.lower() for word in folded], bare, autojunk=False)
    begin, end = None, 0
    for _, low, high, there, until in matcher.get_opcodes():
        if high <= first or low >= last:
            continue
        same = high - low == until - there
        start = there + max(first - low, 0) if same else there
        begin = start if begin is None else begin
        end = there + min(last, high) - low if same else until
    if begin is None:
        return " ".join(folded[first:last])
    return re.sub(r"^[^\w$€£¥'\"]+|[,;:.?!]+$", "", " ".join(spoken[begin:end]))
