"""Guided sampling from noise, as if there were no picture: what the other methods are compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from nulltext.inversion.methods.ddim import DDIM
from nulltext.models.base import DiffusionModel


@dataclass(frozen=True)
class Generated(DDIM):
    """Generates from the prompt; the picture is not seen, and noise takes the place of its pivot."""

    title: ClassVar[str] = "generated"
    sees_picture: ClassVar[bool] = False

    def detail_steps_for(self, model: DiffusionModel) -> int:
        """None: there is no picture to take detail from."""
        return 0
