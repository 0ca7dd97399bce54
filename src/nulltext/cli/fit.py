"""The verb ``fit``: Lightning's command line, restrained."""

from __future__ import annotations

import logging
import os
import re
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.trainer.states import TrainerStatus
from lightning.pytorch.utilities.exceptions import MisconfigurationException, SIGTERMException

from nulltext.cli.fit_options import DESCRIPTION, IMAGES, add_options, chosen_method, describe
from nulltext.cli.options import pick
from nulltext.cli.parser import OneLineParser
from nulltext.cli.words import gather, hashed
from nulltext.errors import UserError
from nulltext.files import write_text
from nulltext.models.base import DiffusionModel
from nulltext.models.device import find_device, find_precision
from nulltext.models.loading import LoadingOptions, check_model
from nulltext.runs.checkpoints import choose_checkpoint, read_checkpoint
from nulltext.runs.folder import LAST, RunFolder, find_checkpoint, run_folder, run_of
from nulltext.runs.results import closing
from nulltext.training.callbacks import Artifacts, Checkpointer
from nulltext.training.curves import Curves
from nulltext.training.datamodule import PictureData
from nulltext.training.module import NullTextInversion
from nulltext.training.progress import Progress
from nulltext.training.strategy import choose_strategy, ranks_failed

TRAINER_DEFAULTS: dict[str, Any] = {
    "devices": 1,  # more than one is a choice
    "max_epochs": 1,  # the data sets it to the number of groups
    "enable_model_summary": False,  # the parameters are T null embeddings
    "log_every_n_steps": 1,
    "num_sanity_val_steps": 0,
}
NOISE = (
    "The '.*dataloader' does not have many workers",
    "You're resuming from a checkpoint that ended before the epoch ended",  # TimestepLoader starts at the cursor
    ".*Checkpoint directory .* exists and is not empty",
    ".*`isinstance\\(treespec, LeafSpec\\)` is deprecated",
    ".*a precision-level autocast",
    "`LightningModule.configure_optimizers` returned `None`",  # each timestep has an optimiser of its own
)


def main(words: list[str]) -> int:
    """Inverts the pictures that the words name; configs are paths already.

    Returns:
        0; 1 where some of several pictures could not be used or inverted, or one of several processes died; 130 or
        143 where the run was stopped.
    """
    quieten()
    cli = FitCLI(words)
    for place, reason in cli.datamodule.broken:
        print(f"nulltext: skipped {reason if place in reason else f'{place}: {reason}'}")
    return cli.code or int(bool(cli.datamodule.broken) or ranks_failed(cli.trainer))


def quieten() -> None:
    """Lightning's tips and hardware lines: nothing a person who inverts a picture can use."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in NOISE:
        warnings.filterwarnings("ignore", message=message)
    warnings.showwarning = _show_warning  # type: ignore[assignment]
    threading.excepthook = _show_thread_error


def _show_thread_error(arguments: Any) -> None:
    """TensorBoard's writing thread hands its error over to the main thread, which prints it in one line."""
    if not issubclass(arguments.exc_type, OSError):
        threading.__excepthook__(arguments)


def _show_warning(message: Warning | str, category: type[Warning], *_: Any) -> None:
    """A warning in one line, without the line of code that gave it."""
    if issubclass(category, UserWarning):
        print(f"nulltext: note: {' '.join(str(message).split())}", flush=True)


class FitParser(OneLineParser, LightningArgumentParser):
    """Lightning's parser with one-line errors and our help."""


