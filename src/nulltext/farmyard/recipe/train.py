"""The recipe's command line: one stage from its YAML, or all in order and the export."""

import argparse
import warnings
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from lightning import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger

from nulltext.errors import UserError
from nulltext.farmyard.recipe.data.stage_data import DEFAULT_WORK
from nulltext.farmyard.recipe.precision import hold_memory, training_precision
from nulltext.farmyard.world.worlds import SHIPPED, world_of

NAMES = ("vae", "clip", "unet", "flow")
"""The stages, in order."""


def stage_classes(stage: str) -> tuple[type[LightningModule], type[LightningDataModule]]:
    """The module and the data of a stage; imported here, as each costs seconds."""
    if stage == "vae":
        from nulltext.farmyard.recipe.data.stage_data import PictureData
        from nulltext.farmyard.recipe.stages.vae import FarmyardVAE

        return FarmyardVAE, PictureData
    if stage == "clip":
        from nulltext.farmyard.recipe.data.stage_data import CaptionedPictureData
        from nulltext.farmyard.recipe.stages.clip import FarmyardCLIP

        return FarmyardCLIP, CaptionedPictureData
    from nulltext.farmyard.recipe.data.stage_data import LatentData

    if stage == "unet":
        from nulltext.farmyard.recipe.stages.unet import FarmyardUNet

        return FarmyardUNet, LatentData
    from nulltext.farmyard.recipe.stages.flow import FarmyardFlow

    return FarmyardFlow, LatentData


class StageCLI(LightningCLI):
    """LightningCLI for one stage: `work` fixes every folder, `model.learning.steps` the length."""

    def __init__(self, stage: str, args: Sequence[str]) -> None:
        self.stage = stage
        model_class, data_class = stage_classes(stage)
        warnings.filterwarnings(
            "ignore", message="LightningCLI's args parameter"
        )  # sys.argv has the verb as well
        super().__init__(
            model_class,
            data_class,
            args=list(args),
            run=False,
            save_config_callback=None,
            seed_everything_default=0,
            auto_configure_optimizers=False,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Our own settings, and what follows from them."""
        parser.add_argument("--stage", type=str, default=self.stage, help=", ".join(NAMES))
        parser.add_argument("--work", type=Path, default=DEFAULT_WORK, help="folder of data and stages")
        parser.add_argument("--size", type=int, default=SHIPPED.size, help="side of the pictures")
        parser.add_argument(
            "--precision", type=str, default="auto", help="Lightning's; auto: bf16-mixed where that is fast"
        )
        parser.add_argument(
            "--ckpt_path", type=str, default=None, help="'last', or a checkpoint to go on from"
        )
        parser.link_arguments("work", "data.work")
        parser.link_arguments("work", "model.work")
        parser.link_arguments("size", "data.size")
        parser.link_arguments("size", "model.size")
        parser.link_arguments("model.learning.steps", "trainer.max_steps")

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The Trainer with curves in work/logs/STAGE and a checkpoint there at the end of each epoch."""
        precision = self.config.precision
        kwargs["precision"] = training_precision() if precision == "auto" else precision
        logs = Path(self.config.work) / "logs"
        logger = TensorBoardLogger(logs, name=self.stage, version="")
        last = ModelCheckpoint(logs / self.stage, filename="last", enable_version_counter=False)
        return super().instantiate_trainer(logger=logger, callbacks=[last], **kwargs)

    def fit(self, checkpoint: Path | None = None) -> None:
        """Train to the end, from the start or from a checkpoint; --ckpt_path names one as well."""
        path = checkpoint or self.config.ckpt_path
        if path == "last":
            path = Path(self.config.work) / "logs" / self.stage / "last.ckpt"
        if path and not Path(path).is_file():
            raise UserError(f"there is no checkpoint {path}; leave --ckpt_path out to train from the start")
        hold_memory()
        self.trainer.fit(self.model, self.datamodule, ckpt_path=path and str(path), weights_only=True)


def stage_of(args: Sequence[str]) -> str:
    """The stage that the YAML named after --config is for."""
    names = [b for a, b in pairwise(args) if a == "--config"]
    names += [a.split("=", 1)[1] for a in args if a.startswith("--config=")]
    for name in names:
        if not Path(name).is_file():
            raise UserError(f"there is no config {name}; the stages' are in configs/farmyard/")
        stage = yaml.safe_load(Path(name).read_text()).get("stage")
        if stage in NAMES:
            return stage
    raise UserError(f"no config names its stage, one of {', '.join(NAMES)}; see configs/farmyard/")


def train(args: Sequence[str]) -> None:
    """Train one stage (`--config YAML ...`) or, without --config, go on with all of a world and export its models.

    Args:
        args: The command line after `train`. Without --config, options that all stages know, such as --work, and
            --size, the world.

    Raises:
        UserError: A config, checkpoint or earlier stage is not there.
    """
    if any(a in ("--config", "--help", "-h") or a.startswith("--config=") for a in args):
        StageCLI(stage_of(args), args).fit()
        return
    from nulltext.farmyard.recipe.export import export_all

    size = size_of(args)
    work = DEFAULT_WORK
    for stage in NAMES:
        cli = StageCLI(stage, ["--config", str(config_of(stage, size)), *args])
        work = Path(cli.config.work)
        last = work / "logs" / stage / "last.ckpt"
        if not (work / stage / "config.json").is_file():
            cli.fit(last if last.is_file() else None)
    for folder in export_all(work):
        print(f"exported to {folder}; measure it: python -m nulltext.farmyard evaluate --pretrained {folder}")


def size_of(args: Sequence[str]) -> int:
    """The world that the command line names with --size; by default the shipped model's."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--size", type=int, default=SHIPPED.size)
    return world_of(parser.parse_known_args(args)[0].size).size


def config_of(stage: str, size: int) -> Path:
    """The YAML of a stage: in the checkout's configs, or in those that travel with an installed package."""
    import nulltext

    package = Path(nulltext.__file__).parent
    for folder in (Path("configs"), package / "configs", package.parents[1] / "configs"):
        if (folder / "farmyard" / str(size) / f"{stage}.yaml").is_file():
            return folder / "farmyard" / str(size) / f"{stage}.yaml"
    raise UserError(
        f"configs/farmyard/{size}/{stage}.yaml is not there; run this in a checkout of the repository"
    )
