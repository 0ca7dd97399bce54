"""What a loaded model does: text, latents, predictions, in each family."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import PROMPT
from torch import Tensor

from nulltext.models import Conditioning, DiffusionModel


def _copy(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to / "model"))


def _load(folder: Path, **options: Any) -> DiffusionModel:
    return DiffusionModel.from_pretrained(str(folder), **options)


def _predict(model: DiffusionModel, z: Tensor, text: Conditioning, i: int = 3) -> Any:
    return model.predict(z, model.schedule(10), i, text)


def test_embeddings_equal_the_pipelines_own(tiny: Path) -> None:
    model = _load(tiny)
    text, null = model.embed(PROMPT), model.embed("")
    theirs = model.pipe.encode_prompt(
        PROMPT, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=True
    )
    torch.testing.assert_close(text.sequence, theirs[0])
    torch.testing.assert_close(null.sequence, theirs[1])
    assert model.learnable(null).shape == (1, *model.embedding_shape)
    assert len(theirs) == 4 or not text.extras
    for name, own, other in (("pooled", text, 2), ("pooled", null, 3)):
        if len(theirs) == 4:
            torch.testing.assert_close(own.extras[name], theirs[other])


def test_predictions_point_where_the_pipelines_scheduler_points(tiny: Path) -> None:
    model, i = _load(tiny), 3
    z, text, schedule = torch.randn(1, 4, 16, 16), model.embed(PROMPT), model.schedule(10)
    with torch.no_grad():
        prediction = model.predict(z, schedule, i, text)
        raw = model.network(z, schedule.t[i], text)
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler.from_config(model.scheduler_config, clip_sample=False)
    scheduler.set_timesteps(10)
    clean = scheduler.step(raw, int(schedule.t[i]), z).pred_original_sample
    torch.testing.assert_close(prediction.z_0, clean, rtol=1e-4, atol=1e-4)
    alpha, sigma = schedule.here(i)
    torch.testing.assert_close(alpha * prediction.z_0 + sigma * prediction.eps, z, rtol=1e-4, atol=1e-4)
    assert prediction.kind == model.kind == scheduler.config.prediction_type


def test_each_latent_counts_forwards_and_backwards(tiny_sd: Path) -> None:
    model = _load(tiny_sd)
    text = model.embed([PROMPT, "", "a cow"])
    z = torch.randn(3, 4, 16, 16)
    with torch.no_grad():
        _predict(model, z, text)
    sequence = text.sequence.clone().requires_grad_(True)
    _predict(model, z[:2], text.with_sequence(sequence)[:2]).eps.sum().backward()
    assert (model.forwards, model.backwards) == (5, 2)


def test_latents_have_the_factor_and_scaling_of_the_vae(tiny_sd: Path) -> None:
    model = _load(tiny_sd)
    pixels = torch.rand(2, 3, 32, 48) * 2 - 1
    z = model.encode(pixels)
    assert z.shape == (2, *model.latent_shape((32, 48))) == (2, 4, 16, 24)
    with torch.no_grad():
        mean = model.vae.encode(pixels).latent_dist.mean
        decoded = model.vae.decode(z / model.vae.config.scaling_factor).sample.clamp(-1, 1)
    torch.testing.assert_close(z, mean * model.vae.config.scaling_factor)
    torch.testing.assert_close(model.decode(z), decoded)


def test_latents_have_the_mean_and_deviation_of_the_vae_that_names_them(
    tiny_sd: Path, tmp_path: Path
) -> None:
    """As StableDiffusionXLPipeline decodes: z * std / scale + mean."""
    folder = _copy(tiny_sd, tmp_path)
    mean, std = [0.1, -0.2, 0.3, 0.0], [2.0, 1.0, 0.5, 4.0]
    _rewrite(folder / "vae/config.json", latents_mean=mean, latents_std=std)
    plain, model = _load(tiny_sd), _load(folder)
    pixels, column = torch.rand(1, 3, 32, 32) * 2 - 1, lambda x: torch.tensor(x).reshape(1, 4, 1, 1)
    scale = model.vae.config.scaling_factor
    raw = plain.encode(pixels) / scale
    torch.testing.assert_close(model.encode(pixels), (raw - column(mean)) / column(std) * scale)
    z = torch.randn(1, 4, 16, 16)
    with torch.no_grad():
        decoded = model.vae.decode(z * column(std) / scale + column(mean)).sample.clamp(-1, 1)
    torch.testing.assert_close(model.decode(z), decoded)


def test_latents_have_the_shift_of_the_vae_that_names_one(tiny_sd: Path, tmp_path: Path) -> None:
    folder = _copy(tiny_sd, tmp_path)
    _rewrite(folder / "vae/config.json", shift_factor=0.25)
    plain, model = _load(tiny_sd), _load(folder)
    pixels, scale = torch.rand(1, 3, 32, 32) * 2 - 1, model.vae.config.scaling_factor
    torch.testing.assert_close(model.encode(pixels), plain.encode(pixels) - 0.25 * scale)
    torch.testing.assert_close(
        model.decode(plain.encode(pixels) - 0.25 * scale), plain.decode(plain.encode(pixels))
    )


def _rewrite(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_everything_is_frozen(tiny: Path) -> None:
    model = _load(tiny)
    parts = (model.denoiser, model.vae, *(getattr(model.pipe, part) for part in model.text_parts))
    assert len(parts) >= 3
    assert not any(p.requires_grad or part.training for part in parts for p in part.parameters())


@pytest.mark.parametrize("option", ["gradient_checkpointing", "vae_tiling", "attention_slicing", "offload"])
def test_memory_options_do_not_change_the_numbers(tiny_sd: Path, option: str) -> None:
    z, gradients, decoded = torch.randn(1, 4, 16, 16), [], []
    for model in (_load(tiny_sd), _load(tiny_sd, **{option: True})):
        text = model.embed(PROMPT)
        sequence = text.sequence.clone().requires_grad_(True)
        eps = _predict(model, z, text.with_sequence(sequence)).eps
        gradients.append(torch.autograd.grad(eps.square().sum(), sequence)[0])
        decoded.append(model.decode(z))
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-4)
    assert gradients[0].abs().max() > 1e-2  # else their closeness would say nothing
    torch.testing.assert_close(decoded[1], decoded[0], rtol=1e-4, atol=1e-4)


def test_the_network_alone_is_in_half(tiny_sd: Path) -> None:
    model = _load(tiny_sd, precision="bf16")
    assert (model.precision, model.dtype) == ("bf16-mixed", torch.bfloat16)
    text, z = model.embed(PROMPT), torch.randn(1, 4, 16, 16)
    assert {model.vae.dtype, model.pipe.text_encoder.dtype, text.sequence.dtype} == {torch.float32}
    with torch.no_grad():
        half, full = _predict(model, z, text).eps, _predict(_load(tiny_sd), z, text).eps
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, full, rtol=0.1, atol=0.05)


def test_in_half_the_network_sees_an_embedding_that_was_changed_in_place(tiny_sd: Path) -> None:
    """With autocast's cache it would see the stale copy."""
    model = _load(tiny_sd, precision="bf16-mixed")
    text, z = model.embed(PROMPT), torch.randn(1, 4, 16, 16)
    sequence = text.sequence.clone().requires_grad_(True)
    with torch.autocast("cpu", torch.bfloat16):
        first = _predict(model, z, text.with_sequence(sequence)).eps.detach()
        with torch.no_grad():
            sequence.mul_(-2)
        second = _predict(model, z, text.with_sequence(sequence)).eps.detach()
    assert (first - second).abs().max() > 1e-3