class FitCLI(LightningCLI):
    """LightningCLI with one verb, one-line errors, and nothing that a checkpoint can overrule.

    ``loaded`` is the model, where it is there already; ``watching`` are callbacks that see each step before ours.
    """

    datamodule: PictureData
    model: NullTextInversion
    trainer: Trainer
    callbacks: list[Callback]

    def __init__(
        self, words: list[str], loaded: DiffusionModel | None = None, watching: Sequence[Callback] = ()
    ) -> None:
        self.code, self.loaded, self.watching = 0, loaded, watching
        self.method = chosen_method(words)
        super().__init__(
            NullTextInversion,
            PictureData,
            save_config_callback=SaveConfig,
            save_config_kwargs={"overwrite": True},
            seed_everything_default=0,
            parser_class=FitParser,
            parser_kwargs={"prog": "main.py", "fit": {"description": DESCRIPTION}},
            args=["fit", *gather(words, IMAGES)],
            auto_configure_optimizers=False,
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Only ``fit``; checkpoints are always read with ``weights_only``, so that is no option."""
        return {"fit": {"model", "train_dataloaders", "val_dataloaders", "datamodule", "weights_only"}}

    def add_default_arguments_to_parser(self, parser: Any) -> None:
        """Nothing: they are among ours."""

    def add_core_arguments_to_parser(self, parser: Any) -> None:
        """Our options, then the Trainer's."""
        add_options(parser, self.method)
        parser.add_lightning_class_args(Trainer, "trainer")
        parser.set_defaults({f"trainer.{key}": value for key, value in TRAINER_DEFAULTS.items()})

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> Any:
        """The parser, with a line of ours where Lightning's help is a page."""
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        describe(parser)
        return parser

    def parse_arguments(self, parser: Any, args: Any) -> None:
        """Reads the words; Lightning's warning about ``sys.argv`` is of no use to a person."""
        self.config = parser.parse_args(args)
        if prompt := hashed(args, "--data.prompt"):
            self.config.fit.data.prompt = prompt

    def _parse_ckpt_path(self) -> None:
        """Nothing: else the checkpoint's hyper-parameters would silently beat the command line."""

    def before_instantiate_classes(self) -> None:
        """Checks what can be checked without a model: precision, device, strategy, checkpoint."""
        fit, trainer = self.config.fit, self.config.fit.trainer
        trainer.precision = find_precision(trainer.precision if fit.precision is None else fit.precision)
        if fit.device is not None:
            device = find_device(fit.device)
            trainer.accelerator = device.type
            trainer.devices = trainer.devices if device.index is None else [device.index]
        fit.device = fit.precision = None  # config.yaml has them once, as the trainer's
        trainer.strategy = choose_strategy(trainer.strategy, trainer.devices, trainer.num_nodes)
        if fit.ckpt_path is not None:
            path = find_checkpoint(str(fit.ckpt_path), Path(trainer.default_root_dir or "."))
            read_checkpoint(path)
            fit.ckpt_path = str(path)

    def instantiate_classes(self) -> None:
        """Makes the data, the module and the trainer of their options."""
        try:
            self.config_init = self.parser.instantiate_classes(self.config)
        except (ImportError, ValueError) as error:  # of a logger's or a callback's class
            missing = re.search(r"(?:Requirement|No module named) '([\w-]+)", str(error))
            if missing is None:
                raise
            raise UserError(
                f"a class of --trainer needs a package that is missing: pip install {missing[1]}, or leave it out"
            ) from error
        fit = self.config_init.fit
        self.datamodule = PictureData(**vars(fit.data))
        method, loading = pick(self.method, fit.model), pick(LoadingOptions, fit.model)
        self.model = NullTextInversion(method, loading, fit.model.init)
        if self.loaded is not None:
            self.model.model = self.loaded
        self.trainer = self.instantiate_trainer()

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The trainer with our callbacks; a run that is resumed goes on in its own folder."""
        fit = self.config_init.fit
        if fit.trainer.logger in (None, True):
            run = run_of(Path(fit.ckpt_path)) if fit.ckpt_path else None
            kwargs["logger"] = RunFolder(Path(fit.trainer.default_root_dir or "."), run)
        bar = fit.trainer.enable_progress_bar is not False
        saves = fit.trainer.enable_checkpointing is not False
        # the bar first, so that it is closed when the last line is printed
        self.callbacks = [*[Progress()][:bar], Artifacts(), *[Checkpointer()][:saves]]
        others = [*self.watching, *(fit.trainer.callbacks or [])]
        kwargs["callbacks"] = [*others, *self.callbacks, Curves(**vars(fit.curves))]
        try:
            return super().instantiate_trainer(**kwargs)
        except (MisconfigurationException, TypeError, ValueError, RuntimeError) as error:
            raise UserError(f"the trainer cannot be made: {error}") from error

    def fit(self, ckpt_path: str | None = None, **kwargs: Any) -> None:
        """Runs, and prints how to go on where it was stopped; a model that is not there leaves no run folder."""
        # the pictures first, before another process or the model is there
        self.datamodule.trainer = self.trainer
        self.datamodule.setup("fit")
        checkpoint = ckpt_path and Path(ckpt_path)
        if checkpoint and self.trainer.world_size > 1:
            mine = [(source.name, source.sha256) for source in self.datamodule.sources]
            checkpoint = choose_checkpoint(checkpoint, self.trainer.global_rank, mine)
        loading = self.model.loading
        check_model(loading.pretrained, loading.variant, loading.revision, loading.family)
        try:
            self.trainer.fit(**kwargs, ckpt_path=checkpoint, weights_only=True)
        except SIGTERMException:
            self.code = 143
        except SystemExit:
            if self.trainer.state.status != TrainerStatus.INTERRUPTED:
                raise
            self.code = 130
        except Exception as error:
            told = isinstance(error, UserError | OSError | torch.OutOfMemoryError)
            if told or checkpoint is None or self.model.record is not None:
                raise
            raise UserError(
                f"{checkpoint} cannot be resumed ({type(error).__name__}: {str(error)[:200]}); "
                "leave --ckpt_path out to start again"
            ) from error
        self._report()

    def _report(self) -> None:
        """What the callbacks do not know: what was there before, what other processes did, how to go on."""
        folder, alone = run_folder(self.trainer), self.trainer.world_size == 1
        made = sum(callback.done for callback in self.callbacks if isinstance(callback, Artifacts))
        if self.datamodule.finished:
            print(f"nulltext: {len(self.datamodule.finished)} of these pictures were finished before")
        if not alone and self.trainer.is_global_zero:
            print(closing(folder))
        trial, done = bool(self.config.fit.trainer.fast_dev_run), int(self.model.cursor)
        halfway = 0 < done < self.model.method.steps and not trial  # max_time, limit_train_batches
        if (self.code or halfway) and (folder / LAST).is_file():
            again = os.path.relpath(folder / LAST)
            print(f"nulltext: stopped; go on with the same command and --ckpt_path {again}")
        elif alone and not (self.code or halfway or trial or made or self.datamodule.broken):
            print(f"nulltext: {folder} is finished; nothing was left to do")


class SaveConfig(SaveConfigCallback):
    """Writes config.yaml whole, into a folder that this run alone has, once the model is loaded."""

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Nothing yet: a model that fails to load leaves no folder."""

    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Claims the run folder and writes the settings there."""
        if self.already_saved or not trainer.is_global_zero:
            return
        folder = trainer.logger.claim() if isinstance(trainer.logger, RunFolder) else run_folder(trainer)
        write_text(folder / "config.yaml", self.parser.dump(self.config, skip_unset=False))
        self.already_saved = True
