#!/usr/bin/env python3
"""Takes the leader away again and again while clients write, brings it back each time, and says how long clients waited, and
whether everything that was acknowledged is there: on every server, once, with one state root.

    cargo build --release && examples/kill-leader.py                    SIGKILL; it is started again after 5 s
    examples/kill-leader.py --stop       SIGSTOP for 10 s; then it is asked what it thinks is newest (linearizable reads)
    examples/kill-leader.py --cut        SIGSTOP of all others for 12 s; it must refuse, and nothing it refused may be there
    examples/kill-leader.py --kills 10 --pauses FILE       in pieces: adds these pauses to a file, sums up all that are in it
    examples/kill-leader.py --method poa --servers 4

The pause of a kill is the longest time after it in which no write was acknowledged to anybody: what a client with a retry
sees. The next kill comes when all servers are ready again: of three, one may be away. Behind each pause stands what the
servers logged meanwhile: who stood for election, and who leads. Needs Python 3.9 and nothing else. Everything is in a
temporary folder and gone in the end.
"""

import argparse
import http.client
import json
import os
import platform
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time

HTTP, READY = 4000, 60.0
STOPPED, CUT = 10, 12  # seconds; a write waits for 10
OFFSET = 10_000_000  # client c writes the numbers from c times this on
ELECTION = re.compile(r"term (\d+): (this server stands for election|this server leads)")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", default="raft", choices=["raft", "poa"])
    parser.add_argument("--servers", type=int, default=3)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--clients", type=int, default=8, help="each writes, waits 20 ms, and writes again")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--stop", action="store_true", help="SIGSTOP for 10 s instead of SIGKILL, and linearizable reads")
    kind.add_argument("--cut", action="store_true", help="SIGSTOP of all but the leader (raft)")
    parser.add_argument("--pauses", help="a file with the pauses so far")
    parser.add_argument("--rota", default="target/release/rota")
    parser.add_argument("--port-offset", type=int, default=970)
    return parser.parse_args()


def say(*words):
    print(*words, file=sys.stderr, flush=True)


class Cluster:
    """Servers of `rota dev`, each started by itself, so that one can be killed and come back."""

    def __init__(self, asked, folder):
        self.asked, self.folder, self.processes = asked, folder, {}
        command = [asked.rota, "dev", "--method", asked.method, "--servers", str(asked.servers), "--home", folder,
                   "--port-offset", str(asked.port_offset)]
        made = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for line in made.stdout:
            if "stops them all" in line:
                break
        time.sleep(0.5)
        made.send_signal(signal.SIGINT)
        made.stdout.read()
        if made.wait() != 0:
            sys.exit("rota dev did not make the servers' homes")
        for number in range(1, asked.servers + 1):
            self.start(number)

    def port(self, number):
        return HTTP + number + self.asked.port_offset

    def log(self, number):
        return f"{self.folder}/killed-{number}.log"

    def start(self, number):
        log = open(self.log(number), "a")
        home = f"{self.folder}/server-{number}"
        self.processes[number] = subprocess.Popen([self.asked.rota, "start", "--home", home], stdout=log, stderr=log)

    def status(self, number):
        connection = http.client.HTTPConnection("127.0.0.1", self.port(number), timeout=2)
        try:
            connection.request("GET", "/status")
            return json.loads(connection.getresponse().read())["rota"]
        finally:
            connection.close()

    def leader(self):
        """The leader, once all servers are ready and name the same one."""
        end = time.monotonic() + READY
        while time.monotonic() < end:
            said = set()
            for number in self.processes:
                try:
                    status = self.status(number)
                    leader = status.get("leader")
                    said.add(leader and status["state"] == "ready" and leader["number"])
                except (OSError, ValueError, KeyError, http.client.HTTPException):
                    said.add(None)
            if len(said) == 1 and said != {None}:
                return said.pop()
            time.sleep(0.05)
        sys.exit("the servers do not agree on a leader")

    def marks(self):
        return {number: os.path.getsize(self.log(number)) for number in self.processes}

    def elections(self, marks):
        """What the logs say of elections after these places in them."""
        stood, leads = set(), []
        for number, mark in marks.items():
            with open(self.log(number)) as log:
                log.seek(mark)
                for term, what in ELECTION.findall(log.read()):
                    (stood.add((int(term), number)) if "stands" in what else leads.append((int(term), number)))
        words = [f"server {number} stands in term {term}" for term, number in sorted(stood)]
        words += [f"server {number} leads in term {term}" for term, number in sorted(leads)]
        return ", ".join(words)

    def stop(self):
        for process in self.processes.values():
            process.send_signal(signal.SIGCONT)
            process.terminate()
        for process in self.processes.values():
            process.wait()


