"""The farmyard's recipe from end to end, a few steps a stage: train, resume, export, load, measure."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from nulltext.backbone import Backbone
from nulltext.errors import UserError
from nulltext.farmyard.evaluate import evaluate
from nulltext.farmyard.export import export
from nulltext.farmyard.train import train
from nulltext.farmyard.weights import check_weights, known_words

CONFIGS = Path(__file__).parents[1] / "configs" / "farmyard"
SHORT = [
    "--trainer.precision",
    "32-true",
    "--data.scenes",
    "24",
    "--data.batch_size",
    "2",
    "--data.steps_per_epoch",
    "2",
]
TINY = {
    "vae": ["--model.channels", "[8, 8, 8]", "--data.photo_like", "4"],
    "clip": ["--model.width", "16", "--model.text_layers", "1", "--model.vision_layers", "1"],
    "unet": ["--model.channels", "[16, 16, 16]", "--model.heads", "[2, 2, 2]", "--model.preview_every", "2"],
}


def run(stage, work, *more):
    config = str(CONFIGS / f"{stage}.yaml")
    train(["--config", config, "--work", str(work), *SHORT, *TINY[stage], "--model.steps", "4", *more])


def weights(work, stage):
    (path,) = (work / stage).glob("*.safetensors")
    return load_file(path)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """All stages, trained without a stop."""
    folder = tmp_path_factory.mktemp("work")
    for stage in TINY:
        run(stage, folder)
    return folder


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("stage", TINY)
def test_a_stopped_training_resumes_to_the_same_weights(work, tmp_path, stage):
    for earlier in list(TINY)[: list(TINY).index(stage)]:
        (tmp_path / earlier).symlink_to(work / earlier)
    run(stage, tmp_path, "--trainer.max_epochs", "1")
    assert not (tmp_path / stage).exists(), "an unfinished stage must not look finished"
    torch.load(tmp_path / "logs" / stage / "last.ckpt", weights_only=True)
    run(stage, tmp_path, "--ckpt_path", "last")
    resumed, straight = weights(tmp_path, stage), weights(work, stage)
    assert all(torch.equal(resumed[name], straight[name]) for name in straight)


@pytest.mark.filterwarnings("ignore")
def test_the_export_is_a_plain_pipeline_that_the_backbone_and_the_evaluator_load(work, tmp_path, capsys):
    from diffusers import StableDiffusionPipeline
    from transformers import CLIPModel

    folder = export(work, tmp_path / "pretrained")
    check_weights(folder)
    assert {"sheep", "drawing", "haystack"} <= known_words(folder)
    pipe = StableDiffusionPipeline.from_pretrained(folder)
    picture = pipe("a sheep", num_inference_steps=2, output_type="pt").images
    assert picture.shape == (1, 3, 64, 64)
    assert CLIPModel.from_pretrained(folder / "clip").config.projection_dim == 16
    tower = CLIPModel.from_pretrained(folder / "clip").text_model.half().state_dict()
    own = Backbone.from_pretrained(str(folder)).pipe.text_encoder.state_dict()
    assert all(torch.equal(own[name], tower[name.removeprefix("text_model.")].float()) for name in own)
    figures = evaluate(str(folder), tmp_path / "out", ["size", "vae", "clip"], quick=True, card=True)
    printed = capsys.readouterr().out
    assert all(figure.name in printed for figure in figures)
    assert "VAE, scenes: PSNR" in json.loads((tmp_path / "out" / "figures.json").read_text())
    assert "VAE, scenes: PSNR" in (folder / "README.md").read_text()


def test_a_stage_says_which_earlier_one_it_lacks(tmp_path):
    with pytest.raises(UserError, match="there is no vae"):
        run("unet", tmp_path)
