"""Frozen dataclass <-> JSON. Unknown keys are refused by name; `a.b=c` overrides come from the command line."""

from __future__ import annotations

import dataclasses
import difflib
import json
import types
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from duologue.errors import ConfigError

C = TypeVar("C")


def to_dict(config: Any) -> dict[str, Any]:
    """The config as plain JSON types, nested configs as nested objects."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def from_dict(cls: type[C], data: Any, *, where: str = "") -> C:
    """Builds a config from plain JSON types.

    Args:
        where: the dotted path so far, for messages.
    Raises:
        ConfigError: an unknown key, a missing one, or a value of another type.
    """
    where = where or cls.__name__
    if not isinstance(data, dict):
        raise ConfigError(f"{where}: need an object with keys, got {data!r}")
    hints = get_type_hints(cls)
    names = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in data:
        if key not in names:
            near = difflib.get_close_matches(key, names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(names)}"
            raise ConfigError(f"{where}: unknown key {key!r}; {hint}")
    for name, field in names.items():
        no_default = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if no_default and name not in data:
            raise ConfigError(f"{where}: the key {name!r} is missing")
    return cls(**{key: _convert(hints[key], value, f"{where}.{key}") for key, value in data.items()})


def _convert(kind: Any, value: Any, where: str) -> Any:
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        return _convert_union([arg for arg in args if arg is not type(None)], value, where)
    if origin is Literal:
        if value not in args or isinstance(value, bool) != any(value is arg for arg in args if isinstance(arg, bool)):
            raise ConfigError(f"{where}: need one of {', '.join(map(repr, args))}, got {value!r}")
        return value
    if dataclasses.is_dataclass(kind):
        return from_dict(kind, value, where=where)  # type: ignore[arg-type]
    if origin is tuple and isinstance(value, (list, tuple)):
        each = [args[0]] * len(value) if args[-1:] == (Ellipsis,) else list(args)
        if len(each) != len(value):
            raise ConfigError(f"{where}: need {len(each)} values, got {value!r}")
        return tuple(_convert(a, v, f"{where}[{i}]") for i, (a, v) in enumerate(zip(each, value, strict=True)))
    if origin is list and isinstance(value, list):
        return [_convert(args[0], item, f"{where}[{i}]") for i, item in enumerate(value)]
    if origin is dict and isinstance(value, dict):
        return {key: _convert(args[1], item, f"{where}.{key}") for key, item in value.items()}
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is Any or (
        isinstance(kind, type) and isinstance(value, kind) and (kind is bool or type(value) is not bool)
    ):
        return value
    raise ConfigError(f"{where}: need {getattr(kind, '__name__', kind)}, got {value!r}")


def _convert_union(choices: list[Any], value: Any, where: str) -> Any:
    """The first choice that takes the value; where none does, the complaint of the one that was most likely meant."""
    complaints = []
    for choice in choices:
        try:
            return _convert(choice, value, where)
        except ConfigError as error:
            complaints.append((dataclasses.is_dataclass(choice) and isinstance(value, dict), error))
    raise next((error for meant, error in complaints if meant), complaints[-1][1])


def load(cls: type[C], path: Path) -> C:
    """Reads a config from a JSON file.

    Raises:
        ConfigError: no such file, not JSON, or not this config.
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the configuration ({error.strerror})") from error
    except ValueError as error:
        raise ConfigError(f"{path}: not valid JSON ({error})") from error
    return from_dict(cls, data, where=Path(path).name)


def save(config: Any, path: Path) -> None:
    """Writes a config as indented JSON."""
    Path(path).write_text(json.dumps(to_dict(config), indent=2) + "\n", encoding="utf-8")


def override(config: C, settings: list[str]) -> C:
    """Applies `a.b=c` settings; values are JSON where they parse as such, else plain strings.

    Raises:
        ConfigError: a setting without '=', an unknown key, or a value of another type.
    """
    for setting in settings:
        data = to_dict(config)
        path, equals, text = setting.partition("=")
        if not equals:
            raise ConfigError(f"--set {setting}: need key=value, for example optimizer.lr=0.001")
        *parents, leaf = path.strip().split(".")
        inner: Any = data
        for parent in parents:
            if not isinstance(inner, dict) or not isinstance(inner.get(parent), dict):
                raise ConfigError(f"--set {setting}: {parent!r} is not a group of settings here")
            inner = inner[parent]
        try:
            inner[leaf] = json.loads(text)
            config = from_dict(type(config), data)
        except ValueError:
            inner[leaf] = text
            config = from_dict(type(config), data)
        except ConfigError as error:
            inner[leaf] = text  # a name such as 123
            try:
                config = from_dict(type(config), data)
            except ConfigError:
                raise error from None
    return config
