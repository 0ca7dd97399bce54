"""Flow transformers: their texts, levels, predictions and files are those of diffusers' own pipelines."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import PROMPT
from torch import Tensor

from nulltext.diffusion import Level, trajectory
from nulltext.errors import UserError
from nulltext.inversion import NullText
from nulltext.inversion.base import guided_denoiser
from nulltext.inversion.file import Inversion
from nulltext.inversion.invert import invert
from nulltext.models import Conditioning, DiffusionModel, check_model

SIZES = [(32, 32), (24, 32)]


def _load(folder: Path, **options: Any) -> DiffusionModel:
    return DiffusionModel.from_pretrained(str(folder), **options)


def _texts(model: DiffusionModel) -> dict[str, Tensor]:
    """What the pipeline itself makes of a prompt and of the empty one, by the names of its own arguments."""
    pipe, made = model.pipe, {}
    for prefix, prompt in (("", PROMPT), ("negative_", "")):
        if model.pipeline == "StableDiffusion3Pipeline":
            sequence, _, pooled, _ = pipe.encode_prompt(prompt, None, None, device="cpu")
            made |= {f"{prefix}prompt_embeds": sequence, f"{prefix}pooled_prompt_embeds": pooled}
        elif model.pipeline == "FluxPipeline":
            sequence, pooled, _ = pipe.encode_prompt(prompt, None, device="cpu")
            made |= {f"{prefix}prompt_embeds": sequence, f"{prefix}pooled_prompt_embeds": pooled}
        else:
            sequence, _, mask, *_ = pipe.encode_prompt(
                prompt, device="cpu", do_classifier_free_guidance=False
            )
            made |= {f"{prefix}prompt_embeds": sequence, f"{prefix}prompt_attention_mask": mask}
    return made


def _sampled(model: DiffusionModel, z: Tensor, w: float, steps: int) -> Tensor:
    """The latents after each step by the untouched pipeline (T, 1, C, h, w)."""
    h, width = z.shape[-2:]
    seen: list[Tensor] = []

    def see(pipe: Any, i: int, t: Any, kwargs: dict[str, Tensor]) -> dict[str, Tensor]:
        latents = kwargs["latents"]
        if latents.ndim == 3:
            latents = pipe._unpack_latents(latents, 2 * h, 2 * width, 2)
        seen.append(latents.clone())
        return {}

    flux = model.pipeline == "FluxPipeline"
    latents = (
        z if model.pipeline == "StableDiffusion3Pipeline" else model.pipe._pack_latents(z, 1, 4, h, width)
    )
    with torch.no_grad():
        model.pipe(
            **_texts(model),
            latents=latents,
            height=2 * h,
            width=2 * width,
            num_inference_steps=steps,
            **({"true_cfg_scale": w, "guidance_scale": 1.0} if flux else {"guidance_scale": w}),
            callback_on_step_end=see,
            output_type="latent",
        )
    return torch.stack(seen)


def test_texts_equal_the_pipelines_own(tiny_flow: Path) -> None:
    model = _load(tiny_flow)
    theirs, text, null = _texts(model), model.embed(PROMPT), model.embed("")
    torch.testing.assert_close(text.sequence, theirs["prompt_embeds"])
    torch.testing.assert_close(null.sequence, theirs["negative_prompt_embeds"])
    for name, key in (("pooled", "pooled_prompt_embeds"), ("mask", "prompt_attention_mask")):
        assert (name in text.extras) == (key in theirs)
        if key in theirs:
            torch.testing.assert_close(text.extras[name], theirs[key])
            torch.testing.assert_close(null.extras[name], theirs[f"negative_{key}"])


@pytest.mark.parametrize("size", SIZES)
def test_sampling_equals_the_pipeline_step_for_step(tiny_flow: Path, size: tuple[int, int]) -> None:
    model, steps, w = _load(tiny_flow), 6, 4.0
    z = torch.randn(1, *model.latent_shape(size), generator=torch.Generator().manual_seed(1))
    schedule = model.schedule(steps, size)
    denoise = guided_denoiser(model, schedule, model.embed(PROMPT, size), [model.embed("", size)], w)
    with torch.no_grad():
        ours = trajectory(denoise, schedule, z)
    torch.testing.assert_close(ours[1:], _sampled(model, z, w, steps), rtol=1e-4, atol=2e-5)
    torch.testing.assert_close(
        torch.cat([schedule.sigma, schedule.sigma_next[-1:]]), model.pipe.scheduler.sigmas
    )
    torch.testing.assert_close(schedule.t, model.pipe.scheduler.timesteps)


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_half_precision_is_near_and_its_gradient_is_finite(tiny_flow: Path, precision: str) -> None:
    whole, half = _load(tiny_flow), _load(tiny_flow, precision=precision)
    z, text = torch.randn(2, *whole.latent_shape((24, 32))), whole.embed([PROMPT, ""])
    t, level = torch.tensor(500.0), Level(torch.tensor(0.5), torch.tensor(0.5))  # a time that half can hold
    with torch.no_grad():
        ours, theirs = (model.predict_at(z, t, level, text).output for model in (half, whole))
    assert ours.dtype == torch.float32 and not torch.equal(ours, theirs)
    assert float((ours - theirs).square().mean().sqrt() / theirs.std()) < 0.05
    learned = half.learnable(text).requires_grad_(True)
    half.predict_at(z, t, level, half.with_learned(text, learned)).output.square().sum().backward()
    assert learned.grad is not None and bool(learned.grad.isfinite().all()) and bool(learned.grad.any())


@pytest.mark.parametrize("tokens", [None, 1, 4])
def test_what_is_learned_goes_back_to_its_place(tiny_flow: Path, tokens: int | None) -> None:
    model = _load(tiny_flow)
    text, other = model.embed(PROMPT), model.embed("a cow")
    packed = model.learnable(text, tokens)
    assert model.learned.fits(*packed.shape[1:]) and model.with_learned(text, packed).equals(text)
    mixed = model.with_learned(other, packed)
    same = (mixed.sequence == text.sequence).all(-1)[0]
    if tokens is None:
        assert packed.shape[1:] == model.embedding_shape and bool(same.all())
    else:
        starts = [sum(model.learned.encoders[:k]) for k in range(len(model.learned.encoders))]
        assert all(bool(same[start : start + tokens].all()) for start in starts)
        assert not model.learned.fits(packed.shape[1] + 1, packed.shape[2]) or len(starts) == 1
        assert torch.equal(mixed.sequence[:, tokens:70], other.sequence[:, tokens:70])
    if "pooled" in text.extras:
        assert torch.equal(mixed.extras["pooled"], text.extras["pooled"])


def test_gradients_reach_all_that_is_learned(tiny_flow: Path) -> None:
    model = _load(tiny_flow)
    text, schedule = model.embed(""), model.schedule(4)
    learned = model.learnable(text, 3).requires_grad_(True)
    z = torch.randn(1, *model.latent_shape((32, 32)))
    model.predict(z, schedule, 1, model.with_learned(text, learned)).output.square().sum().backward()
    assert learned.grad is not None
    rows = learned.grad.abs().sum(-1)[0]
    assert bool((rows > 0).all())


@pytest.mark.parametrize(
    "shift", [{"shift": 3.0}, {"use_dynamic_shifting": True}, {"use_karras_sigmas": True}]
)
def test_levels_convert_as_in_diffusers(tiny_flow: Path, shift: dict[str, Any]) -> None:
    from diffusers import DPMSolverMultistepScheduler

    model = _load(tiny_flow)
    model.scheduler_config |= {"use_dynamic_shifting": False, **shift}
    schedule = model.schedule(7, (24, 32))
    theirs = DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True)
    for i in range(7):
        alpha, sigma = theirs._sigma_to_alpha_sigma_t(schedule.sigma[i])
        assert (float(alpha), float(sigma)) == (float(schedule.alpha[i]), float(schedule.sigma[i]))
    assert float(schedule.sigma_next[-1]) == 0 and bool((schedule.sigma.diff() < 0).all())


def _inverted(model: DiffusionModel, size: tuple[int, int], **settings: Any) -> Inversion:
    pixels = torch.rand(3, *size, generator=torch.Generator().manual_seed(2)) * 2 - 1
    return invert(model, pixels, PROMPT, NullText(**{"steps": 4, "guidance_scale": 3.0, **settings}))


@pytest.mark.parametrize("tokens", [None, 4])
def test_inversion_files_hold_their_levels_and_rebuild(
    tiny_flow: Path, tmp_path: Path, tokens: int | None
) -> None:
    model = _load(tiny_flow)
    made = _inverted(model, (24, 32), inner_steps=2, tolerance=0.0, start=0.5, tokens=tokens, start_sigma=0.9)
    made.save(tmp_path / "inversion.safetensors")
    again = Inversion.load(tmp_path / "inversion.safetensors")
    model.scheduler_config["shift"], model.scheduler_config["base_shift"] = (
        2.0,
        1.0,
    )  # the file's levels serve
    again.check(model)
    replay = NullText().replay(model, again)
    assert again.sigmas[0] == pytest.approx(0.9) and again.sigmas[-1] == 0 and again.kind == "flow"
    mse = float((model.decode(replay.trajectory[-1])[0] - model.decode(made_z(model, made))[0]).abs().max())
    assert mse < 1e-4
    if tokens is not None:
        assert again.null_embeddings.shape[1] < 16 < model.embedding_shape[0]


def made_z(model: DiffusionModel, inversion: Inversion) -> Tensor:
    """The reconstruction's latents, from the object that was never saved."""
    return NullText().replay(model, inversion).trajectory[-1]


