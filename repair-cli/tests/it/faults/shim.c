/* A disk that fails, for whole processes: loaded with LD_PRELOAD, it sees every file operation below one folder, numbers it, writes it
 * into a log, and makes the one it was asked for fail.
 *
 * It does not replace functions of the C library, since crates such as `rustix` call the kernel without it. It asks the kernel (seccomp)
 * to turn system calls into a signal, unless they come from the one instruction at `shim_syscall_end`; the handler of that signal decides.
 * So it sees what `strace` sees. A process started by such a process is not supported: it would get the signal before it has a handler.
 *
 * FAULTS_ROOT     the folder; all else is left alone
 * FAULTS_LOG      where operations are logged, as `shim.rs` reads them
 * FAULTS_CLASS    which operations are numbered: `changes`, or `reads` (which also covers looking and listing)
 * FAULTS_AT       the operation that fails; without it, none does
 * FAULTS_HOW      `once`, or `always`: this one and all that follow
 * FAULTS_EFFECT   `error`; `short`, which does half and says so; `torn`, which does half and then fails; `kill`; `torn-kill`
 * FAULTS_ERROR    the number of the error
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <linux/stat.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <ucontext.h>

#define PATH_SIZE 4096

extern char shim_syscall_end[];
long shim_syscall(long number, long a, long b, long c, long d, long e, long f);

#if defined(__x86_64__)
#define ARCHITECTURE AUDIT_ARCH_X86_64
__asm__(".text\n.globl shim_syscall\n.hidden shim_syscall\n.hidden shim_syscall_end\n.globl shim_syscall_end\n"
        ".type shim_syscall,@function\n"
        "shim_syscall:\n mov %rdi,%rax\n mov %rsi,%rdi\n mov %rdx,%rsi\n mov %rcx,%rdx\n mov %r8,%r10\n mov %r9,%r8\n mov 8(%rsp),%r9\n"
        " syscall\nshim_syscall_end:\n ret\n");
#define REGISTER(context, index) ((context)->uc_mcontext.gregs[(const int[]){REG_RDI, REG_RSI, REG_RDX, REG_R10, REG_R8, REG_R9}[index]])
#define RESULT(context) ((context)->uc_mcontext.gregs[REG_RAX])
#elif defined(__aarch64__)
#define ARCHITECTURE AUDIT_ARCH_AARCH64
__asm__(".text\n.globl shim_syscall\n.hidden shim_syscall\n.hidden shim_syscall_end\n.globl shim_syscall_end\n"
        ".type shim_syscall,%function\n"
        "shim_syscall:\n mov x8,x0\n mov x0,x1\n mov x1,x2\n mov x2,x3\n mov x3,x4\n mov x4,x5\n mov x5,x6\n svc #0\nshim_syscall_end:\n ret\n");
#define REGISTER(context, index) ((context)->uc_mcontext.regs[index])
#define RESULT(context) ((context)->uc_mcontext.regs[0])
#else
#error "the shim knows x86-64 and AArch64"
#endif

static char root[PATH_SIZE];
static size_t root_length;
static int log_file = -1;
static char class_wanted = 'c', effect = 'e';
static int error_number = EIO, is_persistent;
static long fail_at = -1, count;
static volatile int locked;

static void stop(const char *why) {
    shim_syscall(SYS_write, 2, (long)why, (long)strlen(why), 0, 0, 0);
    shim_syscall(SYS_exit_group, 97, 0, 0, 0, 0, 0);
}

static void lock(void) {
    while (__sync_lock_test_and_set(&locked, 1)) shim_syscall(SYS_sched_yield, 0, 0, 0, 0, 0, 0);
}

static void unlock(void) { __sync_lock_release(&locked); }

/* The path of an open file; empty if it has none. */
static void path_of_file(long file, char *out) {
    char link[64] = "/proc/self/fd/", digits[24];
    size_t at = strlen(link), length = 0;
    unsigned long rest = (unsigned long)file;
    do digits[length++] = (char)('0' + rest % 10); while (rest /= 10);
    while (length) link[at++] = digits[--length];
    link[at] = 0;
    long got = shim_syscall(SYS_readlinkat, AT_FDCWD, (long)link, (long)out, PATH_SIZE - 1, 0, 0);
    out[got > 0 && out[0] == '/' ? got : 0] = 0;
}

