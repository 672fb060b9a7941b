/* What a sandbox costs in plain C: each step that the host agent, a supervisor and a worker take for an application with one
 * native function, in the same order, by the same system calls, with nothing around them.
 *
 *   floor agent GROUP MOUNT_POINT INSIDE APPLICATION SEGMENT_BYTES MEMORY_BYTES FILTER WORKER_FILTER
 *       makes a sandbox for each line on its standard input, ends it, and prints the microseconds since it began of each
 *       phase: limited, built, entered, ready, ended. APPLICATION is a directory with `worker`, the program of worker.c;
 *       GROUP, made in each hierarchy, is for the caller to remove.
 *   floor supervisor
 *       is started by the agent, from a sealed copy of this file in memory.
 *
 *   step                                                        in Sandbar
 *   1 segment, log pipes, eventfds, trace socket                Sandbox::start, Segment::create
 *   2 control groups and their limits                           Hierarchy::make                         -> limited
 *   3 plan and descriptors sent, supervisor started, reaped     make_process, launch
 *   4 namespaces, first process as the agent's child            identity::leave_host, fork_first_process
 *   5 host name, loopback                                       identity::name_host
 *   6 root: tmpfs, binds, links, files, /tmp, /proc, pivot      root::enter
 *   7 user namespace                                            identity::enter_user_namespace          -> built
 *   8 users mapped, let go with the way into its groups         Cgroup::admit, map_users                -> entered
 *   9 in its groups, root of its own: capabilities, limits     identity::enter_groups, become_supervisor
 *  10 descriptors in their places, segment mapped, filter       sort_descriptors, seccomp::confine
 *     Landlock rules for worker and instances                   landlock::rules
 *  11 worker forked: descriptors, identity, rules, filter, exec spawn::spawn, become_worker_of
 *  12 worker maps the segment and says that it is ready         Worker::join, Worker::ready             -> ready
 *  13 killed, reaped, groups removed                            Sandbox::end                            -> ended
 *
 * The filters are Sandbar's own, byte by byte: the bench writes them to files. For hosts with control groups v1, each controller
 * in its usual place. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CHECK(what) check((long)(what), #what, __LINE__)
#define PATH_BYTES 512
#define FILTER_MAX 1024
#define USERS 65536
#define FIRST_USER 0x7f000000u
#define WORKER_ID 1000
#ifndef MFD_EXEC /* C libraries before 2.38 */
#define MFD_NOEXEC_SEAL 8u
#define MFD_EXEC 16u
#endif
#define PIECES 7 /* descriptors of a plan: segment, out event, trace, wake, count of kills, own log, the function's log */
/* Rights of Landlock rules, up to version 6 of its interface; of files alone, those that a device has too. */
#define RIGHTS_ALL 0xffffull
#define RIGHTS_FILE (0x7ull | 1ull << 14 | 1ull << 15)
#define RIGHTS_READ 0xdull
#define RIGHT_WRITE 0x2ull

static long check(long result, const char *what, int line) {
    if (result < 0) {
        fprintf(stderr, "floor.c:%d: %s: %s\n", line, what, strerror(errno));
        _exit(1);
    }
    return result;
}

struct program {
    uint32_t length;
    struct sock_filter code[FILTER_MAX];
};

struct plan {
    char name[64], mount_point[PATH_BYTES], inside[PATH_BYTES], application[PATH_BYTES];
    uint64_t segment_bytes, tmp_bytes;
    struct program filter, worker_filter;
};

/* What a supervisor tells: a kind, and a process id where there is one. */
struct word {
    enum { FORKED, CREATED, READY, GO } kind;
    int pid;
};

static const char *const SYSTEM[] = {"/usr", "/bin", "/sbin", "/lib", "/lib64", "/lib32"};
static const char *const SETTINGS[] = {"/etc/ld.so.cache", "/etc/alternatives", "/etc/ssl/certs", "/etc/localtime", "/etc/mime.types"};
static const char *const DEVICES[] = {"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"};
static const char *const CONTROLLERS[] = {"memory", "pids", "cpu", "freezer"};
#define COUNT(array) (sizeof(array) / sizeof *(array))