def test_learning_brings_the_trajectory_nearer(tiny_flow: Path) -> None:
    model = _load(tiny_flow)
    plain = _inverted(model, (32, 32), inner_steps=0, start=0.0, guidance_scale=7.0)
    learned = _inverted(model, (32, 32), inner_steps=4, start=0.0, guidance_scale=7.0)
    z = model.encode(torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(2)) * 2 - 1)
    far, near = (float((made_z(model, i) - z).square().mean()) for i in (plain, learned))
    assert near < far


def test_inversion_in_fp16_learns_and_stays_finite(tiny_flow: Path) -> None:
    model = _load(tiny_flow, precision="16-mixed")
    made = _inverted(model, (24, 32), inner_steps=2, start=0.0)
    assert bool(made.null_embeddings.isfinite().all()) and made.settings["precision"] == "16-mixed"
    assert not torch.equal(made.null_embeddings[0], model.learnable(model.embed(""))[0])


def test_distilled_models_are_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text('{"_class_name": "Flux2Pipeline"}')
    with pytest.raises(UserError, match=r"no true guidance.*FlowEdit") as caught:
        check_model(str(tmp_path))
    assert "\n" not in str(caught.value)


def _spoilt(folder: Path, to: Path, part: str, **changes: Any) -> str:
    copy = Path(shutil.copytree(folder, to / "model", dirs_exist_ok=True))
    path = next(
        p for p in (copy / part / "config.json", copy / part / "scheduler_config.json") if p.is_file()
    )
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return str(copy)


