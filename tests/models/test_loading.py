"""Which folders are loaded, which weights of them, and what is said when a part is not whole or of another kind."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import PROMPT
from safetensors.torch import load_file, save_file

from nulltext.errors import UserError
from nulltext.models import DiffusionModel, LoadingOptions, check_model, load_model
from nulltext.models.families.stable_diffusion import StableDiffusion

UNET = "unet/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"


@pytest.fixture
def folder(tiny_sd: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model, to be changed."""
    return Path(shutil.copytree(tiny_sd, tmp_path / "model"))


@pytest.fixture
def xl(tiny_sdxl: Path, tmp_path: Path) -> Path:
    """A copy of the tiny XL model, to be changed."""
    return Path(shutil.copytree(tiny_sdxl, tmp_path / "xl"))


def _load(folder: Path, **options: Any) -> DiffusionModel:
    return DiffusionModel.from_pretrained(str(folder), **options)


def _rewrite(file: Path, **changes: Any) -> None:
    content = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not ...}))


def _refused(folder: Path, *said: str) -> str:
    """What is said of a folder, in one line and before weights load."""
    with pytest.raises(UserError) as error:
        check_model(str(folder))
    message = str(error.value)
    assert "\n" not in message
    for words in said:
        assert words in message, message
    return message


# ---------------------------------------------------------------------------------------------- whole and damaged


def test_a_missing_part_is_named(folder: Path) -> None:
    shutil.rmtree(folder / "vae")
    _refused(folder, "lacks its vae folder")


def test_pickles_are_refused(folder: Path) -> None:
    (folder / UNET).rename((folder / UNET).with_suffix(".bin"))
    _refused(folder, "is a pickle", str((folder / UNET).with_suffix(".bin")))


def test_a_part_without_weights_is_named(folder: Path) -> None:
    (folder / UNET).unlink()
    _refused(folder, "has no weights in unet")


def test_an_unknown_pipeline_is_named_with_those_we_know(folder: Path) -> None:
    _rewrite(folder / "model_index.json", _class_name="WuerstchenPipeline")
    _refused(folder, "WuerstchenPipeline", "StableDiffusionPipeline, StableDiffusionXLPipeline")


def test_a_model_with_code_of_its_own_is_refused(folder: Path) -> None:
    _rewrite(folder / "model_index.json", unet=["my_code", "MyUNet"])
    _refused(folder, "brings its own code for its unet")


def test_damaged_weights_and_indices_are_one_line(folder: Path) -> None:
    weights = folder / UNET
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(UserError, match=r"cannot be loaded: its unet") as error:
        _load(folder)
    assert "\n" not in str(error.value)
    (folder / "model_index.json").write_text("{")
    _refused(folder, "cannot be read")
    (folder / "model_index.json").unlink()
    _refused(folder, "no model_index.json", "--model.pretrained")


def test_no_such_precision(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="bf16-true"):
        _load(tmp_path, precision="bf16-true")


# --------------------------------------------------------------------------------------- every parameter from its file


