"""The methods that learn nothing: DDIM inversion, and direct inversion (Ju et al., arXiv 2310.01506)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from nulltext.inversion.anchored import Anchored
from nulltext.inversion.base import InversionMethod


@dataclass(frozen=True)
class DDIM(InversionMethod):
    """DDIM inversion (Song et al. 2020): nothing is learned, so guidance leads away from the pivot."""

    title: ClassVar[str] = "DDIM"


@dataclass(frozen=True)
class Direct(Anchored):
    """Direct inversion (Ju et al., arXiv 2310.01506): the source branch is corrected to the pivot after each step.

    Its reconstruction is the VAE's. Of edits, only those that look at the source branch differ from DDIM's.
    """

    title: ClassVar[str] = "direct"
