"""The prompt of a picture: five ways to find one, and where it was found."""

import os
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from nulltext.data.colour import upright
from nulltext.data.metadata import Row
from nulltext.data.prompts.embedded import Prompt, described
from nulltext.data.prompts.weights import plain_words, weights_note
from nulltext.data.text import MAX_PROMPT_CHARACTERS, decode_text, on_disk, one_line, read_bytes
from nulltext.errors import UserError, first_line

__all__ = ["Captioner", "Prompt", "find_prompt", "plain_words", "weights_note"]


def find_prompt(
    path: Path | None,
    image: Image.Image,
    prompt: str | None = None,
    row: Row | None = None,
    caption: Callable[[Image.Image], str] | None = None,
) -> Prompt:
    """The first of: the prompt given, the picture's row, the text beside it, its own description, a caption.

    What a camera or a program stamped into the picture is no description; an empty ``prompt`` is a prompt.

    Raises:
        UserError: None of the five has one; a text beside the picture cannot be read.
    """
    if prompt is not None:
        return Prompt(one_line(prompt), "given")
    if row and row.prompt and row.prompt.strip():
        return Prompt(one_line(row.prompt), row.place or "its row")
    if path and (beside := _text_beside(path)):
        return beside
    found, passed = described(image)
    if found:
        return Prompt(one_line(found.text), found.source)
    if caption:
        return Prompt(one_line(caption(upright(image))), f"captioner {getattr(caption, 'model', '')}".strip())
    if path is None:
        raise UserError("no prompt for the picture: give prompt='a photo of ...'")
    raise UserError(
        f"{path}: no prompt{f' ({passed})' if passed else ''}; give --data.prompt 'a photo of ...', or a row in "
        f"metadata.jsonl (file_name, prompt), or a text file {path.stem}.txt beside it, or a description inside the "
        f"picture (EXIF ImageDescription, PNG text), or a captioner: --data.captioner "
        f"Salesforce/blip-image-captioning-base"
    )


def _text_beside(path: Path) -> Prompt | None:
    """The first text beside a picture that says something: sheep.txt, sheep.jpg.txt or sheep.caption for sheep.jpg."""
    most = 8 * MAX_PROMPT_CHARACTERS
    for name in (f"{path.stem}.txt", f"{path.name}.txt", f"{path.stem}.caption", f"{path.stem}.TXT"):
        text = on_disk(path.with_name(name))
        if not text.is_file():
            continue
        content = read_bytes(text, most)
        if line := one_line(decode_text(content, str(text), whole=len(content) < most)):
            return Prompt(line, text.name)
    return None


class Captioner:
    """A BLIP model, hub id or folder, that says what a picture shows; loaded when the first picture needs it."""

    def __init__(self, model: str) -> None:
        self.model = os.path.expanduser(model)

    def __call__(self, image: Image.Image) -> str:
        """A caption for an RGB image; a UserError where the model is no BLIP captioner."""
        network, tokenizer, processor = self._parts
        inputs = processor(images=image, return_tensors="pt")
        tokens = network.generate(pixel_values=inputs["pixel_values"], max_new_tokens=40)
        return one_line(tokenizer.decode(tokens[0], skip_special_tokens=True))

    @cached_property
    def _parts(self) -> tuple[Any, Any, Any]:
        from transformers import AutoTokenizer, BlipForConditionalGeneration
        from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

        try:
            network = BlipForConditionalGeneration.from_pretrained(self.model, use_safetensors=True)
            tokenizer = AutoTokenizer.from_pretrained(self.model)
            return network.eval(), tokenizer, BlipImageProcessorPil.from_pretrained(self.model)
        except (OSError, ValueError, KeyError) as error:
            raise UserError(
                f"cannot load the captioner {self.model}: give the id or the folder of a BLIP captioning "
                f"model in safetensors form ({first_line(error)[:120]})"
            ) from error
