/*
 * DPDK's rte_acl on the rules and packets of `perf classify`. Built and driven by perf/src/peers/acl.rs.
 *
 *     rte_acl [EAL options] -- FILE avx2|avx512x16|avx512x32
 *
 * FILE holds rules, packets, and for each packet the number of the rule that decides, as ours has it. Once the rules are
 * built the program says "> ready SECONDS BYTES", then it obeys one line at a time and answers with one line:
 *
 *     verify                 > verify MISMATCHES OF
 *     rate BULK MILLIS       > rate MILLIONS_A_SECOND SUM
 *
 * Rates are by the time that this thread had its core, as ours are.
 */

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <rte_acl.h>
#include <rte_byteorder.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_malloc.h>

#define MAGIC 0x4c434154u /* "TACL", little-endian */
#define BULK_MAX 256
#define SHOWN_MAX 5

struct header {
	uint32_t magic, rules, packets;
};

struct rule {
	uint32_t source, destination;
	uint16_t source_ports[2], destination_ports[2];
	uint8_t source_len, destination_len, protocol, protocol_mask;
};

/* In network order, as in a packet. */
struct packet {
	uint8_t protocol, unused[3];
	uint32_t source, destination;
	uint16_t source_port, destination_port;
};

enum { PROTOCOL, SOURCE, DESTINATION, SOURCE_PORT, DESTINATION_PORT, FIELDS };

RTE_ACL_RULE_DEF(acl_rule, FIELDS);

static const struct rte_acl_field_def fields[FIELDS] = {
	{RTE_ACL_FIELD_TYPE_BITMASK, 1, PROTOCOL, 0, offsetof(struct packet, protocol)},
	{RTE_ACL_FIELD_TYPE_MASK, 4, SOURCE, 1, offsetof(struct packet, source)},
	{RTE_ACL_FIELD_TYPE_MASK, 4, DESTINATION, 2, offsetof(struct packet, destination)},
	{RTE_ACL_FIELD_TYPE_RANGE, 2, SOURCE_PORT, 3, offsetof(struct packet, source_port)},
	{RTE_ACL_FIELD_TYPE_RANGE, 2, DESTINATION_PORT, 3, offsetof(struct packet, destination_port)},
};

static struct header head;
static struct rte_acl_ctx *acl;
static struct packet *packets;
static uint32_t *expected; /* The number of the rule, counted from 1; 0 is none. */

static void fail(const char *what)
{
	fprintf(stderr, "rte_acl: %s: %s\n", what, rte_errno ? rte_strerror(rte_errno) : "failed");
	exit(1);
}

static double seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	return now.tv_sec + now.tv_nsec / 1e9;
}

static double wall(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec + now.tv_nsec / 1e9;
}

static void *take(FILE *file, size_t size)
{
	void *bytes = malloc(size);

	if (!bytes || fread(bytes, 1, size, file) != size)
		fail("the file is too short");
	return bytes;
}

static void build(const struct rule *rules)
{
	struct rte_acl_param param = {
		.name = "acl",
		.socket_id = SOCKET_ID_ANY,
		.rule_size = RTE_ACL_RULE_SZ(FIELDS),
		.max_rule_num = head.rules,
	};
	struct rte_acl_config config = {.num_categories = 1, .num_fields = FIELDS};

	acl = rte_acl_create(&param);
	if (!acl)
		fail("rte_acl_create");
	for (uint32_t i = 0; i < head.rules; i++) {
		const struct rule *rule = rules + i;
		struct acl_rule one = {
			.data = {.category_mask = 1, .priority = RTE_ACL_MAX_PRIORITY - i, .userdata = i + 1},
		};

		one.field[PROTOCOL].value.u8 = rule->protocol;
		one.field[PROTOCOL].mask_range.u8 = rule->protocol_mask;
		one.field[SOURCE].value.u32 = rule->source;
		one.field[SOURCE].mask_range.u32 = rule->source_len;
		one.field[DESTINATION].value.u32 = rule->destination;
		one.field[DESTINATION].mask_range.u32 = rule->destination_len;
		one.field[SOURCE_PORT].value.u16 = rule->source_ports[0];
		one.field[SOURCE_PORT].mask_range.u16 = rule->source_ports[1];
		one.field[DESTINATION_PORT].value.u16 = rule->destination_ports[0];
		one.field[DESTINATION_PORT].mask_range.u16 = rule->destination_ports[1];
		if (rte_acl_add_rules(acl, (struct rte_acl_rule *)&one, 1))
			fail("a rule finds no room");
	}
	memcpy(config.defs, fields, sizeof(fields));
	if (rte_acl_build(acl, &config))
		fail("rte_acl_build");
}

