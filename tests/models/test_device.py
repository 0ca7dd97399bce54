"""One spelling of devices and precisions."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from nulltext.errors import UserError
from nulltext.models import DTYPES, DiffusionModel, find_device, find_precision


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (None, "32-true"),
        ("32", "32-true"),
        (32, "32-true"),
        ("bf16", "bf16-mixed"),
        ("bf16-mixed", "bf16-mixed"),
        ("16", "16-mixed"),
        (16, "16-mixed"),
    ],
)
def test_a_precision_has_one_name(given: Any, name: str) -> None:
    assert find_precision(given) == name and name in DTYPES


@pytest.mark.parametrize("given", ["bf16-true", "16-true", "64-true", "double"])
def test_other_precisions_are_refused_with_those_that_there_are(given: str) -> None:
    with pytest.raises(UserError, match=rf"{given}.*32-true, bf16-mixed, 16-mixed"):
        find_precision(given)


@pytest.mark.parametrize("given", ["cuda:99", "tpu", "meta", "gpu 0", ""])
def test_a_device_that_is_not_here_is_one_line(given: str) -> None:
    with pytest.raises(UserError, match=r"is not available here .*; try auto or cpu") as error:
        find_device(given)
    assert "\n" not in str(error.value)


def test_auto_is_a_device_that_is_here() -> None:
    assert find_device("cpu") == torch.device("cpu")
    assert find_device(find_device("auto")).type in ("cpu", "cuda", "mps")


def test_a_model_computes_attention_without_cudnn() -> None:
    torch.backends.cuda.enable_cudnn_sdp(True)
    DiffusionModel.from_pretrained("farmyard")
    assert not torch.backends.cuda.cudnn_sdp_enabled()
