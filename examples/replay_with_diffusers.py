"""Replays an inversion with nothing but diffusers and safetensors: no code of nulltext runs here.

    python examples/replay_with_diffusers.py MODEL_FOLDER lightning_logs/version_0/sheep/inversion.safetensors OUT.png

The whole of it is one callback: after step i, the unconditional half of the text is the (i + 1)-th null embedding.
"""

import json
import sys
from typing import Any

import torch
from diffusers import DDIMScheduler, DiffusionPipeline
from safetensors import safe_open


def replay(pipe: Any, path: str) -> Any:
    """The reconstruction, by a stock StableDiffusionPipeline (or the XL one).

    Args:
        pipe: The untouched pipeline that the picture was inverted with.
        path: ``inversion.safetensors``.

    Returns:
        A PIL picture.
    """
    with safe_open(path, framework="pt") as file:
        facts = json.loads(file.metadata()["nulltext"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    if "pivot" in tensors:
        raise SystemExit(f"{facts['method']} holds its source on a pivot, which a stock pipeline does not")
    nulls = tensors["null_embeddings"].to(pipe.device)

    def swap_null(pipe: Any, i: int, t: Any, kwargs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        text = kwargs["prompt_embeds"].clone()  # (2, L, d): the unconditional half, the prompt
        text[0] = nulls[min(i + 1, len(nulls) - 1)]
        return {"prompt_embeds": text}

    prompt_embeds, _, *pooled = pipe.encode_prompt(
        facts["prompt"], device=pipe.device, num_images_per_prompt=1, do_classifier_free_guidance=False
    )
    companions = {}
    if "pooled" in tensors:  # SDXL
        companions["pooled_prompt_embeds"] = pooled[0]
        companions["negative_pooled_prompt_embeds"] = tensors["pooled"][None].to(pipe.device)
    pipe.scheduler = DDIMScheduler.from_config(facts["scheduler"], clip_sample=False)
    height, width = facts["size"]
    return pipe(
        prompt_embeds=prompt_embeds,
        negative_prompt_embeds=nulls[:1],
        **companions,
        latents=tensors["noise"][None].to(pipe.device),
        height=height,
        width=width,
        num_inference_steps=len(nulls),
        guidance_scale=facts["guidance_scale"],
        callback_on_step_end=swap_null,
        callback_on_step_end_tensor_inputs=["prompt_embeds"],
    ).images[0]


if __name__ == "__main__":
    folder, inversion, out = sys.argv[1:]
    stock = DiffusionPipeline.from_pretrained(
        folder, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
    replay(stock, inversion).save(out)
