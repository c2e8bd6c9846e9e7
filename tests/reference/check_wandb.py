# tests/reference/check_wandb.py: wandb's own DataStore (where the version has one, as 0.19.11) and its
# `wandb sync` on the run that flux/report writes; sync talks to a server on loopback that takes what
# it is sent. check_wandb.py BUILD_DIR (tests/flux/write-report is built there); check_wandb.out is its
# output with wandb 0.19.11 and then with 0.31.0. SPDX-License-Identifier: LGPL-2.1-or-later
import gzip, http.server, io, json, os, subprocess, sys, tempfile, threading

import wandb
from PIL import Image
from wandb.proto import wandb_internal_pb2 as pb


class Server(http.server.BaseHTTPRequestHandler):
    """Of GraphQL what sync asks for, file streams and uploads."""

    protocol_version = "HTTP/1.1"
    runs, history, files, summary, exit = [], [], {}, {}, []

    def log_message(self, *a):
        pass

    def body(self):
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(data) if self.headers.get("Content-Encoding") == "gzip" else data

    def reply(self, o):
        data = json.dumps(o).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        self.reply({})

    def do_PUT(self):
        self.files[self.path[len("/up/"):]] = self.body()
        self.reply({})

    def graphql(self, query, v):
        if "upsertBucket" in query:
            self.runs.append(v)
            project = {"id": "p", "name": v.get("project"), "entity": {"id": "e", "name": "me"}}
            return {"upsertBucket": {"inserted": True, "bucket": {
                "id": "b", "name": v.get("name"), "displayName": v.get("displayName"), "description": "",
                "config": "{}", "sweepName": None, "historyLineCount": 0, "project": project}}}
        if "createRunFiles" in query or "CreateRunFiles" in query:
            return {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": [
                {"name": f, "uploadUrl": f"http://127.0.0.1:{port}/up/{f}"} for f in v["files"]]}}
        if "viewer" in query:
            return {"viewer": {"id": "u", "entity": "me", "username": "me", "flags": "{}", "teams": {"edges": []}},
                    "serverInfo": {"cliVersionInfo": {"max_cli_version": "9"}, "latestLocalVersionInfo": None}}
        return {"model": None}

    def do_POST(self):
        data = self.body()
        if self.path.startswith("/graphql"):
            q = json.loads(data)
            return self.reply({"data": self.graphql(q["query"], q.get("variables") or {})})
        if self.path.endswith("/file_stream"):
            o = json.loads(data)
            for name, chunk in (o.get("files") or {}).items():
                if name == "wandb-history.jsonl":
                    self.history += [json.loads(line) for line in chunk["content"]]
                if name == "wandb-summary.json":
                    self.summary.update(json.loads(chunk["content"][-1]))
            if o.get("complete"):
                self.exit.append(o.get("exitcode"))
        self.reply({"exitcode": None, "limits": {}})


def write_run(*steps):
    folder = tempfile.mkdtemp()
    return subprocess.run([f"{sys.argv[1]}/tests/flux/write-report", folder, *steps], check=True,
                          capture_output=True, text=True).stdout.split("\n")[2]


def record_file(run):
    return f"{run}/run-{run.split('-')[-1]}.wandb"


def scan(path):
    """Records of a file, and what ends it."""
    wandb._set_internal_process(disable=True)
    from wandb.sdk.internal.datastore import DataStore
    ds = DataStore()
    records = []
    try:
        ds.open_for_scan(path)
        while (data := ds.scan_data()) is not None:
            record = pb.Record()
            record.ParseFromString(data)
            records.append(record)
    except AssertionError as e:
        assert ds.in_last_block()  # what sync takes for a run that goes on
        return records, str(e)[:21]
    return records, None


def read(run):
    records, _ = scan(record_file(run))
    print("records", [r.WhichOneof("record_type") for r in records])
    long = record_file(write_run("300"))
    whole = open(long, "rb").read()
    records, end = scan(long)
    rows = [r for r in records if r.WhichOneof("record_type") == "history"]
    print("300 steps:", len(rows), "rows in", -(-len(whole) // 32768), "blocks, end", end)
    for length in range(7, len(whole), 997):  # as a kill or a full disk might leave it
        open(long, "wb").write(whole[:length])
        prefix, end = scan(long)
        assert prefix == records[:len(prefix)]
    print("cut anywhere: the records before the cut")


def show_row(row):
    row = {k: dict(sorted(v.items())) if isinstance(v, dict) else v for k, v in row.items()}
    return {k: v for k, v in sorted(row.items()) if k.startswith(("train/", "_step", "samples/", "memory/"))}


def clean(text, run):
    return str(text).replace(run.split("-")[-1], "ID")


print("wandb", wandb.__version__)
run = write_run()
files = sorted(os.path.relpath(os.path.join(d, f), run) for d, _, fs in os.walk(run) for f in fs)
print("files", clean(files, run))
if os.path.exists(os.path.dirname(wandb.__file__) + "/sdk/internal/datastore.py"):
    read(run)
http.server.ThreadingHTTPServer.handle_error = lambda *a: None  # a client that hangs up
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
port = server.server_port
threading.Thread(target=server.serve_forever, daemon=True).start()
env = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_")}
env.update(HOME=tempfile.mkdtemp(), WANDB_BASE_URL=f"http://127.0.0.1:{port}", WANDB_API_KEY="a" * 40)
done = subprocess.run([sys.executable, "-m", "wandb", "sync", run], env=env, cwd=os.path.dirname(run), text=True,
                      stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=100)
if done.returncode or "-v" in sys.argv:
    print(done.stdout)
print("wandb sync: exit", done.returncode, "marked as synced:", os.path.exists(record_file(run) + ".synced"))
first = Server.runs[0]
config = json.loads(first["config"])
print("run", {k: clean(first.get(k), run) for k in ("name", "project", "groupName", "displayName")},
      {k: v["value"] for k, v in sorted(config.items()) if k != "_wandb"})
metrics = json.loads(Server.runs[-1]["config"]).get("_wandb", {}).get("value", {}).get("m")
print("metrics", json.dumps(metrics, sort_keys=True))
for row in Server.history:
    print(" ", show_row(row))
print("exit code", Server.exit)
for name in sorted(Server.files):
    if name.endswith(".png"):
        im = Image.open(io.BytesIO(Server.files[name]))
        same = im.tobytes() == bytes(i * 5 % 256 for i in range(8 * 16 * 3))
        print(" ", name, im.size, "same pixels:", same)
    elif name == "wandb-summary.json":
        print(" ", name, show_row(json.loads(Server.files[name])))
    else:
        print(" ", name)
