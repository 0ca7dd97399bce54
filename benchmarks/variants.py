"""The ways of inverting that the front compares: where the null embeddings start, how they learn, from what pivot."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

import torch
from methods import MakeOptimizer, Outcome
from pivots import SecondOrder, at_once, secant
from step_lengths import CarriedLength, first_share, gauss_newton, walk
from torch import Tensor
from torch.optim import Adam

from nulltext.backbone import Backbone, TextEmbedding
from nulltext.ddim import Schedule
from nulltext.inversion import optimise
from nulltext.inversion_settings import InversionSettings, default_optimizer
from nulltext.optimizers import NormalisedGradient
from nulltext.pivot import ddim_invert

Walk: TypeAlias = Callable[[Backbone, Schedule, Tensor, TextEmbedding, InversionSettings], Outcome]
Pivot: TypeAlias = Callable[[Backbone, Schedule, Tensor, TextEmbedding], Tensor]

STARTS = {1.0: "source", 0.5: "halfway", 0.0: "empty"}
ADAM = partial(Adam, lr=0.01)


def by_optimizer(
    backbone: Backbone,
    schedule: Schedule,
    pivot: Tensor,
    cond: TextEmbedding,
    settings: InversionSettings,
    optimizer: MakeOptimizer,
) -> Outcome:
    """The program's own walk; takes what the batch asked for waiting pictures off the counts."""
    done = list(optimise(backbone, schedule, pivot, cond, settings, optimizer))
    waited = sum(record.grad_norms.numel() - int(record.inner_steps.sum()) for record, _ in done)
    backbone.forwards -= waited
    backbone.backwards -= waited
    return Outcome(done[-1][0].z, torch.stack([null for _, null in done]))


def by_second_order(
    backbone: Backbone,
    schedule: Schedule,
    pivot: Tensor,
    cond: TextEmbedding,
    settings: InversionSettings,
) -> Outcome:
    """The walk of second order."""
    return SecondOrder(schedule, backbone.device).walk(backbone, pivot, cond, settings)


def second_order_pivot(
    backbone: Backbone, schedule: Schedule, z_0: Tensor, cond: TextEmbedding, sweeps: int
) -> Tensor:
    """The pivot for that walk, refined once a sweep."""
    return SecondOrder(schedule, backbone.device).pivot(backbone, z_0, cond, 1, sweeps)


def _bent(inner: Callable[[], Callable[..., None]], penalty: float = 0.0) -> Walk:
    return partial(walk, inner=inner, penalty=penalty)


GRADIENT, EXACT = "gradient, 0.002 long", "exact length, conjugate directions"
LONG = "0.01 long"
CARRIED, PENALISED = "lengths carried, Barzilai-Borwein", "exact length, penalised"
SHARE, OTHER = "first timesteps only", "other pivot or walk"
PENALTIES = (1e-4, 1e-3, 1e-2)
SHARES = (0.2, 0.4, 0.6)
WALKS: dict[str, tuple[Walk, str]] = {  # how the null embeddings learn, and what the plot calls it
    "": (partial(by_optimizer, optimizer=default_optimizer), GRADIENT),
    LONG: (partial(by_optimizer, optimizer=partial(NormalisedGradient, lr=0.01)), f"gradient, {LONG}"),
    "Adam": (partial(by_optimizer, optimizer=ADAM), "Adam"),
    "Adam, lr 0.1": (partial(by_optimizer, optimizer=partial(Adam, lr=0.1)), "Adam"),
    "exact length": (_bent(partial(gauss_newton, 1)), EXACT),
    "2 directions": (_bent(partial(gauss_newton, 2)), EXACT),
    "3 directions": (_bent(partial(gauss_newton, 3)), EXACT),
    "length kept": (_bent(partial(CarriedLength, kept=True)), CARRIED),
    "length carried": (_bent(CarriedLength), CARRIED),
    "short length": (_bent(partial(CarriedLength, short=True)), CARRIED),
    "second order": (by_second_order, OTHER),
    **{f"penalty {x:.0e}": (_bent(partial(gauss_newton, 1), x), PENALISED) for x in PENALTIES},
    **{f"first {x:.0%}": (partial(first_share, share=x), SHARE) for x in SHARES},
    **{f"Adam, first {x:.0%}": (partial(first_share, share=x, optimizer=ADAM), SHARE) for x in SHARES},
}
PIVOTS: dict[str, Pivot] = {  # beside those of the settings
    "secant until 1e-05": partial(secant, tolerance=1e-5),
    **{f"at once, {n} sweeps": partial(at_once, sweeps=n) for n in (1, 2, 4, 6)},
    **{f"at once, {n} sweeps alone": partial(at_once, sweeps=n, correct=False) for n in (4, 8)},
    **{f"second order, {n} sweeps": partial(second_order_pivot, sweeps=n) for n in (1, 2)},
}


