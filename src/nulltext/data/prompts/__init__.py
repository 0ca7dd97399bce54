"""The prompt of a picture: five ways to find one, and where it was found."""

from collections.abc import Callable
from pathlib import Path

from PIL import Image

from nulltext.data.colour import upright
from nulltext.data.metadata import Row
from nulltext.data.prompts.captioner import Captioner
from nulltext.data.prompts.embedded import Prompt, described
from nulltext.data.prompts.weights import plain_words, weights_note
from nulltext.data.text import MAX_PROMPT_CHARACTERS, decode_text, on_disk, one_line
from nulltext.errors import UserError

__all__ = ["Captioner", "Prompt", "find_prompt", "one_line", "plain_words", "weights_note"]


def find_prompt(
    path: Path | None,
    image: Image.Image,
    prompt: str | None = None,
    row: Row | None = None,
    caption: Callable[[Image.Image], str] | None = None,
) -> Prompt:
    """The first of: the prompt given, the picture's row, the text beside it, its own description, a caption.

    What a camera or a program stamped into the picture is no description.

    Args:
        path: The picture's file, if it has one.
        image: The opened picture.
        prompt: The user's own words; an empty string is a prompt too.
        row: The picture's row in a metadata file.
        caption: Describes an RGB image, such as a ``Captioner``.

    Returns:
        The prompt in one line, and where it came from.

    Raises:
        UserError: None of the five has one; a text beside the picture cannot be read.
    """
    if prompt is not None:
        return Prompt(one_line(prompt), "given")
    if row and row.prompt and row.prompt.strip():
        return Prompt(one_line(row.prompt), row.place or "its row")
    beside = _text_beside(path) if path else None
    if beside:
        return beside
    found, passed = described(image)
    if found:
        return Prompt(one_line(found.text), found.source)
    if caption:
        return Prompt(one_line(caption(upright(image))), f"captioner {getattr(caption, 'model', '')}".strip())
    raise UserError(no_prompt(path, passed))


def no_prompt(path: Path | None, passed: str = "") -> str:
    """The error that says the five ways to a prompt.

    Args:
        path: The picture's file, if it has one.
        passed: What was found there but describes nothing.
    """
    if path is None:
        return "no prompt for the picture: give prompt='a photo of ...'"
    return (
        f"{path}: no prompt{f' ({passed})' if passed else ''}; give --data.prompt 'a photo of ...', or a row in "
        f"metadata.jsonl (file_name, prompt), or a text file {path.stem}.txt beside it, or a description inside the "
        f"picture (EXIF ImageDescription, PNG text), or a captioner: --data.captioner "
        f"Salesforce/blip-image-captioning-base"
    )


def _text_beside(path: Path) -> Prompt | None:
    """The first text beside a picture that says something: sheep.txt, sheep.jpg.txt or sheep.caption for sheep.jpg."""
    for name in (f"{path.stem}.txt", f"{path.name}.txt", f"{path.stem}.caption", f"{path.stem}.TXT"):
        text = on_disk(path.with_name(name))
        if not text.is_file():
            continue
        most = 8 * MAX_PROMPT_CHARACTERS
        try:
            with text.open("rb") as file:
                content = file.read(most)
        except OSError as error:
            raise UserError(
                f"cannot read {text}: {error.strerror or error}; check its permissions"
            ) from error
        line = one_line(decode_text(content, str(text), whole=len(content) < most))
        if line:
            return Prompt(line, text.name)
    return None
