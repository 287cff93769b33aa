/* Opens with O_DIRECT what a program opens to read and to write: its name stands before libpil4dfs.so in LD_PRELOAD. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>

int open64(const char *path, int flags, ...)
{
	static int (*next)(const char *, int, ...);
	va_list arguments;
	mode_t mode = 0;

	if (flags & O_CREAT) {
		va_start(arguments, flags);
		mode = va_arg(arguments, mode_t);
		va_end(arguments);
	}
	if (!next)
		next = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open64");
	if ((flags & O_ACCMODE) == O_RDWR)
		flags |= O_DIRECT;
	return next(path, flags, mode);
}
