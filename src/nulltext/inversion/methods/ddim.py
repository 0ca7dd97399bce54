"""DDIM inversion: the noise of the pivot, guided under the empty prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from nulltext.inversion.base import InversionMethod


@dataclass(frozen=True)
class DDIM(InversionMethod):
    """DDIM inversion (Song et al. 2020): nothing is learned, so guidance leads away from the pivot."""

    title: ClassVar[str] = "DDIM"
