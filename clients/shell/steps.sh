# What the shell programs share: the servers, and one line printed for each step. Sourced.

IFS=, read -ra urls <<<"${ROTA_URLS:-postgresql://rota@127.0.0.1:5441/rota}"
url=${urls[0]}
# Whether this is tried against PostgreSQL itself, which is expected to do the same.
reference=${ROTA_REFERENCE:-}
export PGCONNECT_TIMEOUT=10
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
failed=0

# The output of the commands that a step runs, on one line.
said() { tr -s '[:space:]' ' ' <"$scratch/said" | tail -c 300; }

# step NAME COMMAND…: ok if the command succeeds.
step() {
    local name=$1
    shift
    if "$@" >"$scratch/said" 2>&1; then
        printf 'ok %s\n' "$name"
    else
        failed=1
        printf 'FAIL %s: %s\n' "$name" "$(said)"
        # Without a connection there is nothing to try.
        if [[ $name == connect ]]; then exit 1; fi
    fi
}

# query SQL [SERVER]: the rows, as text with | between the columns.
query() { psql -X -q -A -t -v ON_ERROR_STOP=1 "${2:-$url}" -c "$1"; }

# shows TEXT COMMAND…: the command succeeds, says nothing to stderr, and its output has the text.
shows() {
    local wanted=$1
    shift
    local code=0
    "$@" >"$scratch/out" 2>"$scratch/err" || code=$?
    if [[ -s $scratch/err ]]; then cat "$scratch/err"; return 1; fi
    if [[ $code != 0 ]]; then echo "ended with $code"; cat "$scratch/out"; return 1; fi
    grep -qF -- "$wanted" "$scratch/out" || { echo "no \"$wanted\" in:"; cat "$scratch/out"; return 1; }
}

# same GOT WANTED
same() { [[ $1 == "$2" ]] || { echo "got $1, not $2"; return 1; }; }
