// The two ends of the veth rig: a generator without gaps, a paced sender, and a sink that counts.
//
//   rig flood IFACE HEADERS LENGTH FLOWS SECONDS   as many frames as the link takes, one call of BPF_PROG_RUN long
//   rig paced IFACE HEADERS LENGTH RATE SECONDS    RATE frames a second, each with the time it left at
//   rig count IFACE                                counts until its input ends; a line of input asks for a line of numbers
//
// HEADERS is a file of 42 bytes (Ethernet, IPv4, UDP) and then 8 bytes a flow: destination address, IPv4 checksum,
// UDP source port, all as they stand in the frame. FLOWS is a power of two.
//
// The generator is an XDP program that the kernel runs on frames of its own (BPF_F_TEST_XDP_LIVE_FRAMES) and that
// redirects them to IFACE. Calls of some 100,000 frames leave the line idle half of the time, as each makes and frees
// its pool of pages; one call that a signal ends doesn't. The sink is an XDP program too: everything else that could
// take frames from a veth here (sockets, busy polling) is slower than the routers that are measured.
//
// The programs are written as BPF instructions, so that gcc is all it takes.
#define _GNU_SOURCE
#include <errno.h>
#include <linux/bpf.h>
#include <linux/if_link.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { HEADERS = 42, PER_FLOW = 8, FRAME_MAX = 1514, SAMPLES = 1 << 19, TTL = 64 };

// What the sink counts; the instructions below use the same offsets.
struct counted {
    uint64_t packets;     // UDP over IPv4
    uint64_t bytes;       // of those
    uint64_t forwarded;   // those whose TTL is one less than it was
    uint64_t samples;     // of `one_way`
    uint64_t one_way[SAMPLES]; // nanoseconds on the way, for frames that say when they left
};

static void fail(const char *what) {
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(1);
}

static long bpf(int command, union bpf_attr *attr) { return syscall(SYS_bpf, command, attr, sizeof *attr); }

// One element, mapped into this process as well.
static int array_of_one(uint32_t size, void **mapped) {
    union bpf_attr attr = {.map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = size, .max_entries = 1,
                           .map_flags = BPF_F_MMAPABLE};
    int fd = (int)bpf(BPF_MAP_CREATE, &attr);
    if (fd < 0) fail("BPF_MAP_CREATE");
    *mapped = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (*mapped == MAP_FAILED) fail("mapping a map");
    return fd;
}

static int load(const struct bpf_insn *code, size_t count) {
    static char log[1 << 16];
    union bpf_attr attr = {.prog_type = BPF_PROG_TYPE_XDP, .insns = (uintptr_t)code, .insn_cnt = (uint32_t)count,
                           .license = (uintptr_t) "GPL", .log_buf = (uintptr_t)log, .log_size = sizeof log, .log_level = 1};
    int fd = (int)bpf(BPF_PROG_LOAD, &attr);
    if (fd < 0) {
        fprintf(stderr, "%s", log);
        fail("BPF_PROG_LOAD");
    }
    return fd;
}

// Attached until this process ends.
static void attach(int program, unsigned ifindex) {
    union bpf_attr attr = {.link_create = {.prog_fd = (uint32_t)program, .target_ifindex = ifindex,
                                           .attach_type = BPF_XDP, .flags = XDP_FLAGS_DRV_MODE}};
    if (bpf(BPF_LINK_CREATE, &attr) < 0) fail("BPF_LINK_CREATE");
}

