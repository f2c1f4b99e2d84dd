#!/usr/bin/env bash
# Rota beside PostgreSQL 15 with two synchronous standbys: pgbench's select-only and TPC-B scripts, the same clients, the
# same machine, the same hour, one system up at a time, in alternating order. Prints a Markdown table of medians.
#
#   cargo build --release && examples/beside-postgres.sh
#   examples/beside-postgres.sh --seconds 10 --rounds 5
#   cargo build --release -p rota-node --example plain_reader &&
#       examples/beside-postgres.sh --plain-reader target/release/examples/plain_reader
#
# With a plain reader, its reads of server 1's file stand beside server 1's own, in a second table.
#
# An acknowledged write is fsynced and visible on all three servers in PostgreSQL (synchronous_commit = remote_apply),
# flushed by at least three of four servers and final in Rota. Both have the settings that they come with. Needs Debian's
# package postgresql-15; as root, PostgreSQL runs as the user postgres or nobody. Everything is in a temporary folder and
# gone in the end.
set -euo pipefail

seconds=5
rounds=3
folder_in=${TMPDIR:-/tmp}
rota=${ROTA:-target/release/rota}
binaries=${POSTGRES_BIN:-/usr/lib/postgresql/15/bin}
plain_reader=
clients=(1 8 32)

# Far from the ports of databases that may be running here, and below those that Linux gives to outgoing connections.
postgres_port=25430
port_offset=930
reader_port=25440

fail() {
    echo "beside-postgres.sh: $*" >&2
    exit 1
}
say() { echo "$*" >&2; }

while (($#)); do
    [[ $# -ge 2 ]] || fail "$1 wants a value"
    case $1 in
    --seconds) seconds=$2 ;;
    --rounds) rounds=$2 ;;
    --folder) folder_in=$2 ;;
    --plain-reader) plain_reader=$2 ;;
    *) fail "$1 is unknown: there are --seconds, --rounds, --folder and --plain-reader" ;;
    esac
    shift 2
done

[[ -x $rota ]] || fail "$rota is not there: cargo build --release, or ROTA=path"
[[ -x $binaries/postgres && -x $binaries/pgbench ]] ||
    fail "PostgreSQL 15 is not in $binaries: apt-get install postgresql-15, or POSTGRES_BIN=path"
[[ -z $plain_reader || -x $plain_reader ]] || fail "$plain_reader is not there"
[[ $(stat -f -c %T "$folder_in") != tmpfs ]] ||
    fail "$folder_in is in memory, where a flush costs nothing: --folder on a disk"

folder=$(mktemp -d -p "$folder_in" beside-postgres.XXXXXX)
results=$folder/results
: >"$results"

# What PostgreSQL refuses to do as root, another does.
unprivileged=()
if [[ $(id -u) == 0 ]]; then
    user=$(getent passwd postgres nobody | head -n 1 | cut -d: -f1)
    unprivileged=(runuser -u "$user" --)
    chmod 755 "$folder"
