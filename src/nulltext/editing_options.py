"""What may be asked of an edit: the prompt, its attention control, where it may act, how strongly."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from torch import Tensor

from nulltext.errors import UserError

Kind: TypeAlias = Literal["auto", "plain", "replace", "refine", "reweight"]
Null: TypeAlias = Literal["auto", "learned", "empty"]
Window: TypeAlias = float | tuple[float, float]

AUTO = "auto"


@dataclass(frozen=True)
class Edit:
    """One edit of a picture.

    Attributes:
        prompt: What the picture is to show.
        kind: ``plain`` no attention control; ``replace`` swaps words one for one; ``refine`` keeps the words that both
            prompts have and lets new ones act; ``reweight`` makes words louder or softer; ``auto`` replace where the
            prompts have equally many words and differ, refine otherwise, plain where no window is open.
        cross_replace: The share of the steps, 0 to 1, that take the source's cross-attention, or (from, to); for
            single words of the prompt as a mapping, with ``default`` for the others. By default 0.4; for ``auto`` under
            a mask what suits the model (see ``Backbone.edit_defaults``).
        self_replace: The same for self-attention, which holds the layout.
        equalizer: Words of the prompt and what their attention is multiplied with, such as ``{"hat": 2.0}``.
        local_blend: Where the edit may act: ``auto`` where the two prompts would denoise differently; words of either
            prompt (a comma between them) where they are looked at, ``auto`` among them if wanted; None everywhere.
        mask: A picture file or a tensor (H, W) in [0, 1], white where the edit may act. With ``local_blend`` at its
            default it stands alone, otherwise it bounds the other.
        threshold: How different, or how much looked at, a place must be, 0 to 1 of the most; by default one that suits
            the picture for ``auto``, 0.3 for words.
        max_pool: Side of the neighbourhood by which a mask grows, in latent pixels, odd; 1 not at all.
        start: The share of the steps after which the picture is kept outside the mask.
        keep_pixels: Under a mask the picture's own pixels, which the VAE would blur, stay wherever the edit changes
            nothing to see; its reconstruction's where the picture is not at hand.
        guidance_scale: w; by default under a mask what suits the model, 3 where it does not say (see
            ``Backbone.edit_defaults``), or where that shows nothing 3 or 7.5; and the inversion's own without.
        null: The null text of the edit: ``learned``, ``empty``, or ``auto``: empty under a mask, learned without.
        detail_steps: The steps of a plain DDIM inversion whose noise gives the edit its fine detail (see
            ``nulltext.starting_noise``), a forward each; 0 starts from the source's own noise. By default what
            suits the model, 0 where it does not say (see ``Backbone.edit_defaults``) and with ``compat``.
        seed: Draws other noise inside the mask: another hat on the same head.
        name: Names the files; made from the prompt by default.
        compat: Copy the reference where its errors change the result (see ``nulltext.alignment``).
    """

    prompt: str
    kind: Kind = "auto"
    cross_replace: Window | Mapping[str, Window] | None = None
    self_replace: Window | None = None
    equalizer: Mapping[str, float] = field(default_factory=dict)
    local_blend: str | Sequence[str] | None = AUTO
    mask: Path | Tensor | None = None
    threshold: float | None = None
    max_pool: int = 3
    start: float = 0.0
    keep_pixels: bool = True
    guidance_scale: float | None = None
    null: Null = "auto"
    detail_steps: int | None = None
    seed: int | None = None
    name: str | None = None
    compat: bool = False

    def __post_init__(self) -> None:
        """Refuses what makes no sense, each with what to type instead."""
        for name, value, choices in (
            ("kind", self.kind, get_args(Kind)),
            ("null", self.null, get_args(Null)),
        ):
            if value not in choices:
                raise UserError(f"{name} {value!r} is not one of {', '.join(choices)}")
        windows = self.cross_replace if isinstance(self.cross_replace, Mapping) else {"": self.cross_replace}
        for word, window in windows.items() if self.cross_replace is not None else ():
            _check_window(f"cross_replace of {word!r}" if word else "cross_replace", window)
        if self.self_replace is not None:
            _check_window("self_replace", self.self_replace)
        _check_window("start", self.start)
        if self.threshold is not None:
            _check_window("threshold", self.threshold)
        if self.max_pool < 1 or self.max_pool % 2 == 0:
            raise UserError(
                f"max_pool must be odd and at least 1, not {self.max_pool}; 3 grows by one latent pixel"
            )
        if self.guidance_scale is not None and not 0 <= self.guidance_scale < math.inf:
            raise UserError(
                f"guidance_scale must be 0 or more, not {self.guidance_scale}; 1.5 to 7.5 are usual"
            )
        if self.detail_steps is not None and self.detail_steps not in range(1001):
            raise UserError(
                f"detail_steps must be a whole number between 0 and 1000, not {self.detail_steps}; "
                "0 starts from the source's noise"
            )
        if self.kind == "plain" and self.equalizer:
            raise UserError("kind plain has no attention control, so no equalizer; use kind: reweight")
        if self.kind == "reweight" and not self.equalizer:
            raise UserError("kind reweight needs words to weigh, such as --equalizer hat:2.0")
        if self.seed is not None and not self.blends and self.mask is None:
            raise UserError("seed draws other noise inside a mask; give local_blend or mask as well")

    @classmethod
    def from_mapping(cls, options: Mapping[str, Any]) -> Edit:
        """An edit as YAML says it.

        Raises:
            UserError: An option that there is not, or no prompt.
        """
        known = [f.name for f in dataclasses.fields(cls)]
        for option in options:
            if option not in known:
                raise UserError(f"an edit has no option {option!r}; it has: {', '.join(known)}")
        if not isinstance(options.get("prompt"), str):
            raise UserError(
                f"an edit needs a prompt, such as prompt: a photo of a horse; this one has {dict(options)}"
            )
        given = {k: _window(v) if k in ("cross_replace", "self_replace") else v for k, v in options.items()}
        if isinstance(given.get("mask"), str):
            given["mask"] = Path(given["mask"])
        return cls(**given)

    @property
    def masked(self) -> bool:
        """Whether it acts in a part of the picture only."""
        return bool(self.blends) or self.mask is not None

    @property
    def blends(self) -> list[str]:
        """What finds the mask: ``auto`` and words; nothing where a given mask stands alone."""
        if self.local_blend is None or (self.local_blend == AUTO and self.mask is not None):
            return []
        given = self.local_blend.split(",") if isinstance(self.local_blend, str) else list(self.local_blend)
        return [word.strip() for word in given if word.strip()]


def _window(given: Any) -> Any:
    """A window as YAML says it, [from, to] as a tuple, also of single words."""
    if isinstance(given, Mapping):
        return {word: _window(window) for word, window in given.items()}
    return tuple(given) if isinstance(given, list) else given


def _check_window(name: str, window: Any) -> None:
    ends = window if isinstance(window, tuple) else (0.0, window)
    numbers = all(isinstance(x, int | float) and not isinstance(x, bool) for x in ends)
    if len(ends) != 2 or not numbers or not 0 <= ends[0] <= ends[1] <= 1:
        raise UserError(f"{name} is a share of the steps between 0 and 1, or from and to; not {window!r}")
