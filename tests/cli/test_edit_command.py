"""The edit verb, from the words of a command line to files beside the inversion."""

import dataclasses
import json

import pytest
import torch
from PIL import Image
from quick_inversion import random_picture

from nulltext.cli.edit import main
from nulltext.cli.jobs import edits_of, find_inversion, read_edits
from nulltext.editing import Edit
from nulltext.editing.output import free_name, slug
from nulltext.errors import UserError
from nulltext.inversion import find_method
from nulltext.inversion.file import Inversion
from nulltext.inversion.invert import invert
from nulltext.models.loading import LoadingOptions, load_model
from nulltext.pixels import to_image

SWAP = "a red hat"


@pytest.fixture(scope="module")
def run(tiny_sd, tmp_path_factory):
    """The folder of a run with one inverted picture (no optimisation: any null embeddings will do)."""
    folder = tmp_path_factory.mktemp("logs") / "version_0"
    model = load_model(str(tiny_sd))
    schedule = model.schedule(3)
    null = model.embed("a red barn").sequence.expand(3, -1, -1)
    noise = torch.randn(4, 16, 12, generator=torch.Generator().manual_seed(0))
    Inversion(
        null_embeddings=null,
        noise=noise,
        prompt="a red barn",
        guidance_scale=7.5,
        model=str(tiny_sd),
        fingerprint=model.fingerprint,
        scheduler=model.scheduler_config,
        timesteps=schedule.t.tolist(),
        size=(32, 24),
    ).save(folder / "barn" / "inversion.safetensors")
    to_image(torch.rand(3, 32, 24) * 2 - 1).save(folder / "barn" / "original.png")
    return folder


def names(run):
    return sorted(p.name for p in (run / "barn" / "edits").iterdir())


def test_edits_lie_beside_their_inversion_and_overwrite_nothing(run, capsys):
    words = [
        "--inversion",
        str(run),
        "--prompt",
        SWAP,
        "--prompt",
        "a red barn in snow",
        "--attention",
        "red",
    ]
    assert main(words) == 0
    first = names(run)
    assert {
        "a-red-hat.png",
        "a-red-hat.json",
        "a-red-hat-mask.png",
        "a-red-hat-attention-red.png",
        "a-red-hat-strip.png",
        "a-red-barn-in-snow.png",
    } <= set(first)
    with Image.open(run / "barn" / "edits" / "a-red-hat.png") as picture:
        assert picture.size == (24, 32)
    facts = json.loads((run / "barn" / "edits" / "a-red-hat.json").read_text())
    assert (
        facts["kind"] == "replace"
        and facts["method"] == "null_text"
        and facts["source_prompt"] == "a red barn"
    )
    assert str(run / "barn" / "edits" / "a-red-hat.png") in capsys.readouterr().out
    before = (run / "barn" / "edits" / "a-red-hat.png").read_bytes()
    assert main(["--inversion", str(run / "barn"), "--prompt", SWAP, "--kind", "plain"]) == 0
    assert (run / "barn" / "edits" / "a-red-hat.png").read_bytes() == before
    assert {"a-red-hat-2.png", "a-red-hat-2.json"} <= set(names(run))
    assert not [name for name in names(run) if name.startswith(".")]


def test_a_sweep_gives_every_combination_and_a_grid(run):
    words = ["--inversion", str(run / "barn" / "inversion.safetensors"), "--prompt", SWAP, "--name", "sweep"]
    assert (
        main([*words, "--self_replace", "0.2,0.6", "--cross_replace=0.4,0.8", "--local_blend", "none"]) == 0
    )
    found = [name for name in names(run) if name.startswith("sweep") and name.endswith(".png")]
    assert found == [
        "sweep-cross_replace-0.4-self_replace-0.2.png",
        "sweep-cross_replace-0.4-self_replace-0.6.png",
        "sweep-cross_replace-0.8-self_replace-0.2.png",
        "sweep-cross_replace-0.8-self_replace-0.6.png",
        "sweep-sweep.png",
    ]


