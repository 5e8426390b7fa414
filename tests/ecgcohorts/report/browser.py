"""A headless browser for tests, spoken to through two pipes: Chrome DevTools Protocol, messages ended by a zero byte.

Nothing to install but the browser, and no port that another test could take. Source: chromedevtools.github.io/devtools-protocol
and the description of --remote-debugging-pipe in content/public/common/content_switches.cc of Chromium.
"""

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless=new",
    "--no-sandbox",  # tests may run as root in a container
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-default-browser-check",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
SECONDS = 90


def installed() -> str | None:
    """Path of a browser, if there is one."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Page:
    """One tab. `events` holds everything that the browser reported since it was opened."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._out, self._in = to_browser, from_browser
        self._pending, self._last_id = b"", 0
        self._deadline = 0.0
        self.events: list[dict[str, Any]] = []
        self._session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send one command and return its result. Raises RuntimeError if the browser refuses it."""
        self._deadline = time.monotonic() + SECONDS
        self._last_id += 1
        message = {"id": self._last_id, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._last_id:
            self.events.append(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def open(self, path: Path, scheme: str, width: int = 1200) -> None:
        """Load a file in a window of `width` pixels, light or dark, and wait until it is painted."""
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        self.events.clear()
        self.call("Page.navigate", url=path.as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next())

    def value(self, expression: str) -> Any:
        """Value of a JavaScript expression, asked from outside: the page itself needs no script for that."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in result:
            raise RuntimeError(f"{expression}: {result['exceptionDetails']['text']}")
        return result["result"].get("value")

    def screenshot(self) -> bytes:
        """The whole page as PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)["data"])

    def requests(self) -> list[str]:
        """Addresses asked for since the page was opened."""
        return [event["params"]["request"]["url"] for event in self._of("Network.requestWillBeSent")]

    def forbidden(self) -> list[str]:
        """Those of `requests` that the page's own security policy stopped."""
        stopped = {
            event["params"]["requestId"]
            for event in self._of("Network.loadingFailed")
            if event["params"].get("blockedReason") == "csp"
        }
        sent = [event["params"] for event in self._of("Network.requestWillBeSent")]
        return [request["request"]["url"] for request in sent if request["requestId"] in stopped]

    def complaints(self) -> list[str]:
        """What a person would see in red in the console: errors, warnings, what the security policy forbade."""
        entries = [event["params"]["entry"] for event in self._of("Log.entryAdded")]
        found = [entry["text"] for entry in entries if entry["level"] in ("error", "warning")]
        found += [event["params"]["exceptionDetails"]["text"] for event in self._of("Runtime.exceptionThrown")]
        return found + [str(event["params"]["args"]) for event in self._of("Runtime.consoleAPICalled")]

    def _of(self, method: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event.get("method") == method]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._pending:
            if not select.select([self._in], [], [], max(0.0, self._deadline - time.monotonic()))[0]:
                raise TimeoutError(f"the browser said nothing for {SECONDS} s")
            data = os.read(self._in, 1 << 20)
            if not data:
                raise RuntimeError("the browser ended")
            self._pending += data
        message, _, self._pending = self._pending.partition(b"\0")
        return json.loads(message)


@contextlib.contextmanager
def open_browser(program: str, profile: Path) -> Iterator[Page]:
    """Start a browser with an empty profile in `profile`; it is gone when the block ends."""
    ours_in, theirs_out = _pipe()
    theirs_in, ours_out = _pipe()
    log = profile / "browser.log"
    process = os.posix_spawn(
        program,
        [program, *FLAGS, f"--user-data-dir={profile / 'data'}", "about:blank"],
        os.environ | {"HOME": str(profile)},
        file_actions=[
            (os.POSIX_SPAWN_DUP2, theirs_in, 3),
            (os.POSIX_SPAWN_DUP2, theirs_out, 4),
            (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setpgroup=0,
    )
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        yield Page(ours_out, ours_in)
    finally:
        os.close(ours_in)
        os.close(ours_out)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process, signal.SIGKILL)
        os.waitpid(process, 0)


def _pipe() -> tuple[int, int]:
    """Both ends above 4, so that moving one to 3 or 4 cannot overwrite the other."""
    ends = os.pipe()
    reading, writing = (fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends)
    for end in ends:
        os.close(end)
    return reading, writing
