"""pyrqlite: the example of its README, and then a login, a transaction and errors."""

import base64
import ssl

import pyrqlite.dbapi2 as dbapi2

from steps import HTTP, eventually, expect, login, run

HOST, PORT = HTTP[0]


def query(sql, parameters=None, **options):
    """All rows, each as a tuple."""
    host, port = options.pop("server", HTTP[0])
    connection = dbapi2.connect(host=host, port=port, **options)
    try:
        with connection.cursor() as cursor:
            cursor.execute(sql, parameters)
            return [tuple(row) for row in cursor.fetchall()]
    finally:
        connection.close()


def failure(sql, parameters=None, **options):
    """What the driver says of an error."""
    try:
        query(sql, parameters, **options)
    except dbapi2.Error as error:
        return str(error)
    raise AssertionError(f"no error: {sql}")


def connect():
    """connect"""
    expect(query("SELECT 'ö' AS x"), [("ö",)])


def quick_start():
    """quick start"""
    query("DROP TABLE IF EXISTS foo")
    found = []

    # Connect to the database
    connection = dbapi2.connect(
        host=HOST,
        port=PORT,
    )

    try:
        with connection.cursor() as cursor:
            cursor.execute('CREATE TABLE foo (id integer not null primary key, name text)')
            cursor.executemany('INSERT INTO foo(name) VALUES(?)', seq_of_parameters=(('a',), ('b',)))

        with connection.cursor() as cursor:
            # Read a single record with qmark parameter style
            sql = "SELECT `id`, `name` FROM `foo` WHERE `name`=?"
            cursor.execute(sql, ('a',))
            result = cursor.fetchone()
            found.append(dict(result))
            # Read a single record with named parameter style
            sql = "SELECT `id`, `name` FROM `foo` WHERE `name`=:name"
            cursor.execute(sql, {'name': 'b'})
            result = cursor.fetchone()
            found.append(dict(result))
    finally:
        connection.close()

    expect(found, [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}])


def types():
    """types"""
    query("DROP TABLE IF EXISTS pyrqlite_item")
    query("CREATE TABLE pyrqlite_item (name TEXT, big INTEGER, ratio REAL, raw BLOB, note TEXT)")
    values = ("première 'x'", 9_007_199_254_740_993, 0.1, b"\x00\x01\xff", None)
    query("INSERT INTO pyrqlite_item VALUES (?, ?, ?, ?, ?)", values)
    name, big, ratio, raw, note = query("SELECT * FROM pyrqlite_item")[0]
    expect((name, big, ratio, note), values[:3] + values[4:])
    # The driver decodes a BLOB where it knows its type.
    expect(raw if isinstance(raw, bytes) else base64.b64decode(raw), values[3])


def row_counts():
    """row counts"""
    connection = dbapi2.connect(host=HOST, port=PORT)
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO foo(name) VALUES('c')")
        expect(cursor.lastrowid, 3)
        cursor.execute("UPDATE foo SET name = 'd' WHERE id IN (2, 3)")
        expect(cursor.rowcount, 2)
        cursor.execute("DELETE FROM foo WHERE id = 3")
        expect(cursor.rowcount, 1)
    connection.close()


def transaction():
    """transaction"""
    connection = dbapi2.connect(host=HOST, port=PORT)
    with connection.cursor() as cursor:
        # The driver sends all of them as one transaction, and logs why it failed.
        cursor.executemany("INSERT INTO foo(id, name) VALUES(?, ?)", ((7, "x"), (1, "again")))
    connection.close()
    expect(query("SELECT count(*) FROM foo WHERE id = 7"), [(0,)])


def levels():
    """levels"""
    connection = dbapi2.connect(host=HOST, port=PORT)
    for level in ("none", "weak", "linearizable", "strong"):
        with connection.cursor() as cursor:
            cursor.execute("SELECT name FROM foo WHERE id = 1", consistency=level)
            expect(tuple(cursor.fetchone()), ("a",))
    connection.close()


def unique():
    """unique violation"""
    assert "UNIQUE constraint failed: foo.id" in failure("INSERT INTO foo(id) VALUES(1)")
    assert "no such table: absent" in failure("SELECT * FROM absent")


def password():
    """password over TLS"""
    user, secret, authority = login()
    context = ssl.create_default_context(cafile=authority)
    options = {"scheme": "https", "ssl_context": context, "user": user}
    expect(query("SELECT name FROM foo WHERE id = 1", password=secret, **options), [("a",)])
    assert "401" in failure("SELECT 1", password="wrong", **options)


def another_server():
    """another server"""
    sql = "SELECT name FROM foo WHERE id = 1"
    assert eventually(lambda: query(sql, server=HTTP[-1]) == [("a",)]), "the rows are not there"


run([
    connect, quick_start, types, row_counts, transaction, levels, unique, password, another_server,
])
