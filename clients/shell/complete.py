"""Types into psql on a terminal, with the Tab key, and looks for what it completes."""

import os
import pty
import select
import sys
import time


def read_until(terminal, wanted, seconds=10):
    seen = b""
    until = time.monotonic() + seconds
    while wanted not in seen:
        left = until - time.monotonic()
        if left <= 0 or not select.select([terminal], [], [], left)[0]:
            sys.exit(f"no {wanted!r} but {seen!r}")
        seen += os.read(terminal, 4096)


process, terminal = pty.fork()
if process == 0:
    os.environ["TERM"] = "vt100"
    os.execlp("psql", "psql", "-X", "-q", "-P", "pager=off", sys.argv[1])
read_until(terminal, b"=")
# A view's name, then a column's: both are asked of the server.
os.write(terminal, b"SELECT * FROM psql_exp\t")
read_until(terminal, b"psql_expensive ")
os.write(terminal, b"WHERE pri\t")
read_until(terminal, b"price ")
os.write(terminal, b"> 1;\n")
read_until(terminal, b"piano")
os.write(terminal, b"\\q\n")
os.waitpid(process, 0)
