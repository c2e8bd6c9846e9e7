# tests/reference/check_hub.py: huggingface_hub against the tests' Hub (tests/hub), and in the
# cache that gst-flux filled. check_hub.py BUILD_DIR; its output is check_hub.out.
# SPDX-License-Identifier: LGPL-2.1-or-later
import os, subprocess, sys, tempfile

build = sys.argv[1]
server = subprocess.Popen([f"{build}/tests/flux/hub-serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
endpoint = server.stdout.readline().strip()
home = tempfile.mkdtemp()
os.environ.update(HF_ENDPOINT=endpoint, HF_HOME=home, HF_TOKEN="hf_planted_secret", HF_HUB_DISABLE_XET="1",
                  HF_HUB_DISABLE_PROGRESS_BARS="1", HF_HUB_DISABLE_TELEMETRY="1")
import huggingface_hub as hub

print("huggingface_hub", hub.__version__)
name = "vae/diffusion_pytorch_model.safetensors"
path = hub.hf_hub_download("tests/tiny", name, cache_dir=home + "/python")
print("it downloads from this server:", os.path.getsize(path) == 20 << 20)
files = sorted(f.path for f in hub.HfApi().list_repo_tree("tests/tiny", recursive=True) if hasattr(f, "size"))
print("it lists:", files)
out = subprocess.run([f"{build}/pipelines/gst-flux", "pull", "vae", "hf://tests/tiny"], capture_output=True, text=True)
ours = out.stdout.strip()
print("gst-flux pulled into", os.path.relpath(ours, home))
blob = os.path.realpath(ours + "/" + name)
before = os.stat(blob).st_mtime_ns
print("local_files_only finds it:", hub.hf_hub_download("tests/tiny", name, local_files_only=True) == ours + "/" + name)
print("online it is the same file:", hub.hf_hub_download("tests/tiny", name) == ours + "/" + name
      and os.stat(blob).st_mtime_ns == before)
repo = next(iter(hub.scan_cache_dir(home + "/hub").repos))
print("scan_cache_dir:", repo.repo_id, repo.repo_type, repo.nb_files, "files,", len(hub.scan_cache_dir(home + "/hub").warnings), "warnings")
python_blob = os.path.basename(os.path.realpath(path))
print("both name the blob alike:", python_blob == os.path.basename(blob))

# ---- pushing: the same folder by both, into repositories of their own
folder = home + "/adapter"
os.makedirs(folder + "/samples")
with open(folder + "/pytorch_lora_weights.safetensors", "wb") as f:
    f.write(bytes(i * 7 % 251 for i in range(20_000_001)))
with open(folder + "/samples/fox.png", "wb") as f:
    f.write(bytes(5000))
with open(folder + "/README.md", "w") as f:
    f.write("---\ntags:\n- lora\n---\n# mucha\n")
open(folder + "/empty.txt", "w").close()
api = hub.HfApi()
api.create_repo("tests/python", private=True)
info = api.upload_folder(repo_id="tests/python", folder_path=folder)
print("it pushes to this server:", info.oid == api.model_info("tests/python").sha)
out = subprocess.run([f"{build}/pipelines/gst-flux", "push", folder, "tests/ours"], capture_output=True, text=True)
print("gst-flux pushes to", out.stdout.strip().removeprefix(endpoint), "and says no token:", "planted" not in out.stdout + out.stderr)
def tree(repo):
    return sorted((f.path, f.size, f.blob_id, f.lfs and f.lfs.sha256) for f in api.list_repo_tree(repo, recursive=True) if hasattr(f, "size"))
print("both repositories have:", [f[0] for f in tree("tests/ours")])
print("with the same content:", tree("tests/python") == tree("tests/ours"))
print("both are private:", api.model_info("tests/python").private, api.model_info("tests/ours").private)
path = hub.hf_hub_download("tests/ours", "pytorch_lora_weights.safetensors")
print("Python downloads what gst-flux pushed:", open(path, "rb").read() == open(folder + "/pytorch_lora_weights.safetensors", "rb").read())

# ---- the model card
import json
import huggingface_hub.repocard as repocard
with open(folder + "/steps.jsonl", "w") as f:
    for i in range(1, 101):
        f.write(json.dumps({"step": i, "loss": 0.5 + 0.3 / i}) + "\n")
os.remove(folder + "/README.md")
words = [f"{build}/pipelines/gst-flux", "push", folder, "tests/card", "base-model=black-forest-labs/FLUX.1-dev", "trigger-words=alphonse: \"mucha\" style"]
out = subprocess.run(words, capture_output=True, text=True)
print(out.stdout.strip().removeprefix(endpoint), out.stderr if out.returncode else "")
card = repocard.ModelCard.load(hub.hf_hub_download("tests/card", "README.md"))
print("the card's head, as huggingface_hub reads it:", json.dumps(card.data.to_dict(), sort_keys=True))
print(card.text.strip())
from PIL import Image
print("loss.png:", Image.open(hub.hf_hub_download("tests/card", "loss.png")).size)
server.stdin.close()
log = server.stdout.read()
print("requests for weights at the CDN by Python and by us:", log.count("cdn GET"))
def requests(repo):
    return sorted(set(line.split(" range")[0].replace(repo, "REPO") for line in log.splitlines() if line.split(" ")[1] == "POST" and repo in line))
print("requests with a body that Python makes:", requests("tests/python"))
print("and gst-flux:", requests("tests/ours"))
print("a token at the storage:", any("cdn" in line and "planted" in line for line in log.splitlines()))
