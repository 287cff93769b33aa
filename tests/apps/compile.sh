# A C compiler, ar, ld, shared libraries and make, with dependencies decided by mtimes.
. "$(dirname "$0")/lib.sh"
need cc make
n=$(short_or_long 24 200)
cat >common.h <<'C'
#define BASE 1
C
{
    echo 'int sum(void) { int s = 0;'
    for i in $(seq "$n"); do echo "extern int f$i(void); s += f$i();"; done
    echo 'return s; }'
} >sum.c
for i in $(seq "$n"); do printf '#include "common.h"\nint f%d(void) { return BASE * %d; }\n' "$i" "$i" >"f$i.c"; done
cat >main.c <<'C'
#include <dlfcn.h>
#include <stdio.h>
int sum(void);
int main(void) {
    void *lib = dlopen("./libplugin.so", RTLD_NOW);
    int (*plugin)(void) = lib ? (int (*)(void))dlsym(lib, "plugin") : 0;
    printf("%d %d\n", sum(), plugin ? plugin() : -1);
    return 0;
}
C
echo 'int plugin(void) { return 42; }' >plugin.c
cat >Makefile <<'M'
OBJS := $(patsubst %.c,%.o,$(wildcard f*.c)) sum.o
program: main.o libparts.a libplugin.so
	$(CC) -g -o $@ main.o libparts.a -ldl
libparts.a: $(OBJS)
	rm -f $@; ar rcs $@ $^
libplugin.so: plugin.c
	$(CC) -shared -fPIC -o $@ $<
$(patsubst %.c,%.o,$(wildcard f*.c)): common.h
%.o: %.c
	$(CC) -g -O1 -c -o $@ $<
	@echo $@ >>built
clean:
	rm -f *.o *.a *.so program built
M
expected=$((n * (n + 1) / 2))
make -s -j2 && same "program" "$(./program)" "$expected 42"
same "objects built" "$(wc -l <built)" $((n + 2))
rm built && make -s -j2 && [ ! -e built ] || fail "make built again what was up to date"
sleep 0.02 && sed -i 's/BASE 1/BASE 2/' common.h && make -s -j2
same "rebuilt after a header changed" "$(wc -l <built)" "$n"
same "program" "$(./program)" "$((expected * 2)) 42"
if command -v gdb >/dev/null; then
    gdb -batch -ex 'break sum' -ex run -ex bt ./program 2>/dev/null | grep -q 'sum ()' || fail "gdb finds no symbols"
fi
./program >/dev/null & # a running binary cannot be written
wait
make -s clean && same "left" "$(ls *.o 2>/dev/null | wc -l)" 0
