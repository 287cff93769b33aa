# PostgreSQL: initdb, pgbench, kill -9 under load, recovery, and the books balance.
# limit: 300
. "$(dirname "$0")/lib.sh"
bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1)
[ -n "$bin" ] && [ -x "$bin/initdb" ] || skip "no PostgreSQL server here (Debian: postgresql)"
[ "$(id -u)" = 0 ] || skip "needs root to become the user postgres"
getent passwd postgres >/dev/null || skip "there is no user postgres"
data=$WORK/data
sockets=$WORK/sockets
mkdir -p "$data" "$sockets" && chown postgres: "$data" "$sockets" "$OUTSIDE"
pg() { setpriv --reuid=postgres --regid=postgres --init-groups env -C / HOME=/tmp PATH="$bin:$PATH" PGHOST="$sockets" PGDATABASE=postgres "$@"; }
start() { pg pg_ctl -D "$data" -l "$OUTSIDE/log" -w -t 60 -o "-k $sockets -c listen_addresses= -c wal_sync_method=$1 -c shared_buffers=16MB -c max_wal_size=64MB -c wal_init_zero=on" start >/dev/null || { tail -n 20 "$OUTSIDE/log"; fail "start"; }; }
sql() { pg psql -qAtX -v ON_ERROR_STOP=1 -c "$1"; }
gone() { ! grep -qs '^State:[[:space:]]*[^Z]' "/proc/$1/status"; }
postmaster=''
stop_all() { [ -z "$postmaster" ] || kill -9 "$postmaster" 2>/dev/null || true; }
trap stop_all EXIT

pg initdb -D "$data" -E UTF8 --data-checksums -A trust >"$OUTSIDE/initdb.log" 2>&1 || { tail "$OUTSIDE/initdb.log"; fail initdb; }
start fdatasync
postmaster=$(head -n 1 "$data/postmaster.pid") && echo "$postmaster" >>"$OUTSIDE/pids"
pg pgbench -q -i -s "$(short_or_long 3 20)" 2>/dev/null
sql "create table big as select g, repeat(md5(g::text), 20) as t from generate_series(1, 20000) g; create index on big(t);"

for round in $(seq "$(short_or_long 2 8)"); do
    # acknowledged commits are counted outside; after kill -9 the table has at least as many
    sql "create table if not exists acks(round int, n int)"
    (n=0; while sql "insert into acks values($round, $n)" 2>/dev/null; do n=$((n + 1)); echo $n >"$OUTSIDE/acked.$round"; done) &
    inserter=$!
    pg pgbench -c 4 -j 2 -T "$(short_or_long 5 30)" -n >"$OUTSIDE/pgbench.log" 2>&1 &
    bench=$!
    sleep "$(short_or_long 3 20)"
    kill -STOP "$postmaster" # no new children
    children=$(pgrep -P "$postmaster" || true)
    # shellcheck disable=SC2086 # a list of pids
    kill -9 "$postmaster" $children
    postmaster=''
    wait $bench || true
    wait $inserter || true
    for c in $children; do until gone "$c"; do sleep 0.1; done; done
    rm -f "$data/postmaster.pid"
    start "$([ $((round % 2)) = 0 ] && echo fdatasync || echo open_datasync)"
    postmaster=$(head -n 1 "$data/postmaster.pid") && echo "$postmaster" >>"$OUTSIDE/pids"
    grep -q 'redo' "$OUTSIDE/log" || fail "there was nothing to recover: the kill came too late"
    acked=$(cat "$OUTSIDE/acked.$round")
    [ "$acked" -gt 0 ] || fail "no insert was acknowledged"
    have=$(sql "select count(*) from acks where round = $round")
    [ "$have" -ge "$acked" ] || fail "round $round: $acked inserts were acknowledged, $have are there"
    same "the books balance" "$(sql "select (select sum(abalance) from pgbench_accounts) = (select sum(bbalance) from pgbench_branches) and (select sum(tbalance) from pgbench_tellers) = (select sum(delta) from pgbench_history)")" t
done
sql "vacuum full big" && sql "reindex table pgbench_accounts" && sql checkpoint
same "rows" "$(sql 'select count(*) from big')" 20000
pg pg_ctl -D "$data" -w -m fast stop >/dev/null && postmaster=''
pg pg_checksums --check -D "$data" >/dev/null || fail "page checksums"
