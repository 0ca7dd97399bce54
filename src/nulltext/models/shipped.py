"""The weights that the package ships, by their names: where they are and whether they are whole."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

from nulltext.errors import UserError

SHIPPED = "farmyard"
PRETRAINED = Path(__file__).parents[1] / "farmyard" / "pretrained"
"""The diffusers folder of ``--model.pretrained farmyard``; ``clip`` in it is the evaluator, a CLIPModel folder."""

FLOW = "farmyard-flow"
PRETRAINED_FLOW = PRETRAINED.with_name("pretrained_flow")
"""The diffusers folder of the flow transformer, which was trained on the same world and text tower."""

NAMES = (SHIPPED, FLOW)
"""What ``--model.pretrained`` may name without a hub or a folder."""

MAKE_AGAIN = "python -m nulltext.farmyard train"
CHECKSUMS = "sha256.json"


def shipped_folder(name: str) -> Path:
    """The folder of one of ``NAMES``."""
    return {SHIPPED: PRETRAINED, FLOW: PRETRAINED_FLOW}[name]


def evaluator(folder: Path) -> Path:
    """Where the CLIP lies that judges the pictures of a model's folder; both shipped models have one."""
    return (PRETRAINED if folder == PRETRAINED_FLOW else folder) / "clip"


def check_shipped(folder: Path | None = None) -> Path:
    """The shipped folder, whole: every file that its checksums name is there and unchanged.

    Args:
        folder: Another folder of its kind, such as one just trained.

    Raises:
        UserError: A file is missing or damaged; says which and how to make the weights again.
    """
    folder = folder or PRETRAINED
    try:
        expected = dict(json.loads((folder / CHECKSUMS).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        raise UserError(
            f"the farmyard's weights in {folder} are missing; make them again: {MAKE_AGAIN}"
        ) from None
    for name, digest in expected.items():
        path = folder / name
        if not path.is_file():
            raise UserError(f"the farmyard's weights lack {path}; make them again: {MAKE_AGAIN}")
        if sha256(path.read_bytes()).hexdigest() != digest:
            raise UserError(f"the farmyard's weights are damaged: {path}; make them again: {MAKE_AGAIN}")
    return folder