/* A path as one from `/`, without `.`, `..` and empty parts. */
static void absolute(long folder, const char *path, char *out) {
    char whole[2 * PATH_SIZE];
    size_t length = 0, kept = 0;
    if (!path || path[0] != '/') {
        if ((int)folder == AT_FDCWD) {
            if (shim_syscall(SYS_getcwd, (long)whole, PATH_SIZE, 0, 0, 0, 0) < 0) whole[0] = 0;
        } else {
            path_of_file((int)folder, whole);
        }
        length = strlen(whole);
        whole[length++] = '/';
    }
    if (path) {
        size_t more = strnlen(path, PATH_SIZE - 1);
        memcpy(whole + length, path, more);
        length += more;
    }
    whole[length] = 0;
    for (size_t at = 0; at < length;) {
        while (whole[at] == '/') at++;
        size_t end = at;
        while (end < length && whole[end] != '/') end++;
        if (end == at) break;
        if (end - at == 2 && whole[at] == '.' && whole[at + 1] == '.') {
            while (kept > 0 && out[--kept] != '/') {}
        } else if (end - at != 1 || whole[at] != '.') {
            if (kept + 1 + end - at >= PATH_SIZE) stop("faults: a path is too long\n");
            out[kept++] = '/';
            memcpy(out + kept, whole + at, end - at);
            kept += end - at;
        }
        at = end;
    }
    out[kept] = 0;
}

static int is_below(const char *path) {
    return strncmp(path, root, root_length) == 0 && (path[root_length] == '/' || path[root_length] == 0);
}

/* What is logged of an operation, then its paths and its data. */
struct record {
    int64_t number, result, inode, offset, data, first, second;
    int64_t kind;
};

static void write_log(struct record *record, const char *first, const char *second, const void *data) {
    if (log_file < 0) return;
    record->first = (int64_t)strlen(first);
    record->second = (int64_t)strlen(second);
    struct iovec parts[] = {{record, sizeof *record}, {(void *)first, (size_t)record->first}, {(void *)second, (size_t)record->second},
                            {(void *)data, (size_t)record->data}};
    long whole = (long)sizeof *record + record->first + record->second + record->data;
    if (shim_syscall(SYS_writev, log_file, (long)parts, 4, 0, 0, 0) != whole) stop("faults: the log cannot be written\n");
}

static int64_t inode_of_file(long file) {
    struct stat found;
    return shim_syscall(SYS_fstat, file, (long)&found, 0, 0, 0, 0) < 0 ? 0 : (int64_t)found.st_ino;
}

static int64_t inode_of_path(const char *path) {
    struct stat found;
    long failed = shim_syscall(SYS_newfstatat, AT_FDCWD, (long)path, (long)&found, AT_SYMLINK_NOFOLLOW, 0, 0);
    return failed < 0 ? 0 : (int64_t)found.st_ino;
}

static void die(void) {
    shim_syscall(SYS_kill, shim_syscall(SYS_getpid, 0, 0, 0, 0, 0, 0), SIGKILL, 0, 0, 0, 0);
    for (;;) shim_syscall(SYS_sched_yield, 0, 0, 0, 0, 0, 0);
}

/* Half of an operation that has a length: its bytes argument is at `length`, or -1. */
static long halved(long number, long *arguments, int length) {
    if (length < 0 || arguments[length] < 2) return -1;
    arguments[length] /= 2;
    return shim_syscall(number, arguments[0], arguments[1], arguments[2], arguments[3], arguments[4], arguments[5]);
}

/* Does, logs and perhaps fails one operation. `kind` is a letter that `shim.rs` knows. */
static long perform(char kind, long number, long *arguments, const char *first, const char *second, int file, int length) {
    char class = strchr("orls", kind) ? 'r' : 'c';
    if (class != class_wanted) {
        return shim_syscall(number, arguments[0], arguments[1], arguments[2], arguments[3], arguments[4], arguments[5]);
    }
    lock();
    struct record record = {0};
    record.number = count++;
    record.kind = kind;
    int fails = fail_at >= 0 && (record.number == fail_at || (is_persistent && record.number > fail_at));
    long result;
    if (!fails) {
        result = shim_syscall(number, arguments[0], arguments[1], arguments[2], arguments[3], arguments[4], arguments[5]);
    } else if (effect == 'k') {
        die();
    } else if (effect == 's') {
        result = halved(number, arguments, length);
        if (result < 0) result = shim_syscall(number, arguments[0], arguments[1], arguments[2], arguments[3], arguments[4], arguments[5]);
    } else {
        result = -error_number;
        /* What a torn write did is in the log as its own entry, since it did happen. */
        long half = effect == 't' || effect == 'T' ? halved(number, arguments, length) : -1;
        if (half > 0 && kind == 'w') {
            struct record torn = {.number = record.number, .kind = kind, .result = half, .data = half};
            torn.inode = inode_of_file(arguments[0]);
            torn.offset = number == SYS_pwrite64 ? arguments[3] : shim_syscall(SYS_lseek, arguments[0], 0, SEEK_CUR, 0, 0, 0) - half;
            write_log(&torn, first, second, (const void *)arguments[1]);
        }
        if (effect == 'T') die();
    }
    record.result = result;
    const void *data = 0;
    if (file >= 0) record.inode = inode_of_file(file);
    if (result >= 0) {
        if (kind == 'o' || kind == 'c') record.inode = inode_of_file(result), record.offset = arguments[number == SYS_openat ? 2 : 1];
        if (kind == 'd') record.inode = inode_of_path(first);
        if (kind == 'w' && result > 0) {
            data = (const void *)arguments[1];
            record.data = result;
            record.offset = number == SYS_pwrite64 ? arguments[3] : shim_syscall(SYS_lseek, file, 0, SEEK_CUR, 0, 0, 0) - result;
        }
        if (kind == 't') record.offset = arguments[1];
    }
    write_log(&record, first, second, data);
    unlock();
    return result;
}

