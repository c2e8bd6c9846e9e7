#!/usr/bin/env python3
# tests/reference/check_lora.py MODEL_DIR LORA PICTURE PROMPT SEED
# SPDX-License-Identifier: LGPL-2.1-or-later
"""diffusers loads a LoRA that fluxtrainsink wrote, and draws the picture fluxsamplersrc drew with it.

Made as follows (the output for "red apple, openmoji style" and 7 stands in check_lora.out):
  examples/quickstart out
  gst-launch-1.0 fluxsamplersrc model=MODEL_DIR quantization=none text-quantization=none \
      loras=out/openmoji.safetensors prompt=PROMPT seed=SEED max-sequence-length=32 num-buffers=1 \
      ! video/x-raw,width=128,height=128 ! pngenc ! filesink location=PICTURE
"""
import math
import sys

import numpy
import torch
from diffusers import FluxPipeline
from PIL import Image
from safetensors.torch import load_file

model, lora, picture, prompt, seed = sys.argv[1:6]
pipe = FluxPipeline.from_pretrained(model, dtype=torch.float32)
pipe.set_progress_bar_config(disable=True)
for part in (pipe.transformer, pipe.vae, pipe.text_encoder, pipe.text_encoder_2):
    part.to(torch.float32)


def draw():
    image = pipe(prompt, width=128, height=128, num_inference_steps=28, guidance_scale=3.5,
                 max_sequence_length=32, generator=torch.manual_seed(int(seed)),
                 output_type="np").images[0]
    return numpy.round(image * 255).astype(numpy.uint8)


def psnr(a, b):
    mse = ((a.astype(float) - b.astype(float)) ** 2).mean()
    return math.inf if mse == 0 else 10 * math.log10(255 ** 2 / mse)


ours = numpy.asarray(Image.open(picture).convert("RGB"))
without = draw()
pipe.load_lora_weights(lora, adapter_name="ours")
tensors = load_file(lora)
loaded = {n: p for n, p in pipe.transformer.named_parameters() if "lora_" in n}
same = sum(torch.equal(p.detach().float(),
                       tensors["transformer." + n.replace(".ours.weight", ".weight")].float())
           for n, p in loaded.items())
print(f"tensors in the file: {len(tensors)}; in the pipeline: {len(loaded)}; equal: {same}")
print(f"rank {pipe.transformer.peft_config['ours'].r}, "
      f"alpha {pipe.transformer.peft_config['ours'].lora_alpha}")
print(f"picture with the LoRA, ours against diffusers': {psnr(ours, draw()):.1f} dB")
print(f"picture with the LoRA, ours against diffusers' without it: {psnr(ours, without):.1f} dB")
