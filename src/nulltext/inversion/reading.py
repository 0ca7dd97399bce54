"""An inversion file read without trust: its header is checked before any tensor is read."""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from nulltext.errors import UserError
from nulltext.inversion.base import MAX_ITERATIONS

FORMAT_VERSION = 1
DIMENSIONS = {"null_embeddings": 3, "noise": 3, "pooled": 1, "pivot": 4, "residuals": 4}
MAX_BYTES = 2**31  # of one tensor in fp32; SDXL at a thousand steps takes a third of it
MAX_SIDE = 2**16  # pixels
MAX_PROMPT = 10_000  # characters
MAX_STEPS = 1000  # T
TEXTS = tuple("prompt model fingerprint crop source_sha256 method variant revision family kind".split())
NUMBERS = ("guidance_scale", "psnr", "fixed_point_iterations", "pivot_tolerance")
MAPPINGS = ("scheduler", "settings", "placement")
FORMER = ("detail_steps", "detail_noise")  # in older files, read over


def read_facts(path: Path) -> dict[str, Any]:
    """Everything of an inversion but its tensors, from the header alone.

    Raises:
        UserError: There is no such file, it is damaged or newer, or would take more memory than an inversion can need.
    """
    from safetensors import safe_open

    if not path.is_file():
        raise UserError(f"there is no inversion {path}; make one: python main.py fit --data.image PICTURE")
    with _blaming(path), safe_open(path, framework="pt") as file:
        facts = json.loads((file.metadata() or {})["nulltext"])
        version = facts.pop("format_version")
        if version > FORMAT_VERSION:
            reads = f"this nulltext reads {FORMAT_VERSION}"
            raise UserError(f"{path} has format {version}, {reads}; upgrade nulltext")
        _check_facts(facts)
        for name in FORMER:
            facts.pop(name, None)
            facts.get("settings", {}).pop(name, None)
        for name in [name for name in file.keys() if name not in FORMER]:
            shape = file.get_slice(name).get_shape()
            if DIMENSIONS.get(name) != len(shape) or not 0 < 4 * math.prod(shape) <= MAX_BYTES:
                raise ValueError(f"its tensor {name[:40]} has the shape {shape}")
    return facts


def read_tensors(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What ``read_facts`` gives, and the tensors in fp32, refused where they do not fit or are not finite."""
    from safetensors import safe_open

    facts = read_facts(path)
    with _blaming(path):
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name).float() for name in file.keys() if name not in FORMER}
        if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
            raise ValueError("its tensors are not finite")
        if len(tensors["null_embeddings"]) != len(facts["timesteps"]) or "noise" not in tensors:
            raise ValueError("its tensors have other shapes")
        if "pivot" in tensors and len(tensors["pivot"]) != len(facts["timesteps"]) + 1:
            raise ValueError("its pivot has another length")
        if "residuals" in tensors and len(tensors["residuals"]) != len(facts["timesteps"]):
            raise ValueError("its residuals have another length")
    return facts, tensors


def _check_facts(facts: Any) -> None:
    """Refuses values of another kind than ``Inversion.save`` writes."""
    count = len(facts["timesteps"])
    levels = [facts.get(name, []) for name in ("alphas", "sigmas")]  # T + 1 of each; none in older files
    good = (
        all(isinstance(facts.get(name, ""), str) for name in TEXTS)
        and all(_is_number(facts.get(name, 0)) for name in NUMBERS)
        and all(isinstance(facts.get(name, {}), dict) for name in MAPPINGS)
        and 0 < count <= MAX_STEPS
        and all(_is_number(t) and 0 <= t < 2**31 for t in facts["timesteps"])
        and all(isinstance(x, list) and len(x) in (0, count + 1) and all(map(_is_number, x)) for x in levels)
        and [isinstance(side, int) and 0 < side <= MAX_SIDE for side in facts["size"]] == [True, True]
        and len(facts["prompt"]) <= MAX_PROMPT
        and facts.get("fixed_point_iterations", 0) in range(MAX_ITERATIONS + 1)
    )
    if not good:
        raise ValueError("its header makes no sense")


def _is_number(value: Any) -> bool:
    return isinstance(value, float) or (isinstance(value, int) and abs(value) < 2**31)


@contextmanager
def _blaming(path: Path) -> Iterator[None]:
    """Turns whatever a damaged or hostile file raises into one line that names it."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # safetensors, json and torch raise many kinds
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise UserError(f"{path} is damaged or not an inversion ({reason}); make it again with fit") from None
