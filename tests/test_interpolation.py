"""Network interpolation: its ends, its middle, and what it refuses."""

import pytest
import torch

from sr_iqa.archs import build_network
from sr_iqa.interpolation import InterpolationError, differences, interpolate
from tests.tiny_runs import RRDB, SWINIR


def weights(seed, section=SWINIR):
    torch.manual_seed(seed)
    return build_network(section).state_dict()


@pytest.mark.parametrize("section", [SWINIR, RRDB])
def test_the_ends_are_the_two_networks_to_the_bit(section):
    a, b = weights(1, section), weights(2, section)
    for alpha, end in ((0, a), (1, b)):
        mixed = interpolate(a, b, alpha)
        assert list(mixed) == list(a) and all(torch.equal(mixed[name], end[name]) for name in end)


def test_between_the_ends_every_weight_is_on_the_line_and_nothing_is_shared():
    a, b = weights(1), weights(2)
    mixed = interpolate(a, b, 0.25)
    for name, value in a.items():
        assert mixed[name].data_ptr() != value.data_ptr() and mixed[name].dtype == value.dtype
        if value.is_floating_point():
            torch.testing.assert_close(mixed[name], value + 0.25 * (b[name] - value))
    net = build_network(SWINIR)
    net.load_state_dict(mixed)
    assert torch.isfinite(net(torch.rand(1, 3, 16, 16))).all()


def test_whole_numbers_come_from_the_nearer_network_and_infinities_survive():
    a = {"steps": torch.tensor(3), "mask": torch.tensor([0.0, -torch.inf]), "on": torch.tensor(True), "w": torch.tensor([1.0])}
    b = {"steps": torch.tensor(8), "mask": torch.tensor([0.0, -torch.inf]), "on": torch.tensor(False), "w": torch.tensor([3.0])}
    assert [int(interpolate(a, b, alpha)["steps"]) for alpha in (0, 0.5, 0.75, 1)] == [3, 3, 8, 8]
    assert all(torch.equal(interpolate(a, b, alpha)["mask"], a["mask"]) for alpha in (0, 0.5, 1))
    assert [bool(interpolate(a, b, alpha)["on"]) for alpha in (0, 1)] == [True, False]
    assert interpolate(a, b, 1.5)["w"].item() == 4.0


def test_networks_that_differ_are_refused_with_the_names():
    a, b = weights(1), weights(1)
    b["conv_first.weight"] = torch.zeros(9, 3, 3, 3)
    b["extra"] = b.pop("conv_last.bias") if "conv_last.bias" in b else b.pop(list(b)[-1])
    with pytest.raises(InterpolationError) as refused:
        interpolate(a, b, 0.5)
    message = str(refused.value)
    assert "3 tensors differ" in message and "extra is only in the second" in message and "is only in the first" in message
    assert "conv_first.weight is (8, 3, 3, 3) float32 in the first, (9, 3, 3, 3) float32 in the second" in message
    half = {name: value.half() if value.is_floating_point() else value for name, value in a.items()}
    assert "float16 in the second" in differences(a, half)[0]
    with pytest.raises(InterpolationError, match="and [0-9]+ more"):
        interpolate(weights(1), weights(1, RRDB), 0.5)
