"""Loading folders of each family, and what is said when they are not whole."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import PROMPT

from nulltext.artifact import Inversion
from nulltext.backbone import Backbone, EditDefaults, TextEmbedding, check_model
from nulltext.cli import main
from nulltext.errors import UserError
from nulltext.farmyard import weights
from nulltext.judge import Judge

SHEEP = str(Path(__file__).parents[1] / "sheep.jpg")


def _copy(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to / "model"))


def test_embeddings_and_noise_equal_the_pipelines_own(tiny: Path) -> None:
    backbone = Backbone.from_pretrained(str(tiny))
    text = backbone.embed_prompt(PROMPT)
    theirs = backbone.pipe.encode_prompt(
        PROMPT, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=True
    )
    torch.testing.assert_close(text.sequence, theirs[0])
    null = backbone.embed_prompt("")
    torch.testing.assert_close(null.sequence, theirs[1])
    if backbone.family == "sdxl":
        torch.testing.assert_close(text.pooled, theirs[2])
        torch.testing.assert_close(null.pooled, theirs[3])


def test_v_predictions_come_out_as_noise(tiny_sd_v: Path) -> None:
    backbone = Backbone.from_pretrained(str(tiny_sd_v))
    z, text = torch.randn(1, 4, 16, 16), backbone.embed_prompt(PROMPT)
    with torch.no_grad():
        eps = backbone.predict_noise(z, 500, text)
        v = backbone.unet(z, 500, text.sequence).sample
    scheduler = backbone.pipe.scheduler
    scheduler.set_timesteps(1000)
    clean = scheduler.step(v, 500, z).pred_original_sample
    a = scheduler.alphas_cumprod[500]
    torch.testing.assert_close((z - (1 - a).sqrt() * eps) / a.sqrt(), clean, rtol=1e-4, atol=1e-4)


def test_latents_have_the_factor_and_scaling_of_the_vae(tiny_sd: Path) -> None:
    backbone = Backbone.from_pretrained(str(tiny_sd))
    pixels = torch.rand(2, 3, 32, 48) * 2 - 1
    z = backbone.encode_image(pixels)
    assert z.shape == (2, 4, 16, 24)
    with torch.no_grad():
        mean = backbone.vae.encode(pixels).latent_dist.mean
    torch.testing.assert_close(z, mean * backbone.vae.config.scaling_factor)
    assert backbone.decode_latents(z).shape == pixels.shape


def test_everything_is_frozen(tiny_sd: Path) -> None:
    backbone = Backbone.from_pretrained(str(tiny_sd))
    parts = (backbone.unet, backbone.vae, backbone.pipe.text_encoder)
    assert not any(p.requires_grad for part in parts for p in part.parameters())


@pytest.mark.parametrize("option", ["gradient_checkpointing", "vae_tiling", "attention_slicing", "offload"])
def test_memory_options_do_not_change_the_numbers(tiny_sd: Path, option: str) -> None:
    plain = Backbone.from_pretrained(str(tiny_sd))
    thrifty = Backbone.from_pretrained(str(tiny_sd), **{option: True})  # type: ignore[arg-type]
    z, gradients, decoded = torch.randn(1, 4, 16, 16), [], []
    for backbone in (plain, thrifty):
        text = backbone.embed_prompt(PROMPT)
        sequence = text.sequence.clone().requires_grad_(True)
        eps = backbone.predict_noise(z, 300, text.with_sequence(sequence))
        gradients.append(torch.autograd.grad(eps.square().sum(), sequence)[0])
        decoded.append(backbone.decode_latents(z))
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-4)
    assert gradients[0].abs().max() > 1e-2  # else their closeness would say nothing
    torch.testing.assert_close(decoded[1], decoded[0], rtol=1e-4, atol=1e-4)


def test_a_long_prompt_warns_once_and_quotes_what_is_cut(tiny_sd: Path) -> None:
    backbone = Backbone.from_pretrained(str(tiny_sd))
    with pytest.warns(UserWarning, match=r"does not see: .*zebra") as warned:
        for _ in range(2):
            backbone.embed_prompt("a very long story " * 10 + "zebra")
    assert len(warned) == 1


def test_an_unknown_word_is_named_once(tiny_sd: Path, tmp_path: Path) -> None:
    folder = _copy(tiny_sd, tmp_path)
    (folder / "vocabulary.txt").write_text("a\nsheep\non\n")
    backbone = Backbone.from_pretrained(str(folder))
    with pytest.warns(UserWarning, match="does not know 'zebra'; it knows: a, on, sheep") as warned:
        backbone.embed_prompt("a zebra on a Zebra")
        backbone.embed_prompt(["a zebra", "A sheep!"])
    assert len(warned) == 1
    with pytest.warns(UserWarning, match="does not know 'elk', '3'; it knows") as warned:
        backbone.embed_prompt("a elk on a zebra, 3 sheep")
    assert len(warned) == 1


def test_a_model_says_what_suits_its_edits(tiny_sd: Path, tmp_path: Path) -> None:
    folder = _copy(tiny_sd, tmp_path)
    assert Backbone.from_pretrained(str(folder)).edit_defaults == EditDefaults(3, 0.4, 0)
    assert Backbone.from_pretrained().edit_defaults == EditDefaults(
        1.35, 0.0, 8
    )  # the farmyard's, by its table of edits
    (folder / "editing.json").write_text('{"masked_guidance": 2}')
    assert Backbone.from_pretrained(str(folder)).edit_defaults == EditDefaults(2, 0.4, 0)
    (folder / "editing.json").write_text('{"detail_steps": 5}')
    assert Backbone.from_pretrained(str(folder)).edit_defaults == EditDefaults(3, 0.4, 5)
    numbers = ('{"masked_guidance": -1}', '{"masked_guidance": "much"}', '{"masked_guidance": NaN}')
    steps = (
        '{"detail_steps": -1}',
        '{"detail_steps": 1001}',
        '{"detail_steps": Infinity}',
    )
    windows = ('{"masked_windows": 1.5}', '{"masked_windows": [0, 1]}')
    for wrong in ("", "[2]", "{}", '{"guidance": 2}', *numbers, *steps, *windows):
        (folder / "editing.json").write_text(wrong)
        with pytest.raises(UserError, match=r"editing\.json must hold"):
            Backbone.from_pretrained(str(folder))


def test_rows_of_text_can_be_taken_joined_and_repeated() -> None:
    text = TextEmbedding(torch.randn(2, 3, 4), torch.randn(2, 5), torch.randn(2, 6))
    joined = TextEmbedding.cat([text[:1], text[1:]])
    assert torch.equal(joined.sequence, text.sequence)
    assert torch.equal(text[:1].expand(3).sequence[2], text.sequence[0])
    assert len(TextEmbedding(text.sequence)[:1]) == 1


def test_a_missing_part_is_named(tiny_sd: Path, tmp_path: Path) -> None:
    folder = _copy(tiny_sd, tmp_path)
    shutil.rmtree(folder / "vae")
    with pytest.raises(UserError, match="lacks its vae folder"):
        check_model(str(folder))


def test_pickles_are_refused(tiny_sd: Path, tmp_path: Path) -> None:
    folder = _copy(tiny_sd, tmp_path)
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(UserError, match="pickle"):
        check_model(str(folder))


def test_an_unknown_family_is_named_with_those_we_know(tiny_sd: Path, tmp_path: Path) -> None:
    folder = _copy(tiny_sd, tmp_path)
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "_class_name": "FluxPipeline"}))
    with pytest.raises(UserError, match=r"FluxPipeline.*StableDiffusionPipeline, StableDiffusionXLPipeline"):
        check_model(str(folder))


def test_damaged_weights_and_indices_are_one_line(tiny_sd: Path, tmp_path: Path) -> None:
    folder = _copy(tiny_sd, tmp_path)
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(UserError, match="cannot be loaded") as error:
        Backbone.from_pretrained(str(folder))
    assert "\n" not in str(error.value)
    (folder / "model_index.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        check_model(str(folder))


def test_no_such_model_and_no_such_precision(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no model folder"):
        check_model(str(tmp_path / "nothing"))
    with pytest.raises(UserError, match="bf16-true"):
        Backbone.from_pretrained(str(tmp_path), precision="bf16-true")


def test_the_fingerprint_tells_weights_apart(tiny_sd: Path, tmp_path: Path) -> None:
    folder = _copy(tiny_sd, tmp_path)
    first = Backbone.from_pretrained(str(tiny_sd))
    assert Backbone.from_pretrained(str(folder)).fingerprint == first.fingerprint
    with torch.no_grad():
        first.unet.conv_out.bias += 1
    first.unet.save_pretrained(folder / "unet")
    assert Backbone.from_pretrained(str(folder)).fingerprint != first.fingerprint


# ------------------------------------------------------------------------------------------------ the shipped model


@pytest.fixture
def farmyard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the farmyard's folder, to be spoilt, in the place of the shipped one."""
    folder = Path(shutil.copytree(weights.PRETRAINED, tmp_path / "pretrained"))
    monkeypatch.setattr(weights, "PRETRAINED", folder)
    monkeypatch.chdir(tmp_path)
    return folder


