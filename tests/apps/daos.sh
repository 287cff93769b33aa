# The daos command, on a store that a daemon holds and on one that nobody holds.
. "$(dirname "$0")/lib.sh"
[ "$KIND" = dfuse ] || skip "only for dfuse"
need python3
daos=$RELEASE/daos held=$STATE/store free=$OUTSIDE/free
# json KEY... : from standard input, the value at this path of a reply
json() { python3 -c 'import json, sys
v = json.load(sys.stdin)
for k in sys.argv[1:]: v = v[int(k)] if isinstance(v, list) else v[k]
print(v)' "$@"; }

mkdir "$OUTSIDE/mnt"
"$RELEASE/dfuse" --embedded "$free" "$OUTSIDE/mnt" --size 512M && echo x >"$OUTSIDE/mnt/x" && umount "$OUTSIDE/mnt"
for _ in $(seq 100); do "$daos" pool list --embedded "$free" --json 2>/dev/null | grep -q '"status": *0' && break; sleep 0.1; done

for store in "$held" "$free"; do
    "$daos" pool list --embedded "$store" | grep -q default || fail "pool list of $store"
    "$daos" pool query default --embedded "$store" >"$OUTSIDE/query" && [ -s "$OUTSIDE/query" ]
    same "status" "$("$daos" pool query --embedded "$store" --json | json status)" 0
    "$daos" container list --embedded "$store" | grep -q home || fail "container list of $store"
    "$daos" cont create scratch --embedded "$store" >/dev/null
    "$daos" cont list --embedded "$store" | grep -q scratch || fail "a new container is not listed"
    "$daos" cont query scratch --embedded "$store" >/dev/null
    code=0 && "$daos" cont create scratch --embedded "$store" --json >"$OUTSIDE/err" || code=$?
    same "exit code for one that exists, in $store" "$code" 4
    same "its status" "$(json status <"$OUTSIDE/err")" 4
    "$daos" cont destroy scratch --embedded "$store" >/dev/null
    code=0 && "$daos" cont query scratch --embedded "$store" >/dev/null 2>&1 || code=$?
    same "exit code for one that is not there, in $store" "$code" 3
    "$daos" filesystem query --embedded "$store" >/dev/null || fail "filesystem query of $store"
    same "filesystem query --json" "$("$daos" fs query --embedded "$store" --json | json error)" None
done
"$daos" fs query "$STATE/mnt" >/dev/null || fail "a mountpoint does not name its store"
code=0 && "$daos" cont destroy home --embedded "$held" >/dev/null 2>&1 || code=$?
same "exit code for a container in use" "$code" 5
"$daos" fs check --embedded "$free" >/dev/null || fail "check of a store that nobody holds"
code=0 && "$daos" pool list --embedded "$OUTSIDE/nothing" >/dev/null 2>"$OUTSIDE/err" || code=$?
same "exit code for no store" "$code" 3
