"""Other noise to start an edit from."""

import torch

from nulltext.editing.noise import other_noise


def test_other_noise_is_reproducible_of_full_strength_and_only_inside_the_mask():
    noise, mask = torch.full((1, 4, 64, 64), 9.0), torch.zeros(64, 64)
    mask[:32] = 1.0
    once, again, another = (other_noise(noise, mask, seed) for seed in (1, 1, 2))
    assert torch.equal(once, again) and not torch.equal(once, another)
    assert torch.equal(once[..., 32:, :], noise[..., 32:, :])
    assert abs(once[..., :32, :].std() - 1) < 0.05 and abs(once[..., :32, :].mean()) < 0.05
    assert abs(other_noise(noise, None, 1).mean()) < 0.05