def test_schnell_is_refused(tiny_flux: Path, tmp_path: Path) -> None:
    _spoilt(tiny_flux, tmp_path, "transformer", guidance_embeds=False)
    folder = _spoilt(tmp_path / "model", tmp_path / "b", "scheduler", use_dynamic_shifting=False)
    with pytest.raises(UserError, match=r"distilled to few steps without guidance.*FlowEdit"):
        check_model(folder)


@pytest.mark.parametrize(
    ("part", "changes", "says"),
    [
        ("text_encoder_2", {"d_model": 24}, "attends to text of width 32, but its text_encoder_2 gives 24"),
        ("transformer", {"in_channels": 32}, "plain text-to-image sibling"),
        (
            "scheduler",
            {"_class_name": "FlowMatchHeunDiscreteScheduler"},
            "needs FlowMatchEulerDiscreteScheduler",
        ),
    ],
)
def test_parts_that_do_not_fit_are_one_line(
    tiny_flux: Path, tmp_path: Path, part: str, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(UserError, match=says):
        check_model(_spoilt(tiny_flux, tmp_path, part, **changes))


def _told() -> list[tuple[str, Callable[[DiffusionModel], Any], str]]:
    return [
        ("size", lambda model: model.schedule(4, (128, 32)), "up to 64 pixels"),
        ("steps", lambda model: model.schedule(0), "between 1 and 1000"),
    ]


@pytest.mark.parametrize(("name", "call", "says"), _told())
def test_mistakes_are_one_line(tiny_sd3: Path, name: str, call: Callable[..., Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        call(_load(tiny_sd3))


def test_t5_is_left_out_where_the_folder_has_none(tiny_sd3_clip: Path) -> None:
    model = _load(tiny_sd3_clip)
    text = model.embed(PROMPT)
    assert model.pipe.text_encoder_3 is None and text.sequence.shape[1] == 77 + 256
    assert not bool(text.sequence[:, 77:].any())
    assert Conditioning.lerp(model.embed(""), text, 1.0).equals(text)
