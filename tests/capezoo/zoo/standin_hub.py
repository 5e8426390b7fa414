"""A stand-in for the Hugging Face Hub on loopback: the few endpoints that huggingface_hub asks, and faults on request."""

import base64
import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import yaml

TOKEN = "hf_standin"


@dataclass
class Repo:
    """Commits as whole trees, and where branches and tags point."""

    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def tree(self, revision: str) -> tuple[str, dict[str, bytes]]:
        sha = self.refs.get(revision, revision)
        return sha, self.commits[sha]

    def commit(self, tree: dict[str, bytes]) -> str:
        told = [(path, hashlib.sha256(data).hexdigest()) for path, data in sorted(tree.items())]
        sha = hashlib.sha1(json.dumps([told, len(self.commits)]).encode()).hexdigest()
        self.commits[sha] = tree
        self.refs["main"] = sha
        return sha


class Hub(ThreadingHTTPServer):
    """`with Hub() as hub:` serves at hub.url. Faults: see the fields."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.repos: dict[str, Repo] = {}
        self.asked: list[str] = []  # "GET /path" of every request
        self.ranges: list[str] = []  # Range headers of GET
        self.cut: dict[str, int] = {}  # path -> close the connection after so many bytes, once
        self.listed: dict[str, int] = {}  # path -> size that the listing claims
        self.sha: str | None = None  # what every revision is said to be
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def add(self, name: str, tree: dict[str, bytes]) -> str:
        """A repository with this tree at `main`; returns the commit."""
        return self.repos.setdefault(name, Repo()).commit(tree)


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: object) -> None: ...

    def do_GET(self) -> None:
        self.route()

    do_HEAD = do_POST = do_GET  # noqa: N815  # names the base class looks for

    def route(self) -> None:
        address = urlsplit(self.path)
        self.server.asked.append(f"{self.command} {address.path}")
        parts = [unquote(part) for part in address.path.strip("/").split("/")]
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            if parts[:2] == ["api", "repos"]:
                self.create(json.loads(body))
            elif parts[:2] == ["api", "validate-yaml"]:
                self.validate(json.loads(body)["content"])
            elif parts[0] == "api":
                self.api("/".join(parts[2:4]), parts[4:], body)
            else:
                self.resolve("/".join(parts[:2]), *parts[3:])
        except KeyError:
            self.answer({"error": "not found"}, 404, {"X-Error-Code": "RepoNotFound"})

    def answer(self, value: object, code: int = 200, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(value).encode()
        self.send_response(code)
        for key, text in {
            "Content-Type": "application/json",
            "Content-Length": str(len(data)),
            **(headers or {}),
        }.items():
            self.send_header(key, text)
        self.end_headers()
        self.wfile.write(data if self.command != "HEAD" else b"")

    def logged_in(self) -> bool:
        if self.headers.get("Authorization") == f"Bearer {TOKEN}":
            return True
        self.answer({"error": "Invalid username or password."}, 401)
        return False

    def create(self, given: dict) -> None:
        if not self.logged_in():
            return
        name = f"{given['organization']}/{given['name']}"
        code = 409 if name in self.server.repos else 200
        if code == 200:
            private = given.get("private") or given.get("visibility") == "private"
            self.server.repos[name] = Repo(bool(private))
            self.server.repos[name].commit({".gitattributes": b"*.safetensors filter=lfs\n"})
        self.answer({"url": f"{self.server.url}/{name}", "name": name}, code)

    def validate(self, text: str) -> None:
        front = yaml.safe_load(text.split("---\n")[1])
        wrong = [key for key in ("license", "library_name", "tags") if not front.get(key)]
        self.answer({"errors": [{"message": f"no {key}"} for key in wrong], "warnings": []}, 400 if wrong else 200)

    def api(self, name: str, rest: list[str], body: bytes) -> None:
        repo = self.server.repos[name]
        what, revision = (*rest, "revision", "main")[:2] if rest else ("revision", "main")
        if what in ("preupload", "commit") and not self.logged_in():
            return
        if what == "preupload":
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(body)["files"]
            ]
            self.answer({"files": files})
        elif what == "commit":
            self.commit(repo, [json.loads(line) for line in body.splitlines()])
        elif what == "tree":
            listed = [
                {"type": "file", "path": path, "size": self.server.listed.get(path, len(data)), "oid": oid(data)}
                for path, data in repo.tree(revision)[1].items()
            ]
            self.answer(listed)
        else:
            sha, tree = repo.tree(revision)
            siblings = [{"rfilename": path} for path in tree]
            self.answer({"id": name, "sha": self.server.sha or sha, "private": repo.private, "siblings": siblings})

    def commit(self, repo: Repo, lines: list[dict]) -> None:
        tree = dict(repo.tree("main")[1])
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                tree[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "deletedFile":
                del tree[value["path"]]
        sha = repo.commit(tree)
        self.answer({"commitOid": sha, "commitUrl": f"{self.server.url}/x/y/commit/{sha}", "success": True})

    def resolve(self, name: str, revision: str, *path: str) -> None:
        sha, tree = self.server.repos[name].tree(revision)
        data = tree["/".join(path)]
        start = 0
        if self.command == "GET" and (asked := self.headers.get("Range")):
            self.server.ranges.append(asked)
            start = int(asked.removeprefix("bytes=").partition("-")[0])
        self.send_response(206 if start else 200)
        headers = {"ETag": f'"{oid(data)}"', "X-Repo-Commit": sha, "Content-Length": str(len(data) - start)}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        for key, text in headers.items():
            self.send_header(key, text)
        self.end_headers()
        if self.command == "GET":
            cut = self.server.cut.pop(path[-1], None)
            self.wfile.write(data[start:] if cut is None else data[start:cut])
            self.close_connection = cut is not None


def oid(data: bytes) -> str:
    """As git names a file."""
    return hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()