def test_a_yaml_of_edits_each_with_its_options(run, tmp_path):
    file = tmp_path / "edits.yaml"
    file.write_text(
        "- picture: barn\n  edits:\n"
        "  - {prompt: a red hat, name: one, kind: reweight, equalizer: {hat: 2.0}, cross_replace: [0.0, 0.5]}\n"
        "  - {prompt: a red hat, name: two, local_blend: [hat], cross_replace: {default: 0.8, hat: 0.4}}\n"
    )
    assert main(["--inversion", str(run), "--edits", str(file), "--tensorboard", "true"]) == 0
    facts = json.loads((run / "barn" / "edits" / "one.json").read_text())
    assert facts["equalizer"] == {"hat": 2.0} and facts["cross_replace"] == [0.0, 0.5]
    assert json.loads((run / "barn" / "edits" / "two.json").read_text())["local_blend"] == ["hat"]
    assert any(name.startswith("events.out.tfevents") for name in names(run))


def test_options_of_the_command_line_become_an_edit():
    (edit,), swept = edits_of(
        {"prompt": SWAP, "equalizer": "hat:2.0, red:-1", "self_replace": 0.3, "seed": None}
    )
    assert edit.equalizer == {"hat": 2.0, "red": -1.0} and edit.self_replace == 0.3 and swept == {}
    (edit,), _ = edits_of({"prompt": SWAP, "cross_replace": "default:0.8,hat:0.4", "local_blend": "none"})
    assert edit.cross_replace == {"default": 0.8, "hat": 0.4} and edit.local_blend is None
    edits, swept = edits_of({"prompt": SWAP, "guidance_scale": "3, 7.5"})
    assert [e.guidance_scale for e in edits] == [3.0, 7.5] and swept == {"guidance_scale": (3.0, 7.5)}
    edits, swept = edits_of({"prompt": SWAP, "seed": "0,10"})
    assert [e.seed for e in edits] == [0, 10] and swept == {"seed": (0, 10)}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no edit to make; give --prompt"),
        (["--prompt", SWAP], "give --inversion"),
        (["--inversion", "nowhere", "--prompt", SWAP], "no inversion in nowhere; make one"),
        (["--inversion", "{run}", "--prompt", "a hat", "--kind", "replace"], "Use kind: refine"),
        (["--inversion", "{run}", "--prompt", SWAP, "--self_replace", "1.5"], "self_replace is a share"),
        (["--inversion", "{run}", "--prompt", SWAP, "--self_replace", "much"], "'much' is no number"),
        (["--inversion", "{run}", "--prompt", SWAP, "--seed", "0,2.5"], "'2.5' is no whole number"),
        (["--inversion", "{run}", "--prompt", SWAP, "--equalizer", "hat"], "hat:2.0"),
        (["--inversion", "{run}", "--prompt", SWAP, "--knid", "plain"], "did you mean --kind"),
        (["--inversion", "{run}", "--prompt", SWAP, "--model", "/nowhere"], "/nowhere"),
        (["--inversion", "{run}", "--prompt", SWAP, "--mask", "/nowhere.png"], "no such file"),
        (["--inversion", "{run}", "--edits", "/nowhere.yaml"], "cannot read the edits"),
        (["--inversion", "{run}", "--prompt"], "--prompt needs a value"),
    ],
)
def test_a_mistake_is_an_error_that_says_what_to_type(run, words, message):
    before = names(run) if (run / "barn" / "edits").exists() else []
    with pytest.raises(UserError, match=message):
        main([word.format(run=run) for word in words])
    assert (names(run) if (run / "barn" / "edits").exists() else []) == before


def test_bad_yaml_is_explained(tmp_path):
    file = tmp_path / "edits.yaml"
    for content in (
        "",
        "just words",
        "- edits: []",
        "- {picture: a, edits: [1]}",
        "[1, 2]",
        "{a: b: c}",
        "- {prompt: a hat, knid: plain}",
        "- {prompt: a hat, kind: []}",
        "- {prompt: a hat, max_pool: large}",
        "- {picture: [], edits: [{prompt: 3}]}",
    ):
        file.write_text(content)
        with pytest.raises(UserError, match=r"edits\.yaml"):
            read_edits(file)


