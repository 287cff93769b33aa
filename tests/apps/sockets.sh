# Unix sockets: stream, datagram, credentials, descriptors; names behave as files.
. "$(dirname "$0")/lib.sh"
need python3
python3 - <<'P'
import array, os, socket, stat, struct, threading

server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
server.bind("stream")
assert stat.S_ISSOCK(os.lstat("stream").st_mode)
try:
    socket.socket(socket.AF_UNIX).bind("stream"); raise SystemExit("bound twice")
except OSError as e:
    assert e.errno == 98, e
server.listen(8)

def serve():
    for _ in range(20):
        c, _addr = server.accept()
        with c:
            while data := c.recv(65536):
                c.sendall(data[::-1])
t = threading.Thread(target=serve); t.start()
for i in range(20):
    with socket.socket(socket.AF_UNIX) as c:
        c.connect("stream")
        message = os.urandom(1000)
        c.sendall(message); c.shutdown(socket.SHUT_WR)
        got = b""
        while piece := c.recv(65536): got += piece
        assert got == message[::-1]
t.join()

# renamed and linked: the name leads to the same socket
os.rename("stream", "moved"); os.link("moved", "linked")
with socket.socket(socket.AF_UNIX) as c: c.connect("linked")
os.unlink("moved"); os.unlink("linked")
try:
    socket.socket(socket.AF_UNIX).connect("linked"); raise SystemExit("connected to nothing")
except FileNotFoundError: pass

# nobody listens
d = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); d.bind("gram"); d.close()
try:
    socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).connect("gram"); raise SystemExit("connected to the dead")
except ConnectionRefusedError: pass
os.unlink("gram")

# datagrams, and a descriptor of a file that is gone
a = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); a.bind("a")
b = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
with open("gift", "w+b") as f:
    f.write(b"given"); f.flush(); os.unlink("gift")
    b.sendmsg([b"take"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [f.fileno()]))], 0, "a")
msg, anc, _, _ = a.recvmsg(100, socket.CMSG_LEN(4))
fd = struct.unpack("i", anc[0][2])[0]
assert msg == b"take" and os.pread(fd, 100, 0) == b"given"
if os.getuid() == 0:
    # write permission decides who may connect
    os.chmod("a", 0o700); pid = os.fork()
    if pid == 0:
        os.setgid(12345); os.setuid(12345)
        try:
            b.connect("a"); os._exit(1)
        except PermissionError: os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0, "connected without permission"
P
[ -S a ] && rm a
