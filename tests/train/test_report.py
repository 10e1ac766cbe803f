import json
from xml.etree import ElementTree

from train.toy import toy_config

from duologue.train import report, train


def test_the_page_shows_curves_settings_machine_time_and_memory_without_any_link(tmp_path):
    train(toy_config(tmp_path, steps=30, name="toy <1>"))
    page = (tmp_path / "report.html").read_text()
    result = json.loads((tmp_path / "result.json").read_text())
    for part in ("toy &lt;1&gt;", "30 of 30", "optimizer.warmup", "task.dropout", "peak memory", result["date"]):
        assert part in page, part
    assert result["machine"] in page
    assert page.count("<svg") == 4 + 2  # loss, size, lr, norm; error, training
    assert "http" not in page and "<script" not in page and "src=" not in page
    svg = page[page.index("<svg") : page.index("</svg>") + 6]
    points = [line.get("points") for line in ElementTree.fromstring(svg).iter("polyline")]
    assert points and all(len(each.split()) > 1 for each in points)


def test_a_page_can_be_written_while_the_run_goes_on(tmp_path):
    train(toy_config(tmp_path, steps=3))
    (tmp_path / "result.json").unlink()
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write('{"step": 4, "lo')  # half a line, as a run leaves it in mid-write
    assert "3 of 3" in report.write(tmp_path).read_text()
