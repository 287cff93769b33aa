# tar: a tree of every kind of entry comes back the same, through tar on the filesystem and in from outside.
. "$(dirname "$0")/lib.sh"
need tar python3
python3 "$here/mktree.py" "$OUTSIDE/tree"
rm "$OUTSIDE/tree/socket" # tar leaves sockets out
tar --xattrs --xattrs-include='user.*' -S -cf "$OUTSIDE/tree.tar" -C "$OUTSIDE" tree

tar --xattrs --xattrs-include='user.*' -S -xpf "$OUTSIDE/tree.tar"
same_tree "$OUTSIDE/tree" tree
tar --compare --xattrs -f "$OUTSIDE/tree.tar"

tar --xattrs --xattrs-include='user.*' -S -czf tree.tgz tree
mkdir again && tar --xattrs --xattrs-include='user.*' -xpzf tree.tgz -C again
same_tree "$OUTSIDE/tree" again/tree

# into a tree that is there already: replaced in place, directories kept
tar -xpf "$OUTSIDE/tree.tar" && tar -xpf "$OUTSIDE/tree.tar" --unlink-first --recursive-unlink
same_tree "$OUTSIDE/tree" tree --no-xattrs
tar -cf - tree | tar -df - || fail "tar -d sees a difference"
rm -rf tree again && [ ! -e tree ]
