"""The inner optimisers on problems with known answers."""

from __future__ import annotations

import torch

from nulltext.inversion.methods.optimizers import ConjugateAdam, NormalisedGradient

GENERATOR = torch.Generator().manual_seed(0)
A = torch.randn(3, 30, 12, generator=GENERATOR)  # three least-squares problems
B = torch.randn(3, 30, generator=GENERATOR)


def _losses(rows: slice, steps: int, scale: float = 1.0, lr: float = 0.1) -> torch.Tensor:
    """The loss (B,) at each of so many steps of least squares || A x - b ||^2."""
    a, b = A[rows], B[rows]
    x = torch.zeros(len(a), 12, requires_grad=True)
    optimizer = ConjugateAdam([x], first_lr=lr)
    seen = []
    for _ in range(steps):
        residual = scale * (torch.einsum("brc,bc->br", a, x) - b)
        seen.append(residual.detach().square().mean(1) / scale**2)
        expected = optimizer.observe(x, residual.detach())
        (x.grad,) = torch.autograd.grad(2 * (residual * expected).mean(1).sum(), x)
        optimizer.step()
        x.grad = None
    return torch.stack(seen)


def _best(rows: slice) -> torch.Tensor:
    solution = torch.linalg.lstsq(A[rows], B[rows, :, None]).solution
    return (A[rows] @ solution - B[rows, :, None]).square().mean((1, 2))


def test_least_squares_are_solved_in_a_few_steps() -> None:
    losses = _losses(slice(0, 3), 40)
    start, best = losses[0], _best(slice(0, 3))
    assert ((losses.amin(0) - best) < 1e-2 * (start - best)).all()


def test_it_needs_no_tuned_learning_rate() -> None:
    best = _best(slice(0, 3))
    for lr in (1e-3, 1e-1, 10.0):
        losses = _losses(slice(0, 3), 60, lr=lr)
        assert ((losses.amin(0) - best) < 5e-2 * (losses[0] - best)).all()


def test_rows_do_not_see_each_other() -> None:
    together = _losses(slice(0, 3), 10)
    for k in range(3):
        torch.testing.assert_close(together[:, k : k + 1], _losses(slice(k, k + 1), 10), rtol=1e-4, atol=1e-6)


def test_the_scale_of_the_residual_does_not_matter() -> None:
    torch.testing.assert_close(
        _losses(slice(0, 3), 8), _losses(slice(0, 3), 8, scale=100.0), rtol=1e-3, atol=1e-6
    )


def test_a_normalised_step_has_its_length_whatever_the_gradient() -> None:
    x = torch.zeros(2, 5, requires_grad=True)
    x.grad = torch.stack([torch.full((5,), 1e-6), torch.arange(5.0)])
    NormalisedGradient([x], lr=0.1).step()
    torch.testing.assert_close(x.detach().square().mean(1).sqrt(), torch.full((2,), 0.1))
