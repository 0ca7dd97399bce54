"""What a network predicts, one step, and guidance."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from nulltext.diffusion.schedule import Level


@dataclass(frozen=True)
class Prediction:
    """A network's output at latents z, read as the clean latents z_0 and the noise eps.

    | kind         | output            | z_0                     | eps                     |
    |--------------|-------------------|-------------------------|-------------------------|
    | epsilon      | eps               | (z - sigma eps) / alpha | output                  |
    | v_prediction | alpha eps - sigma z_0 | alpha z - sigma v   | sigma z + alpha v       |
    | flow         | u = eps - z_0     | z - sigma u             | z + alpha u             |

    v-prediction: Salimans and Ho 2022. Flow: alpha = 1 - sigma.
    """

    output: Tensor  # (B, C, h, w)
    z: Tensor  # (B, C, h, w)
    level: Level  # of z
    kind: str

    @classmethod
    def from_eps(cls, eps: Tensor, z: Tensor, level: Level) -> Prediction:
        """The prediction of a network that gives the noise."""
        return cls(eps, z, level, "epsilon")

    @property
    def z_0(self) -> Tensor:
        """The clean latents that z points to (B, C, h, w)."""
        alpha, sigma = self.level
        if self.kind == "epsilon":
            return (self.z - sigma * self.output) / alpha
        if self.kind == "v_prediction":
            return alpha * self.z - sigma * self.output
        return self.z - sigma * self.output

    @property
    def eps(self) -> Tensor:
        """The noise in z (B, C, h, w)."""
        alpha, sigma = self.level
        if self.kind == "epsilon":
            return self.output
        if self.kind == "v_prediction":
            return alpha * self.output + sigma * self.z
        return self.z + alpha * self.output

    def __getitem__(self, rows: slice | Tensor) -> Prediction:
        """Some rows of the batch; all are at one level."""
        return replace(self, output=self.output[rows], z=self.z[rows])

    def detach(self) -> Prediction:
        """The same without its graph."""
        return replace(self, output=self.output.detach())

    def at(self, z: Tensor, level: Level) -> Prediction:
        """The same direction from other latents: the same eps, or the same velocity of a flow.

        An inversion step so uses a prediction made at the latents that it reaches from the latents that it leaves;
        stepping back along that prediction then returns to where it came from.
        """
        if self.kind == "flow":
            return replace(self, z=z, level=level)
        return Prediction.from_eps(self.eps, z, level)


def step(prediction: Prediction, level: Level) -> Tensor:
    """The latents at another level along a prediction: alpha' z_0 + sigma' eps.

    This is the step of DDIM (Song et al. 2020, equation 12 with sigma = 0) for diffusion and the Euler step
    z + (sigma' - sigma) u for rectified flow. Sampling and inversion are the same step with its ends exchanged.
    """
    return level.alpha * prediction.z_0 + level.sigma * prediction.eps


def guide(null: Prediction, cond: Prediction, w: float | Tensor) -> Prediction:
    """Classifier-free guidance (Ho and Salimans 2022); w = 1 is the conditional prediction alone.

    Args:
        null: The prediction under the null text.
        cond: The prediction under the prompt, at the same latents.
        w: The guidance scale, one number or (B, 1, 1, 1).
    """
    return replace(null, output=null.output + w * (cond.output - null.output))
