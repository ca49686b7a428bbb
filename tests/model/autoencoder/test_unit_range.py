import torch

from ctinterp_dagster.model.autoencoder.unit_range import unit_to_volume, volume_to_unit


def test_a_volume_comes_back_from_unit_range_within_what_maisi_knows() -> None:
    hu = torch.linspace(-1000, 1000, 60).reshape(3, 4, 5)
    unit = volume_to_unit(hu)
    assert unit.shape == (1, 1, 3, 4, 5)
    assert (float(unit.min()), float(unit.max())) == (0.0, 1.0)
    assert torch.allclose(unit_to_volume(unit), hu, atol=1e-3)
    assert torch.equal(volume_to_unit(2 * hu), volume_to_unit((2 * hu).clip(-1000, 1000)))
