"""Where the source and the target prompt would denoise the source differently."""

from collections.abc import Sequence

import torch
from torch import Tensor

from nulltext.diffusion import Schedule
from nulltext.editing.compositing import pool, smooth
from nulltext.editing.kinds.controls import AttentionControl, RowControl, controlled
from nulltext.editing.regions.base import Context, Region, Source
from nulltext.models.conditioning import Conditioning

PROBES = 6
"""How often the noise predictions of two prompts are compared."""

PROBED_TIMESTEPS = (400, 750)
"""Between them layout and shapes are decided: earlier all is noise, later only texture is left."""

GENEROUS = 0.5
"""Part of Otsu's threshold that is taken: a mask too small leaves the source's outline around a changed shape."""

NOTHING = 1e-3
"""A difference in predicted noise, whose deviation is 1, below which two prompts mean the same picture."""


class NoiseDifference(Region):
    """DiffEdit's mask (Couairon et al., arXiv 2210.11427), smoothed, cut and grown."""

    def find(self, context: Context) -> Tensor:
        """The part of the picture that the prompts disagree about; all 0 where they mean the same picture."""
        return automatic_mask(context.difference(), context.edit.threshold, context.edit.max_pool)


@torch.no_grad()
def noise_difference(source: Source, targets: Conditioning, controls: Sequence[RowControl]) -> Tensor:
    """How differently the source's prompt and N targets would denoise the source under fresh noise (N, h, w).

    The root mean square over channels, as in section 3.2 of DiffEdit, but averaged over several noise levels, each with
    its own noise, which is always the same. Attention control exists to make the two alike: only its equalizer counts.
    """
    schedule, z_0 = source.schedule, source.trajectory[-1]
    text = Conditioning.cat([source.cond, targets])
    generator = torch.Generator().manual_seed(0)
    heard = any(bool((row.equalizer != 1).any()) for row in controls)
    control = AttentionControl([row.only_equalizer() for row in controls], source.size) if heard else None
    differences = []
    with controlled(source.model, control):
        for i in probe_steps(schedule):
            if control is not None:
                control.start_step(i)
            level = schedule.here(i)
            noise = torch.randn(z_0.shape, generator=generator).to(z_0)
            z = (level.alpha * z_0 + level.sigma * noise).expand(len(text), *z_0.shape[1:])
            eps = source.model.predict(z, schedule, i, text).eps
            differences.append((eps[1:] - eps[:1]).square().mean(1).sqrt())  # (N, h, w)
    return torch.stack(differences).mean(0)


def probe_steps(schedule: Schedule) -> list[int]:
    """The steps to probe, evenly spread over ``PROBED_TIMESTEPS``, some twice where T is small."""
    low, high = PROBED_TIMESTEPS
    inside = [i for i, t in enumerate(schedule.t.tolist()) if low <= t <= high]
    inside = inside or [schedule.steps // 2]
    return [inside[round(k * (len(inside) - 1) / (PROBES - 1))] for k in range(PROBES)]


def automatic_mask(difference: Tensor, threshold: float | None = None, max_pool: int = 3) -> Tensor:
    """The part of the picture (h, w) in [0, 1] that a prompt is to change, from its noise difference (h, w).

    The difference is smoothed, measured against its 97th percentile, cut at a threshold (by default from Otsu's, which
    suits the picture), grown by a max-pool of odd side so that a larger shape finds room, and softened at its edge.
    """
    smoothed = smooth(difference)
    scale = torch.quantile(smoothed, 0.97)
    if scale < NOTHING:
        return torch.zeros_like(difference)
    relative = (smoothed / scale).clamp(max=1)
    cut = GENEROUS * otsu_threshold(relative) if threshold is None else threshold
    return smooth(pool((relative > cut).float(), max_pool))


def otsu_threshold(values: Tensor) -> float:
    """The threshold that parts values in [0, 1] into two groups as different as can be (Otsu 1979)."""
    histogram = torch.histc(values.float(), bins=64, min=0, max=1)
    centres = (torch.arange(64, device=values.device) + 0.5) / 64
    below = histogram.cumsum(0)
    above = below[-1] - below
    moment = (histogram * centres).cumsum(0)
    gap = moment / below.clamp(min=1) - (moment[-1] - moment) / above.clamp(min=1)
    return float((torch.argmax(below * above * gap.square()) + 1) / 64)
