/*
 * DPDK's look-ups on the work that `perf lookup` does: the same prefixes with the same values, the same addresses in
 * the same order, batches, a sum of the answers. Built and driven by perf/src/peers/fib.rs.
 *
 *     rte_fib [EAL options] -- FILE fib2|fib4|lpm vector|scalar
 *
 * FILE is written by perf/src/peers/exchange.rs and says what the right answers are. Once the table is loaded the
 * program says "> ready ...", then it obeys one line at a time on its standard input and answers with one line:
 *
 *     verify SET                  > verify MISMATCHES OF
 *     rate SET BULK NEAR MILLIS   > rate MILLIONS_A_SECOND SUM
 *
 * NEAR is how many addresses ahead each is asked for by a prefetch; 0 for none.
 *
 * Between two commands it sleeps, so that what it is compared with may run on the same core. End of input ends it.
 */

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_fib.h>
#include <rte_fib6.h>
#include <rte_lpm.h>
#include <rte_malloc.h>
#include <rte_prefetch.h>
#include <rte_version.h>

/* Since 24.11 rte_fib6 takes IPv6 addresses as a structure of the same sixteen bytes. */
#if RTE_VERSION >= RTE_VERSION_NUM(24, 11, 0, 0)
#define IPV6(bytes) ((const struct rte_ipv6_addr *)(const void *)(bytes))
#define IPV6_BULK(bytes) IPV6(bytes)
#else
#define IPV6(bytes) (bytes)
#define IPV6_BULK(bytes) ((uint8_t (*)[16])(uintptr_t)(bytes))
#endif

#define MAGIC 0x42494654u /* "TFIB", little-endian */
#define NO_ROUTE 0x7fffu  /* The largest next hop that fits in two bytes with DPDK's flag bit. */
#define BULK_MAX 256
#define SHOWN_MAX 5
#define LINE 64

struct header {
	uint32_t magic, family, prefixes, sets, keys;
};

/* IPv4 addresses are numbers, IPv6 addresses sixteen bytes in network order. */
struct prefix4 {
	uint32_t addr;
	uint16_t len, value;
};
struct prefix6 {
	uint8_t addr[16];
	uint16_t len, value;
};

static struct header head;
static uint8_t *keys;      /* sets * keys addresses */
static uint16_t *expected; /* sets * keys answers */

static struct rte_fib *fib4;
static struct rte_fib6 *fib6;
static struct rte_lpm *lpm4;

static void fail(const char *what)
{
	fprintf(stderr, "rte_fib: %s: %s\n", what, rte_errno ? rte_strerror(rte_errno) : "failed");
	exit(1);
}

static double seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec + now.tv_nsec / 1e9;
}

/* The whole of the next `size` bytes in fresh memory. */
static void *take(FILE *file, size_t size)
{
	void *bytes = malloc(size);

	if (!bytes || fread(bytes, 1, size, file) != size)
		fail("the file is too short");
	return bytes;
}

static size_t key_size(void)
{
	return head.family == 4 ? 4 : 16;
}

/* With next hops of 2 or 4 bytes. */
static void make_fib(int width)
{
	if (head.family == 4) {
		struct rte_fib_conf conf = {
			.type = RTE_FIB_DIR24_8,
			.default_nh = NO_ROUTE,
			.max_routes = head.prefixes + 1024,
		};
		conf.dir24_8.nh_sz = width == 2 ? RTE_FIB_DIR24_8_2B : RTE_FIB_DIR24_8_4B;
		conf.dir24_8.num_tbl8 = (1 << 15) - 1;
		fib4 = rte_fib_create("fib", SOCKET_ID_ANY, &conf);
		if (!fib4)
			fail("rte_fib_create");
	} else {
		struct rte_fib6_conf conf = {
			.type = RTE_FIB6_TRIE,
			.default_nh = NO_ROUTE,
			.max_routes = head.prefixes + 1024,
		};
		conf.trie.nh_sz = width == 2 ? RTE_FIB6_TRIE_2B : RTE_FIB6_TRIE_4B;
		conf.trie.num_tbl8 = width == 2 ? (1 << 15) - 1 : 1 << 18;
		fib6 = rte_fib6_create("fib", SOCKET_ID_ANY, &conf);
		if (!fib6)
			fail("rte_fib6_create");
	}
}

