"""Tells a person's description of a picture from what cameras, scanners and programs stamp there."""

import re
from collections.abc import Collection

# Each is matched against the whole text, whatever its case.
STAMPS = (
    # programs: Created with GIMP; File written by Adobe Photoshop; CREATOR: gd-jpeg v1.0 (using IJG JPEG v62)
    r"(file |image |picture )?((re)?created|made|edited|processed|generated|produced|exported|rendered|converted|"
    r"captured|written|saved|scanned|optimi[sz]ed|compressed|resized|powered) (with|by|using|via)\b.*",
    r"(created|edited|exported|generated|scanned) (in|on|from)\b.*",
    r"(shot|sent) (on|with|from) (?!an? |the )\S.*",
    r"(creator|software|source|ver|version|id|camera|model|make|author|artist)\s*[:=].*",
    r"lav[cf]\d.*|lead technologies.*|intel\(r\).*|applemark|handmade software.*|ijg jpeg.*|exif.jpeg.picture",
    r"(adobe )?(photoshop|lightroom|illustrator|imageready|firefly|express)\b.*|(novel|novelai )?(ai.)?generated image",
    r"screen ?shots?( \d.*| at .*| from .*)?|whatsapp (image|video)\b.*",
    # rights
    r"(copyright\b|copr\.|\(c\)|©|®).*|(\S+ ){0,3}all rights reserved\W*|cc(0| ?by)\b.*",
    # nothing said: Untitled-1, Image 3, Default, My picture, Enter description here
    r"(untitled|unnamed|unknown|default|no|my|new|binary|user|enter|insert|add)?\W*(title|name|image|picture|photo|"
    r"photograph|img|pic|description|caption|comments?|subject|text|file|scan|document|layer|background)?\W*\d*"
    r"( here)?",
    r"none|null|nil|nan|undefined|n/?a|test|jpe?g( image)?|png( image)?|tiff?( image)?|digital image",
    # file names and numbers of cameras: IMG_1234.JPG, DSC00012, DCIM\100MEDIA\DJI_0001.JPG
    r"\S+\.(jpe?g|png|tiff?|bmp|gif|webp|hei[cf]|psd|xcf|mp4|dng|nef|cr2|arw)",
    r"[a-z]{1,6}[_-]?\d{3,}\w*|[a-z]{2,5}_\d+\w*|[0-9a-f-]{16,}",
    # cameras and scanners
    r"(\S+ ){0,3}digital ?(still ?)?camera( \S+)?|(\S+ )?(camera|dsc)",
    r"(epson|canon|hp|brother|xerox|fujitsu|ricoh|plustek|mustek|umax|agfa|microtek|kyocera|konica|lexmark|nikon)\b"
    r".*\b(scan\w*|perfection|series|multifunction|mfp|image|picture)\b.*|(canoscan|camscanner|scanner)\b.*",
    # phones' scene codes (Huawei, Honor): oznor, hdrpl, rhdr, dav, cof
    r"(oz|b|r|n|_)?(nor|edf|hdr|sdr|cof|mde|dav|bty|ptr|fbt|btf|bsh|mtf|fil|ner|vst|tfr|nfd|qrf|mfnr|nbt|cuva|rpt)"
    r"(pl|co|wo|hdr|nor|s|w)?(co|wo)?",
)
STAMP = re.compile("|".join(f"(?:{stamp})" for stamp in STAMPS), re.IGNORECASE)
DATA = re.compile(r"\w+=|<[?!]?\w|https?://\S*$|www\.\S*$|[a-z]+:/\S*$", re.IGNORECASE)
"""Data of instruments (ImageJ=1.53), mark-up, addresses: whatever follows."""

MOST_WORDS = 12
"""In a stamp; who writes more describes, even if it begins "Created by my daughter"."""

MAKERS_OF_CODES = ("huawei", "honor")


def is_stamp(text: str, device: Collection[str] = ()) -> bool:
    """Whether a description is a machine's: a program's name, a file's, a camera's, a code, or all capitals.

    Args:
        text: The description.
        device: What the picture says of its maker, model and software; a description that repeats it is a stamp.
    """
    text = " ".join(text.split())
    names = {name.strip().casefold() for name in device if name.strip()}
    if sum(c.isalpha() for c in text) < 2 and not re.search(r"[\u3040-\uffef]", text):
        return True
    if text.isupper() or text.casefold() in names:
        return True
    if " " not in text and any(name.startswith(MAKERS_OF_CODES) for name in names):
        return True
    if DATA.match(text):
        return True
    return len(text.split()) <= MOST_WORDS and len(text) < 300 and STAMP.fullmatch(text) is not None
