"""Group normalisation with a backward pass that suits CPUs: PyTorch's takes half of a VAE's training step there."""

from typing import Any

import torch
from torch import Tensor, nn


class _GroupNorm(torch.autograd.Function):
    """y = (x - mean) / deviation * weight + bias over the groups of channels of (B, C, H, W).

    Written as y = a x + c with one a and one c a channel, so that forward and backward are sums over pixels and one or
    two multiply-adds, in channels-last order.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
        count = x[0].numel() // groups
        mean = _over_groups(_over_pixels(x), groups) / count  # (B, C)
        variance = (_over_groups(_over_pixels(x.square()), groups) / count - mean.square()).clamp(min=0)
        scale = (variance + eps).rsqrt()
        ctx.save_for_backward(x, weight, mean, scale)
        ctx.groups = groups
        a = weight * scale
        return torch.addcmul(_maps(bias - mean * a, x), x, _maps(a, x))

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        x, weight, mean, scale = ctx.saved_tensors
        count = x[0].numel() // ctx.groups
        (dy,) = outer
        d_bias = _over_pixels(dy)  # (B, C)
        d_weight = (_over_pixels(dy * x) - mean * d_bias) * scale
        mean_dy = _over_groups(weight * d_bias, ctx.groups) / count
        mean_dy_x = _over_groups(weight * d_weight, ctx.groups) / count
        slope = -scale.square() * mean_dy_x
        shift = -scale * mean_dy - slope * mean
        dx = torch.addcmul(_maps(shift, x), dy, _maps(weight * scale, x)).addcmul_(x, _maps(slope, x))
        return dx, d_weight.sum(dim=0), d_bias.sum(dim=0), None, None


def _over_pixels(x: Tensor) -> Tensor:
    """(B, C, H, W) summed over the pixels, (B, C): rows in the type that x has, their sums in fp32 at least.

    A sum of bfloat16 that is asked for in fp32 makes a copy first and takes ten times as long.
    """
    exact = torch.promote_types(x.dtype, torch.float32)
    return x.permute(0, 2, 3, 1).sum(dim=2).sum(dim=1, dtype=exact)


def _over_groups(sums: Tensor, groups: int) -> Tensor:
    """(B, C) summed over each group of channels, for each channel of the group."""
    return (
        sums.unflatten(1, (groups, -1))
        .sum(dim=2, keepdim=True)
        .expand(-1, -1, sums.shape[1] // groups)
        .flatten(1)
    )


def _maps(values: Tensor, like: Tensor) -> Tensor:
    """(B, C) as (B, C, 1, 1) of another tensor's type."""
    return values[:, :, None, None].to(like.dtype)


class FastGroupNorm(nn.GroupNorm):
    """`torch.nn.GroupNorm`, the same but for rounding; only maps (B, C, H, W) on a CPU go another way."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise."""
        if x.dim() != 4 or x.device.type != "cpu":
            return super().forward(x)
        x = x.contiguous(memory_format=torch.channels_last)
        return _GroupNorm.apply(x, self.weight, self.bias, self.num_groups, self.eps)


def speed_up(network: nn.Module) -> None:
    """Exchange a network's group norms for fast ones, and lay its maps out channels last; weights stay as they are."""
    for module in network.modules():
        if type(module) is nn.GroupNorm:
            module.__class__ = FastGroupNorm
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it