static void select_lookup(bool vector)
{
	int failed;

	if (fib4)
		failed = rte_fib_select_lookup(fib4, vector ? RTE_FIB_LOOKUP_DIR24_8_VECTOR_AVX512
							    : RTE_FIB_LOOKUP_DIR24_8_SCALAR_MACRO);
	else
		failed = rte_fib6_select_lookup(fib6, vector ? RTE_FIB6_LOOKUP_TRIE_VECTOR_AVX512
							     : RTE_FIB6_LOOKUP_TRIE_SCALAR);
	if (failed)
		fail(vector ? "no AVX-512 here" : "no scalar look-up");
}

static void make_lpm(void)
{
	struct rte_lpm_config conf = {.max_rules = head.prefixes + 1024, .number_tbl8s = 1 << 15};

	if (head.family != 4)
		fail("rte_lpm is for IPv4");
	lpm4 = rte_lpm_create("lpm", SOCKET_ID_ANY, &conf);
	if (!lpm4)
		fail("rte_lpm_create");
}

static void load(FILE *file)
{
	for (uint32_t i = 0; i < head.prefixes; i++) {
		int failed;

		if (head.family == 4) {
			struct prefix4 prefix;

			if (fread(&prefix, sizeof(prefix), 1, file) != 1)
				fail("the file is too short");
			failed = lpm4 ? rte_lpm_add(lpm4, prefix.addr, prefix.len, prefix.value)
				      : rte_fib_add(fib4, prefix.addr, prefix.len, prefix.value);
		} else {
			struct prefix6 prefix;

			if (fread(&prefix, sizeof(prefix), 1, file) != 1)
				fail("the file is too short");
			failed = rte_fib6_add(fib6, IPV6(prefix.addr), prefix.len, prefix.value);
		}
		if (failed) {
			rte_errno = -failed;
			fail("a prefix finds no room");
		}
	}
}

/* `bulk` answers from address `at` on, in `hops`. */
static inline void look_up(const uint8_t *at, uint64_t *hops, unsigned int bulk)
{
	if (fib4)
		rte_fib_lookup_bulk(fib4, (uint32_t *)(uintptr_t)at, hops, bulk);
	else
		rte_fib6_lookup_bulk(fib6, IPV6_BULK(at), hops, bulk);
}

/* Asks for the lines of so many bytes. */
static inline void bring_near(const uint8_t *at, size_t size)
{
	for (size_t byte = 0; byte < size; byte += LINE)
		rte_prefetch0(at + byte);
}

static inline uint64_t sum_fib(const uint8_t *set, unsigned int bulk, unsigned int near)
{
	uint64_t hops[BULK_MAX];
	uint64_t sum = 0;
	size_t step = key_size() * bulk;

	for (uint32_t done = 0; done + bulk <= head.keys; done += bulk, set += step) {
		if (near)
			bring_near(set + near * key_size(), step);
		look_up(set, hops, bulk);
		for (unsigned int i = 0; i < bulk; i++)
			sum += hops[i];
	}
	return sum;
}

static inline uint64_t sum_lpm(const uint8_t *set, unsigned int bulk, unsigned int near)
{
	uint32_t hops[BULK_MAX];
	uint64_t sum = 0;

	for (uint32_t done = 0; done + bulk <= head.keys; done += bulk, set += 4 * bulk) {
		if (near)
			bring_near(set + near * key_size(), 4 * bulk);
		rte_lpm_lookup_bulk(lpm4, (const uint32_t *)(uintptr_t)set, hops, bulk);
		for (unsigned int i = 0; i < bulk; i++)
			sum += hops[i];
	}
	return sum;
}

