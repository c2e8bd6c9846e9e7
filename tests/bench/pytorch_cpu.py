#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The yardstick of tests/bench/cpu: diffusers + peft on the CPU in fp32, unquantised.

    python3 tests/bench/pytorch_cpu.py MODEL_DIR THREADS RECOMPUTE

Prints one line a measurement, "NAME SECONDS": `recompute` or `stored`, the seconds of one
micro-step (forward and backward of batch 1 through a rank-4 attention LoRA, AdamW each
fourth), and `forward`, those of one sampling step (the transformer's forward). Each is the
best of three rounds after a warm-up, of 8 micro-steps or 16 forwards.
"""
import sys
import time
import warnings

warnings.filterwarnings("ignore")
import torch  # noqa: E402
from diffusers import FluxTransformer2DModel  # noqa: E402
from peft import LoraConfig  # noqa: E402

model_dir, threads, recompute = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "1"
SIDE, TEXT, ACCUMULATE, ROUNDS, MICRO, FORWARDS = 16, 32, 4, 3, 8, 16
torch.set_num_threads(threads)
torch.manual_seed(0)
model = FluxTransformer2DModel.from_pretrained(model_dir, subfolder="transformer",
                                               torch_dtype=torch.float32)
model.requires_grad_(False)
c = model.config
tokens = SIDE // 2 * SIDE // 2
ids = torch.zeros(SIDE // 2, SIDE // 2, 3)
ids[..., 1] += torch.arange(SIDE // 2)[:, None]
ids[..., 2] += torch.arange(SIDE // 2)[None, :]
inputs = dict(hidden_states=torch.randn(1, tokens, c.in_channels),
              encoder_hidden_states=torch.randn(1, TEXT, c.joint_attention_dim),
              pooled_projections=torch.randn(1, c.pooled_projection_dim),
              timestep=torch.tensor([0.5]), guidance=torch.tensor([1.0]),
              img_ids=ids.reshape(-1, 3), txt_ids=torch.zeros(TEXT, 3), return_dict=False)
target = torch.randn(1, tokens, c.in_channels)


def best(work, count):
    work()
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        work()
        times.append((time.perf_counter() - start) / count)
    return min(times)


def forwards():
    with torch.no_grad():
        for _ in range(FORWARDS):
            model(**inputs)


print("forward", best(forwards, FORWARDS), flush=True)

model.add_adapter(LoraConfig(r=4, lora_alpha=4, init_lora_weights="gaussian",
                             target_modules=["to_k", "to_q", "to_v", "to_out.0"]))
if recompute:
    model.enable_gradient_checkpointing()
model.train()
trained = [p for p in model.parameters() if p.requires_grad]
optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=1e-4)


def micro_steps():
    for i in range(MICRO):
        out = model(**inputs)[0]
        loss = ((out.float() - target) ** 2).mean() / ACCUMULATE
        loss.backward()
        if (i + 1) % ACCUMULATE == 0:
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            optimizer.zero_grad()


print("recompute" if recompute else "stored", best(micro_steps, MICRO), flush=True)
