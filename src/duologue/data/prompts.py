"""The prompts and rules of data synthesis: plain files that a person can edit (data/prompts/README.md)."""

from __future__ import annotations

import json
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

from duologue.errors import DataError


class Prompts:
    """Reads the files once each; a folder of the user's own goes before the package's.

    Raises:
        DataError: the user's folder does not exist.
    """

    def __init__(self, folder: str = ""):
        self.folder = Path(folder) if folder else None
        if self.folder and not self.folder.is_dir():
            raise DataError(f"{folder}: there is no such folder of prompts; copy duologue/data/prompts and edit it")

    def text(self, name: str) -> str:
        """A whole file.

        Raises:
            DataError: no such file.
        """
        own = self.folder / name if self.folder else None
        if own and own.is_file():
            return own.read_text(encoding="utf-8").strip()
        packaged = files("duologue.data") / "prompts" / name
        if not packaged.is_file():
            raise DataError(f"there is no prompt file {name!r}")
        return packaged.read_text(encoding="utf-8").strip()

    def lines(self, name: str) -> list[str]:
        """The lines of a file, without empty ones and remarks."""
        return [line.strip() for line in self.text(name).splitlines() if line.strip() and not line.startswith("#")]

    def json(self, name: str) -> Any:
        """A file of JSON.

        Raises:
            DataError: it is not JSON.
        """
        try:
            return json.loads(self.text(name))
        except ValueError as error:
            raise DataError(f"{self.folder or 'data/prompts'}/{name}: not valid JSON ({error})") from error

    @cached_property
    def rules(self) -> dict[str, Any]:
        return self.json("rules.json")

    @cached_property
    def spelling(self) -> dict[str, dict[str, Any]]:
        return self.json("spelling.json")
