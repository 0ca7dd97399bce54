"""Weights and alternatives in prompts, as other front ends read them: taken out, or named."""

import re

MARKUP = (
    (re.compile(r"<[a-z]+:[^<>]*>", re.I), "leave it out: a prompt loads no adapter here"),
    (re.compile(r"\([^()]*:\s*-?[\d.]+\s*\)"), ""),
    (re.compile(r"\(\([^()]+\)\)|\[\[[^\[\]]+\]\]"), ""),
    (re.compile(r"(?:\w{2,}|\([^()]*\))(?:\+\+|--)[+-]*(?=[\s,.)]|$)"), ""),
    (re.compile(r"\[[^\[\]|:]*\|[^\[\]]*\]|\{[^{}|]*\|[^{}]*\}"), "write one of the alternatives"),
    (re.compile(r"\[[^\[\]:]*:(?:[^\[\]:]*:)?\s*[\d.]+\s*\]"), "write one of the alternatives"),
)


def weights_note(prompt: str) -> str | None:
    """What to say of a prompt with ``(sheep:1.3)``, ``[a|b]`` or ``<lora:...>``, which mean nothing here; else None."""
    for pattern, advice in MARKUP:
        if found := pattern.search(prompt):
            words = plain_words(found[0]).rstrip("+-").split() or ["sheep"]
            weight = re.search(r":\s*(-?[\d.]+)", found[0])
            louder = f"{words[-1]}:{weight[1] if weight else 1.3}"
            advice = advice or f"write {' '.join(words)!r} alone, and in an edit --equalizer {louder!r}"
            return (
                f"the prompt's {found[0]!r} is read letter by letter, not as a weight or a choice; {advice}"
            )
    return None


def plain_words(prompt: str) -> str:
    """A front end's prompt without its weights, adapters and alternatives: the words alone.

    ``(a:1.3)``, ``((a))`` and ``[a]`` give a; ``[a|b]`` gives a; ``[a:b:0.5]`` gives b, which most steps saw.
    """
    text = MARKUP[0][0].sub(" ", prompt)
    text = re.sub(r"\\([()\[\]{}])", lambda m: chr(0xE000 + ord(m[1])), text)  # escaped: meant as they are
    for _ in range(20):  # from the innermost bracket outwards
        before = text
        text = re.sub(r"\(([^()\[\]]*?)(?::\s*-?[\d.]+\s*)?\)", r"\1", text)
        text = re.sub(r"\[([^()\[\]]*)\]", lambda m: _chosen(m[1]), text)
        if text == before:
            break
    text = re.sub(r"\b(BREAK|AND)\b", ",", text)
    text = re.sub("[\ue028-\ue07d]", lambda m: chr(ord(m[0]) - 0xE000), text)
    text = re.sub(r"\s+([,.])", r"\1", " ".join(text.split()))
    return re.sub(r"(,\s*){2,}", ", ", text).strip(" ,")


def _chosen(inner: str) -> str:
    """What a bracket leaves: the first alternative, or what a switch ends with."""
    if "|" in inner:
        return inner.split("|")[0]
    parts = inner.split(":")
    if len(parts) > 1 and re.fullmatch(r"\s*[\d.]+\s*", parts[-1]):
        return parts[-2] or parts[0]
    return inner
