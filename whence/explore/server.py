"""The explorer's server: answers and a page on loopback, behind an address that cannot be guessed.

Only the routes below exist, and files only those that are read when it starts, so that no path of
a request ever reaches the disk.
"""

from __future__ import annotations

import json
import secrets
import threading
import traceback
import warnings
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from urllib.parse import parse_qs, urlsplit

from whence.attribution.quality import FarFromMinimum
from whence.explore.replies import Parameters, Questions, Reply, json_reply

HOST = "127.0.0.1"
MAX_BODY = 4 << 20
"""Bytes that a question may have."""
PORTS = 2**16
TRIES = 100
"""Ports that are tried, from the one that is wanted on."""
KINDS = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
}
POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'"
)
"""Nothing from elsewhere, and no script but the page's own files: text stays text."""


class Api:
    """Questions by name, each from the parameters of a request to a reply.

    One question is answered at a time: the network and its factors are shared.

    Parameters
    ----------
    questions:
        What is explored.
    """

    def __init__(self, questions: Questions) -> None:
        self._lock = threading.Lock()
        self._by_name = questions.by_name()

    def reply(self, name: str, parameters: Parameters) -> Reply:
        """Answer a question; what is wrong with it is said in the reply."""
        question = self._by_name.get(name)
        if question is None:
            return json_reply({"error": "no such question"}, HTTPStatus.NOT_FOUND)
        try:
            with self._lock, warnings.catch_warnings():
                # The page has it in words, beside what it is about.
                warnings.simplefilter("ignore", FarFromMinimum)
                return question(parameters)
        except (ValueError, TypeError, MemoryError, KeyError) as error:
            return json_reply({"error": str(error)}, HTTPStatus.BAD_REQUEST)
        except Exception as error:
            # Without a reply the page would take the server for gone.
            traceback.print_exc()
            return json_reply(
                {"error": f"{type(error).__name__}: {error}"},
                HTTPStatus.INTERNAL_SERVER_ERROR,
            )


def page_files() -> dict[str, Reply]:
    """Return the page's files by name."""
    folder = resources.files("whence.explore") / "page"
    files = {}
    for file in folder.iterdir():
        ending = file.name.rpartition(".")[2]
        if ending in KINDS:
            files[file.name] = Reply(file.read_bytes(), KINDS[ending])
    return files


class Explorer(ThreadingHTTPServer):
    """A server of answers and of the page that asks for them.

    Parameters
    ----------
    questions:
        What is explored, and by which page.
    port:
        The first port that is tried; the next free one is taken. 0: any.

    Raises
    ------
    OSError
        If none of a hundred ports is free.

    Examples
    --------
    >>> import urllib.request
    >>> from whence import pinn
    >>> from whence.explore import Session
    >>> from whence.explore.answers import Answers
    >>> from whence.explore.run_questions import RunQuestions
    >>> from whence.explore.server import Explorer
    >>> result = pinn.train(pinn.zoo.load("diffusion"), points=50, schedule=pinn.GaussNewton(10),
    ...                     progress=False)
    >>> with Explorer(RunQuestions(Answers(Session(result))), port=0) as explorer:
    ...     explorer.start()
    ...     with urllib.request.urlopen(explorer.address + "api/runs") as reply:
    ...         print(reply.read()[:22].decode())
    [{"title": "diffusion"
    """

    daemon_threads = True
    # Another explorer's port is not to be shared, as this would allow.
    allow_reuse_address = False

    def __init__(self, questions: Questions, port: int = 8888) -> None:
        self.token = secrets.token_urlsafe(16)
        self.api = Api(questions)
        self.files = page_files()
        self.files[""] = self.files[questions.page]
        self._thread: threading.Thread | None = None
        super().__init__((HOST, port), Handler, bind_and_activate=False)
        self._bind(port)

    def _bind(self, first: int) -> None:
        """Take the first free port, and listen."""
        candidates = range(1)
        if first:
            candidates = range(first, min(first + TRIES, PORTS))
        for port in candidates:
            self.server_address = (HOST, port)
            try:
                self.server_bind()
            except OSError:
                continue
            self.server_activate()
            return
        self.server_close()
        raise OSError(
            f"the ports {first} to {candidates[-1]} are all busy: give another --port"
        )

    @property
    def address(self) -> str:
        """Where the page is."""
        return f"http://{HOST}:{self.server_port}/{self.token}/"

    @property
    def hosts(self) -> frozenset[str]:
        """What a browser may call this machine: any other name is a page from elsewhere."""
        return frozenset(f"{name}:{self.server_port}" for name in (HOST, "localhost"))

    def start(self) -> None:
        """Serve in the background until the end of the ``with`` block."""
        self._thread = threading.Thread(target=self.serve_forever, daemon=True)
        self._thread.start()

    def __exit__(self, *error: object) -> None:
        if self._thread is not None:
            self.shutdown()
            self._thread.join()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    """One request: the page, one of its files, or a question."""

    # One connection for many questions, and a reply in one piece: its second half would wait for
    # the first to be acknowledged.
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    server: Explorer

    def do_GET(self) -> None:
        """Answer a question in the address, or send a file."""
        parts = urlsplit(self.path)
        parameters = {
            name: values[-1] for name, values in parse_qs(parts.query).items()
        }
        self._answer(parts.path, parameters, is_question=False)

    def do_POST(self) -> None:
        """Answer a question in the body."""
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or int(length) > MAX_BODY:
            self.close_connection = True
            self._send(
                json_reply({"error": "too long"}, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            )
            return
        try:
            parameters = json.loads(self.rfile.read(int(length)))
        except ValueError:
            parameters = None
        if not isinstance(parameters, dict):
            self._send(json_reply({"error": "no JSON object"}, HTTPStatus.BAD_REQUEST))
            return
        self._answer(urlsplit(self.path).path, parameters, is_question=True)

    def _answer(self, path: str, parameters: Parameters, is_question: bool) -> None:
        """Send the reply to a request for a path."""
        nothing = json_reply({"error": "not here"}, HTTPStatus.NOT_FOUND)
        # A page from elsewhere, whose name leads here, has another Host; and no token.
        token, _, rest = path.removeprefix("/").partition("/")
        is_ours = self.headers.get("Host") in self.server.hosts
        if not is_ours or not secrets.compare_digest(
            token.encode(), self.server.token.encode()
        ):
            self._send(nothing)
            return

        if rest.startswith("api/"):
            self._send(self.server.api.reply(rest.removeprefix("api/"), parameters))
        elif is_question:
            self._send(nothing)
        else:
            self._send(self.server.files.get(rest, nothing))

    def _send(self, reply: Reply) -> None:
        """Send a reply."""
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.kind)
        self.send_header("Content-Length", str(len(reply.body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Security-Policy", POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.end_headers()
        self.wfile.write(reply.body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing of single requests."""
