# tests/reference/check_page.py: the page of report-to=http in a headless Chromium, while the tiny model trains:
# what it shows is what the JSONL says, its buttons do what they say, and how it looks.
# check_page.py BUILD_DIR SCREENSHOT_DIR (needs chromium, and websockets of PyPI); its output is check_page.out.
# SPDX-License-Identifier: LGPL-2.1-or-later
import base64, glob, itertools, json, os, re, shutil, signal, subprocess, sys, tempfile, time, urllib.request

from websockets.sync.client import connect

build, shots = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
top = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
model, work = top + "/examples/models/tiny-flux-emoji", tempfile.mkdtemp()


def wait(what, of, seconds=240):
    end = time.time() + seconds
    while time.time() < end:
        value = of()
        if value:
            return value
        time.sleep(0.1)
    sys.exit("waited too long for " + what)


class Page:
    """Chromium by its DevTools protocol."""

    def __init__(self, url):
        self.chromium = subprocess.Popen(
            ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0",
             "--user-data-dir=" + work + "/chromium", "about:blank"], stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True)
        port = next(m for m in (re.search(r"ws://127.0.0.1:(\d+)/", line) for line in self.chromium.stderr) if m)[1]
        tabs = json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/json"))
        self.socket = connect(next(t for t in tabs if t["type"] == "page")["webSocketDebuggerUrl"], max_size=None)
        self.ids, self.said, self.urls = itertools.count(1), [], set()
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(domain + ".enable")
        self.call("Page.navigate", url=url)

    def call(self, method, **params):
        n = next(self.ids)
        self.socket.send(json.dumps({"id": n, "method": method, "params": params}))
        while True:
            m = json.loads(self.socket.recv())
            if m.get("method") == "Network.requestWillBeSent":
                self.urls.add(m["params"]["request"]["url"])
            elif m.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown"):
                self.said.append(json.dumps(m["params"]))
            if m.get("id") == n:
                return m["result"]

    def js(self, text):
        return self.call("Runtime.evaluate", expression=text, awaitPromise=True)["result"].get("value")

    def text(self, name):
        return self.js(f"document.getElementById('{name}').textContent")

    def click(self, name):
        """With the mouse, where the element is."""
        self.js(f"document.getElementById('{name}').scrollIntoView({{block: 'center'}})")
        x, y = self.js(f"(r => [r.x + r.width / 2, r.y + r.height / 2].join())(document.getElementById('{name}')"
                       ".getBoundingClientRect())").split(",")
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=float(x), y=float(y), button="left", clickCount=1)

    def shot(self, name, width, height, scale, scheme, whole):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale,
                  mobile=width < 500)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.js("window.scrollTo(0, 0)")
        time.sleep(1.5)
        wide = self.js("document.documentElement.scrollWidth")
        png = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole,
                        **({"clip": {"x": 0, "y": 0, "width": width, "scale": 1, "height":
                                     self.js("document.documentElement.scrollHeight")}} if whole else {}))["data"]
        open(f"{shots}/{name}.png", "wb").write(base64.b64decode(png))
        print(f"{name}: {width}x{height} {scheme}, nothing beyond its width:", wide <= width)


shutil.copytree(top + "/examples/data/style-openmoji", work + "/data")
with open(work + "/page.launch", "w") as f:
    f.write(f"""fluxdatasetsrc location={work}/data ! fluximagedec ! fluximagecrop width=64 height=64
! fluxvaeenc model={model} ! fluxembed text-model={model} max-sequence-length=32
! fluxtrainsink name=train model={model} location={work}/openmoji.safetensors max-steps=100000
learning-rate=1e-3 lr-scheduler=cosine checkpoint-interval=0 meter-triples=40
report-to=jsonl+http http-port=0 report-dir={work}/reports
fluxsamplersrc model={model} every-steps=25 steps=8 max-sequence-length=32 seed=7
prompt="red apple, openmoji style" ! video/x-raw,width=128,height=128 ! queue ! fakesink sync=false""")
env = {**os.environ, "GST_PLUGIN_PATH": build + "/elements", "GST_REGISTRY": work + "/registry.bin"}
train = subprocess.Popen([build + "/pipelines/gst-flux", work + "/page.launch", "max-steps=" + os.environ.get(
    "FLUX_STEPS", "400")], env=env, stderr=subprocess.PIPE, text=True)
url = next(m for m in (re.search(r"Follow it at (\S+)", line) for line in train.stderr) if m)[1]
os.set_blocking(train.stderr.fileno(), False)


def last_step():
    lines = [json.loads(x) for x in open(glob.glob(work + "/reports/*.jsonl")[0]).read().splitlines()]
    return [x for x in lines if "loss" in x][-1]


page = Page(url)
wait("the first steps", lambda: (page.text("steps") or "").startswith("step "))
wait("pictures", lambda: page.js("document.querySelectorAll('#gallery img').length") >= 6)

page.click("pause")
wait("the pause", lambda: page.text("state") == "paused")
before = last_step()
time.sleep(3)
after = last_step()
print("paused: the step does not move:", before["step"] == after["step"])
shown = {k: page.text(k) for k in ("steps", "loss", "rate", "memory", "left", "paired", "pause")}
print("step shown is the JSONL's last:", shown["steps"].split()[1] == str(after["step"]))
print("loss shown is the JSONL's last:", shown["loss"] == f"{after['loss']:.4f}")
print("memory, time left, paired loss shown:", shown["memory"] != "–", shown["left"] != "–", shown["paired"] != "–")
print("the button says:", shown["pause"])
size = page.js("[...document.querySelectorAll('#gallery img')].every(i => i.complete && i.naturalWidth == 128)")
print("all pictures are loaded, 128 wide:", size)
print("no checkpoint yet:", glob.glob(work + "/openmoji-checkpoints/*") == [])
page.click("save")
folder = f"{work}/openmoji-checkpoints/checkpoint-{after['step']}"
print("save, while paused: a checkpoint of this step:", bool(wait("the checkpoint", lambda: os.path.isdir(folder))))
wait("the note", lambda: page.text("note") == f"saved at step {after['step']}")
page.click("pause")
wait("steps after the pause", lambda: last_step()["step"] > after["step"])
print("resumed: the step moves: True")
step = last_step()["step"]
wait("some steps more", lambda: last_step()["step"] > step + 40)
page.shot("page-desktop", 1280, 800, 1, "light", True)
page.shot("page-phone", 390, 844, 2, "dark", False)
page.call("Emulation.clearDeviceMetricsOverride")
page.click("stop")
print("stop, once: asks:", page.text("stop"), "- and the training runs on:", train.poll() is None)
page.click("stop")
print("stop, twice: gst-flux ends with", train.wait(120), "before its last step:", last_step()["step"] < 400)
print("the LoRA is there:", os.path.getsize(work + "/openmoji.safetensors") > 0)
wait("the end on the page", lambda: page.text("state") == "ended")
print("then the page says:", page.text("note"))
refused = [s for s in page.said if "ERR_CONNECTION_REFUSED" not in s and "ERR_EMPTY_RESPONSE" not in s
           and "ERR_CONNECTION_RESET" not in s]
print("requests to others:", sum(not u.startswith((url, "data:", "about:", "chrome")) for u in page.urls))
print("errors in the console while it ran:", refused)
page.chromium.send_signal(signal.SIGTERM)
page.chromium.wait()
shutil.rmtree(work, ignore_errors=True)
