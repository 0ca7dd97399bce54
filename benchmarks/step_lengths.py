"""Inner steps from the linearised problem: along what, and how far.

A guided step lands on the pivot where the null prediction is eps*, which is r = eps* - eps_null away. A small change d
of the null embedding changes the prediction by J d, J = d eps / d null, so the change to take is

    min_d  ||J d - r||^2 + weight ||null + d - empty||^2

J^T r is a backward through the graph that eps_null has already. J d is a forward a little way along d, less eps_null:
forward-mode differentiation would compute eps_null again beside it, and fused attention has none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from methods import MakeOptimizer, Outcome
from torch import Tensor

from nulltext.backbone import Backbone, TextEmbedding
from nulltext.ddim import Schedule, ddim_step, guide
from nulltext.inversion import optimise, sample, start_embedding
from nulltext.inversion_settings import InversionSettings, default_optimizer


@dataclass
class Timestep:
    """One timestep for B pictures: its null embeddings so far, and what they should predict."""

    backbone: Backbone
    z: Tensor  # (B, 4, h, w)
    t: Tensor
    cond: TextEmbedding
    null: Tensor  # (B, L, d)
    eps: Tensor  # (B, 4, h, w), the prediction under them, with its graph
    wanted: Tensor  # (B, 4, h, w), eps*
    empty: Tensor  # (B, L, d), the empty prompt
    step: Tensor  # what a null prediction of one moves the latents by
    penalty: (
        float  # of the mean squared distance to the empty prompt, against that of the latents to the pivot
    )
    active: Tensor  # (B,) bool: the others are asked in vain, which is taken off the counts

    @property
    def residual(self) -> Tensor:
        """What the prediction should change by, r."""
        return self.wanted - self.eps.detach()

    @property
    def weight(self) -> Tensor:
        """The penalty in the sum of squares above."""
        return self.penalty * self.eps[0].numel() / self.null[0].numel() / self.step**2

    def losses(self, eps: Tensor, null: Tensor) -> Tensor:
        """Mean squared distance to the pivot (B,), and to the empty prompt by the penalty."""
        off = (self.step * (self.wanted - eps.detach())).square().flatten(1).mean(dim=1)
        return off + self.penalty * (null.detach() - self.empty).square().flatten(1).mean(dim=1)

    def goes_on(self, tolerance: float) -> bool:
        """Whether a picture's loss is still above the tolerance."""
        self.active = self.active & ~(self.losses(self.eps, self.null) < tolerance)
        return bool(self.active.any())

    def pull_back(self, r: Tensor) -> Tensor:
        """J^T r, one backward."""
        (gradient,) = torch.autograd.grad((self.eps * r).sum(), self.null, retain_graph=True)
        self.backbone.backwards -= int((~self.active).sum())
        return gradient

    def push_forward(self, d: Tensor, h: Tensor, whose: Tensor | None = None) -> Tensor:
        """J d, one forward at h along d; ``whose`` are the pictures that need it."""
        with torch.no_grad():
            there = self._ask(self.null + _each(h, d) * d, self.active if whose is None else whose)
        return (there - self.eps.detach()) / _each(h, there)

    def move(self, d: Tensor, learn: bool) -> Tensor:
        """Changes the null embeddings where that brings them closer; one forward, with a graph to learn from or not.

        Returns:
            What the predictions changed by (B, 4, h, w), taken back or not.
        """
        null = (self.null + d).detach().requires_grad_(learn)
        with torch.set_grad_enabled(learn):
            eps = self._ask(null, self.active)
        better = self.active & (self.losses(eps, null) < self.losses(self.eps, self.null))
        moved = eps.detach() - self.eps.detach()
        null.data = torch.where(_each(better, null), null.data, self.null.data)
        self.eps = torch.where(_each(better, eps), eps, self.eps.detach())
        self.null, self.active = null, better
        return moved

    def _ask(self, null: Tensor, whose: Tensor) -> Tensor:
        self.backbone.forwards -= int((~whose).sum())
        return self.backbone.predict_noise(self.z, self.t, self.cond.with_sequence(null))


Inner: TypeAlias = Callable[[Timestep, InversionSettings], None]


def walk(
    backbone: Backbone,
    schedule: Schedule,
    pivot: Tensor,
    cond: TextEmbedding,
    settings: InversionSettings,
    inner: Callable[[], Inner],
    penalty: float = 0.0,
) -> Outcome:
    """The guided walk from the pivot's noise, the null embeddings of each timestep bent by ``inner``."""
    w, z = settings.guidance_scale, pivot[0]
    empty, start = (start_embedding(backbone, cond, x).sequence for x in (0.0, settings.start))
    bend, nulls = inner(), [start]
    for i in range(schedule.steps):
        t, a_from, a_to = schedule.timesteps[i], schedule.alpha_from[i], schedule.alpha_to[i]
        null = (nulls[-1] if settings.warm_start else start).detach().clone().requires_grad_(True)
        same = torch.equal(null, cond.sequence)
        eps_null = backbone.predict_noise(z, t, cond.with_sequence(null))
        with torch.no_grad():
            eps_cond = eps_null.detach() if same else backbone.predict_noise(z, t, cond)
        here = ddim_step(z, guide(eps_null.detach(), eps_cond, w), a_from, a_to)
        step = (1 - w) * ddim_step(torch.zeros(()), torch.ones(()), a_from, a_to).to(z.device)
        wanted = eps_null.detach() + (pivot[i + 1] - here) / step
        active = torch.ones(len(z), dtype=torch.bool, device=z.device)
        timestep = Timestep(
            backbone, z, t, cond, null, eps_null, wanted, empty, step, penalty, active
        )  # fmt: skip
        bend(timestep, settings)
        z = ddim_step(z, guide(timestep.eps.detach(), eps_cond, w), a_from, a_to)
        nulls.append(timestep.null.detach())
    return Outcome(z, torch.stack(nulls[1:]))


