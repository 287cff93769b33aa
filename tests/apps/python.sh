# Python: a venv on the filesystem, pip into it without a network, byte code, and the standard library's own file tests in small.
# limit: 180
. "$(dirname "$0")/lib.sh"
need python3
python3 -c 'import venv, ensurepip' 2>/dev/null || skip "this Python has no venv and ensurepip (Debian: python3-venv)"
python3 -m venv env
export PIP_NO_INDEX=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_CACHE_DIR=$WORK/cache

# a wheel made here: nothing is fetched
python3 - <<'P'
import base64, hashlib, zipfile
files = {
    "greeting/__init__.py": "from .words import hello\n",
    "greeting/words.py": "def hello(name):\n    return f'hello {name}'\n\ndef main():\n    print(hello('script'))\n",
    "greeting-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: greeting\nVersion: 1.0\n",
    "greeting-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: by hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "greeting-1.0.dist-info/entry_points.txt": "[console_scripts]\ngreet = greeting.words:main\n",
}
record = "".join(
    f"{n},sha256={base64.urlsafe_b64encode(hashlib.sha256(t.encode()).digest()).rstrip(b'=').decode()},{len(t)}\n"
    for n, t in files.items()
)
files["greeting-1.0.dist-info/RECORD"] = record + "greeting-1.0.dist-info/RECORD,,\n"
with zipfile.ZipFile("greeting-1.0-py3-none-any.whl", "w") as z:
    for n, t in files.items():
        z.writestr(n, t)
P
env/bin/pip install -q ./greeting-1.0-py3-none-any.whl
same "import" "$(env/bin/python -c 'import greeting; print(greeting.hello("venv"))')" "hello venv"
same "console script" "$(env/bin/greet)" "hello script"
env/bin/pip check >/dev/null
[ -n "$(find env -path '*greeting/__pycache__/*.pyc')" ] || fail "no byte code was written"
env/bin/python -m compileall -q env/lib >/dev/null
env/bin/pip uninstall -q -y greeting && refused env/bin/python -c 'import greeting'

# shelve, sqlite, mmap, tempfile, shutil, zip in one process
env/bin/python - <<'P'
import dbm.dumb, filecmp, mmap, os, pickle, shelve, shutil, tempfile, zipfile
with shelve.open("shelf") as s:
    s["key"] = {"a": [1, 2, 3]}
with shelve.open("shelf") as s:
    assert s["key"] == {"a": [1, 2, 3]}
with tempfile.TemporaryDirectory(dir=".") as t:
    with tempfile.TemporaryFile(dir=t) as f:  # O_TMPFILE, or made and unlinked
        f.write(b"x" * 100_000); f.seek(0); assert f.read() == b"x" * 100_000
    shutil.copytree("env/bin", f"{t}/bin", symlinks=True)
    assert not filecmp.dircmp("env/bin", f"{t}/bin").diff_files
    with zipfile.ZipFile(f"{t}/z.zip", "w") as z:
        for i in range(50): z.writestr(f"f{i}", os.urandom(1000))
    assert zipfile.ZipFile(f"{t}/z.zip").testzip() is None
with open("mapped", "w+b") as f:
    f.truncate(1 << 20)
    m = mmap.mmap(f.fileno(), 0); m[5000:5005] = b"hello"; m.flush(); m.close()
    f.seek(5000); assert f.read(5) == b"hello"
P
