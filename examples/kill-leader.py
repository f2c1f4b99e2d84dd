#!/usr/bin/env python3
"""Kills the leader with SIGKILL again and again while clients write, starts it again each time, and says how long clients
waited, and whether everything that was acknowledged is there: on every server, once, with one state root.

    cargo build --release && examples/kill-leader.py
    examples/kill-leader.py --method poa --servers 4 --kills 20 --stop     (SIGSTOP for 10 s, then SIGCONT)

The pause of a kill is the longest time in the 5 s after it in which no write was acknowledged to anybody: what a client
with a retry sees. Needs Python 3.9 and nothing else. Everything is in a temporary folder and gone in the end.
"""

import argparse
import http.client
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time

HTTP, PEERS_READY = 4000, 30.0


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", default="raft", choices=["raft", "poa"])
    parser.add_argument("--servers", type=int, default=3)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--clients", type=int, default=8, help="each writes, waits 20 ms, and writes again")
    parser.add_argument("--stop", action="store_true", help="SIGSTOP for 10 s instead of SIGKILL")
    parser.add_argument("--rota", default="target/release/rota")
    parser.add_argument("--port-offset", type=int, default=970)
    return parser.parse_args()


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

    def start(self, number):
        log = open(f"{self.folder}/killed-{number}.log", "a")
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
        """The server that most servers say leads, once it says so itself."""
        end = time.monotonic() + PEERS_READY
        while time.monotonic() < end:
            said = []
            for number in self.processes:
                try:
                    leader = self.status(number).get("leader")
                    said.append(leader and leader["number"])
                except (OSError, ValueError, KeyError, http.client.HTTPException):
                    said.append(None)
            for number in self.processes:
                if said.count(number) * 2 > len(said) and said[number - 1] == number:
                    return number
            time.sleep(0.05)
        sys.exit("there is no leader")

    def stop(self):
        for process in self.processes.values():
            process.send_signal(signal.SIGCONT)
            process.terminate()
        for process in self.processes.values():
            process.wait()


class Clients:
    """Writers: each inserts a number of its own every 20 ms, and on trouble the same again elsewhere."""

    def __init__(self, cluster, count):
        self.cluster, self.lock = cluster, threading.Lock()
        self.acknowledged, self.times, self.retries, self.going = [], [], 0, True
        self.threads = [threading.Thread(target=self.write, args=(number,), daemon=True) for number in range(count)]
        for thread in self.threads:
            thread.start()

    def write(self, client):
        server, connection, written = client % self.cluster.asked.servers + 1, None, 0
        while self.going:
            key = client * 10_000_000 + written
            body = json.dumps([[f"INSERT INTO killed VALUES ({key}) ON CONFLICT DO NOTHING"]])
            while self.going:
                try:
                    if connection is None:
                        connection = http.client.HTTPConnection("127.0.0.1", self.cluster.port(server), timeout=2)
                    connection.request("POST", "/db/execute", body, {"Content-Type": "application/json"})
                    answer = json.loads(connection.getresponse().read())
                    if "error" not in answer and "error" not in answer["results"][0]:
                        break
                except (OSError, ValueError, http.client.HTTPException):
                    pass
                if connection is not None:
                    connection.close()
                connection, server = None, server % self.cluster.asked.servers + 1
                with self.lock:
                    self.retries += 1
                time.sleep(0.01)
            else:
                return
            with self.lock:
                self.acknowledged.append(key)
                self.times.append(time.monotonic())
            written += 1
            time.sleep(0.02)

    def end(self):
        self.going = False
        for thread in self.threads:
            thread.join()


def ask(cluster, number, sql):
    connection = http.client.HTTPConnection("127.0.0.1", cluster.port(number), timeout=30)
    path = "/db/query" if sql.startswith("SELECT") else "/db/execute"
    connection.request("POST", path, json.dumps([sql]), {"Content-Type": "application/json"})
    answer = json.loads(connection.getresponse().read())
    connection.close()
    return answer["results"][0]


def check(cluster, acknowledged):
    """Every acknowledged number on every server, and one root for one height."""
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
    if len(roots) != 1:
        sys.exit(f"DIFFERENT: {roots}")
    return roots.pop()


def main():
    asked = arguments()
    if not os.access(asked.rota, os.X_OK):
        sys.exit(f"{asked.rota} is not there: cargo build --release")
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
    for kill in range(asked.kills):
        leader = cluster.leader()
        process, at = cluster.processes[leader], time.monotonic()
        process.send_signal(signal.SIGSTOP if asked.stop else signal.SIGKILL)
        time.sleep(10 if asked.stop else 5)
        with clients.lock:
            around = [at] + [moment for moment in clients.times if at < moment]
        around.append(time.monotonic())
        pauses.append(max(b - a for a, b in zip(around, around[1:])))
        if asked.stop:
            process.send_signal(signal.SIGCONT)
        else:
            process.wait()
            cluster.start(leader)
        print(f"{kill + 1:3}  server {leader}  {pauses[-1] * 1000:6.0f} ms", file=sys.stderr, flush=True)
        time.sleep(2)
    clients.end()
    height, root = check(cluster, clients.acknowledged)
    pauses.sort()
    what = "SIGSTOP for 10 s" if asked.stop else "SIGKILL"
    print(f"{asked.method}, {asked.servers} servers, {asked.clients} clients, {len(pauses)} times {what} to the leader:")
    print(f"pause median {statistics.median(pauses) * 1000:.0f} ms, shortest {pauses[0] * 1000:.0f}, "
          f"longest {pauses[-1] * 1000:.0f}")
    print(f"{len(clients.acknowledged)} writes acknowledged, {clients.retries} tries again; all are on all servers, "
          f"height {height}, root {root[:12]}")
    print(f"{os.cpu_count()} cores, {platform.system()} {platform.release()}, {time.strftime('%Y-%m-%dT%H:%MZ', time.gmtime())}")


if __name__ == "__main__":
    main()
