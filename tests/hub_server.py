"""A Hub on loopback for the unmodified huggingface_hub client; everything is in memory.

It has repositories, branches, commits and LFS files.
"""

import base64
import hashlib
import json
import re
import socket
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import yaml

LFS_ENDINGS = (".safetensors", ".parquet")
LICENSES = ("apache-2.0", "mit", "cc-by-4.0", "other")
LANGUAGES = ("en", "de", "fr", "multilingual")


@dataclass
class Repo:
    """Commits are whole folders: {path: content} by commit id."""

    name: str
    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        sha = hashlib.sha1(f"{self.name} {len(self.commits)}".encode()).hexdigest()
        self.commits[sha] = files
        self.branches[branch] = sha
        return sha


class Refusal(Exception):
    """An answer of the Hub that is no success."""

    def __init__(
        self,
        status: int,
        message: str,
        code: str = "",
        commit: str = "",
        headers: dict[str, str] | None = None,
    ) -> None:
        self.status = status
        self.headers = {
            "X-Error-Message": message,
            "X-Error-Code": code,
            "X-Repo-Commit": commit,
            **(headers or {}),
        }
        super().__init__(message)


@dataclass
class Fault:
    """What requests meet instead of their answer, or before it.

    Attributes:
        requests: regular expression that the start of "METHOD /path" matches.
        status: of the refusal; 0 cuts the connection after half of the request; None answers
            after `seconds`.
        times: how often.
        reason: words of the refusal; {token} is the token that came.
        until: the wait ends with this event, if it is set before.
        then_cut: do what was asked, but cut the connection instead of answering.
    """

    requests: str
    status: int | None = None
    times: int = 1
    reason: str = "the server was told to fail"
    headers: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    until: threading.Event | None = None
    then_cut: bool = False


