#!/usr/bin/env bash
# sysbench: its OLTP scripts with the driver for PostgreSQL.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
. ./steps.sh

seconds=${SYSBENCH_SECONDS:-2}
[[ $url =~ ^postgresql://([^@]+)@([^:]+):([0-9]+)/(.+)$ ]] || exit 2
options=(
    --db-driver=pgsql --pgsql-user="${BASH_REMATCH[1]}" --pgsql-host="${BASH_REMATCH[2]}"
    --pgsql-port="${BASH_REMATCH[3]}" --pgsql-db="${BASH_REMATCH[4]}"
    --tables=2 --table-size=2000 --threads=4 --time="$seconds"
)

# sysbench ends at an error that it does not know to be one to retry (40001 is one that it knows).
bench() { shows 'transactions:' sysbench "${options[@]}" "$@" run; }

prepare() {
    sysbench "${options[@]}" oltp_read_write prepare &&
        same "$(query 'SELECT count(*) FROM sbtest2')" 2000
}

cleanup() {
    sysbench "${options[@]}" oltp_read_write cleanup
}

another_server() {
    local there=(--pgsql-port="$(sed -E 's|.*:([0-9]+)/.*|\1|' <<<"${urls[-1]}")")
    shows 'transactions:' sysbench "${options[@]}" "${there[@]}" oltp_point_select run
}

step 'connect' query 'SELECT 1'
sysbench "${options[@]}" oltp_read_write cleanup >/dev/null 2>&1
step 'prepare' prepare
for script in point_select read_only read_write write_only insert update_index update_non_index delete; do
    step "oltp_$script" bench "oltp_$script"
done
step 'another server' another_server
step 'cleanup' cleanup
exit $failed
