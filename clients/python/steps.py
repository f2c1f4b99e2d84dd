"""What all the Python programs share: the list of steps, and one line printed for each.

A step is a function; its docstring's first word is the step's name in docs/clients.md. A step that
raises has failed, and the next one is tried all the same.
"""

import os
import sys
import time
from contextlib import contextmanager
from datetime import date, datetime, timezone
from decimal import Decimal
from urllib.parse import urlsplit
from uuid import UUID

# The first server takes all the statements; the last one is asked whether it has the data, too.
URLS = os.environ.get("ROTA_URLS", "postgresql://rota@127.0.0.1:5441/rota").split(",")
# The same servers' other door: hosts and ports.
HTTP = [
    (parts.hostname, parts.port)
    for parts in map(urlsplit, os.environ.get("ROTA_HTTP_URLS", "http://127.0.0.1:4001").split(","))
]
# PostgreSQL itself has LISTEN. Everything else is expected to be the same there.
IS_POSTGRESQL = os.environ.get("ROTA_REFERENCE") == "postgresql"

LARGE = 100_000
COUNT_TO = f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {LARGE})"
# Nobody waits for this one: it is there to be cancelled.
COUNT_FOR_EVER = (
    "WITH RECURSIVE n(i) AS (SELECT 1::bigint UNION ALL SELECT i + 1 FROM n"
    " WHERE i < 1000000000000) SELECT count(*) FROM n"
)

# One value of every type. What comes back must be equal to it.
ITEM = {
    "name": "première",
    "big": 9_007_199_254_740_993,  # one more than a double can tell apart
    "fine": True,
    "price": Decimal("12345.60"),
    "ratio": 0.1,
    "seen": datetime(2026, 2, 3, 4, 5, 6, 789012, tzinfo=timezone.utc),
    "day": date(2024, 2, 29),
    "ref": UUID("01234567-89ab-cdef-0123-456789abcdef"),
    "doc": {"a": [1, 2.5, None], "b": "ö"},
    "raw": b"\x00\x01\xff",
}


class NotThere(Exception):
    """The driver has no such thing: not a failure, but the table says so."""


def login():
    """A user with a password, who may do everything with tables, and whose certificates to trust."""
    values = [os.environ.get(f"CLIENT_{name}") for name in ("USER", "PASSWORD", "CA")]
    if not all(values):
        raise NotThere("CLIENT_USER, CLIENT_PASSWORD and CLIENT_CA are not set")
    return values


def expect(got, wanted):
    """Fails the step unless the two are equal, in type as well."""
    if got != wanted or not isinstance(got, type(wanted)):
        raise AssertionError(f"got {got!r}, not {wanted!r}")


@contextmanager
def soon():
    """What is cancelled after half a second must end then, and not at some other limit."""
    began = time.monotonic()
    yield
    took = time.monotonic() - began
    assert took < 5, f"it took {took:.1f} s"


def eventually(found, seconds=10):
    """Waits for another server, which may be some milliseconds behind."""
    until = time.monotonic() + seconds
    while not (answer := found()) and time.monotonic() < until:
        time.sleep(0.05)
    return answer


def report(step, failure=None):
    """Prints the step's line; tells whether it is one that counts as a failure."""
    if failure is None:
        print(f"ok {step}", flush=True)
    elif isinstance(failure, NotThere):
        print(f"none {step}: {failure}", flush=True)
    else:
        why = " ".join(str(failure).split()) or "no reason given"
        print(f"FAIL {step}: {type(failure).__name__}: {why}", flush=True)
    return failure is not None and not isinstance(failure, NotThere)


def run(steps):
    """Runs the steps in their order and ends the program: with 1 if any of them failed."""
    failed = False
    for step in steps:
        try:
            step()
            failed |= report(step.__doc__)
        except Exception as failure:  # whatever it is, the other steps are wanted as well
            failed |= report(step.__doc__, failure)
            if step is steps[0]:
                break  # no connection
    sys.exit(1 if failed else 0)