class Door:
    """A connection to a server, kept open."""

    def __init__(self, cluster, number, timeout):
        self.address, self.timeout, self.open = ("127.0.0.1", cluster.port(number)), timeout, None

    def ask(self, path, sql):
        """The result, or its error as {"error": …}."""
        try:
            if self.open is None:
                self.open = http.client.HTTPConnection(*self.address, timeout=self.timeout)
                self.open.connect()
            self.open.request("POST", path, json.dumps([sql]), {"Content-Type": "application/json"})
            response = self.open.getresponse()
            text = response.read()
            if response.status == 503:  # in words: nothing was done
                return {"error": text.decode(), "sqlstate": "57P03"}
            answer = json.loads(text)
            return answer["results"][0] if "results" in answer else answer
        except (OSError, ValueError, http.client.HTTPException) as error:
            self.close()
            return {"error": f"no answer: {error!r}", "sqlstate": "-"}

    def close(self):
        if self.open is not None:
            self.open.close()
        self.open = None


class Clients:
    """Writers: each inserts a number of its own every 20 ms, and on trouble the same again elsewhere."""

    def __init__(self, cluster, count):
        self.cluster, self.lock = cluster, threading.Lock()
        self.acknowledged, self.times, self.retries, self.going = [], [], 0, True
        self.newest = [-1] * count
        self.threads = [threading.Thread(target=self.write, args=(number,), daemon=True) for number in range(count)]
        for thread in self.threads:
            thread.start()

    def write(self, client):
        server, written = client % self.cluster.asked.servers + 1, 0
        door = Door(self.cluster, server, 2)
        while self.going:
            key = client * OFFSET + written
            sql = f"INSERT INTO killed VALUES ({key}) ON CONFLICT DO NOTHING"
            while self.going and "error" in door.ask("/db/execute", sql):
                door.close()
                server = server % self.cluster.asked.servers + 1
                door = Door(self.cluster, server, 2)
                with self.lock:
                    self.retries += 1
                time.sleep(0.01)
            if not self.going:
                return
            with self.lock:
                self.acknowledged.append(key)
                self.times.append(time.monotonic())
                self.newest[client] = key
            written += 1
            time.sleep(0.02)

    def pause(self, at):
        with self.lock:
            around = [at] + [moment for moment in self.times if at < moment]
        around.append(time.monotonic())
        return max(b - a for a, b in zip(around, around[1:]))

    def known(self):
        with self.lock:
            return list(self.newest)

    def end(self):
        self.going = False
        for thread in self.threads:
            thread.join()


class Readers:
    """Ask one server for each client's newest number, and compare with what was acknowledged before they asked."""

    def __init__(self, clients, doors, level):
        newest = [f"(SELECT max(id) FROM killed WHERE id < {(number + 1) * OFFSET})" for number in range(len(clients.newest))]
        self.clients, self.path, self.sql = clients, f"/db/query?level={level}&rota", "SELECT " + ", ".join(newest)
        self.fresh, self.stale, self.refused, self.going = 0, [], 0, True
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self.read, args=(door,), daemon=True) for door in doors]
        for thread in self.threads:
            thread.start()

    def read(self, door):
        while self.going:
            known = self.clients.known()
            answer = door.ask(self.path, self.sql)
            with self.lock:
                if "values" not in answer:
                    self.refused += 1
                    continue
                seen = [number if number is not None else -1 for number in answer["values"][0]]
                missing = [(a, b) for a, b in zip(known, seen) if b < a]
                if missing:
                    self.stale.append(missing)
                else:
                    self.fresh += 1

    def end(self):
        self.going = False
        for thread in self.threads:
            thread.join()
        return self.fresh, len(self.stale), self.refused


def ask(cluster, number, sql):
    return Door(cluster, number, 30).ask("/db/query" if sql.startswith("SELECT") else "/db/execute", sql)


def check(cluster, acknowledged, refused):
    """Every acknowledged number on every server, none that was refused, and one root for one height."""
    wanted, end = set(acknowledged), time.monotonic() + 60
    while True:
        states = {number: cluster.status(number) for number in cluster.processes}
        roots = {(state["applied"]["height"], state["applied"]["root"]) for state in states.values()}
        if len(roots) == 1 or time.monotonic() > end:
            break
        time.sleep(0.1)
    for number in cluster.processes:
        rows = {row[0] for row in ask(cluster, number, "SELECT id FROM killed").get("values", [])}
        missing = wanted - rows
        if missing:
            sys.exit(f"LOST: server {number} lacks {len(missing)} acknowledged writes: {sorted(missing)[:5]}")
        if refused & rows:
            sys.exit(f"WRITTEN: server {number} has {len(refused & rows)} writes that were refused")
    if len(roots) != 1:
        sys.exit(f"DIFFERENT: {roots}")
    return roots.pop()


def kill(cluster, clients, leader):
    process, at = cluster.processes[leader], time.monotonic()
    process.send_signal(signal.SIGKILL)
    time.sleep(5)
    pause = clients.pause(at)
    process.wait()
    cluster.start(leader)
    return pause, ""


