"""Tiny random pipelines of each family, written once as the folders that ``from_pretrained`` reads."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the processes that tests start
torch.set_num_threads(
    1
)  # models so small gain nothing from a second, and lose much where two tests run at once

SCHEDULER: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
FLOW_VAE = {
    "shift_factor": 0.06,
    "scaling_factor": 1.5,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}
PACKED: dict[str, Any] = {
    "in_channels": 16,
    "num_layers": 1,
    "num_single_layers": 1,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": 32,
    "axes_dims_rope": (4, 4, 8),
}
PROMPT = "a photo of a white sheep on a green meadow"


def _tokenizer() -> Any:
    """A CLIP tokenizer of single letters, learned from nothing: words are several tokens long."""
    from transformers import CLIPTokenizer

    letters = [chr(c) for c in range(33, 127)]
    tokens = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77)


def _text_config(tokenizer: Any, width: int) -> Any:
    from transformers import CLIPTextConfig

    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=77,
        projection_dim=width,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _t5(width: int) -> tuple[Any, Any]:
    """A random T5 encoder and a tokenizer of single letters."""
    from transformers import T5Config, T5EncoderModel, T5Tokenizer

    letters = [chr(c) for c in range(33, 127)]
    pieces = ["<pad>", "</s>", "<unk>", "\u2581", *letters]
    tokenizer = T5Tokenizer(vocab=[(piece, -float(i > 2)) for i, piece in enumerate(pieces)], extra_ids=0)
    config = T5Config(
        vocab_size=len(tokenizer), d_model=width, d_kv=8, d_ff=2 * width, num_layers=1, num_heads=2
    )
    return T5EncoderModel(config), tokenizer


def _vae(**kwargs: Any) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        **kwargs,
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        sample_size=32,
        latent_channels=4,
    )


def _unet(cross_attention_dim: int, **kwargs: Any) -> Any:
    from diffusers import UNet2DConditionModel

    shape = {
        "sample_size": 16,
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "attention_head_dim": 4,
        "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    }
    return UNet2DConditionModel(cross_attention_dim=cross_attention_dim, **(shape | kwargs))


@pytest.fixture(scope="session")
def unet() -> Any:
    """A random UNet with attention to text of width 12, of two heads."""
    torch.manual_seed(0)
    return _unet(12, attention_head_dim=2).eval()


@pytest.fixture(scope="session")
def plain_unet() -> Any:
    """A random UNet without attention."""
    torch.manual_seed(0)
    blocks = {
        "down_block_types": ("DownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "UpBlock2D"),
    }
    return _unet(12, sample_size=8, mid_block_type=None, **blocks).eval()


def _save_sd(folder: Path, prediction_type: str) -> Path:
    from diffusers import DDIMScheduler, StableDiffusionPipeline
    from transformers import CLIPTextModel

    torch.manual_seed(0)
    tokenizer = _tokenizer()
    StableDiffusionPipeline(
        vae=_vae(),
        text_encoder=CLIPTextModel(_text_config(tokenizer, 16)),
        tokenizer=tokenizer,
        unet=_unet(16),
        scheduler=DDIMScheduler(**SCHEDULER, prediction_type=prediction_type),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_sd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a random Stable Diffusion 1.x pipeline of 32 x 32 pixels, f = 2."""
    return _save_sd(tmp_path_factory.mktemp("tiny_sd"), "epsilon")