@dataclass(frozen=True)
class Variant:
    """A way of inverting, at several T."""

    settings: InversionSettings
    steps: tuple[int, ...] = (20,)
    walk: str = ""  # one of WALKS
    pivot: str = ""  # one of PIVOTS, or as the settings say

    @property
    def start(self) -> str:
        """Where the null embeddings start."""
        return STARTS[self.settings.start]

    @property
    def name(self) -> str:
        """Start, inner steps and tolerance, pivot, walk."""
        s = self.settings
        words = [self.start, f"N = {s.inner_steps}"]
        words += [f"tolerance {s.tolerance:.0e}"] if s.inner_steps and s.tolerance else []
        refined = f"until {s.pivot_tolerance:.0e}" if s.pivot_tolerance else f"{s.fixed_point_iterations}"
        words += [f"pivot {self.pivot or refined}", *filter(None, [self.walk])]
        default = s == InversionSettings() and not self.walk and not self.pivot
        return ", ".join(words) + " (default)" * default

    @property
    def family(self) -> str:
        """What the plot calls it."""
        if self.pivot:
            return OTHER
        return WALKS[self.walk][1] if self.settings.inner_steps else "no inner step"

    def make_pivot(self, backbone: Backbone, schedule: Schedule, z_0: Tensor, cond: TextEmbedding) -> Tensor:
        """The trajectory (T + 1, B, 4, h, w)."""
        if self.pivot:
            return PIVOTS[self.pivot](backbone, schedule, z_0, cond)
        k, tolerance = self.settings.fixed_point_iterations, self.settings.pivot_tolerance
        alone = [  # so that each is refined, and counted, as often as it needs
            ddim_invert(
                backbone,
                schedule,
                z_0[b : b + 1],
                cond[b : b + 1],
                fixed_point_iterations=k,
                pivot_tolerance=tolerance,
            )
            for b in range(len(z_0))
        ]
        return torch.cat(alone, dim=1)


def _variants() -> Iterator[Variant]:
    every, until = (10, 20, 25, 50), InversionSettings()
    source = replace(until, fixed_point_iterations=1, pivot_tolerance=0.0)
    always = replace(source, tolerance=0.0)
    for k in (0, 1, 2):
        yield Variant(replace(source, inner_steps=0, fixed_point_iterations=k), every)
        yield Variant(replace(source, fixed_point_iterations=k), every)
        yield Variant(replace(source, fixed_point_iterations=k), every, LONG)
    yield Variant(always, every, LONG)
    for n in (2, 10):
        yield Variant(replace(source, inner_steps=n), (20,), LONG)
        yield Variant(replace(always, inner_steps=n), (20,), LONG)
    yield Variant(source, every, "Adam")
    yield Variant(always, (10, 20), "Adam")
    for start in (0.5, 0.0):
        yield Variant(replace(always, start=start, inner_steps=0))
        for n in (1, 2, 10):
            yield Variant(replace(always, start=start, inner_steps=n), (20,), LONG)
    for tolerance in (1e-4, 1e-5, 1e-6):
        refined = replace(until, pivot_tolerance=tolerance)
        yield Variant(replace(refined, inner_steps=0), every)
        yield Variant(refined, every)
        yield Variant(refined, every, LONG)
    for start in (0.5, 0.0):
        yield Variant(replace(until, start=start, tolerance=0.0, inner_steps=10), (20,), LONG)
    yield from _learning(source, always)
    yield from _other_pivots(source)


def _learning(source: InversionSettings, always: InversionSettings) -> Iterator[Variant]:
    """Other directions and lengths, a penalty, and no steps from some timestep on."""
    empty, halfway = replace(always, start=0.0), replace(always, start=0.5)
    for name in ("exact length", "2 directions", "length kept", "length carried"):
        yield Variant(source, (10, 20), name)
        yield Variant(always, (20,), name)
    for start in (halfway, empty):
        for name in ("exact length", "2 directions", "3 directions", "length kept", "length carried"):
            yield Variant(start, (20,), name)
    for start in (always, halfway, empty):
        yield Variant(replace(start, inner_steps=2), (20,), "exact length")
        for n in (2, 3):
            for name in ("length carried", "short length"):
                yield Variant(replace(start, inner_steps=n), (20,), name)
    yield Variant(replace(empty, inner_steps=2), (20,), "3 directions")
    for n, name in ((1, "Adam, lr 0.1"), (2, "Adam, lr 0.1"), (10, "Adam")):
        yield Variant(replace(empty, inner_steps=n), (20,), name)
    for x in PENALTIES:
        for start in (always, halfway):
            yield Variant(start, (20,), f"penalty {x:.0e}")
    for x in SHARES:
        yield Variant(always, (20,), f"first {x:.0%}")
        yield Variant(replace(empty, inner_steps=10), (20,), f"Adam, first {x:.0%}")


def _other_pivots(source: InversionSettings) -> Iterator[Variant]:
    """Pivots refined with a secant, of all timesteps at once, of second order."""
    none = replace(source, inner_steps=0)
    for name in PIVOTS:
        second, steps = name.startswith("second"), (20,) if name.startswith("at once") else (10, 20)
        yield Variant(none, steps, "second order" * second, name)
        if not second:
            yield Variant(source, steps, LONG if name.startswith("at once") else "", name)


VARIANTS = tuple(_variants())
