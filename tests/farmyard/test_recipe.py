"""The farmyard's recipe from end to end, a few steps a stage: train, resume, export, load, measure."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from nulltext.errors import UserError
from nulltext.farmyard.recipe.export import export
from nulltext.farmyard.recipe.figures.evaluate import evaluate
from nulltext.farmyard.recipe.train import NAMES, size_of, train
from nulltext.models.shipped import check_shipped
from nulltext.models.vocabulary import known_words

ROOT = Path(__file__).parents[2]
COMMON = {
    "--precision": "32-true",
    "--data.scenes": "24",
    "--data.batch_size": "2",
    "--data.steps_per_epoch": "2",
    "--model.learning.steps": "4",
}
TINY = {
    "vae": {"--data.photo_like": "4", "--model.channels": "[8, 8, 8, 8]"},
    "clip": {
        "--data.contrasts": "4",
        "--model.text.width": "16",
        "--model.text.layers": "2",
        "--model.vision.width": "16",
        "--model.vision.layers": "1",
        "--model.vision.heads": "2",
    },
    "unet": {"--model.channels": "[16, 16, 16]", "--model.heads": "[2, 2, 2]", "--model.preview_every": "2"},
    "flow": {
        "--model.shape.layers": "2",
        "--model.shape.heads": "2",
        "--model.shape.head_width": "8",
        "--model.preview_every": "2",
    },
}


def options(stage, work, **more):
    """The command line of a tiny training."""
    chosen = COMMON | TINY[stage] | more
    config = ROOT / "configs" / "farmyard" / "128" / f"{stage}.yaml"
    flat = [word for pair in chosen.items() for word in pair]
    return ["--config", str(config), "--work", str(work), *flat]


def run(stage, work, **more):
    train(options(stage, work, **more))


def weights(work, stage):
    (path,) = (work / stage).glob("*.safetensors")
    return load_file(path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """All stages, trained without a stop."""
    folder = tmp_path_factory.mktemp("trained")
    for stage in NAMES:
        run(stage, folder)
    return folder


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("stage", NAMES)
def test_a_stopped_training_resumes_to_the_same_weights(trained, tmp_path, stage):
    for earlier in NAMES[: NAMES.index(stage)]:
        (tmp_path / earlier).symlink_to(trained / earlier)
    run(stage, tmp_path, **{"--trainer.max_epochs": "1"})
    assert not (tmp_path / stage).exists(), "an unfinished stage must not look finished"
    torch.load(tmp_path / "logs" / stage / "last.ckpt", weights_only=True)
    run(stage, tmp_path, **{"--ckpt_path": "last"})
    resumed, straight = weights(tmp_path, stage), weights(trained, stage)
    assert all(torch.equal(resumed[name], straight[name]) for name in straight)


@pytest.mark.filterwarnings("ignore")
def test_a_killed_training_resumes_to_the_same_weights(trained, tmp_path):
    for earlier in ("vae", "clip"):
        (tmp_path / earlier).symlink_to(trained / earlier)
    last = tmp_path / "logs" / "flow" / "last.ckpt"
    more = {"--model.learning.steps": "24", "--model.preview_every": "1000"}
    words = ["-m", "nulltext.farmyard", "train", *options("flow", tmp_path, **more)]
    with subprocess.Popen(
        [sys.executable, *words], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    ) as job:
        begun = time.monotonic()
        while not last.is_file() and job.poll() is None and time.monotonic() - begun < 120:
            time.sleep(0.01)
        os.kill(job.pid, signal.SIGKILL)
    assert job.returncode == -signal.SIGKILL and not (tmp_path / "flow").exists()
    run("flow", tmp_path, **more, **{"--ckpt_path": "last"})
    straight = tmp_path / "straight"
    for earlier in ("vae", "clip"):
        straight.mkdir(exist_ok=True)
        (straight / earlier).symlink_to(trained / earlier)
    run("flow", straight, **more)
    resumed, expected = weights(tmp_path, "flow"), weights(straight, "flow")
    assert all(torch.equal(resumed[name], expected[name]) for name in expected)


@pytest.mark.filterwarnings("ignore")
def test_the_unets_export_is_a_plain_pipeline_with_its_evaluator(trained, tmp_path, capsys):
    from diffusers import StableDiffusionPipeline
    from transformers import CLIPModel

    folder = export(trained, tmp_path / "pretrained")
    check_shipped(folder)
    assert {"sheep", "drawing", "haystack"} <= known_words(folder)
    pipe = StableDiffusionPipeline.from_pretrained(folder)
    picture = pipe("a sheep", num_inference_steps=2, output_type="pt").images
    assert picture.shape == (1, 3, 128, 128)
    assert CLIPModel.from_pretrained(folder / "clip").config.projection_dim == 16
    tower = CLIPModel.from_pretrained(folder / "clip").text_model.half().state_dict()
    own = pipe.text_encoder.half().state_dict()
    assert all(torch.equal(own[name], tower[name.removeprefix("text_model.")]) for name in own)
    figures = evaluate(str(folder), tmp_path / "out", ["size", "vae", "clip"], quick=True, card=True)
    printed = capsys.readouterr().out
    assert all(figure.name in printed for figure in figures)
    assert "VAE, scenes: PSNR" in json.loads((tmp_path / "out" / "figures.json").read_text())
    card = (folder / "README.md").read_text()
    assert "VAE, scenes: PSNR" in card and "128 x 128 pictures" in card and "UNet2D" in card


@pytest.mark.filterwarnings("ignore")
def test_the_flows_export_is_a_stable_diffusion_3_pipeline_without_a_t5(trained, tmp_path, capsys):
    from diffusers import StableDiffusion3Pipeline

    from nulltext.farmyard.recipe.figures.subject import Subject

    clip = export(trained, tmp_path / "unet") / "clip"
    folder = export(trained, tmp_path / "flow", "flow")
    check_shipped(folder)
    assert "snowman" in known_words(folder)
    pipe = StableDiffusion3Pipeline.from_pretrained(folder, text_encoder_3=None, tokenizer_3=None)
    pipe.set_progress_bar_config(disable=True)
    for rows in (0, 256):
        text = pipe.encode_prompt("a sheep", "a sheep", "a sheep", max_sequence_length=rows)
        states, pooled = text[0], text[2]
        assert states.shape == (1, 32 + rows, 32) and pooled.shape == (1, 32)
        assert torch.equal(states[..., :16], states[..., 16:])
        noise = torch.randn(1, 12, 16, 16, generator=torch.Generator().manual_seed(0))
        drawn = pipe(
            "a sheep", num_inference_steps=3, output_type="latent", max_sequence_length=rows, latents=noise
        ).images
        assert drawn.shape == (1, 12, 16, 16) and bool(drawn.isfinite().all())
    subject = Subject(str(folder), clip)
    z = noise
    with torch.no_grad():
        for step in subject.steps(3):
            z = subject.run(z, step, [subject.embed([""]), subject.embed(["a sheep"])], w=7.0)
    assert torch.allclose(z, drawn, atol=1e-4)  # the figures are measured on what the pipeline draws
    evaluate(str(folder), tmp_path / "out", ["size", "inversion"], clip=clip, quick=True, card=True)
    assert "Euler inversion of 8, w = 1: PSNR" in capsys.readouterr().out
    card = (folder / "README.md").read_text()
    assert "SD3Transformer2DModel, width 16, 2 layers" in card and "Stable Diffusion 3's shape" in card


@pytest.mark.filterwarnings("ignore")
def test_ddim_by_hand_is_the_pipelines(trained, tmp_path):
    from nulltext.farmyard.recipe.figures.subject import Subject

    subject = Subject(str(export(trained, tmp_path / "unet")))
    subject.pipe.set_progress_bar_config(disable=True)
    noise = torch.randn(1, *subject.latent_shape, generator=torch.Generator().manual_seed(0))
    drawn = subject.pipe("a sheep", num_inference_steps=4, output_type="latent", latents=noise).images
    z = noise
    with torch.no_grad():
        for step in subject.steps(4):
            z = subject.run(z, step, [subject.embed([""]), subject.embed(["a sheep"])], w=7.5)
    assert torch.allclose(z, drawn, atol=1e-4)


KEPT = {"vae": ("encoder.", "quant_conv."), "clip": ("text_",)}
ONLY = {"vae": "[encoder, quant_conv]", "clip": "[text_model, text_projection]", "flow": "[]"}


@pytest.mark.parametrize("stage", ONLY)
def test_a_stage_goes_on_from_a_finished_model_and_leaves_what_others_build_on(trained, tmp_path, stage):
    for earlier in ("vae", "clip"):
        shutil.copytree(trained / earlier, tmp_path / earlier)
    initial = {"--model.learning.initial": str(trained / stage), "--model.learning.kept": ONLY[stage]}
    before = weights(trained, stage)
    run(stage, tmp_path, **initial, **{"--model.learning.lr": "0"})
    assert all(torch.allclose(before[name], x, atol=1e-6) for name, x in weights(tmp_path, stage).items())
    run(stage, tmp_path, **initial)
    moved = {name for name, x in weights(tmp_path, stage).items() if not torch.equal(before[name], x)}
    kept = KEPT.get(stage, ())
    assert moved and not any(name.startswith(kept) for name in moved if kept)
    with pytest.raises(UserError, match=r"leave --model\.learning\.initial out"):
        run(stage, tmp_path, **{"--model.learning.initial": str(tmp_path / "nothing")})


def test_a_stage_says_which_earlier_one_it_lacks(tmp_path):
    for stage in ("unet", "flow"):
        with pytest.raises(UserError, match="there is no vae"):
            run(stage, tmp_path)


def test_a_model_without_a_clip_of_its_own_needs_one(tmp_path):
    (tmp_path / "model_index.json").write_text("{}")
    (tmp_path / "sha256.json").write_text("{}")
    with pytest.raises(UserError, match="--clip"):
        evaluate(str(tmp_path), tmp_path / "out")
    with pytest.raises(UserError, match="there is no model"):
        evaluate(str(tmp_path / "none"), tmp_path / "out")
    with pytest.raises(UserError, match=r"device cuda:99 is not available here"):
        evaluate(str(tmp_path), tmp_path / "out", device="cuda:99")


def test_train_without_a_config_is_told_the_world_by_its_size():
    assert size_of(["--work", "somewhere"]) == 128
    assert size_of(["--size", "128", "--work=x"]) == 128
    with pytest.raises(UserError, match="it has 128"):
        size_of(["--size", "96"])
