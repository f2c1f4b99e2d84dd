"""SQLAlchemy 2 on psycopg: the same steps as every program here, with mapped classes and Core."""

import threading
from contextlib import contextmanager
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, DateTime, ForeignKey, Numeric, create_engine, delete
from sqlalchemy import func, inspect, insert as insert_into, select, text, update
from sqlalchemy.dialects.postgresql import JSONB, insert as upsert
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, ProgrammingError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

from steps import COUNT_FOR_EVER, COUNT_TO, IS_POSTGRESQL, ITEM, LARGE, URLS
from steps import eventually, expect, run, soon


def engine_for(url):
    return create_engine(url.replace("postgresql://", "postgresql+psycopg://"))


engine = engine_for(URLS[0])


class Base(DeclarativeBase):
    pass


class Shelf(Base):
    __tablename__ = "sqlalchemy_shelf"
    id: Mapped[int] = mapped_column(primary_key=True)
    label: Mapped[str] = mapped_column(unique=True)
    items: Mapped[list["Item"]] = relationship(back_populates="shelf")


class Item(Base):
    __tablename__ = "sqlalchemy_item"
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    shelf_id: Mapped[int | None] = mapped_column(ForeignKey(Shelf.id), index=True)
    big: Mapped[int | None] = mapped_column(BigInteger)
    fine: Mapped[bool | None]
    price: Mapped[Decimal | None] = mapped_column(Numeric(10, 2))
    ratio: Mapped[float | None]
    seen: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    day: Mapped[date | None]
    ref: Mapped[UUID | None]
    doc: Mapped[Any | None] = mapped_column(JSONB(none_as_null=True))
    raw: Mapped[bytes | None]
    note: Mapped[str | None]
    shelf: Mapped[Shelf | None] = relationship(back_populates="items")


class Account(Base):
    __tablename__ = "sqlalchemy_account"
    id: Mapped[int] = mapped_column(primary_key=True)
    balance: Mapped[int] = mapped_column(BigInteger)


def names(pattern="%"):
    with Session(engine) as session:
        return session.scalar(select(func.count()).where(Item.name.like(pattern)))


def sqlstate(error):
    return getattr(error.orig, "sqlstate", None)


@contextmanager
def refused(connection, code, error=DBAPIError):
    """The block must end in this error, and the connection must be usable afterwards."""
    try:
        yield
    except error as raised:
        expect(sqlstate(raised), code)
        connection.rollback()
    else:
        raise AssertionError(f"no {code}")
    expect(connection.execute(text("SELECT 1")).scalar(), 1)
    connection.rollback()


def connect():
    """connect"""
    with engine.connect() as connection:
        expect(connection.execute(text("SELECT 'ö'")).scalar(), "ö")


def version():
    """version"""
    with engine.connect() as connection:
        assert connection.dialect.server_version_info >= (13,)


def schema():
    """schema"""
    Base.metadata.drop_all(engine)
    Base.metadata.create_all(engine)
    Base.metadata.create_all(engine)  # finds them all there


def insert():
    """insert"""
    with Session(engine) as session:
        shelf = Shelf(label="first", items=[Item(**ITEM), Item(name="second")])
        session.add(shelf)
        session.commit()
        assert shelf.id and all(item.id and item.shelf_id == shelf.id for item in shelf.items)


def batch():
    """batch"""
    with Session(engine) as session:
        added = [Item(name=f"batch {i}") for i in range(100)]
        session.add_all(added)
        session.commit()
        assert len({item.id for item in added}) == 100
    with engine.begin() as connection:
        connection.execute(insert_into(Item), [{"name": f"core {i}"} for i in range(20)])
        change = upsert(Item).values(name="core 0", note="upserted")
        change = change.on_conflict_do_update(
            index_elements=[Item.name], set_={"note": change.excluded.note}
        )
        connection.execute(change)
    expect(names(), 122)


def types():
    """types"""
    with Session(engine) as session:
        item = session.scalars(select(Item).where(Item.name == ITEM["name"])).one()
        for column, value in ITEM.items():
            expect(getattr(item, column), value)
        for column in ("big", "price", "seen", "day", "ref"):
            found = select(Item.name).where(getattr(Item, column) == ITEM[column])
            expect(session.scalar(found), ITEM["name"])
        expect([item.name for item in item.shelf.items], [ITEM["name"], "second"])


def nulls():
    """nulls"""
    with Session(engine) as session:
        item = session.scalars(select(Item).where(Item.name == "second")).one()
        expect([getattr(item, column) for column in ITEM if column != "name"], [None] * 9)
        expect(session.scalar(select(func.count()).where(Item.note.is_(None))), 121)


def row_counts():
    """row counts"""
    with engine.begin() as connection:
        changed = connection.execute(update(Item).where(Item.name.like("batch %")).values(note="x"))
        expect(changed.rowcount, 100)
        gone = connection.execute(delete(Item).where(Item.name.like("core %")))
        expect(gone.rowcount, 20)


def unique():
    """unique violation"""
    with engine.connect() as connection, refused(connection, "23505", IntegrityError):
        connection.execute(insert_into(Item).values(name="second"))


