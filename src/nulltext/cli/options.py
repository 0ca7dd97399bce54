"""Options derived from dataclasses: fields, types, defaults and documentation are written in one place."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any, get_type_hints

from docstring_parser import parse


def combine(
    name: str,
    *sources: type,
    leave_out: Collection[str] = (),
    defaults: Mapping[str, Any] | None = None,
    retype: Callable[[str, Any], Any] = lambda _, hint: hint,
) -> type:
    """One frozen dataclass with the fields of several; where two have a field of one name, the first counts.

    Args:
        name: Of the class.
        sources: The dataclasses; their docstrings' Args (or Attributes) become the help of the options.
        leave_out: Fields that are no options.
        defaults: Other defaults of fields, by their names.
        retype: The type of an option from the field's name and type.
    """
    fields: dict[str, tuple[str, Any, Any]] = {}
    helps: dict[str, str] = {}
    for source in sources:
        hints = get_type_hints(source)
        helps |= {key: text for key, text in descriptions(source).items() if key not in helps}
        for field in dataclasses.fields(source):
            if field.init and field.name not in (*leave_out, *fields):
                hint = retype(field.name, hints[field.name])
                default = (defaults or {}).get(field.name, _without_name(field))
                fields[field.name] = (field.name, hint, default)
    made = dataclasses.make_dataclass(name, list(fields.values()), frozen=True, kw_only=True)
    made.__doc__ = f"{name}.\n\nArgs:\n" + "".join(f"    {key}: {helps.get(key, '')}\n" for key in fields)
    return made


def descriptions(source: type) -> dict[str, str]:
    """What the docstrings of a dataclass and of those it is derived from say of each field, in one line each."""
    found: dict[str, str] = {}
    for base in reversed(source.__mro__):
        for entry in parse(inspect.getdoc(base) or "").params if dataclasses.is_dataclass(base) else ():
            found[entry.arg_name] = " ".join((entry.description or "").replace("`", "").split())
    return found


def pick(kind: type, options: Any) -> Any:
    """An instance of one of the dataclasses that options were combined from."""
    names = [field.name for field in dataclasses.fields(kind) if field.init]
    return kind(**{name: getattr(options, name) for name in names if hasattr(options, name)})


def _without_name(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return dataclasses.field(default_factory=field.default_factory)
    return dataclasses.field() if field.default is dataclasses.MISSING else field.default