def test_an_inversion_is_found_in_a_run_of_one_picture_only(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "inversion.safetensors").touch()
    with pytest.raises(UserError, match="has 2 inverted pictures"):
        find_inversion(tmp_path)
    assert find_inversion(tmp_path / "a") == tmp_path / "a" / "inversion.safetensors"


def test_names_of_files(tmp_path):
    assert slug("A photo of: a HORSE, in/snow?") == "a-photo-of-a-horse-in-snow"
    assert slug("../..") == "edit"
    (tmp_path / "horse.png").touch()
    (tmp_path / "horse-2.json").touch()
    assert free_name(tmp_path, "horse") == "horse-3"


def test_an_emoji_in_a_prompt_and_an_attention_word_is_an_edit_like_any_other(run):
    prompt = "a red \N{HORSE FACE} barn"
    assert main(["--inversion", str(run), "--prompt", prompt, "--attention", "\N{HORSE FACE}"]) == 0
    facts = json.loads((run / "barn" / "edits" / f"{slug(prompt)}.json").read_text())
    assert facts["prompt"] == prompt


def test_device_and_precision_are_spelt_as_everywhere(run):
    words = ["--inversion", str(run), "--prompt", SWAP, "--device", "cpu"]
    assert main([*words, "--precision", "bf16", "--name", "half"]) == 0
    assert "half.png" in names(run)
    with pytest.raises(UserError, match="precision 'bf16-true' is not one of 32-true, bf16-mixed, 16-mixed"):
        main([*words, "--precision", "bf16-true"])
    with pytest.raises(UserError, match="device abacus is not available here"):
        main([*words[:-1], "abacus"])


def test_an_inversion_of_fp16_files_is_edited_with_them_and_a_model_that_moved_is_named(
    run, tiny_sd, tmp_path
):
    from diffusers import StableDiffusionPipeline

    model, inversion = tmp_path / "model", tmp_path / "barn" / "inversion.safetensors"
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_sd)
    pipeline.to(torch.float16).save_pretrained(model, variant="fp16")
    loaded = load_model(str(model), LoadingOptions(variant="fp16"))
    made = Inversion.load(run / "barn" / "inversion.safetensors")
    made = dataclasses.replace(
        made,
        model=str(model),
        fingerprint=loaded.fingerprint,
        variant="fp16",
        scheduler=loaded.scheduler_config,
    )
    made.save(inversion)
    words = ["--inversion", str(tmp_path / "barn"), "--prompt", SWAP]
    assert main([*words, "--name", "first"]) == 0
    model.rename(tmp_path / "moved")
    with pytest.raises(UserError, match="if the model is elsewhere now, give --model FOLDER"):
        main(words)
    assert main([*words, "--name", "second", "--model", str(tmp_path / "moved")]) == 0
    first, second = (tmp_path / "barn" / "edits" / f"{name}.png" for name in ("first", "second"))
    assert Image.open(first).tobytes() == Image.open(second).tobytes()


def test_every_option_of_an_edit_and_of_loading_is_an_option_of_the_verb(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    for kind in (Edit, LoadingOptions):
        for field in dataclasses.fields(kind):
            if field.name not in ("pretrained", "gradient_checkpointing"):
                assert f"--{field.name} " in text


@pytest.mark.parametrize("none", ["none", "null", ""])
def test_nowhere_to_blend_has_three_spellings(none):
    (edit,), _ = edits_of({"prompt": SWAP, "local_blend": none})
    assert edit.local_blend is None


def test_the_method_is_the_files_own_and_one_that_it_cannot_serve_is_refused(tiny_sd, tmp_path, capsys):
    model, path = load_model(str(tiny_sd)), tmp_path / "barn" / "inversion.safetensors"
    invert(model, random_picture(), method=find_method("flow_edit")(steps=3)).save(path)
    words = ["--inversion", str(tmp_path), "--prompt", SWAP, "--kind", "plain"]
    assert main(words) == 0
    facts = json.loads((path.parent / "edits" / "a-red-hat.json").read_text())
    assert facts["method"] == "flow_edit"
    with pytest.raises(UserError, match="was made by flow_edit and cannot serve null_text"):
        main([*words, "--method", "null_text"])
    with pytest.raises(UserError, match="starts from the source's own latents"):
        main([*words, "--seed", "1"])
