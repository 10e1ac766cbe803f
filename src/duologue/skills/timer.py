"""Timers, alarms and reminders: set, asked for, cancelled, and spoken when they are due."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Any

from duologue.skills import dates, say, times
from duologue.skills.base import Alarm, Context, Match, Memory, schema

MOST_ALARMS = 20
_LONGEST = 366 * 86400  # seconds
_KIND = r"timers?|alarms?|reminders?|countdowns?"
_SET = re.compile(
    rf"\b(?:set|start|make|create|add|begin|put|new|start me|give me|need|want|schedule)\b.*\b(?:{_KIND})\b"
)
_CHECK = re.compile(
    rf"(?:how (?:much time|long|much|many minutes|many seconds)(?: is| do i have| have i got)? (?:left"
    rf"|remaining|remains|to go)?"
    rf".*|(?:when|what time) (?:does|is|will|do|are).*|check|what|which|(?:do|did) i have any|list"
    rf"|are there any|what is).*\b({_KIND})\b.*"
)
_LEFT = re.compile(r"how (?:much time|long) (?:is )?(?:left|remaining|to go)(?: is it)?")
_CANCEL = re.compile(
    rf"(?:cancel|stop|delete|remove|turn off|switch off|kill|clear|end|disable|forget|turn"
    rf"|dismiss)\b(?P<which>.*?)\b(?P<kind>{_KIND})(?: off)?"
)
_WAKE = re.compile(r"\b(?:wake|get) (?:me|us)(?: up)?\b")
_REMIND = re.compile(r"\b(?:remind|remember) (?:me|us)\b")
_COUNT_DOWN = re.compile(r"\bcount ?down\b|\btimer\b")
_IDLE_WORDS = (
    "a an the my our for of to on in at me us set start make create begin put new please timer timers alarm "
    "alarms reminder reminders i want need would like would you can could and give it all every that is "
    "countdown count down from another other schedule add up wake remind get length long another second"
)
_IDLE = frozenset(_IDLE_WORDS.split())


_BARE = re.compile(  # a length or a time and nothing else
    r"(?:for|in|at|to|make it|maybe|about|let us say)?"
    r"(?: ?\b(?:\d+(?:[.:]\d+)?|an?|and|half|quarter|past|to|o'?clock|am|pm|noon|midnight|at|in|the|tomorrow|today"
    r"|tonight|morning|afternoon|evening|night|seconds?|minutes?|hours?|days?)\b)+"
)
_PATIENCE = timedelta(seconds=30)  # how long an answer to "for how long?" is waited for


class Timer:
    name = "timer"
    description = "Set, check or cancel timers, alarms and reminders."
    parameters = schema(
        ("action",),
        action={"type": "string", "enum": ["set", "check", "cancel"]},
        kind={"type": "string", "enum": ["timer", "alarm", "reminder"]},
        seconds={"type": "number", "exclusiveMinimum": 0, "description": "How long from now"},
        at={"type": "string", "description": "When, as 2026-03-05T07:00 in the user's zone"},
        label={"type": "string", "maxLength": 200, "description": "What it is for"},
        all={"type": "boolean", "description": "Cancel every one"},
    )
    examples = ("set a timer for five minutes", "wake me at seven", "cancel the alarm", "how long is left on the timer")

    def match(self, text: str, context: Context) -> Match | None:
        return _follow_up(text, context) or _cancel(text) or _check(text, context) or _set(text, context)

    def answer(self, arguments: dict[str, Any], context: Context) -> str:
        context.memory.asked = None
        match arguments["action"]:
            case "set":
                return _answer_set(arguments, context)
            case "cancel":
                return _answer_cancel(arguments, context.memory)
        return _answer_check(arguments, context)


def due(context: Context) -> list[str]:
    """What is to be spoken now, the earliest first; each is said once."""
    alarms = context.memory.alarms
    ready = sorted((alarm for alarm in alarms if alarm.at <= context.now), key=lambda alarm: (alarm.at, alarm.number))
    alarms[:] = [alarm for alarm in alarms if alarm.at > context.now]
    return [_ring(alarm) for alarm in ready]


def next_due(memory: Memory) -> datetime | None:
    """When `due` will have something to say, so that nobody has to ask all the time."""
    return min((alarm.at for alarm in memory.alarms), default=None)


def _ring(alarm: Alarm) -> str:
    if alarm.kind == "reminder":
        return f"Reminder: {_to_you(alarm.label)}." if alarm.label else "This is your reminder."
    name = _called(alarm)
    return f"Your {name} is done." if alarm.kind == "timer" else f"It is {say.clock(alarm.at)}. This is your {name}."


def _called(alarm: Alarm) -> str:
    if alarm.label and alarm.kind != "reminder":
        return f"{say.written(alarm.label, most=60).rstrip('.')} {alarm.kind}"
    if alarm.kind == "timer" and alarm.length:
        return f"timer for {say.duration(timedelta(seconds=alarm.length))}"
    return alarm.kind


def _to_you(label: str) -> str:
    swaps = {"my": "your", "me": "you", "i": "you", "myself": "yourself", "mine": "yours", "our": "your", "us": "you"}
    said = " ".join(swaps.get(word.lower(), word) for word in label.split())
    return say.written(said, most=200).rstrip(".")


def _follow_up(text: str, context: Context) -> Match | None:
    """The answer to "for how long?"."""
    if context.memory.asked is None or not _BARE.fullmatch(text):
        return None
    arguments, since = context.memory.asked
    when = _when(text, context, bare=arguments.get("kind") != "timer") if context.now - since < _PATIENCE else None
    return Match({**arguments, **when}) if when else None


def _cancel(text: str) -> Match | None:
    found = _CANCEL.fullmatch(text)
    if not found or (text.startswith("turn ") and "off" not in text):
        return None
    arguments: dict[str, Any] = {"action": "cancel", "kind": _kind(found["kind"])}
    which = [word for word in found["which"].split() if word not in _IDLE]
    if re.search(r"\b(?:all|every|both)\b", found["which"]):
        arguments["all"] = True
    elif which:
        arguments["label"] = " ".join(which)
    return Match(arguments) if len(which) <= 4 else None


def _kind(word: str) -> str:
    return "timer" if word.startswith("count") else word.rstrip("s")


def _check(text: str, context: Context) -> Match | None:
    found = _CHECK.fullmatch(text)
    if found and not re.search(r"\b(?:work|works|mean|invent|invented|made|makes|a|an)\b", text):
        return Match({"action": "check", "kind": _kind(found[1])})
    if _LEFT.fullmatch(text) and context.memory.alarms:
        return Match({"action": "check"}, 0.85)
    return None


def _set(text: str, context: Context) -> Match | None:
    words = text.split()
    wake, remind = bool(_WAKE.match(text)), bool(_REMIND.match(text))
    named = re.search(rf"\b({_KIND})\b", text)
    if not (wake or remind or _SET.search(text) or re.match(r"count ?down", text) or (named and len(words) <= 8)):
        return None
    if re.match(
        r"(?:why|who|what|how|when|where|is|are|do|does|did|was|explain|tell|i (?:hate|love|heard|had)|the|my)\b", text
    ):
        return None
    kind = "alarm" if wake else "reminder" if remind else _kind(named[1]) if named else "timer"
    when = _when(text, context, bare=kind != "timer", morning=wake)
    if not when and not (remind or _SET.match(text) or wake):
        return None
    arguments: dict[str, Any] = {"action": "set", "kind": kind, **when}
    if label := _label(text, context, remind):
        arguments["label"] = label
    return Match(arguments, 0.95 if when else 0.9, () if when else ("seconds",))


def _when(text: str, context: Context, *, bare: bool, morning: bool = False) -> dict[str, Any]:
    length = times.find_duration(text)
    if length and not (bare and re.search(r"\bat\b", text)) and not re.search(r"\b(?:past|quarter to)\b", text):
        return {"seconds": length.seconds} if length.seconds > 0 else {}
    time = times.find(text, bare=bare)
    if time is None:
        return {}
    try:
        day = dates.find(text, context.today)
    except dates.TooFarError:
        day = None
    return {"at": _moment(time, day.date if day else None, context.now, morning).strftime("%Y-%m-%dT%H:%M")}


def _moment(time: times.Time, day: date | None, now: datetime, morning: bool) -> datetime:
    hours = [time.hour] if time.sure or morning else [time.hour, (time.hour + 12) % 24]
    days = [day] if day else [now.date(), now.date() + timedelta(1)]
    choices = [times.at(one, hour, time.minute, now.tzinfo) for one in days for hour in hours]
    return min((choice for choice in choices if choice > now), default=choices[0])


def _label(text: str, context: Context, remind: bool) -> str:
    if remind:
        text = _REMIND.sub("", text, count=1)
    cuts: list[Any] = [times.find_duration(text), times.find(text, bare=not remind)]
    try:
        cuts.append(dates.find(text, context.today))
    except dates.TooFarError:
        cuts.append(None)
    marks = [False] * len(text)
    for cut in cuts:
        if cut:
            marks[cut.start : cut.end] = [True] * (cut.end - cut.start)
    rest = "".join("\0" if mark else char for mark, char in zip(marks, text, strict=True))
    if remind:
        rest = re.sub(r"(?:\b(?:in|on|at|by|for) )?\0+(?: time)?", " ", rest)
        return re.sub(r"^(?:to|that|about|of)\b ?", "", re.sub(r"\s+", " ", rest).strip()).strip()[:200]
    named = re.search(r"\b(?:called|named|labeled|labelled) (.+)", rest)
    words = (named[1] if named else rest).replace("\0", " ").split()
    kept = [word for word in words if word not in _IDLE and not word[0].isdigit()]
    return " ".join(kept)[:200] if len(kept) <= 4 else ""


def _answer_set(arguments: dict[str, Any], context: Context) -> str:
    memory, now = context.memory, context.now
    kind = arguments.get("kind") or ("alarm" if "at" in arguments else "timer")
    if "seconds" not in arguments and "at" not in arguments:
        memory.asked = (arguments, now)
        return "For how long?" if kind == "timer" else "For when?"
    if len(memory.alarms) >= MOST_ALARMS:
        return f"You already have {say.cardinal(MOST_ALARMS)} of them. Cancel one first."
    length = float(arguments.get("seconds", 0))
    if "seconds" in arguments:
        if not 0 < length <= _LONGEST:
            return "I can only wait for up to a year."
        at = times.after(now, timedelta(seconds=length))
    else:
        try:
            wall = datetime.fromisoformat(arguments["at"])
            at = times.at(wall.date(), wall.hour, wall.minute, now.tzinfo) if wall.tzinfo is None else wall
        except (ValueError, OverflowError):
            return "I did not understand the time."
        if at <= now:
            return "That time has already passed."
        if (at - now).total_seconds() > _LONGEST:
            return "I can only wait for up to a year."
    memory.number += 1
    alarm = Alarm(kind, at, memory.number, arguments.get("label", ""), length)
    memory.alarms.append(alarm)
    if kind == "timer" and length:
        named = _called(replace(alarm, length=0.0))
        return f"{named[0].upper()}{named[1:]} set for {say.duration(timedelta(seconds=length))}."
    when = f"in {say.duration(timedelta(seconds=length))}" if length else f"at {say.moment(at, now)}"
    if kind == "reminder":
        return f"I will remind you {when}{': ' + _to_you(alarm.label) if alarm.label else ''}."
    return (
        f"{_called(alarm).capitalize()} set for {when.removeprefix('at ')}."
        if not length
        else f"Alarm set: it goes off {when}."
    )


def _answer_check(arguments: dict[str, Any], context: Context) -> str:
    kind = arguments.get("kind")
    alarms = sorted(_of(context.memory, arguments), key=lambda alarm: alarm.at)
    if not alarms:
        return f"You have no {kind or 'timer'} set."
    parts = []
    for alarm in alarms[:3]:
        left = max(alarm.at - context.now, timedelta(0))
        name = f"reminder to {_to_you(alarm.label)}" if alarm.kind == "reminder" and alarm.label else _called(alarm)
        when = f"has {say.duration(left)} left" if alarm.length else f"is set for {say.moment(alarm.at, context.now)}"
        parts.append(f"your {name} {when}")
    more = f", and there are {say.cardinal(len(alarms) - 3)} more" if len(alarms) > 3 else ""
    text = say.listing(parts) + more
    return f"{text[0].upper()}{text[1:]}."


def _answer_cancel(arguments: dict[str, Any], memory: Memory) -> str:
    kind = arguments.get("kind", "timer")
    found = _of(memory, arguments)
    if not found:
        return f"You have no {kind} set."
    if len(found) > 1 and not arguments.get("all"):
        return f"You have {say.cardinal(len(found))} {kind}s. Say which one, or say all."
    memory.alarms[:] = [alarm for alarm in memory.alarms if alarm not in found]
    if len(found) > 1:
        return f"{say.cardinal(len(found)).capitalize()} {kind}s cancelled."
    return f"Your {_called(found[0])} is cancelled."


def _of(memory: Memory, arguments: dict[str, Any]) -> list[Alarm]:
    kind, label = arguments.get("kind"), arguments.get("label")
    found = [alarm for alarm in memory.alarms if kind in (None, alarm.kind)]
    if label:
        wanted = set(label.lower().split())
        length = times.find_duration(label)
        found = [
            alarm
            for alarm in found
            if wanted & set(alarm.label.lower().split()) or (length and alarm.length == length.seconds)
        ]
    return found
