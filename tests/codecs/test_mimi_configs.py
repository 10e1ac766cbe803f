import pytest
from tiny_mimi import CONFIG, moshi_config

from duologue.codecs.mimi import MimiConfig
from duologue.codecs.mimi_configs import config_from_kyutai, config_from_transformers
from duologue.errors import CheckpointError


def test_kyutais_words():
    from moshi.models.loaders import _mimi_config

    assert config_from_kyutai(_mimi_config) == MimiConfig()
    assert config_from_kyutai(moshi_config(CONFIG), num_codebooks=5) == CONFIG


def test_transformers_words():
    from transformers import MimiConfig as TheirConfig

    assert config_from_transformers(TheirConfig().to_dict()) == MimiConfig()


def test_options_that_we_do_not_have_are_named():
    from transformers import MimiConfig as TheirConfig

    theirs = TheirConfig().to_dict()
    with pytest.raises(CheckpointError, match="use_conv_shortcut = True is not supported, only False"):
        config_from_transformers({**theirs, "use_conv_shortcut": True})
    with pytest.raises(CheckpointError, match="upsample_groups = 1 is not supported, only 512"):
        config_from_transformers({**theirs, "upsample_groups": 1})
    with pytest.raises(CheckpointError, match="model_type = 'encodec'"):
        config_from_transformers({**theirs, "model_type": "encodec"})
    other = moshi_config(CONFIG)
    other["seanet"] = {**other["seanet"], "pad_mode": "reflect"}
    with pytest.raises(CheckpointError, match="seanet: pad_mode = 'reflect' is not supported, only 'constant'"):
        config_from_kyutai(other)
    del other["seanet"]
    with pytest.raises(CheckpointError, match="the key 'seanet' is missing"):
        config_from_kyutai(other)
