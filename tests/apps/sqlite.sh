# sqlite3 in rollback and WAL mode: concurrent writers and readers, a killed writer, integrity afterwards.
# limit: 180
. "$(dirname "$0")/lib.sh"
need sqlite3 python3
rows=$(short_or_long 60 1000)
for mode in delete wal truncate; do
    db=$mode.db
    sqlite3 "$db" "pragma journal_mode=$mode; create table t(writer int, n int, data blob, primary key(writer, n)); create table sum(total int); insert into sum values(0);" >/dev/null
    cat >"$OUTSIDE/writer.py" <<'P'
import os, sqlite3, sys
db, mode, writer, rows = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
c = sqlite3.connect(db, timeout=60, isolation_level=None)
got = c.execute(f"pragma journal_mode={mode}").fetchone()[0]
assert got == mode, got
for n in range(rows):
    c.execute("begin immediate")
    c.execute("insert into t values(?, ?, ?)", (writer, n, os.urandom(3000)))
    c.execute("update sum set total = total + 1")
    c.execute("commit")
P
    pids=()
    for w in 1 2 3; do python3 "$OUTSIDE/writer.py" "$db" $mode $w "$rows" & pids+=($!); done
    for _ in 1 2 3 4 5; do # readers see the sum and the rows agree at every moment
        same "a reader's view" "$(sqlite3 -cmd '.timeout 60000' "$db" 'select (select count(*) from t) = (select total from sum)')" 1
    done
    for p in "${pids[@]}"; do wait "$p" || fail "a writer failed in mode $mode"; done
    same "rows" "$(sqlite3 "$db" 'select count(*) from t')" $((3 * rows))

    # a writer killed in the middle of a transaction leaves nothing of it
    cat >"$OUTSIDE/killed.py" <<'P'
import os, signal, sqlite3, sys
c = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)
c.execute("pragma cache_size=5")  # spill, so that the database file itself is half written
c.execute(f"pragma journal_mode={sys.argv[1][:-3]}")
c.execute("begin immediate")
for n in range(200):
    c.execute("insert into t values(99, ?, ?)", (n, os.urandom(3000)))
os.kill(os.getpid(), signal.SIGKILL)
P
    (python3 "$OUTSIDE/killed.py" "$db" || true) 2>/dev/null
    same "rows of the killed writer" "$(sqlite3 "$db" 'select count(*) from t where writer = 99')" 0
    same "integrity" "$(sqlite3 "$db" 'pragma integrity_check')" ok
    sqlite3 "$db" 'delete from t where n % 2; vacuum' && same "integrity after vacuum" "$(sqlite3 "$db" 'pragma integrity_check')" ok
done
