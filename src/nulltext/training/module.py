"""NullTextInversion: the LightningModule whose parameters are the T null embeddings.

One batch is one timestep, one epoch is one group of pictures, and ``training_step`` is one step of the inversion method
under manual optimisation. The mathematics is in ``nulltext.inversion``; this file holds its state.
"""

import dataclasses
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor, nn

from nulltext.data.picture import Picture
from nulltext.diffusion import sample
from nulltext.errors import UserError
from nulltext.inversion import InversionMethod, NullText, State, StepRecord, name_of
from nulltext.inversion.base import OnInnerStep, guided_denoiser
from nulltext.inversion.file import Inversion
from nulltext.inversion.invert import describe, measured_psnr
from nulltext.inversion.methods.learning import NonFiniteLoss
from nulltext.inversion.pivot import invert_to_noise
from nulltext.models.base import DiffusionModel
from nulltext.models.conditioning import Conditioning
from nulltext.models.loading import LoadingOptions, load_model
from nulltext.runs.checkpoints import check_facts, checkpoint_facts, identities, refuse_others
from nulltext.runs.results import Cost, Result, seconds_since
from nulltext.training.groups import Timestep


class NullTextInversion(LightningModule):
    """Inverts groups of pictures, one timestep a batch.

    Args:
        method: The inversion method; null-text inversion by default.
        loading: Which model is loaded, and how.
        init: An inversion.safetensors of the same picture whose null embeddings are the start.
    """

    model: DiffusionModel
    cursor: Tensor  # steps done in this group: the truth about progress
    z: Tensor  # (B, C, h, w), the guided trajectory at level ``cursor``
    pivot: Tensor  # (T + 1, B, C, h, w)

    def __init__(
        self,
        method: InversionMethod | None = None,
        loading: LoadingOptions | None = None,
        init: Path | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.method = method or NullText()
        self.loading = loading or LoadingOptions()
        self.init = Inversion.load(init) if init else None
        fields = {**vars(self.loading), "method": name_of(self.method), **vars(self.method)}
        # in plain types: checkpoints are read with ``weights_only``
        plain = {k: v for k, v in fields.items() if v is None or isinstance(v, int | float | str)}
        self.save_hyperparameters(plain)
        self.null = nn.ParameterList()
        self.register_buffer("cursor", torch.tensor(0))
        self.register_buffer("z", torch.empty(0))
        self.register_buffer("pivot", torch.empty(0))
        self.memory: dict[str, Tensor] = {}
        self.cost = Cost()
        self.pictures: tuple[Picture, ...] = ()
        self.record: StepRecord | None = None  # of the step just done; None where its group is left out
        self.on_inner_step: OnInnerStep = None
        self.state: State | None = None
        self.resumed: dict[str, Any] | None = None

    def setup(self, stage: str) -> None:
        """Loads the model, unless it was given; never in ``__init__``, where every error would cost a model load."""
        if len(self.null):
            return
        if not hasattr(self, "model"):
            device = self.trainer.strategy.root_device
            self.model = load_model(
                self.loading.pretrained, self.loading, device, precision=self.trainer.precision
            )
        if self.init is not None:
            self.init.check(self.model)
            if (T := self.init.steps) != self.method.steps:
                raise UserError(f"the inversion to start from has {T} steps; give --model.steps {T} as well")
        if self.model.picture_note:
            rank_zero_warn(self.model.picture_note)
        if self.method.guidance_scale == 1:
            rank_zero_warn("guidance_scale is 1: null embeddings have no influence and stay as they start")
        shape = (1, *self.model.embedding_shape)
        self.null = nn.ParameterList(nn.Parameter(torch.zeros(shape)) for _ in range(self.method.steps))

    def configure_optimizers(self) -> None:
        """None for Lightning: each timestep has a fresh optimiser of its own, in the method."""

    def training_step(self, batch: Timestep, batch_idx: int) -> None:
        """One step of the method; where it failed, the group is left out."""
        i = batch.step
        if i == 0:
            self._begin(batch.pictures)
        elif self.state is None:
            self._resume(batch.pictures)
        assert self.state is not None
        started, forwards, backwards = time.perf_counter(), self.model.forwards, self.model.backwards
        try:
            self.record = self.method.step(self.model, self.state, i, self.on_inner_step)
        except NonFiniteLoss as error:
            self.trainer.datamodule.leave_out(self.pictures, error)  # type: ignore[attr-defined]
            self.record, self.state, self.memory = None, None, {}
            self.cursor.zero_()
            return
        self.z = self.state.z
        self.cursor.fill_(i + 1)
        self.cost.seconds_optimisation += seconds_since(started)
        self.cost.unet_forwards += self.model.forwards - forwards
        self.cost.unet_backwards += self.model.backwards - backwards

    @torch.no_grad()
    def _begin(self, pictures: tuple[Picture, ...]) -> None:
        """A new group: its texts, its pivot, room for its embeddings."""
        self.cost = Cost()
        started, forwards = time.perf_counter(), self.model.forwards
        cond = self._embed(pictures)
        z_0 = self.model.encode(torch.stack([picture.pixels for picture in pictures]))
        begun = self.method.begin(self.model, z_0, cond)
        nulls = begun.null if self.init is None else list(self.init.null_embeddings.to(self.device))
        for parameter, null in zip(self.null, nulls, strict=True):
            parameter.data = null.expand_as(begun.null[0]).clone()
        self.pivot, self.z = begun.pivot, begun.z
        self.state = dataclasses.replace(begun, null=list(self.null), warm=self.init is None)
        self.memory = self.state.memory
        self.cost.seconds_pivot = seconds_since(started)
        self.cost.unet_forwards = self.model.forwards - forwards

    def _resume(self, pictures: tuple[Picture, ...]) -> None:
        """The group of a checkpoint: everything but the texts is there."""
        if self.resumed is not None:
            refuse_others(self.resumed["pictures"], pictures)
        cond, size = self._embed(pictures), pictures[0].size
        schedule = self.method.schedule(self.model, size)
        null_text = self.method.null_text(self.model, cond, size)
        state = State(schedule, cond, null_text, self.pivot, self.z, list(self.null))
        self.state = dataclasses.replace(state, memory=self.memory, warm=self.init is None)

    def _embed(self, pictures: tuple[Picture, ...]) -> Conditioning:
        self.pictures = pictures
        if self.init is not None and any(p.sha256 != self.init.source_sha256 for p in pictures):
            raise UserError(f"--model.init is of another picture than {pictures[0].name}; leave it out")
        return self.model.embed([picture.prompt for picture in pictures], pictures[0].size)

    @torch.no_grad()
    def results(self) -> list[Result]:
        """The finished group: inversions, and the pictures to compare. Its 2 T or 3 T forwards are not counted."""
        forwards, state = self.model.forwards, self.state
        assert state is not None
        empty = self.model.embed("", self.pictures[0].size).expand(len(self.pictures))
        denoise = guided_denoiser(self.model, state.schedule, state.cond, [empty], self.method.guidance_scale)
        noise, schedule = self.pivot[0], state.schedule
        if self.method.draws:  # the comparison is still with DDIM inversion
            noise = invert_to_noise(self.model, schedule, self.pivot[-1], state.cond)[0]
        *_, ddim = sample(denoise, schedule, noise)
        vae, ddim, ours = (self.model.decode(z).cpu() for z in (self.pivot[-1], ddim, self.z))
        self.model.forwards = forwards
        results = []
        for b, picture in enumerate(self.pictures):
            inversion = describe(self.model, self.method, state, picture, b, measured_psnr(ours[b], picture))
            mse = float((self.z[b] - self.pivot[-1, b]).square().mean())
            results.append(Result(picture, inversion, self.method.title, vae[b], ddim[b], ours[b], mse))
        return results

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what decides whether a checkpoint may be resumed, and what its tensors do not hold."""
        checkpoint["nulltext"] = {
            **checkpoint_facts(self.model, self.method, self.loading.pretrained),
            "pictures": identities(self.pictures),
            "memory": self.memory,
            "cost": dataclasses.asdict(self.cost),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses a checkpoint of another model or other settings, and makes room for its tensors."""
        facts = check_facts(checkpoint, checkpoint_facts(self.model, self.method, self.loading.pretrained))
        self.resumed, self.memory = facts, dict(facts["memory"])
        self.cost = Cost(**{name: facts["cost"][name] for name in vars(Cost())})
        saved = checkpoint["state_dict"]
        saved.pop("detail_noise", None)  # of an older run
        for name in ("z", "pivot"):
            setattr(self, name, torch.empty_like(saved[name]))
        for i, parameter in enumerate(self.null):
            parameter.data = torch.empty_like(saved[f"null.{i}"])

    @torch.no_grad()
    def embedding_distances(self) -> tuple[Tensor, Tensor]:
        """How far (B,) the null embedding of the last step is from the empty and from the source prompt (rms)."""
        assert self.record is not None and self.state is not None
        empty = self.method.learnable(self.model, self.model.embed("", self.pictures[0].size))
        source = self.method.learnable(self.model, self.state.cond)
        null = self.record.null
        return (null - empty).square().mean((1, 2)).sqrt(), (null - source).square().mean((1, 2)).sqrt()

    def loss_left(self) -> Tensor:
        """How far (B,) the trajectory is from the pivot after the last step: the mean square over the latent."""
        assert self.record is not None
        return (self.record.z - self.pivot[self.record.step + 1]).square().mean(dim=(1, 2, 3))
