"""A web server that serves a folder by ranges, and fails as it is told to.

A process of its own: GDAL may hold Python's lock while it waits for an answer. It prints its port,
takes one order per line from its standard input (JSON, see `Orders`), answers each with the
requests up to then, and ends with its input.
"""

from __future__ import annotations

import json
import re
import sys
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

PAGE = b"<html><head><title>Sign in</title></head><body>Please sign in.</body></html>\n" * 2000


@dataclass
class Orders:
    """What goes wrong, and when.

    Attributes:
        kind: "503" or another status; "drop": half of the body, then the connection is cut;
            "short": half of the body, and a length that says so; "html": a page, 200; "whole": all
            of the file, 200; "hang": no answer; "stall": half of the body, then nothing; "other":
            the file `NAME.other` instead, of another ETag; "": nothing goes wrong.
        name: only for files of this name; "" for all.
        methods: of the requests.
        first: of the requests that there is a file for, from 0, the first that fails.
        count: how many fail.
    """

    kind: str = ""
    name: str = ""
    methods: tuple[str, ...] = ("GET",)
    first: int = 0
    count: int = 1 << 30
    seen: int = 0
    requests: list[str] = field(default_factory=list)


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.orders = Orders()
        self.lock = threading.Lock()

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients may go; that is no news."""

    def fault(self, method: str, path: Path) -> str:
        """Return what goes wrong with a request, and count it."""
        with self.lock:
            orders = self.orders
            if method not in orders.methods or orders.name not in ("", path.name):
                return ""
            number = orders.seen
            orders.seen += 1
        return orders.kind if orders.first <= number < orders.first + orders.count else ""


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        asked = self.headers.get("Range", "")
        self.server.orders.requests.append(f"{self.command} {self.path} {asked}".strip())
        path = self.server.folder / self.path.lstrip("/").partition("?")[0]
        is_there = path.is_file()
        fault = self.server.fault(self.command, path) if is_there or self.server.orders.name else ""
        if fault.isdigit():
            self.send(int(fault), b"no")
        elif fault == "html":
            self.send(200, PAGE)
        elif fault == "hang":
            time.sleep(600)
        elif not is_there:
            self.send(404, b"no such file")
        else:
            if fault == "other":
                path = path.with_name(f"{path.name}.other")
            self.send_file(path.read_bytes(), asked, fault)

    def send_file(self, data: bytes, asked: str, fault: str) -> None:
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", asked)
        if found is None or fault == "whole":
            self.send(200, data, fault)
            return
        first = int(found[1])
        last = min(int(found[2] or len(data) - 1), len(data) - 1)
        if first > last:
            self.send(416, b"")
            return
        body = data[first : last + 1]
        place = f"bytes {first}-{last}/{len(data)}"
        if fault == "short":
            body = body[: len(body) // 2]
        self.send(206, body, fault, place)

    def send(self, code: int, body: bytes, fault: str = "", place: str | None = None) -> None:
        self.send_response(code)
        if place is not None:
            self.send_header("Content-Range", place)
        self.send_header("ETag", '"2"' if fault == "other" else '"1"')
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Type", "text/html" if body is PAGE else "image/tiff")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault in ("drop", "stall"):
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            if fault == "stall":
                time.sleep(600)
            self.close_connection = True
            return
        self.wfile.write(body)


def main() -> None:
    server = Server(Path(sys.argv[1]))
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    print(server.server_address[1], flush=True)
    for line in sys.stdin:
        order: dict[str, Any] | None = json.loads(line)
        requests = server.orders.requests
        if order is not None:
            server.orders = Orders(**order)
        print(json.dumps(requests), flush=True)


if __name__ == "__main__":
    main()
