#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Writes tests/data/adapters/: adapter files in the layouts of other tools, and what diffusers computes
after FluxPipeline.load_lora_weights() of each.

    python3 tests/reference/make_adapters.py MODEL_DIR     (tiny-flux-emoji in bf16)

No converter leads from diffusers to these layouts, so the files follow the readers in diffusers
(loaders/lora_conversion_utils.py) and kohya-ss/sd-scripts networks/convert_flux_lora.py; that diffusers reads
them is the check. Its readers hold the sizes of FLUX.1-dev as constants, which are replaced below.

small-*.safetensors are for tests/data/transformer-small; small.safetensors holds `out.NAME`, a forward on the
inputs of transformer-small.safetensors. emoji-*.safetensors are for MODEL_DIR: emoji-a in four layouts and
emoji-c in two, which must give one picture each, emoji-b for two adapters at once, emoji-bfl and
emoji-onetrainer, whose readers want or know other layers than the rest do. Each is read by diffusers itself.
emoji.safetensors holds the pictures `a`, `ab` (0.8, 0.4), `c`, `bfl` and `onetrainer`, [64, 64, 3] of 8 bits,
and `plain`. Settings and versions are in the metadata.
"""
import inspect
import json
import os
import sys

import diffusers
import peft
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from diffusers.loaders import lora_conversion_utils as utils
from diffusers.loaders import lora_pipeline
from safetensors.torch import load_file, safe_open, save_file

HERE = os.path.dirname(os.path.abspath(__file__))
DATA = os.path.join(HERE, "..", "data")
OUT = os.path.join(DATA, "adapters")
VERSIONS = {"diffusers": diffusers.__version__, "peft": peft.__version__, "torch": torch.__version__}
DOUBLE = {"img_attn.qkv": ["attn.to_q", "attn.to_k", "attn.to_v"],
          "txt_attn.qkv": ["attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"],
          "img_attn.proj": ["attn.to_out.0"], "txt_attn.proj": ["attn.to_add_out"],
          "img_mlp.0": ["ff.net.0.proj"], "img_mlp.2": ["ff.net.2"], "txt_mlp.0": ["ff_context.net.0.proj"],
          "txt_mlp.2": ["ff_context.net.2"], "img_mod.lin": ["norm1.linear"],
          "txt_mod.lin": ["norm1_context.linear"]}
SINGLE = {"linear1": ["attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"], "linear2": ["proj_out"],
          "modulation.lin": ["norm.linear"]}
ENDS = {"img_in": "x_embedder", "txt_in": "context_embedder",
        "time_in.in_layer": "time_text_embed.timestep_embedder.linear_1",
        "time_in.out_layer": "time_text_embed.timestep_embedder.linear_2",
        "vector_in.in_layer": "time_text_embed.text_embedder.linear_1",
        "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
        "final_layer.linear": "proj_out", "final_layer.adaLN_modulation.1": "norm_out.linear"}
GUIDANCE = {"guidance_in.in_layer": "time_text_embed.guidance_embedder.linear_1",
            "guidance_in.out_layer": "time_text_embed.guidance_embedder.linear_2"}


def fit_readers(c):
    """diffusers' readers for a model of this configuration."""
    dim = c.num_attention_heads * c.attention_head_dim
    for name in ["_convert_kohya_flux_lora_to_diffusers", "_convert_bfl_flux_control_lora_to_diffusers",
                 "_convert_fal_kontext_lora_to_diffusers"]:
        source = inspect.getsource(ORIGINAL[name])
        for old, new in [("[3072, 3072, 3072, 12288]", f"[{dim}, {dim}, {dim}, {4 * dim}]"),
                         ("range(19)", f"range({c.num_layers})"), ("range(38)", f"range({c.num_single_layers})"),
                         ("num_layers = 19", f"num_layers = {c.num_layers}"),
                         ("num_single_layers = 38", f"num_single_layers = {c.num_single_layers}"),
                         ("inner_dim = 3072", f"inner_dim = {dim}")]:
            source = source.replace(old, new)
        space = {}
        exec(source, vars(utils), space)
        setattr(lora_pipeline, name, space[name])


ORIGINAL = {n: getattr(utils, n) for n in dir(utils) if n.startswith("_convert_")}


