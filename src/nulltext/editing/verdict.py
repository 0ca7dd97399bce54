"""Did an edit land? Each change of its prompt, judged by a CLIP for itself."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nulltext.editing.phrases import taken_back
from nulltext.errors import UserError
from nulltext.models.base import DiffusionModel
from nulltext.models.shipped import evaluator
from nulltext.pixels import to_unit

if TYPE_CHECKING:
    from nulltext.metrics.networks import ClipScorer

AUTO = "auto"
"""As judge: the CLIP in the model's own folder, where there is one."""


class Judge:
    """A CLIP that says of each change whether a picture shows it."""

    def __init__(self, clip: ClipScorer) -> None:
        self.clip = clip

    def __call__(self, picture: Tensor, source: str, target: str) -> dict[str, float]:
        """How much nearer a picture is to the target prompt than to that with one change taken back, of each change.

        Args:
            picture: (3, H, W) in [-1, 1].
            source: The source prompt.
            target: The edit's.

        Returns:
            Differences of cosines by what was changed; above 0 the change is seen.
        """
        prompts = taken_back(source, target)
        if not prompts:
            return {}
        texts = self.clip.text_features([target, *prompts.values()])  # (1 + n, p)
        nearness = texts @ self.clip.image_features(to_unit(picture)[None])[0]
        return dict(zip(prompts, (nearness[0] - nearness[1:]).tolist(), strict=True))


def find_judge(model: DiffusionModel, name: str = AUTO) -> Judge | None:
    """The judge of a name: auto, a CLIP's folder or hub id; none is no judge.

    Raises:
        UserError: There is no such CLIP.
    """
    if name == "none":
        return None
    if name == AUTO:
        own = evaluator(model.folder.path)
        return _load(str(own), str(model.device)) if (own / "config.json").is_file() else None
    return _load(name, str(model.device))


@lru_cache(maxsize=2)
def _load(place: str, device: str) -> Judge:
    from nulltext.metrics.networks import ClipScorer

    try:
        return Judge(ClipScorer.from_pretrained(place, torch.device(device)))
    except (OSError, ValueError, RuntimeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"the judge {place} is no CLIP that can be loaded ({reason}); give a folder, or none"
        ) from None


def said(margins: Mapping[str, float]) -> str:
    """A verdict in one line: which changes are seen, and which are not."""
    seen = [name for name, margin in margins.items() if margin > 0]
    unseen = [name for name, margin in margins.items() if margin <= 0]
    parts = [f"seen: {', '.join(seen)}"] * bool(seen) + [f"NOT seen: {', '.join(unseen)}"] * bool(unseen)
    return "; ".join(parts)