def stop(cluster, clients, leader):
    """Reads are waiting at the stopped server when it goes on: the first thing that it sees."""
    doors = [Door(cluster, leader, 30) for _ in range(8)]
    for door in doors:
        door.ask("/db/query", "SELECT 1")
    process, at = cluster.processes[leader], time.monotonic()
    process.send_signal(signal.SIGSTOP)
    time.sleep(STOPPED - 0.1)
    pause = clients.pause(at)
    readers = [Readers(clients, doors[:6], "linearizable"), Readers(clients, doors[6:], "none")]
    time.sleep(0.1)
    process.send_signal(signal.SIGCONT)
    time.sleep(2)
    (fresh, stale, refused), (_, old, _) = [reader.end() for reader in readers]
    if stale:
        sys.exit(f"STALE: {stale} linearizable reads of server {leader} lacked acknowledged writes: {readers[0].stale[:3]}")
    return pause, f"{fresh} linearizable reads fresh, none stale, {refused} refused; of local ones {old} stale"


class Cut:
    """What a leader says whose followers all stand still."""

    refused, number = set(), 0

    def __call__(self, cluster, clients, leader):
        others = [process for number, process in cluster.processes.items() if number != leader]
        at = time.monotonic()
        for process in others:
            process.send_signal(signal.SIGSTOP)
        said, threads, end = {}, [], at + CUT
        while time.monotonic() < end:
            Cut.number += 1
            thread = threading.Thread(target=self.write, args=(cluster, leader, Cut.number, at, said), daemon=True)
            thread.start()
            threads.append(thread)
            time.sleep(0.1)
        read = Door(cluster, leader, 30).ask("/db/query?level=linearizable&rota", "SELECT count(*) FROM killed")
        role = cluster.status(leader)
        acknowledged = [moment for moment in clients.times if moment > at + 0.05]
        for process in others:
            process.send_signal(signal.SIGCONT)
        for thread in threads:
            thread.join()
        pause = clients.pause(at)
        refusals = sorted((sent, answered) for sent, answered, code in said.values() if code == "57P03")
        unknown = [answered - sent for sent, answered, code in said.values() if code == "40003"]
        late = [code for sent, _, code in said.values() if sent < CUT - 1 and code not in ("57P03", "40003", "written")]
        if acknowledged or "values" in read or role["role"] == "leader" or late or not refusals:
            sys.exit(f"NOT REFUSED: {len(acknowledged)} acknowledged, read {read}, role {role['role']}, {late}")
        return pause, (f"refused from {refusals[0][1]:.2f} s on, each after at most "
                       f"{max(b - a for a, b in refusals):.2f} s; a read: {read.get('sqlstate')}; "
                       f"{len(unknown)} unknown, after {max(unknown, default=0):.1f} s; state {role['state']!r}")

    def write(self, cluster, leader, number, at, said):
        sent = time.monotonic() - at
        answer = Door(cluster, leader, 30).ask("/db/execute?rota", f"INSERT INTO killed VALUES (-{number})")
        code = answer.get("sqlstate", answer["error"]) if "error" in answer else "written"
        said[number] = (sent, time.monotonic() - at, code)
        if code == "57P03":
            Cut.refused.add(-number)


def main():
    asked = arguments()
    if not os.access(asked.rota, os.X_OK):
        sys.exit(f"{asked.rota} is not there: cargo build --release")
    if asked.cut and asked.method != "raft":
        sys.exit("--cut is about raft's leader")
    with tempfile.TemporaryDirectory(prefix="kill-leader.") as folder:
        cluster = Cluster(asked, f"{folder}/cluster")
        try:
            run(asked, cluster)
        finally:
            cluster.stop()


def run(asked, cluster):
    cluster.leader()
    ask(cluster, 1, "CREATE TABLE killed (id INTEGER PRIMARY KEY)")
    clients = Clients(cluster, asked.clients)
    time.sleep(2)
    pauses = []
    take_away, what = (stop, f"SIGSTOP for {STOPPED} s to the leader") if asked.stop else (kill, "SIGKILL to the leader")
    if asked.cut:
        take_away, what = Cut(), f"SIGSTOP for {CUT} s to all but the leader"
    for turn in range(asked.kills):
        leader = cluster.leader()
        marks = cluster.marks()
        pause, more = take_away(cluster, clients, leader)
        pauses.append(pause)
        say(f"{turn + 1:3}  server {leader}  {pause * 1000:6.0f} ms  {'; '.join(filter(None, [more, cluster.elections(marks)]))}")
        time.sleep(2)
    clients.end()
    height, root = check(cluster, clients.acknowledged, Cut.refused)
    if asked.pauses:
        with open(asked.pauses, "a+") as kept:
            kept.writelines(f"{pause:.4f}\n" for pause in pauses)
            kept.seek(0)
            pauses = [float(line) for line in kept]
    pauses.sort()
    print(f"{asked.method}, {asked.servers} servers, {asked.clients} clients, {len(pauses)} times {what}:")
    print(f"pause median {statistics.median(pauses) * 1000:.0f} ms, shortest {pauses[0] * 1000:.0f}, "
          f"longest {', '.join(f'{pause * 1000:.0f}' for pause in pauses[-5:])}")
    print(f"{len(clients.acknowledged)} writes acknowledged, {clients.retries} tries again; all are on all servers, "
          f"height {height}, root {root[:12]}")
    print(f"{os.cpu_count()} cores, {platform.system()} {platform.release()}, {time.strftime('%Y-%m-%dT%H:%MZ', time.gmtime())}")


if __name__ == "__main__":
    main()