def _change_weights(file: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    weights = load_file(file)
    change(weights)
    save_file(weights, file, {"format": "pt"})


@pytest.mark.parametrize("file", [UNET, TEXT, "vae/diffusion_pytorch_model.safetensors"])
def test_a_parameter_that_is_in_no_file_is_an_error(folder: Path, file: str) -> None:
    """Else it would stay random, and the run would end well."""
    names = sorted(load_file(folder / file))
    _change_weights(folder / file, lambda weights: [weights.pop(name) for name in names[:2]] and None)
    with pytest.raises(UserError, match=rf"lacks 2 parameters of its {file.split('/')[0]}, such as") as error:
        _load(folder)
    assert "\n" not in str(error.value)


def test_a_text_encoder_that_lacks_its_last_layer_is_an_error(folder: Path) -> None:
    def cut(weights: dict[str, torch.Tensor]) -> None:
        for name in [name for name in weights if ".layers.1." in name]:
            del weights[name]

    _change_weights(folder / TEXT, cut)
    with pytest.raises(UserError, match=r"lacks \d+ parameters of its text_encoder"):
        _load(folder)


def test_a_lora_that_was_left_in_is_named_with_its_cure(folder: Path) -> None:
    def wrap(weights: dict[str, torch.Tensor]) -> None:
        for name in [name for name in weights if name.endswith("to_q.weight")]:
            weights[name.replace("to_q.weight", "to_q.base_layer.weight")] = weights.pop(name)
            weights[name.replace("to_q.weight", "to_q.lora_A.default_0.weight")] = torch.zeros(4, 8)

    _change_weights(folder / UNET, wrap)
    with pytest.raises(UserError, match=r"LoRA inside its unet .* pipe\.unload_lora_weights\(\)"):
        _load(folder)


def test_parameters_that_the_config_does_not_name_are_an_error(folder: Path) -> None:
    _change_weights(folder / UNET, lambda weights: weights.update(extra=torch.zeros(1)))
    with pytest.raises(
        UserError, match="holds 1 parameters in its unet that its config does not name, such as extra"
    ):
        _load(folder)


def test_what_old_text_encoders_hold_beside_their_weights_does_no_harm(folder: Path, tiny_sd: Path) -> None:
    def add(weights: dict[str, torch.Tensor]) -> None:
        prefix = (
            next(iter(weights)).split("embeddings")[0]
            if "embeddings" in next(iter(weights))
            else "text_model."
        )
        weights[f"{prefix}embeddings.position_ids"] = torch.arange(77)[None]

    _change_weights(folder / TEXT, add)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model = _load(folder)
    assert torch.equal(model.embed(PROMPT).sequence, _load(tiny_sd).embed(PROMPT).sequence)


def test_the_names_that_old_vaes_give_their_attention_are_understood(folder: Path, tiny_sd: Path) -> None:
    old = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}

    def rename(weights: dict[str, torch.Tensor]) -> None:
        for name in list(weights):
            for new, before in old.items():
                if "attentions" in name and new in name:
                    weights[name.replace(new, before)] = weights.pop(name)

    _change_weights(folder / "vae/diffusion_pytorch_model.safetensors", rename)
    z = torch.randn(1, 4, 16, 16)
    assert torch.equal(_load(folder).decode(z), _load(tiny_sd).decode(z))


# ----------------------------------------------------------------------------------------------------- parts' kinds


@pytest.mark.parametrize(
    ("part", "change", "said"),
    [
        ("unet", {"time_cond_proj_dim": 256}, "is distilled (LCM)"),
        ("unet", {"num_class_embeds": 1000}, "wants a class beside the prompt"),
        ("unet", {"class_embed_type": "projection"}, "wants a class beside the prompt"),
        ("unet", {"encoder_hid_dim_type": "image_proj"}, "wants a picture beside the prompt"),
        ("unet", {"addition_embed_type": "text"}, "addition_embed_type 'text'"),
        ("unet", {"in_channels": 9}, "is an inpainting or depth model"),
        ("unet", {"out_channels": 8}, "predicts a variance"),
        ("unet", {"sample_size": None}, "sample_size None in unet/config.json; write"),
        ("unet", {"sample_size": "64"}, "sample_size '64' in unet/config.json; write"),
        ("unet", {"cross_attention_dim": 1024}, "text of width 1024, but its text encoders give 16"),
        ("unet", {"cross_attention_dim": [16, 32]}, "several widths of text"),
        ("vae", {"_class_name": "AutoencoderTiny"}, "has AutoencoderTiny as its vae, where nulltext needs"),
        ("vae", {"latent_channels": 16}, "is an inpainting or depth model"),
    ],
)
def test_a_part_of_another_kind_is_named(folder: Path, part: str, change: dict[str, Any], said: str) -> None:
    _rewrite(folder / part / "config.json", **change)
    _refused(folder, said, str(folder))


@pytest.mark.parametrize(
    "name", ["EDMEulerScheduler", "EDMDPMSolverMultistepScheduler", "FlowMatchEulerDiscreteScheduler"]
)
def test_schedulers_of_edm_and_of_flows_are_refused(folder: Path, name: str) -> None:
    import diffusers

    shutil.rmtree(folder / "scheduler")
    getattr(diffusers, name)().save_pretrained(folder / "scheduler")
    _refused(folder, f"has {name} as its scheduler, which has no betas")


@pytest.mark.parametrize(
    ("change", "said"),
    [({"prediction_type": "sample"}, "'sample'"), ({"use_flow_sigmas": True}, "predicts flow sigmas")],
)
def test_other_predictions_are_refused(folder: Path, change: dict[str, Any], said: str) -> None:
    _rewrite(folder / "scheduler/scheduler_config.json", **change)
    _refused(folder, said, "epsilon or v_prediction")


