"""What an edit may be told: the prompt, its attention control, where it may act, how strongly."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from torch import Tensor

from nulltext.editing.kinds import WINDOW, Kind, Window, check_window, find_kind
from nulltext.editing.tokens import normal
from nulltext.errors import UserError

Null: TypeAlias = Literal["auto", "learned", "empty"]

AUTO = "auto"
"""As kind: what suits the prompts. As local_blend: where the prompts differ to the model."""
IMPORT_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")
"""What in local_blend names a region of one's own instead of a word."""


@dataclass(frozen=True)
class Edit:
    """One edit of a picture. Its fields are the options of ``edit`` on the command line and in YAML.

    Attributes:
        prompt: What the picture is to show.
        kind: plain (no attention control), replace (words swapped one for one), refine (words that both prompts have
            keep their attention, new ones act), reweight (words louder or softer, with equalizer), auto (replace where
            the prompts have equally many words and differ, refine otherwise, plain where no window is open), or the
            import path of a nulltext.editing.kinds.Kind.
        cross_replace: The first share of the steps, 0 to 1, takes the source's cross-attention (or give a first and a
            last share; or a share for each word: default:0.8,hat:0.4). By default 0.4, or none where a CLIP judges.
        self_replace: The same for self-attention, which holds the layout.
        equalizer: Words of the prompt and the factors of their attention, such as hat:2.0,snow:-1.
        local_blend: Where the edit may act: auto (where the prompts make the model predict different pictures), words
            of either prompt, with commas between (where the model attends to them), auto among such words, none
            (everywhere), or the import path of a nulltext.editing.regions.Region.
        mask: A picture, white where the edit may act, or a tensor (H, W) in [0, 1]. Alone it is the whole mask; with
            local_blend the edit acts where both allow it.
        threshold: A place is left alone if it differs less (auto), or is attended to less (words), than this share of
            the strongest place, 0 to 1. By default auto chooses a share that suits the picture, and words take 0.3.
        max_pool: Side of the neighbourhood by which a mask grows, in latent pixels, odd; 1 not at all.
        start: In the first share of the steps, 0 to 1, the edit may change the whole picture; afterwards only inside
            the mask.
        keep_pixels: Where an edit under a mask changes nothing visible, keep the picture's own pixels, which the VAE
            would blur; or the reconstruction's, where the picture is not at hand.
        guidance_scale: Weight w of the prompt: how strongly the edit follows it. By default the inversion's; where a
            CLIP judges an edit under a mask, the smallest of 1.5, 3 and 5 at which it sees each change.
        null: The null text of the edit: learned, empty, or auto (empty where a CLIP judges, else learned).
        seed: Draws other noise inside the mask: another hat on the same head.
        judge: Which CLIP says whether each change of the prompt is seen: auto (the model's own, where it has one), a
            folder, a hub id, or none. Without a guidance_scale, an edit that lacks a change is tried again at 3, at 5,
            anywhere in the picture, and from other noise; of all tries the first with most changes is kept.
        name: Names the files; made from the prompt by default.
        compat: Copy the reference code where its errors change the result.
    """

    prompt: str
    kind: str = AUTO
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
    seed: int | None = None
    judge: str = AUTO
    name: str | None = None
    compat: bool = False

    def __post_init__(self) -> None:
        """Refuses what makes no sense, each with what to type instead."""
        object.__setattr__(self, "prompt", normal(self.prompt))
        self.control_kind()
        check_window("start", self.start)
        check_window("threshold", 0.0 if self.threshold is None else self.threshold)
        nulls, w, mask = get_args(Null), self.guidance_scale, self.mask
        refused = {
            f"null {self.null!r} is not one of {', '.join(nulls)}": self.null not in nulls,
            f"max_pool must be odd and at least 1, not {self.max_pool}; 3 grows by one latent pixel": (
                self.max_pool < 1 or self.max_pool % 2 == 0
            ),
            f"guidance_scale must be 0 or more, not {w}; 1.5 to 7.5 are usual": (
                w is not None and not 0 <= w < math.inf
            ),
            f"cannot read the mask {mask}: no such file; give a picture, white where to edit": (
                isinstance(mask, Path) and not mask.exists()
            ),
            "seed draws other noise inside a mask; give local_blend or mask as well": (
                self.seed is not None and not self.masked
            ),
        }
        for message, wrong in refused.items():
            if wrong:
                raise UserError(message)

    @classmethod
    def from_mapping(cls, options: Mapping[str, Any]) -> Edit:
        """An edit as YAML says it; UserError for an option that there is not, or no prompt."""
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

    def control_kind(self) -> Kind:
        """The kind with this edit's settings; UserError where there is none, or they make no sense."""
        cross = WINDOW if self.cross_replace is None else self.cross_replace
        own = WINDOW if self.self_replace is None else self.self_replace
        return find_kind(self.kind)(cross, own, self.equalizer, self.compat)

    @property
    def masked(self) -> bool:
        """Whether it acts in a part of the picture only."""
        return bool(self.blends) or self.mask is not None

    @property
    def blends(self) -> list[str]:
        """What finds the mask: auto, words, import paths; nothing where a given mask is the whole mask."""
        if self.local_blend is None or (self.local_blend == AUTO and self.mask is not None):
            return []
        given = self.local_blend.split(",") if isinstance(self.local_blend, str) else list(self.local_blend)
        return [word.strip() for word in given if word.strip()]

    @property
    def blend_words(self) -> list[str]:
        """The words among them."""
        return [word for word in self.blends if word != AUTO and not IMPORT_PATH.fullmatch(word)]


def _window(given: Any) -> Any:
    """A window as YAML says it, [from, to] as a tuple, also of single words."""
    if isinstance(given, Mapping):
        return {word: _window(window) for word, window in given.items()}
    return tuple(given) if isinstance(given, list) else given
