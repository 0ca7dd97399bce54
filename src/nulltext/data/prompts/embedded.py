"""What a picture's own file says it shows: EXIF and PNG text, and the prompts that front ends write there."""

import json
import re
from contextlib import suppress
from typing import Any, NamedTuple, TypeAlias

from PIL import Image, PngImagePlugin
from PIL.ExifTags import IFD, Base

from nulltext.data.decode import exif_value
from nulltext.data.prompts.stamps import is_stamp
from nulltext.data.prompts.weights import plain_words
from nulltext.data.text import undeclared_text

Place: TypeAlias = Base | str  # of a description: a tag of EXIF or a key of PNG text
EXPLORER = (Base.XPTitle, Base.XPSubject, Base.XPComment)  # UTF-16, as Windows writes them
PROSE: tuple[Place, ...] = (Base.ImageDescription, "Description", "Title", "Comment", *EXPLORER)
# AUTOMATIC1111 and its kin; ComfyUI and our own edits; InvokeAI at three ages
FRONT_ENDS = ("parameters", "prompt", "invokeai_metadata", "sd-metadata", "Dream")
LIKELIEST_FIRST = (*PROSE[:2], *FRONT_ENDS, Base.UserComment, Base.Make, *PROSE[2:])

PARAMETERS = re.compile(r"(?:^|\n)\s*(?:Negative prompt:|Steps: \d)")
UPSTREAM = (
    "text text_g t5xxl clip_l positive guider conditioning conditioning_1 conditioning_to string value prompt"
)


class Prompt(NamedTuple):
    """A prompt, and where it came from."""

    text: str
    source: str


def described(image: Image.Image) -> tuple[Prompt | None, str]:
    """The description a picture carries, and what was there but is none, for a message; ``""`` for nothing."""
    device = [_text(image, place) or "" for place in (Base.Make, Base.Model, Base.Software, "Software")]
    device.append(" ".join(device[:2]))
    passed = ""
    for place in LIKELIEST_FIRST:
        source = f"its PNG text {place!r}" if isinstance(place, str) else f"its EXIF {place.name}"
        text, is_prose = _text(image, place), place in PROSE
        if text is None:
            passed = passed or (f"{source} is in an unknown encoding" if is_prose else "")
            continue
        prompt = _from_front_end(text, place)
        if prompt is None and is_prose and text:
            if is_stamp(text, device):
                passed = passed or f"{source}, {text[:40]!r}, is a machine's stamp"
            else:
                prompt = text
        if prompt:
            return Prompt(prompt, source), ""
    return None, passed


def _text(image: Image.Image, place: Place) -> str | None:
    """What lies there, ``""`` for nothing; None where its encoding is unknown.

    EXIF says ASCII, writers put UTF-8 there, and Pillow hands over Latin-1.
    """
    if isinstance(place, str):
        value = image.info.get(place)
    else:
        value = _unpacked(exif_value(image, place, IFD.Exif if place == Base.UserComment else None), place)
    if isinstance(value, str) and not isinstance(value, PngImagePlugin.iTXt):
        with suppress(UnicodeEncodeError):
            value = value.encode("latin-1")
    text = undeclared_text(value) if isinstance(value, bytes) else value if isinstance(value, str) else ""
    return None if text is None else text.replace("\0", " ").strip()


def _unpacked(value: Any, tag: Base) -> Any:
    """An EXIF value whose tag or first eight bytes name its encoding; UTF-16 comes in both byte orders."""
    encoding = ""
    if tag in EXPLORER and isinstance(value, tuple | bytes):
        value, encoding = bytes(value), "utf-16-le"
    elif tag == Base.UserComment and isinstance(value, bytes):
        if value.startswith(b"UNICODE"):
            encoding = "utf-16-le" if value[9:10] == b"\0" else "utf-16-be"
        if value.startswith((b"UNICODE", b"ASCII\0", b"\0" * 8)):
            value = value[8:]
    with suppress(UnicodeDecodeError):
        return value.decode(encoding) if encoding else value
    return value


def _from_front_end(text: str, place: Place) -> str | None:
    """The prompt in what a front end wrote, without weights and negative part; ``""`` if it has none.

    None where no front end wrote this. Some of their keys hold prompts in plain text, too.
    """
    text = re.sub(r"^(prompt|workflow):(?=\{)", "", text, flags=re.IGNORECASE)  # ComfyUI in WebP
    if text.startswith(("{", "[")):
        with suppress(ValueError, RecursionError):
            return plain_words(_in_json(json.loads(text)))
    if found := PARAMETERS.search(text):
        return plain_words(text[: found.start()])
    if place == "Dream":
        quoted = re.match(r'\s*"(.*?)"\s+-', text, re.DOTALL)
        return plain_words(quoted[1] if quoted else text.split(" -")[0])
    if place == "parameters":
        return plain_words(text)
    return text if place == "prompt" else None


def _in_json(data: Any) -> str:
    """The prompt in a front end's JSON; ``""`` where there is none."""
    if isinstance(data, list):
        return " ".join(filter(None, map(_in_json, data)))
    if not isinstance(data, dict):
        return ""
    nodes = {key: node for key, node in data.items() if isinstance(node, dict) and "class_type" in node}
    if graph := {key: node["inputs"] for key, node in nodes.items() if isinstance(node.get("inputs"), dict)}:
        links = ("positive", "guider", "conditioning")
        starts = (inputs[link] for link in links for inputs in graph.values() if link in inputs)
        return next(filter(None, (_upstream(graph, start) for start in starts)), "")
    for key in ("positive_prompt", "full_prompt", "prompt"):
        value = data.get(key)
        if isinstance(value, list):
            value = ", ".join(v if isinstance(v, str) else _in_json(v) for v in value)
        if isinstance(value, str) and value.strip():
            return value
    return next(filter(None, (_in_json(data.get(key)) for key in ("sui_image_params", "image", "meta"))), "")


def _upstream(graph: dict[str, Any], link: Any, depth: int = 12) -> str:
    """The first text that a link of ComfyUI's graph leads to: a text, or [node, output]."""
    if isinstance(link, str):
        return link
    if not (isinstance(link, list) and link and depth):
        return ""
    inputs = graph.get(str(link[0]), {})
    found = (_upstream(graph, inputs[key], depth - 1) for key in UPSTREAM.split() if key in inputs)
    return next(filter(None, found), "")
