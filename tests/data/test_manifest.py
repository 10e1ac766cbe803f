from __future__ import annotations

import numpy as np
import pytest

from duologue.data.manifest import (
    DataCard,
    Turn,
    decode_flac,
    encode_flac,
    read_metadata,
    read_rows,
    read_shard,
    shard_name,
    shard_paths,
    write_card,
    write_shard,
)
from duologue.errors import DataError


def turns(count: int = 5) -> list[Turn]:
    return [
        Turn(
            id=f"t-{n}",
            split=("train", "dev")[n % 2],
            question=f"Question {n}?",
            question_audio=bytes([n]) * n,
            units=list(range(n)),
            unit_prosody=[0.5] * (3 * n),
            wer=0.25,
            seed=2**62 + n,
        )
        for n in range(count)
    ]


def test_rows_come_back_as_they_went(tmp_path):
    write_shard(tmp_path / "a.parquet", turns(), metadata={"dropped": "7"})
    assert read_shard(tmp_path / "a.parquet") == turns()
    assert read_metadata(tmp_path / "a.parquet")["dropped"] == "7"
    assert read_shard(tmp_path / "a.parquet")[2].prosody().shape == (2, 3)


def test_the_same_rows_give_the_same_bytes(tmp_path):
    write_shard(tmp_path / "a.parquet", turns())
    write_shard(tmp_path / "b.parquet", turns())
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_an_empty_shard_is_a_shard(tmp_path):
    write_shard(tmp_path / "a.parquet", [])
    assert read_shard(tmp_path / "a.parquet") == []


def test_only_what_is_asked_for_is_read(tmp_path):
    write_shard(tmp_path / shard_name(1), turns(4)[2:])
    write_shard(tmp_path / shard_name(0), turns(2))
    rows = list(read_rows(tmp_path, split="dev", columns=("question",)))
    assert [(row.id, row.question, row.units) for row in rows] == [
        ("t-1", "Question 1?", []),
        ("t-3", "Question 3?", []),
    ]


def test_half_a_shard_is_never_left(tmp_path, monkeypatch):
    with pytest.raises(Exception, match="int"):
        write_shard(tmp_path / "a.parquet", [Turn(id="x", units=["no number"])])  # type: ignore[list-item]
    with monkeypatch.context() as patch, pytest.raises(DataError, match="No space left"):
        patch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        write_shard(tmp_path / "a.parquet", turns())
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write the shard"):
        write_shard(tmp_path / "file" / "a.parquet", turns())
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_is_no_manifest_is_named(tmp_path):
    with pytest.raises(DataError, match="no such shard"):
        read_shard(tmp_path / "a.parquet")
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(DataError, match="not a readable Parquet"):
        read_shard(tmp_path / "a.parquet")
    with pytest.raises(DataError, match="no shards here"):
        shard_paths(tmp_path)
    with pytest.raises(DataError, match="split 'all'"):
        next(read_rows(tmp_path, split="all"))


def test_audio_comes_back_to_sixteen_bits():
    audio = np.random.default_rng(0).uniform(-1, 1, 4000).astype(np.float32)
    data = encode_flac(audio, 16_000)
    assert data == encode_flac(audio, 16_000)
    np.testing.assert_allclose(decode_flac(data, 16_000), audio, atol=1 / 32_000)
    with pytest.raises(DataError, match="at 16000 Hz"):
        decode_flac(data, 24_000)
    with pytest.raises(DataError, match="no audio"):
        decode_flac(b"", 16_000)
    with pytest.raises(DataError, match="cannot be decoded"):
        decode_flac(b"noise", 16_000)


def test_the_card_says_what_there_is(tmp_path):
    card = DataCard(
        name="try",
        facts={"seed": "7"},
        sources=[("own", "Apache-2.0", 3)],
        voices=[],
        splits={"train": (3, 0.5, 0.25)},
        drops=[("answers", "a|b", 2, 0.4)],
        measures={"units": "9"},
    )
    text = write_card(tmp_path, card).read_text()
    for line in (
        "| train | 3 | 0.50 | 0.25 |",
        "| own | Apache-2.0 | 3 |",
        "| answers | a\\|b | 2 | 40.0% |",
        "| seed | 7 |",
    ):
        assert line in text
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
