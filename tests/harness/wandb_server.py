"""A server that W&B's client takes for W&B, on this machine alone, and which can fail in the ways of servers."""

import contextlib
import http.server
import json
import threading

KEY = "0" * 40


class Server(http.server.ThreadingHTTPServer):
    """Takes runs of one project.

    `answer` is "fine", a status of HTTP with which everything is refused, "garbage" or "silence"; each answer takes
    `seconds`. What arrived is in `asked`, names of GraphQL's operations and paths, and `history`, the numbers.
    """

    daemon_threads, request_queue_size = True, 64

    def __init__(self, answer="fine", seconds=0.0):
        super().__init__(("127.0.0.1", 0), Answering)
        self.answer, self.seconds, self.asked, self.history = answer, seconds, [], []
        self.gone = threading.Event()

    @property
    def environment(self):
        """What makes the client of a process, which is logged in, go here."""
        return {"WANDB_BASE_URL": f"http://127.0.0.1:{self.server_port}", "WANDB_API_KEY": KEY, "WANDB_MODE": "online"}

    def handle_error(self, request, client_address):
        """Clients that hang up are no news."""


class Answering(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        server = self.server
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        asked = json.loads(body) if self.path == "/graphql" else {}
        if "/otel/" not in self.path:
            server.asked.append(asked.get("operationName", self.path))
        server.gone.wait(server.seconds)
        if server.answer == "silence":
            server.gone.wait()
        if server.answer == "garbage":
            return self.give(200, b"\x00<html>{]")
        if server.answer != "fine":
            return self.give(server.answer, b'{"error": "no", "errors": [{"message": "no"}]}')
        if self.path.endswith("/file_stream"):
            lines = json.loads(body).get("files", {}).get("wandb-history.jsonl", {}).get("content", [])
            server.history += [json.loads(line) for line in lines]
        return self.give(200, json.dumps({"data": self.data(asked)} if asked else {}).encode())

    do_GET = do_PUT = do_POST  # noqa: N815

    def data(self, asked):
        """The answer to a question of GraphQL."""
        operation, given = asked["operationName"], asked["variables"]
        if operation == "UpsertBucket":
            project = {"id": "p", "name": "ours", "entity": {"id": "e", "name": "me"}}
            bucket = {"id": "b", "name": given["name"], "displayName": given["displayName"], "project": project}
            return {"upsertBucket": {"bucket": bucket | {"config": None, "historyLineCount": 0}, "inserted": True}}
        if operation == "CreateRunFiles":
            here = f"http://127.0.0.1:{self.server.server_port}/storage/"
            files = [{"name": name, "uploadUrl": here + name} for name in given["files"]]
            return {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": files}}
        return {}

    def give(self, status, body):
        with contextlib.suppress(OSError):
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *given):
        """Tests are told by what arrived."""


@contextlib.contextmanager
def serving(answer="fine", seconds=0.0):
    """A server that answers while the block lasts."""
    with Server(answer, seconds) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.gone.set()
            server.shutdown()
            thread.join()