static void send_record(int socket, const void *record, size_t bytes, const int *fds, size_t count) {
    char space[CMSG_SPACE(PIECES * sizeof(int))] = {0};
    struct iovec slice = {(void *)record, bytes};
    struct msghdr message = {.msg_iov = &slice, .msg_iovlen = 1};
    if (count > 0) {
        message.msg_control = space;
        message.msg_controllen = CMSG_SPACE(count * sizeof(int));
        struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(count * sizeof(int));
        memcpy(CMSG_DATA(rights), fds, count * sizeof(int));
    }
    CHECK(sendmsg(socket, &message, MSG_NOSIGNAL));
}

/* The descriptors that come with a record, as many as are expected, are put into `fds`. */
static void receive_record(int socket, void *record, size_t bytes, int *fds, size_t count) {
    char space[CMSG_SPACE(PIECES * sizeof(int)) + CMSG_SPACE(sizeof(struct ucred))];
    struct iovec slice = {record, bytes};
    struct msghdr message = {.msg_iov = &slice, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space};
    if (CHECK(recvmsg(socket, &message, MSG_CMSG_CLOEXEC)) != (long)bytes) {
        fprintf(stderr, "floor: the other side is gone\n");
        _exit(1);
    }
    for (struct cmsghdr *part = CMSG_FIRSTHDR(&message); part; part = CMSG_NXTHDR(&message, part))
        if (part->cmsg_type == SCM_RIGHTS && count > 0)
            memcpy(fds, CMSG_DATA(part), count * sizeof(int));
}

static void write_at(int directory, const char *name, const char *value) {
    int fd = CHECK(openat(directory, name, O_WRONLY | O_TRUNC | O_CLOEXEC | O_NOFOLLOW));
    CHECK(write(fd, value, strlen(value)));
    close(fd);
}

/* ---- The supervisor ---- */

static void make_parents(const char *path) {
    char copy[PATH_BYTES * 2];
    strcpy(copy, path);
    for (char *at = copy + 1; (at = strchr(at, '/')); at++) {
        *at = 0;
        if (mkdir(copy, 0755) < 0 && errno != EEXIST) CHECK(-1);
        *at = '/';
    }
}

/* Paths are made relative to the new root, in which the process stands: nothing above it has to be walked. */
static void bind_read_only(const char *source, const char *target, int device) {
    struct stat found;
    if (stat(source, &found) < 0) return;
    char parents[PATH_BYTES * 2];
    snprintf(parents, sizeof parents, "%s%s", target + 1, S_ISDIR(found.st_mode) ? "/" : "");
    make_parents(parents);
    if (!S_ISDIR(found.st_mode)) close(CHECK(open(target + 1, O_CREAT | O_WRONLY | O_CLOEXEC, 0644)));
    CHECK(mount(source, target + 1, NULL, MS_BIND | MS_REC, NULL));
    struct mount_attr restricted = {.attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | (device ? MOUNT_ATTR_NOEXEC : MOUNT_ATTR_NODEV)};
    CHECK(syscall(SYS_mount_setattr, AT_FDCWD, target + 1, AT_RECURSIVE, &restricted, sizeof restricted));
}

static void write_file(const char *path, const char *contents) {
    make_parents(path);
    int fd = CHECK(open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0644));
    CHECK(write(fd, contents, strlen(contents)));
    close(fd);
}

