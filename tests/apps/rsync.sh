# rsync -aHAX: in, out, again, with changes, with --delete and --inplace.
. "$(dirname "$0")/lib.sh"
need rsync python3
python3 "$here/mktree.py" "$OUTSIDE/tree" 400 2
src=$OUTSIDE/tree/

rsync -aHAX --modify-window=-1 "$src" in/
same_tree "$src" in
same "second run" "$(rsync -aHAX --modify-window=-1 -i "$src" in/)" ""
same "second run by checksum" "$(rsync -aHAX --modify-window=-1 -ic "$src" in/)" ""
rsync -aHAX --modify-window=-1 in/ "$OUTSIDE/out/"
same_tree in "$OUTSIDE/out"

# changes at the source: longer, shorter, other kinds, gone
cd "$src"
find . -type f -size +50k | head -n 5 | while read -r f; do printf changed | dd of="$f" bs=1 seek=40000 conv=notrunc status=none; done
find . -type f -name 'file-*' | sed -n 10,20p | while read -r f; do echo more >>"$f"; done
find . -type f -name '.hidden*' | sed -n 1,5p | while read -r f; do truncate -s 10 "$f"; done
find . -type f -name 'x*' | sed -n 1,5p | while read -r f; do rm "$f" && mkdir "$f" && echo inside >"$f/file"; done
find . -name 'hard-*' | sed -n 1,5p | xargs rm
cd "$WORK"
rsync -aHAX --modify-window=-1 --delete --inplace --no-whole-file "$src" in/
same_tree "$src" in
rsync -aHAX --modify-window=-1 --delete --sparse --checksum "$src" sparse/
same_tree "$src" sparse
blocks=$(stat -c %b sparse/sparse)
[ "$blocks" -le 200 ] || fail "rsync --sparse left $blocks blocks"
rsync -aHAX --modify-window=-1 --link-dest="$WORK/in" "$src" linked/
same "hard links by --link-dest" "$(stat -c %i linked/sparse)" "$(stat -c %i in/sparse)"
