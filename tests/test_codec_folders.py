import json

import pytest
import torch
from tiny_mimi import CONFIG, speech

from duologue.checkpoints.codecs import load_codec, save_codec
from duologue.codecs.mimi import Mimi
from duologue.codecs.mimi_weights import load_mimi
from duologue.errors import CheckpointError
from duologue.train.mimi_task import begin_loud


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    mimi = Mimi(CONFIG)
    begin_loud(mimi)
    for name, buffer in mimi.quantizer.named_buffers():
        if name.endswith("total"):
            buffer.normal_()
    return save_codec(mimi.eval(), tmp_path / "codec", card="# A codec"), mimi


def test_a_codec_comes_back_as_it_was_saved(folder):
    path, mimi = folder
    back = load_codec(path)
    assert back.config == mimi.config and not back.training
    live_B, audio_BN = torch.ones(1, dtype=torch.bool), speech(3)
    codes = [codec.encode(audio_BN, codec.init_state(1).encoder, live_B) for codec in (mimi, back)]
    assert torch.equal(*codes) and (path / "MODEL_CARD.md").is_file()


def test_half_the_size_keeps_the_codebooks_whole(folder, tmp_path):
    path, mimi = folder
    half = save_codec(mimi, tmp_path / "half", half=True)
    back, own = load_codec(half).state_dict(), mimi.state_dict()
    for name, value in own.items():
        rounded = value if ".codebooks." in name else value.half().float()
        assert torch.equal(back[name], rounded), name
    sizes = [(each / "mimi.safetensors").stat().st_size for each in (path, half)]
    assert sizes[1] < 0.75 * sizes[0]


def test_its_weight_file_is_of_the_released_layout(folder):
    path, mimi = folder
    alone = load_mimi(path / "mimi.safetensors", CONFIG)
    assert all(torch.equal(value, alone.state_dict()[name]) for name, value in mimi.state_dict().items())


def test_a_model_of_another_kind_and_a_config_of_another_shape_are_refused(folder):
    path, _ = folder
    with pytest.raises(CheckpointError, match="need one of 'mimi'"):
        load_codec("mini")
    config = json.loads((path / "config.json").read_text())
    config["model"]["quantizer"]["codebook_size"] = 32
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="the configuration says"):
        load_codec(path)
