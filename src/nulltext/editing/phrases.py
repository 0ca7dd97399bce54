"""Changes as people say them, swap, add, remove, set, made into a target prompt of the source prompt."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from itertools import pairwise

from nulltext.editing.tokens import normal
from nulltext.errors import UserError

PLACE = ("in", "on", "at", "inside", "outside", "under", "over", "above", "across", "against", "during")
BESIDE = ("next to", "near", "beside", "behind", "in front of", "close to", "by")
HAVING = ("with", "wearing", "holding", "and")
TIMES = "morning|noon|afternoon|evening|night|midnight|dawn|dusk|sunrise|sunset|spring|summer|autumn|winter"
WEATHERS = "rain|raining|snowfall|snowing|fog|foggy|mist|storm|thunderstorm|sunshine|wind"
_LINKS = sorted((*PLACE, *BESIDE, *HAVING), key=len, reverse=True)
_LINK = re.compile(rf"(?<![\w-])({'|'.join(_LINKS)})(?![\w-])", re.IGNORECASE)
ARTICLES = {"a", "an", "the"}
_IMPERATIVES = "make|change|turn|add|remove|replace|put|give|delete|erase|swap|convert|transform|let"
_INSTRUCTION = re.compile(rf"(please\s+)?({_IMPERATIVES})\s+(?!up\b)\S", re.IGNORECASE)


@dataclass(frozen=True)
class Changes:
    """What is to be changed; made in this order. Its fields are options of ``edit``.

    Attributes:
        swap: Words and what takes their place, such as sheep:horse.
        remove: Words that go; with the last word of a phrase, such as hat in "with a red hat", all of the phrase.
        set: A phrase in the place of the one of its sort (place, time, weather, what is beside), such as "at night".
        add: What comes besides, such as "a red hat" or "next to a barn".
    """

    swap: list[str] = field(default_factory=list)
    remove: list[str] = field(default_factory=list)
    set: list[str] = field(default_factory=list)
    add: list[str] = field(default_factory=list)

    def apply(self, source: str) -> str:
        """The target prompt; UserError for words that the source prompt does not have."""
        prompt = normal(source)
        making: list[tuple[Sequence[str], Callable[[str, str], str]]] = [
            (self.swap, swap),
            (self.remove, remove),
            (self.set, put),
            (self.add, add),
        ]
        for several, change in making:
            for one in several:
                prompt = change(prompt, normal(one).strip(" ,."))
        return prompt


def phrases(prompt: str) -> list[str]:
    """A prompt cut before each linking word: its subject, then "with a red hat", "on a green meadow", ..."""
    starts = [m.start() for m in _LINK.finditer(prompt) if prompt[: m.start()].strip()]
    cuts = [0, *starts, len(prompt)]
    return [prompt[a:b].strip(" ,") for a, b in pairwise(cuts)]


def swap(prompt: str, change: str) -> str:
    """``sheep:horse``: one word or phrase in the place of another, with the article that suits it."""
    old, colon, new = (part.strip() for part in change.partition(":"))
    if not (old and colon and new):
        raise UserError(
            f"--swap {change!r} has no pair; write the word, a colon and the new one: sheep:horse"
        )
    return re.sub(_words(prompt, old), lambda _: new, _with_article(prompt, old, new), flags=re.IGNORECASE)


def remove(prompt: str, words: str) -> str:
    """The words gone, and with the noun that ends a phrase the phrase."""
    pattern, (subject, *rest) = _words(prompt, words), phrases(prompt)
    for k, phrase in enumerate(rest):
        if re.search(pattern + r"\W*$", phrase, re.IGNORECASE):
            return " ".join([subject, *rest[:k], *rest[k + 1 :]])
    if re.search(pattern + r"\W*$", subject, re.IGNORECASE):
        raise UserError(f"{words!r} is what the picture shows; give --swap {words}:... to change it")
    following = re.search(pattern + r"\s+(\w+)", prompt, re.IGNORECASE)
    fitted = _with_article(prompt, words, following[1] if following else "")
    return re.sub(r"\s+", " ", re.sub(pattern, "", fitted, count=1, flags=re.IGNORECASE)).strip()


def put(prompt: str, phrase: str) -> str:
    """A phrase in the place of the one of its sort; at the end where there is none."""
    parts = phrases(prompt)
    for k, part in enumerate(parts[1:], start=1):
        if _sort(part) == _sort(phrase):
            return " ".join([*parts[:k], phrase, *parts[k + 1 :]])
    return add(prompt, phrase)


def add(prompt: str, words: str) -> str:
    """What the subject has comes after it, other phrases at the end; in a list of tags after a comma."""
    subject, *rest = phrases(prompt)
    if "," in prompt and not rest:
        return f"{prompt.rstrip(' ,.')}, {words}"
    phrase = words if _LINK.match(words) else f"with {words}"
    had = [part for part in rest if _sort(part) == "having"]
    if _sort(phrase) != "having":
        return " ".join([subject, *rest, phrase])
    if had and phrase.startswith("with "):
        phrase = f"and {phrase.removeprefix('with ')}"
    others = rest[len(had) :] if rest[: len(had)] == had else [part for part in rest if part not in had]
    return " ".join([subject, *had, phrase, *others])


def taken_back(source: str, target: str) -> dict[str, str]:
    """For each change from one prompt to another, the target prompt with that one change taken back.

    Changed words with nothing but an article between them are one change.

    Returns:
        Prompts by what they lack: "sheep -> horse", "+ with a red hat", "- next to a barn".
    """
    old, new = source.split(), target.split()
    changes: list[tuple[int, int, int, int]] = []
    for kind, a, b, c, d in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if kind == "equal":
            continue
        if changes and ARTICLES.issuperset(new[changes[-1][3] : c]):
            a, _, c, _ = changes.pop()
        changes.append((a, b, c, d))
    prompts = {}
    for a, b, c, d in changes:
        before, after = " ".join(old[a:b]), " ".join(new[c:d])
        name = f"{before} -> {after}" if before and after else f"+ {after}" if after else f"- {before}"
        prompts[name] = " ".join([*new[:c], *old[a:b], *new[d:]])
    return prompts


def note_on(source: str, target: str) -> str | None:
    """How to say it better, where a target prompt reads like an instruction or has little of the source prompt."""
    example = f"say what the picture shows when it is done, as {source!r} does, or give --swap, --add, --remove, --set"
    if _INSTRUCTION.match(target) and not _INSTRUCTION.match(source):
        return f"{target!r} reads like an instruction: {example}"
    known, said = (set(re.findall(r"\w+", text.lower())) for text in (source, target))
    if known and said and len(known & said) * 4 < min(len(known), len(said)):
        return f"{target!r} has few words of the source prompt, so little may stay as it was: {example}"
    return None


def _words(prompt: str, words: str) -> str:
    """A pattern that finds whole words; UserError where the prompt does not have them."""
    spaced = r"\s+".join(re.escape(word) for word in words.split())
    pattern = rf"(?<![\w-]){spaced}(?![\w-])"
    if not words or not re.search(pattern, prompt, re.IGNORECASE):
        raise UserError(f"there is no {words!r} in {prompt!r}; take one of its words")
    return pattern


def _with_article(prompt: str, old: str, new: str) -> str:
    """The prompt whose article before the old words, a or an, suits the new ones."""
    article = "an" if new[:1].lower() in "aeio" and new else "a"
    return re.sub(rf"\ban?(?=\s+{re.escape(old)}(?![\w-]))", article, prompt, flags=re.IGNORECASE)


def _sort(phrase: str) -> str:
    """What a phrase says: time, weather, place, beside, having."""
    for sort, known in (("time", TIMES), ("weather", WEATHERS)):
        if re.search(rf"\b({known})s?\b", phrase, re.IGNORECASE):
            return sort
    link = _LINK.match(phrase)
    name = link[1].lower() if link else ""
    return "beside" if name in BESIDE else "having" if name in HAVING else "place" if name in PLACE else ""