class HubServer(ThreadingHTTPServer):
    """Answers at `url` until closed.

    Args:
        tokens: {token: user}.
        orgs: {user: {organization: role}}.
        scopes: {user with a fine-grained token: [(kind of entity, its name, permissions)]}.

    Attributes:
        repos: {(kind, "user/name"): Repo}, kind being model or dataset.
        faults: of which the first that fits a request happens.
        requests: "METHOD /path" of all that came.
    """

    daemon_threads = True

    def __init__(
        self,
        tokens: dict[str, str],
        orgs: dict[str, dict[str, str]] | None = None,
        scopes: dict[str, list] | None = None,
    ) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.tokens, self.orgs, self.scopes = tokens, orgs or {}, scopes or {}
        self.repos: dict[tuple[str, str], Repo] = {}
        self.lfs: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        self.closing = threading.Event()
        self.lock = threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_port}"
        # Another host name, as on the Hub: the client sends its headers to no other host.
        self.lfs_url = f"http://localhost:{self.server_port}/lfs"

    def add(self, kind: str, name: str, files: dict[str, bytes], branch: str = "main") -> str:
        """Commit `files` as all content of a branch of a public repository, and return its id."""
        return self.repos.setdefault((kind, name), Repo(name)).commit(files, branch)

    def branch(self, name: str, branch: str = "main", kind: str = "model") -> dict[str, bytes]:
        """The files of a branch."""
        repo = self.repos[kind, name]
        return repo.commits[repo.branches[branch]]

    def may_write(self, user: str | None, name: str) -> bool:
        """Whether a token of this user may write to a repository, or create it."""
        namespace = name.split("/")[0]
        if user in self.scopes:
            return any(
                "repo.write" in permissions
                for _, entity, permissions in self.scopes[user]
                if entity in (namespace, name)
            )
        return user == namespace or self.orgs.get(user, {}).get(namespace) in (
            "admin",
            "write",
            "contributor",
        )

    def handle_error(self, request, client_address):
        """Nothing: a client that left is none of the server's faults."""

    def next_fault(self, request: str) -> Fault | None:
        with self.lock:
            self.requests.append(request)
            fault = next(
                (
                    fault
                    for fault in self.faults
                    if fault.times > 0 and re.match(fault.requests, request)
                ),
                None,
            )
            if fault:
                fault.times -= 1
            return fault

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.closing.set()
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubServer

    def answer(self):
        fault = self.server.next_fault(f"{self.command} {urlsplit(self.path).path}")
        size = int(self.headers.get("Content-Length") or 0)
        if fault and fault.status == 0:
            self.rfile.read(size // 2)
            return self.cut()
        self.content = self.rfile.read(size)
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            while size := int(self.rfile.readline(), 16):
                self.content += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        path, token = (
            urlsplit(self.path).path,
            self.headers.get("Authorization", "").removeprefix("Bearer "),
        )
        self.is_mute = bool(fault and fault.then_cut)
        try:
            if fault:
                (fault.until or self.server.closing).wait(fault.seconds)
                if fault.status:
                    raise Refusal(
                        fault.status, fault.reason.format(token=token), headers=fault.headers
                    )
            self.user = self.server.tokens.get(token)
            if token and self.user is None:
                raise Refusal(401, "Invalid credentials in Authorization header")
            for method, pattern, action in ROUTES:
                if self.command in method and (match := re.fullmatch(pattern, path)):
                    with self.server.lock:
                        return action(
                            self,
                            **{
                                key: unquote(value or "")
                                for key, value in match.groupdict().items()
                            },
                        )
            raise Refusal(404, f"no such route: {self.command} {path}")
        except Refusal as refusal:
            self.send({"error": str(refusal)}, refusal.status, **refusal.headers)

    do_GET = do_HEAD = do_POST = do_PUT = answer

    def log_message(self, *_):
        pass

    def cut(self):
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def send(self, body, status=200, **headers):
        if self.is_mute:
            return self.cut()
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {
            "Content-Length": str(len(content)),
            "Content-Type": "application/json",
            **headers,
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def send_part(self, content, **headers):
        """The bytes that a Range header asks for, else all of them."""
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if not asked:
            return self.send(content, **headers)
        first, last = int(asked[1]), min(int(asked[2]), len(content) - 1)
        self.send(
            content[first : last + 1],
            206,
            **{"Content-Range": f"bytes {first}-{last}/{len(content)}", **headers},
        )

    def repo(self, kind, name):
        repo = self.server.repos.get((kind, name))
        if repo is None or (repo.private and not self.server.may_write(self.user, name)):
            raise Refusal(404 if self.user else 401, "Repository not found", "RepoNotFound")
        return repo

    def writable(self, kind, name):
        if not self.server.may_write(self.user, name):
            raise Refusal(403 if self.user else 401, f"You have no right to write to {name}")
        return self.repo(kind, name)

    def files(self, kind, name, revision):
        """Commit id and {path: content} of a branch or commit."""
        repo = self.repo(kind, name)
        sha = repo.branches.get(revision or "main", revision)
        if sha not in repo.commits:
            raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return sha, repo.commits[sha]

    def whoami(self):
        if self.user is None:
            raise Refusal(401, "Invalid username or password.")
        orgs = [
            {"type": "org", "name": name, "roleInOrg": role}
            for name, role in self.server.orgs.get(self.user, {}).items()
        ]
        token = {"role": "read" if self.user == "reader" else "write"}
        if self.user in self.server.scopes:
            scoped = [
                {"entity": {"type": kind, "name": name}, "permissions": given}
                for kind, name, given in self.server.scopes[self.user]
            ]
            token = {
                "role": "fineGrained",
                "fineGrained": {"global": ["discussion.write"], "scoped": scoped},
            }
        self.send(
            {
                "type": "user",
                "name": self.user,
                "orgs": orgs,
                "auth": {"type": "access_token", "accessToken": token},
            }
        )

    def auth_check(self, kind, name):
        self.writable(kind, name)
        self.send({})

    def validate_yaml(self):
        """Check the metadata of a card as the Hub does.

        Source: https://github.com/huggingface/hub-docs/blob/main/modelcard.md.
        """
        data = yaml.safe_load(json.loads(self.content)["content"].split("---")[1]) or {}
        languages = data.get("language") or []
        errors = (
            [f'"license" must be one of {LICENSES}']
            if data.get("license", "mit") not in LICENSES
            else []
        )
        for language in [languages] if isinstance(languages, str) else languages:
            errors += (
                [] if language in LANGUAGES else [f'"language" {language} must be an ISO 639 code']
            )
        for model in data.get("model-index", []):
            for result in model["results"]:
                whole = (
                    result["task"]["type"]
                    and result["dataset"]["type"]
                    and result["dataset"]["name"]
                    and result["metrics"]
                )
                errors += [] if whole and model["name"] else ['"model-index" is not whole']
        self.send(
            {"errors": [{"message": error} for error in errors], "warnings": []},
            400 if errors else 200,
        )

    def create_repo(self):
        wanted = json.loads(self.content)
        kind, name = (
            wanted.get("type") or "model",
            f"{wanted['organization'] or self.user}/{wanted['name']}",
        )
        if not self.server.may_write(self.user, name):
            raise Refusal(
                403 if self.user else 401, f"You have no right to create a repository as {name}"
            )
        if (kind, name) in self.server.repos:
            return self.send(
                {
                    "url": f"{self.server.url}/{name}",
                    "error": "You already created this repository",
                },
                409,
            )
        repo = self.server.repos[kind, name] = Repo(name, wanted.get("visibility") == "private")
        repo.commit({".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"})
        self.send({"url": f"{self.server.url}/{name}", "name": name})

    def create_branch(self, kind, name, branch):
        repo = self.writable(kind, name)
        if branch in repo.branches:
            raise Refusal(409, "Reference already exists")
        repo.branches[branch] = repo.branches["main"]
        self.send({})

    def info(self, kind, name, revision=""):
        sha, files = self.files(kind, name, revision)
        siblings = [{"rfilename": path} for path in sorted(files)]
        self.send(
            {
                "id": name,
                "sha": sha,
                "private": self.repo(kind, name).private,
                "tags": [],
                "siblings": siblings,
            }
        )

    def tree(self, kind, name, revision, folder):
        _, files = self.files(kind, name, revision)
        start = f"{folder}/" if folder else ""
        inside = [path.removeprefix(start) for path in sorted(files) if path.startswith(start)]
        if not inside:
            raise Refusal(404, "Entry not found", "EntryNotFound")
        if "recursive=true" in self.path.lower():
            return self.send([entry(start + path, files[start + path]) for path in inside])
        folders = sorted({path.split("/")[0] for path in inside if "/" in path})
        entries = [
            {"type": "directory", "path": start + path, "oid": "0" * 40, "size": 0}
            for path in folders
        ]
        self.send(
            entries
            + [entry(start + path, files[start + path]) for path in inside if "/" not in path]
        )

    def resolve(self, kind, name, revision, path):
        sha, files = self.files(kind or "model", name, revision)
        if path not in files:
            raise Refusal(404, "Entry not found", "EntryNotFound", sha)
        found = entry(path, files[path])
        if "lfs" not in found:
            return self.send_part(files[path], ETag=f'"{found["oid"]}"', **{"X-Repo-Commit": sha})
        oid = found["lfs"]["oid"]
        self.server.lfs[oid] = files[path]
        linked = {
            "X-Repo-Commit": sha,
            "X-Linked-ETag": f'"{oid}"',
            "X-Linked-Size": str(found["size"]),
        }
        self.send(b"", 302, Location=f"{self.server.lfs_url}/{oid}", **linked)

    def preupload(self, kind, name, revision):
        self.writable(kind, name)
        there = self.files(kind, name, revision)[1]
        answers = []
        for path in (file["path"] for file in json.loads(self.content)["files"]):
            told = entry(path, there[path]) if path in there else {}
            answer = {
                "path": path,
                "uploadMode": "lfs" if path.endswith(LFS_ENDINGS) else "regular",
                "shouldIgnore": False,
            }
            answers.append(answer | {"oid": told.get("lfs", told).get("oid")})
        self.send({"files": answers})

    def lfs_batch(self, kind, name):
        self.writable(kind or "model", name)
        objects = [
            {"oid": o["oid"], "size": o["size"]} for o in json.loads(self.content)["objects"]
        ]
        for o in objects:
            if o["oid"] not in self.server.lfs:
                o["actions"] = {"upload": {"href": f"{self.server.lfs_url}/{o['oid']}"}}
        self.send({"transfer": "basic", "objects": objects})

    def lfs_object(self, oid):
        if self.command == "PUT":
            if hashlib.sha256(self.content).hexdigest() != oid:
                raise Refusal(400, "the content differs from its sha256")
            self.server.lfs[oid] = self.content
        self.send_part(b"" if self.command == "PUT" else self.server.lfs[oid])

    def commit(self, kind, name, revision):
        repo = self.writable(kind, name)
        files = dict(self.files(kind, name, revision)[1])
        for line in self.content.splitlines():
            key, value = (operation := json.loads(line))["key"], operation["value"]
            if key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                files[value["path"]] = self.server.lfs[value["oid"]]
            elif key == "deletedFile":
                del files[value["path"]]
            elif key == "header":
                repo.messages.append(value["summary"])
        sha = repo.commit(files, revision)
        self.send({"commitOid": sha, "commitUrl": f"{self.server.url}/{name}/commit/{sha}"})


def entry(path, content):
    """What the Hub tells of a file."""
    oid = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    told = {"type": "file", "path": path, "oid": oid, "size": len(content)}
    if path.endswith(LFS_ENDINGS):
        told["lfs"] = {
            "oid": hashlib.sha256(content).hexdigest(),
            "size": len(content),
            "pointerSize": 134,
        }
    return told


NAME = "(?P<name>[^/]+/[^/]+)"
API = f"/api/(?P<kind>model|dataset)s/{NAME}"
ROUTES = [
    ("GET", "/api/whoami-v2", Handler.whoami),
    ("POST", "/api/validate-yaml", Handler.validate_yaml),
    ("POST", "/api/repos/create", Handler.create_repo),
    ("GET", f"{API}/auth-check/write", Handler.auth_check),
    ("POST", f"{API}/branch/(?P<branch>[^/]+)", Handler.create_branch),
    ("GET", f"{API}(/revision/(?P<revision>[^/]+))?", Handler.info),
    ("GET", f"{API}/tree/(?P<revision>[^/]+)(/(?P<folder>.+))?", Handler.tree),
    ("POST", f"{API}/preupload/(?P<revision>[^/]+)", Handler.preupload),
    ("POST", f"{API}/commit/(?P<revision>[^/]+)", Handler.commit),
    ("POST", rf"/((?P<kind>dataset)s/)?{NAME}\.git/info/lfs/objects/batch", Handler.lfs_batch),
    (
        "GET HEAD",
        f"/((?P<kind>dataset)s/)?{NAME}/resolve/(?P<revision>[^/]+)/(?P<path>.+)",
        Handler.resolve,
    ),
    ("GET HEAD PUT", "/lfs/(?P<oid>[0-9a-f]{64})", Handler.lfs_object),
]
