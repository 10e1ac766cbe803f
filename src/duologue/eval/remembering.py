"""Whether what users tell of themselves is known when they ask for it after much small talk."""

from __future__ import annotations

import torch

from duologue.eval import testsets
from duologue.eval.context import Context, answer_text
from duologue.eval.metrics import bootstrap, contains_answer, mean
from duologue.eval.tasks import Outcome, Row, Task
from duologue.pipeline import Pipeline
from duologue.streaming.state import State

SMALL_TALK = 55  # turns between what was told and the questions: more than mini's context holds
_MOST_STEPS = 400  # of an answer


def recall(context: Context) -> Outcome:
    """All facts are told in one conversation, in text; each question goes on from the same moment of it."""
    rows = testsets.read_lines(context.data / "told_facts.jsonl", "told", "question", "answers", "split")
    facts = [row for row in rows if row["split"] == "test"]
    facts = facts[: context.count(len(facts))]
    questions = testsets.read_lines(context.data / "heldout_questions.jsonl", "question")[:SMALL_TALK]
    asked = context.pipe(speak=False)
    talk = [(row["question"], answer_text(asked, row["question"])) for row in questions]
    values, details = {}, {}
    for key, settings in (("recall", {"speak": False}), ("recall_off", {"speak": False, "recall": False})):
        pipe = context.pipe(**settings)
        state = pipe.model.init_state(1)
        for row in facts:
            _write(pipe, state, ("user", row["told"]), ("assistant", "Okay."))
        for question, answer in talk:
            _write(pipe, state, ("user", question), ("assistant", answer))
        moment, found = state.save(0), []
        for row in context.each(facts):
            state.load(0, moment)
            answer = _ask(pipe, state, row["question"])
            right = contains_answer(answer, row["answers"])
            found.append({"told": row["told"], "question": row["question"], "answer": answer, "right": float(right)})
        values[key], details[key] = bootstrap([row["right"] for row in found], mean), found
    return Outcome(values=values, count=len(facts), details=details)


@torch.inference_mode()
def _write(pipe: Pipeline, state: State, *parts: tuple[str, str]) -> None:
    for role, text in parts:
        for _ in pipe.model.write(state, 0, role, text):
            pass


def _ask(pipe: Pipeline, state: State, question: str) -> str:
    _write(pipe, state, ("user", question))
    live_B, ids = torch.tensor([True]), []
    with torch.inference_mode():
        pipe.model.end_turn(state, live_B)
        for _ in range(_MOST_STEPS):
            frame = pipe.model.speak(state, live_B)
            ids += [token for token in frame.ids_BT[0].tolist() if token >= 0]
            if bool(frame.done_B[0]):
                break
    return pipe.model.text(ids)


RECALL = Task(
    name="recall",
    run=recall,
    rows=(
        Row(
            key="recall",
            title=f"what was told, asked after {SMALL_TALK} turns of small talk, answered rightly",
            unit="%",
            higher=True,
        ),
        Row(key="recall_off", title="the same where nothing is brought back", unit="%", higher=True),
    ),
)
