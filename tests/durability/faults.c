/* Makes chosen file operations of this process fail; loaded with LD_PRELOAD.
 *
 * fault_arm(folder, kind, nth): the nth operation from now on files below the folder that can fail
 * with this kind does so, and all that follow, until fault_disarm(), which gives how many operations
 * there were. Kinds: 1 ENOSPC on writing, 2 EIO on writing, 3 EIO on fsync, 4 EMFILE on opening,
 * 5 short writes (half of each, no error), 6 EIO on rename, 7 EROFS on opening for writing.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static char folder[PATH_MAX];
static int kind;
static long nth, seen;

void fault_arm(const char *path, int which, long number) {
    snprintf(folder, sizeof folder, "%s", path);
    nth = number;
    __atomic_store_n(&seen, 0, __ATOMIC_SEQ_CST);
    __atomic_store_n(&kind, which, __ATOMIC_SEQ_CST);
}

long fault_disarm(void) {
    __atomic_store_n(&kind, 0, __ATOMIC_SEQ_CST);
    return __atomic_load_n(&seen, __ATOMIC_SEQ_CST);
}

static int inside(int file) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return strncmp(path, folder, strlen(folder)) == 0;
}

static int strikes(int concerned) {
    if (!concerned) return 0;
    return __atomic_add_fetch(&seen, 1, __ATOMIC_SEQ_CST) >= nth;
}

/* 0: go on; otherwise the errno, or -1 for a short write */
static int on_write(int file) {
    int now = __atomic_load_n(&kind, __ATOMIC_SEQ_CST);
    if ((now != 1 && now != 2 && now != 5) || !strikes(inside(file))) return 0;
    return now == 1 ? ENOSPC : now == 2 ? EIO : -1;
}

#define REAL(name) __typeof__(&name) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

ssize_t write(int file, const void *data, size_t size) {
    REAL(write);
    int fault = on_write(file);
    if (fault > 0) { errno = fault; return -1; }
    return real(file, data, fault < 0 && size > 1 ? size / 2 : size);
}

ssize_t pwrite(int file, const void *data, size_t size, off_t at) {
    REAL(pwrite);
    int fault = on_write(file);
    if (fault > 0) { errno = fault; return -1; }
    return real(file, data, fault < 0 && size > 1 ? size / 2 : size, at);
}

ssize_t pwrite64(int file, const void *data, size_t size, off64_t at) {
    REAL(pwrite64);
    int fault = on_write(file);
    if (fault > 0) { errno = fault; return -1; }
    return real(file, data, fault < 0 && size > 1 ? size / 2 : size, at);
}

int posix_fallocate(int file, off_t at, off_t size) {
    REAL(posix_fallocate);
    int fault = on_write(file);
    return fault > 0 ? fault : real(file, at, size);
}

int posix_fallocate64(int file, off64_t at, off64_t size) {
    REAL(posix_fallocate64);
    int fault = on_write(file);
    return fault > 0 ? fault : real(file, at, size);
}

int ftruncate64(int file, off64_t size) {
    REAL(ftruncate64);
    int fault = on_write(file);
    if (fault > 0) { errno = fault; return -1; }
    return real(file, size);
}

static int on_sync(int file) {
    return __atomic_load_n(&kind, __ATOMIC_SEQ_CST) == 3 && strikes(inside(file)) ? EIO : 0;
}

int fsync(int file) {
    REAL(fsync);
    if (on_sync(file)) { errno = EIO; return -1; }
    return real(file);
}

int fdatasync(int file) {
    REAL(fdatasync);
    if (on_sync(file)) { errno = EIO; return -1; }
    return real(file);
}

int msync(void *data, size_t size, int flags) {
    REAL(msync);
    if (__atomic_load_n(&kind, __ATOMIC_SEQ_CST) == 3 && strikes(1)) { errno = EIO; return -1; }
    return real(data, size, flags);
}

static int on_open(const char *path, int flags) {
    int now = __atomic_load_n(&kind, __ATOMIC_SEQ_CST);
    int writes = (flags & O_ACCMODE) != O_RDONLY;
    if (now != 4 && !(now == 7 && writes)) return 0;
    if (!strikes(strncmp(path, folder, strlen(folder)) == 0)) return 0;
    return now == 4 ? EMFILE : EROFS;
}

#define OPEN(name)                                                  \
    int name(const char *path, int flags, ...) {                    \
        __typeof__(&name) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name); \
        mode_t mode = 0;                                            \
        if (flags & (O_CREAT | O_TMPFILE)) {                        \
            va_list rest;                                           \
            va_start(rest, flags);                                  \
            mode = va_arg(rest, mode_t);                            \
            va_end(rest);                                           \
        }                                                           \
        int fault = on_open(path, flags);                           \
        if (fault) { errno = fault; return -1; }                    \
        return real(path, flags, mode);                             \
    }

OPEN(open)
OPEN(open64)

int rename(const char *from, const char *to) {
    REAL(rename);
    if (__atomic_load_n(&kind, __ATOMIC_SEQ_CST) == 6
        && strikes(strncmp(from, folder, strlen(folder)) == 0)) {
        errno = EIO;
        return -1;
    }
    return real(from, to);
}
