#!/usr/bin/env python3
"""Bank transfers with retries: the same program whichever way the servers find out whose turn it is.

    rota dev --method poa                      (or raft, or pow), and in another terminal
    pip install 'psycopg[binary]'
    examples/transfers.py
    examples/transfers.py --clients 16 --transfers 500 postgres://rota@127.0.0.1:5441/rota postgres://…

Clients on all servers move money between accounts. Each transfer is a transaction: it reads two balances, refuses to
overdraw, writes both, and notes what it did. Nothing is locked: who was shown what another one has changed since hears
40001 and tries again. Who hears 40003, or loses the connection while it commits, does not know whether it has worked: it
asks by the transaction's id, at any server, and knows. In the end no money was made or lost, and each transfer that was
acknowledged was made once, on every server.
"""

import argparse
import random
import sys
import threading
import time

import psycopg

# rota dev's servers; of those that are not there none is asked.
SERVERS = [f"postgres://rota@127.0.0.1:{port}/rota" for port in range(5441, 5445)]
TRY_AGAIN = {"40001", "53000", "57P03"}  # nothing was done, and it may work next time
UNKNOWN = "40003"  # signed and sent; it takes effect once or never
BALANCE = 1000


class Unknown(Exception):
    """A transaction that was sent, and was not answered."""

    def __init__(self, transaction):
        super().__init__(transaction)
        self.transaction = transaction


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("servers", nargs="*", metavar="URL", help="PostgreSQL addresses; rota dev's without any")
    parser.add_argument("--accounts", type=int, default=100)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--transfers", type=int, default=40, help="in all")
    return parser.parse_args()


class Bank:
    """The servers, and how to do something at one of them that answers."""

    def __init__(self, servers):
        self.servers = servers
        self.again = 0
        self.lock = threading.Lock()

    def count_again(self):
        with self.lock:
            self.again += 1

    def run(self, work, first=0):
        """Does work(connection) until it has worked once; asks another server when one does not answer."""
        at = first
        while True:
            url = self.servers[at % len(self.servers)]
            try:
                with psycopg.connect(url, autocommit=True, connect_timeout=5) as connection:
                    return work(connection)
            except Unknown as unknown:
                if self.has_worked(unknown.transaction):
                    return None
            except psycopg.Error as error:
                if error.sqlstate and error.sqlstate not in TRY_AGAIN:
                    raise
                if error.sqlstate != "40001":  # a conflict says nothing against this server
                    at += 1
            self.count_again()
            time.sleep(random.uniform(0.01, 0.1))

    def has_worked(self, transaction):
        """What became of a transaction whose answer was lost: from any server, as soon as one knows."""
        at, patience = 0, time.monotonic() + 120
        while True:
            url = self.servers[at % len(self.servers)]
            at += 1
            try:
                with psycopg.connect(url, autocommit=True, connect_timeout=5) as connection:
                    (told,) = connection.execute("SELECT rota_transaction(%s)", (transaction,)).fetchone()
            except psycopg.Error:
                told = "pending"
            if told.startswith("final"):
                return True
            # One that no server knows may still be on its way, for as long as it may be executed: a minute.
            if told.startswith("failed") or (told == "unknown" and time.monotonic() > patience):
                return False
            time.sleep(0.5)


def transfer(connection, name, source, target, amount):
    """One transfer, all of it or nothing; `name` is its own."""
    transaction = None
    try:
        with connection.transaction():
            rows = connection.execute(
                "SELECT id, balance FROM accounts WHERE id IN (%s, %s)", (source, target)
            ).fetchall()
            balances = dict(rows)
            if balances[source] < amount:
                return
            connection.execute("UPDATE accounts SET balance = %s WHERE id = %s", (balances[source] - amount, source))
            connection.execute("UPDATE accounts SET balance = %s WHERE id = %s", (balances[target] + amount, target))
            connection.execute(
                "INSERT INTO transfers (name, source, target, amount) VALUES (%s, %s, %s, %s)",
                (name, source, target, amount),
            )
            (transaction,) = connection.execute("SHOW rota.transaction").fetchone()
    except psycopg.Error as error:
        # Without an SQLSTATE it is the connection that has ended.
        if transaction and (error.sqlstate or UNKNOWN) == UNKNOWN:
            raise Unknown(transaction) from error
        raise


