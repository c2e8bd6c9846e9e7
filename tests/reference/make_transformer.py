#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Writes tests/data/transformer-small/: a FLUX transformer with random weights as diffusers saves
it (one double and two single blocks, no guidance embedding, as in FLUX.1-schnell), and
tests/data/transformer-small.safetensors: what diffusers and peft compute with it in fp32.

    python3 tests/reference/make_transformer.py

Keys: latents [1, I, C], prompt_embeds, pooled, target; metadata settings {height, width, t, weight}.
`out`: without an adapter. An adapter on every linear layer of the blocks, modulation included,
rank 3, alpha 5, neither half zero: adapter.KEY, `adapter.out`, `adapter.loss` = mean (weight
(out - target)^2), adapter.grad.KEY. `two.out`: two adapters at once, this one at scale 0.5 and one
on attention only of rank 2, alpha 2 (second.KEY). Versions are in the metadata.
"""
import json
import os

import diffusers
import peft
import torch
from diffusers import FluxTransformer2DModel
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import save_file

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "..", "data", "transformer-small")
HEIGHT, WIDTH, TEXT, T, WEIGHT = 3, 5, 7, 0.37, 1.75

torch.manual_seed(11)
model = FluxTransformer2DModel(
    in_channels=16, num_layers=1, num_single_layers=2, attention_head_dim=32, num_attention_heads=2,
    joint_attention_dim=48, pooled_projection_dim=40, guidance_embeds=False, axes_dims_rope=(8, 12, 12))
with torch.no_grad():
    for p in model.parameters():
        p.copy_(torch.randn_like(p) * (p.shape[-1] ** -0.5 if p.dim() > 1 else 0.2)
                + (1.0 if p.dim() == 1 and p.shape[0] == 32 else 0.0))
model.to(torch.bfloat16).save_pretrained(OUT)
model = FluxTransformer2DModel.from_pretrained(OUT, torch_dtype=torch.float32)
model.requires_grad_(False)
LINEAR = [n for n, m in model.named_modules()
          if isinstance(m, torch.nn.Linear) and "transformer_blocks." in n]

c = model.config
ids = torch.zeros(HEIGHT, WIDTH, 3)
ids[..., 1] += torch.arange(HEIGHT)[:, None]
ids[..., 2] += torch.arange(WIDTH)[None, :]
latents = torch.randn(1, HEIGHT * WIDTH, c.in_channels)
prompt = torch.randn(1, TEXT, c.joint_attention_dim)
pooled = torch.randn(1, c.pooled_projection_dim)
target = torch.randn(1, HEIGHT * WIDTH, c.in_channels)
inputs = dict(hidden_states=latents, encoder_hidden_states=prompt, pooled_projections=pooled,
              timestep=torch.tensor([T]), img_ids=ids.reshape(-1, 3), txt_ids=torch.zeros(TEXT, 3),
              return_dict=False)
tensors = {"latents": latents, "prompt_embeds": prompt, "pooled": pooled, "target": target}
with torch.no_grad():
    tensors["out"] = model(**inputs)[0]


def add(name, rank, alpha, targets):
    """An adapter with random halves; targets: ends of names, or None for all of the blocks."""
    names = [n for n in LINEAR if targets is None or n.rsplit("attn.", 1)[-1] in targets]
    model.add_adapter(LoraConfig(r=rank, lora_alpha=alpha, target_modules=names), adapter_name=name)
    with torch.no_grad():
        for key, p in model.named_parameters():
            if f".{name}." in key:
                p.copy_(torch.randn_like(p) * (0.1 if "lora_A" in key else 0.05))


def state(name):
    return {"transformer." + k: v.detach().clone()
            for k, v in get_peft_model_state_dict(model, adapter_name=name).items()}


add("first", 3, 5, None)
tensors.update({"adapter." + k: v for k, v in state("first").items()})
out = model(**inputs)[0]
loss = (WEIGHT * (out - target) ** 2).mean()
loss.backward()
tensors["adapter.out"] = out.detach()
tensors["adapter.loss"] = loss.detach().reshape(1)
for key, p in model.named_parameters():
    if ".first." in key:
        tensors["adapter.grad.transformer." + key.replace(".first.", ".")] = p.grad.clone()
add("second", 2, 2, ["to_q", "to_k", "to_v", "to_out.0"])
tensors.update({"second." + k: v for k, v in state("second").items()})
model.set_adapters(["first", "second"], weights=[0.5, 1.0])
with torch.no_grad():
    tensors["two.out"] = model(**inputs)[0]

settings = {"height": HEIGHT, "width": WIDTH, "t": T, "weight": WEIGHT, "rank": 3, "alpha": 5}
save_file({k: v.contiguous() for k, v in tensors.items()}, OUT + ".safetensors",
          metadata={"format": "pt", "settings": json.dumps(settings),
                    "versions": f"diffusers {diffusers.__version__}, peft {peft.__version__}, "
                                f"torch {torch.__version__}"})
