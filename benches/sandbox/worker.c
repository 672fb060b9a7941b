/* The floor's worker, linked as a native function is: dynamically, with the libraries that such a program has.
 *
 *   worker serve SEGMENT_BYTES
 *       in the floor's sandbox: maps the segment, says "ready" on descriptor 6, and sleeps.
 *   worker fork IMAGE_KIB SEGMENT_BYTES FILTER
 *       in a process id namespace of its own and no sandbox: takes an image of as much written memory as a native worker has,
 *       and the filter of system calls, and for each line
 *       `KIND COUNT` on its standard input makes that many processes one after another; prints nanoseconds on the clock,
 *       and nanoseconds of processor time of itself and of its children. Each process ends at once and is reaped.
 *         plain     a fork
 *         user      a user and group of its own, no capability                     process::become_instance
 *         sweep     as that, and then whatever its user has left is killed         and identity::kill_leftovers
 *         namespace as `user`, in a process id namespace of its own                the floor of an instance */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CHECK(what) check((long)(what), #what, __LINE__)
#define FIRST_USER 0x7f000000u

static long check(long result, const char *what, int line) {
    if (result < 0) {
        fprintf(stderr, "worker.c:%d: %s: %s\n", line, what, strerror(errno));
        _exit(1);
    }
    return result;
}

static void map_segment(int fd, size_t bytes) {
    char *mapped = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (mapped == MAP_FAILED) CHECK(-1);
    // Its head is read, and checked.
    (void)*(volatile char *)mapped;
}

static _Noreturn void serve(size_t segment_bytes) {
    for (int fd = 3; fd < 8; fd++) CHECK(fcntl(fd, F_SETFD, FD_CLOEXEC));
    map_segment(3, segment_bytes);
    CHECK(write(6, "ready\n", 6));
    close(6);
    for (;;) pause();
}

/* Sandbar's own filter, but that it lets a process id namespace be made. */
static void install(const char *path) {
    static struct sock_filter code[1024];
    int fd = CHECK(open(path, O_RDONLY | O_CLOEXEC));
    size_t length = CHECK(read(fd, code, sizeof code)) / sizeof *code;
    close(fd);
    for (size_t at = 0; at < length; at++)
        if (BPF_CLASS(code[at].code) != BPF_RET && (code[at].k & (CLONE_NEWPID | CLONE_NEWNS)) == (CLONE_NEWPID | CLONE_NEWNS))
            code[at].k &= ~CLONE_NEWPID;
    struct sock_fprog filter = {(unsigned short)length, code};
    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    CHECK(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter));
}

static _Noreturn void instance(int with_user) {
    if (with_user) {
        struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
        struct __user_cap_data_struct none[2] = {{0, 0, 0}, {0, 0, 0}};
        CHECK(syscall(SYS_setresgid, FIRST_USER, FIRST_USER, FIRST_USER));
        CHECK(syscall(SYS_setresuid, FIRST_USER, FIRST_USER, FIRST_USER));
        CHECK(syscall(SYS_capset, &header, none));
        CHECK(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0));
    }
    _exit(0);
}

static void sweep(void) {
    CHECK(syscall(SYS_setresuid, FIRST_USER, FIRST_USER, 0));
    if (kill(-1, SIGKILL) == 0) fprintf(stderr, "worker: the first user of the floor's had a process\n");
    CHECK(syscall(SYS_setresuid, 0, 0, 0));
}

/* Memory of this process alone, in KiB. */
static size_t written_kib(void) {
    char line[256];
    unsigned long kib = 0;
    FILE *memory = fopen("/proc/self/smaps_rollup", "r");
    while (memory && fgets(line, sizeof line, memory) && sscanf(line, "Anonymous: %lu", &kib) != 1) {}
    if (memory) fclose(memory);
    return kib;
}

static uint64_t clock_ns(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec * 1000000000ull + now.tv_nsec;
}

static uint64_t processor_ns(void) {
    struct rusage children;
    CHECK(getrusage(RUSAGE_CHILDREN, &children));
    struct timeval user = children.ru_utime, system = children.ru_stime;
    return clock_ns(CLOCK_PROCESS_CPUTIME_ID) + (user.tv_sec + system.tv_sec) * 1000000000ull + (user.tv_usec + system.tv_usec) * 1000ull;
}

static void rounds(const char *kind, unsigned count) {
    int with_user = strcmp(kind, "plain") != 0, with_sweep = !strcmp(kind, "sweep");
    unsigned long flags = SIGCHLD | (!strcmp(kind, "namespace") ? CLONE_NEWPID : 0);
    uint64_t began = clock_ns(CLOCK_MONOTONIC), processor = processor_ns();
    for (unsigned at = 0; at < count; at++) {
        int pid = CHECK(syscall(SYS_clone, flags, NULL, NULL, NULL, NULL)), status;
        if (pid == 0) instance(with_user);
        CHECK(waitpid(pid, &status, 0));
        if (status != 0) {
            fprintf(stderr, "worker: a process ended with %x\n", status);
            _exit(1);
        }
        if (with_sweep) sweep();
    }
    printf("%llu %llu\n", (unsigned long long)(clock_ns(CLOCK_MONOTONIC) - began), (unsigned long long)(processor_ns() - processor));
    fflush(stdout);
}

int main(int count, char **arguments) {
    if (count == 3 && !strcmp(arguments[1], "serve")) serve(strtoull(arguments[2], NULL, 10));
    if (count != 5 || strcmp(arguments[1], "fork")) {
        fprintf(stderr, "worker: see the head of worker.c\n");
        return 2;
    }
    // As in a sandbox: a sweep looks at the processes of this namespace, and can harm no others.
    CHECK(unshare(CLONE_NEWPID));
    pid_t first = CHECK(fork());
    int status;
    if (first > 0) {
        CHECK(waitpid(first, &status, 0));
        return status != 0;
    }
    size_t wanted_kib = strtoull(arguments[2], NULL, 10), own_kib = written_kib(), segment_bytes = strtoull(arguments[3], NULL, 10);
    size_t image_bytes = wanted_kib > own_kib ? (wanted_kib - own_kib) << 10 : 4096;
    char *image = mmap(NULL, image_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (image == MAP_FAILED) CHECK(-1);
    for (size_t at = 0; at < image_bytes; at += 4096) image[at] = 1;
    int segment = CHECK(memfd_create("floor-bus", MFD_CLOEXEC));
    CHECK(ftruncate(segment, segment_bytes));
    map_segment(segment, segment_bytes);
    install(arguments[4]);
    char kind[16];
    for (unsigned each; scanf("%15s %u", kind, &each) == 2;) rounds(kind, each);
    return 0;
}
