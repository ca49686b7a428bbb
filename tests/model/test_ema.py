import pytest
from torch import nn
from torch.testing import assert_close

from ctinterp_dagster.errors import CheckpointError
from ctinterp_dagster.model.ema import Ema


def module(value: float) -> nn.Linear:
    linear = nn.Linear(2, 1)
    for parameter in linear.parameters():
        nn.init.constant_(parameter, value)
    return linear


def test_the_mean_follows_the_warm_up_by_hand() -> None:
    linear = module(0.0)
    ema = Ema(linear, decay=0.15)
    expected = 0.0
    for decay, value in ((1 / 10, 1.0), (0.15, 3.0), (0.15, -2.0)):  # 2/11 and 3/12 exceed 0.15
        nn.init.constant_(linear.bias, value)
        expected = decay * expected + (1 - decay) * value
        ema.update(linear)
        assert float(ema.weights["bias"]) == pytest.approx(expected, rel=1e-6)


def test_a_long_run_reaches_the_full_decay() -> None:
    linear = module(0.0)
    ema = Ema(linear, decay=0.5)
    for _ in range(50):
        ema.update(linear)
    nn.init.constant_(linear.bias, 1.0)
    ema.update(linear)
    assert float(ema.weights["bias"]) == 0.5


def test_weights_are_swapped_in_and_come_back_even_after_an_error() -> None:
    linear = module(1.0)
    ema = Ema(linear, decay=0.9)
    nn.init.constant_(linear.bias, 5.0)
    seen = []

    def fail_inside() -> None:
        with ema.swapped_in(linear):
            seen.append(linear.bias.item())
            raise KeyError("inside")

    with pytest.raises(KeyError, match="inside"):
        fail_inside()
    assert seen == [1.0]
    assert linear.bias.item() == 5.0
    ema.copy_to(linear)
    assert linear.bias.item() == 1.0


def test_a_saved_mean_continues_as_if_it_had_not_been_saved() -> None:
    linear = module(0.0)
    ema = Ema(linear, decay=0.99)
    ema.update(module(1.0))
    other = Ema(linear, decay=0.99)
    other.load_state_dict(ema.state_dict())
    for each in (ema, other):
        each.update(module(2.0))
    assert other.updates == 2
    assert_close(other.weights["bias"], ema.weights["bias"], rtol=0, atol=0)


def test_the_mean_of_another_network_is_refused() -> None:
    ema = Ema(module(0.0), decay=0.9)
    with pytest.raises(CheckpointError, match="those of another network"):
        ema.load_state_dict(Ema(nn.Conv1d(1, 1, 1, bias=False), decay=0.9).state_dict())
