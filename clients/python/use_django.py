"""Django: migrations and the ORM of the project in `shop`, the same steps as every program here."""

import os
import threading
from contextlib import contextmanager

import django
from django.core.management import call_command
from django.db import connection, connections, transaction
from django.db.models import Count, F, Max
from django.db.utils import Error, IntegrityError, NotSupportedError, OperationalError
from django.db.utils import ProgrammingError

from steps import COUNT_FOR_EVER, COUNT_TO, IS_POSTGRESQL, ITEM, LARGE
from steps import eventually, expect, run, soon

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
django.setup()

from django.contrib.auth.models import User  # noqa: E402 (models exist after setup)
from shop.models import Account, Item, Shelf  # noqa: E402


def execute(sql):
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall() if cursor.description else None


def sqlstate(error):
    return getattr(error.__cause__, "sqlstate", None)


@contextmanager
def refused(code, error=Error):
    """The block must end in this error, and the connection must be usable afterwards."""
    try:
        yield
    except error as raised:
        expect(sqlstate(raised), code)
    else:
        raise AssertionError(f"no {code}")
    expect(execute("SELECT 1"), [(1,)])


def connect():
    """connect"""
    expect(execute("SELECT 'ö'"), [("ö",)])


def version():
    """version"""
    connection.check_database_version_supported()
    assert connection.pg_version >= 140000, connection.pg_version


def schema():
    """schema"""
    call_command("migrate", "shop", "zero", verbosity=0)
    call_command("migrate", "shop", verbosity=0)
    call_command("migrate", "shop", verbosity=0, check_unapplied=True)


def insert():
    """insert"""
    shelf = Shelf.objects.create(label="first")
    first = Item.objects.create(shelf=shelf, **ITEM)
    second, created = Item.objects.get_or_create(name="second", defaults={"shelf": shelf})
    assert created and second.pk > first.pk > 0


def batch():
    """batch"""
    added = Item.objects.bulk_create(Item(name=f"batch {i}") for i in range(100))
    assert len({item.pk for item in added}) == 100
    Item.objects.bulk_create(
        [Item(name="batch 0", note="upserted"), Item(name="bulk")],
        update_conflicts=True, unique_fields=["name"], update_fields=["note"],
    )
    for item in added:
        item.big = item.pk
    expect(Item.objects.bulk_update(added, ["big"]), 100)
    expect(Item.objects.count(), 103)


def types():
    """types"""
    item = Item.objects.get(name=ITEM["name"])
    for column, value in ITEM.items():
        found = getattr(item, column)
        expect(bytes(found) if column == "raw" else found, value)
    for column in ("big", "price", "seen", "day", "ref"):
        expect(Item.objects.filter(**{column: ITEM[column]}).get().name, ITEM["name"])


def nulls():
    """nulls"""
    item = Item.objects.get(name="second")
    expect([getattr(item, column) for column in ITEM if column != "name"], [None] * 9)
    expect(Item.objects.filter(ref__isnull=False).count(), 1)


def row_counts():
    """row counts"""
    expect(Item.objects.filter(name__startswith="batch ").update(note="x", big=F("big") + 1), 100)
    expect(Item.objects.filter(name="bulk").delete(), (1, {"shop.Item": 1}))
    counted = Shelf.objects.annotate(count=Count("items"), highest=Max("items__big")).get()
    expect((counted.count, counted.highest), (2, ITEM["big"]))


def unique():
    """unique violation"""
    with refused("23505", IntegrityError):
        Item.objects.create(name="second")
    with refused("23514", IntegrityError):
        Item.objects.create(name="check", price=-1)


def commit():
    """commit"""
    told = []
    with transaction.atomic():
        Item.objects.create(name="committed")
        assert Item.objects.filter(name="committed").exists()
        transaction.on_commit(lambda: told.append(True))
    expect(told, [True])
    assert Item.objects.filter(name="committed").exists()


def rollback():
    """rollback"""
    with transaction.atomic():
        Item.objects.create(name="rolled back")
        transaction.set_rollback(True)
    assert not Item.objects.filter(name="rolled back").exists()


def savepoint():
    """savepoint"""
    with transaction.atomic():
        Item.objects.create(name="before the savepoint")
        try:
            with transaction.atomic():
                Item.objects.create(name="after the savepoint")
                Item.objects.create(name="second")
        except IntegrityError:
            pass
    expect(Item.objects.filter(name__endswith="savepoint").count(), 1)


