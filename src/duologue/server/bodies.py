"""Bodies of requests, read within bounds: JSON as strictly as it is written, and forms."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from starlette.datastructures import FormData
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.types import Message, Receive

from duologue.errors import ServerError
from duologue.server.waiting import within


def strict_json(raw: str | bytes) -> Any:
    """A value from its JSON.

    Raises:
        ValueError: it is none, or could not be written as JSON again (half characters, numbers past every other), or is
            nested too deep to be handled safely.
    """
    try:
        value = json.loads(raw, parse_constant=_no_number)
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    _check(value)
    return value


def _check(value: Any, depth: int = 64) -> None:
    if depth == 0:
        raise ValueError("nested too deep")
    if isinstance(value, str):
        value.encode()
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError("not a number that can be written")
    elif isinstance(value, list):
        for each in value:
            _check(each, depth - 1)
    elif isinstance(value, dict):
        for name, each in value.items():
            name.encode()
            _check(each, depth - 1)


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def patient(receive: Receive, seconds: float) -> Receive:
    """Counts a client as gone that does not go on with its request for so long."""
    whole = False

    async def next_message() -> Message:
        nonlocal whole
        if whole:  # what comes now is the end of the connection, and may take as long as the answer
            return await receive()
        try:
            message = await within(receive(), seconds)
        except asyncio.TimeoutError:
            return {"type": "http.disconnect"}
        whole = not message.get("more_body", False)
        return message

    return next_message


async def pieces(request: Request, most: int) -> AsyncGenerator[bytes, None]:
    """A body as it comes, also where it does not say how long it is.

    Raises:
        ServerError: it has more than `most` bytes.
        ClientDisconnect: it does not come to its end.
    """
    size = 0
    async for piece in request.stream():
        size += len(piece)
        if size > most:
            raise ServerError(f"a request may have {most} bytes")
        yield piece


async def read_object(request: Request, most: int) -> dict[str, Any]:
    """A body that is a JSON object.

    Raises:
        ServerError: it is none, or too large.
    """
    try:
        data = strict_json(b"".join([piece async for piece in pieces(request, most)]))
    except ValueError as error:
        raise ServerError("the request is not JSON") from error
    if not isinstance(data, dict):
        raise ServerError("the request is not a JSON object")
    return data


@contextlib.asynccontextmanager
async def read_form(request: Request, most: int, *, files: int, fields: int) -> AsyncIterator[FormData]:
    """A body that is a multipart form; another one has no fields.

    Raises:
        ServerError: it cannot be read, or is too large.
    """
    form = FormData()
    if request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        body = pieces(request, most)
        parser = MultiPartParser(request.headers, body, max_files=files, max_fields=fields, max_part_size=most)
        try:
            form = await parser.parse()
        except MultiPartException as error:
            raise ServerError(f"the form cannot be read: {error.message}") from error
        except (LookupError, ValueError) as error:  # no boundary, no such character set
            raise ServerError("the form cannot be read: it is no multipart form") from error
    try:
        yield form
    finally:
        await form.close()