def gauss_newton(directions: int) -> Inner:
    """N Gauss-Newton steps of so many conjugate directions; one direction is the gradient, its length exact."""

    def bend(timestep: Timestep, settings: InversionSettings) -> None:
        for j in range(settings.inner_steps):
            if not timestep.goes_on(settings.tolerance):
                return
            d = conjugate_gradients(timestep, directions)
            timestep.move(d, learn=j + 1 < settings.inner_steps)

    return bend


def conjugate_gradients(timestep: Timestep, directions: int) -> Tensor:
    """The best change within so many directions (CGLS), a backward and a forward each."""
    r, x, weight = timestep.residual, timestep.null.detach() - timestep.empty, timestep.weight
    d = torch.zeros_like(x)
    p = s = timestep.pull_back(r) - weight * x
    for k in range(directions):
        longest = (_dot(r, r) + weight * _dot(x, x)) / _dot(s, s)  # no step is longer, by Cauchy and Schwarz
        q = timestep.push_forward(p, 0.1 * longest)
        length = (_dot(r, q) - weight * _dot(x, p)) / (_dot(q, q) + weight * _dot(p, p))
        length = length.clamp(min=0).minimum(longest)
        d, x = d + _each(length, p) * p, x + _each(length, p) * p
        r = r - _each(length, r) * q
        if k + 1 < directions:
            before, s = s, timestep.pull_back(r) - weight * x
            p = s + _each(_dot(s, s) / _dot(before, before), p) * p
    return d


class CarriedLength:
    """Steps along the gradient g, without a probe: a step is the probe of the next.

    A step of length l has changed the prediction by m = l J g, so that l <r, m> / <m, m> would have been best. That
    is the next step's length: in the same timestep the long one of Barzilai and Borwein (1988), else carried over.

    Args:
        kept: Every step is as long as was best in the first timestep.
        short: From its second step on, a timestep takes Barzilai and Borwein's short length, from two gradients.
    """

    def __init__(self, kept: bool = False, short: bool = False) -> None:
        self.kept, self.short = kept, short
        self.length: Tensor | None = None  # (B,), nan where no step was taken yet

    def __call__(self, timestep: Timestep, settings: InversionSettings) -> None:
        """Bends one timestep's null embeddings."""
        before: Tensor | None = None  # the gradient of the step before in this timestep
        taken = torch.zeros(())  # and that step's length
        for j in range(settings.inner_steps):
            if not timestep.goes_on(settings.tolerance):
                return
            r = timestep.residual
            g = timestep.pull_back(r)
            longest = _dot(r, r) / _dot(g, g)
            length = self._known(timestep, r, g, longest)
            if self.short and before is not None:
                y = before - g
                length = taken * _dot(before, y) / _dot(y, y)
            taken = length.clamp(min=0).minimum(longest)
            asked = timestep.active
            m = timestep.move(_each(taken, g) * g, learn=j + 1 < settings.inner_steps)
            best = (taken * _dot(r, m) / _dot(m, m)).clamp(min=0).minimum(longest)
            if not self.kept:
                self.length = torch.where(asked & (best > 0), best, self.length)
            before = g

    def _known(self, timestep: Timestep, r: Tensor, g: Tensor, longest: Tensor) -> Tensor:
        """The length so far; a probe finds a picture's first."""
        if self.length is None:
            self.length = torch.full_like(longest, torch.nan)
        new = timestep.active & self.length.isnan()
        if new.any():
            q = timestep.push_forward(g, 0.1 * longest, whose=new)
            best = (_dot(r, q) / _dot(q, q)).clamp(min=0).minimum(longest)
            self.length = torch.where(new, best, self.length)
        return self.length


def first_share(
    backbone: Backbone,
    schedule: Schedule,
    pivot: Tensor,
    cond: TextEmbedding,
    settings: InversionSettings,
    share: float,
    optimizer: MakeOptimizer = default_optimizer,
) -> Outcome:
    """Optimises the first share of the timesteps only; the rest goes under the last null embeddings (2401.09794)."""
    n = round(share * schedule.steps)
    first, rest = (
        Schedule(schedule.timesteps[part], schedule.alpha_from[part], schedule.alpha_to[part], schedule.prediction_type)
        for part in (slice(n), slice(n, None))
    )  # fmt: skip
    done = list(optimise(backbone, first, pivot[: n + 1], cond, settings, optimizer))
    nulls = [null for _, null in done]
    last = start_embedding(backbone, cond, settings.start)
    if settings.warm_start:
        last = last.with_sequence(nulls[-1])
    w = 1.0 if last.equals(cond) else settings.guidance_scale  # under the source prompt w has no say
    z = sample(backbone, rest, done[-1][0].z, cond, [last], w)
    return Outcome(z, torch.stack([*nulls, *[last.sequence] * rest.steps]))


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """One inner product a picture (B,)."""
    return (a * b).flatten(1).sum(dim=1)


def _each(x: Tensor, like: Tensor) -> Tensor:
    """One number a picture, to go with its tensor."""
    return x.reshape(-1, *[1] * (like.ndim - 1))
