"""The steps of data synthesis by name. A recipe lists names; `package.module:function` names a step of one's own."""

from __future__ import annotations

import importlib
from typing import Any

from duologue.data.steps.base import Step
from duologue.data.steps.speech import recognise, speech, units
from duologue.data.steps.texts import STEPS as TEXT_STEPS
from duologue.errors import ConfigError

STEPS = {**TEXT_STEPS, "speech": Step(speech), "recognise": Step(recognise), "units": Step(units)}


def find_step(name: str) -> Step:
    """A step by name.

    Raises:
        ConfigError: no such step.
    """
    if name in STEPS:
        return STEPS[name]
    module, colon, attribute = name.partition(":")
    if not colon:
        raise ConfigError(f"step {name!r} is unknown; there are: {', '.join(STEPS)}, or package.module:function")
    try:
        found: Any = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"step {name!r} cannot be imported ({error})") from error
    return found if isinstance(found, Step) else Step(found)
