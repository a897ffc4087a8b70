"""A server on this machine that speaks the part of the hub's protocol that a download needs.

::

    GET  /api/models/ORG/NAME[/revision/REV]?blobs=true    commit, names, sizes, checksums
    HEAD /ORG/NAME/resolve/COMMIT/FILE                     size, checksum (ETag), commit
    GET  /ORG/NAME/resolve/COMMIT/FILE                     the bytes

and the part that a commit needs::

    POST /api/repos/create, /api/validate-yaml             accepted
    POST /api/models/ORG/NAME/preupload/REV                every file in the commit itself
    POST /api/models/ORG/NAME/commit/REV                   lines of JSON, files as base64
"""

import base64
import hashlib
import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "3f2a" * 10


def blob(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Hub:
    """Repositories as folders of the test; `asked` is what was requested."""

    def __init__(self):
        self.repositories = {}
        self.gated = set()
        self.damaged = set()
        self.asked = []
        self.private = {}
        self.address = ""

    def describe(self, path, content):
        entry = {"rfilename": path, "size": len(content), "blobId": blob(content)}
        if path.endswith((".safetensors", ".bin")):
            digest = hashlib.sha256(content).hexdigest()
            entry["lfs"] = {"sha256": digest, "size": len(content), "pointerSize": 130}
        return entry

    def accept(self, path, body):
        """What a POST gives: (status, headers, body)"""
        json_type = {"Content-Type": "application/json"}
        if path.endswith("/create"):
            made = json.loads(body)
            name = (
                f"{made['organization']}/{made['name']}" if "organization" in made else made["name"]
            )
            self.repositories.setdefault(name, {})
            self.private[name] = made.get("private") or made.get("visibility") == "private"
            answer = {"url": f"{self.address}/{name}", "name": name}
        elif path == "/api/validate-yaml":
            answer = {"errors": [], "warnings": []}
        elif "/preupload/" in path:
            files = [
                {"path": one["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
                for one in json.loads(body)["files"]
            ]
            answer = {"files": files}
        else:
            name = re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/.+", path)[1]
            lines = [json.loads(line) for line in body.splitlines() if line.strip()]
            for line in lines:
                if line["key"] == "file":
                    value = line["value"]
                    self.repositories[name][value["path"]] = base64.b64decode(value["content"])
            answer = {
                "success": True,
                "commitOid": COMMIT,
                "commitUrl": f"{self.address}/{name}/commit/{COMMIT}",
            }
        return 200, json_type, json.dumps(answer).encode()

    def answer(self, path):
        """(status, headers, body)"""
        api = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?", path)
        file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        found = api or file
        name = found[1] if found else ""
        if name in self.gated:
            return 403, {"X-Error-Code": "GatedRepo"}, b""
        if name not in self.repositories:
            return 404, {"X-Error-Code": "RepoNotFound"}, b""
        if found[2] not in (None, "main", "v1", COMMIT):
            return 404, {"X-Error-Code": "RevisionNotFound"}, b""
        files = self.repositories[name]
        if api:
            siblings = [self.describe(*one) for one in sorted(files.items())]
            info = {"id": name, "sha": COMMIT, "siblings": siblings, "private": False}
            return 200, {"Content-Type": "application/json"}, json.dumps(info).encode()
        content = files[file[3]]
        described = self.describe(file[3], content)
        etag = described.get("lfs", {}).get("sha256", described["blobId"])
        if (name, file[3]) in self.damaged:
            content = content[:-1] + bytes([content[-1] ^ 1])
        return 200, {"X-Repo-Commit": COMMIT, "ETag": f'"{etag}"'}, content


@contextmanager
def serve(hub):
    """The hub at an address of this machine."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            path = self.path.partition("?")[0]
            status, headers, body = hub.answer(path)
            hub.asked.append((self.command, path))
            self.send_response(status)
            for key, value in {**headers, "Content-Length": len(body)}.items():
                self.send_header(key, str(value))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def do_POST(self):
            path = self.path.partition("?")[0]
            length = self.headers.get("Content-Length")
            content = self.rfile.read(int(length)) if length else self._chunks()
            hub.asked.append((self.command, path))
            status, headers, body = hub.accept(path, content)
            self.send_response(status)
            for key, value in {**headers, "Content-Length": len(body)}.items():
                self.send_header(key, str(value))
            self.end_headers()
            self.wfile.write(body)

        def _chunks(self):
            parts = []
            while size := int(self.rfile.readline().strip(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        hub.address = f"http://127.0.0.1:{server.server_port}"
        yield hub.address
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