#define INSN(c, d, s, o, i) ((struct bpf_insn){.code = (c), .dst_reg = (d), .src_reg = (s), .off = (o), .imm = (i)})
#define LOAD(size, d, s, o) INSN(BPF_LDX | BPF_MEM | (size), d, s, o, 0)
#define STORE(size, d, o, s) INSN(BPF_STX | BPF_MEM | (size), d, s, o, 0)
#define STORE_NUMBER(size, d, o, i) INSN(BPF_ST | BPF_MEM | (size), d, 0, o, i)
#define NUMBER(d, i) INSN(BPF_ALU64 | BPF_MOV | BPF_K, d, 0, 0, i)
#define COPY(d, s) INSN(BPF_ALU64 | BPF_MOV | BPF_X, d, s, 0, 0)
#define WITH_NUMBER(op, d, i) INSN(BPF_ALU64 | (op) | BPF_K, d, 0, 0, i)
#define WITH(op, d, s) INSN(BPF_ALU64 | (op) | BPF_X, d, s, 0, 0)
#define IF_NUMBER(op, d, i, o) INSN(BPF_JMP | (op) | BPF_K, d, 0, o, i)
#define IF(op, d, s, o) INSN(BPF_JMP | (op) | BPF_X, d, s, o, 0)
#define CALL(f) INSN(BPF_JMP | BPF_CALL, 0, 0, 0, f)
#define EXIT INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0)
// Two slots: the address of a map's only element.
#define ELEMENT(d, fd) INSN(BPF_LD | BPF_DW | BPF_IMM, d, BPF_PSEUDO_MAP_VALUE, 0, fd), INSN(0, 0, 0, 0, 0)

static uint32_t word(const uint8_t *bytes) {
    uint32_t value;
    memcpy(&value, bytes, 4);
    return value;
}

// Writes the whole of the headers, as a frame comes back for its next turn as the router left it.
static int generator(const uint8_t *headers, int flows_map, uint32_t flows, unsigned ifindex) {
    struct bpf_insn code[64];
    size_t n = 0;
    code[n++] = LOAD(BPF_W, 2, 1, offsetof(struct xdp_md, data));
    code[n++] = LOAD(BPF_W, 3, 1, offsetof(struct xdp_md, data_end));
    code[n++] = COPY(4, 2);
    code[n++] = WITH_NUMBER(BPF_ADD, 4, HEADERS);
    code[n++] = IF(BPF_JLE, 4, 3, 2);
    code[n++] = NUMBER(0, XDP_DROP);
    code[n++] = EXIT;
    for (int at = 0; at < 40; at += 4) code[n++] = STORE_NUMBER(BPF_W, 2, (int16_t)at, (int32_t)word(headers + at));
    code[n++] = STORE_NUMBER(BPF_H, 2, 40, headers[40] | headers[41] << 8);
    // The map's element: how many frames there were, and the flows.
    struct bpf_insn element[] = {ELEMENT(5, flows_map)};
    code[n++] = element[0];
    code[n++] = element[1];
    code[n++] = LOAD(BPF_DW, 6, 5, 0);
    code[n++] = COPY(7, 6);
    code[n++] = WITH_NUMBER(BPF_ADD, 7, 1);
    code[n++] = STORE(BPF_DW, 5, 0, 7);
    code[n++] = WITH_NUMBER(BPF_AND, 6, (int32_t)flows - 1);
    code[n++] = WITH_NUMBER(BPF_LSH, 6, 3);
    code[n++] = WITH(BPF_ADD, 5, 6);
    code[n++] = LOAD(BPF_W, 6, 5, 8);
    code[n++] = STORE(BPF_W, 2, 30, 6);
    code[n++] = LOAD(BPF_H, 6, 5, 12);
    code[n++] = STORE(BPF_H, 2, 24, 6);
    code[n++] = LOAD(BPF_H, 6, 5, 14);
    code[n++] = STORE(BPF_H, 2, 34, 6);
    code[n++] = NUMBER(1, (int32_t)ifindex);
    code[n++] = NUMBER(2, 0);
    code[n++] = CALL(BPF_FUNC_redirect);
    code[n++] = EXIT;
    return load(code, n);
}

