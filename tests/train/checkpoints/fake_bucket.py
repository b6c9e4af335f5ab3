"""A bucket of Google Cloud Storage in memory, on loopback: the part of its JSON API that checkpoints need.

Tests set STORAGE_EMULATOR_HOST (gcsfs, google-cloud-storage) and TENSORSTORE_GCS_HTTP_URL to its address.
"""

import base64
import json
import re
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

_OBJECT = re.compile(
    r"(?:/download)?/storage/v1/b/[^/]+/o/(.+?)(?:/(?:(?:rewriteTo|copyTo)/b/[^/]+|moveTo)/o/(.+))?"
)


class Bucket:
    """Objects by name; each write gives a new generation."""

    def __init__(self) -> None:
        self.objects: dict[str, tuple[bytes, int]] = {}
        self.uploads: dict[str, tuple[str, bytearray]] = {}  # resumable ones, by session
        self.lock = threading.RLock()
        self._generation = 1

    def put(self, name: str, data: bytes) -> dict[str, Any]:
        with self.lock:
            self._generation += 1
            self.objects[name] = (bytes(data), self._generation)
            return self.described(name)

    def described(self, name: str) -> dict[str, Any]:
        data, generation = self.objects[name]
        return {
            "kind": "storage#object",
            "name": name,
            "bucket": "made",
            "size": str(len(data)),
            "generation": str(generation),
            "metageneration": "1",
            "etag": base64.b64encode(str(generation).encode()).decode(),
            "timeCreated": "2026-01-01T00:00:00.000Z",
            "updated": "2026-01-01T00:00:00.000Z",
            "storageClass": "STANDARD",
        }

    def listed(self, prefix: str, delimiter: str, start: str, end: str) -> dict[str, Any]:
        with self.lock:
            names = sorted(name for name in self.objects if name.startswith(prefix) and name >= start)
            names = [name for name in names if not end or name < end]
            items, prefixes = [], set()
            for name in names:
                rest = name[len(prefix) :]
                if delimiter and delimiter in rest:
                    prefixes.add(prefix + rest.split(delimiter)[0] + delimiter)
                else:
                    items.append(self.described(name))
            return {"kind": "storage#objects", "items": items, "prefixes": sorted(prefixes)}


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(
            sys.exc_info()[1], ConnectionError
        ):  # clients hang up when they have what they want
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    bucket: Bucket

    def log_message(self, *_: object) -> None:
        pass

    def _say(self, status: int, body: Any = b"", **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        if not isinstance(body, bytes):
            self.send_header("Content-Type", "application/json")
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _any(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        parts = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        with self.bucket.lock:
            self._answer(parts.path, query, body)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = _any

    def _answer(self, path: str, query: dict[str, str], body: bytes) -> None:
        if path.startswith("/batch/"):
            self._batch(body)
        elif path.startswith("/upload/"):
            self._upload(query, body)
        elif found := _OBJECT.fullmatch(path):
            source, target = found.groups()
            self._object(unquote(source), target and unquote(target), query)
        elif re.fullmatch(r"/storage/v1/b/[^/]+/o/?", path):
            asked = (query.get(name, "") for name in ("prefix", "delimiter", "startOffset", "endOffset"))
            self._say(200, self.bucket.listed(*asked))
        elif re.fullmatch(r"/storage/v1/b/[^/]+", path):
            self._say(200, {"kind": "storage#bucket", "name": "made", "id": "made", "location": "US"})
        else:
            self._say(404, {"error": {"code": 404, "message": path}})

    def _object(self, name: str, target: str | None, query: dict[str, str]) -> None:
        if name not in self.bucket.objects:
            self._say(404, {"error": {"code": 404, "message": f"no such object: {name}"}})
            return
        data, generation = self.bucket.objects[name]
        if target is not None:
            resource = self.bucket.put(target, data)
            if "/moveTo/" in self.path:
                del self.bucket.objects[name]
                self._say(200, resource)
                return
            sizes = {"objectSize": str(len(data)), "totalBytesRewritten": str(len(data))}
            self._say(200, {"kind": "storage#rewriteResponse", "done": True, "resource": resource, **sizes})
        elif self.command == "DELETE":
            del self.bucket.objects[name]
            self._say(204)
        elif query.get("alt") == "media":
            known = {"x_goog_generation": str(generation), "ETag": str(generation)}
            if found := re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
                first = int(found[1])
                last = min(int(found[2] or len(data)), len(data) - 1)
                if first >= len(data):
                    self._say(416, **known)
                    return
                self._say(
                    206, data[first : last + 1], Content_Range=f"bytes {first}-{last}/{len(data)}", **known
                )
            else:
                self._say(200, data, **known)
        else:
            self._say(200, self.bucket.described(name))

    def _upload(self, query: dict[str, str], body: bytes) -> None:
        kind = query.get("uploadType")
        if "upload_id" in query:
            name, data = self.bucket.uploads[query["upload_id"]]
            data.extend(body)
            if self.headers.get("Content-Range", "").endswith("/*"):
                self._say(308, Range=f"bytes=0-{len(data) - 1}")
            else:
                self._say(200, self.bucket.put(name, bytes(data)))
        elif kind == "resumable":
            session = uuid.uuid4().hex
            name = query.get("name") or json.loads(body)["name"]
            self.bucket.uploads[session] = (name, bytearray())
            place = f"http://{self.headers['Host']}/upload/storage/v1/b/made/o?uploadType=resumable"
            self._say(200, Location=f"{place}&upload_id={session}")
        elif kind == "multipart":
            kind = self.headers["Content-Type"].encode()
            message: Any = BytesParser().parsebytes(b"Content-Type: " + kind + b"\r\n\r\n" + body)
            described, content = (part.get_payload(decode=True) for part in message.get_payload())
            self._say(200, self.bucket.put(json.loads(described)["name"], content))
        else:
            generation = query.get("ifGenerationMatch")
            current = str(self.bucket.objects.get(query["name"], (b"", 0))[1])
            if generation not in (None, current):
                self._say(412)
            else:
                self._say(200, self.bucket.put(query["name"], body))

    def _batch(self, body: bytes) -> None:
        answers, boundary = [], "batch_made"
        for path in re.findall(rb"DELETE (\S+) HTTP", body):
            name = unquote(urlsplit(path.decode()).path.split("/o/", 1)[1])
            status = "204 No Content" if self.bucket.objects.pop(name, None) else "404 Not Found"
            head = f"--{boundary}\r\nContent-Type: application/http\r\n\r\n"
            answers.append(f"{head}HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n\r\n")
        kind = f"multipart/mixed; boundary={boundary}"
        self._say(200, ("".join(answers) + f"--{boundary}--").encode(), Content_Type=kind)


@contextmanager
def bucket_on_loopback() -> Iterator[tuple[str, Bucket]]:
    """The address of a server, and what lies in its bucket "made"."""
    bucket = Bucket()
    handler = type("Handler", (_Handler,), {"bucket": bucket})
    with _Server(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", bucket
        finally:
            server.shutdown()