static long handled(long number, long *a) {
    char first[PATH_SIZE], second[PATH_SIZE];
    first[0] = second[0] = 0;
    int at_flags = 0;
    char kind = 0;
    switch (number) {
    /* By an open file. */
    case SYS_read: case SYS_pread64: kind = 'r'; goto by_file;
    case SYS_getdents64: kind = 'l'; goto by_file;
    case SYS_write: case SYS_pwrite64: kind = 'w'; goto by_file;
    case SYS_fsync: case SYS_fdatasync: kind = 'f'; goto by_file;
    case SYS_ftruncate: kind = 't'; goto by_file;
    case SYS_writev: case SYS_pwritev: case SYS_fallocate: case SYS_sync_file_range: kind = '!';
    by_file:
        path_of_file(a[0], first);
        if (!is_below(first)) break;
        if (kind == '!') stop("faults: an operation on a file that the shim does not know\n");
        return perform(kind, number, a, first, second, (int)a[0], strchr("rw", kind) ? 2 : -1);
    /* By a path, in the working folder or another. */
#ifdef SYS_open
    case SYS_open: kind = a[1] & (O_CREAT | O_TRUNC) ? 'c' : 'o'; goto by_path;
    case SYS_unlink: kind = 'u'; goto by_path;
    case SYS_mkdir: kind = 'd'; goto by_path;
    case SYS_rmdir: kind = 'x'; goto by_path;
    case SYS_stat: case SYS_lstat: case SYS_access: kind = 's'; goto by_path;
    case SYS_creat: case SYS_symlink: kind = '!';
    by_path:
        absolute(AT_FDCWD, (const char *)a[0], first);
        goto one_path;
    case SYS_rename: kind = 'n'; goto by_paths;
    case SYS_link: kind = 'k';
    by_paths:
        absolute(AT_FDCWD, (const char *)a[0], first);
        absolute(AT_FDCWD, (const char *)a[1], second);
        goto two_paths;
    case SYS_renameat: goto renamed;
#endif
    case SYS_openat: kind = a[2] & (O_CREAT | O_TRUNC) ? 'c' : 'o'; goto by_path_in;
    case SYS_unlinkat: kind = a[2] & AT_REMOVEDIR ? 'x' : 'u'; goto by_path_in;
    case SYS_mkdirat: kind = 'd'; goto by_path_in;
    case SYS_newfstatat: kind = 's'; at_flags = (int)a[3]; goto by_path_in;
    case SYS_statx: kind = 's'; at_flags = (int)a[2]; goto by_path_in;
    case SYS_faccessat: case SYS_faccessat2: kind = 's'; goto by_path_in;
    case SYS_symlinkat: case SYS_truncate: case SYS_openat2: kind = '!';
    by_path_in:
        if ((at_flags & AT_EMPTY_PATH) && (!a[1] || !*(const char *)a[1])) path_of_file(a[0], first);
        else absolute(number == SYS_truncate ? AT_FDCWD : a[0], (const char *)a[number == SYS_truncate ? 0 : 1], first);
    one_path:
        if (!is_below(first)) break;
        if (kind == '!') stop("faults: an operation on a path that the shim does not know\n");
        return perform(kind, number, a, first, second, -1, -1);
    case SYS_linkat: kind = 'k'; goto by_paths_in;
    case SYS_renameat2: kind = 'n'; goto by_paths_in;
#ifdef SYS_open
    renamed: kind = 'n';
#endif
    by_paths_in:
        absolute(a[0], (const char *)a[1], first);
        absolute(a[2], (const char *)a[3], second);
#ifdef SYS_open
    two_paths:
#endif
        if (!is_below(first) && !is_below(second)) break;
        return perform(kind, number, a, first, second, -1, -1);
    case SYS_copy_file_range: case SYS_sendfile:
        path_of_file(a[number == SYS_sendfile ? 0 : 2], first);
        if (is_below(first)) stop("faults: a file is copied in a way that the shim does not know\n");
        break;
    }
    return shim_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

static void on_signal(int signal, siginfo_t *info, void *opaque) {
    (void)signal;
    ucontext_t *context = opaque;
    long arguments[6];
    for (int index = 0; index < 6; index++) arguments[index] = (long)REGISTER(context, index);
    RESULT(context) = handled(info->si_syscall, arguments);
}

static const int NUMBERS[] = {
    SYS_read, SYS_pread64, SYS_getdents64, SYS_write, SYS_pwrite64, SYS_fsync, SYS_fdatasync, SYS_ftruncate, SYS_writev, SYS_pwritev,
    SYS_fallocate, SYS_sync_file_range, SYS_openat, SYS_unlinkat, SYS_mkdirat, SYS_newfstatat, SYS_statx, SYS_faccessat, SYS_faccessat2,
    SYS_symlinkat, SYS_truncate, SYS_openat2, SYS_linkat, SYS_renameat2, SYS_copy_file_range, SYS_sendfile,
#ifdef SYS_open
    SYS_open, SYS_unlink, SYS_mkdir, SYS_rmdir, SYS_stat, SYS_lstat, SYS_access, SYS_creat, SYS_symlink, SYS_rename, SYS_link, SYS_renameat,
#endif
};
#define COUNT (sizeof NUMBERS / sizeof *NUMBERS)

__attribute__((constructor)) static void begin(void) {
    const char *value = getenv("FAULTS_ROOT");
    if (!value) return;
    root_length = strlen(value);
    if (root_length == 0 || root_length >= PATH_SIZE) stop("faults: FAULTS_ROOT is no folder\n");
    memcpy(root, value, root_length + 1);
    if ((value = getenv("FAULTS_CLASS"))) class_wanted = value[0];
    if ((value = getenv("FAULTS_AT"))) fail_at = atol(value);
    if ((value = getenv("FAULTS_HOW"))) is_persistent = value[0] == 'a';
    if ((value = getenv("FAULTS_ERROR"))) error_number = atoi(value);
    if ((value = getenv("FAULTS_EFFECT"))) effect = strcmp(value, "torn-kill") == 0 ? 'T' : value[0];
    if ((value = getenv("FAULTS_LOG"))) {
        log_file = (int)shim_syscall(SYS_openat, AT_FDCWD, (long)value, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600, 0, 0);
        if (log_file < 0) stop("faults: FAULTS_LOG cannot be opened\n");
    }
    struct sigaction action = {0};
    action.sa_sigaction = on_signal;
    /* Other signals wait, so that the lock is never taken twice by one thread. */
    sigfillset(&action.sa_mask);
    action.sa_flags = SA_SIGINFO;
    if (sigaction(SIGSYS, &action, 0) != 0) stop("faults: no handler of SIGSYS\n");

    uint64_t own = (uint64_t)(uintptr_t)shim_syscall_end;
    struct sock_filter filter[COUNT + 16];
    size_t at = 0;
#define ADD(...) filter[at++] = (struct sock_filter)__VA_ARGS__
#define LOAD(offset) ADD(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (offset)))
    /* Another architecture's numbers mean something else. */
    LOAD(offsetof(struct seccomp_data, arch));
    ADD(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCHITECTURE, 1, 0));
    ADD(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
    LOAD(offsetof(struct seccomp_data, instruction_pointer));
    ADD(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)own, 0, 3));
    LOAD(offsetof(struct seccomp_data, instruction_pointer) + 4);
    ADD(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(own >> 32), 0, 1));
    ADD(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
    LOAD(offsetof(struct seccomp_data, nr));
    for (size_t index = 0; index < COUNT; index++) {
        ADD(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)NUMBERS[index], (uint8_t)(COUNT - index), 0));
    }
    ADD(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
    ADD(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP));
    struct sock_fprog program = {(unsigned short)at, filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) {
        stop("faults: the kernel does not allow to filter system calls\n");
    }
}
