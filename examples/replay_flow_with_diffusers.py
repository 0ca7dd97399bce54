"""Replays an inversion of Stable Diffusion 3, Flux.1 or Chroma with diffusers alone: no code of nulltext runs here.

    python examples/replay_flow_with_diffusers.py MODEL_FOLDER lightning_logs/version_0/sheep/inversion.safetensors PNG

The levels are those of the file. Before step i the unconditional text becomes the i-th null text of the file: token
embeddings and, where the model has one, the pooled embedding behind them. Of a model without T5 from_pretrained wants
to hear text_encoder_3=None and tokenizer_3=None.
"""

import json
import sys
from typing import Any

import torch
from diffusers import DiffusionPipeline, FlowMatchEulerDiscreteScheduler
from safetensors import safe_open

SD3, FLUX, CHROMA = "StableDiffusion3Pipeline", "FluxPipeline", "ChromaPipeline"
Text = dict[str, torch.Tensor]


def read(pipe: Any, prompt: str) -> Text:
    """What the pipeline makes of a prompt, by the names of its arguments."""
    kind = type(pipe).__name__
    if kind == SD3:
        sequence, _, pooled, _ = pipe.encode_prompt(prompt, None, None, do_classifier_free_guidance=False)
        return {"prompt_embeds": sequence, "pooled_prompt_embeds": pooled}
    if kind == FLUX:
        sequence, pooled, _ = pipe.encode_prompt(prompt, None)
        return {"prompt_embeds": sequence, "pooled_prompt_embeds": pooled}
    sequence, _, mask, *_ = pipe.encode_prompt(prompt, do_classifier_free_guidance=False)
    return {"prompt_embeds": sequence, "prompt_attention_mask": mask}


def put(null: Text, learned: torch.Tensor, encoders: tuple[int, ...]) -> Text:
    """A null text with what was learned (rows, d): tokens of each encoder, then the pooled embedding."""
    pooled = null.get("pooled_prompt_embeds")
    rows = 0 if pooled is None else -(-pooled.shape[1] // learned.shape[1])
    tokens = learned[: len(learned) - rows]
    sequence = null["prompt_embeds"].clone()
    if len(tokens) == sequence.shape[1]:
        sequence[0] = tokens
    else:  # the first few of each encoder
        few = len(tokens) // len(encoders)
        for k in range(len(encoders)):
            start = sum(encoders[:k])
            sequence[0, start : start + few] = tokens[k * few : (k + 1) * few]
    changed = {"prompt_embeds": sequence}
    if pooled is not None:
        changed["pooled_prompt_embeds"] = learned[len(tokens) :].flatten()[None, : pooled.shape[1]]
    return {**null, **changed}


def replay(pipe: Any, path: str) -> Any:
    """The reconstruction, by the stock pipeline that the picture was inverted with: a PIL picture."""
    with safe_open(path, framework="pt") as file:
        facts = json.loads(file.metadata()["nulltext"])
        if "pivot" in file.keys():
            raise SystemExit(
                f"{facts['method']} holds its source on a pivot, which a stock pipeline does not"
            )
        learned, noise = file.get_tensor("null_embeddings"), file.get_tensor("noise")[None]
    kind, text, empty = type(pipe).__name__, read(pipe, facts["prompt"]), read(pipe, "")
    start = facts["settings"].get("start", 0.0)
    begun = {name: torch.lerp(empty[name], text[name], start) for name in text}
    encoders = (77, 256) if kind == SD3 else (text["prompt_embeds"].shape[1],)
    nulls = [put(begun, one.to(pipe.device), encoders) for one in learned]
    negative = {name: value.clone() for name, value in nulls[0].items()}

    def next_null(pipe: Any, i: int, t: Any, kwargs: Text) -> Text:
        for name, value in nulls[min(i + 1, len(nulls) - 1)].items():
            if kind == SD3:
                kwargs[name][:1] = value  # the unconditional half
            else:
                negative[name].copy_(value)  # the tensor that the pipeline goes on reading
        return {}

    w, (height, width) = facts["guidance_scale"], facts["size"]
    own = {
        SD3: {"guidance_scale": w, "callback_on_step_end_tensor_inputs": [*text]},
        FLUX: {"true_cfg_scale": w, "guidance_scale": 1.0},
        CHROMA: {"guidance_scale": w},
    }
    if kind != SD3:
        noise = pipe._pack_latents(noise, *noise.shape)
    count = facts["scheduler"]["num_train_timesteps"]
    pipe.scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=count, shift=1.0)
    return pipe(
        **text,
        **{f"negative_{name}": value for name, value in negative.items()},
        **own[kind],
        latents=noise.to(pipe.device),
        height=height,
        width=width,
        sigmas=facts["sigmas"][:-1],
        num_inference_steps=len(learned),
        callback_on_step_end=next_null,
    ).images[0]


if __name__ == "__main__":
    folder, inversion, out = sys.argv[1:]
    replay(DiffusionPipeline.from_pretrained(folder), inversion).save(out)
