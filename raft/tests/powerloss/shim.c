/*
 * A recording file layer, loaded under a process with LD_PRELOAD.
 *
 * Every call that changes a file or a name below $POWERLOSS_DIR is carried out and then written to $POWERLOSS_LOG,
 * in the order in which it took effect. Syncs are written twice, when they begin and when they have succeeded: what was
 * written before a beginning is durable once its end is there. sync_file_range is not recorded, because it makes
 * nothing durable. The test (src/tests/powerloss.rs) rebuilds from the record what a power loss may have left.
 *
 * Record: kind (1 byte), inode, number, length (8 bytes each, native order), then length bytes.
 *   c open that may create (path)     w write at number (data)    t truncate to number
 *   s sync number begins (path)       e sync number has ended     r rename (old, 0, new)
 *   u unlink (path)                   m mkdir (path)
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int log_fd = -1;
static const char *dir;
static size_t dir_len;
static uint64_t syncs;

__attribute__((constructor)) static void start(void) {
    const char *path = getenv("POWERLOSS_LOG");
    dir = getenv("POWERLOSS_DIR");
    if (!path || !dir) return;
    dir_len = strlen(dir);
    log_fd = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
}

static int below(const char *path) {
    return log_fd >= 0 && !strncmp(path, dir, dir_len) && (path[dir_len] == '/' || !path[dir_len]);
}

/* The path of a descriptor, if it is below the directory. */
static int watched(int fd, char *path, size_t size) {
    if (log_fd < 0 || fd < 0) return 0;
    char link[40];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, link, path, size - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return below(path);
}

static uint64_t inode(int fd) {
    struct stat status;
    return fstat(fd, &status) ? 0 : (uint64_t)status.st_ino;
}

/* One writev per record, so that a killed process leaves at most one torn record, the last. */
static void record(char kind, uint64_t ino, uint64_t number, const void *data, uint64_t length) {
    char head[25];
    head[0] = kind;
    memcpy(head + 1, &ino, 8);
    memcpy(head + 9, &number, 8);
    memcpy(head + 17, &length, 8);
    struct iovec parts[2] = {{head, sizeof head}, {(void *)data, length}};
    if (syscall(SYS_writev, log_fd, parts, 2) != (long)(sizeof head + length)) abort();
}

static int open_at(int at, const char *path, int flags, mode_t mode) {
    pthread_mutex_lock(&lock);
    int fd = syscall(SYS_openat, at, path, flags, mode);
    int saved = errno;
    if (fd >= 0 && below(path) && (flags & O_CREAT)) record('c', inode(fd), 0, path, strlen(path));
    if (fd >= 0 && below(path) && (flags & O_TRUNC)) record('t', inode(fd), 0, 0, 0);
    pthread_mutex_unlock(&lock);
    errno = saved;
    return fd;
}

#define MODE(flags) \
    mode_t mode = 0; \
    if ((flags) & O_CREAT) { va_list list; va_start(list, flags); mode = va_arg(list, mode_t); va_end(list); }

int open(const char *path, int flags, ...) { MODE(flags) return open_at(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags) return open_at(AT_FDCWD, path, flags, mode); }
int openat(int at, const char *path, int flags, ...) { MODE(flags) return open_at(at, path, flags, mode); }
int openat64(int at, const char *path, int flags, ...) { MODE(flags) return open_at(at, path, flags, mode); }

ssize_t pwrite64(int fd, const void *data, size_t length, off64_t offset) {
    char path[4096];
    if (!watched(fd, path, sizeof path)) return syscall(SYS_pwrite64, fd, data, length, offset);
    pthread_mutex_lock(&lock);
    ssize_t wrote = syscall(SYS_pwrite64, fd, data, length, offset);
    int saved = errno;
    if (wrote > 0) record('w', inode(fd), offset, data, wrote);
    pthread_mutex_unlock(&lock);
    errno = saved;
    return wrote;
}

ssize_t pwrite(int fd, const void *data, size_t length, off_t offset) { return pwrite64(fd, data, length, offset); }

ssize_t write(int fd, const void *data, size_t length) {
    char path[4096];
    if (!watched(fd, path, sizeof path)) return syscall(SYS_write, fd, data, length);
    pthread_mutex_lock(&lock);
    ssize_t wrote = syscall(SYS_write, fd, data, length);
    int saved = errno;
    /* The position after the write, so that appends come out right, too. */
    if (wrote > 0) record('w', inode(fd), syscall(SYS_lseek, fd, 0, SEEK_CUR) - wrote, data, wrote);
    pthread_mutex_unlock(&lock);
    errno = saved;
    return wrote;
}

/* Not recorded, so it must not happen unseen. */
ssize_t writev(int fd, const struct iovec *parts, int count) {
    char path[4096];
    if (watched(fd, path, sizeof path)) abort();
    return syscall(SYS_writev, fd, parts, count);
}

int ftruncate64(int fd, off64_t length) {
    char path[4096];
    if (!watched(fd, path, sizeof path)) return syscall(SYS_ftruncate, fd, length);
    pthread_mutex_lock(&lock);
    int result = syscall(SYS_ftruncate, fd, length);
    int saved = errno;
    if (!result) record('t', inode(fd), length, 0, 0);
    pthread_mutex_unlock(&lock);
    errno = saved;
    return result;
}

int ftruncate(int fd, off_t length) { return ftruncate64(fd, length); }

static int sync_with(long call, int fd) {
    char path[4096];
    if (!watched(fd, path, sizeof path)) return syscall(call, fd);
    uint64_t ino = inode(fd);
    pthread_mutex_lock(&lock);
    uint64_t number = ++syncs;
    record('s', ino, number, path, strlen(path));
    pthread_mutex_unlock(&lock);
    int result = syscall(call, fd);
    int saved = errno;
    pthread_mutex_lock(&lock);
    if (!result) record('e', ino, number, 0, 0);
    pthread_mutex_unlock(&lock);
    errno = saved;
    return result;
}

int fsync(int fd) { return sync_with(SYS_fsync, fd); }
int fdatasync(int fd) { return sync_with(SYS_fdatasync, fd); }

int rename(const char *from, const char *to) {
    pthread_mutex_lock(&lock);
    int result = syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
    int saved = errno;
    if (!result && below(from)) {
        char both[8192];
        int length = snprintf(both, sizeof both, "%s%c%s", from, 0, to);
        record('r', 0, 0, both, length);
    }
    pthread_mutex_unlock(&lock);
    errno = saved;
    return result;
}

int unlink(const char *path) {
    pthread_mutex_lock(&lock);
    int result = syscall(SYS_unlinkat, AT_FDCWD, path, 0);
    int saved = errno;
    if (!result && below(path)) record('u', 0, 0, path, strlen(path));
    pthread_mutex_unlock(&lock);
    errno = saved;
    return result;
}

int mkdir(const char *path, mode_t mode) {
    pthread_mutex_lock(&lock);
    int result = syscall(SYS_mkdirat, AT_FDCWD, path, mode);
    int saved = errno;
    if (!result && below(path)) record('m', 0, 0, path, strlen(path));
    pthread_mutex_unlock(&lock);
    errno = saved;
    return result;
}
