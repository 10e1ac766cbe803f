"""What is answered without the language model: exact, offline, the same each time. One file a skill, and their table.

`router.Router` chooses, `answer` speaks. Timers are said when `timer.due` says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from duologue.errors import ConfigError
from duologue.skills.base import Context, Match, Memory, Skill
from duologue.skills.calculate import Calculate
from duologue.skills.calendar_day import CalendarDay
from duologue.skills.chance import Chance
from duologue.skills.clock import Clock
from duologue.skills.convert_units import ConvertUnits
from duologue.skills.currency import Currency
from duologue.skills.day_arithmetic import DayArithmetic
from duologue.skills.define import Define
from duologue.skills.look_up import LookUp
from duologue.skills.schemas import problem
from duologue.skills.spell import Spell
from duologue.skills.timer import Timer, due, next_due

__all__ = ["SKILLS", "Context", "Match", "Memory", "Skill", "answer", "due", "next_due"]

_ALL: tuple[Skill, ...] = (  # an earlier one wins where two are equally sure
    Timer(),
    Clock(),
    CalendarDay(),
    DayArithmetic(),
    Currency(),
    ConvertUnits(),
    Calculate(),
    Spell(),
    Chance(),
    Define(),
    LookUp(),
)
SKILLS: Mapping[str, Skill] = {skill.name: skill for skill in _ALL}


def answer(name: str, arguments: dict[str, Any], context: Context) -> str:
    """What is to be spoken.

    Raises:
        ConfigError: no such skill, or arguments that are not those of its schema.
    """
    skill = SKILLS.get(name)
    if skill is None:
        raise ConfigError(f"need one of the skills {', '.join(SKILLS)}, got {name!r}")
    if wrong := problem(arguments, skill.parameters):
        raise ConfigError(f"{name}: {wrong}")
    return skill.answer(arguments, context)
