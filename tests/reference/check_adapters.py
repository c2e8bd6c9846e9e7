#!/usr/bin/env python3
# tests/reference/check_adapters.py: diffusers loads the adapters that ours writes, as they are.
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# check_adapters.py BUILD_DIR > check_adapters.out. Exit status 1 when something is lost or differs.
# For each adapter: FluxPipeline.load_lora_weights() on the file, then every parameter, the scale
# of every layer, and a forward of the transformer beside ours. For those under the original model's names:
# the forward, with diffusers' reader (which holds the sizes of FLUX.1-dev) made to fit the model.
import inspect
import pathlib
import subprocess
import sys
import tempfile
import warnings

warnings.filterwarnings("ignore")
import diffusers  # noqa: E402
import peft  # noqa: E402
import torch  # noqa: E402
from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel  # noqa: E402
from diffusers.loaders import lora_conversion_utils, lora_pipeline  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

READER = "_convert_kohya_flux_lora_to_diffusers"
source, space = inspect.getsource(getattr(lora_conversion_utils, READER)), {}
exec(source.replace("[3072, 3072, 3072, 12288]", "[64, 64, 64, 256]").replace("range(19)", "range(1)")
     .replace("range(38)", "range(2)"), vars(lora_conversion_utils), space)
setattr(lora_pipeline, READER, space[READER])

CASES = [("attention", 4, 4), ("attention", 4, 9.5), ("attention-all", 3, 6), ("all-linear", 2, 1),
         ("transformer_blocks.0.attn.to_k,proj_out", 2, 2)]
build = pathlib.Path(sys.argv[1])
model_dir = pathlib.Path(__file__).parent.parent / "data" / "transformer-small"
program = build / "tests" / "flux" / "write-adapter"
subprocess.run(["ninja", "-C", build, "tests/flux/write-adapter"], check=True,
               stdout=subprocess.DEVNULL)
print(f"diffusers {diffusers.__version__}, peft {peft.__version__}, torch {torch.__version__}")
failed = False
for targets, rank, alpha, *layout in CASES + [c + (f,) for f in ("kohya", "comfy") for c in CASES]:
    with tempfile.TemporaryDirectory() as tmp:
        file = pathlib.Path(tmp, "pytorch_lora_weights.safetensors")
        subprocess.run([program, model_dir, targets, str(rank), str(alpha), file,
                        pathlib.Path(tmp, "out.safetensors"), *layout], check=True)
        ours, io = load_file(file), load_file(pathlib.Path(tmp, "out.safetensors"))
        transformer = FluxTransformer2DModel.from_pretrained(model_dir, torch_dtype=torch.float32)
        pipe = FluxPipeline(FlowMatchEulerDiscreteScheduler(), None, None, None, None, None,
                            transformer)
        pipe.load_lora_weights(tmp, adapter_name="ours")
    theirs = {"transformer." + k.replace(".ours.", "."): p
              for k, p in transformer.named_parameters() if "lora_" in k}
    differ = sum(k not in theirs or not torch.equal(v, theirs[k]) for k, v in ours.items())
    extra = len(set(theirs) - set(ours))
    scales = {m.scaling["ours"] for m in transformer.modules()
              if isinstance(m, peft.tuners.lora.LoraLayer)}
    ids = torch.zeros(4, 6, 3)
    ids[..., 1] += torch.arange(4)[:, None]
    ids[..., 2] += torch.arange(6)[None, :]
    with torch.no_grad():
        out = transformer(hidden_states=io["latents"], encoder_hidden_states=io["prompt_embeds"],
                          pooled_projections=io["pooled"], timestep=io["timestep"],
                          guidance=None, img_ids=ids.reshape(-1, 3),
                          txt_ids=torch.zeros(io["prompt_embeds"].shape[1], 3),
                          return_dict=False)[0]
    error = ((out - io["out"]).abs().max() / out.abs().max()).item()
    if layout:
        failed = failed or error > 2e-5
        print(f"{layout[0]}: {targets} rank {rank} alpha {alpha:g}: {len(ours)} tensors, forward "
              f"{'within' if error <= 2e-5 else 'BEYOND'} 2e-5")
        continue
    ok = differ == 0 and extra == 0 and scales == {alpha / rank} and error <= 2e-5
    failed = failed or not ok
    print(f"{targets} rank {rank} alpha {alpha:g}: {len(ours)} tensors, {differ} differ, "
          f"{extra} that are not ours, scale {'as asked' if scales == {alpha / rank} else scales}, "
          f"forward {'within' if error <= 2e-5 else 'BEYOND'} 2e-5")
sys.exit(failed)
