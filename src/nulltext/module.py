"""NullTextInversion: the LightningModule whose parameters are the T null embeddings.

One batch is one timestep, one epoch is one group of pictures, and ``training_step`` runs the inner optimiser loop of
that timestep under manual optimisation. The mathematics is in ``nulltext.inversion``; this file keeps its state.
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor, nn
from torch.optim import Optimizer

from nulltext.artifact import Inversion
from nulltext.backbone import Backbone, TextEmbedding
from nulltext.errors import UserError
from nulltext.inversion import (
    LossScale,
    NonFiniteLoss,
    OnInnerStep,
    StepRecord,
    describe,
    optimise_null_embedding,
    sample,
    start_embedding,
)
from nulltext.inversion_settings import InversionSettings, choices, detail_steps
from nulltext.optimizers import NormalisedGradient
from nulltext.pivot import ddim_invert
from nulltext.starting_noise import plain_noise

if TYPE_CHECKING:
    from nulltext.data import Timestep
    from nulltext.pictures import Picture


OPTIONS = {
    "optimizer_class": "--model.optimizer",
    "learning_rate": "--model.optimizer.lr",
    "precision": "--trainer.precision",
}
"""Where the option is not ``--model.NAME``."""


@dataclass
class Spent:
    """What the inversion of the current group has cost so far; UNet evaluations are counted per latent."""

    seconds_pivot: float = 0.0
    seconds_optimisation: float = 0.0
    unet_forwards: int = 0
    unet_backwards: int = 0
    inner_steps: int = 0
    skipped: int = 0


@dataclass(frozen=True)
class Result:
    """One finished picture. Pixels are (3, H, W) in [-1, 1]."""

    picture: Picture
    inversion: Inversion
    vae: Tensor  # what the VAE alone makes of it: the bound
    ddim: Tensor  # the guided walk with the plain null text
    reconstruction: Tensor  # the guided walk with the learned null embeddings
    latent_mse: float  # reconstruction against the picture's latents


class NullTextInversion(LightningModule):
    """Learns, for each of T timesteps, the embedding of the empty prompt that keeps guidance on the pivot.

    Args:
        pretrained: The model: farmyard (shipped, 64 x 64), a local diffusers folder, or a hub id.
        steps: T, the DDIM steps; 50 in the paper.
        inner_steps: N, at most so many optimiser steps a timestep; 10 in the paper.
        guidance_scale: Weight w of classifier-free guidance; 7.5 as in the paper.
        start: Where the null embeddings start: 0 the empty prompt (paper), 1 the source prompt, or between. Below 1
            those after the first start where the one before ended, and longer steps pay: --model.optimizer.lr 0.01.
        fixed_point_iterations: Refinements of each step of the pivot at most, one forward each; 0 is plain DDIM
            inversion.
        pivot_tolerance: A step of the pivot is refined no further once that moved its latents by less (mean square);
            0 always refines so often.
        optimizer: The inner optimiser, fresh at each timestep.
        learning_rate_decay: Timestep i learns at lr * (1 - decay * i); 0.01 as in the paper's code.
        tolerance: A timestep whose loss is below takes no (further) inner step; 0 always takes all, as the paper.
        early_stop_loss: Timestep i ends after a loss below early_stop_loss + early_stop_growth * i; 0 never.
        early_stop_growth: See early_stop_loss; 2e-5 in the paper's code.
        fresh_guided_step: Ask the network again for the step after the inner loop, as the paper's code does; without,
            what it said last is used, which saves one or two evaluations a timestep.
        detail_steps: Steps of a plain DDIM inversion whose noise is kept for edits to take their fine detail from, a
            forward each; by default as many as the model's edits take, farmyard's 8, others' none.
        init: An inversion.safetensors of the same picture to go on from: more inner steps, another guidance.
        variant: Which weight files to take, such as fp16.
        gradient_checkpointing: Less memory, a third more time.
        vae_tiling: Encode and decode in tiles; less memory for large pictures.
        attention_slicing: Attend head by head; less memory, slower.
        offload: Keep the VAE and the text encoders on the CPU while they are idle.
    """

    def __init__(
        self,
        pretrained: str = "farmyard",
        steps: int = InversionSettings.steps,
        inner_steps: int = InversionSettings.inner_steps,
        guidance_scale: float = InversionSettings.guidance_scale,
        start: float = InversionSettings.start,
        fixed_point_iterations: int = InversionSettings.fixed_point_iterations,
        pivot_tolerance: float = InversionSettings.pivot_tolerance,
        optimizer: OptimizerCallable = lambda parameters: NormalisedGradient(parameters),
        learning_rate_decay: float = InversionSettings.learning_rate_decay,
        tolerance: float = InversionSettings.tolerance,
        early_stop_loss: float = InversionSettings.early_stop_loss,
        early_stop_growth: float = InversionSettings.early_stop_growth,
        fresh_guided_step: bool = InversionSettings.fresh_guided_step,
        detail_steps: int | None = InversionSettings.detail_steps,
        init: Path | None = None,
        variant: str | None = None,
        gradient_checkpointing: bool = False,
        vae_tiling: bool = False,
        attention_slicing: bool = False,
        offload: bool = False,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        names = [field.name for field in dataclasses.fields(InversionSettings)]
        self.save_hyperparameters("pretrained", *names)
        self.settings = InversionSettings(**{name: self.hparams[name] for name in names})
        self.pretrained = pretrained
        self.make_optimizer = optimizer
        self.init = Inversion.load(init) if init else None
        self.loading: dict[str, Any] = {
            "variant": variant,
            "gradient_checkpointing": gradient_checkpointing,
            "vae_tiling": vae_tiling,
            "attention_slicing": attention_slicing,
            "offload": offload,
        }
        self.backbone: Backbone
        self.null = nn.ParameterList()
        self.cursor: Tensor
        self.z: Tensor
        self.pivot: Tensor
        self.detail_noise: Tensor
        self.register_buffer(
            "cursor", torch.tensor(0)
        )  # timesteps done in this group: the truth about progress
        self.register_buffer("z", torch.empty(0))  # (B, 4, h, w), the guided walk at level ``cursor``
        self.register_buffer("pivot", torch.empty(0))  # (T + 1, B, 4, h, w)
        self.register_buffer("detail_noise", torch.empty(0))  # (B, 4, h, w), or none kept
        self.loss_scale = LossScale()
        self.spent = Spent()
        self.pictures: tuple[Picture, ...] = ()
        self.record: StepRecord | None = None
        self.gave_up = False  # whether the timestep just tried was the last of its group, which is left out
        self.on_inner_step: OnInnerStep | None = None  # set by whoever wants to be told of each inner step
        self._cond: TextEmbedding | None = None
        self._start: TextEmbedding | None = None
        self._resumed: dict[str, Any] | None = None

    def setup(self, stage: str) -> None:
        """Loads the model; never in ``__init__``, where every argument error would cost a model load."""
        if hasattr(self, "backbone"):
            return
        self.backbone = Backbone.from_pretrained(
            self.pretrained,
            precision=str(self.trainer.precision),
            device=self.trainer.strategy.root_device,
            **self.loading,
        )
        self.schedule = self.backbone.schedule(self.settings.steps)
        if self.init is not None:
            self._check_init(self.init)
        if self.settings.guidance_scale == 1:
            rank_zero_warn(
                "guidance_scale is 1: the null embeddings have no say and stay exactly as they start"
            )
        self.loss_scale = LossScale.for_dtype(self.backbone.dtype)
        shape = (1, self.backbone.max_length, self.backbone.unet.config.cross_attention_dim)
        self.null = nn.ParameterList(nn.Parameter(torch.zeros(shape)) for _ in range(self.settings.steps))

    def _check_init(self, init: Inversion) -> None:
        init.check(self.backbone)
        if init.steps != self.settings.steps:
            raise UserError(
                f"the inversion to start from has {init.steps} steps; give --model.steps {init.steps} as well"
            )

    def configure_optimizers(self) -> Optimizer:
        """One optimiser with a group, and so a learning rate, for each timestep."""
        optimizer = self.make_optimizer([{"params": [parameter]} for parameter in self.null])
        for i, group in enumerate(optimizer.param_groups):
            group["lr"] *= 1 - self.settings.learning_rate_decay * i
        return optimizer

    def training_step(self, batch: Timestep, batch_idx: int) -> None:
        """One timestep: the null embedding starts from its predecessor's end and is bent onto the pivot.

        Raises:
            NonFiniteLoss: It could not be, and there is no other picture to go on with.
        """
        i, self.gave_up = batch.step, False
        optimizer: Any = self.optimizers(use_pl_optimizer=False)
        if i == 0:
            self._begin(batch.pictures)
        elif self._cond is None:
            self._take_up(batch.pictures)
        before = (time.perf_counter(), self.backbone.forwards, self.backbone.backwards)
        parameter: nn.Parameter = self.null[i]
        with torch.no_grad():
            parameter.copy_(self._warm_start(i))
        optimizer.state.pop(parameter, None)
        assert self._cond is not None and self._start is not None
        try:
            record = optimise_null_embedding(
                self.backbone,
                self.schedule,
                i,
                self.z,
                self.pivot[i + 1],
                self._cond,
                self._start,
                parameter,
                optimizer,
                self.settings,
                self.loss_scale,
                self.on_inner_step,
            )
        except NonFiniteLoss as error:
            self._give_up(error)
            return
        finally:
            optimizer.state.pop(parameter, None)
        self.record, self.z = record, record.z
        self.cursor.fill_(i + 1)
        self._count(before)

    def _give_up(self, error: NonFiniteLoss) -> None:
        """Leaves the group out and makes ready for the next."""
        self.trainer.datamodule.leave_out(self.pictures, error)  # type: ignore[attr-defined]
        self.gave_up = True
        self.cursor.zero_()
        self.loss_scale = LossScale.for_dtype(self.backbone.dtype)

    def _count(self, before: tuple[float, int, int]) -> None:
        assert self.record is not None
        started, forwards, backwards = before
        self.spent.seconds_optimisation += seconds_since(started)
        self.spent.unet_forwards += self.backbone.forwards - forwards
        self.spent.unet_backwards += self.backbone.backwards - backwards
        self.spent.inner_steps += int(self.record.inner_steps.sum())
        self.spent.skipped += self.record.skipped

    def _warm_start(self, i: int) -> Tensor:
        if self.init is not None:
            return self.init.null_embeddings[i].to(self.device).expand_as(self.null[i])
        assert self._start is not None
        return self.null[i - 1] if i and self.settings.warm_start else self._start.sequence

    @torch.no_grad()
    def _begin(self, pictures: tuple[Picture, ...]) -> None:
        """A new group: its texts, its pivot, room for its embeddings."""
        self.spent = Spent()
        started, forwards = time.perf_counter(), self.backbone.forwards
        self._read_texts(pictures)
        assert self._cond is not None and self._start is not None
        z_0 = self.backbone.encode_image(torch.stack([picture.pixels for picture in pictures]))
        self.pivot = ddim_invert(
            self.backbone,
            self.schedule,
            z_0,
            self._cond,
            fixed_point_iterations=self.settings.fixed_point_iterations,
            pivot_tolerance=self.settings.pivot_tolerance,
        )
        self.z = self.pivot[0]
        steps = detail_steps(self.backbone, self.settings)
        plain = plain_noise(self.backbone, z_0, self._cond, steps)
        self.detail_noise = z_0.new_empty(0) if plain is None else plain
        for parameter in self.null:
            parameter.data = torch.zeros_like(self._start.sequence)
        self.spent.seconds_pivot = seconds_since(started)
        self.spent.unet_forwards = self.backbone.forwards - forwards

    def _take_up(self, pictures: tuple[Picture, ...]) -> None:
        """The group of a checkpoint: everything but the texts is there already."""
        if self._resumed is not None and self._resumed["pictures"] != _identities(pictures):
            raise UserError(
                f"the checkpoint is of {_names(self._resumed['pictures'])}, not of {_names(_identities(pictures))}; "
                "give the same --data as then, or leave --ckpt_path out"
            )
        self._read_texts(pictures)

    def _read_texts(self, pictures: tuple[Picture, ...]) -> None:
        self.pictures = pictures
        if self.init is not None and any(p.sha256 != self.init.source_sha256 for p in pictures):
            raise UserError(f"--model.init is of another picture than {pictures[0].name}; leave it out")
        height, width = pictures[0].pixels.shape[-2:]
        self._cond = self.backbone.embed_prompt([picture.prompt for picture in pictures], (height, width))
        self._start = start_embedding(self.backbone, self._cond, self.settings.start)

    @torch.no_grad()
    def results(self) -> list[Result]:
        """The finished group: inversions, and the pictures to compare. Costs 2 T forwards that are not counted."""
        counts = self.backbone.forwards
        assert self._cond is not None
        w, z_0 = self.settings.guidance_scale, self.pivot[-1]
        empty = start_embedding(self.backbone, self._cond, 0.0)
        ddim = sample(self.backbone, self.schedule, self.pivot[0], self._cond, [empty], w)
        vae, ddim, ours = (self.backbone.decode_latents(z).cpu() for z in (z_0, ddim, self.z))
        self.backbone.forwards = counts
        return [self._result(b, vae[b], ddim[b], ours[b]) for b in range(len(self.pictures))]

    def _result(self, b: int, vae: Tensor, ddim: Tensor, ours: Tensor) -> Result:
        picture = self.pictures[b]
        psnr = float(-10 * ((ours - picture.pixels).square().mean() / 4).log10())  # pixels span 2
        nulls = torch.stack([parameter.detach()[b] for parameter in self.null])
        inversion = describe(
            self.backbone,
            self.schedule,
            picture,
            self.settings,
            nulls,
            self.pivot[0, b],
            psnr,
            optimizer=self.make_optimizer,
            detail_noise=self.detail_noise[b] if len(self.detail_noise) else None,
        )
        latent_mse = float((self.z[b] - self.pivot[-1, b]).square().mean())
        return Result(picture, inversion, vae, ddim, ours, latent_mse)

    @property
    def taken_up(self) -> list[dict[str, Any]] | None:
        """What tells the pictures of the checkpoint that was loaded apart; None without one."""
        return None if self._resumed is None else self._resumed["pictures"]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what a checkpoint must say of itself to be taken up only where it belongs."""
        checkpoint["nulltext"] = {
            "pictures": _identities(self.pictures),
            "model": self.pretrained,
            "fingerprint": self.backbone.fingerprint,
            "settings": choices(self.backbone, self.settings, self.make_optimizer),
            "loss_scale": self.loss_scale.value,
            "spent": dataclasses.asdict(self.spent),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses a checkpoint of another model or other settings, and makes room for its tensors.

        Raises:
            UserError: The checkpoint is not of this inversion, saying where they differ.
        """
        facts = checkpoint.get("nulltext")
        if not isinstance(facts, dict) or "state_dict" not in checkpoint:
            raise UserError(
                "the checkpoint is not one of nulltext; give checkpoints/last.ckpt of a run, or none"
            )
        if facts["fingerprint"] != self.backbone.fingerprint:
            raise UserError(
                f"the checkpoint was made with the model {facts['model']}, not with {self.pretrained}; "
                f"give --model.pretrained {facts['model']}, or leave --ckpt_path out"
            )
        for name, ours in choices(self.backbone, self.settings, self.make_optimizer).items():
            theirs, option = facts["settings"].get(name), OPTIONS.get(name, f"--model.{name}")
            if theirs != ours:
                raise UserError(
                    f"the checkpoint was made with {name} {theirs}, not {ours}; give {option} {theirs}, "
                    "or leave --ckpt_path out"
                )
        self._resumed = facts
        self.loss_scale.value = facts["loss_scale"]
        self.spent = Spent(**facts["spent"])
        state = checkpoint["state_dict"]
        for name in ("z", "pivot", "detail_noise"):
            setattr(self, name, torch.empty_like(state[name]))
        for i, parameter in enumerate(self.null):
            parameter.data = torch.empty_like(state[f"null.{i}"])


def seconds_since(started: float) -> float:
    """By ``time.perf_counter``; none where the clock was set back meanwhile."""
    return max(0.0, time.perf_counter() - started)


def _identities(pictures: tuple[Picture, ...]) -> list[dict[str, Any]]:
    """What tells pictures and their prompts apart, in plain types."""
    return [
        {
            "name": picture.name,
            "sha256": picture.sha256,
            "prompt": picture.prompt,
            "size": list(picture.pixels.shape[-2:]),
            "crop": str(picture.crop),
        }
        for picture in pictures
    ]


def _names(identities: list[dict[str, Any]]) -> str:
    return ", ".join(f"{p['name']} ({p['prompt']!r}, {p['size'][1]}x{p['size'][0]})" for p in identities)
