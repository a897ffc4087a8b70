"""A server on this machine that speaks the part of the hub's protocol that a download needs.

::

    GET  /api/models/ORG/NAME[/revision/REV]?blobs=true    commit, names, sizes, checksums
    HEAD /ORG/NAME/resolve/COMMIT/FILE                     size, checksum (ETag), commit
    GET  /ORG/NAME/resolve/COMMIT/FILE                     the bytes
"""

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

    def describe(self, path, content):
        entry = {"rfilename": path, "size": len(content), "blobId": blob(content)}
        if path.endswith((".safetensors", ".bin")):
            digest = hashlib.sha256(content).hexdigest()
            entry["lfs"] = {"sha256": digest, "size": len(content), "pointerSize": 130}
        return entry

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

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
