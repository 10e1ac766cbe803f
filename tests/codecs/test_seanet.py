import pytest
import torch
from conformance import Case, check_all

from duologue.codecs.seanet import SeanetConfig, seanet_decoder, seanet_encoder
from duologue.errors import ConfigError, ShapeError

CONFIG = SeanetConfig(dim=6, filters=4, ratios=(3, 2), residual_layers=2)
ONE = torch.tensor([True])


def test_the_encoder_keeps_the_contract():
    torch.manual_seed(0)
    encoder = seanet_encoder(CONFIG)

    def call(x_BTC, state, live_B, _):
        return encoder(x_BTC, state, live_B)

    check_all(Case(encoder.init_state, call, torch.randn(3, 24, 1), [[6] * 4, [18, 6], [6, 12, 6]]))


def test_the_decoder_keeps_the_contract():
    torch.manual_seed(0)
    decoder = seanet_decoder(CONFIG)

    def call(x_BTD, state, live_B, _):
        return decoder(x_BTD, state, live_B)

    check_all(Case(decoder.init_state, call, torch.randn(3, 9, 6), [[1] * 9, [4, 5], [2, 6, 1]]))


def test_shapes_and_what_is_refused():
    encoder, decoder = seanet_encoder(CONFIG), seanet_decoder(CONFIG)
    features = encoder(torch.randn(1, 30, 1), encoder.init_state(1), ONE)
    assert features.shape == (1, 5, 6)
    assert decoder(features, decoder.init_state(1), ONE).shape == (1, 30, 1)
    with pytest.raises(ShapeError, match="Framer"):
        encoder(torch.randn(1, 31, 1), encoder.init_state(1), ONE)
    for wrong in ({"ratios": ()}, {"ratios": (2, 0)}, {"filters": 5}):
        with pytest.raises(ConfigError, match="SeanetConfig"):
            SeanetConfig(**wrong)
