"""What every fuzz test has in common: one body, a short form in the normal suite and a long one behind -m slow."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nulltext.errors import UserError
from nulltext.runs.memory import peak_memory

SLOWEST_SECONDS = 10.0  # of the processor, whatever else runs beside
MOST_BYTES = 4 * 2**30


def either_works_or_says_why(function: Callable[[], Any]) -> Any:
    """Calls it; a refusal is one line for a person to read, and nothing takes long or much memory."""
    started = time.process_time()
    try:
        result = function()
    except UserError as error:
        result = None
        assert str(error).strip() and "\n" not in str(error).strip(), repr(str(error))
    assert time.process_time() - started < SLOWEST_SECONDS
    assert peak_memory(torch.device("cpu")) < MOST_BYTES
    return result


def forms(body: Callable[..., None], short: int, long: int, **inputs: st.SearchStrategy) -> tuple[Any, Any]:
    """The short and the long test of a body, which take so many examples."""
    options: dict[str, Any] = {
        "deadline": None,
        "derandomize": True,  # the same examples every time, so that a suite that passed passes
        "database": None,
        "suppress_health_check": list(HealthCheck),
    }
    quick = settings(max_examples=short, **options)(given(**inputs)(body))
    thorough = pytest.mark.slow(settings(max_examples=long, **options)(given(**inputs)(body)))
    return quick, thorough


@st.composite
def mangled(draw: st.DrawFn, originals: st.SearchStrategy[bytes]) -> bytes:
    """Bytes of a real file, cut, overwritten, swapped or with something put in between."""
    content = bytearray(draw(originals))
    for _ in range(draw(st.integers(1, 4))):
        if not content:
            break
        place = draw(st.integers(0, min(len(content) - 1, draw(st.sampled_from([16, 200, 10**9])))))
        kind = draw(st.sampled_from(["cut", "byte", "bytes", "insert", "repeat", "huge"]))
        if kind == "cut":
            del content[place:]
        elif kind == "byte":
            content[place] = draw(st.integers(0, 255))
        elif kind == "bytes":
            new = draw(st.binary(min_size=1, max_size=16))
            content[place : place + len(new)] = new
        elif kind == "insert":
            content[place:place] = draw(st.binary(min_size=1, max_size=64))
        elif kind == "repeat":
            content += content[place : place + 4000]
        else:
            content[place : place + 4] = b"\xff\xff\xff\x7f"
    return bytes(content)


nested = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-3, 300)
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(
        ["", "center", "../../etc/passwd", "\0", "/dev/zero", "nan", "1e400", "\x1b[2J", "\ud800"]
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=8,
)
"""Anything that JSON or YAML can say."""
