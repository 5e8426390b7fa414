"""Work in forked children of one warm process: each starts from the same memory, and may die without harm to others.

The process that forks has one thread (pyarrow's allocator adds one that minds forks). What starts threads (pyarrow, the decoding of shards) is left to its children.
"""

import json
import os
import selectors
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any


class Died(Exception):
    """A child ended without an answer. code: its exit code, negative for a signal."""

    def __init__(self, code: int) -> None:
        self.code = code
        super().__init__(f"the process died, code {code}")


class Child:
    """A forked process that does one piece of work and answers with what JSON can hold.

    An error of the work comes back as its text, `Class: message`.
    """

    def __init__(self, work: Callable[[], Any]) -> None:
        receive, send = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            os.close(receive)
            try:
                answer: Any = work()
            except BaseException as error:
                answer = f"{type(error).__name__}: {error}"
            try:
                _write_all(send, json.dumps(answer).encode())
            finally:
                os._exit(0)  # nobody may hear of it: the code that called this is the parent's
        os.close(send)
        self.pipe = receive

    def answer(self) -> Any:
        """Wait for the end, and return the answer. Raises Died if there is none."""
        with os.fdopen(self.pipe, "rb") as pipe:
            data = pipe.read()
        _, status = os.waitpid(self.pid, 0)
        if not data:
            raise Died(os.waitstatus_to_exitcode(status))
        return json.loads(data)


def in_child(work: Callable[[], Any]) -> Any:
    """What `work` returns, from a child of its own."""
    return Child(work).answer()


def spread(works: Iterable[tuple[str, Callable[[], Any]]], jobs: int) -> Iterator[tuple[str, Any]]:
    """Name and answer of many pieces of work, `jobs` of them at a time, as they come. Died is an answer here."""
    left = iter(works)
    with selectors.DefaultSelector() as running:

        def start(count: int) -> None:
            for name, work in islice(left, count):
                child = Child(work)
                running.register(child.pipe, selectors.EVENT_READ, (name, child))

        start(jobs)
        while running.get_map():
            for key, _ in running.select():
                running.unregister(key.fileobj)
                name, child = key.data
                try:
                    answer = child.answer()
                except Died as death:
                    answer = str(death)
                yield name, answer
                start(1)


def _write_all(handle: int, data: bytes) -> None:
    while data:
        data = data[os.write(handle, data) :]