static void enter_root(const struct plan *plan) {
    char text[PATH_BYTES];
    CHECK(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
    CHECK(mount("tmpfs", plan->mount_point, "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,nr_inodes=4096,mode=0755"));
    int old = CHECK(open("/", O_DIRECTORY | O_CLOEXEC));
    CHECK(chdir(plan->mount_point));
    for (size_t at = 0; at < COUNT(SYSTEM); at++) {
        ssize_t length = readlink(SYSTEM[at], text, sizeof text - 1);
        if (length > 0) {
            text[length] = 0;
            CHECK(symlink(text, SYSTEM[at] + 1));
        } else {
            bind_read_only(SYSTEM[at], SYSTEM[at], 0);
        }
    }
    for (size_t at = 0; at < COUNT(SETTINGS); at++) bind_read_only(SETTINGS[at], SETTINGS[at], 0);
    for (size_t at = 0; at < COUNT(DEVICES); at++) bind_read_only(DEVICES[at], DEVICES[at], 1);
    bind_read_only(plan->inside, "/sandbar", 0);
    bind_read_only(plan->application, "/app", 0);
    CHECK(symlink("/proc/self/fd", "dev/fd"));
    CHECK(symlink("/proc/self/fd/0", "dev/stdin"));
    CHECK(symlink("/proc/self/fd/1", "dev/stdout"));
    CHECK(symlink("/proc/self/fd/2", "dev/stderr"));
    write_file("etc/passwd", "root:x:0:0::/:/bin/false\nworker:x:1000:1000::/tmp:/bin/false\n");
    write_file("etc/group", "root:x:0:\nworker:x:1000:\n");
    snprintf(text, sizeof text, "127.0.0.1 localhost %s\n::1 localhost\n", plan->name);
    write_file("etc/hosts", text);
    write_file("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n");
    snprintf(text, sizeof text, "size=%llu,nr_inodes=16384,mode=1777", (unsigned long long)plan->tmp_bytes);
    make_parents("tmp/");
    CHECK(mount("tmpfs", "tmp", "tmpfs", MS_NOSUID | MS_NODEV, text));
    make_parents("dev/shm/");
    CHECK(mount("tmpfs", "dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, text));
    make_parents("proc/");
    CHECK(mount("proc", "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, "subset=pid,hidepid=invisible"));
    CHECK(syscall(SYS_pivot_root, ".", "."));
    CHECK(fchdir(old));
    CHECK(umount2(".", MNT_DETACH));
    CHECK(chdir("/"));
    CHECK(mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV, NULL));
    close(old);
}

static void name_host(const char *name) {
    CHECK(sethostname(name, strlen(name)));
    int socket_fd = CHECK(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    struct ifreq request = {.ifr_name = "lo"};
    request.ifr_flags = IFF_UP | IFF_RUNNING;
    CHECK(ioctl(socket_fd, SIOCSIFFLAGS, &request));
    close(socket_fd);
}

static void set_capabilities(uint32_t effective, uint32_t inheritable) {
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct sets[2] = {{effective, effective, inheritable}, {0, 0, 0}};
    CHECK(syscall(SYS_capset, &header, sets));
}

static void bound_capabilities(uint32_t kept) {
    for (int capability = 0; capability <= CAP_LAST_CAP; capability++)
        if (capability >= 32 || !(kept & 1u << capability))
            if (prctl(PR_CAPBSET_READ, capability, 0, 0, 0) > 0) CHECK(prctl(PR_CAPBSET_DROP, capability, 0, 0, 0));
}

static void limit(int resource, rlim_t value) {
    struct rlimit limits;
    CHECK(getrlimit(resource, &limits));
    if (value > limits.rlim_max) value = limits.rlim_max;
    limits.rlim_cur = limits.rlim_max = value;
    CHECK(setrlimit(resource, &limits));
}

static void stand_for_memory(const char *score) {
    int fd = CHECK(open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC));
    CHECK(write(fd, score, strlen(score)));
    close(fd);
}

static void allow(int rules, const char *path, uint64_t rights) {
    struct landlock_path_beneath_attr beneath = {rights, CHECK(open(path, O_PATH | O_CLOEXEC))};
    CHECK(syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &beneath, 0));
    close(beneath.parent_fd);
}

static int landlock_rules(void) {
    struct { uint64_t files, network, scope; } handled = {RIGHTS_ALL, 0, 3};
    int rules = CHECK(syscall(SYS_landlock_create_ruleset, &handled, sizeof handled, 0));
    allow(rules, "/", RIGHTS_READ);
    allow(rules, "/tmp", RIGHTS_ALL);
    allow(rules, "/dev/shm", RIGHTS_ALL);
    for (size_t at = 0; at < COUNT(DEVICES); at++) allow(rules, DEVICES[at], RIGHTS_FILE);
    return rules;
}

static void become_supervisor(void) {
    CHECK(unshare(CLONE_NEWCGROUP));
    CHECK(setresgid(0, 0, 0));
    CHECK(setresuid(0, 0, 0));
    uint32_t kept = 1u << CAP_KILL | 1u << CAP_SETUID | 1u << CAP_SETGID | 1u << CAP_SETPCAP | 1u << CAP_DAC_OVERRIDE | 1u << CAP_FOWNER;
    bound_capabilities(kept);
    set_capabilities(kept, 0);
    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    CHECK(prctl(PR_SET_DUMPABLE, 0, 0, 0, 0));
    limit(RLIMIT_NPROC, 64);
    limit(RLIMIT_FSIZE, 64 << 20);
    limit(RLIMIT_SIGPENDING, 1024);
    limit(RLIMIT_CORE, 0);
    limit(RLIMIT_NOFILE, 1024);
    limit(RLIMIT_MSGQUEUE, 0);
    limit(RLIMIT_RTPRIO, 0);
    limit(RLIMIT_NICE, 0);
    limit(RLIMIT_MEMLOCK, 64 << 10);
    limit(RLIMIT_STACK, 8 << 20);
}

static void install(const struct program *program) {
    struct sock_fprog filter = {(unsigned short)program->length, (struct sock_filter *)program->code};
    CHECK(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter));
}

static _Noreturn void become_worker(const struct plan *plan, const int *pieces, int null, int report, int own_rules, int instance_rules) {
    int from[] = {null, pieces[6], pieces[6], pieces[0], pieces[1], pieces[2], report, instance_rules, own_rules}, lifted[COUNT(from)];
    for (size_t at = 0; at < COUNT(from); at++) lifted[at] = CHECK(fcntl(from[at], F_DUPFD_CLOEXEC, 64));
    for (size_t at = 0; at < COUNT(from); at++) CHECK(dup2(lifted[at], at));
    CHECK(close_range(COUNT(from), ~0u, 0));
    sigset_t none;
    sigemptyset(&none);
    CHECK(sigprocmask(SIG_SETMASK, &none, NULL));
    CHECK(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0));
    stand_for_memory("500");
    uint32_t kept = 1u << CAP_SETUID | 1u << CAP_SETGID;
    set_capabilities(1u << CAP_KILL | kept | 1u << CAP_SETPCAP, kept);
    bound_capabilities(0);
    CHECK(prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0));
    CHECK(setresgid(WORKER_ID, WORKER_ID, WORKER_ID));
    CHECK(setresuid(WORKER_ID, WORKER_ID, WORKER_ID));
    set_capabilities(kept, kept);
    CHECK(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_SETUID, 0, 0));
    CHECK(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_SETGID, 0, 0));
    CHECK(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0));
    CHECK(syscall(SYS_landlock_restrict_self, 8, 0));
    close(8);
    install(&plan->worker_filter);
    CHECK(chdir("/app"));
    char bytes[24], *arguments[] = {"/app/worker", "serve", bytes, NULL};
    char *environment[] = {"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/tmp", "TMPDIR=/tmp", "LANG=C.UTF-8", "PYTHONNOUSERSITE=1",
                           "OMP_NUM_THREADS=1", "OPENBLAS_NUM_THREADS=1", "SANDBAR_FUNCTION=first", NULL};
    snprintf(bytes, sizeof bytes, "%llu", (unsigned long long)plan->segment_bytes);
    CHECK(execve(arguments[0], arguments, environment));
    _exit(1);
}

