#!/usr/bin/env bash
# Rota with raft beside etcd, three servers each: puts of a key and a value of 128 bytes, each acknowledged when two of
# three servers have it on disk. The same load generator (examples/put), the same machine, the same hour, one system up at
# a time, in alternating order. All connections go to the leader, in both. Prints a Markdown table of medians.
#
#   cargo build --release && examples/beside-etcd.sh
#   examples/beside-etcd.sh --seconds 10 --rounds 5
#
# Both have the settings that they come with. Needs Debian's etcd-server and etcd-client, and Go. Everything is in a
# temporary folder and gone in the end.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

seconds=5
rounds=3
folder_in=${TMPDIR:-/tmp}
rota=${ROTA:-target/release/rota}
clients=(1 8 64 256)
# Far from those of databases that may be running here.
etcd_port=25379
port_offset=960

fail() {
    echo "beside-etcd.sh: $*" >&2
    exit 1
}
say() { echo "$*" >&2; }

while (($#)); do
    [[ $# -ge 2 ]] || fail "$1 wants a value"
    case $1 in
    --seconds) seconds=$2 ;;
    --rounds) rounds=$2 ;;
    --folder) folder_in=$2 ;;
    *) fail "$1 is unknown: there are --seconds, --rounds and --folder" ;;
    esac
    shift 2
done

[[ -x $rota ]] || fail "$rota is not there: cargo build --release, or ROTA=path"
for program in etcd etcdctl go; do
    command -v "$program" >/dev/null || fail "$program is not there: apt-get install etcd-server etcd-client golang"
done
[[ $(stat -f -c %T "$folder_in") != tmpfs ]] ||
    fail "$folder_in is in memory, where a flush costs nothing: --folder on a disk"

folder=$(mktemp -d -p "$folder_in" beside-etcd.XXXXXX)
results=$folder/results
: >"$results"
(cd examples/put && go build -o "$folder/put" .)

etcds=()
dev=
finish() {
    etcd_stop
    rota_stop
    rm -rf "$folder"
}
trap finish EXIT

# ---- etcd

etcd_start() {
    local number cluster="" client peer
    for number in 0 1 2; do cluster+="${cluster:+,}s$number=http://127.0.0.1:$((etcd_port + 10 * number + 1))"; done
    for number in 0 1 2; do
        client=http://127.0.0.1:$((etcd_port + 10 * number))
        peer=http://127.0.0.1:$((etcd_port + 10 * number + 1))
        etcd --name "s$number" --data-dir "$folder/etcd-$number" \
            --listen-client-urls "$client" --advertise-client-urls "$client" \
            --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" \
            --initial-cluster "$cluster" --initial-cluster-state new \
            --logger zap --log-level error >"$folder/etcd-$number.log" 2>&1 &
        etcds+=($!)
    done
    local tries=200
    until [[ -n $(etcd_leader) ]]; do
        ((tries--)) || fail "etcd has no leader: $(tail -n 3 "$folder"/etcd-*.log)"
        sleep 0.1
    done
}

# The leader's address: the fifth field of its line is true.
etcd_leader() {
    local all="127.0.0.1:$etcd_port,127.0.0.1:$((etcd_port + 10)),127.0.0.1:$((etcd_port + 20))"
    ETCDCTL_API=3 etcdctl --endpoints "$all" endpoint status -w simple 2>/dev/null |
        awk -F', ' '$5 == "true" { print $1 }'
}

etcd_stop() {
    ((${#etcds[@]})) || return 0
    kill "${etcds[@]}" 2>/dev/null || true
    wait "${etcds[@]}" 2>/dev/null || true
    etcds=()
}

# ---- Rota

rota_start() {
    "$rota" dev --method raft --home "$folder/rota" --port-offset "$port_offset" >"$folder/rota.log" 2>&1 </dev/null &
    dev=$!
    local tries=300
    until grep -qs "all servers are up" "$folder/rota.log" && [[ -n $(rota_leader) ]]; do
        ((tries--)) && kill -0 "$dev" 2>/dev/null || fail "rota dev did not start: $(tail -n 3 "$folder/rota.log")"
        sleep 0.1
    done
}

# The leader's number, as the first server says.
rota_leader() {
    curl -s "http://127.0.0.1:$((4001 + port_offset))/status" |
        grep -o '"leader":{[^}]*}' | grep -o '"number":[0-9]*' | grep -o '[0-9]*$' | head -n 1
}

rota_stop() {
    [[ -n $dev ]] || return 0
    kill -INT "$dev" 2>/dev/null || true
    wait "$dev" 2>/dev/null || true
    dev=
}

# ---- Measuring

# measure SYSTEM CLIENTS ADDRESS: one run as one line of the results.
measure() {
    local line
    line="$1 $2 $("$folder/put" -system "$1" -clients "$2" -address "$3" -seconds "$seconds")" || fail "$1 failed"
    echo "$line" | tee -a "$results" >&2
}

etcd_round() {
    local count
    etcd_start
    for count in "${clients[@]}"; do measure etcd "$count" "$(etcd_leader)"; done
    etcd_stop
}

rota_round() {
    local count
    rota_start
    for count in "${clients[@]}"; do
        measure rota "$count" "postgres://rota@127.0.0.1:$((5440 + $(rota_leader) + port_offset))/rota"
    done
    rota_stop
}

machine() {
    local processor flush
    processor=$(sed -n 's/^model name[[:space:]]*: //p' /proc/cpuinfo | head -n 1)
    # 4 KiB and a flush, over and over, as both systems' logs do.
    flush=$(LC_ALL=C dd if=/dev/zero of="$folder/flush" bs=4k count=1000 oflag=dsync 2>&1 |
        awk '/copied/ { for (i = 1; i < NF; i++) if ($(i + 1) == "s,") printf "%.3f", $i }')
    echo "$(nproc) cores ($processor), Linux $(uname -r), $(stat -f -c %T "$folder"), $flush ms to append 4 KiB and flush;"
    echo "load when it began: $load; $(etcd --version | head -n 1), $("$rota" --version);"
    echo "$seconds s a run, $rounds rounds, medians; $(date -u +%Y-%m-%dT%H:%MZ)."
}

table() {
    echo "| clients | etcd puts/s | p50 ms | p99 ms | Rota puts/s | p50 ms | p99 ms | Rota ÷ etcd |"
    echo "|---|---|---|---|---|---|---|---|"
    sort -s -k1,2 -k3,3n "$results" | awk '
        function middle(key, values,    list, n) {
            n = split(values[key], list, " ")
            return n % 2 ? list[(n + 1) / 2] : (list[n / 2] + list[n / 2 + 1]) / 2
        }
        { key = $1 " " $2; rate[key] = rate[key] " " $3; half[key] = half[key] " " $4; most[key] = most[key] " " $5 }
        END {
            n = split("1 8 64 256", counts, " ")
            for (c = 1; c <= n; c++) {
                etcd = "etcd " counts[c]; rota = "rota " counts[c]
                printf "| %d | %d | %.2f | %.2f | %d | %.2f | %.2f | %.2f |\n", counts[c],
                    middle(etcd, rate), middle(etcd, half), middle(etcd, most),
                    middle(rota, rate), middle(rota, half), middle(rota, most),
                    middle(rota, rate) / middle(etcd, rate)
            }
        }'
}

load=$(cut -d' ' -f1 /proc/loadavg)
say "system clients puts/s p50 p99"
for ((round = 1; round <= rounds; round++)); do
    if ((round % 2)); then
        etcd_round
        rota_round
    else
        rota_round
        etcd_round
    fi
done
machine
echo
table
