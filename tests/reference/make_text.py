#!/usr/bin/env python3
# tests/reference/make_text.py: writes tests/data/text, two tiny text encoders of kinds that
# the golden data does not hold, and what transformers computes with them.
# SPDX-License-Identifier: LGPL-2.1-or-later
#
#   make_text.py tests/data/text          (needs torch, transformers, safetensors, bitsandbytes)
"""clip: exact GELU, and an eos_token_id that is not the largest id (the pooled row is then
the first one of that id). clip2: eos_token_id 2, the historical value, which stands for the
largest id of the text. t5: 300 tokens, so that every bucket of relative positions is used,
in bf16. expected.safetensors: clip.ids, clip.pooled, clip2.*, t5.ids, t5.embeds, t5.buckets
of distances -511..511, and t5.int8, t5.nf4: the first 20 ids with every linear weight
replaced by bitsandbytes' round trip, rounded to bf16."""
import json
import os
import sys

import bitsandbytes.functional as bnb
import torch
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel
from transformers.models.t5.modeling_t5 import T5Attention

OUT = sys.argv[1]
expected = {}


def save(folder, config, tensors):
    os.makedirs(f"{OUT}/{folder}", exist_ok=True)
    with open(f"{OUT}/{folder}/config.json", "w") as f:
        json.dump(config, f, indent=2, sort_keys=True)
        f.write("\n")
    save_file({k: v.contiguous() for k, v in sorted(tensors.items())},
              f"{OUT}/{folder}/model.safetensors", metadata={"format": "pt"})


def randomise(model, seed, std=0.3):
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in sorted(model.named_parameters()):
            value = torch.randn(p.shape, generator=g) * (std if p.ndim > 1 else 0.1)
            p.copy_((value + (1.0 if "norm" in name and name.endswith("weight") else 0.0))
                    .bfloat16().float())
    return model.eval()


def int8_trip(w):
    """As kInt8VectorQuant of bitsandbytes: w * (127 / absmax), rounded half to even. Its
    torch code for the CPU has 127 * (1 / absmax), which decides some ties otherwise."""
    absmax = w.abs().amax(1)
    q = torch.round(w * (torch.full_like(absmax, 127.0) / absmax)[:, None]).to(torch.int8)
    return bnb.int8_vectorwise_dequant(q, absmax).bfloat16().float()


def nf4_trip(w):
    packed, state = bnb.quantize_4bit(w.bfloat16(), blocksize=64, quant_type="nf4")
    return bnb.dequantize_4bit(packed, state).float()


def clip(folder, seed, ids, **kw):
    config = dict(hidden_size=20, intermediate_size=36, num_attention_heads=2,
                  num_hidden_layers=2, max_position_embeddings=ids.shape[1], vocab_size=64,
                  layer_norm_eps=1e-5, bos_token_id=0, pad_token_id=1, **kw)
    model = randomise(CLIPTextModel(CLIPTextConfig(**config)), seed)
    with torch.no_grad():
        pooled = model(ids).pooler_output
    tensors = {k if k.startswith("text_model.") else "text_model." + k: v
               for k, v in model.state_dict().items() if not k.endswith("position_ids")}
    save(folder, dict(config, model_type="clip_text_model"), tensors)
    expected[f"{folder}.ids"] = ids.int()
    expected[f"{folder}.pooled"] = pooled


clip("clip", 1, torch.tensor([[0, 40, 63, 7, 50, 9, 50, 1, 1, 1]]), hidden_act="gelu",
     eos_token_id=50)
clip("clip2", 2, torch.tensor([[0, 40, 5, 2, 7, 63, 9, 63, 2, 1]]), hidden_act="quick_gelu",
     eos_token_id=2)

config = dict(d_model=64, d_kv=32, d_ff=64, num_heads=2, num_layers=2, vocab_size=50,
              relative_attention_num_buckets=32, relative_attention_max_distance=128,
              layer_norm_epsilon=1e-6, feed_forward_proj="gated-gelu", dropout_rate=0.0)
t5 = randomise(T5EncoderModel(T5Config(**config)), 3, std=0.15)
ids = torch.randint(0, 50, (1, 300), generator=torch.Generator().manual_seed(4))
with torch.no_grad():
    expected["t5.embeds"] = t5(ids).last_hidden_state
expected["t5.ids"] = ids.int()
linears = [m for m in t5.modules() if isinstance(m, torch.nn.Linear)]
original = [m.weight.detach().clone() for m in linears]
short = ids[:, :20]
for kind, trip in (("int8", int8_trip), ("nf4", nf4_trip)):
    with torch.no_grad():
        for m, w in zip(linears, original):
            m.weight.copy_(trip(w))
        expected[f"t5.{kind}"] = t5(short).last_hidden_state
        for m, w in zip(linears, original):
            m.weight.copy_(w)
tensors = {k: v.bfloat16() for k, v in t5.state_dict().items() if "embed_tokens" not in k}
save("t5", dict(config, model_type="t5", is_gated_act=True, dense_act_fn="gelu_new"), tensors)
expected["t5.buckets"] = T5Attention._relative_position_bucket(
    torch.arange(-511, 512), bidirectional=True, num_buckets=32, max_distance=128).int()
save_file(expected, f"{OUT}/expected.safetensors")
