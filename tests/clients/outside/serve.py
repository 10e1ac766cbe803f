"""The server that the clients of this folder talk to: python serve.py ADDRESS_FILE [SECONDS].

Each client runs in an environment of its own, so as not to bring its dependencies into this one:

    python tests/clients/outside/serve.py /tmp/address &
    pip install livekit-agents livekit-plugins-openai    && python livekit_client.py $(cat /tmp/address)
    pip install "pipecat-ai[openai,websockets-base]"     && python pipecat_client.py $(cat /tmp/address)
    npm install @openai/agents-realtime zod              && node agents_client.mjs $(cat /tmp/address)

The echo hears a tone as speech; the second turn of a conversation calls a function.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from fakes import EchoConfig, EchoModel
from realtime_talk import served


def router(transcript: str, tools, *, forced: bool):
    return (tools[0]["name"], json.dumps({"city": "Oslo"})) if "turn 2" in transcript else None


if __name__ == "__main__":
    with served(EchoModel(EchoConfig(audio_ticks=60)), router=router) as (address, _):
        Path(sys.argv[1]).write_text(address)
        time.sleep(float(sys.argv[2]) if len(sys.argv) > 2 else 600)
