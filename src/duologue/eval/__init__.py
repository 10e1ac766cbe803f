"""Measures a model against what it must reach, and writes a report: `run("mini")`.

`metrics` and `judges` score, `testsets`, `sounds` and `voices` make what is asked, `tasks` and `bench` measure,
`report` shows. docs/evaluation.md says what each number means.
"""

from duologue.eval.runner import EVALUATIONS, run

__all__ = ["EVALUATIONS", "run"]
