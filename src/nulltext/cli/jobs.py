"""Which pictures are edited how: from options and from a YAML of edits."""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from torch import Tensor

from nulltext.cli.options import combine
from nulltext.cli.parser import check_options
from nulltext.editing import Edit
from nulltext.errors import UserError

FILE = "inversion.safetensors"
SWEPT = ("cross_replace", "self_replace", "guidance_scale", "threshold", "detail_steps")
"""Options that take several values with commas between: all combinations are made."""
EXAMPLE = "write '- prompt: a photo of a horse' lines, or 'picture: sheep' and below it 'edits:'"


@dataclass(frozen=True)
class Job:
    """One inverted picture and its edits."""

    path: Path  # of inversion.safetensors
    edits: list[Edit]
    swept: dict[
        str, tuple[float, ...]
    ]  # option: its values; the edits are all combinations, the last fastest


def find_jobs(
    inversion: Path | None, prompts: Sequence[str], edits: Path | None, options: Mapping[str, Any]
) -> list[Job]:
    """The inversions, and the edits of each.

    Raises:
        UserError: Nothing to edit, no edit, or options that make no sense.
    """
    groups: list[tuple[str | None, list[Mapping[str, Any]]]] = []
    if prompts:
        groups.append((None, [{"prompt": prompt} for prompt in prompts]))
    if edits is not None:
        groups += read_edits(edits)
    if not groups:
        raise UserError("there is no edit to make; give --prompt 'a photo of ...' or --edits edits.yaml")
    if inversion is None:
        raise UserError(
            "there is no picture to edit; give --inversion lightning_logs/version_0, a run made by fit"
        )
    jobs = []
    for picture, wanted in groups:
        path = find_inversion(inversion / picture if picture else inversion)
        made = [edits_of({**options, **one}) for one in wanted]
        swept = made[0][1]
        if any(other != swept for _, other in made):
            raise UserError("a sweep has the same values for all its edits; give them on the command line")
        jobs.append(Job(path, [edit for some, _ in made for edit in some], swept))
    return jobs


def find_inversion(place: Path) -> Path:
    """The ``inversion.safetensors`` that a path means.

    Raises:
        UserError: There is none, or several.
    """
    if place.is_file() or place.suffix == ".safetensors":
        return place
    if (place / FILE).is_file():
        return place / FILE
    found = sorted(place.glob(f"*/{FILE}"))
    if len(found) > 1:
        names = ", ".join(str(path.parent) for path in found[:5]) + (", ..." if len(found) > 5 else "")
        raise UserError(f"{place} has {len(found)} inverted pictures; give one of them: --inversion {names}")
    if not found:
        raise UserError(
            f"there is no inversion in {place}; make one: python main.py fit --data.image PICTURE"
        )
    return found[0]


def read_edits(path: Path) -> list[tuple[str | None, list[Mapping[str, Any]]]]:
    """The edits of a YAML file, by picture; None where it names none.

    Raises:
        UserError: It cannot be read, or is not made as it should be.
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"cannot read the edits {path}: {str(error).splitlines()[0]}; {EXAMPLE}") from None
    entries = content if isinstance(content, list) else [content]
    if not entries or not all(isinstance(entry, dict) for entry in entries):
        raise UserError(f"{path} holds no edits; {EXAMPLE}")
    if not any("edits" in entry for entry in entries):
        return [(None, _checked(entries, path))]
    for entry in entries:
        listed = entry.get("edits")
        if set(entry) - {"picture", "edits"} or not isinstance(listed, list) or not listed:
            raise UserError(
                f"{path}: an entry has something else than picture and edits: {list(entry)}; {EXAMPLE}"
            )
        if not all(isinstance(one, dict) for one in listed):
            raise UserError(f"{path}: the edits of {entry.get('picture')} are no list of options; {EXAMPLE}")
    return [(str(entry.get("picture") or "") or None, _checked(entry["edits"], path)) for entry in entries]


def _checked(entries: Sequence[Mapping[str, Any]], path: Path) -> list[Mapping[str, Any]]:
    """The options of edits, each of the type that it has on the command line."""
    for entry in entries:
        if not isinstance(entry.get("prompt"), str):
            raise UserError(
                f"{path}: an edit needs a prompt, such as prompt: a photo of a horse; not {entry}"
            )
    try:
        return [*check_options(combine("Edit", Edit, retype=on_the_command_line), entries)]
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def on_the_command_line(name: str, hint: Any) -> Any:
    """The type of an edit's option: no tensors; numbers of words and several values as text with commas."""
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    texts = name in SWEPT or any(get_origin(kind) is Mapping for kind in kinds)
    plain: dict[Any, Any] = {Mapping: dict, Sequence: list}
    others = [
        plain[get_origin(kind)][get_args(kind)] if get_origin(kind) in plain else kind
        for kind in kinds
        if kind not in (Tensor, str, NoneType)
    ]
    ends = [kind for kind in (str, NoneType) if kind in kinds or (kind is str and texts)]
    return functools.reduce(operator.or_, [*others, *ends])  # text last: what else it may be is tried first


def edits_of(options: Mapping[str, Any]) -> tuple[list[Edit], dict[str, tuple[float, ...]]]:
    """The edit that options mean, or all combinations where some have several values.

    Args:
        options: As on the command line or in YAML; None means the default.

    Returns:
        The edits, the last option's values running fastest, and the options of several values.
    """
    given = {
        key: _value(key, value) for key, value in options.items() if value is not None or key == "local_blend"
    }
    swept = {key: tuple(value) for key, value in given.items() if key in SWEPT and isinstance(value, list)}
    if len(swept) > 2:
        raise UserError(f"{', '.join(swept)} have several values; a sweep runs over two options at most")
    if any(len(values) > 20 for values in swept.values()):
        raise UserError("a sweep takes at most 20 values of one option")
    combinations = itertools.product(*swept.values())
    return [
        Edit.from_mapping({**given, **dict(zip(swept, values, strict=True))}) for values in combinations
    ], swept


def _value(key: str, value: Any) -> Any:
    """The value of an option as ``Edit`` takes it; several values are a list."""
    if key == "local_blend":
        return None if value in (None, "none", "null", "") else value
    if not isinstance(value, str) or key not in (*SWEPT, "equalizer"):
        return value
    parts = [part.strip() for part in value.split(",") if part.strip()]
    if key == "equalizer" or any(":" in part for part in parts):
        return dict(_word_and_number(key, part) for part in parts)
    numbers = [_number(key, part) for part in parts]
    return numbers[0] if len(numbers) == 1 else numbers


def _word_and_number(key: str, part: str) -> tuple[str, float]:
    word, colon, number = part.rpartition(":")
    if not colon:
        raise UserError(f"--{key} {part!r} has no number; write the word, a colon and the number: hat:2.0")
    return word.strip(), _number(key, number)


def _number(key: str, text: str) -> float:
    whole = key == "detail_steps"
    try:
        return int(text) if whole else float(text)
    except ValueError:
        kind, one, several = ("whole number", "10", "0,5,10") if whole else ("number", "0.4", "0.2,0.4")
        raise UserError(
            f"--{key} {text!r} is no {kind}; write {one}, or several with commas: {several}"
        ) from None
