"""Rows of text: taken, joined, repeated, mixed, compared."""

from __future__ import annotations

import pytest
import torch

from nulltext.models import Conditioning


def _text(rows: int = 2) -> Conditioning:
    return Conditioning(
        torch.randn(rows, 3, 4),
        {"pooled": torch.randn(rows, 5), "mask": torch.ones(rows, 3, dtype=torch.int)},
    )


def test_rows_of_text_can_be_taken_joined_and_repeated() -> None:
    text = _text()
    joined = Conditioning.cat([text[:1], text[1:]])
    assert joined.equals(text)
    assert torch.equal(text[:1].expand(3).sequence[2], text.sequence[0])
    assert torch.equal(text[:1].expand(3).extras["pooled"][2], text.extras["pooled"][0])
    assert len(Conditioning(text.sequence)[:1]) == 1
    assert Conditioning.cat([text]) is text


def test_the_extras_ride_along_with_another_sequence() -> None:
    text, sequence = _text(), torch.randn(2, 3, 4)
    other = text.with_sequence(sequence)
    assert torch.equal(other.sequence, sequence) and other.extras == text.extras


@pytest.mark.parametrize("name", ["sequence", "pooled", "mask"])
def test_texts_that_differ_anywhere_are_not_equal(name: str) -> None:
    text = _text()
    other = text.map(torch.clone)
    assert text.equals(other)
    (other.sequence if name == "sequence" else other.extras[name])[1] += 1
    assert not text.equals(other)
    assert not text.equals(Conditioning(text.sequence))


def test_between_two_texts_lies_a_line_of_all_that_are_floats() -> None:
    a, b = _text(), _text()
    middle = Conditioning.lerp(a, b, 0.5)
    torch.testing.assert_close(middle.sequence, (a.sequence + b.sequence) / 2)
    torch.testing.assert_close(middle.extras["pooled"], (a.extras["pooled"] + b.extras["pooled"]) / 2)
    assert torch.equal(middle.extras["mask"], a.extras["mask"])
    assert Conditioning.lerp(a, b, 0).equals(a)
