"""What a server's settings mean for its conversations."""

from __future__ import annotations

import pytest
from fakes import EchoModel

from duologue.pipeline import Pipeline
from duologue.server.app import ServeConfig, Server


@pytest.mark.parametrize("config,echo", [(ServeConfig(), True), (ServeConfig(echo=False), False)])
def test_answers_are_taken_out_of_what_microphones_hear_unless_told_otherwise(config, echo):
    assert Server(Pipeline(EchoModel(), name="echo"), config=config).options().echo is echo