fi
mkdir "$folder/postgres"
if ((${#unprivileged[@]})); then chown "$user" "$folder/postgres"; fi
as_postgres() { (cd "$folder/postgres" && "${unprivileged[@]}" "$@"); }

dev=
reader=
finish() {
    reader_stop
    rota_stop
    postgres_stop immediate
    rm -rf "$folder"
}
trap finish EXIT

# ---- PostgreSQL: a primary and two standbys

pg_ctl() {
    local server=$1
    shift
    as_postgres "$binaries/pg_ctl" -s -w -D "$folder/postgres/$server" -l "$folder/postgres/$server.log" "$@" ||
        fail "PostgreSQL, $server: $(tail -n 5 "$folder/postgres/$server.log")"
}

postgres_make() {
    local data=$folder/postgres port=$postgres_port name
    as_postgres "$binaries/initdb" -D "$data/primary" -U rota -A trust --no-locale -E UTF8 >"$folder/initdb.log"
    as_postgres tee -a "$data/primary/postgresql.conf" >/dev/null <<CONF
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
port = $postgres_port
fsync = on
synchronous_commit = remote_apply
CONF
    pg_ctl primary start
    for name in one two; do
        port=$((port + 1))
        as_postgres "$binaries/pg_basebackup" -D "$data/$name" -R -C -S "$name" --checkpoint=fast \
            -d "host=127.0.0.1 port=$postgres_port user=rota application_name=$name"
        as_postgres tee -a "$data/$name/postgresql.conf" >/dev/null <<<"port = $port"
    done
    # Not before there are standbys: the first write would wait for them.
    as_postgres tee -a "$data/primary/postgresql.conf" >/dev/null \
        <<<"synchronous_standby_names = 'FIRST 2 (one, two)'"
    pg_ctl primary stop
    postgres_start
    psql_in "$(postgres_url)" "CREATE DATABASE bench" >/dev/null
    "$binaries/pgbench" -q -i -s 10 "$(postgres_url bench)" 2>"$folder/pgbench.log"
    postgres_stop fast
}

postgres_url() { echo "postgres://rota@127.0.0.1:$postgres_port/${1:-postgres}"; }
psql_in() { "$binaries/psql" -X -q -A -t -v ON_ERROR_STOP=1 -d "$1" -c "$2"; }

postgres_start() {
    local server synchronous
    for server in primary one two; do pg_ctl "$server" start; done
    local tries=100
    until synchronous=$(psql_in "$(postgres_url)" \
        "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'") && [[ $synchronous == 2 ]]; do
        ((tries--)) || fail "the standbys do not follow: $(tail -n 4 "$folder"/postgres/*.log)"
        sleep 0.1
    done
}

postgres_stop() {
    local server
    for server in primary one two; do
        [[ ! -e $folder/postgres/$server/postmaster.pid ]] || pg_ctl "$server" stop -m "$1"
    done
}

# ---- Rota: a development cluster

rota_url() { echo "postgres://rota@127.0.0.1:$((5440 + ${1:-1} + port_offset))/rota"; }

rota_start() {
    "$rota" dev --home "$folder/$1" --port-offset "$port_offset" >"$folder/$1.log" 2>&1 </dev/null &
    dev=$!
    local tries=300
    until grep -qs "all servers are up" "$folder/$1.log" && psql_in "$(rota_url)" "SELECT 1" >/dev/null 2>&1; do
        ((tries--)) && kill -0 "$dev" 2>/dev/null || fail "rota dev did not start: $(tail -n 3 "$folder/$1.log")"
        sleep 0.1
    done
}

rota_stop() {
    [[ -n $dev ]] || return 0
    kill -INT "$dev" 2>/dev/null || true
    wait "$dev" 2>/dev/null || true
    dev=
}

rota_make() {
    rota_start "rota-$1"
    "$binaries/pgbench" -q -i -s "$1" "$(rota_url)" 2>"$folder/pgbench.log"
    rota_stop
}

reader_start() {
    "$plain_reader" "$folder/rota-10/server-1/state.db" "$reader_port" 2>"$folder/reader.log" &
    reader=$!
    until grep -q "^reading" "$folder/reader.log"; do
        kill -0 "$reader" || fail "the plain reader did not start: $(cat "$folder/reader.log")"
        sleep 0.1
    done
}

reader_stop() {
    [[ -n $reader ]] || return 0
    kill "$reader" 2>/dev/null || true
    wait "$reader" 2>/dev/null || true
    reader=
}

# ---- Measuring

# measure SYSTEM SCRIPT SCALE CLIENTS URL: one run of pgbench as one line of the results.
measure() {
    local system=$1 script=$2 scale=$3 count=$4 url=$5 printed=$folder/pgbench.out
    "$binaries/pgbench" -n -M prepared -b "$script" -c "$count" -j "$((count > 1 ? 2 : 1))" -T "$seconds" \
        --max-tries=100 "$url" >"$printed" 2>"$folder/pgbench.log" ||
        fail "pgbench failed: $(tail -n 3 "$folder/pgbench.log")"
    awk -v key="$system $script $scale $count" '
        /^tps = /                         { tps = $3 }
        /^latency average = /             { latency = $4 }
        /^number of transactions actually processed: / { sub(/.*: /, ""); sub(/\/.*/, ""); done = $0 }
        /^number of transactions retried: /            { sub(/.*: /, ""); retried = $1 }
        /^number of failed transactions: /             { sub(/.*: /, ""); failed = $1 }
        END { print key, tps, latency, retried + 0, failed + 0, done }' "$printed" | tee -a "$results" >&2
}

# The four sums of TPC-B are equal on every server, or something was lost.
balanced() {
    local url sums tries=100
    local sql="SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(bbalance) FROM pgbench_branches)
        AND (SELECT sum(bbalance) FROM pgbench_branches) = (SELECT sum(tbalance) FROM pgbench_tellers)
        AND (SELECT sum(tbalance) FROM pgbench_tellers) = (SELECT sum(delta) FROM pgbench_history)"
    for url in "$@"; do
        until sums=$(psql_in "$url" "$sql") && [[ $sums == t || $sums == 1 ]]; do
            ((tries--)) || fail "the balances of $url do not add up"
            sleep 0.1
        done
    done
}

warm() { "$binaries/pgbench" -n -S -M prepared -c 8 -j 2 -T 2 "$1" >/dev/null 2>&1; }

postgres_round() {
    local count url
    url=$(postgres_url bench)
    postgres_start
    warm "$url"
    for count in "${clients[@]}"; do measure postgresql select-only 10 "$count" "$url"; done
    for count in "${clients[@]}"; do measure postgresql tpcb-like 10 "$count" "$url"; done
    balanced "$url"
    postgres_stop fast
}

rota_round() {
    local count url
    url=$(rota_url)
    rota_start rota-10
    warm "$url"
    if [[ -n $plain_reader ]]; then
        reader_start
        warm "postgres://rota@127.0.0.1:$reader_port/rota"
    fi
    for count in "${clients[@]}"; do
        measure rota select-only 10 "$count" "$url"
        [[ -z $plain_reader ]] ||
            measure reader select-only 10 "$count" "postgres://rota@127.0.0.1:$reader_port/rota"
    done
    reader_stop
    for count in "${clients[@]}"; do measure rota tpcb-like 10 "$count" "$url"; done
    balanced "$url" "$(rota_url 2)" "$(rota_url 3)" "$(rota_url 4)"
    rota_stop
    rota_start rota-1
    for count in "${clients[@]}"; do measure rota tpcb-like 1 "$count" "$url"; done
    balanced "$url" "$(rota_url 2)" "$(rota_url 3)" "$(rota_url 4)"
    rota_stop
}

machine() {
    local processor flush
    processor=$(sed -n 's/^model name[[:space:]]*: //p' /proc/cpuinfo | head -n 1)
    # 4 KiB and a flush, over and over, as both systems' logs do.
    flush=$(LC_ALL=C dd if=/dev/zero of="$folder/flush" bs=4k count=1000 oflag=dsync 2>&1 |
        awk '/copied/ { for (i = 1; i < NF; i++) if ($(i + 1) == "s,") printf "%.3f", $i }')
    rm -f "$folder/flush"
    echo "$(nproc) cores ($processor), Linux $(uname -r), $(stat -f -c %T "$folder"), $flush ms to append 4 KiB and flush;"
    echo "load when it began: $load; $("$binaries/postgres" --version), $("$rota" --version);"
    echo "pgbench -M prepared -T $seconds, $rounds rounds, medians; $(date -u +%Y-%m-%dT%H:%MZ)."
}

# From the results' lines, of which there are as many to a key as there were rounds, to the table.
table() {
    echo "| script, scale | clients | PostgreSQL tps | ms | Rota tps | ms | retried | Rota ÷ PostgreSQL |"
    echo "|---|---|---|---|---|---|---|---|"
    sort -s -k1,4 -k5,5n "$results" | awk '
        function middle(key, values,    list, n) {
            n = split(values[key], list, " ")
            return n == 0 ? "" : n % 2 ? list[(n + 1) / 2] : (list[n / 2] + list[n / 2 + 1]) / 2
        }
        function tps(value) { return value == "" ? "–" : sprintf("%d", value + 0.5) }
        function ms(value) { return value == "" ? "–" : sprintf("%.2f", value) }
        {
            key = $1 " " $2 " " $3 " " $4
            rates[key] = rates[key] " " $5
            latencies[key] = latencies[key] " " $6
            retried[key] += $7; failed[key] += $8; done[key] += $9
        }
        END {
            split("select-only 10,tpcb-like 10,tpcb-like 1", scripts, ",")
            split("1 8 32", counts, " ")
            for (s = 1; s <= 3; s++) for (c = 1; c <= 3; c++) {
                key = scripts[s] " " counts[c]
                pg = middle("postgresql " key, rates); rota = middle("rota " key, rates)
                if (rota == "") continue
                mine = "rota " key
                again = sprintf("%d of %d%s", retried[mine], done[mine],
                    failed[mine] ? ", " failed[mine] " failed" : "")
                name = scripts[s]; sub(/ /, ", ", name)
                printf "| %s | %d | %s | %s | %s | %s | %s | %s |\n", name, counts[c], tps(pg),
                    ms(middle("postgresql " key, latencies)), tps(rota), ms(middle(mine, latencies)), again, pg == "" ? "–" : sprintf("%.2f", rota / pg)
            }
            if (!("reader select-only 10 1" in rates)) exit
            print "\n| select-only, scale 10 | plain reader tps | Rota tps | Rota ÷ plain reader |\n|---|---|---|---|"
            for (c = 1; c <= 3; c++) {
                plain = middle("reader select-only 10 " counts[c], rates)
                rota = middle("rota select-only 10 " counts[c], rates)
                printf "| %d clients | %s | %s | %.2f |\n", counts[c], tps(plain), tps(rota), rota / plain
            }
        }'
}

load=$(cut -d' ' -f1 /proc/loadavg)
say "in $folder: filling PostgreSQL at scale 10, Rota at 10 and 1"
postgres_make
rota_make 10
rota_make 1
say "system script scale clients tps latency retried failed processed"
for ((round = 1; round <= rounds; round++)); do
    if ((round % 2)); then
        postgres_round
        rota_round
    else
        rota_round
        postgres_round
    fi
done
machine
echo
table