static void classify(uint32_t at, unsigned int bulk, uint32_t *found)
{
	const uint8_t *data[BULK_MAX];

	for (unsigned int i = 0; i < bulk; i++)
		data[i] = (const uint8_t *)(packets + at + i);
	if (rte_acl_classify(acl, data, found, bulk, 1))
		fail("rte_acl_classify");
}

static void rate(unsigned int bulk, unsigned int millis)
{
	uint32_t found[BULK_MAX];
	uint64_t sum = 0, done = 0;
	double begun = wall(), start = seconds(), elapsed;

	do {
		for (uint32_t at = 0; at + bulk <= head.packets; at += bulk) {
			classify(at, bulk, found);
			for (unsigned int i = 0; i < bulk; i++)
				sum += found[i];
		}
		done += head.packets / bulk * bulk;
	} while (wall() - begun < millis / 1e3);
	elapsed = seconds() - start;
	printf("> rate %.3f %" PRIu64 "\n", done / elapsed / 1e6, sum);
}

static void verify(void)
{
	uint32_t found[32], wrong = 0;

	for (uint32_t i = 0; i < head.packets / 32 * 32; i++) {
		if (i % 32 == 0)
			classify(i, 32, found);
		if (found[i % 32] == expected[i])
			continue;
		if (wrong++ < SHOWN_MAX)
			fprintf(stderr, "rte_acl: packet %u: %u here, %u expected\n", i, found[i % 32], expected[i]);
	}
	printf("> verify %u %u\n", wrong, head.packets / 32 * 32);
}

static enum rte_acl_classify_alg algorithm(const char *name)
{
	if (!strcmp(name, "avx512x32"))
		return RTE_ACL_CLASSIFY_AVX512X32;
	if (!strcmp(name, "avx512x16"))
		return RTE_ACL_CLASSIFY_AVX512X16;
	return RTE_ACL_CLASSIFY_AVX2;
}

int main(int argc, char **argv)
{
	struct rte_malloc_socket_stats heap;
	unsigned int bulk, millis;
	struct rule *rules;
	char line[128];
	double start;
	FILE *file;
	int used = rte_eal_init(argc, argv);

	if (used < 0)
		fail("rte_eal_init");
	if (argc - used != 3)
		fail("FILE avx2|avx512x16|avx512x32");
	argv += used + 1;
	file = fopen(argv[0], "rb");
	if (!file || fread(&head, sizeof(head), 1, file) != 1 || head.magic != MAGIC)
		fail("no such file, or not one of ours");
	rules = take(file, head.rules * sizeof(*rules));
	packets = take(file, head.packets * sizeof(*packets));
	expected = take(file, head.packets * sizeof(*expected));
	fclose(file);
	start = seconds();
	build(rules);
	start = seconds() - start;
	if (rte_acl_set_ctx_classify(acl, algorithm(argv[1])))
		fail("this machine lacks the instructions");
	rte_malloc_get_socket_stats(0, &heap);
	printf("> ready %.3f %zu\n", start, heap.heap_allocsz_bytes);
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin)) {
		if (!strncmp(line, "verify", 6))
			verify();
		else if (sscanf(line, "rate %u %u", &bulk, &millis) == 2 && bulk > 0 && bulk <= BULK_MAX)
			rate(bulk, millis);
		else
			fail("no such command");
		fflush(stdout);
	}
	rte_eal_cleanup();
	return 0;
}
