# tests/reference/check_hub.py: huggingface_hub against the tests' Hub (tests/hub), and in the
# cache that gst-flux filled. check_hub.py BUILD_DIR; its output is check_hub.out.
# SPDX-License-Identifier: LGPL-2.1-or-later
import os, subprocess, sys, tempfile

build = sys.argv[1]
server = subprocess.Popen([f"{build}/tests/flux/hub-serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
endpoint = server.stdout.readline().strip()
home = tempfile.mkdtemp()
os.environ.update(HF_ENDPOINT=endpoint, HF_HOME=home, HF_TOKEN="hf_secret", HF_HUB_DISABLE_XET="1",
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
server.stdin.close()
log = server.stdout.read()
print("requests for weights at the CDN by Python and by us:", log.count("cdn GET"))
