"""Options made of dataclasses."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from nulltext.cli.options import combine, descriptions, pick
from nulltext.cli.parser import check_options, explain, read_options
from nulltext.errors import UserError


@dataclass(frozen=True)
class Base:
    """A base.

    Args:
        steps: The number of
            ``steps``.
        name: Of the base.
    """

    steps: int = 20
    name: str = "base"


@dataclass(frozen=True)
class Derived(Base):
    """Derived.

    Attributes:
        name: Of the derived.
        words: Words and numbers.
    """

    words: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Other:
    """Another.

    Args:
        name: Not seen.
        folder: A folder.
    """

    name: int = 3
    folder: Path | None = None


def test_a_dataclass_of_several_has_their_fields_types_defaults_and_texts():
    made = combine("Made", Derived, Other)
    fields = {f.name: f for f in dataclasses.fields(made)}
    assert list(fields) == ["steps", "name", "words", "folder"]
    assert fields["name"].type is str and made() == made(steps=20, name="base", words={}, folder=None)
    assert made().words is not made().words
    assert descriptions(made) == {
        "steps": "The number of steps.",
        "name": "Of the derived.",
        "words": "Words and numbers.",
        "folder": "A folder.",
    }


def test_fields_are_left_out_and_retyped():
    made = combine("Made", Derived, leave_out=["words"], retype=lambda name, hint: hint | None)
    assert combine("Made", Derived, defaults={"steps": 5})().steps == 5
    assert [(f.name, f.type) for f in dataclasses.fields(made)] == [
        ("steps", int | None),
        ("name", str | None),
    ]


def test_one_of_the_dataclasses_is_made_again_of_the_options():
    options = combine("Made", Derived, Other)(steps=3, words={"hat": 2.0}, folder=Path("x"))
    assert pick(Derived, options) == Derived(3, "base", {"hat": 2.0})
    assert pick(Base, options) == Base(3)


def test_options_are_read_from_words_and_from_yaml_and_the_help_has_their_texts(tmp_path, capsys):
    (tmp_path / "c.yaml").write_text("steps: 4\nwords: {hat: 2}\n")
    made = combine("Made", Derived, Other)
    read = read_options(made, ["--config", str(tmp_path / "c.yaml"), "--name", "x"], "main.py toy", "A toy.")
    assert read == made(steps=4, words={"hat": 2.0}, name="x")
    with pytest.raises(SystemExit):
        read_options(made, ["--help"], "main.py toy", "A toy.")
    text = capsys.readouterr().out
    assert "A toy." in text and "The number of steps. (default: 20)\n" in text
    assert " A folder.\n" in text  # no default to tell
    with pytest.raises(UserError, match="unknown option --stepz; did you mean --steps"):
        read_options(made, ["--stepz", "3"], "main.py toy", "A toy.")


def test_a_mistake_of_the_parser_is_one_line():
    assert "\n" not in explain("a\nb", [])


def test_the_home_folder_is_found_in_configs_too(tmp_path):
    (tmp_path / "c.yaml").write_text("folder: ~/pictures\nname: ~ sheep\n")
    made = combine("Made", Derived, Other)
    read = read_options(made, ["--config", str(tmp_path / "c.yaml")], "main.py toy", "A toy.")
    assert read.folder == Path.home() / "pictures" and read.name == "~ sheep"


def test_options_of_a_mapping_have_the_types_of_the_fields():
    made = combine("Made", Derived, Other)
    assert check_options(made, [{"steps": 3, "folder": "x"}, {}]) == [{"steps": 3, "folder": Path("x")}, {}]
    for given, message in (
        ({"steps": "many"}, "--steps: Expected an int. Got value: many"),
        ({"stepz": 3}, "unknown option --stepz; did you mean --steps?"),
        ({"words": {"hat": "tall"}}, "--words: Expected a float. Got value: tall"),
    ):
        with pytest.raises(UserError, match=message):
            check_options(made, [given])