static int supervise(void) {
    static struct plan plan;
    int agent = CHECK(fcntl(0, F_DUPFD_CLOEXEC, 3)), pieces[PIECES];
    receive_record(agent, &plan, sizeof plan, pieces, PIECES);
    stand_for_memory("0");
    CHECK(syscall(SYS_setgroups, 0, NULL));
    CHECK(unshare(CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS));
    int first = CHECK(syscall(SYS_clone, CLONE_PARENT | SIGCHLD, NULL, NULL, NULL, NULL));
    if (first > 0) {
        send_record(agent, &(struct word){FORKED, first}, sizeof(struct word), NULL, 0);
        return 0;
    }
    CHECK(prctl(PR_SET_NAME, "floor-super"));
    int null = CHECK(open("/dev/null", O_RDWR | O_CLOEXEC));
    name_host(plan.name);
    enter_root(&plan);
    CHECK(unshare(CLONE_NEWUSER));
    send_record(agent, &(struct word){CREATED, 0}, sizeof(struct word), NULL, 0);
    struct word go;
    int entries[COUNT(CONTROLLERS)];
    receive_record(agent, &go, sizeof go, entries, COUNT(entries));
    for (size_t at = 0; at < COUNT(entries); at++) {
        CHECK(write(entries[at], "0", 1));
        close(entries[at]);
    }
    become_supervisor();
    CHECK(dup2(null, 0));
    CHECK(dup2(pieces[5], 1));
    CHECK(dup2(pieces[5], 2));
    if (mmap(NULL, plan.segment_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, pieces[0], 0) == MAP_FAILED) CHECK(-1);
    int own_rules = landlock_rules(), instance_rules = landlock_rules();
    allow(own_rules, "/proc", RIGHT_WRITE);
    struct statfs files;
    CHECK(fstatfs(CHECK(open("/tmp", O_DIRECTORY | O_CLOEXEC)), &files));
    CHECK(fstatfs(CHECK(open("/dev/shm", O_DIRECTORY | O_CLOEXEC)), &files));
    install(&plan.filter);
    sigset_t ended;
    sigemptyset(&ended);
    sigaddset(&ended, SIGCHLD);
    CHECK(sigprocmask(SIG_BLOCK, &ended, NULL));
    CHECK(signalfd(-1, &ended, SFD_NONBLOCK | SFD_CLOEXEC));
    int status[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, status));
    if (CHECK(fork()) == 0) become_worker(&plan, pieces, null, status[1], own_rules, instance_rules);
    close(status[1]);
    struct pollfd said = {status[0], POLLIN, 0};
    CHECK(poll(&said, 1, -1));
    char text[8];
    if (CHECK(read(status[0], text, sizeof text)) != 6) _exit(1);
    send_record(agent, &(struct word){READY, 0}, sizeof(struct word), NULL, 0);
    struct pollfd gone = {agent, POLLIN, 0};
    CHECK(poll(&gone, 1, -1));
    return 0;
}

