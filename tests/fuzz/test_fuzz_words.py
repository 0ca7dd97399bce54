"""Words of a command line and edits in YAML as nobody should write them."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

from nulltext.cli.jobs import edits_of, read_edits
from nulltext.cli.words import Listed, find_value, gather, tidy

sys.path.insert(0, str(Path(__file__).parent))
from forms import either_works_or_says_why, forms, nested

PROMPTS = Listed("--prompt", "'a horse'", greedy=False)
LISTS = (PROMPTS, Listed("--data.image", "sheep.jpg"), Listed("--methods", "ddim", commas=True))
OPTIONS = (
    "kind",
    "cross_replace",
    "self_replace",
    "equalizer",
    "local_blend",
    "threshold",
    "mask",
    "name",
    "null",
)


def _a_prompt(text: str) -> None:
    (word,) = gather(["--prompt", text], PROMPTS) if not text.startswith("--") else [""]
    if word and "\ud800" not in text:
        assert yaml.safe_load(word.removeprefix("--prompt=")) == [text]


def _words(words: list[str]) -> None:
    gathered = either_works_or_says_why(lambda: gather(tidy(words), *LISTS))
    if gathered is not None:
        assert all(isinstance(word, str) for word in gathered)
        assert not any(word in ("--prompt", "--data.image", "--methods") for word in gathered)
        find_value(gathered, "model.method")


def _edits(content: Any) -> None:
    with tempfile.TemporaryDirectory() as room:
        path = Path(room) / "edits.yaml"
        path.write_text(yaml.safe_dump(content, allow_unicode=False), encoding="utf-8")
        found = either_works_or_says_why(lambda: read_edits(path))
    for picture, entries in found or ():
        assert picture is None or isinstance(picture, str)
        for entry in entries:
            either_works_or_says_why(lambda entry=entry: edits_of(entry))


_printable = st.text(st.characters(blacklist_categories=("Cs", "Cc", "Cn", "Co")), min_size=1, max_size=30)
_word = st.sampled_from(
    ["--prompt", "--methods", "--data.image", "--model.method", "--config", "=", "~/x", "[a,b]"]
)

test_prompts, test_many_prompts = forms(_a_prompt, 100, 2000, text=_printable)
test_words, test_many_words = forms(
    _words, 100, 2000, words=st.lists(_word | st.text(max_size=10), max_size=8)
)
_edit = st.builds(
    lambda options: {"prompt": "a horse", **options},
    st.dictionaries(st.sampled_from(OPTIONS), nested, max_size=3),
)
_grouped = st.builds(
    lambda picture, edits: {"picture": picture, "edits": edits}, nested, st.lists(_edit, max_size=2)
)
test_edits, test_many_edits = forms(
    _edits, 100, 2000, content=nested | st.lists(_edit, max_size=2) | st.lists(_grouped, max_size=2)
)
