#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""A Debian mirror on this machine that keeps what it has passed on: interrupt.sh
makes the build root many times over, and the real mirror is asked for each file once.

    mirror.py UPSTREAM FOLDER    prints its address, and serves until it is killed
"""

import http.server
import os
import shutil
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request

UPSTREAM, FOLDER = sys.argv[1].rstrip("/"), sys.argv[2]
ABSENT = set()


def fetch(path):
    """The file that holds what UPSTREAM has at this path; LookupError if nothing."""
    if path in ABSENT:
        raise LookupError(path)
    kept = os.path.join(FOLDER, urllib.parse.quote(path, safe=""))
    if os.path.exists(kept):
        return kept
    try:
        with urllib.request.urlopen(UPSTREAM + path, timeout=60) as answer:
            with tempfile.NamedTemporaryFile(dir=FOLDER, delete=False) as file:
                shutil.copyfileobj(answer, file)
                length = answer.headers["Content-Length"]
                if length and int(length) != file.tell():
                    raise ConnectionError(f"{path} came in part")
    except urllib.error.HTTPError as error:
        if error.code != 404:
            raise
        ABSENT.add(path)
        raise LookupError(path) from error
    # Another request may have fetched it, too: the same bytes.
    os.replace(file.name, kept)
    return kept


class Mirror(http.server.BaseHTTPRequestHandler):
    """Answers GET with the whole file."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        try:
            with open(fetch(self.path), "rb") as file:
                self.send_response(200)
                self.send_header("Content-Length", str(os.fstat(file.fileno()).st_size))
                self.end_headers()
                shutil.copyfileobj(file, self.wfile)
        except LookupError:
            self.send_error(404)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # apt was killed
        except OSError as error:
            self.send_error(502, str(error))

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
server.daemon_threads = True
print(f"http://127.0.0.1:{server.server_port}", flush=True)
server.serve_forever()