/* ---- The agent ---- */

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000ull + now.tv_nsec;
}

static int trees[COUNT(CONTROLLERS)], own[COUNT(CONTROLLERS)];

static void make_groups(const char *name, const char *memory_bytes) {
    for (size_t at = 0; at < COUNT(CONTROLLERS); at++) {
        CHECK(mkdirat(trees[at], name, 0755));
        own[at] = CHECK(openat(trees[at], name, O_DIRECTORY | O_CLOEXEC));
    }
    write_at(own[0], "memory.limit_in_bytes", memory_bytes);
    write_at(own[0], "memory.memsw.limit_in_bytes", memory_bytes);
    write_at(own[0], "memory.kmem.tcp.limit_in_bytes", memory_bytes);
    write_at(own[1], "pids.max", "64");
    write_at(own[2], "cpu.cfs_period_us", "100000");
    write_at(own[2], "cpu.cfs_quota_us", "100000");
}

static void remove_groups(const char *name) {
    for (size_t at = 0; at < COUNT(CONTROLLERS); at++) {
        close(own[at]);
        while (unlinkat(trees[at], name, AT_REMOVEDIR) < 0) {
            if (errno != EBUSY) CHECK(-1);
            usleep(1000);
        }
    }
}

static void map_users(int pid) {
    char path[64], map[64];
    snprintf(path, sizeof path, "/proc/%d", pid);
    int process = CHECK(open(path, O_DIRECTORY | O_CLOEXEC));
    snprintf(map, sizeof map, "0 %u %u\n", FIRST_USER, USERS);
    write_at(process, "setgroups", "deny");
    write_at(process, "uid_map", map);
    write_at(process, "gid_map", map);
    close(process);
}

/* The supervisor's program, from memory, with the socket as its standard input. */
static void launch(const char *program, int theirs) {
    pid_t launcher = vfork();
    if (CHECK(launcher) == 0) {
        int null = open("/dev/null", O_RDWR | O_CLOEXEC);
        if (dup2(theirs, 0) < 0 || dup2(null, 1) < 0 || chdir("/") < 0) _exit(1);
        char *arguments[] = {"floor-supervisor", "supervisor", NULL}, *environment[] = {NULL};
        execve(program, arguments, environment);
        _exit(1);
    }
    int status;
    CHECK(waitpid(launcher, &status, 0));
}

static void credentials_wanted(int socket) {
    int yes = 1;
    CHECK(setsockopt(socket, SOL_SOCKET, SO_PASSCRED, &yes, sizeof yes));
}

