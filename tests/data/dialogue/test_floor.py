"""Who has the floor, against intervals worked out by hand."""

from duologue.data.dialogue.floor import between, floor, joined, totals


def test_stretches_are_joined_and_cut():
    assert joined([(2.0, 3.0), (0.0, 1.0), (1.1, 1.5)], 0.2) == [(0.0, 1.5), (2.0, 3.0)]
    assert joined([(0.0, 4.0), (1.0, 2.0)], 0.2) == [(0.0, 4.0)]
    assert between([(0.0, 1.0), (2.0, 4.0), (5.0, 6.0)], 0.5, 3.0) == [(0.5, 1.0), (2.0, 3.0)]


def test_who_has_the_floor_by_hand():
    one = [(1.0, 3.0), (3.1, 4.0), (4.5, 5.0), (9.0, 12.0)]  # the first two are one unit
    other = [(6.0, 8.0), (9.5, 10.0), (11.5, 13.0)]
    found = floor(one, other, seconds=60.0)
    assert found.ipu == ((1.0, 4.0), (4.5, 5.0), (6.0, 8.0), (9.0, 12.0), (9.5, 10.0), (11.5, 13.0))
    assert found.pause == ((4.0, 4.5),)
    assert found.gap == ((5.0, 6.0), (8.0, 9.0))
    assert found.overlap == ((9.5, 10.0), (11.5, 12.0))
    assert totals([found]) == {"ipu": (6, 10.5), "pause": (1, 0.5), "gap": (2, 2.0), "overlap": (2, 1.0)}
    assert totals([found, floor([], [], seconds=60.0)])["gap"] == (1.0, 1.0)
