# git: a history grows, is cloned, repacked and verified; worktrees and branches switch.
# limit: 180
. "$(dirname "$0")/lib.sh"
need git
export GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=$OUTSIDE/gitconfig HOME=$OUTSIDE
git config --global user.name tester && git config --global user.email tester@localhost
git config --global init.defaultBranch main && git config --global safe.directory '*'

git init -q repo && cd repo
commits=$(short_or_long 30 200)
for c in $(seq "$commits"); do
    for f in 1 2 3 4 5 6 7 8; do
        mkdir -p "dir$((f % 3))/sub$((c % 7))"
        seq "$c" $((c * f + 50)) >"dir$((f % 3))/sub$((c % 7))/file$f"
    done
    git add -A && git commit -qm "commit $c"
done
head -c 2000000 /dev/urandom >big && ln -s big link && printf '#!/bin/sh\n' >run && chmod +x run
git add -A && git commit -qm 'a big file, a link, a mode'
same "status" "$(git status --porcelain)" ""
git fsck --full --strict --no-progress
git checkout -q -b side HEAD~10 && seq 5 >side && git add side && git commit -qm side
git checkout -q main && git merge -q --no-edit side && [ -e side ]
git tag v1 && git gc -q --aggressive --prune=now
git fsck --full --no-progress
same "loose objects after gc" "$(git count-objects | cut -d' ' -f1)" 0
cd ..

git clone -q --no-local repo clone
same "head of the clone" "$(git -C clone rev-parse HEAD)" "$(git -C repo rev-parse HEAD)"
git -C clone fsck --full --no-progress
diff -r --exclude=.git repo clone
same "a fresh status" "$(git -C clone status --porcelain)" ""
git clone -q repo local && git -C local fsck --no-progress # hard links
git -C clone checkout -q "HEAD~$((commits / 2))" && same "status" "$(git -C clone status --porcelain)" ""
git -C clone checkout -q main && git -C repo worktree add -q ../tree side && [ -e tree/side ]
echo dirty >>clone/side && same "a change is seen" "$(git -C clone status --porcelain)" " M side"
git -C clone stash -q && git -C clone stash pop -q && git -C clone commit -qam dirty && git -C clone push -q origin HEAD:pushed
same "push" "$(git -C repo rev-parse pushed)" "$(git -C clone rev-parse HEAD)"
git -C repo repack -adq && git -C repo fsck --full --no-progress