def commit():
    """commit"""
    with Session(engine) as session, session.begin():
        session.add(Item(name="committed"))
        session.flush()
        expect(session.scalar(select(func.count()).where(Item.name == "committed")), 1)
    expect(names("committed"), 1)


def rollback():
    """rollback"""
    with Session(engine) as session:
        session.add(Item(name="rolled back"))
        session.flush()
        session.rollback()
    expect(names("rolled back"), 0)


def savepoint():
    """savepoint"""
    with Session(engine) as session, session.begin():
        session.add(Item(name="before the savepoint"))
        try:
            with session.begin_nested():
                session.add(Item(name="after the savepoint"))
                session.flush()
                session.add(Item(name="second"))
                session.flush()
        except IntegrityError:
            pass
    expect(names("%savepoint"), 1)


def ddl():
    """DDL rolled back"""
    with engine.connect() as connection:
        connection.execute(text("CREATE TABLE sqlalchemy_gone (id INT)"))
        connection.execute(text("INSERT INTO sqlalchemy_gone VALUES (1)"))
        connection.rollback()
        with refused(connection, "42P01", ProgrammingError):
            connection.execute(text("SELECT * FROM sqlalchemy_gone"))
    assert not inspect(engine).has_table("sqlalchemy_gone")


def add(session, amount, between=lambda: None):
    """Reads both balances and writes both."""
    accounts = session.scalars(select(Account).order_by(Account.id)).all()
    between()
    for account in accounts:
        account.balance += amount


def conflict():
    """conflict"""
    with Session(engine) as session:
        session.add_all([Account(balance=100), Account(balance=200)])
        session.commit()
    serializable = engine.execution_options(isolation_level="SERIALIZABLE")
    conflicts = 0

    def interfere():
        if conflicts == 0:
            with Session(serializable) as other, other.begin():
                add(other, 10)

    while True:
        try:
            with Session(serializable) as session, session.begin():
                add(session, 5, interfere)
            break
        except OperationalError as error:
            expect(sqlstate(error), "40001")
            conflicts += 1
            assert conflicts < 10, "10 conflicts, but nobody else writes any more"
    assert conflicts >= 1, "the balances were read, changed by another and written: no 40001"
    with Session(engine) as session:
        balances = session.scalars(select(Account.balance).order_by(Account.id)).all()
    expect(balances, [115, 215])


def large():
    """large result"""
    with engine.connect().execution_options(yield_per=1000) as connection:
        rows = connection.execute(text(COUNT_TO + " SELECT i, 'row ' || i FROM n"))
        total = sum(i for part in rows.partitions() for i, name in part if name == f"row {i}")
    expect(total, LARGE * (LARGE + 1) // 2)


def prepared():
    """prepared"""
    # psycopg prepares what it has seen five times.
    with Session(engine) as session:
        for i in range(20):
            found = session.execute(select(Item.name, Item.note).where(Item.name == f"batch {i}"))
            expect(tuple(found.one()), (f"batch {i}", "x"))


def cancel():
    """cancel"""
    # Outside of a transaction, whose statements may together take so many steps and no more.
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        timer = threading.Timer(0.5, connection.connection.driver_connection.cancel_safe)
        timer.start()
        with soon(), refused(connection, "57014"):
            connection.execute(text(COUNT_FOR_EVER))
        timer.join()


def listen():
    """LISTEN"""
    with engine.connect() as connection:
        if IS_POSTGRESQL:
            connection.execute(text("LISTEN rota"))
        else:
            with refused(connection, "0A000"):
                connection.execute(text("LISTEN rota"))


def copy():
    """COPY"""
    # SQLAlchemy has no COPY of its own; the driver beneath it has.
    connection = engine.raw_connection()
    with connection.cursor() as cursor:
        with cursor.copy("COPY sqlalchemy_item (name, big) FROM STDIN") as lines:
            for i in range(1000):
                lines.write_row((f"copy {i}", i))
    connection.commit()
    connection.close()
    expect(names("copy %"), 1000)


def another_server():
    """another server"""
    global engine
    engine.dispose()
    engine = engine_for(URLS[-1])
    assert eventually(lambda: names("copy %") == 1000), "the rows are not there"


def reflection():
    """reflection"""
    inspector = inspect(engine)
    columns = {column["name"]: column for column in inspector.get_columns("sqlalchemy_item")}
    expect(sorted(columns), sorted(column.name for column in Item.__table__.columns))
    expect(columns["name"]["nullable"], False)
    expect(inspector.get_pk_constraint("sqlalchemy_item")["constrained_columns"], ["id"])
    foreign = inspector.get_foreign_keys("sqlalchemy_item")
    expect([key["referred_table"] for key in foreign], ["sqlalchemy_shelf"])
    indexed = [index["column_names"] for index in inspector.get_indexes("sqlalchemy_item")]
    assert ["shelf_id"] in indexed, indexed


run([
    connect, version, schema, insert, batch, types, nulls, row_counts, unique, commit, rollback,
    savepoint, ddl, conflict, large, prepared, cancel, listen, copy, another_server,
    reflection,
])
