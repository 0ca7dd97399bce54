"""Where the source and the target prompt would denoise the source differently."""

from collections.abc import Sequence

import torch
from torch import Tensor

from nulltext.diffusion import Schedule
from nulltext.editing.compositing import pool, smooth
from nulltext.editing.kinds.controls import AttentionControl, RowControl, controlled
from nulltext.editing.phrases import taken_back
from nulltext.editing.regions.base import Context, Region, Source
from nulltext.models.conditioning import Conditioning

PROBES = 6
"""How often the noise predictions of two prompts are compared."""
PROBED_TIMESTEPS = (400, 750)
"""Between them layout and shapes are decided: earlier all is noise, later only texture is left."""
GENEROUS = 0.5
"""Part of Otsu's threshold that is taken: a mask too small leaves the source's outline around a changed shape."""
SLIGHT = 0.03
"""A change of the prompt that differs by less, as a share of the strongest, has no part of the mask: a word's form."""
NOTHING = 1e-3
"""A difference in predicted noise, whose deviation is 1, below which two prompts mean the same picture."""


class NoiseDifference(Region):
    """DiffEdit's mask (Couairon et al., arXiv 2210.11427) of each change of the prompt, smoothed, cut and grown."""

    def find(self, context: Context) -> Tensor:
        """The parts of the picture that the prompts disagree about; all 0 where they mean the same picture.

        Each change is measured against its own strongest place, so that a hat is found beside another background.
        """
        differences = context.difference()
        strength = differences.amax(dim=(1, 2))
        told = differences[strength >= SLIGHT * strength.max()]
        masks = [automatic_mask(one, context.edit.threshold, context.edit.max_pool) for one in told]
        return torch.stack(masks).amax(dim=0)


@torch.no_grad()
def noise_difference(
    source: Source, targets: Conditioning, prompts: Sequence[str], controls: Sequence[RowControl]
) -> list[Tensor]:
    """How differently target prompts would denoise the source with and without each of their changes.

    The source has fresh noise, the same for all. The root mean square over channels, as in section 3.2 of DiffEdit, but
    averaged over several noise levels. Attention control exists to make the two alike: only its equalizer counts.

    Args:
        source: The source.
        targets: The embedded target prompts, N rows.
        prompts: The same as texts; that with one change taken back is, of a single change, the source's own.
        controls: Their attention control.

    Returns:
        For each target (n, h, w), n its changes.
    """
    schedule, z_0, own = source.schedule, source.trajectory[-1], source.inversion.prompt
    lacking = [list(taken_back(own, prompt).values()) for prompt in prompts]
    lacking = [several if len(several) > 1 else [own] for several in lacking]
    others = list(dict.fromkeys(prompt for several in lacking for prompt in several if prompt != own))
    rows = {own: 0} | {prompt: 1 + len(prompts) + k for k, prompt in enumerate(others)}
    text = Conditioning.cat([source.cond, targets])
    if others:
        text = Conditioning.cat([text, source.model.embed(others, source.inversion.size)])
    generator = torch.Generator().manual_seed(0)
    heard = any(bool((row.equalizer != 1).any()) for row in controls)
    nothing = RowControl.nothing(schedule.steps, controls[0].mapper.shape[0])
    acting = [*(row.only_equalizer() for row in controls), *[nothing] * len(others)]
    control = AttentionControl(acting, source.size) if heard else None
    differences = [z_0.new_zeros(len(several), *source.size) for several in lacking]
    with controlled(source.model, control):
        for i in probe_steps(schedule):
            if control is not None:
                control.start_step(i)
            level = schedule.here(i)
            noise = torch.randn(z_0.shape, generator=generator).to(z_0)
            z = (level.alpha * z_0 + level.sigma * noise).expand(len(text), *z_0.shape[1:])
            eps = source.model.predict(z, schedule, i, text).eps
            for k, several in enumerate(lacking):
                change = eps[1 + k] - eps[[rows[prompt] for prompt in several]]
                differences[k] += change.square().mean(1).sqrt() / PROBES
    return differences


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
