"""The model families, one file each; a family from outside is named by its import path."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

from nulltext.errors import UserError
from nulltext.models.base import DiffusionModel
from nulltext.models.families.stable_diffusion import StableDiffusion
from nulltext.models.families.stable_diffusion_xl import StableDiffusionXL

MODELS: dict[str, type[DiffusionModel]] = {
    family.pipeline: family for family in (StableDiffusion, StableDiffusionXL)
}
"""The family of each diffusers pipeline class."""


def find_family(path: str) -> type[DiffusionModel]:
    """The family of an import path such as ``my.module.MyFamily``; modules of the working folder are found.

    Raises:
        UserError: There is no such class, or it is no family.
    """
    module, _, name = path.rpartition(".")
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"--model.family {path} cannot be imported ({error}); give module.ClassName"
        ) from None
    if not (isinstance(found, type) and issubclass(found, DiffusionModel)):
        raise UserError(f"--model.family {path} is no subclass of nulltext.models.DiffusionModel")
    return found