// Counts UDP over IPv4 and drops everything.
static int counter(int map) {
    enum { END = -1 };
    struct bpf_insn code[] = {
        LOAD(BPF_W, 2, 1, offsetof(struct xdp_md, data)),
        LOAD(BPF_W, 3, 1, offsetof(struct xdp_md, data_end)),
        COPY(4, 2),
        WITH_NUMBER(BPF_ADD, 4, HEADERS + 8),
        IF(BPF_JGT, 4, 3, END),
        LOAD(BPF_H, 4, 2, 12),
        IF_NUMBER(BPF_JNE, 4, 0x0008, END),
        LOAD(BPF_B, 4, 2, 23),
        IF_NUMBER(BPF_JNE, 4, 17, END),
        ELEMENT(6, map),
        LOAD(BPF_DW, 4, 6, offsetof(struct counted, packets)),
        WITH_NUMBER(BPF_ADD, 4, 1),
        STORE(BPF_DW, 6, offsetof(struct counted, packets), 4),
        WITH(BPF_SUB, 3, 2),
        LOAD(BPF_DW, 4, 6, offsetof(struct counted, bytes)),
        WITH(BPF_ADD, 4, 3),
        STORE(BPF_DW, 6, offsetof(struct counted, bytes), 4),
        LOAD(BPF_B, 4, 2, 22),
        IF_NUMBER(BPF_JNE, 4, TTL - 1, 3),
        LOAD(BPF_DW, 4, 6, offsetof(struct counted, forwarded)),
        WITH_NUMBER(BPF_ADD, 4, 1),
        STORE(BPF_DW, 6, offsetof(struct counted, forwarded), 4),
        // Zero where a frame doesn't say when it left.
        LOAD(BPF_DW, 7, 2, HEADERS),
        IF_NUMBER(BPF_JEQ, 7, 0, END),
        CALL(BPF_FUNC_ktime_get_ns),
        WITH(BPF_SUB, 0, 7),
        LOAD(BPF_DW, 4, 6, offsetof(struct counted, samples)),
        COPY(5, 4),
        WITH_NUMBER(BPF_ADD, 5, 1),
        STORE(BPF_DW, 6, offsetof(struct counted, samples), 5),
        WITH_NUMBER(BPF_AND, 4, SAMPLES - 1),
        WITH_NUMBER(BPF_LSH, 4, 3),
        WITH(BPF_ADD, 6, 4),
        STORE(BPF_DW, 6, offsetof(struct counted, one_way), 0),
        NUMBER(0, XDP_DROP),
        EXIT,
    };
    size_t count = sizeof code / sizeof *code;
    for (size_t at = 0; at < count; at++)
        if (BPF_CLASS(code[at].code) == BPF_JMP && code[at].off == END) code[at].off = (int16_t)(count - 2 - at - 1);
    return load(code, count);
}

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

static volatile sig_atomic_t stopped;

static void stop(int signal) {
    (void)signal;
    stopped = 1;
}

// Reads the file of headers; `flows` of them, or as many as the file has where that is 0.
static uint8_t *read_headers(const char *path, uint32_t flows) {
    FILE *file = fopen(path, "rb");
    if (!file) fail(path);
    size_t size = HEADERS + (size_t)flows * PER_FLOW;
    uint8_t *bytes = malloc(size);
    if (!bytes || fread(bytes, 1, size, file) != size) fail("reading headers");
    fclose(file);
    return bytes;
}

static int flood(unsigned ifindex, const char *path, uint32_t length, uint32_t flows, uint32_t seconds) {
    const uint8_t *headers = read_headers(path, flows);
    uint64_t *element;
    int map = array_of_one(8 + flows * PER_FLOW, (void **)&element);
    memcpy(element + 1, headers + HEADERS, (size_t)flows * PER_FLOW);
    static uint8_t frame[FRAME_MAX];
    memcpy(frame, headers, HEADERS);
    union bpf_attr attr = {.test = {.prog_fd = (uint32_t)generator(headers, map, flows, ifindex),
                                    .data_in = (uintptr_t)frame, .data_size_in = length, .repeat = UINT32_MAX,
                                    .flags = BPF_F_TEST_XDP_LIVE_FRAMES, .batch_size = 64}};
    // Its own clock stops it, or whoever started it, by the same signal.
    sigaction(SIGALRM, &(struct sigaction){.sa_handler = stop}, NULL);
    uint64_t start = now();
    setitimer(ITIMER_REAL, &(struct itimerval){.it_value = {.tv_sec = seconds}}, NULL);
    while (!stopped)
        if (bpf(BPF_PROG_TEST_RUN, &attr) < 0 && errno != EINTR) fail("BPF_PROG_TEST_RUN");
    printf("%llu frames in %llu ns\n", (unsigned long long)*element, (unsigned long long)(now() - start));
    return 0;
}

