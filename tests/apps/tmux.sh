# tmux with its socket on the filesystem: a shell in it works there, output is piped to a file.
. "$(dirname "$0")/lib.sh"
need tmux
unset TMUX
t() { timeout 20 tmux -f /dev/null -S "$WORK/socket" "$@"; }
trap 't kill-server 2>/dev/null || true' EXIT
t new-session -d -s test -x 80 -y 24 -c "$WORK" 'exec bash --norc --noprofile'
[ -S socket ] || fail "no socket"
t pipe-pane -t test "cat >>$WORK/piped"
t send-keys -t test 'echo typed >typed; echo and $((40 + 2)) | tee answer; touch done' Enter
for _ in $(seq 100); do [ ! -e done ] || break; sleep 0.1; done
same "a command typed" "$(cat typed)" typed
same "its pipe" "$(cat answer)" "and 42"
t capture-pane -p -t test | grep -q '^and 42' || fail "the screen does not show it"
t split-window -t test && same "panes" "$(t list-panes -t test | wc -l)" 2
sleep 0.3 && grep -q 'and 42' piped || fail "nothing was piped"
t kill-server && sleep 0.2
refused t list-sessions
