import numpy as np
import pytest
import torch
from tiny_mimi import speech
from train import tiny
from train.coding import save_speech

from duologue.data.audio_augment import active_rms
from duologue.data.manifest import Turn, encode_flac, write_shard
from duologue.errors import CheckpointError, DataError
from duologue.train import codec_teacher
from duologue.train.codec_data import DITHER, LEVELS, pooled, read
from duologue.train.codec_teacher import STEP, load_teacher, taught


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("codec_data")
    save_speech(path / "data")
    tiny.save_whisper(path / "teacher")
    return path


@pytest.fixture(scope="module")
def data(folder):
    return read([str(folder / "data")], load_teacher(str(folder / "teacher")), frame_steps=4)


def test_crops_depend_on_their_number_alone(data):
    train = data[0]
    third = list(zip(range(3), train.batches(2, 3, seed=5, position=0), strict=False))[2][1]()
    again = next(train.batches(2, 3, seed=5, position=2))()
    assert torch.equal(third.audio_BN, again.audio_BN) and torch.equal(third.taught_BTD, again.taught_BTD)
    assert not torch.equal(third.audio_BN, next(train.batches(2, 3, seed=5, position=3))().audio_BN)
    assert third.audio_BN.shape == (2, 3 * 1920) and third.taught_BTD.shape[:2] == (2, 3)


def test_splits_share_no_row_and_rows_at_16_khz_are_heard_too(data):
    train, dev = (set(part.folders[0].rows) for part in data)
    assert not train & dev and {"said-0", "said-1"} <= train and dev


def test_what_the_teacher_hears_stands_beside_what_is_heard(folder, data):
    """The vectors of a crop are those of the whole row at its place, whatever comes before."""
    row = data[0].folders[0].cache["said-2"]
    assert len(row["audio"]) == len(row["taught"]) == 32
    audio_N = torch.from_numpy(speech(8, rows=3)[-1].numpy() * (0.5 + 2 / 8))
    torch.testing.assert_close(row["audio"].flatten().float() / 32_768, audio_N, atol=2e-4, rtol=0)


def test_a_crop_longer_than_every_row_is_joined_of_several(data):
    audio_N, taught_TD = data[0].crop(40, np.random.default_rng(0))
    assert audio_N.shape == (40 * 1920,) and len(taught_TD) == 40


def test_levels_are_drawn_and_silence_is_dithered(data):
    for seed in range(6):
        audio_N, _ = data[0].crop(5, np.random.default_rng(seed))
        assert LEVELS[0] - 1 < 20 * np.log10(active_rms(audio_N.numpy())) < LEVELS[1] + 1
        assert float(audio_N.diff().abs().min()) < 10 * DITHER and float((audio_N == 0).float().mean()) < 0.01


def test_crops_as_they_were_said_are_beginnings_of_rows_unchanged(folder):
    train, _ = read([str(folder / "data")], None, frame_steps=4, as_said=True)
    begins = [train.folders[0].cache[row]["audio"].flatten()[: 5 * 1920] for row in train.folders[0].rows]
    for seed in range(4):
        audio_N, _ = train.crop(5, np.random.default_rng(seed))
        assert any(torch.equal(audio_N, begin.float() / 32_768) for begin in begins)


def test_means_look_as_far_ahead_as_back():
    steps_SD = torch.arange(16.0)[:, None]
    assert pooled(steps_SD, 4)[:, 0].tolist() == [2.5, 5.5, 9.5, 12.5]  # the middle ones: of 8 steps around 4 t + 1.5


def test_folders_without_the_split_or_with_other_shares_are_refused(folder, tmp_path):
    teacher = load_teacher(str(folder / "teacher"))
    flac = encode_flac(speech(3)[0].numpy(), 24_000)
    write_shard(tmp_path / "shards" / "shard-00000.parquet", [Turn(id="a", answer_audio=flac)])
    with pytest.raises(DataError, match="no row of the split 'dev'"):
        read([str(tmp_path)], teacher, frame_steps=4)
    with pytest.raises(DataError, match="a share for each"):
        read([str(tmp_path)], teacher, shares=(1.0, 2.0), frame_steps=4)


def test_shares_say_how_often_a_folder_is_drawn(folder, tmp_path):
    save_speech(tmp_path / "other")
    folders = [str(folder / "data"), str(tmp_path / "other")]
    data = read(folders, load_teacher(str(folder / "teacher")), shares=(3.0, 1.0), frame_steps=4)
    assert [part.share for part in data[0].folders] == [0.75, 0.25]


def test_long_audio_is_heard_in_pieces(folder, monkeypatch):
    monkeypatch.setattr(codec_teacher, "PIECE", 50 * STEP)
    teacher = load_teacher(str(folder / "teacher"))
    audio_N = torch.randn(101 * STEP + 7)
    found = taught(teacher, audio_N)
    assert found.shape == (101, teacher.dim), "one step too short to be heard is like the one before it"
    torch.testing.assert_close(found[50:100], taught(teacher, audio_N[50 * STEP : 100 * STEP]))
    assert torch.equal(found[100], found[99])


def test_the_packaged_model_teaches():
    teacher = load_teacher("mini")
    assert teacher.dim == 384 and taught(teacher, 0.1 * torch.randn(16_000)).shape == (50, 384)


def test_wavlm_teaches_through_transformers(tmp_path):
    from transformers import WavLMConfig, WavLMModel

    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    convolutions = {"conv_dim": (8,) * 7, "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}
    WavLMModel(WavLMConfig(**shape, **convolutions)).save_pretrained(tmp_path)
    teacher = load_teacher(str(tmp_path))
    assert taught(teacher, torch.randn(16_000)).shape == (50, 16)


def test_a_folder_that_teaches_nothing_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "wavlm"}')
    with pytest.raises(CheckpointError, match="cannot load this teacher"):
        load_teacher(str(tmp_path))
