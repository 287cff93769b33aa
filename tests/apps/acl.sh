# POSIX ACLs: kept, enforced by the kernel, inherited, and copied by cp -a, rsync -A and tar --acls.
. "$(dirname "$0")/lib.sh"
need setfacl getfacl rsync tar setpriv
[ "$(id -u)" = 0 ] || skip "needs root to become other users"
as() { setpriv --reuid="$1" --regid="$1" --clear-groups "${@:2}"; }
list() { getfacl -pcE "$1"; }
chmod 755 .

echo secret >file && chmod 600 file
refused as daemon cat file
setfacl -m u:daemon:r file
same "an ACL lets in" "$(as daemon cat file)" secret
refused as games cat file
refused as daemon dd of=file conv=notrunc if=/dev/null
same "the mask shows as group mode" "$(stat -c %a file)" 640
chmod g= file && refused as daemon cat file
same "chmod changes the mask" "$(list file | grep mask)" "mask::---"
setfacl -m m::r file
same "the mask opens again" "$(as daemon cat file)" secret
setfacl -m g:games:rw file
as games sh -c 'echo more >>file'
same "a named group writes" "$(cat file)" "$(printf 'secret\nmore')"
setfacl -m u:games:- file && refused as games cat file
same "ls shows it" "$(stat -c %A file; ls -ld file | cut -c11)" "$(printf -- '-rw-rw----\n+')"

mkdir dir && chmod 777 dir && setfacl -d -m g:games:rwx,u:daemon:r,o:- dir
(umask 077 && touch dir/new && mkdir dir/sub && ln -s new dir/link && mkfifo dir/pipe)
same "inherited by a file" "$(list dir/new)" "$(printf 'user::rw-\nuser:daemon:r--\ngroup::rwx\t\ngroup:games:rwx\nmask::rw-\nother::---\n' | tr -d '\t')"
same "inherited by a directory" "$(list dir/sub | grep ^default:)" "$(list dir | grep ^default:)"
same "and below" "$(mkdir dir/sub/low && list dir/sub/low | grep ^default:)" "$(list dir | grep ^default:)"
same "inherited by a fifo" "$(list dir/pipe | grep daemon)" "user:daemon:r--"
as games sh -c 'echo x >dir/new' && refused as daemon sh -c 'echo x >>dir/new'
as daemon cat dir/new >/dev/null
as daemon touch dir/by-daemon && same "owner of what another makes" "$(stat -c %U dir/by-daemon)" daemon
refused as games setfacl -m u:games:rwx file
refused setfacl -d -m u:games:rwx file

setfacl -m u:daemon:rwx dir && mv dir moved && mv moved dir
ln file second && same "a hard link has it too" "$(list second)" "$(list file)"
cp -a file copy && same "cp -a" "$(list copy)" "$(list file)"
cp -a dir copied && same "cp -a of a tree" "$(getfacl -Rcp copied | sort)" "$(getfacl -Rcp dir | sort)"
mkdir rs && rsync -aA file dir rs/
same "rsync -A" "$(list rs/file; getfacl -Rcp rs/dir | sort)" "$(list file; getfacl -Rcp dir | sort)"
same "rsync -A finds nothing to do" "$(rsync -aAi file dir rs/)" ""
tar --acls -cf "$OUTSIDE/acl.tar" file dir && mkdir untar && tar --acls -C untar -xpf "$OUTSIDE/acl.tar"
same "tar --acls" "$(list untar/file; getfacl -Rcp untar/dir | sort)" "$(list file; getfacl -Rcp dir | sort)"
getfacl -R dir >"$OUTSIDE/lists" && setfacl -R -b dir && setfacl --restore="$OUTSIDE/lists"
same "getfacl and setfacl --restore" "$(getfacl -R dir)" "$(cat "$OUTSIDE/lists")"

setfacl -b file && same "removed" "$(list file | grep -c :)" 3
refused getfattr -n system.posix_acl_access file
same "the attribute is listed where it is" "$(getfattr -d -m '^system' dir | grep -c posix_acl)" 2
