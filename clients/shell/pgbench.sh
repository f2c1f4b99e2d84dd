#!/usr/bin/env bash
# pgbench: its tables, its three built-in scripts in the three ways to send a query, and whether the
# balances add up on every server afterwards.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
. ./steps.sh

seconds=${PGBENCH_SECONDS:-2}
clients=${PGBENCH_CLIENTS:-8}

# Every transaction is taken: what is refused with 40001 is tried again, as often as it
# takes. Any other failure is one.
bench() {
    shows 'number of failed transactions: 0 (' bench_run "$@"
}
bench_run() {
    # What it says while it runs goes to stderr: that it starts, and an error if there is one.
    pgbench -n -c "$clients" -j 2 -T "$seconds" --max-tries=0 "$@" "$url" 2>"$scratch/pgbench"
    local code=$?
    grep -vE '^(pgbench \(|pgbench: (pghost|warning))' "$scratch/pgbench" >&2
    return $code
}

initialise() {
    pgbench -i -s 1 "$url" &&
        same "$(query 'SELECT count(*) FROM pgbench_accounts')" 100000 &&
        same "$(query 'SELECT count(*) FROM pgbench_tellers')" 10
}

# The deltas in the history are what has been added to every kind of balance.
sums() {
    query "SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(tbalance) FROM
        pgbench_tellers), (SELECT sum(bbalance) FROM pgbench_branches), (SELECT sum(delta) FROM
        pgbench_history), (SELECT count(*) FROM pgbench_history)" "$1"
}

balances() {
    local server wanted got tries simple
    # simple-update changes the accounts and the history only.
    wanted=$(sums "$url")
    IFS='|' read -r accounts tellers branches history _ <<<"$wanted"
    simple=$(<"$scratch/simple")
    same "$accounts" "$history" && same "$tellers" "$branches" &&
        same "$((accounts - simple))" "$tellers" || return 1
    for server in "${urls[@]}"; do
        for ((tries = 0; tries < 100; tries++)); do
            got=$(sums "$server")
            if [[ $got == "$wanted" ]]; then continue 2; fi
            sleep 0.1
        done
        same "$got" "$wanted" || return 1
    done
}

step 'connect' query 'SELECT 1'
step '-i' initialise
for protocol in simple extended prepared; do
    step "select-only, $protocol" bench -b select-only -M "$protocol"
    step "tpcb-like, $protocol" bench -b tpcb-like -M "$protocol"
done
before=$(query 'SELECT coalesce(sum(abalance), 0) FROM pgbench_accounts')
for protocol in simple extended prepared; do
    step "simple-update, $protocol" bench -b simple-update -M "$protocol"
done
after=$(query 'SELECT coalesce(sum(abalance), 0) FROM pgbench_accounts')
echo "$((${after:-0} - ${before:-0}))" >"$scratch/simple"
step 'balances on every server' balances
query 'DROP TABLE IF EXISTS pgbench_accounts, pgbench_branches, pgbench_history, pgbench_tellers'
exit $failed