static void round_trip(const char *program, struct plan *plan, const char *memory_bytes, unsigned number) {
    uint64_t at[6];
    char name[64];
    int log[2], own_log[2], trace[2], control[2];
    at[0] = now_ns();
    int segment = CHECK(memfd_create("floor-bus", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL));
    CHECK(ftruncate(segment, plan->segment_bytes));
    CHECK(fcntl(segment, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL));
    char *mapped = mmap(NULL, plan->segment_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, segment, 0);
    if (mapped == MAP_FAILED) CHECK(-1);
    memset(mapped, 1, 4096);
    CHECK(pipe2(own_log, O_CLOEXEC));
    CHECK(pipe2(log, O_CLOEXEC));
    int out_event = CHECK(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)), wake = CHECK(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, trace));
    credentials_wanted(trace[0]);
    snprintf(name, sizeof name, "sandbox-%u", number);
    make_groups(name, memory_bytes);
    at[1] = now_ns();
    CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, control));
    credentials_wanted(control[0]);
    int kills = CHECK(openat(own[0], "memory.oom_control", O_RDONLY | O_CLOEXEC));
    int pieces[PIECES] = {segment, out_event, trace[1], wake, kills, own_log[1], log[1]};
    send_record(control[0], plan, sizeof *plan, pieces, PIECES);
    launch(program, control[1]);
    close(control[1]);
    struct word word;
    int pid = 0, created = 0, pidfd = -1;
    while (!pid || !created) {
        receive_record(control[0], &word, sizeof word, NULL, 0);
        if (word.kind == FORKED) pidfd = CHECK(syscall(SYS_pidfd_open, pid = word.pid, 0));
        if (word.kind == CREATED) created = 1;
    }
    at[2] = now_ns();
    int entries[COUNT(CONTROLLERS)];
    for (size_t tree = 0; tree < COUNT(CONTROLLERS); tree++) entries[tree] = CHECK(openat(own[tree], "tasks", O_WRONLY | O_CLOEXEC));
    map_users(pid);
    send_record(control[0], &(struct word){GO, 0}, sizeof word, entries, COUNT(entries));
    for (size_t tree = 0; tree < COUNT(CONTROLLERS); tree++) close(entries[tree]);
    at[3] = now_ns();
    receive_record(control[0], &word, sizeof word, NULL, 0);
    at[4] = now_ns();
    CHECK(syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0));
    CHECK(waitpid(pid, NULL, 0));
    remove_groups(name);
    munmap(mapped, plan->segment_bytes);
    int used[] = {segment, out_event, wake, kills, pidfd, trace[0], trace[1], control[0], log[0], log[1], own_log[0], own_log[1]};
    for (size_t fd = 0; fd < COUNT(used); fd++) close(used[fd]);
    at[5] = now_ns();
    for (int phase = 1; phase < 6; phase++) printf("%llu ", (unsigned long long)(at[phase] - at[0]) / 1000);
    printf("\n");
    fflush(stdout);
}

static void read_program(const char *path, struct program *program) {
    int fd = CHECK(open(path, O_RDONLY | O_CLOEXEC));
    program->length = CHECK(read(fd, program->code, sizeof program->code)) / sizeof *program->code;
    close(fd);
}

static int sealed_self(void) {
    static char bytes[1 << 20];
    int self = CHECK(open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
    int copy = CHECK(memfd_create("floor-supervisor", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_EXEC));
    for (ssize_t count; (count = CHECK(read(self, bytes, sizeof bytes))) > 0;) CHECK(write(copy, bytes, count));
    CHECK(fcntl(copy, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL));
    close(self);
    return copy;
}

static int act(char **arguments) {
    static struct plan plan = {.name = "floor"};
    const char *group = arguments[0], *memory_bytes = arguments[5];
    snprintf(plan.mount_point, PATH_BYTES, "%s", arguments[1]);
    snprintf(plan.inside, PATH_BYTES, "%s", arguments[2]);
    snprintf(plan.application, PATH_BYTES, "%s", arguments[3]);
    plan.segment_bytes = strtoull(arguments[4], NULL, 10);
    plan.tmp_bytes = strtoull(memory_bytes, NULL, 10) / 4;
    read_program(arguments[6], &plan.filter);
    read_program(arguments[7], &plan.worker_filter);
    char program[64], path[PATH_BYTES], line[16];
    snprintf(program, sizeof program, "/proc/self/fd/%d", sealed_self());
    for (size_t at = 0; at < COUNT(CONTROLLERS); at++) {
        snprintf(path, sizeof path, "/sys/fs/cgroup/%s/%s", CONTROLLERS[at], group);
        CHECK(mkdir(path, 0755));
        trees[at] = CHECK(open(path, O_DIRECTORY | O_CLOEXEC));
    }
    for (unsigned number = 0; fgets(line, sizeof line, stdin); number++) round_trip(program, &plan, memory_bytes, number);
    return 0;
}

int main(int count, char **arguments) {
    if (count == 2 && !strcmp(arguments[1], "supervisor")) return supervise();
    if (count == 10 && !strcmp(arguments[1], "agent")) return act(arguments + 2);
    fprintf(stderr, "floor: see the head of floor.c\n");
    return 2;
}