def client(bank, number, names, accounts, done):
    """Makes transfers, each until it has worked, at this client's server as long as that answers."""
    while True:
        try:
            name = names.pop()
        except IndexError:
            return
        source, target = random.sample(range(accounts), 2)
        amount = random.randint(1, BALANCE // 4)
        begun = time.monotonic()
        bank.run(lambda connection: transfer(connection, name, source, target, amount), number)
        done.append(time.monotonic() - begun)


def prepare(bank, accounts):
    def make(connection):
        connection.execute("CREATE TABLE IF NOT EXISTS accounts (id INT PRIMARY KEY, balance INT NOT NULL)")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS transfers (name TEXT PRIMARY KEY, source INT, target INT, amount INT)"
        )
        values = ", ".join(f"({account}, {BALANCE})" for account in range(accounts))
        connection.execute(f"INSERT INTO accounts VALUES {values} ON CONFLICT DO NOTHING")

    bank.run(make)
    for url in bank.servers:
        try:
            while ask(url, lambda it: it.execute("SELECT count(*) FROM accounts").fetchone()[0], 5) < accounts:
                time.sleep(0.02)
        except psycopg.Error:
            pass  # it is down: its clients go elsewhere


def ask(url, look, patience=30):
    """What a server has; its copy may be some blocks behind, and have no tables yet."""
    until = time.monotonic() + patience
    while True:
        try:
            with psycopg.connect(url, autocommit=True) as connection:
                return look(connection)
        except psycopg.Error:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)


def check(bank, names, accounts):
    """Every server has all the money and each of these transfers; whoever overdrew told so and noted nothing."""
    sums = []
    for place, url in enumerate(bank.servers):

        def look(connection):
            money = connection.execute("SELECT sum(balance), count(*) FROM accounts").fetchone()
            made = {name for (name,) in connection.execute("SELECT name FROM transfers").fetchall()}
            return money, made & names

        (money, count), made = ask(url, look)
        if (money, count) != (BALANCE * accounts, accounts):
            sys.exit(f"server {place + 1}: {money} in {count} accounts; it must be {BALANCE * accounts} in {accounts}")
        sums.append(made)
    return sums


def main():
    asked = arguments()
    servers = asked.servers or [url for url in SERVERS if answers(url)]
    if not servers:
        sys.exit("no server answers: run `rota dev`, or give addresses")
    bank = Bank(servers)
    print(f"{len(servers)} servers, {asked.accounts} accounts of {BALANCE}, {asked.clients} clients", flush=True)
    prepare(bank, asked.accounts)
    run = f"{random.getrandbits(64):016x}"
    names = {f"{run}-{number}" for number in range(asked.transfers)}
    left, done, begun = list(names), [], time.monotonic()
    threads = [
        threading.Thread(target=client, args=(bank, number, left, asked.accounts, done), daemon=True)
        for number in range(asked.clients)
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        time.sleep(1)
        print(f"\r{len(done)} of {asked.transfers}, tried again {bank.again} times ", end="", flush=True)
    if len(done) != asked.transfers:
        sys.exit("\na client has failed: see above")
    took = time.monotonic() - begun
    print(f"\r{asked.transfers} transfers in {took:.1f} s, tried again {bank.again} times; the middle one took "
          f"{sorted(done)[len(done) // 2]:.2f} s")
    everywhere = check(bank, names, asked.accounts)
    until = time.monotonic() + 60
    while len({frozenset(made) for made in everywhere}) > 1 and time.monotonic() < until:
        time.sleep(0.5)
        everywhere = check(bank, names, asked.accounts)
    if any(made != everywhere[0] for made in everywhere):
        sys.exit(f"the servers have different transfers: {[len(made) for made in everywhere]}")
    print(f"no money was made or lost; {len(everywhere[0])} transfers are noted once on each of {len(servers)} servers, "
          f"{asked.transfers - len(everywhere[0])} would have overdrawn")


def answers(url):
    try:
        psycopg.connect(url, connect_timeout=2).close()
        return True
    except psycopg.Error:
        return False


if __name__ == "__main__":
    main()