static void rate(uint32_t set, unsigned int bulk, unsigned int near, unsigned int millis)
{
	uint64_t sum = 0;
	const uint8_t *first = keys + (size_t)set * head.keys * key_size();
	double start = seconds(), elapsed;
	uint64_t done = 0;

	do {
		sum += lpm4 ? sum_lpm(first, bulk, near) : sum_fib(first, bulk, near);
		done += head.keys / bulk * bulk;
		elapsed = seconds() - start;
	} while (elapsed < millis / 1e3);
	/* The sum is told so that it has to be worked out. */
	printf("> rate %.3f %" PRIu64 "\n", done / elapsed / 1e6, sum);
}

static uint16_t answer(const uint8_t *key)
{
	uint64_t hop;
	uint32_t next;

	if (!lpm4) {
		look_up(key, &hop, 1);
		return hop;
	}
	return rte_lpm_lookup(lpm4, *(const uint32_t *)key, &next) ? NO_ROUTE : next;
}

/* Every address of the set, in bulk as it is measured; the first wrong answers are told on standard error. */
static void verify(uint32_t set)
{
	const uint8_t *first = keys + (size_t)set * head.keys * key_size();
	const uint16_t *right = expected + (size_t)set * head.keys;
	uint64_t hops[32];
	uint32_t wrong = 0;

	for (uint32_t i = 0; i < head.keys; i++) {
		const uint8_t *key = first + i * key_size();
		uint16_t got;

		if (!lpm4 && i % 32 == 0 && i + 32 <= head.keys)
			look_up(key, hops, 32);
		got = lpm4 || i / 32 * 32 + 32 > head.keys ? answer(key) : hops[i % 32];
		if (got == right[i])
			continue;
		if (wrong++ < SHOWN_MAX) {
			fprintf(stderr, "rte_fib: set %u, address %u (", set, i);
			for (size_t byte = 0; byte < key_size(); byte++)
				fprintf(stderr, "%02x", key[head.family == 4 ? 3 - byte : byte]);
			fprintf(stderr, "): %u here, %u expected\n", got, right[i]);
		}
	}
	printf("> verify %u %u\n", wrong, head.keys);
}

static void obey(void)
{
	char line[128];
	unsigned int set, bulk, near, millis;

	while (fgets(line, sizeof(line), stdin)) {
		if (sscanf(line, "verify %u", &set) == 1 && set < head.sets)
			verify(set);
		else if (sscanf(line, "rate %u %u %u %u", &set, &bulk, &near, &millis) == 4 && set < head.sets && bulk > 0 &&
			 bulk <= BULK_MAX)
			rate(set, bulk, near, millis);
		else
			fail("no such command");
		fflush(stdout);
	}
}

int main(int argc, char **argv)
{
	struct rte_malloc_socket_stats heap;
	double start;
	FILE *file;
	int used = rte_eal_init(argc, argv);

	if (used < 0)
		fail("rte_eal_init");
	if (argc - used != 4)
		fail("FILE fib2|fib4|lpm vector|scalar");
	argv += used + 1;
	file = fopen(argv[0], "rb");
	if (!file || fread(&head, sizeof(head), 1, file) != 1 || head.magic != MAGIC)
		fail("no such file, or not one of ours");

	if (!strcmp(argv[1], "lpm")) {
		make_lpm();
	} else {
		make_fib(!strcmp(argv[1], "fib2") ? 2 : 4);
		select_lookup(!strcmp(argv[2], "vector"));
	}
	start = seconds();
	load(file);
	start = seconds() - start;
	keys = take(file, (size_t)head.sets * head.keys * key_size());
	expected = take(file, (size_t)head.sets * head.keys * sizeof(*expected));
	fclose(file);
	rte_malloc_get_socket_stats(0, &heap);
	printf("> ready %.2f %zu\n", start, heap.heap_allocsz_bytes);
	fflush(stdout);
	obey();
	rte_eal_cleanup();
	return 0;
}
