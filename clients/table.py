"""Writes what the programs' runs have shown into docs/clients.md, between its markers.

    table.py RESULTS [--check]

RESULTS is a folder with a file for each program: the lines that it printed. With --check nothing is
written, and it is an error if the document would change.
"""

import difflib
import json
import re
import sys
from pathlib import Path

HERE = Path(__file__).parent
DOCUMENT = HERE.parent / "docs" / "clients.md"
MARKS = "<!-- begin: written by clients/table.py from the runs -->\n", "<!-- end -->\n"

SIGNS = {"ok": "✓", "FAIL": "✗", "none": "–"}


def pinned(path, pattern):
    """The version that this file pins."""
    return re.search(pattern, (HERE / path).read_text(), re.S).group(1)


def from_pip(name):
    return pinned("python/requirements.txt", rf"(?m)^{re.escape(name)}==([0-9.]+)")


def from_npm(name):
    lock = json.loads((HERE / "javascript/package-lock.json").read_text())
    return lock["packages"][f"node_modules/{name}"]["version"]


def from_cargo(name):
    return pinned("rust/Cargo.lock", rf'name = "{name}"\nversion = "([0-9.]+)"')


PGX = pinned("go/go.mod", r"pgx/v5 v([0-9.]+)")
# The programs in the order of the table: file of results, language, name and version.
DRIVERS = [
    ("psycopg", "Python", f"psycopg {from_pip('psycopg[binary]')}"),
    ("asyncpg", "Python", f"asyncpg {from_pip('asyncpg')}"),
    ("sqlalchemy", "Python", f"SQLAlchemy {from_pip('SQLAlchemy')}"),
    ("django", "Python", f"Django {from_pip('Django')}"),
    ("node-postgres", "JavaScript", f"node-postgres {from_npm('pg')}"),
    ("drizzle", "JavaScript", f"Drizzle {from_npm('drizzle-orm')}"),
    ("prisma", "JavaScript", f"Prisma {from_npm('prisma')}"),
    ("pgx", "Go", f"pgx {PGX}"),
    ("database-sql", "Go", f"database/sql with pgx {PGX}"),
    ("jdbc", "Java", f"JDBC {pinned('java/pom.xml', '<artifactId>postgresql<.*?<version>([0-9.]+)')}"),
    ("tokio-postgres", "Rust", f"tokio-postgres {from_cargo('tokio-postgres')}"),
    ("sqlx", "Rust", f"sqlx {from_cargo('sqlx')}"),
]
# The same for programs that come over HTTP.
HTTP_DRIVERS = [
    ("libsql", "JavaScript", f"@libsql/client {from_npm('@libsql/client')}"),
    ("drizzle-libsql", "JavaScript", f"Drizzle {from_npm('drizzle-orm')} on it"),
    ("pyrqlite", "Python", f"pyrqlite {from_pip('pyrqlite')}"),
    ("rqlite-js", "JavaScript", f"rqlite-js {from_npm('rqlite-js')}"),
    ("gorqlite", "Go", f"gorqlite {pinned('go/go.mod', 'gorqlite v[0-9.]+-([0-9]{8})')}"),
]
TOOLS = [("psql", "psql"), ("pgbench", "pgbench"), ("sysbench", "sysbench")]


def results(path):
    """What a program printed: (sign, reason) by step, in the order of the steps."""
    found = {}
    for line in path.read_text().splitlines():
        if match := re.fullmatch(r"(ok|FAIL|none) ([^:]+)(?:: (.*))?", line):
            word, step, reason = match.groups()
            found[step] = (SIGNS[word], reason if word == "none" else None)
    return found


def drivers_table(folder, drivers):
    tried = {file: results(folder / file) for file, _, _ in drivers}
    steps = list(dict.fromkeys(step for found in tried.values() for step in found))
    everywhere = [step for step in steps if sum(step in found for found in tried.values()) > 1]
    lines = [
        "| | | " + " | ".join(everywhere) + " |",
        "|---" * (len(everywhere) + 2) + "|",
    ]
    notes = []
    for file, language, name in drivers:
        found = tried[file]
        signs = [found.get(step, ("", None))[0] for step in everywhere]
        lines.append(f"| {language} | {name} | " + " | ".join(signs) + " |")
        for step, (sign, reason) in found.items():
            if reason:
                notes.append(f"- {step}: {reason}.")
            elif step not in everywhere:
                notes.append(f"- {sign} {step} ({name})")
    return lines + [""] + notes


def tools_table(folder):
    lines = ["| tool | |", "|---|---|"]
    for file, name in TOOLS:
        found = results(folder / file)
        shown = " · ".join(f"{sign} {step}" for step, (sign, _) in found.items())
        lines.append(f"| {name} | {shown} |".replace("\\", "\\\\"))
    return lines


def main():
    folder = Path(sys.argv[1])
    text = DOCUMENT.read_text()
    before, rest = text.split(MARKS[0])
    _, after = rest.split(MARKS[1])
    parts = ["## Drivers", ""] + drivers_table(folder, DRIVERS)
    parts += ["", "## Over HTTP", ""] + drivers_table(folder, HTTP_DRIVERS)
    parts += ["", "## Tools", ""] + tools_table(folder)
    written = before + MARKS[0] + "\n" + "\n".join(parts) + "\n\n" + MARKS[1] + after
    if "--check" not in sys.argv:
        DOCUMENT.write_text(written)
    elif written != text:
        lines = (each.splitlines(keepends=True) for each in (text, written))
        sys.stdout.writelines(difflib.unified_diff(*lines, "docs/clients.md", "the runs", n=0))
        sys.exit("docs/clients.md is not what the runs show: .ci/clients writes it")


main()