def layers(model):
    """Original module -> layers of diffusers, all of them."""
    c, found = model.config, {}
    for i in range(c.num_layers):
        found.update({f"double_blocks.{i}.{k}": [f"transformer_blocks.{i}.{x}" for x in v]
                      for k, v in DOUBLE.items()})
    for i in range(c.num_single_layers):
        found.update({f"single_blocks.{i}.{k}": [f"single_transformer_blocks.{i}.{x}" for x in v]
                      for k, v in SINGLE.items()})
    ends = ENDS | (GUIDANCE if c.guidance_embeds else {})
    return found, {k: [v] for k, v in ends.items()}


def halves(model, names, rank, a, b):
    """One A for all of the layers, as a module on the fused layer has."""
    modules = [model.get_submodule(n) for n in names]
    n = sum(m.out_features for m in modules)
    k = modules[0].in_features
    return ((torch.randn(rank, k) * a * k ** -0.5).to(torch.bfloat16),
            (torch.randn(n, rank) * b).to(torch.bfloat16))


def save(tensors, name):
    save_file({k: v.contiguous().clone() for k, v in tensors.items()}, os.path.join(OUT, name),
              metadata={"format": "pt"})


def forward(model, inputs):
    with torch.no_grad():
        return model(**inputs)[0]


def original(modules, prefix):
    """Under the original model's names, as BFL (no prefix) and fal write them."""
    tensors = {}
    for k, (a, b) in modules.items():
        tensors |= {f"{prefix}{k}.lora_A.weight": a, f"{prefix}{k}.lora_B.weight": b}
    return tensors


def equal_ranks(ends):
    """BFL's reader swaps the halves of this A, too, which are ranks: equal, so that it makes no difference."""
    a, b = ends["final_layer.adaLN_modulation.1"]
    ends["final_layer.adaLN_modulation.1"] = (a[:1].repeat(2, 1), b)


def norms(model):
    """Control adapters replace the norms; here by themselves."""
    found = {}
    for i in range(model.config.num_layers):
        n = f"transformer_blocks.{i}.attn."
        for stream, q, k in [("img", "norm_q", "norm_k"), ("txt", "norm_added_q", "norm_added_k")]:
            found[f"double_blocks.{i}.{stream}_attn.norm.query_norm.scale"] = n + q
            found[f"double_blocks.{i}.{stream}_attn.norm.key_norm.scale"] = n + k
    for i in range(model.config.num_single_layers):
        n = f"single_transformer_blocks.{i}.attn."
        found[f"single_blocks.{i}.norm.query_norm.scale"] = n + "norm_q"
        found[f"single_blocks.{i}.norm.key_norm.scale"] = n + "norm_k"
    return {k: model.get_parameter(v + ".weight").data for k, v in found.items()}


def onetrainer(name, a, b):
    name = "lora_transformer_" + name.replace(".", "_")
    return {name + ".lora_down.weight": a, name + ".lora_up.weight": b, name + ".alpha": torch.tensor(1.)}


