"""The recipe's command line: one stage from its YAML, or all in order and the export."""

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

DEFAULT_WORK = Path("lightning_logs/farmyard")
STAGES = ("vae", "clip", "unet")


def stage_classes(stage: str) -> tuple[type[LightningModule], type[LightningDataModule]]:
    """The module and the data of a stage; imported here, as each costs seconds."""
    if stage == "vae":
        from nulltext.farmyard.data import PictureData
        from nulltext.farmyard.vae import FarmyardVAE

        return FarmyardVAE, PictureData
    if stage == "clip":
        from nulltext.farmyard.clip import FarmyardCLIP
        from nulltext.farmyard.data import CaptionedPictureData

        return FarmyardCLIP, CaptionedPictureData
    from nulltext.farmyard.data import LatentData
    from nulltext.farmyard.unet import FarmyardUNet

    return FarmyardUNet, LatentData


class StageCLI(LightningCLI):
    """LightningCLI for one stage: `work` fixes every folder, `model.steps` the length."""

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
        parser.add_argument("--stage", type=str, default=self.stage, help="vae, clip or unet")
        parser.add_argument("--work", type=Path, default=DEFAULT_WORK, help="where data and stages are kept")
        parser.add_argument(
            "--ckpt_path", type=str, default=None, help="'last', or a checkpoint to go on from"
        )
        parser.link_arguments("work", "data.work")
        parser.link_arguments("work", "model.work")
        parser.link_arguments("model.steps", "trainer.max_steps")

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The Trainer with curves in work/logs/STAGE and a checkpoint there at the end of each epoch."""
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
        self.trainer.fit(self.model, self.datamodule, ckpt_path=path and str(path), weights_only=True)


def stage_of(args: Sequence[str]) -> str:
    """The stage that the YAML named after --config is for."""
    names = [b for a, b in pairwise(args) if a == "--config"]
    names += [a.split("=", 1)[1] for a in args if a.startswith("--config=")]
    for name in names:
        if not Path(name).is_file():
            raise UserError(f"there is no config {name}; the stages' are in configs/farmyard/")
        stage = yaml.safe_load(Path(name).read_text()).get("stage")
        if stage in STAGES:
            return stage
    raise UserError("no config says `stage: vae`, `clip` or `unet`; try --config configs/farmyard/vae.yaml")


def train(args: Sequence[str]) -> None:
    """Train one stage (`--config YAML ...`) or, without --config, go on with all and export the model.

    Args:
        args: The command line after `train`. Without --config, options that all stages know, such as --work.

    Raises:
        UserError: A config, checkpoint or earlier stage is not there.
    """
    if any(a in ("--config", "--help", "-h") or a.startswith("--config=") for a in args):
        StageCLI(stage_of(args), args).fit()
        return
    from nulltext.farmyard.export import export

    work = DEFAULT_WORK
    for stage in STAGES:
        cli = StageCLI(stage, ["--config", str(config_of(stage)), *args])
        work = Path(cli.config.work)
        last = work / "logs" / stage / "last.ckpt"
        if not (work / stage / "config.json").is_file():
            cli.fit(last if last.is_file() else None)
    print(f"the farmyard model is in {export(work)}; measure it: python -m nulltext.farmyard evaluate")


def config_of(stage: str) -> Path:
    """The YAML of a stage: in the checkout's configs, or in those that travel with an installed package."""
    import nulltext

    package = Path(nulltext.__file__).parent
    for folder in (Path("configs"), package / "configs", package.parents[1] / "configs"):
        if (folder / "farmyard" / f"{stage}.yaml").is_file():
            return folder / "farmyard" / f"{stage}.yaml"
    raise UserError(f"configs/farmyard/{stage}.yaml is not there; run this in a checkout of the repository")