@pytest.mark.parametrize("name", ["PNDMScheduler", "DPMSolverMultistepScheduler", "UniPCMultistepScheduler"])
def test_any_scheduler_with_betas_serves(folder: Path, name: str) -> None:
    import diffusers

    own = json.loads((folder / "scheduler/scheduler_config.json").read_text())
    shutil.rmtree(folder / "scheduler")
    betas = {key: own[key] for key in ("beta_start", "beta_end", "beta_schedule")}
    getattr(diffusers, name)(**betas).save_pretrained(folder / "scheduler")
    assert _load(folder).schedule(10).steps == 10


@pytest.mark.parametrize("part", ["text_encoder", "text_encoder_2", "tokenizer_2"])
def test_a_part_that_is_null_is_named(xl: Path, part: str) -> None:
    """As in the refiner, which has one encoder of two."""
    _rewrite(xl / "model_index.json", **{part: [None, None]})
    _refused(xl, f"has no {part} (null in model_index.json)")


def test_a_class_in_the_index_that_does_not_serve_is_named(folder: Path) -> None:
    _rewrite(folder / "model_index.json", vae=["diffusers", "ConsistencyDecoderVAE"])
    _refused(folder, "has ConsistencyDecoderVAE as its vae, where nulltext needs AutoencoderKL")


@pytest.mark.parametrize(("sample_size", "side"), [([16, 16], 32), ([24, 16], 32), (24, 48)])
def test_a_sample_size_may_be_a_list(folder: Path, sample_size: Any, side: int) -> None:
    _rewrite(folder / "unet/config.json", sample_size=sample_size)
    assert _load(folder).default_size == side


@pytest.mark.parametrize("length", [..., 10**30, 99])
def test_a_tokenizer_that_does_not_say_its_length_has_its_encoders(
    folder: Path, tiny_sd: Path, length: Any
) -> None:
    _rewrite(folder / "tokenizer/tokenizer_config.json", model_max_length=length)
    model = _load(folder)
    assert model.max_length == model.tokenizer.model_max_length == 77
    assert torch.equal(model.embed(PROMPT).sequence, _load(tiny_sd).embed(PROMPT).sequence)


# ------------------------------------------------------------------------------------ kinds of weights, fingerprints


def _to_half(folder: Path, keep: bool = False) -> None:
    """Adds the fp16 weight files of every part, beside the plain ones or instead of them."""
    for file in list(folder.rglob("*model.safetensors")):
        half = {name: x.half() if x.is_floating_point() else x for name, x in load_file(file).items()}
        save_file(half, file.with_suffix(".fp16.safetensors"), {"format": "pt"})
        if not keep:
            file.unlink()


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_the_only_kind_of_weights_is_loaded_as_it_is(folder: Path, variant: str | None) -> None:
    _to_half(folder)
    model = _load(folder, variant=variant)
    assert model.variant == "fp16"
    assert torch.equal(
        model.denoiser.conv_in.weight,
        load_file(folder / "unet" / "diffusion_pytorch_model.fp16.safetensors")["conv_in.weight"].float(),
    )


def test_each_kind_of_several_can_be_had_and_both_are_known_by_their_fingerprints(
    folder: Path, tiny_sd: Path
) -> None:
    _to_half(folder, keep=True)
    plain, half = _load(folder), _load(folder, variant="fp16")
    assert (plain.variant, half.variant) == (None, "fp16")
    assert plain.fingerprint == _load(tiny_sd).fingerprint != half.fingerprint
    assert plain.matches(half.fingerprint) and half.matches(plain.fingerprint)
    assert not plain.matches("0" * 64)


def test_a_variant_that_is_not_there_is_noted(folder: Path) -> None:
    with pytest.warns(UserWarning, match=r"has no fp16 weights \(--model.variant\); its plain ones are read"):
        assert _load(folder, variant="fp16").variant is None


