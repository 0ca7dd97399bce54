"""What a picture's own file says it shows: EXIF and PNG text, and the prompts that front ends write there."""

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from PIL import Image, PngImagePlugin

from nulltext.data.decode import quiet
from nulltext.data.prompts.stamps import is_stamp
from nulltext.data.prompts.weights import plain_words
from nulltext.data.text import undeclared_text

IMAGE_DESCRIPTION, MAKE, MODEL, SOFTWARE, USER_COMMENT = 0x010E, 0x010F, 0x0110, 0x0131, 0x9286  # EXIF tags
EXPLORER = {0x9C9B: "XPTitle", 0x9C9F: "XPSubject", 0x9C9C: "XPComment"}  # UTF-16, as Windows writes them
FRONT_ENDS = ("parameters", "prompt", "invokeai_metadata", "sd-metadata", "Dream")
"""PNG keys of AUTOMATIC1111 and its kin, ComfyUI and our own edits, and InvokeAI's of three ages."""

PARAMETERS = re.compile(r"(?:^|\n)\s*(?:Negative prompt:|Steps: \d)")
UPSTREAM = (
    "text text_g t5xxl clip_l positive guider conditioning conditioning_1 conditioning_to string value prompt"
)


class Prompt(NamedTuple):
    """A prompt, and where it came from."""

    text: str
    source: str


@quiet()
def described(image: Image.Image) -> tuple[Prompt | None, str]:
    """The description a picture carries, and what was there but is none, for a message; ``""`` for nothing."""
    exif = _exif(image)
    device = [_decoded(exif.get(tag)) or "" for tag in (MAKE, MODEL, SOFTWARE)]
    device = [*device, " ".join(device[:2]), _decoded(image.info.get("Software")) or ""]
    passed = ""
    for source, value, is_prose in _texts(image, exif):
        text = _decoded(value)
        if text is None:
            passed = passed or (f"its {source} is in an unknown encoding" if is_prose else "")
            continue
        prompt = from_front_end(text, key=source)
        if prompt is None and is_prose and text:
            if is_stamp(text, device):
                passed = passed or f"its {source}, {text[:40]!r}, is a machine's stamp"
            else:
                prompt = text
        if prompt:
            return Prompt(prompt, f"its {source}"), ""
    return None, passed


def from_front_end(text: str, key: str = "") -> str | None:
    """The prompt in what a front end wrote, without weights and negative part; ``""`` if it has none.

    Args:
        text: Generation parameters, or JSON.
        key: Where it was written; ``parameters``, ``prompt`` and ``Dream`` hold prompts in plain text, too.

    Returns:
        None where no front end wrote this.
    """
    text = re.sub(r"^(prompt|workflow):(?=\{)", "", text, flags=re.IGNORECASE)  # ComfyUI in WebP
    if text.startswith(("{", "[")):
        try:
            return plain_words(_in_json(json.loads(text)))
        except (ValueError, RecursionError):
            pass
    if found := PARAMETERS.search(text):
        return plain_words(text[: found.start()])
    if key.endswith("'Dream'"):
        quoted = re.match(r'\s*"(.*?)"\s+-', text, re.DOTALL)
        return plain_words(quoted[1] if quoted else text.split(" -")[0])
    if key.endswith("'parameters'"):
        return plain_words(text)
    return text if key.endswith("'prompt'") else None


def _texts(image: Image.Image, exif: Any) -> Iterator[tuple[str, Any, bool]]:
    """(where, text, whether it may be prose), likeliest first."""
    info = image.info
    yield "EXIF ImageDescription", exif.get(IMAGE_DESCRIPTION), True
    yield "PNG text 'Description'", info.get("Description"), True
    for key in FRONT_ENDS:
        yield f"PNG text {key!r}", info.get(key), False
    try:
        comment = exif.get_ifd(0x8769).get(USER_COMMENT)
    except Exception:  # a damaged EXIF block raises many kinds
        comment = None
    yield "EXIF UserComment", _user_comment(comment), False
    yield "EXIF Make", exif.get(MAKE), False
    for key in ("Title", "Comment"):
        yield f"PNG text {key!r}", info.get(key), True
    for tag, name in EXPLORER.items():
        value = exif.get(tag)
        yield f"EXIF {name}", _utf_16(bytes(value), "le") if isinstance(value, tuple | bytes) else None, True


def _exif(image: Image.Image) -> Any:
    try:
        return image.getexif()
    except Exception:  # a damaged EXIF block raises many kinds; the picture itself may be fine
        return Image.Exif()


def _decoded(value: Any) -> str | None:
    """A description as text: EXIF says ASCII, writers put UTF-8 there, Pillow hands over Latin-1. None: no encoding."""
    if isinstance(value, str) and not isinstance(value, PngImagePlugin.iTXt):
        try:
            value = value.encode("latin-1")
        except UnicodeEncodeError:
            pass
    text = undeclared_text(value) if isinstance(value, bytes) else value if isinstance(value, str) else ""
    return None if text is None else text.replace("\0", " ").strip()


def _user_comment(value: Any) -> str | bytes:
    """EXIF's UserComment: eight bytes name the encoding; UTF-16 comes in both byte orders."""
    if not isinstance(value, bytes):
        return value if isinstance(value, str) else ""
    if value.startswith(b"UNICODE"):
        return _utf_16(value[8:], "le" if value[9:10] == b"\0" else "be")
    return value[8:] if value.startswith((b"ASCII\0", b"\0" * 8)) else value


def _utf_16(content: bytes, order: str) -> str | bytes:
    """UTF-16 as text; as it is where it is none."""
    try:
        return content.decode(f"utf-16-{order}")
    except UnicodeDecodeError:
        return content


def _in_json(data: Any) -> str:
    """The prompt in a front end's JSON; ``""`` where there is none."""
    if isinstance(data, list):
        return " ".join(filter(None, map(_in_json, data)))
    if not isinstance(data, dict):
        return ""
    nodes = {key: node["inputs"] for key, node in data.items() if _is_node(node)}
    if nodes:
        starts = (
            inputs[key]
            for key in ("positive", "guider", "conditioning")
            for inputs in nodes.values()
            if key in inputs
        )
        return next(filter(None, (_upstream(nodes, start) for start in starts)), "")
    for key in ("positive_prompt", "full_prompt", "prompt"):
        value = data.get(key)
        if isinstance(value, list):
            value = ", ".join(v if isinstance(v, str) else _in_json(v) for v in value)
        if isinstance(value, str) and value.strip():
            return value
    return next(filter(None, (_in_json(data.get(key)) for key in ("sui_image_params", "image", "meta"))), "")


def _is_node(node: Any) -> bool:
    return isinstance(node, dict) and "class_type" in node and isinstance(node.get("inputs"), dict)


def _upstream(nodes: dict[str, Any], link: Any, depth: int = 12) -> str:
    """The first text that a link of ComfyUI's graph leads to: a text, or [node, output]."""
    if isinstance(link, str):
        return link
    if not (isinstance(link, list) and link and depth):
        return ""
    inputs = nodes.get(str(link[0]), {})
    found = (_upstream(nodes, inputs[key], depth - 1) for key in UPSTREAM.split() if key in inputs)
    return next(filter(None, found), "")
