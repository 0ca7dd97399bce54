"""The protocol of a table in one stamp: which pictures, at which size, by which networks and versions.

Tables of different stamps were not made alike; a row carries the stamp's digest, so that no merge of rows hides it.
"""

import hashlib
import json
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from nulltext.evaluation.benchmarks.base import Task


@cache
def commit() -> str | None:
    """The commit of the checkout that runs, marked where its files differ from it; None of an installed package."""
    checkout = Path(__file__).parents[3]
    if not (checkout / ".git").exists():
        return None
    git = ["git", "-C", str(checkout), "describe", "--always", "--exclude=*", "--dirty=-changed"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def content(tasks: Sequence[Task]) -> str:
    """A digest (16 hex digits) of the files of the pictures, in order of appearance."""
    found = hashlib.sha256()
    for stored in dict.fromkeys(task.image for task in tasks):
        found.update(hashlib.sha256(stored if isinstance(stored, bytes) else stored.read_bytes()).digest())
    return found.hexdigest()[:16]


def protocol(
    choices: Mapping[str, Any], tasks: Sequence[Task], prompts: str, commits: Iterable[str | None]
) -> dict[str, Any]:
    """The stamp of a table, from what a run chose and what it measured; ``prompts`` says what became of brackets."""
    masked = any(task.mask_runs is not None or task.mask_image is not None for task in tasks)
    return {
        "benchmark": choices["benchmark"],
        "edits": sum(task.target_prompt is not None for task in tasks),
        "pictures": len({task.image for task in tasks}),
        "pictures_sha256": content(tasks),
        "side": choices["side"],
        "prompts": prompts,
        "masks": "for scores alone" if masked else "none",
        "steps": {name: settings["steps"] for name, settings in choices["methods"].items()},
        "finished": sorted(choices["finished"]),
        "seed": choices["seed"],
        "networks": {key: name for key, name in choices["metrics"].items() if name is not None},
        "versions": choices["versions"],
        "commit": ", ".join(sorted({str(each) for each in commits})),
    }


def digest(stamp: Mapping[str, Any]) -> str:
    """A name that two stamps have in common only where all else is the same; no reader takes it for a number."""
    return f"p{hashlib.sha256(json.dumps(stamp, sort_keys=True, default=str).encode()).hexdigest()[:8]}"


def line(stamp: Mapping[str, Any]) -> str:
    """The stamp in a line."""
    if not stamp:
        return "Protocol not known."
    steps = ", ".join(dict.fromkeys(map(str, stamp["steps"].values()))) or "none"
    elsewhere = f"; finished elsewhere, masks and seeds not known: {', '.join(stamp['finished'])}"
    networks = ", ".join(f"{key} {name}" for key, name in stamp["networks"].items()) or "none"
    versions = ", ".join(f"{name} {version}" for name, version in stamp["versions"].items())
    return (
        f"Protocol {digest(stamp)}: {stamp['benchmark']}, {stamp['edits']} edits of {stamp['pictures']} pictures "
        f"(sha256 {stamp['pictures_sha256']}) at {stamp['side']} px; prompts {stamp['prompts']}; masks: "
        f"{stamp['masks']}; steps: {steps}; seed {stamp['seed']}; networks: {networks}; {versions}, commit "
        f"{stamp['commit']}{elsewhere if stamp['finished'] else ''}."
    )
