"""What the timesteps of a group of pictures left behind, for its report and its curves."""

from dataclasses import dataclass, field

from torch import Tensor

from nulltext.inversion import StepRecord
from nulltext.module import NullTextInversion


@dataclass
class History:
    """What the timesteps of the current group left behind; B pictures."""

    losses: list[Tensor] = field(default_factory=list)  # a timestep: (n, B), before each inner step
    after: list[Tensor] = field(default_factory=list)  # a timestep: (B,), after the last
    inner_steps: list[Tensor] = field(default_factory=list)  # a timestep: (B,)
    seconds: float = 0.0

    def add(self, record: StepRecord, after: Tensor) -> None:
        """One timestep more. A timestep that a crash made run twice replaces its first run."""
        for kept, value in (
            (self.losses, record.losses),
            (self.after, after),
            (self.inner_steps, record.inner_steps),
        ):
            del kept[record.step :]
            kept.append(value.detach().cpu())

    def before(self, b: int) -> list[float]:
        """The loss of each timestep before its first inner step; NaN where there was none."""
        return [float(losses[0, b]) if len(losses) else float("nan") for losses in self.losses]


def loss_left(module: NullTextInversion) -> Tensor:
    """How far (B,) the walk is from the pivot after the timestep just done: the mean square over the latent."""
    assert module.record is not None
    return (module.record.z - module.pivot[module.record.step + 1]).square().mean(dim=(1, 2, 3))