def test_among_several_variants_one_is_to_be_named(folder: Path) -> None:
    _to_half(folder)
    half = folder / "unet/diffusion_pytorch_model.fp16.safetensors"
    shutil.copy(half, half.with_name("diffusion_pytorch_model.bf16.safetensors"))
    _refused(folder, "several kinds of weights in unet", "--model.variant bf16 or --model.variant fp16")
    assert check_model(str(folder), "bf16") == folder


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_shards_of_either_naming_are_one_kind(folder: Path, variant: str | None, tiny_sd: Path) -> None:
    model = _load(tiny_sd)
    (folder / UNET).unlink()
    model.denoiser.save_pretrained(folder / "unet", max_shard_size="10KB", variant=variant)
    assert len(list((folder / "unet").glob("*.safetensors"))) > 1
    again = _load(folder)
    assert again.variant == variant
    assert torch.equal(again.denoiser.conv_out.weight, model.denoiser.conv_out.weight)


def test_the_fingerprint_tells_weights_apart_and_not_their_names(folder: Path, tiny_sd: Path) -> None:
    first = _load(tiny_sd)
    assert _load(folder).fingerprint == first.fingerprint
    (folder / UNET).rename(folder / "unet/diffusion_pytorch_model.fp16.safetensors")
    assert _load(folder).fingerprint == first.fingerprint
    with torch.no_grad():
        first.denoiser.conv_out.bias += 1
    first.denoiser.save_pretrained(folder / "unet")
    assert _load(folder).fingerprint != first.fingerprint


def test_a_folder_of_soft_links_is_loaded(tiny_sd: Path, tmp_path: Path) -> None:
    """As the hub's cache lays its files out."""
    for file in [file for file in tiny_sd.rglob("*") if file.is_file()]:
        link = tmp_path / "snapshot" / file.relative_to(tiny_sd)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(file)
    assert _load(tmp_path / "snapshot").fingerprint == _load(tiny_sd).fingerprint


# ------------------------------------------------------------------------------------------------ what is no folder


def test_a_model_that_is_not_there_names_the_option(tmp_path: Path) -> None:
    _refused(tmp_path / "moved", "there is no model folder", "--model.pretrained FOLDER")


@pytest.mark.parametrize("name", ["models/sd15", "stable-diffusion-v1-5/stable-diffusion-v1-5"])
def test_without_a_hub_it_is_said_how_to_get_the_model(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="the hub cannot be reached") as error:
        check_model(name)
    message = str(error.value)
    assert "\n" not in message
    assert (
        f"there is no folder {name} here" in message and f"hf download {name} --local-dir FOLDER" in message
    )


@pytest.mark.parametrize(
    ("key", "pipeline"),
    [
        ("model.diffusion_model.out.0.bias", "StableDiffusionPipeline"),
        ("conditioner.embedders.1.model.ln_final.bias", "StableDiffusionXLPipeline"),
    ],
)
def test_a_single_checkpoint_file_is_answered_with_its_conversion(
    tmp_path: Path, key: str, pipeline: str
) -> None:
    save_file({key: torch.zeros(1)}, tmp_path / "model.safetensors")
    said = _refused(tmp_path / "model.safetensors", "is a single checkpoint file", f"import {pipeline} as P")
    assert f"--model.pretrained {tmp_path / 'model'}" in said


def test_an_existing_path_is_never_asked_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner").mkdir()
    (tmp_path / "owner/name").write_text("no model")
    _refused(Path("owner/name"), "owner/name is a file")
    (tmp_path / "owner/name").unlink()
    (tmp_path / "owner/name").mkdir()
    _refused(Path("owner/name"), "no model_index.json")


# ------------------------------------------------------------------------------------------------ a stranger's family


class Louder(StableDiffusion):
    """A family from outside: the network's output twice."""

    def network(self, z: Any, t: Any, text: Any) -> Any:
        return 2 * super().network(z, t, text)


def test_a_family_from_outside_is_loaded_by_its_import_path(tiny_sd: Path) -> None:
    model = load_model(str(tiny_sd), LoadingOptions(family=f"{__name__}.Louder"))
    assert isinstance(model, Louder) and model.family == f"{__name__}.Louder"
    plain, z = _load(tiny_sd), torch.randn(1, 4, 16, 16)
    text, schedule = model.embed(PROMPT), model.schedule(5)
    with torch.no_grad():
        twice, once = (m.predict(z, schedule, 1, text).eps for m in (model, plain))
    torch.testing.assert_close(twice, 2 * once)


def test_what_is_no_family_is_refused(tiny_sd: Path) -> None:
    for wrong in ("pathlib.Path", "no.such.Family", "Nameless"):
        with pytest.raises(UserError, match=rf"--model.family .*{wrong}"):
            check_model(str(tiny_sd), family=wrong)
