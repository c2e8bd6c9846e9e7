#!/usr/bin/env python3
# tests/reference/check_fused.py MODEL_DIR A.safetensors B.safetensors OUT_DIR
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Folders that fluxlorafuse and fluxquantize made, beside what diffusers, peft and bitsandbytes make of the
same files: the fused weights, the quantised tensors byte by byte, and pictures drawn from the folders.

GST_PLUGIN_PATH has to name the plugin. The output for examples/models/tiny-flux-emoji and
tests/data/adapters/emoji-a-diffusers.safetensors and emoji-b.safetensors stands in check_fused.out.
diffusers asks for a GPU before it opens quantised folders, which bitsandbytes does not need; the question is
answered with yes here.
"""
import json
import math
import os
import subprocess
import sys

import numpy
import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit
from diffusers import BitsAndBytesConfig, FluxPipeline, FluxTransformer2DModel
from diffusers.quantizers.bitsandbytes import bnb_quantizer
from PIL import Image
from safetensors.torch import load_file

model, lora_a, lora_b, out = sys.argv[1:5]
os.makedirs(out)
FILE = "diffusion_pytorch_model.safetensors"
PROMPT, SEED = "red apple, openmoji style", 7
LORAS = f"loras={lora_a}:0.8,{lora_b}:0.4"
for kind in (bnb_quantizer.BnB4BitDiffusersQuantizer, bnb_quantizer.BnB8BitDiffusersQuantizer):
    kind.validate_environment = lambda self, *args, **kwargs: None
    kind.update_device_map = lambda self, device_map: device_map or {"": "cpu"}


def launch(source, name, *filters):
    subprocess.run(["gst-launch-1.0", "-q", "-e", "fluxmodelsrc", f"location={source}", "!",
                    *" ! ".join(filters).split(" "), "!", "fluxmodelsink", f"location={out}/{name}",
                    "parts=link"], check=True, stdout=subprocess.DEVNULL)
    return f"{out}/{name}"


def draw_ours(folder):
    path = f"{out}/picture.png"
    subprocess.run(["gst-launch-1.0", "-q", "fluxsamplersrc", f"model={folder}", "quantization=none",
                    "text-quantization=none", f"prompt={PROMPT}", f"seed={SEED}", "max-sequence-length=32",
                    "num-buffers=1", "!", "video/x-raw,width=128,height=128", "!", "pngenc", "!",
                    "filesink", f"location={path}"], check=True, stdout=subprocess.DEVNULL)
    return numpy.asarray(Image.open(path).convert("RGB"))


def expand(layer):
    """Lets a 4-bit layer calculate with the weights that bitsandbytes expands for a GPU, in fp32."""
    weight = dequantize_4bit(layer.weight.data, layer.weight.quant_state).float()
    layer.forward = lambda x: torch.nn.functional.linear(x, weight, layer.bias)


def pipeline(folder, expanded=False):
    """Everything in fp32 that is not quantised."""
    pipe = FluxPipeline.from_pretrained(folder, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    for part in (pipe.vae, pipe.text_encoder, pipe.text_encoder_2):
        part.to(torch.float32)
    for parameter in pipe.transformer.parameters():
        if parameter.dtype == torch.bfloat16:
            parameter.data = parameter.data.float()
    for module in pipe.transformer.modules():
        if expanded and isinstance(module, Linear4bit):
            expand(module)
    return pipe


def draw_theirs(pipe):
    image = pipe(PROMPT, width=128, height=128, num_inference_steps=28, guidance_scale=3.5,
                 max_sequence_length=32, generator=torch.manual_seed(SEED), output_type="np").images[0]
    return numpy.round(image * 255).astype(numpy.uint8)


def psnr(a, b):
    mse = ((a.astype(float) - b.astype(float)) ** 2).mean()
    return math.inf if mse == 0 else 10 * math.log10(255 ** 2 / mse)


def tensors(folder):
    return load_file(f"{folder}/transformer/{FILE}")


plain = launch(model, "plain", "application/x-flux-weights,layout=plain")
fused32 = launch(model, "fused-fp32", "fluxquantize type=fp32", f"fluxlorafuse {LORAS}")
fused = launch(model, "fused", f"fluxlorafuse {LORAS}")

# Fused weights.
pipe = pipeline(plain)
pipe.transformer.to(torch.float32)
pipe.load_lora_weights(lora_a, adapter_name="a")
pipe.load_lora_weights(lora_b, adapter_name="b")
pipe.set_adapters(["a", "b"], [0.8, 0.4])
beside = draw_theirs(pipe)
pipe.fuse_lora(adapter_names=["a", "b"])
pipe.unload_lora_weights()
theirs, ours, before = pipe.transformer.state_dict(), tensors(fused32), tensors(plain)
error = max(((theirs[n] - t).abs().max() / theirs[n].abs().max()).item() for n, t in ours.items())
changed = sum(not torch.equal(t, before[n].float()) for n, t in ours.items())
print(f"fused weights: {len(ours)}, {changed} changed; largest relative difference from peft's {error:.1e}")
print(f"picture of the fused fp32 folder against diffusers with the adapters beside: "
      f"{psnr(draw_ours(fused32), beside):.1f} dB")

# Quantised folders.
for name, options in (("nf4", dict(load_in_4bit=True, bnb_4bit_quant_type="nf4",
                                   bnb_4bit_compute_dtype=torch.bfloat16)),
                      ("nf4-double", dict(load_in_4bit=True, bnb_4bit_quant_type="nf4",
                                          bnb_4bit_use_double_quant=True,
                                          bnb_4bit_compute_dtype=torch.bfloat16)),
                      ("int8", dict(load_in_8bit=True))):
    ours = launch(fused, name, f"fluxquantize type={name}")
    FluxTransformer2DModel.from_pretrained(
        f"{fused}/transformer", quantization_config=BitsAndBytesConfig(**options),
        torch_dtype=torch.bfloat16).save_pretrained(f"{out}/theirs-{name}")
    a, b = tensors(ours), load_file(f"{out}/theirs-{name}/{FILE}")
    same = sum(n in b and b[n].dtype == t.dtype and b[n].shape == t.shape and torch.equal(t, b[n])
               for n, t in a.items())
    values = sum(t.numel() for t in a.values())
    other = sum((t != b[n]).sum().item() for n, t in a.items() if b[n].shape == t.shape)
    configs = [json.load(open(p))["quantization_config"]
               for p in (f"{ours}/transformer/config.json", f"{out}/theirs-{name}/config.json")]
    print(f"{name}: {len(a)} tensors, bitsandbytes' {len(b)}, names {'' if a.keys() == b.keys() else 'not '}"
          f"equal; {same} tensors byte for byte, {other} of {values} values differ; quantization_config "
          f"{'equal' if configs[0] == configs[1] else 'differs'}")
    mine = draw_ours(ours)
    if name == "int8":  # its matrix products are those of a GPU, and round activations
        pipe = FluxTransformer2DModel.from_pretrained(f"{ours}/transformer")
        print(f"{name}: diffusers opens it, {type(pipe.x_embedder).__name__}")
    else:
        print(f"{name}: picture, ours against diffusers from the same folder: with its weights expanded "
              f"{psnr(mine, draw_theirs(pipeline(ours, True))):.1f} dB, with bitsandbytes' kernels for the CPU "
              f"(in bfloat16) {psnr(mine, draw_theirs(pipeline(ours))):.1f} dB")
fp8 = launch(fused, "fp8", "fluxquantize type=fp8")
print(f"fp8: picture, ours against diffusers from the same folder: "
      f"{psnr(draw_ours(fp8), draw_theirs(pipeline(fp8))):.1f} dB")
