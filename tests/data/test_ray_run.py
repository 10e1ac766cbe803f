from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

from duologue.data.speakers import Voice
from duologue.data.steps.base import SynthesisConfig
from duologue.data.steps.sources import SourceConfig
from duologue.data.synthesis import synthesise

VOICE = f"{sys.executable} {Path(__file__).with_name('fake_voice.py')} {{out}} {{text}}"


def test_ray_data_with_two_workers_gives_the_same_bytes(tmp_path):
    import ray

    rows = [{"question": f"What is {n} + {n}?", "answer": f"It is {2 * n}."} for n in range(6)]
    (tmp_path / "sums.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    recipe = SynthesisConfig(
        name="try",
        sources=(SourceConfig(path=str(tmp_path / "sums.jsonl"), name="sums", licence="CC0"),),
        shard_rows=2,
        voices=(Voice(kind="command", name="tones", command=VOICE),),
        answers="given",
        steps=("instructions", "speech"),
    )
    synthesise(recipe, tmp_path / "one", progress=False)
    try:
        synthesise(dataclasses.replace(recipe, workers=2), tmp_path / "ray", ray=True, progress=False)
    finally:
        ray.shutdown()
    made = {
        path.relative_to(tmp_path / "one"): path.read_bytes()
        for path in (tmp_path / "one").rglob("*")
        if path.is_file()
    }
    for name, data in made.items():
        assert (tmp_path / "ray" / name).read_bytes() == data, name
    assert len(made) > 4