static int paced(unsigned ifindex, const char *path, uint32_t length, uint32_t rate, uint32_t seconds) {
    uint8_t *headers = read_headers(path, 1);
    static uint8_t frame[FRAME_MAX];
    memcpy(frame, headers, HEADERS);
    memcpy(frame + 30, headers + HEADERS, 4);
    memcpy(frame + 24, headers + HEADERS + 4, 2);
    memcpy(frame + 34, headers + HEADERS + 6, 2);
    int socket_fd = socket(AF_PACKET, SOCK_RAW, 0);
    struct sockaddr_ll to = {.sll_family = AF_PACKET, .sll_ifindex = (int)ifindex};
    if (socket_fd < 0 || bind(socket_fd, (struct sockaddr *)&to, sizeof to) < 0) fail("a packet socket");
    setsockopt(socket_fd, SOL_PACKET, PACKET_QDISC_BYPASS, &(int){1}, sizeof(int));
    uint64_t start = now(), count = (uint64_t)rate * seconds, lost = 0;
    for (uint64_t sent = 0; sent < count; sent++) {
        uint64_t due = start + sent * 1000000000 / rate;
        uint64_t time = now();
        while (time < due) time = now();
        memcpy(frame + HEADERS, &time, sizeof time);
        if (send(socket_fd, frame, length, MSG_DONTWAIT) != (ssize_t)length) lost++;
    }
    printf("%llu frames in %llu ns, %llu refused\n", (unsigned long long)count, (unsigned long long)(now() - start),
           (unsigned long long)lost);
    return 0;
}

static int ascending(const void *left, const void *right) {
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return (a > b) - (a < b);
}

// nanoseconds, packets, bytes, forwarded, samples, and of the samples since the last line: p50, p99, p99.9, largest.
static int count(unsigned ifindex) {
    struct counted *counted;
    int map = array_of_one(sizeof *counted, (void **)&counted);
    attach(counter(map), ifindex);
    static uint64_t sorted[SAMPLES];
    uint64_t seen = 0;
    char line[16];
    printf("ready\n");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        const volatile struct counted *live = counted;
        uint64_t time = now(), packets = live->packets, bytes = live->bytes, forwarded = live->forwarded;
        uint64_t samples = live->samples, fresh = samples - seen;
        if (fresh > SAMPLES) fresh = SAMPLES;
        for (uint64_t at = 0; at < fresh; at++) sorted[at] = live->one_way[(samples - fresh + at) % SAMPLES];
        qsort(sorted, fresh, sizeof *sorted, ascending);
        seen = samples;
        printf("%llu %llu %llu %llu %llu", (unsigned long long)time, (unsigned long long)packets, (unsigned long long)bytes,
               (unsigned long long)forwarded, (unsigned long long)fresh);
        const uint64_t per_mille[] = {500, 990, 999, 1000};
        for (int at = 0; at < 4; at++) {
            uint64_t row = fresh * per_mille[at] / 1000;
            printf(" %llu", fresh ? (unsigned long long)sorted[row < fresh ? row : fresh - 1] : 0ull);
        }
        printf("\n");
        fflush(stdout);
    }
    return 0;
}

int main(int argc, char **argv) {
    unsigned ifindex = argc > 2 ? if_nametoindex(argv[2]) : 0;
    if (argc > 2 && !ifindex) fail(argv[2]);
    uint32_t numbers[3] = {0};
    for (int at = 4; at < argc && at < 7; at++) numbers[at - 4] = (uint32_t)strtoul(argv[at], NULL, 10);
    if (argc == 7 && numbers[0] > FRAME_MAX) return fprintf(stderr, "a frame has at most %d bytes\n", FRAME_MAX), 2;
    if (argc == 7 && !strcmp(argv[1], "flood")) return flood(ifindex, argv[3], numbers[0], numbers[1], numbers[2]);
    if (argc == 7 && !strcmp(argv[1], "paced")) return paced(ifindex, argv[3], numbers[0], numbers[1], numbers[2]);
    if (argc == 3 && !strcmp(argv[1], "count")) return count(ifindex);
    fprintf(stderr, "usage: see the beginning of rig.c\n");
    return 2;
}