def ddl():
    """DDL rolled back"""
    with transaction.atomic():
        execute("CREATE TABLE shop_gone (id INT)")
        execute("INSERT INTO shop_gone VALUES (1)")
        assert "shop_gone" in connection.introspection.table_names()
        transaction.set_rollback(True)
    with refused("42P01", ProgrammingError):
        execute("SELECT * FROM shop_gone")


def add(amount, between=lambda: None):
    """Reads both balances, locking the rows where there are locks, and writes both."""
    accounts = list(Account.objects.order_by("pk"))
    between()
    for account in accounts:
        account.balance += amount
        account.save()


def conflict():
    """conflict"""
    Account.objects.bulk_create([Account(balance=100), Account(balance=200)])
    conflicts = 0

    def from_elsewhere():
        with transaction.atomic():
            add(10)
        connection.close()

    def interfere():
        if conflicts == 0:
            thread = threading.Thread(target=from_elsewhere)
            thread.start()
            thread.join()

    while True:
        try:
            with transaction.atomic():
                add(5, interfere)
            break
        except OperationalError as error:
            expect(sqlstate(error), "40001")
            conflicts += 1
            assert conflicts < 10, "10 conflicts, but nobody else writes any more"
    assert conflicts >= 1, "the balances were read, changed by another and written: no 40001"
    expect(list(Account.objects.order_by("pk").values_list("balance", flat=True)), [115, 215])
    with transaction.atomic():
        account = Account.objects.select_for_update().get(balance=115)
        account.balance = F("balance") + 1
        account.save()
    assert Account.objects.filter(balance=116).exists()


def large():
    """large result"""
    # What does not fit into memory is read in a transaction, with a cursor on the server.
    with transaction.atomic(), connection.chunked_cursor() as cursor:
        cursor.execute(COUNT_TO + " SELECT i, 'row ' || i FROM n")
        total = sum(i for i, name in cursor if name == f"row {i}")
    expect(total, LARGE * (LARGE + 1) // 2)
    expect(sum(1 for _ in Item.objects.iterator(chunk_size=10)), Item.objects.count())


def prepared():
    """prepared"""
    # psycopg prepares what it has seen five times.
    for i in range(20):
        expect(Item.objects.values_list("name", "note").get(name=f"batch {i}"), (f"batch {i}", "x"))


def cancel():
    """cancel"""
    timer = threading.Timer(0.5, connection.connection.cancel_safe)
    timer.start()
    with soon(), refused("57014", OperationalError):
        execute(COUNT_FOR_EVER)
    timer.join()


def listen():
    """LISTEN"""
    if IS_POSTGRESQL:
        execute("LISTEN rota")
    else:
        with refused("0A000", NotSupportedError):
            execute("LISTEN rota")


def copy():
    """COPY"""
    # Django has no COPY of its own; the driver beneath it has.
    with connection.cursor() as cursor:
        with cursor.copy("COPY shop_item (name, big) FROM STDIN") as lines:
            for i in range(1000):
                lines.write_row((f"copy {i}", i))
    expect(Item.objects.filter(name__startswith="copy ").count(), 1000)


def another_server():
    """another server"""
    there = Item.objects.using("other").filter(name__startswith="copy ")
    assert eventually(lambda: there.count() == 1000), "the rows are not there"
    connections.close_all()
    expect(Item.objects.using("other").get(name=ITEM["name"]).doc, ITEM["doc"])


def lookups():
    """Django's lookups"""
    expect(Item.objects.filter(seen__year=2026, day__lt="2024-03-01").count(), 1)
    expect(Item.objects.filter(name__istartswith="PREM", name__iregex="^prem.*e$").count(), 1)
    expect(list(Item.objects.dates("day", "month")), [ITEM["day"].replace(day=1)])


def everything():
    """migrate contrib.auth"""
    call_command("migrate", verbosity=0)
    User.objects.filter(username="ada").delete()
    ada = User.objects.create_user("ada", password="difference")
    assert ada.has_perm("shop.add_item") is False and ada.check_password("difference")


run([
    connect, version, schema, insert, batch, types, nulls, row_counts, unique, commit, rollback,
    savepoint, ddl, conflict, large, prepared, cancel, listen, copy, another_server, lookups,
    everything,
])
