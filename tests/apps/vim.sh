# vim: edits, writes with backup and swap files, undo files, and recovers from a swap file.
. "$(dirname "$0")/lib.sh"
need vim
export HOME=$OUTSIDE TERM=dumb
seq 1000 >file && chmod 640 file && inode=$(stat -c %i file)
quiet() { timeout 60 vim -u NONE -i NONE -n -es "$@" </dev/null >/dev/null 2>&1; }
quiet -c '%s/5/five/g' -c 'set backup backupcopy=yes' -c 'wq' file
same "changed" "$(sed -n 5p file)" five
same "backupcopy=yes keeps the inode" "$(stat -c %i file)" "$inode"
same "backup" "$(sed -n 5p file~)" 5
quiet -c 'set backupcopy=no writebackup' -c '1d' -c 'wq' file
same "first line" "$(head -n 1 file)" 2
same "mode kept" "$(stat -c %a file)" 640
quiet -c 'set undofile undodir=.' -c 'normal Gdd' -c 'wq' file && [ -n "$(ls -A | grep '\.un~$')" ] || fail "no undo file"
quiet -c 'set undofile undodir=.' -c 'undo' -c 'wq' file && same "undone" "$(tail -n 1 file)" 1000
[ -z "$(find . -name '*.sw?')" ] || fail "a swap file stayed"