@pytest.fixture(scope="session")
def tiny_sd_v(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with v-prediction, as Stable Diffusion 2.1."""
    return _save_sd(tmp_path_factory.mktemp("tiny_sd_v"), "v_prediction")


@pytest.fixture(scope="session")
def tiny_sdxl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a random SDXL pipeline of 32 x 32 pixels: two text encoders, pooled text, time ids."""
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    torch.manual_seed(0)
    tokenizer = _tokenizer()
    unet = _unet(
        32,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 16,
        use_linear_projection=True,
    )
    euler = {k: v for k, v in SCHEDULER.items() if k not in ("clip_sample", "set_alpha_to_one")}
    folder = tmp_path_factory.mktemp("tiny_sdxl")
    StableDiffusionXLPipeline(
        vae=_vae(),
        text_encoder=CLIPTextModel(_text_config(tokenizer, 16)),
        text_encoder_2=CLIPTextModelWithProjection(_text_config(tokenizer, 16)),
        tokenizer=tokenizer,
        tokenizer_2=_tokenizer(),
        unet=unet,
        scheduler=EulerDiscreteScheduler(**euler, timestep_spacing="leading"),
        add_watermarker=False,
    ).save_pretrained(folder)
    return folder


def _save_sd3(folder: Path, *, t5: bool) -> Path:
    from diffusers import (
        FlowMatchEulerDiscreteScheduler,
        SD3Transformer2DModel,
        StableDiffusion3Pipeline,
    )
    from transformers import CLIPTextModelWithProjection

    torch.manual_seed(0)
    tokenizer, width = _tokenizer(), 40
    third = _t5(width) if t5 else (None, None)
    StableDiffusion3Pipeline(
        transformer=SD3Transformer2DModel(
            sample_size=16,
            in_channels=4,
            out_channels=4,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=4,
            joint_attention_dim=width,
            caption_projection_dim=32,
            pooled_projection_dim=32,
            pos_embed_max_size=16,
            dual_attention_layers=(0,),
            qk_norm="rms_norm",
        ),
        vae=_vae(**FLOW_VAE),
        text_encoder=CLIPTextModelWithProjection(_text_config(tokenizer, 16)),
        tokenizer=tokenizer,
        text_encoder_2=CLIPTextModelWithProjection(_text_config(tokenizer, 16)),
        tokenizer_2=_tokenizer(),
        text_encoder_3=third[0],
        tokenizer_3=third[1],
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_sd3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a random Stable Diffusion 3.5 pipeline of 32 x 32 pixels, with T5."""
    return _save_sd3(tmp_path_factory.mktemp("tiny_sd3"), t5=True)


@pytest.fixture(scope="session")
def tiny_sd3_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same without T5."""
    return _save_sd3(tmp_path_factory.mktemp("tiny_sd3_clip"), t5=False)


@pytest.fixture(scope="session")
def tiny_flux(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a random Flux.1 pipeline with a guidance input; its levels depend on the picture's size."""
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
    from transformers import CLIPTextModel

    torch.manual_seed(0)
    tokenizer, (t5, tokenizer_2) = _tokenizer(), _t5(32)
    folder = tmp_path_factory.mktemp("tiny_flux")
    FluxPipeline(
        transformer=FluxTransformer2DModel(**PACKED, pooled_projection_dim=16, guidance_embeds=True),
        vae=_vae(**FLOW_VAE),
        text_encoder=CLIPTextModel(_text_config(tokenizer, 16)),
        tokenizer=tokenizer,
        text_encoder_2=t5,
        tokenizer_2=tokenizer_2,
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift=3.0),
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_chroma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a random Chroma pipeline."""
    from diffusers import ChromaPipeline, ChromaTransformer2DModel, FlowMatchEulerDiscreteScheduler

    torch.manual_seed(0)
    t5, tokenizer = _t5(32)
    sizes = {"approximator_num_channels": 16, "approximator_hidden_dim": 16, "approximator_layers": 1}
    folder = tmp_path_factory.mktemp("tiny_chroma")
    ChromaPipeline(
        transformer=ChromaTransformer2DModel(**PACKED, **sizes),
        vae=_vae(**FLOW_VAE),
        text_encoder=t5,
        tokenizer=tokenizer,
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
    ).save_pretrained(folder)
    return folder


@pytest.fixture(params=["tiny_sd", "tiny_sd_v", "tiny_sdxl"])
def tiny(request: pytest.FixtureRequest) -> Path:
    """Each tiny pipeline in turn."""
    return request.getfixturevalue(request.param)


@pytest.fixture(params=["tiny_sd3", "tiny_sd3_clip", "tiny_flux", "tiny_chroma"])
def tiny_flow(request: pytest.FixtureRequest) -> Path:
    """Each tiny flow in turn."""
    return request.getfixturevalue(request.param)