def _flip_a_byte(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def _save_an_inversion(file: Path) -> None:
    """One that names the farmyard; nothing else of it is read before the model is."""
    null, noise = torch.zeros(1, 1, 1), torch.zeros(1, 1, 1)
    Inversion(null, noise, "a sheep", 7.5, "farmyard", "", {}, [1], (64, 64)).save(file)


@pytest.mark.parametrize(
    ("file", "spoil", "said"),
    [
        ("unet/diffusion_pytorch_model.safetensors", _flip_a_byte, "are damaged"),
        ("clip/model.safetensors", _flip_a_byte, "are damaged"),
        ("vae/diffusion_pytorch_model.safetensors", Path.unlink, "lack"),
        ("model_index.json", Path.unlink, "lack"),
        ("", shutil.rmtree, "are missing"),
    ],
)
@pytest.mark.parametrize("verb", ["fit", "edit", "test"])
def test_a_spoilt_farmyard_is_one_line_with_the_cure(
    farmyard: Path, capsys: pytest.CaptureFixture[str], file: str, spoil: Any, said: str, verb: str
) -> None:
    spoil(farmyard / file)
    _save_an_inversion(Path("x.safetensors"))
    words = {
        "fit": ["--data.image", SHEEP],
        "edit": ["--inversion", "x.safetensors", "--prompt", "a cow"],
        "test": ["--config", "benchmark.yaml", "--output", "out"],
    }
    assert main([verb, *words[verb]]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.rstrip().endswith(
        "make them again: python -m nulltext.farmyard train"
    )
    assert said in error and str(farmyard / file) in error
    assert not Path("out").exists()


def test_the_evaluator_alone_finds_its_damage(farmyard: Path) -> None:
    _flip_a_byte(farmyard / "clip" / "model.safetensors")
    with pytest.raises(UserError, match="are damaged"):
        Judge.load()


def test_a_word_that_the_farmyard_does_not_know_is_noted_once_by_fit_and_by_edit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["fit", "--data.image", SHEEP, "--data.prompt", "a striped sheep", "--model.steps", "2"]) == 0
    said = capsys.readouterr().out
    assert said.count("does not know 'striped'; it knows: a, an, barn") == 1
    assert main(["edit", "--inversion", "lightning_logs/version_0", "--prompt", "a striped zebra"]) == 0
    said = capsys.readouterr().out
    assert said.count("does not know 'zebra'") + said.count("does not know 'striped', 'zebra'") == 1
    assert said.count("striped'") == 1
