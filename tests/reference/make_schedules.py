#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Writes tests/data/schedules.safetensors with diffusers: learning-rate factors of
get_scheduler(), timestep densities with the draws they were made of, loss weights, and the
sigmas of FlowMatchEulerDiscreteScheduler as FluxPipeline asks for them.

    python3 tests/reference/make_schedules.py
"""
import json
import math
import os

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.optimization import get_scheduler
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from diffusers.training_utils import (compute_density_for_timestep_sampling,
                                      compute_loss_weighting_for_sd3)
from safetensors.torch import save_file

out, meta = {}, {}
LR = 2.5e-4
meta["lr"] = str(LR)
for kind in ("constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts",
             "polynomial"):
    for warmup, total, cycles, power in ((0, 20, 1, 1.0), (5, 23, 3, 2.0), (7, 7, 1, 1.0)):
        if kind == "polynomial" and warmup == total:
            continue  # diffusers divides by zero there
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=LR)
        schedule = get_scheduler(kind, optimizer, num_warmup_steps=warmup,
                                 num_training_steps=total, num_cycles=cycles, power=power)
        factors = []
        for _ in range(total + 4):
            factors.append(schedule.get_last_lr()[0] / LR)
            optimizer.step()
            schedule.step()
        out[f"lr.{kind}.{warmup}.{total}.{cycles}.{power:g}"] = torch.tensor(
            factors, dtype=torch.float64)

MEAN, STD, MODE = 0.25, 1.5, 1.29
meta["density"] = json.dumps({"logit_mean": MEAN, "logit_std": STD, "mode_scale": MODE})
for scheme in ("none", "logit_normal", "mode", "sigma_sqrt", "cosmap"):
    torch.manual_seed(3)
    draws = torch.randn(64) if scheme == "logit_normal" else torch.rand(64)
    torch.manual_seed(3)
    out[f"draws.{scheme}"] = draws
    out[f"density.{scheme}"] = compute_density_for_timestep_sampling(
        scheme, 64, logit_mean=MEAN, logit_std=STD, mode_scale=MODE)
    sigmas = torch.linspace(0.02, 0.98, 25)
    out["weighting.sigmas"] = sigmas
    out[f"weighting.{scheme}"] = compute_loss_weighting_for_sd3(scheme, sigmas)

for dynamic in (True, False):
    for tokens, steps in ((64, 1), (1536, 28), (4096, 50), (100, 7)):
        s = FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=dynamic)
        s.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=calculate_shift(tokens))
        name = f"sched.{int(dynamic)}.{tokens}.{steps}"
        out[name + ".sigmas"], out[name + ".timesteps"] = s.sigmas, s.timesteps

path = os.path.join(os.path.dirname(__file__), "..", "data", "schedules.safetensors")
save_file(out, path, metadata=meta)
print(f"{os.path.normpath(path)}: {len(out)} tensors")
