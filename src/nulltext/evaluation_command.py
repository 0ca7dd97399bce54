"""`python main.py test --config benchmark.yaml`: the benchmark from the command line."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from nulltext.errors import UserError
from nulltext.evaluation import evaluate
from nulltext.evaluation_figures import write_figures
from nulltext.evaluation_results import write_results
from nulltext.evaluation_settings import (
    METHODS,
    WAYS,
    DataSettings,
    EditSettings,
    Method,
    MetricSettings,
    ModelSettings,
    Settings,
    Way,
)
from nulltext.parsing import run_function

LISTS = ("--methods", "--editing", "--data.edit_types")
"""Options that take several values, written with commas."""


def test_command(
    model: ModelSettings = ModelSettings(),  # noqa: B008 - frozen
    data: DataSettings = DataSettings(),  # noqa: B008
    edit: EditSettings = EditSettings(),  # noqa: B008
    metrics: MetricSettings = MetricSettings(),  # noqa: B008
    methods: list[Method] = list(METHODS),  # noqa: B006 - never changed
    editing: list[Way] = list(WAYS),  # noqa: B006
    batch_size: int = 4,
    seed: int = 1234,
    output: Path = Path("lightning_logs/benchmark"),
) -> int:
    """Scores methods side by side on a benchmark; stopped, it continues where it was when started again.

    Args:
        model: The model and the inversion.
        data: The benchmark.
        edit: Prompt-to-Prompt's settings.
        metrics: The models behind the metrics.
        methods: generated, ddim, null_text, negative_prompt, direct: some of them, with commas between.
        editing: plain, prompt_to_prompt, default (what `edit` does with no more than the prompt): some of them;
            the reconstruction is always measured.
        batch_size: Pictures inverted at once.
        seed: Of the noise for generated pictures; inversion and editing know no chance.
        output: Folder for records, pictures, tables and TensorBoard's events.

    Returns:
        0; 1 where entries of the benchmark were skipped.
    """
    settings = Settings(
        model, data, edit, metrics, tuple(methods), tuple(editing), batch_size, seed, Path(output)
    )
    if data.benchmark == "farmyard":
        print(
            f"the farmyard benchmark lies in {data.folder or settings.output / 'benchmark'}; drawn if it is not"
        )
    bar = Progress()
    results, store = evaluate(settings, progress=bar)
    bar.close()
    write_results(results, store.folder)
    undrawn = write_figures(results, store)
    for name, reason in results.absent.items():
        print(f"left out: {name}: {reason}")
    for problem in results.problems[:10]:
        print(f"problem: {problem}")
    if len(results.problems) > 10:
        print(f"and {len(results.problems) - 10} more problems: see {store.folder / 'results.md'}")
    for reason in undrawn:
        print(f"left out: {reason}")
    print((store.folder / "results.md").read_text(encoding="utf-8").partition("## Definitions")[0])
    print(f"tables, pictures and box plots: {store.folder}; tensorboard --logdir {store.folder}")
    return int(bool(results.problems))


class Progress:
    """A bar of edits with the time left and what is being done; a continued benchmark does not begin at nothing."""

    def __init__(self) -> None:
        self.bar: tqdm | None = None

    def __call__(self, done: int, total: int, doing: str) -> None:
        """Show that so many edits of so many are done, and what is being done with the next."""
        if self.bar is None:
            # smoothing 0: edits come a batch at once, and the last moment's speed says nothing
            self.bar = tqdm(
                total=total, initial=done, unit="edit", desc="benchmark", dynamic_ncols=True, smoothing=0
            )
        self.bar.set_postfix_str(doing, refresh=False)
        if done > self.bar.n:
            self.bar.update(done - self.bar.n)
        elif sys.stderr.isatty():  # a log has a line a batch
            self.bar.refresh()

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self.bar is not None:
            self.bar.close()


def main(argv: Sequence[str]) -> int:
    """Run the `test` verb.

    Args:
        argv: The words after `test`.

    Returns:
        0, or 1 where entries of the benchmark were skipped.

    Raises:
        UserError: A setting is wrong, or there is nothing to measure.
    """
    return run_function(test_command, [*_with_lists(argv)], prog="main.py test")


def _with_lists(argv: Sequence[str]) -> list[str]:
    """`--methods ddim,null_text` or `--methods ddim null_text` as `--methods [ddim, null_text]`."""
    words: list[str] = []
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        option, equals, value = word.partition("=")
        if option not in LISTS:
            words.append(word)
            continue
        values = [value] if equals else []
        while not equals and rest and not rest[0].startswith("--"):
            values.append(rest.pop(0))
        if not values:
            raise UserError(f"{option} needs a value, or several with commas between")
        listed = [v for part in values for v in re.split(r"[,\s]+", part.strip("[] ")) if v]
        words.append(f"{option}=[{', '.join(listed)}]")
    return words
