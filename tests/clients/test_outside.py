"""Unmodified clients of the Realtime API, each in an environment of its own, which `make test-clients` makes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fakes import EchoConfig, EchoModel
from realtime_talk import served

pytestmark = pytest.mark.clients

CLIENTS = Path(__file__).parent / "outside"
PLACES = Path(sys.prefix) / "clients"


def second_turn(transcript: str, tools, *, forced: bool):
    """The second turn of a conversation calls the client's function."""
    return (tools[0]["name"], json.dumps({"city": "Oslo"})) if "turn 2" in transcript else None


def command(name: str) -> list[str]:
    """Runs a client where its packages are. The address comes last."""
    place = PLACES / name
    if not place.is_dir():
        pytest.fail(f"{place}: the client is not installed; run `make test-clients`, which makes its environment")
    if name != "agents":
        return [str(place / "bin" / "python"), str(CLIENTS / f"{name}_client.py")]
    script = place / "agents_client.mjs"  # node looks for packages beside the file
    shutil.copy(CLIENTS / script.name, script)
    return [str(Path(sys.executable).parent / "node"), str(script)]


@pytest.mark.parametrize("name", ["pipecat", "livekit", "agents"])
def test_a_client_talks_is_interrupted_and_has_its_function_called(name, tmp_path):
    with served(EchoModel(EchoConfig(audio_ticks=60)), router=second_turn) as (address, _):
        ran = subprocess.run([*command(name), address], cwd=tmp_path, capture_output=True, text=True, timeout=180)
    assert ran.returncode == 0 and f"{name}: good" in ran.stdout, ran.stdout[-2_000:] + ran.stderr[-4_000:]
