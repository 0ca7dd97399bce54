"""Which pictures are edited how, from options and from a YAML of edits; every mistake is a ``UserError``."""

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
SWEPT = ("cross_replace", "self_replace", "guidance_scale", "threshold", "seed")
"""Options that take several values with commas between: all combinations are made."""
Swept = dict[str, tuple[float, ...]]  # an option's values
Group = tuple[str | None, list[Mapping[str, Any]]]  # a picture's name, where one is given; its edits' options
EXAMPLE = "write '- prompt: a photo of a horse' lines, or 'picture: sheep' and below it 'edits:'"


@dataclass(frozen=True)
class Job:
    """One inverted picture and its edits."""

    path: Path  # of inversion.safetensors
    edits: list[Edit]
    swept: Swept  # the edits are all combinations, the last option's values fastest


def find_jobs(
    inversion: Path | None, prompts: Sequence[str], edits: Path | None, options: Mapping[str, Any]
) -> list[Job]:
    """The inversions, and the edits of each."""
    groups: list[Group] = [(None, [{"prompt": prompt} for prompt in prompts])] if prompts else []
    groups += read_edits(edits) if edits is not None else []
    if not groups:
        raise UserError("there is no edit to make; give --prompt 'a photo of ...' or --edits edits.yaml")
    if inversion is None:
        raise UserError(
            "there is no picture to edit; give --inversion lightning_logs/version_0, a run made by fit"
        )
    jobs = []
    for picture, wanted in groups:
        path = find_inversion(inversion / picture if picture else inversion)
        made, sweeps = zip(*(edits_of({**options, **one}) for one in wanted), strict=True)
        if any(other != sweeps[0] for other in sweeps):
            raise UserError("a sweep has the same values for all its edits; give them on the command line")
        jobs.append(Job(path, [*itertools.chain(*made)], sweeps[0]))
    return jobs


def find_inversion(place: Path) -> Path:
    """The ``inversion.safetensors`` that a path means."""
    if place.is_file() or place.suffix == ".safetensors":
        return place
    found = [place / FILE] if (place / FILE).is_file() else sorted(place.glob(f"*/{FILE}"))
    if not found:
        raise UserError(
            f"there is no inversion in {place}; make one: python main.py fit --data.image PICTURE"
        )
    if len(found) > 1:
        names = ", ".join(str(path.parent) for path in found[:5]) + (", ..." if len(found) > 5 else "")
        raise UserError(f"{place} has {len(found)} inverted pictures; give one of them: --inversion {names}")
    return found[0]


def read_edits(path: Path) -> list[Group]:
    """The edits of a YAML file, by picture."""
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"cannot read the edits {path}: {str(error).splitlines()[0]}; {EXAMPLE}") from None
    entries = content if isinstance(content, list) else [content]
    if not entries or not all(isinstance(entry, dict) for entry in entries):
        raise UserError(f"{path} holds no edits; {EXAMPLE}")
    grouped = any("edits" in entry for entry in entries)
    kind = combine("Edit", Edit, retype=on_the_command_line)
    groups: list[Group] = []
    for entry in entries if grouped else [{"edits": entries}]:
        listed, picture = entry.get("edits"), str(entry.get("picture") or "") or None
        if set(entry) - {"picture", "edits"} or not isinstance(listed, list) or not listed:
            other = f"an entry has something else than picture and edits: {list(entry)}"
            raise UserError(f"{path}: {other}; {EXAMPLE}")
        for one in listed:
            if not isinstance(one, dict) or not isinstance(one.get("prompt"), str):
                needs = "an edit needs a prompt, such as prompt: a photo of a horse"
                raise UserError(f"{path}: {needs}; not {one}")
        try:
            groups.append((picture, [*check_options(kind, listed)]))
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
    return groups


def on_the_command_line(name: str, hint: Any) -> Any:
    """The type of an edit's option: no tensors; numbers of words and several values as text with commas."""
    plain: dict[Any, Any] = {Mapping: dict, Sequence: list}
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    text = name in SWEPT or any(get_origin(kind) is Mapping for kind in kinds)
    others = [
        plain[get_origin(kind)][get_args(kind)] if get_origin(kind) in plain else kind
        for kind in kinds
        if kind not in (Tensor, str, NoneType)
    ]
    ends = [kind for kind in (str, NoneType) if kind in kinds or (kind is str and text)]
    return functools.reduce(operator.or_, [*others, *ends])  # text last: what else it may be is tried first


def edits_of(options: Mapping[str, Any]) -> tuple[list[Edit], Swept]:
    """The edit that options mean, or all combinations where some have several values, with those options.

    Options are as on the command line or in YAML; None means the default. The last one's values run fastest.
    """
    given = {
        key: _value(key, value) for key, value in options.items() if value is not None or key == "local_blend"
    }
    swept = {key: tuple(value) for key, value in given.items() if key in SWEPT and isinstance(value, list)}
    if len(swept) > 2:
        raise UserError(f"{', '.join(swept)} have several values; a sweep runs over two options at most")
    if any(len(values) > 20 for values in swept.values()):
        raise UserError("a sweep takes at most 20 values of one option")
    combinations = (dict(zip(swept, values, strict=True)) for values in itertools.product(*swept.values()))
    return [Edit.from_mapping({**given, **chosen}) for chosen in combinations], swept


def _value(key: str, value: Any) -> Any:
    """The value of an option as ``Edit`` takes it; several values are a list."""
    if key == "local_blend":
        return None if value in (None, "none", "null", "") else value
    if not isinstance(value, str) or key not in (*SWEPT, "equalizer"):
        return value
    parts = [part.strip() for part in value.split(",") if part.strip()]
    if key != "equalizer" and not any(":" in part for part in parts):
        numbers = [_number(key, part) for part in parts]
        return numbers[0] if len(numbers) == 1 else numbers
    of_words = {}
    for part in parts:
        word, colon, number = part.rpartition(":")
        if not colon:
            raise UserError(
                f"--{key} {part!r} has no number; write the word, a colon and the number: hat:2.0"
            )
        of_words[word.strip()] = _number(key, number)
    return of_words


def _number(key: str, text: str) -> float:
    whole = key == "seed"
    try:
        return int(text) if whole else float(text)
    except ValueError:
        kind, one, several = ("whole number", "10", "0,5,10") if whole else ("number", "0.4", "0.2,0.4")
        raise UserError(
            f"--{key} {text!r} is no {kind}; write {one}, or several with commas: {several}"
        ) from None