def small():
    folder = os.path.join(DATA, "transformer-small")
    file = os.path.join(DATA, "transformer-small.safetensors")
    io = load_file(file)
    with safe_open(file, "pt") as f:
        s = json.loads(f.metadata()["settings"])
    ids = torch.zeros(s["height"], s["width"], 3)
    ids[..., 1] += torch.arange(s["height"])[:, None]
    ids[..., 2] += torch.arange(s["width"])[None, :]
    inputs = dict(hidden_states=io["latents"], encoder_hidden_states=io["prompt_embeds"],
                  pooled_projections=io["pooled"], timestep=torch.tensor([s["t"]]), img_ids=ids.reshape(-1, 3),
                  txt_ids=torch.zeros(io["prompt_embeds"].shape[1], 3), return_dict=False)
    model = FluxTransformer2DModel.from_pretrained(folder, torch_dtype=torch.float32)
    fit_readers(model.config)
    blocks, ends = layers(model)
    blocks = {k: halves(model, v, 2 if "mod" in k else 4, 1, .3) for k, v in blocks.items()}
    ends = {k: halves(model, v, 2, 1, .1) for k, v in ends.items()}
    equal_ranks(ends)
    files = {}  # bf16, which its reader of kohya multiplies by alpha / rank: powers of 2
    # Its reader looks for ends without the prefix "transformer." and then drops them: blocks only.
    files["kohya"] = {}
    for k, (a, b) in blocks.items():
        name = "lora_unet_" + k.replace(".", "_")
        files["kohya"] |= {name + ".lora_down.weight": a, name + ".lora_up.weight": b,
                           name + ".alpha": torch.tensor(2.)}
    files["comfy"] = {}
    for k, (a, b) in blocks.items():
        files["comfy"] |= {f"diffusion_model.{k}.lora_down.weight": a, f"diffusion_model.{k}.lora_up.weight": b}
    files["bfl"] = original(blocks | ends, "") | norms(model)
    files["fal"] = original(blocks | {"final_layer.linear": ends["final_layer.linear"]}, "base_model.model.")
    files["onetrainer"] = {}
    for n in ["transformer_blocks.0.attn.to_q", "transformer_blocks.0.attn.add_k_proj",
              "transformer_blocks.0.attn.to_out.0", "single_transformer_blocks.1.attn.to_v", "x_embedder",
              "norm_out.linear", "proj_out", "time_text_embed.text_embedder.linear_1"]:
        a, b = halves(model, [n], 2, 1, .3)
        files["onetrainer"] |= onetrainer(n, a, b)
    # ai-toolkit writes the names of diffusers, also for what is outside the blocks.
    files["aitoolkit"] = {}
    for n, m in model.named_modules():
        if isinstance(m, torch.nn.Linear) and ("blocks.1" in n or "blocks" not in n):
            a, b = halves(model, [n], 2, 1, .2)
            files["aitoolkit"] |= {f"transformer.{n}.lora_A.weight": a, f"transformer.{n}.lora_B.weight": b}
    out = {"plain": forward(model, inputs)}
    for name, tensors in files.items():
        save(tensors, f"small-{name}.safetensors")
        model = FluxTransformer2DModel.from_pretrained(folder, torch_dtype=torch.float32)
        pipe = FluxPipeline(FlowMatchEulerDiscreteScheduler(), None, None, None, None, None, model)
        pipe.load_lora_weights(OUT, weight_name=f"small-{name}.safetensors")
        n = sum(isinstance(m, peft.tuners.lora.LoraLayer) for m in model.modules())
        out[name] = forward(model, inputs)
        print(name, n, "layers, changes the output by",
              ((out[name] - out["plain"]).abs().max() / out["plain"].abs().max()).item())
    save_file({"out." + k: v for k, v in out.items()}, os.path.join(OUT, "small.safetensors"),
              metadata={"versions": json.dumps(VERSIONS)})


def fused(parts, rank):
    """kohya's way to put modules with an A of their own on one fused layer."""
    a = torch.cat([x[0] for x in parts])
    b = torch.zeros(sum(x[1].shape[0] for x in parts), rank * len(parts), dtype=torch.bfloat16)
    row = 0
    for i, (_, up) in enumerate(parts):
        b[row:row + up.shape[0], i * rank:(i + 1) * rank] = up
        row += up.shape[0]
    return a, b


def whole(model):
    """Adapters on every block, as BFL, fal, OneTrainer and ai-toolkit make them by default."""
    blocks, ends = layers(model)
    down = {k: halves(model, v, 2, 1, .02 if "mod" in k else .08) for k, v in blocks.items()}
    outside = {k: halves(model, v, 2, 1, .02) for k, v in ends.items()}
    equal_ranks(outside)
    files = {"bfl": original(down | outside, "") | norms(model)}
    # fal's reader wants all of the blocks and this one.
    down["final_layer.linear"] = outside["final_layer.linear"]
    files["c-fal"] = original(down, "base_model.model.")
    files["c-aitoolkit"], files["onetrainer"] = {}, {}
    for k, (a, b) in down.items():
        names = (blocks | ends)[k]
        rows = [model.get_submodule(n).out_features for n in names]
        for n, part in zip(names, b.split(rows)):
            files["c-aitoolkit"] |= {f"transformer.{n}.lora_A.weight": a, f"transformer.{n}.lora_B.weight": part}
    # diffusers reads OneTrainer's attention and what is outside of the blocks; it mistakes the other names.
    for n, m in model.named_modules():
        if isinstance(m, torch.nn.Linear) and (".attn." in n or "blocks" not in n):
            a, b = halves(model, [n], 2, 1, .2 if ".attn." in n else .05)
            files["onetrainer"] |= onetrainer(n, a, b)
    return files


