"""The optimiser that trains the farmyard's networks: its directions, its sizes, what it leaves to AdamW."""

import pytest
import torch
from torch import nn

from nulltext.farmyard.recipe.stages.muon import Muon, orthogonalised, split


@pytest.mark.parametrize("shape", [(2, 24, 60), (2, 60, 24), (1, 32, 32)])
def test_orthogonalised_matrices_keep_their_singular_vectors_and_have_values_about_one(shape):
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    u, _, vh = torch.linalg.svd(matrices, full_matrices=False)
    values = (u.mT @ orthogonalised(matrices).float() @ vh.mT).diagonal(dim1=1, dim2=2)
    assert values.min() > 0.5
    assert values.max() < 1.3


def test_a_step_has_the_size_of_an_adamw_step_whatever_the_gradients_scale():
    sizes = []
    for scale in (1e-3, 1e3):
        torch.manual_seed(0)
        layer = nn.Conv2d(16, 32, 3)
        before = layer.weight.detach().clone()
        optimiser = Muon(*split([layer]), lr=0.01)
        (scale * layer(torch.randn(4, 16, 8, 8)).square().sum()).backward()
        optimiser.step()
        sizes.append((layer.weight - before).square().mean().sqrt().item() / 0.01)
    assert sizes[0] == pytest.approx(sizes[1], rel=0.02)
    assert 0.1 < sizes[0] < 0.4


def test_the_ends_and_what_is_no_matrix_go_as_under_adamw():
    torch.manual_seed(0)
    net = nn.ModuleDict({"conv_in": nn.Conv2d(3, 8, 3), "norm": nn.GroupNorm(2, 8)})
    twin = nn.ModuleDict({"conv_in": nn.Conv2d(3, 8, 3), "norm": nn.GroupNorm(2, 8)})
    twin.load_state_dict(net.state_dict())
    matrices, others = split([net])
    assert not matrices
    ours = Muon(matrices, others, lr=0.01, weight_decay=0.1)
    theirs = torch.optim.AdamW(twin.parameters(), lr=0.01, betas=(0.9, 0.99), weight_decay=0.1)
    for _ in range(5):
        x = torch.randn(4, 3, 8, 8)
        for network, optimiser in ((net, ours), (twin, theirs)):
            optimiser.zero_grad()
            network["norm"](network["conv_in"](x)).square().mean().backward()
            optimiser.step()
    for a, b in zip(net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
