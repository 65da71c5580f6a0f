"""A real server, and what a client says to it: for scripts that are unkind to it. Python 3, nothing else."""

import atexit
import base64
import hashlib
import http.client
import os
import signal
import subprocess
import time

PASSWORD = "correct horse"
AUTH = "Basic " + base64.b64encode(f"admin:{PASSWORD}".encode()).decode()
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def digest_of(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Server:
    """The binary on a free port of loopback. `ready_secs` says how long it took to be ready."""

    def __init__(self, binary, data, before=(), config=""):
        file = os.path.join(os.path.dirname(data), "outport.toml")
        with open(file, "w") as out:
            out.write(config)
        env = dict(os.environ, OUTPORT_ADMIN_PASSWORD=PASSWORD, OUTPORT_STORAGE_RESERVE_BYTES="0")
        command = [*before, binary, "serve", "--config", file, "--data", data, "--listen", "127.0.0.1:0", "--insecure-http"]
        with open(os.path.join(os.path.dirname(data), "server.log"), "ab") as log:
            began = time.monotonic()
            self.process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=log)
        # Whatever becomes of the script, no server outlives it.
        atexit.register(self.process.kill)
        line = self.process.stdout.readline().decode()
        if "://" not in line:
            raise SystemExit(f"the server did not start: {line!r}; see {log.name}")
        self.port = int(line.strip().rsplit(":", 1)[1])
        client = Client(self.port)
        while client.ask("GET", "/readyz")[0] != 200:
            time.sleep(0.001)
        self.ready_secs = time.monotonic() - began
        self.pid = self.process.pid

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        self.process.terminate()
        if self.process.wait(timeout=60) != 0:
            raise SystemExit("the server did not stop cleanly")

    def memory_kib(self):
        """What it has in memory, and the most it ever had."""
        fields = {}
        with open(f"/proc/{self.pid}/status") as status:
            for line in status:
                key, _, value = line.partition(":")
                fields[key] = value.split()
        return int(fields["VmRSS"][0]), int(fields["VmHWM"][0])


class Client:
    """One kept-alive connection."""

    def __init__(self, port, timeout=30):
        self.port, self.timeout, self.connection = port, timeout, None

    def ask(self, method, target, body=None, headers=()):
        """Status, headers, body. Raises OSError or HTTPException if no whole answer came."""
        if self.connection is None:
            self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=self.timeout)
        try:
            self.connection.request(method, target, body=body, headers={"Authorization": AUTH, **dict(headers)})
            answer = self.connection.getresponse()
            return answer.status, answer.headers, answer.read()
        except (OSError, http.client.HTTPException):
            self.close()
            raise

    def close(self):
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def push_blob(self, repo, data):
        """True once it was acknowledged."""
        status, _, said = self.ask("POST", f"/v2/{repo}/blobs/uploads/?digest={digest_of(data)}", data)
        if status != 201:
            raise AssertionError(f"a push was refused: {status} {said!r}")
        return digest_of(data)

    def push_manifest(self, repo, reference, text):
        status, _, said = self.ask("PUT", f"/v2/{repo}/manifests/{reference}", text, {"Content-Type": MANIFEST})
        if status != 201:
            raise AssertionError(f"a manifest was refused: {status} {said!r}")


def manifest_of(config, layers, mark):
    """An image of some bytes."""

    def descriptor(kind, data):
        return f'{{"mediaType":"application/vnd.oci.image.{kind}","digest":"{digest_of(data)}","size":{len(data)}}}'

    named = ",".join(descriptor("layer.v1.tar", layer) for layer in layers)
    return (
        f'{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{descriptor("config.v1+json", config)},'
        f'"layers":[{named}],"annotations":{{"mark":"{mark}"}}}}'
    ).encode()


# What ends an exchange when the server is gone.
GONE = (OSError, http.client.HTTPException)