def emoji(folder):
    settings = dict(prompt="red apple", width=64, height=64, num_inference_steps=6, guidance_scale=3.5,
                    max_sequence_length=32)
    pipe = FluxPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    model = pipe.transformer
    fit_readers(model.config)
    rank = 2

    def picture():
        return torch.from_numpy(pipe(**settings, generator=torch.manual_seed(4), output_type="np").images[0])

    files = {"a-diffusers": {}, "a-kohya": {}, "a-comfy": {}, "a-xlabs": {}}
    chosen = {f"{b}.{i}.{k}": [f"{d}.{i}.{x}" for x in v]
              for b, d, t, blocks in [("double_blocks", "transformer_blocks", DOUBLE, [0, 2]),
                                      ("single_blocks", "single_transformer_blocks", SINGLE, [1])]
              for i in blocks for k, v in t.items() if "attn" in k or "linear" in k}
    xlabs = {"img_attn.qkv": "qkv_lora1", "txt_attn.qkv": "qkv_lora2", "img_attn.proj": "proj_lora1",
             "txt_attn.proj": "proj_lora2", "linear1": "qkv_lora", "linear2": "proj_lora"}
    for k, names in chosen.items():
        parts = [halves(model, [n], rank, 1, .25) for n in names]
        if k.endswith("linear1"):  # XLabs has no adapter on the MLP: nor has this one
            parts[3] = (parts[3][0], parts[3][1] * 0)
        for n, (a, b) in zip(names, parts):
            files["a-diffusers"] |= {f"transformer.{n}.lora_A.weight": a, f"transformer.{n}.lora_B.weight": b}
        a, b = fused(parts, rank) if len(parts) > 1 else parts[0]
        name = "lora_unet_" + k.replace(".", "_")
        files["a-kohya"] |= {name + ".lora_down.weight": a, name + ".lora_up.weight": b,
                             name + ".alpha": torch.tensor(float(a.shape[0]))}
        name = "diffusion_model." + k
        files["a-comfy"] |= {name + ".lora_down.weight": a, name + ".lora_up.weight": b}
        if k.endswith("linear1"):
            a, b = fused(parts[:3], rank)
        block, layer = k.split(".", 2)[:2], k.split(".", 2)[2]
        name = f"{block[0]}.{block[1]}.processor.{xlabs[layer]}"
        files["a-xlabs"] |= {name + ".down.weight": a, name + ".up.weight": b}
    files["b"] = {}
    for n in ["transformer_blocks.1.attn.to_v", "transformer_blocks.1.ff.net.2", "proj_out",
              "single_transformer_blocks.5.proj_mlp", "single_transformer_blocks.2.norm.linear"]:
        a, b = halves(model, [n], 4, 1, .3)
        files["b"] |= {f"transformer.{n}.lora_A.weight": a, f"transformer.{n}.lora_B.weight": b,
                       f"transformer.{n}.alpha": torch.tensor(6.)}
    files |= whole(model)
    plain, out = picture(), {}
    for name, tensors in files.items():
        save(tensors, f"emoji-{name}.safetensors")
        pipe.load_lora_weights(OUT, weight_name=f"emoji-{name}.safetensors", adapter_name=name)
        pipe.set_adapters([name])
        out[name] = picture()
        print(name, "differs from the plain picture by", (out[name] - plain).abs().mean().item(),
              "from a by", (out[name] - out["a-diffusers"]).abs().max().item())
        first = out[next(k for k in files if k.split("-")[0] == name.split("-")[0])]
        assert (out[name] - first).abs().max() < 1e-3, name
    pipe.set_adapters(["a-diffusers", "b"], [0.8, 0.4])
    out["ab"] = picture()
    images = {"plain": plain, "a": out["a-diffusers"], "ab": out["ab"], "c": out["c-fal"], "bfl": out["bfl"],
              "onetrainer": out["onetrainer"]}
    save_file({k: (v * 255).round().to(torch.uint8).contiguous() for k, v in images.items()},
              os.path.join(OUT, "emoji.safetensors"),
              metadata={"versions": json.dumps(VERSIONS), "settings": json.dumps(settings | {"seed": 4})})


torch.manual_seed(29)
os.makedirs(OUT, exist_ok=True)
small()
emoji(sys.argv[1])
for file in os.scandir(OUT):
    os.chmod(file.path, 0o644)