def test_sdxl_is_told_the_pictures_size(tiny_sdxl: Path) -> None:
    model = _load(tiny_sdxl)
    assert model.embed([PROMPT, ""], (32, 48)).extras["time_ids"].tolist() == [[32, 48, 0, 0, 32, 48]] * 2
    assert model.embed("").extras["time_ids"].tolist() == [[32, 32, 0, 0, 32, 32]]


def test_attention_is_offered_through_the_model(tiny: Path) -> None:
    model, crosses = _load(tiny), []
    text, z = model.embed(PROMPT), torch.randn(1, 4, 16, 16)
    with torch.no_grad():
        plain = _predict(model, z, text).eps
        with model.attend(lambda site: crosses.append(site.is_cross)) as names:
            assert torch.equal(_predict(model, z, text).eps, plain)
    assert len(crosses) == len(names) > 0 and any(crosses) and not all(crosses)
    with model.attend(None) as names:
        assert len(names) == len(crosses)


def test_a_long_prompt_warns_once_and_quotes_what_is_cut(tiny_sd: Path) -> None:
    model = _load(tiny_sd)
    with pytest.warns(UserWarning, match=r"does not see: .*zebra") as warned:
        for _ in range(2):
            model.embed("a very long story " * 10 + "zebra")
    assert len(warned) == 1


def test_an_unknown_word_is_named_once_and_the_vocabulary_listed_once(tiny_sd: Path, tmp_path: Path) -> None:
    folder = _copy(tiny_sd, tmp_path)
    (folder / "vocabulary.txt").write_text("a\nsheep\non\n")
    model = _load(folder)
    assert model.known_words == {"a", "sheep", "on"}
    with pytest.warns(UserWarning, match="does not know 'zebra', 'goat'; it knows: a, on, sheep") as warned:
        model.embed(["a zebra on a Zebra", "a goat"])
        model.embed(["a zebra", "A sheep!"])
    assert len(warned) == 1
    with pytest.warns(UserWarning, match=r"does not know 'elk', '3'$") as warned:
        model.embed("a elk on a zebra, 3 sheep")
    assert len(warned) == 1
