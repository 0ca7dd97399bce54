"""What a diffusers folder says about itself, read without loading weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nulltext.errors import UserError

UNUSED_PARTS = {"safety_checker", "feature_extractor", "image_encoder"}
LIBRARIES = ("diffusers", "transformers")  # whose classes a model may be made of
CONFIGS = ("config.json", "scheduler_config.json", "tokenizer_config.json")


@dataclass(frozen=True)
class ModelFolder:
    """A folder in the layout of ``DiffusionPipeline.save_pretrained``."""

    path: Path
    name: str  # as the user gave it
    index: Mapping[str, Any]  # model_index.json

    @classmethod
    def read(cls, path: Path, name: str) -> ModelFolder:
        """Reads model_index.json.

        Raises:
            UserError: It is not there or damaged.
        """
        if not (path / "model_index.json").is_file():
            raise UserError(
                f"{path} has no model_index.json; give --model.pretrained a folder written by save_pretrained"
            )
        return cls(path, name, _read_json(path / "model_index.json"))

    @property
    def pipeline(self) -> str:
        """The name of the diffusers pipeline class."""
        return str(self.index.get("_class_name", ""))

    def part(self, name: str) -> tuple[str, str] | None:
        """(library, class) of a part, or None where the model has no such part.

        Raises:
            UserError: It brings its own code.
        """
        entry = self.index.get(name)
        if not isinstance(entry, list) or not any(entry):
            return None
        if len(entry) != 2 or entry[0] not in LIBRARIES:
            raise UserError(
                f"the model {self.name} brings its own code for its {name[:40]} ({str(entry)[:80]}); "
                "nulltext runs none, take a model of diffusers' and transformers' classes"
            )
        return str(entry[0]), str(entry[1])

    def options(self) -> dict[str, Any]:
        """What model_index.json says beside the parts, such as ``force_zeros_for_empty_prompt``."""
        return {k: v for k, v in self.index.items() if not k.startswith("_") and not isinstance(v, list)}

    def config(self, part: str) -> dict[str, Any]:
        """The config of a part; empty where it has none.

        Raises:
            UserError: It is damaged.
        """
        path = next((p for name in CONFIGS if (p := self.path / part / name).is_file()), None)
        return {} if path is None else _read_json(path)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("it is no mapping")
        return content
    except (ValueError, OSError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({error}); download the model again") from None
