"""A run can be stopped and gone on with, and its report shows what was found."""

import json
import re

import pytest
import torch
from eval.helpers import make_context

from duologue.errors import ConfigError, DataError
from duologue.eval import runner
from duologue.eval.metrics import Interval
from duologue.eval.report import Line, show
from duologue.eval.tasks import Outcome, Row, Task


def counting(name, calls, *, error=None, value=0.03):
    def run(context):
        calls.append(name)
        if error:
            raise DataError(error)
        return Outcome(
            values={f"{name}_key": Interval(value, value - 0.01, value + 0.01)}, count=5, details={"rows": [1]}
        )

    row = Row(key=f"{name}_key", title=f"the measure {name}", unit="%", must=0.05, aim=0.02)
    return Task(name=name, rows=(row,), run=run)


@pytest.fixture
def both(monkeypatch):
    calls = []
    tasks = (counting("first", calls), counting("second", calls))
    monkeypatch.setattr(runner, "EVALUATIONS", {"mini": tasks})
    return calls, tasks


def test_what_was_found_is_kept_and_not_measured_again(tmp_path, both):
    calls, tasks = both
    context, _ = make_context(tmp_path)
    runner.run_tasks(context, tasks[:1])
    runner.run_tasks(context, tasks)
    assert calls == ["first", "second"]
    runner.run_tasks(context, tasks, again=True)
    assert calls == ["first", "second"] * 2


def test_another_model_or_a_full_run_is_measured_anew(tmp_path, both):
    calls, tasks = both
    for changes in ({}, {"model": "other"}, {"model": "other", "quick": False}):
        context, _ = make_context(tmp_path, **changes)
        runner.run_tasks(context, tasks[:1])
    assert calls == ["first"] * 3


def test_a_task_that_fails_is_told_in_the_report_and_tried_again(tmp_path, monkeypatch, both):
    calls, (first, _) = both
    broken = counting("second", calls, error="no recordings here")
    monkeypatch.setattr(runner, "EVALUATIONS", {"mini": (broken, first)})
    context, _ = make_context(tmp_path)
    page = runner.run_tasks(context, (broken, first))
    assert "no recordings here" in page.read_text() and "the measure first" in page.read_text()
    runner.run_tasks(context, (broken, first))
    assert calls == ["second", "first", "second"]


def test_the_report_stands_alone(tmp_path, both):
    context, _ = make_context(tmp_path)
    page = runner.run_tasks(context, both[1])
    text = page.read_text()
    assert not re.findall(r"(?:src|href)=['\"](?!data:|raw\.json)", text), "nothing is fetched from elsewhere"
    assert "3.0 %" in text and "2.0 % to 4.0 %" in text
    table = (page.parent / "report.md").read_text()
    assert "| the measure first | ≤ 5.0 % | ≤ 2.0 % | 3.0 % | 2.0 % to 4.0 % | 5 | met |" in table
    raw = json.loads((page.parent / "raw.json").read_text())
    assert raw["tasks"]["first"]["details"] == {"rows": [1]} and raw["machine"]["processor"]


@pytest.mark.parametrize(
    "name,more,title",
    [
        ("mini", {}, "duologue eval mini"),
        ("bench", {}, "duologue bench"),
        ("serve", {"only": ["second"]}, "duologue bench serve --only second"),
        ("serve", {"settings": ["omega=4"], "quick": True}, "duologue bench serve --set omega=4 --quick"),
    ],
)
def test_a_report_is_titled_by_the_command_that_makes_it(tmp_path, monkeypatch, both, name, more, title):
    monkeypatch.setattr(runner, "EVALUATIONS", dict.fromkeys(("mini", "bench", "serve"), both[1]))
    page = runner.run(name, out=tmp_path, threads=torch.get_num_threads(), **more)
    assert f"<title>{title}</title>" in page.read_text() and f"<h1>{title}</h1>" in page.read_text()
    assert (tmp_path / "report.md").read_text().startswith(f"# {title}\n")


def test_a_title_names_another_model_but_not_where_it_lies():
    assert runner.command("serve", model="/home/me/my models/tiny", only=None) == "duologue bench serve --model tiny"


def test_the_whole_evaluation_of_the_echo_fits_into_one_report(tmp_path):
    context, _ = make_context(tmp_path)
    tasks = [task for task in runner.EVALUATIONS["mini"] if task.name != "footprint"]
    page = runner.run_tasks(context, tasks)
    text = page.read_text()
    assert "failed:" not in text
    assert text.count("<svg") == 3 and "data:audio/mpeg" in text
    table = (page.parent / "report.md").read_text()
    assert "| offline |" in table and "lagging words" in table


@pytest.mark.parametrize(
    ("value", "higher", "mark"),
    [(1.0, False, "aim met"), (3.0, False, "met"), (6.0, False, "missed"), (6.0, True, "met")],
)
def test_marks_follow_from_the_goals(value, higher, mark):
    must, aim = (5.0, 10.0) if higher else (5.0, 2.0)
    row = Row(key="k", title="t", must=must, aim=aim, higher=higher)
    assert Line(row=row, value=Interval(value, value, value)).mark == mark


def test_numbers_are_shown_in_their_unit():
    assert [show(0.0123, "%"), show(226.4, "ms"), show(3.456, ""), show(1e-5, ""), show(None, "ms")] == [
        "1.2 %",
        "226 ms",
        "3.46",
        "1.0e-05",
        "",
    ]


def test_unknown_names_are_refused_by_name(both):
    with pytest.raises(ConfigError, match="the tasks are first, second"):
        runner.choose(both[1], ["third"])
    with pytest.raises(ConfigError, match="there are: mini"):
        runner.run("maxi")
    with pytest.raises(ConfigError, match="key=value"):
        runner.parse_settings(["omega"])


def test_settings_are_json_where_they_parse():
    assert runner.parse_settings(["omega=20", "listen=text", "a.b=true"]) == {
        "omega": 20,
        "listen": "text",
        "a.b": True,
    }


def test_a_report_does_not_tell_where_files_lie():
    words = ["eval", "mimi", "--model", "/home/me/tiny", "-o", "/tmp/x", "--threads", "1", "--cache=/tmp/c", "--set"]
    assert runner.typed([*words, "a=1"]) == [
        *("eval", "mimi", "--model", "tiny", "--threads", "1", "--cache=c", "--set", "a=1")
    ]
    assert runner.typed(["bench", "--out", "-o", "--quick"]) == ["bench", "--quick"]
    assert runner.typed(["bench", "--out=here", "--only", "a"]) == ["bench", "--only", "a"]
