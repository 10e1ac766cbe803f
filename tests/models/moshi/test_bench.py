from tiny_moshi import TINY

from duologue.models.moshi import bench


def test_every_kind_of_weights_is_timed_beside_theirs(monkeypatch):
    monkeypatch.setattr(bench, "SHAPE", TINY)
    times = bench.step_times(rows=(1, 3), past=5, steps=1, threads=1)
    assert [(one.rows, one.weights) for one in times] == [
        (rows, kind) for kind in ("float32", "bfloat16", "int8") for rows in (1, 3)
    ]
    assert all(one.ours > 0 for one in times)
    assert all((one.theirs is None) == (one.weights == "int8") for one in times)
