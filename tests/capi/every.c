// SPDX-License-Identifier: GPL-2.0
/* Every function of jitfd.h from C: what it does, and each errno it can give. */

#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <unwind.h>

#include "harness.h"

#define PAGE 4096

static jitfd_chunk *answer_chunk(uint32_t number)
{
	unsigned char code[ANSWER_SIZE];
	jitfd_chunk *chunk;

	put_answer(code, number);
	chunk = jitfd_validate(code, sizeof(code), NULL);
	CHECK(chunk != NULL);
	return chunk;
}

static struct jitfd_rules no_rules(void)
{
	struct jitfd_rules rules = { 0 };

	rules.size = sizeof(rules);
	return rules;
}

static jitfd_region *new_region(size_t capacity, uint32_t flags)
{
	struct jitfd_region_options options = options_with(flags);
	jitfd_region *region = jitfd_region_create(capacity, &options);

	CHECK(region != NULL);
	return region;
}

static struct jitfd_region_info info_of(const jitfd_region *region)
{
	struct jitfd_region_info info;

	memset(&info, 0x55, sizeof(info));
	info.size = sizeof(info);
	CHECK(jitfd_region_get_info(region, &info) == 0);
	return info;
}

/* Where a region is mapped. */
static char *base_of(const jitfd_region *region)
{
	return info_of(region).address;
}

static struct jitfd_chunk_info chunk_info_of(const jitfd_chunk *chunk)
{
	struct jitfd_chunk_info info;

	memset(&info, 0x55, sizeof(info));
	info.size = sizeof(info);
	CHECK(jitfd_chunk_get_info(chunk, &info) == 0);
	return info;
}

static struct jitfd_stats stats_of(const jitfd_region *region)
{
	struct jitfd_stats stats;

	memset(&stats, 0x55, sizeof(stats));
	stats.size = sizeof(stats);
	CHECK(jitfd_region_get_stats(region, &stats) == 0);
	return stats;
}

/* Validation */

static void version_is_known(void)
{
	CHECK(strchr(jitfd_version(), '.') != NULL);
}

static void chunk_tells_what_it_is(void)
{
	const int start = JITFD_CHUNK_INSTRUCTION | JITFD_CHUNK_ENTRY;
	jitfd_chunk *chunk = answer_chunk(42);
	struct jitfd_chunk_info info = chunk_info_of(chunk);
	const unsigned char *bytes = info.bytes;

	CHECK(info.len == ANSWER_SIZE && bytes[0] == 0xb8 && bytes[5] == 0xc3);
	CHECK(info.align == 16 && info.holds_data == 0 && info.lock_skip_count == 0);
	CHECK(jitfd_chunk_at(chunk, 0) == start && jitfd_chunk_at(chunk, 1) == 0);
	CHECK(jitfd_chunk_at(chunk, 5) == start && jitfd_chunk_at(chunk, 6) == 0);
	info.size = 0;
	REFUSED(jitfd_chunk_get_info(chunk, &info), EINVAL);
	jitfd_chunk_destroy(chunk);
	jitfd_chunk_destroy(NULL);
}

static void chunk_has_its_own_copy(void)
{
	unsigned char code[ANSWER_SIZE];
	const unsigned char *bytes;
	jitfd_chunk *chunk;

	put_answer(code, 42);
	chunk = jitfd_validate(code, sizeof(code), NULL);
	CHECK(chunk != NULL);
	memset(code, 0x06, sizeof(code));
	bytes = chunk_info_of(chunk).bytes;
	CHECK(bytes[0] == 0xb8);
	jitfd_chunk_destroy(chunk);
}

/* Validates what must be refused, and returns why. */
static struct jitfd_code_error refuse(const char *code, size_t len, const struct jitfd_rules *rules,
				      int wanted)
{
	REFUSED_NULL(jitfd_validate(code, len, rules), wanted);
	CHECK(jitfd_get_code_error() != NULL);
	return *jitfd_get_code_error();
}

static void fault_says_where_and_why(void)
{
	/* nop; mov eax, cut off */
	struct jitfd_code_error fault = refuse("\x90\xb8\x2a", 3, NULL, EILSEQ);

	CHECK(fault.reason == JITFD_REASON_TRUNCATED && fault.offset == 1);
	CHECK(fault.item == SIZE_MAX);
	CHECK(fault.length == 2 && memcmp(fault.bytes, "\xb8\x2a", 2) == 0);
	CHECK(strcmp(fault.disassembly, "(bad)") == 0);
	/* push es */
	fault = refuse("\x06", 1, NULL, EILSEQ);
	CHECK(fault.reason == JITFD_REASON_INVALID && fault.offset == 0);
	/* nop; jmp into itself */
	fault = refuse("\x90\xeb\xff", 3, NULL, EILSEQ);
	CHECK(fault.reason == JITFD_REASON_INTO_INSTRUCTION);
	CHECK(fault.offset == 1 && fault.target == 2 && fault.length == 2);
	CHECK(strncmp(fault.disassembly, "jmp", 3) == 0);
	CHECK(strstr(jitfd_error(), fault.disassembly) != NULL);
	/* data16 jmp */
	fault = refuse("\x66\xe9\x00\x00\x00\x00", 6, NULL, EILSEQ);
	CHECK(fault.reason == JITFD_REASON_VENDOR_DEPENDENT);
	fault = refuse("\x90", 0, NULL, EINVAL);
	CHECK(fault.reason == JITFD_REASON_EMPTY && fault.length == 0);
	/* It is that of the last failure only. */
	REFUSED_NULL(jitfd_validate(NULL, 1, NULL), EINVAL);
	CHECK(jitfd_get_code_error() == NULL);
	REFUSED_NULL(jit_create_code("\x90\x06", 2), EILSEQ);
	CHECK(jitfd_get_code_error()->offset == 1);
}

/* Before a byte of it is read. */
static void lengths_are_checked_first(void)
{
	const size_t lengths[] = { ((size_t)1 << 30) + 1, (size_t)1 << 46, SIZE_MAX };
	struct jitfd_code_error fault;
	size_t i;

	for (i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		fault = refuse("\x90\xc3", lengths[i], NULL, EINVAL);
		CHECK(fault.reason == JITFD_REASON_TOO_LONG && fault.length == 0);
		REFUSED_NULL(jit_create_code("\x90\xc3", lengths[i]), EINVAL);
		REFUSED_NULL(jitfd_assume_valid("\x90\xc3", lengths[i], NULL), EINVAL);
	}
}

static void faults_of_data_are_told(void)
{
	struct jitfd_range range = { 1, 2 };
	struct jitfd_rules rules = no_rules();
	struct jitfd_code_error fault;

	rules.data = &range;
	rules.data_count = 1;
	/* mov al, 0x90 with its operand declared as data */
	fault = refuse("\xb0\x90\x90", 3, &rules, EILSEQ);
	CHECK(fault.reason == JITFD_REASON_RUNS_INTO_DATA && fault.target == 1);
	range.offset = 2;
	range.len = 1;
	/* jmp to the data */
	fault = refuse("\xeb\x00\x2a", 3, &rules, EILSEQ);
	CHECK(fault.reason == JITFD_REASON_INTO_DATA && fault.target == 2);
	range.len = 2;
	fault = refuse("\x90\x90\x2a", 3, &rules, EINVAL);
	CHECK(fault.reason == JITFD_REASON_DATA_RANGE && fault.target == 2);
	range.len = SIZE_MAX;
	fault = refuse("\x90\x90\x2a", 3, &rules, EINVAL);
	CHECK(fault.reason == JITFD_REASON_DATA_RANGE);
	CHECK(strstr(jitfd_error(), "0x2..0xffffffffffffffff"));
}

static void data_is_declared(void)
{
	/* ret; and a byte that is no instruction */
	struct jitfd_range range = { 1, 1 };
	struct jitfd_rules rules = no_rules();
	jitfd_chunk *chunk;

	rules.data = &range;
	rules.data_count = 1;
	chunk = jitfd_validate("\xc3\x06", 2, &rules);
	CHECK(chunk != NULL);
	CHECK(chunk_info_of(chunk).holds_data == 1);
	CHECK(jitfd_chunk_at(chunk, 1) == 0);
	jitfd_chunk_destroy(chunk);
	CHECK((chunk = jitfd_assume_valid("\xc3\x06", 2, &rules)) != NULL);
	CHECK(chunk_info_of(chunk).holds_data == 1);
	jitfd_chunk_destroy(chunk);
}

static void lock_skips_are_allowed_if_asked_for(void)
{
	/* jmp behind the prefix; lock inc dword [rdi]; ret */
	static const char code[] = "\xeb\x01\xf0\xff\x07\xc3";
	struct jitfd_rules rules = no_rules();
	struct jitfd_code_error fault = refuse(code, 6, NULL, EILSEQ);
	struct jitfd_chunk_info info;
	jitfd_chunk *chunk;

	CHECK(fault.reason == JITFD_REASON_SKIPS_LOCK && fault.target == 3);
	rules.flags = JITFD_RULE_ALLOW_LOCK_SKIPS;
	chunk = jitfd_validate(code, 6, &rules);
	CHECK(chunk != NULL);
	info = chunk_info_of(chunk);
	CHECK(info.lock_skip_count == 1 && info.lock_skips[0] == 3);
	jitfd_chunk_destroy(chunk);
}

static void rules_can_be_tightened(void)
{
	/* endbr64; nop; syscall; ret */
	static const char code[] = "\xf3\x0f\x1e\xfa\x90\x0f\x05\xc3";
	static const size_t entries[] = { 0, 7 };
	struct jitfd_rules rules = no_rules();
	struct jitfd_code_error fault;
	jitfd_chunk *chunk;

	rules.entries = entries;
	rules.entry_count = 2;
	rules.threads = 1;
	CHECK((chunk = jitfd_validate(code, 8, &rules)) != NULL);
	CHECK((jitfd_chunk_at(chunk, 7) & JITFD_CHUNK_ENTRY) != 0);
	CHECK(jitfd_chunk_at(chunk, 4) == JITFD_CHUNK_INSTRUCTION);
	jitfd_chunk_destroy(chunk);
	rules.flags = JITFD_RULE_ENDBR64;
	fault = refuse(code, 8, &rules, EILSEQ);
	CHECK(fault.reason == JITFD_REASON_NO_ENDBR64 && fault.offset == 7);
	rules.entry_count = 0;
	rules.flags = JITFD_RULE_ENDBR64 | JITFD_FORBID_SYSTEM_CALLS;
	fault = refuse(code, 8, &rules, EILSEQ);
	CHECK(fault.reason == JITFD_REASON_FORBIDDEN && fault.offset == 5);
	CHECK(fault.forbidden == JITFD_FORBID_SYSTEM_CALLS);
	rules.flags = JITFD_RULE_ENTRIES_ONLY | JITFD_FORBID_PROTECTION_KEYS | JITFD_FORBID_SEGMENTS |
		      JITFD_FORBID_FAR_TRANSFERS | JITFD_FORBID_PRIVILEGED;
	CHECK((chunk = jitfd_validate(code, 8, &rules)) != NULL);
	CHECK(jitfd_chunk_at(chunk, 0) == JITFD_CHUNK_INSTRUCTION);
	jitfd_chunk_destroy(chunk);
}

static void instructions_are_forbidden_by_name(void)
{
	/* nop; rdtsc; ret */
	static const char code[] = "\x90\x0f\x31\xc3";
	const char *names[] = { "CPUID", "rdtsc" };
	struct jitfd_rules rules = no_rules();
	struct jitfd_code_error fault;
	jitfd_chunk *chunk;

	rules.forbidden = names;
	rules.forbidden_count = 1;
	CHECK((chunk = jitfd_validate(code, 4, &rules)) != NULL);
	jitfd_chunk_destroy(chunk);
	rules.forbidden_count = 2;
	fault = refuse(code, 4, &rules, EILSEQ);
	CHECK(fault.reason == JITFD_REASON_FORBIDDEN && fault.offset == 1);
	CHECK(fault.forbidden == JITFD_FORBID_NAMED);
	rules.flags = JITFD_FORBID_NAMED;
	REFUSED_NULL(jitfd_validate(code, 4, &rules), EINVAL);
	rules.flags = 0;
	names[1] = "no such";
	REFUSED_NULL(jitfd_validate(code, 4, &rules), EINVAL);
	names[1] = NULL;
	REFUSED_NULL(jitfd_validate(code, 4, &rules), EINVAL);
	/* A program of before there was such a thing. */
	names[1] = "rdtsc";
	rules.size = offsetof(struct jitfd_rules, forbidden);
	CHECK((chunk = jitfd_validate(code, 4, &rules)) != NULL);
	jitfd_chunk_destroy(chunk);
}

static void lines_and_entries_are_checked(void)
{
	static const size_t inside = 1;
	struct jitfd_rules rules = no_rules();
	struct jitfd_code_error fault;
	char code[68];

	rules.entries = &inside;
	rules.entry_count = 1;
	fault = refuse("\xb0\x90", 2, &rules, EILSEQ);
	CHECK(fault.reason == JITFD_REASON_BAD_ENTRY && fault.target == 1);
	rules = no_rules();
	rules.flags = JITFD_RULE_WITHIN_LINES;
	memset(code, 0x90, sizeof(code));
	code[63] = (char)0xb0;
	fault = refuse(code, sizeof(code), &rules, EILSEQ);
	CHECK(fault.reason == JITFD_REASON_CROSSES_LINE && fault.offset == 63);
}

static void code_is_laid_out_in_lines(void)
{
	struct jitfd_rules rules = no_rules();
	unsigned char code[256];
	jitfd_chunk *chunk;
	size_t at = 0;

	for (int i = 0; i < 12; i++, at += 5) {
		CHECK(jitfd_line_padding(at, 5) == 0);
		memcpy(code + at, "\xb8\x01\x00\x00\x00", 5);
	}
	CHECK(at == 60 && jitfd_line_padding(at, 4) == 0 && jitfd_line_padding(at, 5) == 4);
	CHECK(jitfd_line_nops(code, at, 4) == 0);
	CHECK(memcmp(code + 60, "\x0f\x1f\x40\x00", 4) == 0);
	memcpy(code + 64, "\xb8\x02\x00\x00\x00", 5);
	/* Up to a label, across a border. */
	CHECK(jitfd_line_nops(code, 69, sizeof(code) - 69) == 0);
	CHECK(jitfd_line_nops(code, sizeof(code), 0) == 0);
	rules.flags = JITFD_RULE_WITHIN_LINES;
	CHECK((chunk = jitfd_validate(code, sizeof(code), &rules)) != NULL);
	jitfd_chunk_destroy(chunk);
	REFUSED(jitfd_line_nops(NULL, 0, 1), EINVAL);
	REFUSED(jitfd_line_nops(code, SIZE_MAX, 1), EINVAL);
}

static void assumed_code_is_not_looked_at(void)
{
	jitfd_chunk *chunk = jitfd_assume_valid("\x06", 1, NULL);

	CHECK(chunk != NULL);
	jitfd_chunk_destroy(chunk);
	REFUSED_NULL(jitfd_assume_valid("\x06", 0, NULL), EINVAL);
	REFUSED_NULL(jitfd_assume_valid(NULL, 1, NULL), EINVAL);
}

static void bad_rules_are_refused(void)
{
	struct jitfd_rules rules = no_rules();

	rules.flags = 0x80000000u;
	REFUSED_NULL(jitfd_validate("\xc3", 1, &rules), EINVAL);
	rules = no_rules();
	rules.align = 3;
	REFUSED_NULL(jitfd_validate("\xc3", 1, &rules), EINVAL);
	rules.align = 8192;
	REFUSED_NULL(jitfd_validate("\xc3", 1, &rules), EINVAL);
	rules = no_rules();
	rules.data_count = 1;
	REFUSED_NULL(jitfd_validate("\xc3", 1, &rules), EINVAL);
	REFUSED_NULL(jitfd_assume_valid("\xc3", 1, &rules), EINVAL);
}

static void structs_carry_their_size(void)
{
	struct {
		struct jitfd_rules known;
		uint64_t later;
	} rules = { { 0 }, 0 };
	struct {
		struct jitfd_chunk_info known;
		uint64_t later;
	} info;
	jitfd_chunk *chunk;

	rules.known.size = 0;
	REFUSED_NULL(jitfd_validate("\xc3", 1, &rules.known), EINVAL);
	rules.known.size = sizeof(rules);
	CHECK((chunk = jitfd_validate("\xc3", 1, &rules.known)) != NULL);
	rules.later = 1;
	REFUSED_NULL(jitfd_validate("\xc3", 1, &rules.known), E2BIG);
	memset(&info, 0x55, sizeof(info));
	info.known.size = sizeof(info);
	CHECK(jitfd_chunk_get_info(chunk, &info.known) == 0);
	CHECK(info.known.len == 1 && info.later == 0);
	jitfd_chunk_destroy(chunk);
}

/* No module needed */

static void null_is_refused_everywhere(void)
{
	struct jitfd_thunk thunk = { 0 };
	struct jitfd_frame frame = { 0 };
	jitfd_function entry;
	size_t count;

	REFUSED_NULL(jitfd_validate(NULL, 1, NULL), EINVAL);
	REFUSED(jitfd_chunk_get_info(NULL, NULL), EINVAL);
	REFUSED(jitfd_chunk_at(NULL, 0), EINVAL);
	REFUSED_NULL(jit_create_code(NULL, 1), EINVAL);
	REFUSED_NULL(jitfd_create_code(NULL, 0), EINVAL);
	REFUSED(jitfd_create_code_at(NULL, NULL, 0), EINVAL);
	REFUSED(jitfd_set_fallback_hook(NULL), EINVAL);
	REFUSED(jit_destroy_code(NULL, 1), EINVAL);
	REFUSED(jit_destroy_code((void *)1, 1), EINVAL);
	REFUSED(jitfd_region_get_info(NULL, NULL), EINVAL);
	REFUSED(jitfd_region_publish(NULL, NULL, NULL), EINVAL);
	REFUSED(jitfd_region_publish_all(NULL, NULL, 0, NULL), EINVAL);
	REFUSED(jitfd_region_publish_with(NULL, 16, NULL, NULL, NULL), EINVAL);
	REFUSED(jitfd_region_reserve(NULL, 1, 1, NULL), EINVAL);
	REFUSED(jitfd_region_fill(NULL, NULL, 0, NULL, NULL), EINVAL);
	REFUSED(jitfd_region_seal(NULL), EINVAL);
	REFUSED(jitfd_region_get_stats(NULL, NULL), EINVAL);
	REFUSED(jitfd_region_adopt(NULL), EINVAL);
	REFUSED_NULL(jitfd_region_map(NULL, PAGE), EINVAL);
	REFUSED_NULL(jitfd_region_clone(NULL, 0), EINVAL);
	REFUSED(jitfd_region_split(NULL, NULL, NULL, NULL), EINVAL);
	REFUSED(jitfd_space_publish(NULL, NULL, NULL, NULL), EINVAL);
	REFUSED(jitfd_space_publish_all(NULL, NULL, NULL, 0, NULL), EINVAL);
	REFUSED_NULL(jitfd_space_reserve(NULL, NULL, NULL), EINVAL);
	REFUSED(jitfd_space_fill(NULL, NULL, NULL), EINVAL);
	REFUSED(jitfd_space_adopt(NULL), EINVAL);
	REFUSED(jitfd_space_publish_moved(NULL, NULL, NULL, 0, NULL, NULL), EINVAL);
	REFUSED(jitfd_space_publish_thunk(NULL, NULL, &thunk, &entry), EINVAL);
	REFUSED(jitfd_space_link(NULL, NULL, 0, NULL), EINVAL);
	REFUSED(jitfd_space_lookup(NULL, NULL, NULL), EINVAL);
	REFUSED(jitfd_space_get_stats(NULL, NULL), EINVAL);
	REFUSED(jitfd_space_symbols(NULL, NULL, 0, &count), EINVAL);
	REFUSED_NULL(jitfd_eh_frame_create(NULL, 1), EINVAL);
	REFUSED_NULL(jitfd_eh_frame_create(&frame, 1), EINVAL);
	REFUSED_NULL(jitfd_eh_frame_register(NULL, 4), EINVAL);
	REFUSED_NULL(jitfd_gdb_register(NULL, 1, NULL, 0), EINVAL);
	REFUSED(jitfd_table_get_stats(NULL, NULL), EINVAL);
	jitfd_region_destroy(NULL);
	jitfd_eh_frame_destroy(NULL);
	jitfd_unregister(NULL);
	jitfd_probe_destroy(NULL);
	jitfd_space_abandon(NULL, NULL);
	jitfd_space_destroy(NULL);
}

static void bad_code_is_refused_before_any_call(void)
{
	REFUSED_NULL(jit_create_code("\x06", 1), EILSEQ);
	REFUSED_NULL(jit_create_code("\xc3", 0), EINVAL);
}

static void bad_capacities_and_options_are_refused(void)
{
	struct jitfd_region_options options = { 0 };

	/* A fallback is there on every host. */
	CHECK(jitfd_allow_fallback(JITFD_FALLBACK_ANY) == 0);
	REFUSED_NULL(jitfd_region_create(0, NULL), EINVAL);
	REFUSED_NULL(jitfd_region_create((1u << 30) + 1, NULL), EINVAL);
	REFUSED_NULL(jitfd_region_create(PAGE, &options), EINVAL);
	options = options_with((uint32_t)1 << 31);
	REFUSED_NULL(jitfd_region_create(PAGE, &options), EINVAL);
	options = options_with(0);
	options.fallback = 4;
	REFUSED_NULL(jitfd_region_create(PAGE, &options), EINVAL);
	REFUSED(jitfd_allow_fallback(4), EINVAL);
	REFUSED(jitfd_allow_fallback(JITFD_FALLBACK_DEFAULT), EINVAL);
	REFUSED(jitfd_backend(4), EINVAL);
	options = options_with(0);
	options.near_last = &options;
	REFUSED_NULL(jitfd_region_create(PAGE, &options), EINVAL);
}

static void backends_have_names(void)
{
	CHECK(strcmp(jitfd_backend_name(JITFD_BACKEND_KERNEL), "/dev/jit") == 0);
	CHECK(jitfd_backend_name(JITFD_BACKEND_DUAL_MAPPING) != NULL);
	CHECK(jitfd_backend_name(JITFD_BACKEND_PROTECT_FLIPS) != NULL);
	REFUSED_NULL(jitfd_backend_name(0), EINVAL);
}

static void foreign_descriptors_are_found_out(void)
{
	struct jitfd_stats stats = { 0 };
	struct jitfd_place place = { 0, 16, NULL };
	jitfd_chunk *chunk = answer_chunk(1);
	jitfd_region *publisher, *mapper;
	int ends[2];

	stats.size = sizeof(stats);
	REFUSED_NULL(jitfd_region_open(-1, -1), EBADF);
	REFUSED_NULL(jitfd_region_open(1000, -1), EBADF);
	REFUSED_NULL(jitfd_region_open(-1, 1000), EBADF);
	CHECK(pipe(ends) == 0);
	CHECK((mapper = jitfd_region_open(ends[0], -1)) != NULL);
	CHECK((publisher = jitfd_region_open(-1, ends[1])) != NULL);
	CHECK(info_of(mapper).map_fd == ends[0] && info_of(mapper).append_fd == -1);
	CHECK(info_of(publisher).append_fd == ends[1] && info_of(publisher).map_fd == -1);
	CHECK(base_of(mapper) == NULL && info_of(mapper).len == 0);
	REFUSED_NULL(jitfd_region_map(mapper, PAGE), ENODEV);
	REFUSED(jitfd_region_get_stats(mapper, &stats), ENOTTY);
	REFUSED(jitfd_region_get_stats(publisher, &stats), ENOTTY);
	REFUSED(jitfd_region_publish(publisher, chunk, NULL), ENOTTY);
	REFUSED(jitfd_region_reserve(publisher, 1, 1, &place), ENOTTY);
	REFUSED(jitfd_region_fill(publisher, &place, 0, chunk, NULL), ENOTTY);
	REFUSED(jitfd_region_seal(publisher), ENOTTY);
	/* What each of them has no right to. */
	REFUSED(jitfd_region_publish(mapper, chunk, NULL), EBADF);
	REFUSED(jitfd_region_reserve(mapper, 1, 1, &place), EBADF);
	REFUSED(jitfd_region_fill(mapper, &place, 0, chunk, NULL), EBADF);
	REFUSED(jitfd_region_seal(mapper), EBADF);
	REFUSED_NULL(jitfd_region_map(publisher, PAGE), EBADF);
	REFUSED_NULL(jitfd_region_clone(publisher, 0), EBADF);
	REFUSED(jitfd_region_adopt(publisher), EBADF);
	REFUSED(jitfd_region_split(publisher, NULL, NULL, NULL), EBADF);
	jitfd_region_destroy(mapper);
	jitfd_region_destroy(publisher);
	CHECK(close(ends[0]) == -1 && close(ends[1]) == -1);
	jitfd_chunk_destroy(chunk);
}

static void *sees_no_error(void *unused)
{
	(void)unused;
	CHECK(jitfd_error()[0] == '\0');
	REFUSED(jitfd_region_seal(NULL), EINVAL);
	return NULL;
}

static void errors_are_of_the_thread(void)
{
	pthread_t thread;

	REFUSED_NULL(jit_create_code("\x06", 1), EILSEQ);
	CHECK(pthread_create(&thread, NULL, sees_no_error, NULL) == 0);
	CHECK(pthread_join(thread, NULL) == 0);
	CHECK(errno == EILSEQ && strstr(jitfd_error(), "06") != NULL);
}

static void without_the_module_it_says_so(void)
{
	struct jitfd_region_options options = { 0 };

	if (access("/dev/jit", F_OK) == 0)
		return;
	options.size = sizeof(options);
	CHECK(jitfd_allow_fallback(JITFD_FALLBACK_NEVER) == 0);
	REFUSED_NULL(jit_create_code("\xc3", 1), ENOENT);
	CHECK(strstr(jitfd_error(), "modprobe") != NULL);
	REFUSED(jitfd_backend(JITFD_FALLBACK_DEFAULT), ENOENT);
	REFUSED_NULL(jitfd_region_create(PAGE, NULL), ENOENT);
	REFUSED_NULL(jitfd_region_create(PAGE, &options), ENOENT);
}

/* Finished code */

static void the_mail_s_call_makes_code(void)
{
	unsigned char code[ANSWER_SIZE];
	unsigned char *made;

	put_answer(code, 42);
	made = jit_create_code(code, sizeof(code));
	CHECK(made != NULL);
	CHECK(call(made) == 42);
	CHECK(memcmp(made, code, sizeof(code)) == 0);
	for (size_t i = sizeof(code); i < PAGE; i++)
		CHECK(made[i] == 0xcc);
	CHECK(jit_destroy_code(made, sizeof(code)) == 0);
	CHECK(mprotect(made, PAGE, PROT_READ) == -1 && errno == ENOMEM);
}

static void munmap_is_enough(void)
{
	jitfd_chunk *chunk = answer_chunk(7);
	void *made = jitfd_create_code(chunk, only_backend());

	CHECK(made != NULL && call(made) == 7);
	CHECK(munmap(made, ANSWER_SIZE) == 0);
	CHECK(jitfd_backend(only_backend()) == backend);
	REFUSED_NULL(jitfd_create_code(chunk, 4), EINVAL);
	jitfd_chunk_destroy(chunk);
}

static void *own_page(int flags)
{
	void *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0);

	CHECK(page != MAP_FAILED);
	return page;
}

static void own_pages_are_replaced(void)
{
	jitfd_chunk *chunk = answer_chunk(9);
	void *page = own_page(MAP_PRIVATE);

	REFUSED(jitfd_create_code_at(chunk, (char *)page + 16, only_backend()), EINVAL);
	REFUSED(jitfd_create_code_at(chunk, NULL, only_backend()), EINVAL);
	CHECK(jitfd_create_code_at(chunk, page, only_backend()) == 0);
	CHECK(call(page) == 9);
	CHECK(munmap(page, PAGE) == 0);
	page = own_page(MAP_PRIVATE);
	CHECK(jitfd_create_code_at(chunk, page, 0) == 0);
	CHECK(call(page) == 9);
	jitfd_chunk_destroy(chunk);
}

static void own_pages_are_code_and_back(void)
{
	static const unsigned char code[] = { 0xb8, 9, 0, 0, 0, 0xc3 };
	uint32_t only = only_backend();
	unsigned char *page = own_page(MAP_PRIVATE);

	REFUSED(jitfd_make_executable(page + 16, sizeof(code), only), EINVAL);
	REFUSED(jitfd_make_executable(NULL, sizeof(code), only), EINVAL);
	REFUSED(jitfd_make_writable(NULL, sizeof(code), only), EINVAL);
	memcpy(page, code, sizeof(code));
	page[PAGE - 1] = 0xff;
	CHECK(jitfd_make_executable(page, 0, only) == 0);
	CHECK(jitfd_make_executable(page, sizeof(code), only) == 0);
	CHECK(call(page) == 9 && page[PAGE - 1] == 0xff);
	CHECK(jitfd_make_writable(page, sizeof(code), only) == 0);
	page[1] = 10;
	CHECK(jitfd_make_executable(page, PAGE, only) == 0);
	CHECK(call(page) == 10);
	CHECK(munmap(page, PAGE) == 0);
}

static void the_kernel_looks_after_pages(void)
{
	jitfd_chunk *chunk = answer_chunk(9);
	void *code = jitfd_create_code(chunk, 0);

	CHECK(code != NULL);
	CHECK(mprotect(code, PAGE, PROT_READ | PROT_WRITE) == -1 && errno == EACCES);
	REFUSED(jitfd_create_code_at(chunk, own_page(MAP_SHARED), 0), EINVAL);
	jitfd_chunk_destroy(chunk);
}

static void data_can_be_loaded_at_once(void)
{
	/* mov eax, [rip + 1]; ret; 42 */
	static const char code[] = "\x8b\x05\x01\x00\x00\x00\xc3\x2a\x00\x00";
	struct jitfd_range range = { 7, 4 };
	struct jitfd_rules rules = no_rules();
	jitfd_region *region = new_region(PAGE, 0);
	struct jitfd_place place;
	jitfd_chunk *chunk;

	rules.data = &range;
	rules.data_count = 1;
	chunk = jitfd_validate(code, 11, &rules);
	CHECK(chunk != NULL);
	for (int i = 0; i < 8; i++) {
		CHECK(jitfd_region_publish(region, chunk, &place) == 0);
		CHECK(call(place.address) == 42);
	}
	jitfd_chunk_destroy(chunk);
	jitfd_region_destroy(region);
}

/* Regions */

static void code_is_appended(void)
{
	jitfd_region *region = new_region(1, 0);
	struct jitfd_region_info info = info_of(region);
	char *base = info.address;
	struct jitfd_place place;
	jitfd_chunk *chunk = answer_chunk(42);
	struct jitfd_stats stats;

	CHECK(base != NULL && info.len == PAGE && info.backend == backend);
	info.size = 8;
	REFUSED(jitfd_region_get_info(region, &info), EINVAL);
	CHECK(jitfd_region_publish(region, chunk, &place) == 0);
	CHECK(place.offset == 0 && place.len == ANSWER_SIZE && place.address == base);
	CHECK(call(place.address) == 42);
	CHECK(jitfd_region_publish(region, chunk, NULL) == 0);
	CHECK(call(base + 16) == 42);
	stats = stats_of(region);
	CHECK(stats.size == sizeof(stats) && stats.capacity == PAGE);
	CHECK(stats.cursor == 16 + ANSWER_SIZE && stats.publications == 2);
	CHECK(stats.segments == 2 && stats.bytes == 2 * ANSWER_SIZE && stats.sealed == 0);
	stats.size = 8;
	REFUSED(jitfd_region_get_stats(region, &stats), EINVAL);
	jitfd_chunk_destroy(chunk);
	jitfd_region_destroy(region);
}

static void batches_are_published_as_a_whole(void)
{
	jitfd_region *region = new_region(PAGE, 0);
	jitfd_chunk *one = answer_chunk(1), *two = answer_chunk(2);
	const jitfd_chunk *both[] = { one, two }, *hole[] = { one, NULL };
	struct jitfd_place places[2];

	CHECK(jitfd_region_publish_all(region, both, 2, places) == 0);
	CHECK(call(places[0].address) == 1 && call(places[1].address) == 2);
	CHECK(places[1].offset == 16);
	CHECK(jitfd_region_publish_all(region, both, 2, NULL) == 0);
	CHECK(jitfd_region_publish_all(region, NULL, 0, NULL) == 0);
	REFUSED(jitfd_region_publish_all(region, hole, 2, places), EINVAL);
	REFUSED(jitfd_region_publish_all(region, NULL, 1, places), EINVAL);
	REFUSED(jitfd_region_publish_all(region, both, SIZE_MAX, places), EINVAL);
	CHECK(stats_of(region).publications == 2);
	jitfd_chunk_destroy(one);
	jitfd_chunk_destroy(two);
	jitfd_region_destroy(region);
}

/* What an emitter is called with, and what it does. */
struct emission {
	struct jitfd_place place;
	int calls;
	/* Publishes this first, the first time. */
	jitfd_region *interferes;
	jitfd_chunk *other;
	/* Fails with this, or leaves errno alone. */
	int fails;
	uint32_t flags;
};

static jitfd_chunk *emit(void *data, const struct jitfd_place *place)
{
	struct emission *emission = data;
	struct jitfd_rules rules = no_rules();

	emission->place = *place;
	if (emission->calls++ == 0 && emission->interferes != NULL)
		CHECK(jitfd_region_publish(emission->interferes, emission->other, NULL) == 0);
	if (emission->fails != 0) {
		errno = emission->fails > 0 ? emission->fails : 0;
		return NULL;
	}
	rules.flags = emission->flags;
	/* xor eax, eax; ret */
	return jitfd_validate("\x31\xc0\xc3", 3, &rules);
}

static void code_is_made_for_its_place(void)
{
	jitfd_region *region = new_region(PAGE, 0);
	jitfd_chunk *chunk = answer_chunk(1);
	struct emission emission = { 0 };
	struct jitfd_place place;

	CHECK(jitfd_region_publish(region, chunk, NULL) == 0);
	CHECK(jitfd_region_publish_with(region, 64, emit, &emission, &place) == 0);
	CHECK(emission.calls == 1 && emission.place.len == 0 && emission.place.offset == 64);
	CHECK(place.address == emission.place.address && place.offset == 64 && place.len == 3);
	CHECK(call(place.address) == 0);
	/* Somebody else is faster: another place. */
	memset(&emission, 0, sizeof(emission));
	emission.interferes = region;
	emission.other = chunk;
	CHECK(jitfd_region_publish_with(region, 16, emit, &emission, NULL) == 0);
	CHECK(emission.calls == 2 && emission.place.offset == 96);
	/* It gives up. */
	emission.fails = EDOM;
	CHECK(jitfd_region_publish_with(region, 16, emit, &emission, &place) == -1);
	CHECK(errno == EDOM);
	emission.fails = -1;
	CHECK(jitfd_region_publish_with(region, 16, emit, &emission, &place) == -1);
	CHECK(errno == ECANCELED);
	emission.fails = 0;
	REFUSED(jitfd_region_publish_with(region, 65, emit, &emission, &place), EINVAL);
	REFUSED(jitfd_region_publish_with(region, 16, NULL, &emission, &place), EINVAL);
	emission.flags = JITFD_RULE_WITHIN_LINES;
	REFUSED(jitfd_region_publish_with(region, 16, emit, &emission, &place), EINVAL);
	CHECK(jitfd_region_publish_with(region, 256, emit, &emission, &place) == 0);
	CHECK(place.offset == 256 && stats_of(region).publications == 5);
	jitfd_chunk_destroy(chunk);
	jitfd_region_destroy(region);
}

static void reserved_ranges_are_filled_later(void)
{
	jitfd_region *region = new_region(2 * PAGE, 0), *other = new_region(PAGE, 0);
	jitfd_chunk *chunk = answer_chunk(5);
	struct jitfd_place range, elsewhere, place;

	CHECK(jitfd_region_reserve(region, 64, 32, &range) == 0);
	CHECK(range.offset % 32 == 0 && range.len == 64);
	CHECK(jitfd_region_publish(region, chunk, NULL) == 0);
	CHECK(jitfd_region_fill(region, &range, 0, chunk, &place) == 0);
	CHECK(place.address == range.address && call(place.address) == 5);
	REFUSED(jitfd_region_fill(region, &range, 0, chunk, NULL), EEXIST);
	CHECK(jitfd_region_fill(region, &range, 16, chunk, NULL) == 0);
	CHECK(call((char *)range.address + 16) == 5);
	REFUSED(jitfd_region_fill(region, &range, 60, chunk, NULL), EINVAL);
	CHECK(jitfd_region_reserve(other, 64, 1, &elsewhere) == 0);
	REFUSED(jitfd_region_fill(region, &elsewhere, 0, chunk, NULL), EINVAL);
	REFUSED(jitfd_region_reserve(region, 0, 1, &range), EINVAL);
	REFUSED(jitfd_region_reserve(region, 64, 3, &range), EINVAL);
	REFUSED(jitfd_region_reserve(region, 2 * PAGE, 1, &range), ENOSPC);
	jitfd_chunk_destroy(chunk);
	jitfd_region_destroy(region);
	jitfd_region_destroy(other);
}

static void branches_between_chunks_are_checked(void)
{
	jitfd_region *checks = new_region(PAGE, 0);
	jitfd_region *trusts = new_region(PAGE, JITFD_REGION_NO_BOUNDARY_MAP);
	jitfd_chunk *target = answer_chunk(3);
	/* jmp -15: from 16 to 3, into the middle of the mov */
	jitfd_chunk *jump = jitfd_validate("\xeb\xf1", 2, NULL);

	CHECK(jump != NULL);
	CHECK(jitfd_region_publish(checks, target, NULL) == 0);
	REFUSED(jitfd_region_publish(checks, jump, NULL), EILSEQ);
	CHECK(jitfd_get_code_error()->reason == JITFD_REASON_NOT_AN_ENTRY);
	CHECK(jitfd_get_code_error()->target == 3);
	CHECK(stats_of(checks).publications == 1);
	CHECK(jitfd_region_publish(trusts, target, NULL) == 0);
	CHECK(jitfd_region_publish(trusts, jump, NULL) == 0);
	jitfd_chunk_destroy(target);
	jitfd_chunk_destroy(jump);
	jitfd_region_destroy(checks);
	jitfd_region_destroy(trusts);
}

static void branches_leave_to_what_is_declared(void)
{
	struct jitfd_rules rules = no_rules();
	jitfd_region *region = new_region(PAGE, 0), *mapping, *publisher;
	/* jmp, 256 MiB ahead */
	unsigned char code[5] = { 0xe9, 0, 0, 0, 0x10 };
	const void *target = base_of(region) + 5 + 0x10000000;
	jitfd_chunk *chunk;

	rules.flags = JITFD_RULE_LEAVES_ONLY;
	CHECK((chunk = jitfd_validate(code, sizeof(code), &rules)) != NULL);
	REFUSED(jitfd_region_publish(region, chunk, NULL), EILSEQ);
	CHECK(jitfd_get_code_error()->reason == JITFD_REASON_LEAVES_TO);
	CHECK(jitfd_get_code_error()->target == (size_t)target);
	jitfd_chunk_destroy(chunk);
	rules.flags = 0;
	rules.leaves = &target;
	rules.leave_count = 1;
	CHECK((chunk = jitfd_validate(code, sizeof(code), &rules)) != NULL);
	CHECK(jitfd_region_publish(region, chunk, NULL) == 0);
	/* It is another address from the next place. */
	REFUSED(jitfd_region_publish(region, chunk, NULL), EILSEQ);
	CHECK(jitfd_region_split(region, &mapping, NULL, &publisher) == 0);
	REFUSED(jitfd_region_publish(publisher, chunk, NULL), EILSEQ);
	CHECK(jitfd_get_code_error()->reason == JITFD_REASON_NO_ADDRESS);
	jitfd_region_destroy(mapping);
	jitfd_region_destroy(publisher);
	jitfd_chunk_destroy(chunk);
	rules.leaves = NULL;
	REFUSED_NULL(jitfd_validate(code, sizeof(code), &rules), EINVAL);
}

static void foreign_code_is_recognised(void)
{
	/* Of x86-64; and what is no instruction. */
	char elf[64] = "\x7f" "ELF\x02\x01\x01";
	struct jitfd_code_error error;

	elf[18] = 62;
	elf[63] = 0x06;
	error = refuse(elf, sizeof(elf), NULL, EILSEQ);
	CHECK(error.reason == JITFD_REASON_ELF && error.target == 62);
}

static void a_full_region_says_so(void)
{
	jitfd_region *region = new_region(PAGE, 0);
	jitfd_chunk *chunk = answer_chunk(1);
	struct emission emission = { 0 };

	for (int i = 0; i < PAGE / 16; i++)
		CHECK(jitfd_region_publish(region, chunk, NULL) == 0);
	REFUSED(jitfd_region_publish(region, chunk, NULL), ENOSPC);
	REFUSED(jitfd_region_publish_with(region, 16, emit, &emission, NULL), ENOSPC);
	CHECK(emission.calls == 0);
	jitfd_chunk_destroy(chunk);
	jitfd_region_destroy(region);
}

static void sealing_is_the_end(void)
{
	jitfd_region *region = new_region(PAGE, 0);
	jitfd_chunk *chunk = answer_chunk(1);
	struct jitfd_place place;

	CHECK(jitfd_region_publish(region, chunk, &place) == 0);
	CHECK(jitfd_region_seal(region) == 0);
	CHECK(jitfd_region_seal(region) == 0);
	REFUSED(jitfd_region_publish(region, chunk, NULL), EROFS);
	REFUSED(jitfd_region_reserve(region, 1, 1, &place), EROFS);
	CHECK(stats_of(region).sealed == 1);
	CHECK(call(base_of(region)) == 1);
	jitfd_chunk_destroy(chunk);
	jitfd_region_destroy(region);
}

static void regions_come_to_lie_near(void)
{
	struct jitfd_region_options options = options_with(0);
	jitfd_region *region;
	intptr_t here, there;

	memcpy(&here, &(void (*[1])(void)){ regions_come_to_lie_near }, sizeof(here));
	options.near_first = (void *)here;
	options.near_last = (char *)options.near_first + PAGE;
	CHECK((region = jitfd_region_create(PAGE, &options)) != NULL);
	there = (intptr_t)base_of(region);
	CHECK(llabs(there - here) < INT32_MAX);
	jitfd_region_destroy(region);
	options.near_last = (char *)options.near_first + ((size_t)1 << 33);
	REFUSED_NULL(jitfd_region_create(PAGE, &options), ENOMEM);
}

/* Fallbacks */

static int hook_calls;
static int hook_backend;

static void count_calls(int used, const char *text)
{
	hook_calls++;
	hook_backend = used;
	CHECK(strstr(text, jitfd_backend_name(used)) != NULL && strchr(text, '\n') == NULL);
}

static void fallbacks_are_told_once(void)
{
	struct jitfd_region_options options = options_with(0);
	jitfd_region *region;

	CHECK(jitfd_set_fallback_hook(count_calls) == 0);
	REFUSED(jitfd_set_fallback_hook(count_calls), EBUSY);
	for (int i = 0; i < 3; i++) {
		options.fallback = JITFD_FALLBACK_ANY;
		CHECK((region = jitfd_region_create(PAGE, &options)) != NULL);
		CHECK(hook_calls == (info_of(region).backend != JITFD_BACKEND_KERNEL));
		CHECK(hook_calls == 0 || hook_backend == info_of(region).backend);
		jitfd_region_destroy(region);
	}
}

/* Options that do not speak of a fallback do not take back what the process allows. */
static void zero_is_what_the_process_allows(void)
{
	struct jitfd_region_options region_options = { 0 };
	struct jitfd_space_options space_options = { 0 };
	struct jitfd_table_options table_options = { 0 };
	struct jitfd_table_stats stats = { 0 };
	jitfd_chunk *chunk = answer_chunk(1);
	jitfd_region *region;
	jitfd_space *space;
	jitfd_table *table;

	region_options.size = sizeof(region_options);
	space_options.size = sizeof(space_options);
	table_options.size = sizeof(table_options);
	stats.size = sizeof(stats);
	CHECK(jitfd_allow_fallback(only_backend()) == 0);
	CHECK(jitfd_backend(JITFD_FALLBACK_DEFAULT) == backend);
	CHECK((region = jitfd_region_create(PAGE, &region_options)) != NULL);
	CHECK(info_of(region).backend == backend);
	CHECK((space = jitfd_space_create(&space_options)) != NULL);
	CHECK((table = jitfd_table_create(JITFD_REG_RDI, &table_options)) != NULL);
	CHECK(jitfd_table_get_stats(table, &stats) == 0 && stats.backend == (uint64_t)backend);
	CHECK(jitfd_create_code(chunk, 0) != NULL);
	jitfd_table_destroy(table);
	jitfd_space_destroy(space);
	jitfd_region_destroy(region);
	/* One that is named counts, whatever the process allows. */
	CHECK(jitfd_allow_fallback(JITFD_FALLBACK_NEVER) == 0);
	CHECK(jitfd_create_code(chunk, only_backend()) != NULL);
	region_options.fallback = only_backend();
	CHECK((region = jitfd_region_create(PAGE, &region_options)) != NULL);
	CHECK(info_of(region).backend == backend);
	jitfd_region_destroy(region);
	jitfd_chunk_destroy(chunk);
}

static void fallbacks_have_no_descriptors(void)
{
	struct jitfd_region_options options = options_with(JITFD_REGION_ANY_PROCESS);
	jitfd_region *region;

	if (backend == JITFD_BACKEND_KERNEL)
		return;
	REFUSED_NULL(jitfd_region_create(PAGE, &options), EOPNOTSUPP);
	region = new_region(PAGE, 0);
	CHECK(info_of(region).map_fd == -1 && info_of(region).append_fd == -1);
	REFUSED_NULL(jitfd_region_clone(region, 0), EOPNOTSUPP);
	jitfd_region_destroy(region);
}

static void probes_say_what_works(void)
{
	jitfd_probe *probe = jitfd_probe_create();
	int refused = 0, works = 0, first = 0;
	size_t i;

	CHECK(probe != NULL && probe->finding_count > 0 && probe->trial_count == 3);
	for (i = 0; i < probe->finding_count; i++) {
		const struct jitfd_finding *finding = &probe->findings[i];

		CHECK(finding->subject[0] != '\0' && finding->text[0] != '\0');
		refused |= finding->verdict == JITFD_VERDICT_REFUSES &&
			   (finding->backends & 1u << JITFD_BACKEND_KERNEL) != 0;
	}
	for (i = 0; i < probe->trial_count; i++) {
		const struct jitfd_trial *trial = &probe->trials[i];

		CHECK(jitfd_backend_name(trial->backend) != NULL && trial->text[0] != '\0');
		CHECK(trial->works == (strcmp(trial->text, "works") == 0));
		works |= trial->backend == backend && trial->works;
		if (first == 0 && trial->works)
			first = trial->backend;
	}
	CHECK(works && jitfd_backend(JITFD_FALLBACK_ANY) == first);
	CHECK(refused || first == JITFD_BACKEND_KERNEL);
	jitfd_probe_destroy(probe);
}

/* Publishes in a child; returns its errno, or 0. */
static int errno_of_a_child(jitfd_region *region, const jitfd_chunk *chunk)
{
	pid_t child = fork();

	if (child == 0)
		_exit(jitfd_region_publish(region, chunk, NULL) == 0 ? 0 : errno);
	return exit_status(child);
}

static void children_do_not_publish(void)
{
	jitfd_region *region = new_region(PAGE, 0);
	jitfd_chunk *chunk = answer_chunk(6);

	CHECK(errno_of_a_child(region, chunk) == EPERM);
	CHECK(stats_of(region).publications == 0);
	jitfd_chunk_destroy(chunk);
	jitfd_region_destroy(region);
}

static void children_publish_if_they_may(void)
{
	jitfd_region *region = new_region(PAGE, JITFD_REGION_ANY_PROCESS);
	jitfd_chunk *chunk = answer_chunk(6);

	CHECK(errno_of_a_child(region, chunk) == 0);
	CHECK(call(base_of(region)) == 6);
	jitfd_chunk_destroy(chunk);
	jitfd_region_destroy(region);
}

/* In a child: goes on in a region of its own, at the same address. */
static void go_on_alone(jitfd_region *region, const jitfd_chunk *chunk)
{
	struct jitfd_place place;

	CHECK(jitfd_region_adopt(region) == 0);
	CHECK(call(base_of(region)) == 6);
	CHECK(jitfd_region_publish(region, chunk, &place) == 0 && place.offset == 16);
	CHECK(call(place.address) == 6 && stats_of(region).publications == 1);
}

static void children_adopt_regions(void)
{
	jitfd_region *region = new_region(PAGE, 0);
	jitfd_chunk *chunk = answer_chunk(6);
	pid_t child;

	CHECK(jitfd_region_publish(region, chunk, NULL) == 0);
	child = fork();
	if (child == 0) {
		go_on_alone(region, chunk);
		_exit(0);
	}
	CHECK(exit_status(child) == 0);
	CHECK(stats_of(region).publications == 1 && stats_of(region).cursor == ANSWER_SIZE);
	jitfd_chunk_destroy(chunk);
	jitfd_region_destroy(region);
}

static void regions_are_cloned(void)
{
	jitfd_region *region = new_region(PAGE, 0), *copy, *mapping;
	jitfd_chunk *chunk = answer_chunk(15);
	struct jitfd_place place;

	CHECK(jitfd_region_publish(region, chunk, NULL) == 0);
	REFUSED_NULL(jitfd_region_clone(region, 2), EINVAL);
	CHECK((copy = jitfd_region_clone(region, JITFD_REGION_ANY_PROCESS)) != NULL);
	CHECK(info_of(copy).map_fd >= 0 && info_of(copy).append_fd >= 0);
	CHECK(stats_of(copy).publications == 0);
	CHECK((mapping = jitfd_region_map(copy, PAGE)) != NULL);
	CHECK(jitfd_region_publish(copy, chunk, &place) == 0);
	CHECK(place.offset == 16 && place.address == NULL);
	CHECK(call(base_of(mapping)) == 15 && call(base_of(mapping) + 16) == 15);
	CHECK(stats_of(region).cursor == ANSWER_SIZE);
	jitfd_region_destroy(mapping);
	jitfd_region_destroy(copy);
	jitfd_chunk_destroy(chunk);
	jitfd_region_destroy(region);
}

/* Descriptors over a socket */

union one_descriptor {
	struct cmsghdr header;
	char bytes[CMSG_SPACE(sizeof(int))];
};

static struct msghdr message(union one_descriptor *control, struct iovec *data)
{
	struct msghdr message = { 0 };

	message.msg_iov = data;
	message.msg_iovlen = 1;
	message.msg_control = control->bytes;
	message.msg_controllen = sizeof(control->bytes);
	return message;
}

static void send_descriptor(int socket, int fd)
{
	union one_descriptor control;
	struct iovec data = { "x", 1 };
	struct msghdr sent = message(&control, &data);

	memset(&control, 0, sizeof(control));
	control.header.cmsg_len = CMSG_LEN(sizeof(fd));
	control.header.cmsg_level = SOL_SOCKET;
	control.header.cmsg_type = SCM_RIGHTS;
	memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
	CHECK(sendmsg(socket, &sent, 0) == 1);
}

static int receive_descriptor(int socket)
{
	union one_descriptor control;
	char byte;
	struct iovec data = { &byte, 1 };
	struct msghdr received = message(&control, &data);
	int fd;

	CHECK(recvmsg(socket, &received, MSG_CMSG_CLOEXEC) == 1);
	CHECK(received.msg_controllen >= CMSG_LEN(sizeof(fd)));
	memcpy(&fd, CMSG_DATA(&control.header), sizeof(fd));
	return fd;
}

/* The compiler's process: publishes at 0 and, in a reserved range, behind. */
static void publish_for_others(int socket)
{
	jitfd_region *publisher = jitfd_region_open(-1, receive_descriptor(socket));
	jitfd_chunk *chunk = answer_chunk(11);
	struct emission emission = { 0 };
	struct jitfd_place place = { 99, 99, &place };

	CHECK(publisher != NULL);
	CHECK(jitfd_region_publish(publisher, chunk, &place) == 0);
	CHECK(place.offset == 0 && place.len == ANSWER_SIZE && place.address == NULL);
	CHECK(jitfd_region_reserve(publisher, 32, 32, &place) == 0 && place.offset == 32);
	CHECK(jitfd_region_fill(publisher, &place, 0, chunk, NULL) == 0);
	REFUSED(jitfd_region_fill(publisher, &place, 0, chunk, NULL), EEXIST);
	REFUSED(jitfd_region_fill(publisher, &place, 32, chunk, NULL), EINVAL);
	/* Somebody else is faster: another place. */
	emission.interferes = publisher;
	emission.other = chunk;
	CHECK(jitfd_region_publish_with(publisher, 64, emit, &emission, &place) == 0);
	CHECK(emission.calls == 2 && place.offset == 128 && place.address == NULL);
	CHECK(jitfd_region_publish_all(publisher, NULL, 0, NULL) == 0);
	CHECK(jitfd_region_seal(publisher) == 0);
	REFUSED(jitfd_region_publish(publisher, chunk, NULL), EROFS);
	CHECK(stats_of(publisher).publications == 4);
	jitfd_region_destroy(publisher);
}

/* The process that executes, and has no right to publish. */
static void execute_only(int socket)
{
	jitfd_region *mapper = jitfd_region_open(receive_descriptor(socket), -1);
	jitfd_region *mapping = jitfd_region_map(mapper, PAGE);
	char *code;

	CHECK(mapping != NULL && (code = base_of(mapping)) != NULL);
	CHECK(info_of(mapping).len == PAGE && info_of(mapping).map_fd == -1);
	CHECK(call(code) == 11 && call(code + 32) == 11 && call(code + 128) == 0);
	REFUSED_NULL(jitfd_region_map(mapper, 2 * PAGE), EINVAL);
	REFUSED_NULL(jitfd_region_map(mapper, 0), EINVAL);
	CHECK(stats_of(mapper).sealed == 1);
	jitfd_region_destroy(mapper);
	CHECK(call(code) == 11);
	jitfd_region_destroy(mapping);
}

/* Runs work in a child that has nothing but the descriptor it is sent. */
static void in_a_child(void (*work)(int), int fd)
{
	int ends[2];
	pid_t child;

	CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
	child = fork();
	if (child == 0) {
		CHECK(close(fd) == 0);
		work(ends[1]);
		_exit(0);
	}
	send_descriptor(ends[0], fd);
	CHECK(exit_status(child) == 0);
	close(ends[0]);
	close(ends[1]);
}

static void rights_are_given_to_other_processes(void)
{
	jitfd_region *region = new_region(PAGE, JITFD_REGION_ANY_PROCESS);

	in_a_child(publish_for_others, info_of(region).append_fd);
	in_a_child(execute_only, info_of(region).map_fd);
	CHECK(call(base_of(region)) == 11);
	jitfd_region_destroy(region);
}

static void a_region_is_split(void)
{
	jitfd_region *region = new_region(PAGE, 0);
	jitfd_chunk *chunk = answer_chunk(12);
	jitfd_region *mapping = NULL, *mapper = NULL, *publisher = NULL, *again;
	struct emission emission = { 0 };
	struct jitfd_stats stats = { 0 };
	struct jitfd_place place;
	char *code = base_of(region);

	stats.size = sizeof(stats);
	CHECK(jitfd_region_publish(region, chunk, NULL) == 0);
	CHECK(jitfd_region_split(region, &mapping, &mapper, &publisher) == 0);
	CHECK(base_of(mapping) == code && info_of(mapping).len == PAGE && call(code) == 12);
	CHECK(info_of(mapping).backend == backend && info_of(mapper).backend == backend);
	CHECK(base_of(mapper) == NULL && base_of(publisher) == NULL);
	CHECK(jitfd_region_publish(publisher, chunk, &place) == 0 && place.offset == 16);
	CHECK((again = jitfd_region_map(mapper, PAGE)) != NULL);
	CHECK(call(base_of(again) + 16) == 12 && stats_of(mapper).publications == 2);
	CHECK(jitfd_region_reserve(publisher, 32, 32, &place) == 0 && place.offset == 32);
	CHECK(place.address == NULL && place.len == 32);
	CHECK(jitfd_region_fill(publisher, &place, 16, chunk, NULL) == 0 && call(code + 48) == 12);
	REFUSED(jitfd_region_fill(publisher, &place, 16, chunk, NULL), EEXIST);
	REFUSED(jitfd_region_fill(publisher, &place, 27, chunk, NULL), EINVAL);
	emission.interferes = publisher;
	emission.other = chunk;
	CHECK(jitfd_region_publish_with(publisher, 64, emit, &emission, &place) == 0);
	CHECK(emission.calls == 2 && emission.place.address == NULL && place.offset == 128);
	CHECK(call(code + 128) == 0);
	REFUSED(jitfd_region_get_stats(mapping, &stats), EBADF);
	REFUSED(jitfd_region_publish(mapping, chunk, NULL), EBADF);
	REFUSED(jitfd_region_split(mapping, NULL, NULL, NULL), EBADF);
	jitfd_region_destroy(mapper);
	jitfd_region_destroy(publisher);
	jitfd_region_destroy(mapping);
	CHECK(call(base_of(again)) == 12);
	jitfd_region_destroy(again);
	/* Nobody publishes in it any more. */
	region = new_region(PAGE, 0);
	CHECK(jitfd_region_publish(region, chunk, &place) == 0);
	CHECK(jitfd_region_split(region, &mapping, NULL, NULL) == 0);
	CHECK(call(place.address) == 12);
	jitfd_region_destroy(mapping);
	jitfd_chunk_destroy(chunk);
}

/* Code spaces */

static jitfd_space *new_space(jitfd_listener listener, void *data)
{
	struct jitfd_space_options options = { 0 };
	jitfd_space *space;

	options.size = sizeof(options);
	options.flags = JITFD_SPACE_TOGETHER;
	options.fallback = only_backend();
	options.region_capacity = PAGE;
	options.max_capacity = 8 * PAGE;
	options.listener = listener;
	options.listener_data = data;
	space = jitfd_space_create(&options);
	CHECK(space != NULL);
	return space;
}

static struct jitfd_request request_of(size_t len, const char *name)
{
	struct jitfd_request request = { 0 };

	request.size = sizeof(request);
	request.len = len;
	request.name = name;
	return request;
}

static struct jitfd_space_stats space_stats_of(const jitfd_space *space)
{
	struct jitfd_space_stats stats = { 0 };

	stats.size = sizeof(stats);
	CHECK(jitfd_space_get_stats(space, &stats) == 0);
	CHECK(stats.published + stats.reserved + stats.wasted + stats.free == stats.capacity);
	return stats;
}

static int is_called(const struct jitfd_symbol *symbol, const char *name)
{
	return symbol->name_len == strlen(name) &&
	       memcmp(symbol->name, name, symbol->name_len) == 0;
}

static void functions_are_found_by_address(void)
{
	jitfd_space *space = new_space(NULL, NULL);
	jitfd_chunk *chunk = answer_chunk(20), *other = answer_chunk(21);
	const jitfd_chunk *chunks[] = { chunk, other };
	const char *names[] = { "even", NULL };
	void *address = NULL, *addresses[2];
	struct jitfd_symbol symbol;

	CHECK(jitfd_space_publish(space, "twenty", chunk, &address) == 0);
	CHECK(call(address) == 20);
	CHECK(jitfd_space_lookup(space, (char *)address + 5, &symbol) == 1);
	CHECK(is_called(&symbol, "twenty") && symbol.address == address);
	CHECK(symbol.len == ANSWER_SIZE);
	CHECK(jitfd_space_lookup(space, (char *)address + 6, &symbol) == 0);
	CHECK(symbol.name == NULL && symbol.address == NULL);
	CHECK(jitfd_space_publish_all(space, names, chunks, 2, addresses) == 0);
	CHECK(call(addresses[0]) == 20 && call(addresses[1]) == 21);
	CHECK(jitfd_space_lookup(space, addresses[0], &symbol) == 1 && is_called(&symbol, "even"));
	CHECK(jitfd_space_lookup(space, addresses[1], &symbol) == 1 && is_called(&symbol, ""));
	CHECK(jitfd_space_publish_all(space, NULL, chunks, 2, NULL) == 0);
	REFUSED(jitfd_space_publish(space, "\xff", chunk, NULL), EINVAL);
	CHECK(space_stats_of(space).functions == 5);
	jitfd_chunk_destroy(chunk);
	jitfd_chunk_destroy(other);
	jitfd_space_destroy(space);
}

static void spaces_grow_up_to_their_bound(void)
{
	jitfd_space *space = new_space(NULL, NULL);
	jitfd_chunk *chunk = answer_chunk(1);
	void *first = NULL, *last = NULL;
	int count = 0;

	CHECK(jitfd_space_publish(space, NULL, chunk, &first) == 0);
	while (jitfd_space_publish(space, NULL, chunk, &last) == 0)
		CHECK(call(last) == 1 && ++count < 8 * PAGE / 16);
	CHECK(errno == ENOSPC);
	CHECK(count > 7 * PAGE / 16 && space_stats_of(space).regions == 8);
	CHECK(llabs((intptr_t)last - (intptr_t)first) < INT32_MAX);
	jitfd_chunk_destroy(chunk);
	jitfd_space_destroy(space);
}

static void slots_are_filled_or_given_up(void)
{
	struct jitfd_request request = request_of(64, "later");
	jitfd_space *space = new_space(NULL, NULL);
	jitfd_chunk *chunk = answer_chunk(30);
	char code[65];
	jitfd_chunk *longer;
	jitfd_slot *slot = NULL;
	struct jitfd_symbol symbol;
	void *address = NULL;

	memset(code, 0x90, sizeof(code));
	CHECK((longer = jitfd_validate(code, sizeof(code), NULL)) != NULL);
	request.align = 64;
	CHECK((slot = jitfd_space_reserve(space, &request, &address)) != NULL);
	CHECK((uintptr_t)address % 64 == 0 && space_stats_of(space).reserved == 64);
	CHECK(jitfd_space_lookup(space, address, &symbol) == 0);
	REFUSED(jitfd_space_fill(space, slot, longer), EINVAL);
	CHECK(jitfd_space_fill(space, slot, chunk) == 0 && call(address) == 30);
	CHECK(jitfd_space_lookup(space, address, &symbol) == 1 && is_called(&symbol, "later"));
	CHECK((slot = jitfd_space_reserve(space, &request, NULL)) != NULL);
	jitfd_space_abandon(space, slot);
	CHECK(space_stats_of(space).reserved == 0);
	request.size = 0;
	REFUSED_NULL(jitfd_space_reserve(space, &request, NULL), EINVAL);
	jitfd_chunk_destroy(chunk);
	jitfd_chunk_destroy(longer);
	jitfd_space_destroy(space);
}

/* In a child: is refused first, then goes on in a space of its own. */
static void go_on_with_a_space(jitfd_space *space, jitfd_slot *slot, void *address,
			       const jitfd_chunk *chunk)
{
	REFUSED(jitfd_space_publish(space, NULL, chunk, NULL), EPERM);
	REFUSED(jitfd_space_fill(space, slot, chunk), EPERM);
	CHECK(jitfd_space_adopt(space) == 0);
	CHECK(jitfd_space_publish(space, "child's", chunk, NULL) == 0);
	CHECK(jitfd_space_fill(space, slot, chunk) == 0 && call(address) == 31);
	CHECK(space_stats_of(space).functions == 2);
}

static void children_adopt_spaces(void)
{
	struct jitfd_request request = request_of(64, "later");
	jitfd_space *space = new_space(NULL, NULL);
	jitfd_chunk *chunk = answer_chunk(31);
	jitfd_slot *slot = NULL;
	void *address = NULL;
	pid_t child;

	CHECK((slot = jitfd_space_reserve(space, &request, &address)) != NULL);
	child = fork();
	if (child == 0) {
		go_on_with_a_space(space, slot, address, chunk);
		_exit(0);
	}
	CHECK(exit_status(child) == 0);
	CHECK(space_stats_of(space).functions == 0);
	CHECK(jitfd_space_fill(space, slot, chunk) == 0 && call(address) == 31);
	jitfd_chunk_destroy(chunk);
	jitfd_space_destroy(space);
}

static void code_is_moved_to_its_place(void)
{
	/* call +1; nop; mov eax, 33; ret: made for 0x1000, calls its own mov */
	static const char code[] = "\xe8\x01\x00\x00\x00\x90\xb8\x21\x00\x00\x00\xc3";
	struct jitfd_request request = request_of(0, "moved");
	jitfd_space *space = new_space(NULL, NULL);
	void *address = NULL;

	CHECK(jitfd_space_publish_moved(space, &request, code, 12, (void *)0x1000, &address) == 0);
	CHECK(call(address) == 33);
	REFUSED(jitfd_space_publish_moved(space, &request, "\x06", 1, (void *)0x1000, NULL),
		EINVAL);
	REFUSED(jitfd_space_publish_moved(space, &request, code, SIZE_MAX, (void *)0x1000, NULL),
		EINVAL);
	jitfd_space_destroy(space);
}

static void functions_are_linked(void)
{
	/* jmp to the second item; mov rax, [rip + 1]; ret; and the address loaded */
	static const char jump[] = "\xe9\x00\x00\x00\x00";
	static const char load[] = "\x48\x8b\x05\x01\x00\x00\x00\xc3\x00\x00\x00\x00\x00\x00\x00";
	struct jitfd_reloc to_load = { 1, JITFD_RELOC_CALL32, JITFD_RELOC_TO_ITEM, 1, -4 };
	struct jitfd_reloc constant = { 8, JITFD_RELOC_ABS64, 0, 77, -5 };
	struct jitfd_range data = { 8, 8 };
	struct jitfd_item items[2] = { { 0 }, { 0 } };
	jitfd_space *space = new_space(NULL, NULL);
	void *addresses[2] = { NULL, NULL };

	items[0].name = "jump";
	items[0].bytes = jump;
	items[0].len = 5;
	items[0].relocs = &to_load;
	items[0].reloc_count = 1;
	items[1].bytes = load;
	items[1].len = 16;
	items[1].align = 64;
	items[1].data = &data;
	items[1].data_count = 1;
	items[1].relocs = &constant;
	items[1].reloc_count = 1;
	CHECK(jitfd_space_link(space, items, 2, addresses) == 0);
	CHECK(call(addresses[0]) == 72 && call(addresses[1]) == 72);
	CHECK((uintptr_t)addresses[1] % 64 == 0);
	CHECK(space_stats_of(space).functions == 2);
	/* The second range wraps around into the first item. */
	data.len = 9;
	REFUSED(jitfd_space_link(space, items, 2, addresses), EILSEQ);
	data.offset = (size_t)-16;
	REFUSED(jitfd_space_link(space, items, 2, addresses), EILSEQ);
	data.offset = 8;
	data.len = 8;
	to_load.kind = JITFD_RELOC_REL8;
	to_load.flags = 0;
	REFUSED(jitfd_space_link(space, items, 2, addresses), EOVERFLOW);
	CHECK(jitfd_get_code_error()->reason == JITFD_REASON_TOO_FAR);
	CHECK(jitfd_get_code_error()->item == 0 && jitfd_get_code_error()->offset == 1);
	to_load.kind = 99;
	REFUSED(jitfd_space_link(space, items, 2, addresses), EINVAL);
	items[1].reserved[0] = 1;
	REFUSED(jitfd_space_link(space, items + 1, 1, addresses), EINVAL);
	REFUSED(jitfd_space_link(space, NULL, 0, NULL), EINVAL);
	items[1].reserved[0] = 0;
	items[1].len = SIZE_MAX;
	REFUSED(jitfd_space_link(space, items + 1, 1, addresses), EINVAL);
	CHECK(space_stats_of(space).functions == 2);
	jitfd_space_destroy(space);
}

static jitfd_space *new_space_with(uint32_t flags, const struct jitfd_rules *rules, size_t lead)
{
	struct jitfd_space_options options = { 0 };

	options.size = sizeof(options);
	options.flags = flags;
	options.fallback = only_backend();
	options.rules = rules;
	options.lead = lead;
	return jitfd_space_create(&options);
}

static void rules_hold_for_linked_and_moved_code(void)
{
	struct jitfd_rules rules = no_rules();
	struct jitfd_request request = request_of(0, NULL);
	struct jitfd_range data = { 0, 1 };
	struct jitfd_item item = { 0 };
	jitfd_space *space;

	/* syscall; ret */
	item.bytes = "\x0f\x05\xc3";
	item.len = 3;
	CHECK((space = new_space_with(0, NULL, 0)) != NULL);
	CHECK(jitfd_space_link(space, &item, 1, NULL) == 0);
	CHECK(jitfd_space_publish_moved(space, &request, item.bytes, 3, NULL, NULL) == 0);
	jitfd_space_destroy(space);
	rules.flags = JITFD_FORBID_SYSTEM_CALLS;
	CHECK((space = new_space_with(0, &rules, 0)) != NULL);
	REFUSED(jitfd_space_link(space, &item, 1, NULL), EILSEQ);
	REFUSED(jitfd_space_publish_moved(space, &request, item.bytes, 3, NULL, NULL), EILSEQ);
	jitfd_space_destroy(space);
	rules.data = &data;
	rules.data_count = 1;
	CHECK(new_space_with(0, &rules, 0) == NULL && errno == EINVAL);
	rules = no_rules();
	rules.align = 64;
	CHECK(new_space_with(0, &rules, 0) == NULL && errno == EINVAL);
	rules.align = 0;
	rules.flags = 0x80000000u;
	CHECK(new_space_with(0, &rules, 0) == NULL && errno == EINVAL);
}

static void regions_begin_with_trap_bytes(void)
{
	static const struct {
		uint32_t flags;
		size_t lead, first;
	} cases[] = { { 0, 0, 16 }, { 0, 64, 64 }, { JITFD_SPACE_NO_LEAD, 0, 0 } };
	jitfd_chunk *chunk = answer_chunk(60);
	void *address = NULL;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		jitfd_space *space = new_space_with(cases[i].flags, NULL, cases[i].lead);

		CHECK(space != NULL);
		CHECK(jitfd_space_publish(space, NULL, chunk, &address) == 0);
		CHECK((uintptr_t)address % PAGE == cases[i].first);
		CHECK(space_stats_of(space).wasted == cases[i].first);
		jitfd_space_destroy(space);
	}
	CHECK(new_space_with(JITFD_SPACE_NO_LEAD, NULL, 16) == NULL && errno == EINVAL);
	jitfd_chunk_destroy(chunk);
}

static void functions_are_listed(void)
{
	jitfd_space *space = new_space(NULL, NULL);
	jitfd_chunk *chunk = answer_chunk(70);
	struct jitfd_symbol symbols[3];
	void *first, *second;
	size_t total = 9;

	CHECK(jitfd_space_symbols(space, NULL, 0, &total) == 0 && total == 0);
	CHECK(jitfd_space_publish(space, "first", chunk, &first) == 0);
	CHECK(jitfd_space_publish(space, "second", chunk, &second) == 0);
	memset(symbols, 0, sizeof(symbols));
	CHECK(jitfd_space_symbols(space, symbols, 3, &total) == 0 && total == 2);
	CHECK(is_called(&symbols[0], "first") && symbols[0].address == first);
	CHECK(is_called(&symbols[1], "second") && symbols[1].address == second);
	CHECK(symbols[1].len == ANSWER_SIZE && symbols[2].address == NULL);
	symbols[1].address = NULL;
	CHECK(jitfd_space_symbols(space, symbols, 1, &total) == 0 && total == 2);
	CHECK(symbols[0].address == first && symbols[1].address == NULL);
	REFUSED(jitfd_space_symbols(space, NULL, 1, &total), EINVAL);
	REFUSED(jitfd_space_symbols(space, symbols, 1, NULL), EINVAL);
	jitfd_chunk_destroy(chunk);
	jitfd_space_destroy(space);
}

static uintptr_t framed;
static size_t inside, behind;

static _Unwind_Reason_Code count_frame(struct _Unwind_Context *context, void *unused)
{
	uintptr_t ip = _Unwind_GetIP(context);

	(void)unused;
	if (ip >= framed && ip < framed + FRAMED_SIZE)
		inside++;
	else if (inside > 0)
		behind++;
	return _URC_NO_REASON;
}

static int walk(void)
{
	inside = behind = 0;
	_Unwind_Backtrace(count_frame, NULL);
	return 80;
}

static void unwinders_go_through_code(void)
{
	unsigned char code[FRAMED_SIZE];
	const struct jitfd_frame_step steps[] = { { 0, JITFD_FRAME_POINTER, 0, 0, 0 },
						  { 17, JITFD_FRAME_CFA, JITFD_REG_RSP, 8, 0 } };
	const struct jitfd_frame_step bad = { 0, JITFD_FRAME_SAVED, JITFD_REG_RBX, 4, 0 };
	const struct jitfd_frame_step other = { 0, JITFD_FRAME_SAVED, JITFD_REG_RDI, 8, 0 };
	const uint32_t endless[] = { 0x7fffffff, 0, 1, 0 };
	jitfd_space *space = new_space(NULL, NULL);
	struct jitfd_frame frames[2] = { { 0 }, { 0 } };
	jitfd_registration *registered;
	jitfd_eh_frame *table;
	jitfd_chunk *chunk;
	void *address = NULL;

	put_framed(code, walk);
	CHECK((chunk = jitfd_validate(code, sizeof(code), NULL)) != NULL);
	CHECK(jitfd_space_publish(space, "framed", chunk, &address) == 0);
	framed = (uintptr_t)address;
	CHECK(call(address) == 80 && inside == 1 && behind == 0);
	/* The second one is a function that leaves rsp where it is. */
	frames[1].address = (char *)address + sizeof(code);
	frames[1].len = 1;
	frames[0].address = address;
	frames[0].len = sizeof(code);
	frames[0].steps = &bad;
	frames[0].step_count = 1;
	REFUSED_NULL(jitfd_eh_frame_create(frames, 2), EINVAL);
	frames[0].steps = &other;
	REFUSED_NULL(jitfd_eh_frame_create(frames, 2), EINVAL);
	frames[0].steps = steps;
	frames[0].step_count = 2;
	frames[0].len = 0;
	REFUSED_NULL(jitfd_eh_frame_create(frames, 2), EINVAL);
	frames[0].len = SIZE_MAX;
	REFUSED_NULL(jitfd_eh_frame_create(frames, 2), EINVAL);
	frames[0].len = sizeof(code);
	CHECK((table = jitfd_eh_frame_create(frames, 2)) != NULL);
	CHECK(table->bytes != NULL && table->len % 4 == 0);
	REFUSED_NULL(jitfd_eh_frame_register(table->bytes, 0), EINVAL);
	CHECK(strstr(jitfd_error(), "unwind table") != NULL);
	REFUSED_NULL(jitfd_eh_frame_register(table->bytes, table->len - 4), EINVAL);
	REFUSED_NULL(jitfd_eh_frame_register(endless, sizeof(endless)), EINVAL);
	CHECK((registered = jitfd_eh_frame_register(table->bytes, table->len)) != NULL);
	jitfd_eh_frame_destroy(table);
	CHECK(call(address) == 80 && inside == 1 && behind > 0);
	jitfd_unregister(registered);
	CHECK(call(address) == 80 && inside == 1 && behind == 0);
	jitfd_chunk_destroy(chunk);
	jitfd_space_destroy(space);
}

/* What gdb reads; a shared library keeps it to itself. */
struct gdb_entry {
	struct gdb_entry *next, *previous;
	const char *file;
	uint64_t len;
};
extern struct {
	uint32_t version, action;
	struct gdb_entry *relevant, *first;
} __jit_debug_descriptor __attribute__((weak));

/* Whether the newest object that gdb is told of names a function. */
static int gdb_knows(const char *name)
{
	const struct gdb_entry *entry;
	size_t at, len = strlen(name) + 1;

	if (&__jit_debug_descriptor == NULL)
		return 1;
	entry = __jit_debug_descriptor.first;
	for (at = 0; entry != NULL && at + len <= entry->len; at++)
		if (memcmp(entry->file + at, name, len) == 0)
			return 1;
	return 0;
}

static void gdb_is_told_of_code(void)
{
	jitfd_space *space = new_space_with(JITFD_SPACE_GDB, NULL, 0);
	jitfd_chunk *chunk = answer_chunk(90);
	struct jitfd_symbol symbol = { 0 };
	struct jitfd_frame frame = { 0 };
	jitfd_registration *registered;
	jitfd_eh_frame *table;

	CHECK(space != NULL);
	CHECK(jitfd_space_publish(space, "of_the_space", chunk, &symbol.address) == 0);
	CHECK(gdb_knows("of_the_space"));
	REFUSED_NULL(jitfd_gdb_register(&symbol, 1, NULL, 0), EINVAL);
	symbol.len = ANSWER_SIZE;
	REFUSED_NULL(jitfd_gdb_register(&symbol, 0, NULL, 0), EINVAL);
	symbol.name = "\xff";
	symbol.name_len = 1;
	REFUSED_NULL(jitfd_gdb_register(&symbol, 1, NULL, 0), EINVAL);
	symbol.name = "by_hand";
	symbol.name_len = 7;
	frame.address = symbol.address;
	frame.len = symbol.len;
	CHECK((table = jitfd_eh_frame_create(&frame, 1)) != NULL);
	registered = jitfd_gdb_register(&symbol, 1, table->bytes, table->len);
	CHECK(registered != NULL && gdb_knows("by_hand"));
	jitfd_unregister(registered);
	CHECK(gdb_knows("of_the_space"));
	jitfd_eh_frame_destroy(table);
	jitfd_chunk_destroy(chunk);
	jitfd_space_destroy(space);
}

static void remember(void *data, const struct jitfd_symbol *function)
{
	*(struct jitfd_symbol *)data = *function;
}

static void listeners_are_told_of_code(void)
{
	struct jitfd_symbol last = { 0 };
	jitfd_space *space = new_space(remember, &last);
	jitfd_chunk *chunk = answer_chunk(1);
	void *address = NULL;

	CHECK(jitfd_space_publish(space, "heard of", chunk, &address) == 0);
	CHECK(last.address == address && last.len == ANSWER_SIZE && last.name_len == 8);
	jitfd_chunk_destroy(chunk);
	jitfd_space_destroy(space);
}

static void tools_are_told_of_code(void)
{
	struct jitfd_space_options options = { 0 };
	jitfd_chunk *chunk = answer_chunk(1);
	jitfd_space *space;
	char path[64], wanted[64], line[64];
	void *address = NULL;
	FILE *file;

	options.size = sizeof(options);
	options.fallback = only_backend();
	options.flags = JITFD_SPACE_PERF_MAP;
	options.jitdump = "/tmp";
	snprintf(path, sizeof(path), "/tmp/perf-%d.map", (int)getpid());
	if (backend == JITFD_BACKEND_PROTECT_FLIPS) {
		REFUSED_NULL(jitfd_space_create(&options), EOPNOTSUPP);
		CHECK(unlink(path) == 0);
		return;
	}
	CHECK((space = jitfd_space_create(&options)) != NULL);
	CHECK(jitfd_space_publish(space, "seen by perf", chunk, &address) == 0);
	snprintf(wanted, sizeof(wanted), "%lx 6 seen by perf\n", (unsigned long)address);
	CHECK((file = fopen(path, "r")) != NULL);
	CHECK(fgets(line, sizeof(line), file) != NULL && strcmp(line, wanted) == 0);
	CHECK(fclose(file) == 0 && unlink(path) == 0);
	snprintf(path, sizeof(path), "/tmp/jit-%d.dump", (int)getpid());
	CHECK(unlink(path) == 0);
	jitfd_space_destroy(space);
	options.jitdump = "/nowhere";
	REFUSED_NULL(jitfd_space_create(&options), ENOENT);
	options.flags = 1 << 20;
	REFUSED_NULL(jitfd_space_create(&options), EINVAL);
	jitfd_chunk_destroy(chunk);
}

/* Threads */

#define THREADS 4
#define EACH 250

struct work {
	jitfd_region *region;
	uint32_t first;
	struct jitfd_place places[EACH];
};

static void *compile(void *argument)
{
	struct work *work = argument;

	for (uint32_t i = 0; i < EACH; i++) {
		jitfd_chunk *chunk = answer_chunk(work->first + i);

		CHECK(jitfd_region_publish(work->region, chunk, &work->places[i]) == 0);
		jitfd_chunk_destroy(chunk);
		CHECK(call(work->places[i].address) == (int)(work->first + i));
	}
	return NULL;
}

/* chained: returns what r10 carries. prepared: the data of the closure in r10. */
__asm__(".text\n"
	"chained:\n"
	"	mov %r10, %rax\n"
	"	ret\n"
	"prepared:\n"
	"	mov 48(%r10), %rax\n"
	"	ret\n"
	"popping:\n"
	"	pop %rax\n"
	"	pop %rcx\n"
	"	sub %rcx, %rax\n"
	"	ret\n"
	/* rbp, rbx or r12, as its caller left them. */
	"callee_saved:\n"
	"	test %rax, %rax\n"
	"	cmove %rbp, %rcx\n"
	"	cmp $1, %rax\n"
	"	cmove %rbx, %rcx\n"
	"	cmova %r12, %rcx\n"
	"	mov %rcx, %rax\n"
	"	ret\n"
	"keeping:\n"
	"	push %rbp\n"
	"	push %rbx\n"
	"	push %r12\n"
	"	mov %rsi, %rax\n"
	"	call *%rdi\n"
	"	pop %r12\n"
	"	pop %rbx\n"
	"	pop %rbp\n"
	"	ret\n"
	"with_all:\n"
	"	push %rdx\n"
	"	movq %rsi, %xmm15\n"
	"	punpcklqdq %xmm15, %xmm15\n"
	"	cmp $1, %rsi\n"
	"	call *%rdi\n"
	"called:\n"
	"	pop %rdx\n"
	"	setc %al\n"
	"	movzbl %al, %eax\n"
	"	movdqu %xmm15, (%rdx)\n"
	"	ret\n");
long chained(void) __asm__("chained");
long prepared(void) __asm__("prepared");
/* Returns rbp, rbx or r12, for 0, 1 or 2 in rax. */
long callee_saved(void) __asm__("callee_saved");
/* Calls a function that may change those, with a number in rax. */
long keeping(jitfd_function entry, uint64_t number) __asm__("keeping");
/* Takes two pushed values and returns their difference. */
long popping(void) __asm__("popping");
/* Calls a function with a number in both halves of xmm15, and the carry flag if it is 0.
 * Stores the halves that are there afterwards, and returns the carry flag. */
int with_all(jitfd_function entry, uint64_t number, uint64_t halves[2]) __asm__("with_all");
/* Where it is returned to. */
extern char called[] __asm__("called");

static jitfd_table *new_table(uint32_t context_register, size_t copy_capacity)
{
	struct jitfd_table_options options;
	jitfd_table *table;

	memset(&options, 0, sizeof(options));
	options.size = sizeof(options);
	options.fallback = only_backend();
	options.copy_capacity = copy_capacity;
	CHECK((table = jitfd_table_create(context_register, &options)) != NULL);
	return table;
}

typedef long (*six)(long, long, long, long, long, long);

static long weighed(long a, long b, long c, long d, long e, long f)
{
	return a + 10 * b + 100 * c + 1000 * d + 10000 * e + 100000 * f;
}

static void each_register_carries(void)
{
	static const long weights[] = { 1, 10, 100, 1000, 10000, 100000 };
	static const uint32_t arguments[] = { JITFD_REG_RDI, JITFD_REG_RSI, JITFD_REG_RDX,
					      JITFD_REG_RCX, JITFD_REG_R8, JITFD_REG_R9 };
	jitfd_table *table;
	six entry;

	for (int i = 0; i < 6; i++) {
		table = new_table(arguments[i], 0);
		entry = (six)jitfd_table_bind(table, (jitfd_function)weighed, (void *)7);
		CHECK(entry != NULL);
		CHECK(entry(1, 1, 1, 1, 1, 1) == 111111 + 6 * weights[i]);
		jitfd_table_release(table, (jitfd_function)entry);
		jitfd_table_destroy(table);
	}
	table = new_table(JITFD_REG_R10, 0);
	CHECK(((long (*)(void))jitfd_table_bind(table, (jitfd_function)chained, (void *)9))() == 9);
	jitfd_table_destroy(table);
}

static long context_of(long number, void *context)
{
	return number + *(long *)context;
}

static void trampolines_come_and_go(void)
{
	enum { MANY = 3000 };
	static long contexts[MANY];
	static long (*entries[MANY])(long);
	jitfd_table *table = new_table(JITFD_REG_RSI, 256);
	struct jitfd_table_stats stats;
	void *context = NULL;

	memset(&stats, 0, sizeof(stats));
	stats.size = sizeof(stats);
	for (int turn = 0; turn < 3; turn++) {
		for (int i = 0; i < MANY; i++) {
			contexts[i] = 10 * i + turn;
			entries[i] = (long (*)(long))jitfd_table_bind(
				table, (jitfd_function)context_of, &contexts[i]);
			CHECK(entries[i] != NULL);
		}
		for (int i = 0; i < MANY; i++)
			CHECK(entries[i](5) == 10 * i + turn + 5);
		CHECK(jitfd_table_context(table, (jitfd_function)entries[7], &context) == 0);
		CHECK(context == &contexts[7]);
		CHECK(jitfd_table_get_stats(table, &stats) == 0);
		CHECK(stats.copy_capacity == 256 && stats.copies >= MANY / 256);
		CHECK(stats.copies <= MANY / 256 + 2 && stats.taken >= MANY);
		CHECK(stats.code_bytes > 0 && stats.data_bytes >= 16 * MANY);
		CHECK(stats.backend == (uint64_t)backend);
		for (int i = 0; i < MANY; i++)
			jitfd_table_release(table, (jitfd_function)entries[i]);
	}
	CHECK(jitfd_table_get_stats(table, &stats) == 0 && stats.copies < MANY / 256 / 2);
	jitfd_table_destroy(table);
}

/* A call that comes too late is a signal, not a call of something else. */
static void released_trampolines_trap(void)
{
	jitfd_table *table = new_table(JITFD_REG_RSI, 0);
	long number = 1;
	long (*entry)(long) = (long (*)(long))jitfd_table_bind(
		table, (jitfd_function)context_of, &number);
	pid_t child;

	CHECK(entry(2) == 3);
	jitfd_table_release(table, (jitfd_function)entry);
	child = fork();
	if (child == 0)
		_exit((int)entry(2));
	CHECK(exit_status(child) == 128 + SIGTRAP);
	jitfd_table_destroy(table);
}

/* As long as nothing else is made there, a second time changes nothing. */
static void a_trampoline_released_twice_has_one_owner(void)
{
	jitfd_table *table = new_table(JITFD_REG_RSI, 0);
	long numbers[] = { 10, 20 };
	jitfd_function entries[2];

	entries[0] = jitfd_table_bind(table, (jitfd_function)context_of, &numbers[0]);
	jitfd_table_release(table, entries[0]);
	jitfd_table_release(table, entries[0]);
	for (int i = 0; i < 2; i++)
		entries[i] = jitfd_table_bind(table, (jitfd_function)context_of, &numbers[i]);
	CHECK(entries[0] != NULL && entries[1] != NULL && entries[0] != entries[1]);
	CHECK(((long (*)(long))entries[0])(1) == 11 && ((long (*)(long))entries[1])(1) == 21);
	jitfd_table_destroy(table);
}

static void bad_tables_are_refused(void)
{
	struct jitfd_table_options options;
	struct jitfd_table_stats stats;
	jitfd_table *table;
	jitfd_function entry;
	void *context = NULL;

	memset(&options, 0, sizeof(options));
	REFUSED_NULL(jitfd_table_create(JITFD_REG_RDI, &options), EINVAL);
	options.size = sizeof(options);
	REFUSED_NULL(jitfd_table_create(JITFD_REG_RAX, &options), EINVAL);
	REFUSED_NULL(jitfd_table_create(JITFD_REG_R11, &options), EINVAL);
	options.flags = JITFD_TABLE_DEBUGGERS << 1;
	REFUSED_NULL(jitfd_table_create(JITFD_REG_RDI, &options), EINVAL);
	options.flags = 0;
	options.fallback = 99;
	REFUSED_NULL(jitfd_table_create(JITFD_REG_RDI, &options), EINVAL);

	table = new_table(JITFD_REG_R8, 0);
	entry = (jitfd_function)chained;
	errno = 0;
	CHECK(jitfd_table_bind(table, NULL, NULL) == NULL && errno == EINVAL);
	errno = 0;
	CHECK(jitfd_table_bind(NULL, entry, NULL) == NULL && errno == EINVAL);
	REFUSED(jitfd_table_context(NULL, entry, &context), EINVAL);
	REFUSED(jitfd_table_context(table, NULL, &context), EINVAL);
	REFUSED(jitfd_table_context(table, entry, NULL), EINVAL);
	REFUSED(jitfd_table_get_stats(table, NULL), EINVAL);
	memset(&stats, 0, sizeof(stats));
	REFUSED(jitfd_table_get_stats(table, &stats), EINVAL);
	jitfd_table_release(table, NULL);
	jitfd_table_destroy(table);
	jitfd_table_destroy(NULL);
}

static struct jitfd_thunk thunk_to(jitfd_function target)
{
	struct jitfd_thunk thunk = { 0 };

	thunk.size = sizeof(thunk);
	thunk.target = target;
	return thunk;
}

static void thunks_are_published(void)
{
	static const struct jitfd_register_value values[] = {
		{ 9, JITFD_REG_RDI, 0 }, { 2, JITFD_REG_RSI, 0 }, { 3, JITFD_REG_RDX, 0 },
		{ 4, JITFD_REG_RCX, 0 }, { 5, JITFD_REG_R8, 0 },  { 6, JITFD_REG_R9, 0 },
		{ 1, JITFD_REG_RDI, 0 },
	};
	static const struct jitfd_register_value unknown = { 1, 16, 0 }, reserved = { 1, 0, 1 };
	static const uint64_t pushes[] = { 8, 50 };
	struct jitfd_thunk thunk = thunk_to((jitfd_function)weighed);
	jitfd_space *space = new_space(NULL, NULL);
	jitfd_function entry = NULL;

	thunk.registers = values;
	thunk.register_count = 7;
	CHECK(jitfd_space_publish_thunk(space, "weighed", &thunk, &entry) == 0);
	CHECK(((long (*)(void))entry)() == 654321);
	REFUSED(jitfd_space_publish_thunk(NULL, NULL, &thunk, &entry), EINVAL);
	REFUSED(jitfd_space_publish_thunk(space, NULL, NULL, &entry), EINVAL);
	REFUSED(jitfd_space_publish_thunk(space, NULL, &thunk, NULL), EINVAL);
	thunk.registers = &unknown;
	thunk.register_count = 1;
	REFUSED(jitfd_space_publish_thunk(space, NULL, &thunk, &entry), EINVAL);
	thunk.registers = &reserved;
	REFUSED(jitfd_space_publish_thunk(space, NULL, &thunk, &entry), EINVAL);
	thunk.registers = NULL;
	REFUSED(jitfd_space_publish_thunk(space, NULL, &thunk, &entry), EINVAL);

	thunk = thunk_to((jitfd_function)popping);
	thunk.pushes = pushes;
	thunk.push_count = 2;
	CHECK(jitfd_space_publish_thunk(space, NULL, &thunk, &entry) == 0);
	CHECK(((long (*)(void))entry)() == 42);
	thunk = thunk_to(NULL);
	REFUSED(jitfd_space_publish_thunk(space, NULL, &thunk, &entry), EINVAL);
	thunk.size = 0;
	REFUSED(jitfd_space_publish_thunk(space, NULL, &thunk, &entry), EINVAL);
	jitfd_space_destroy(space);
}

/* One register has one number: the one that was asked for is the one that is set. */
static void registers_have_one_number(void)
{
	static const uint32_t seen[] = { JITFD_REG_RBP, JITFD_REG_RBX, JITFD_REG_R12 };
	struct jitfd_thunk thunk = thunk_to((jitfd_function)callee_saved);
	jitfd_space *space = new_space(NULL, NULL);
	struct jitfd_register_value value = { 42, 0, 0 };
	jitfd_function entry = NULL;

	thunk.registers = &value;
	thunk.register_count = 1;
	for (size_t i = 0; i < sizeof(seen) / sizeof(seen[0]); i++) {
		value.reg = seen[i];
		CHECK(jitfd_space_publish_thunk(space, NULL, &thunk, &entry) == 0);
		CHECK(keeping(entry, i) == 42);
	}
	jitfd_space_destroy(space);
}

/* In a time that grows with their number; with its square, the alarm ends it. */
static void thunks_take_many_pushes(void)
{
	enum { MANY = 1000000 };
	uint64_t *pushes = calloc(MANY, sizeof(*pushes));
	struct jitfd_thunk thunk = thunk_to((jitfd_function)popping);
	jitfd_space *space = new_space(NULL, NULL);
	jitfd_function entry = NULL;

	CHECK(pushes != NULL);
	thunk.pushes = pushes;
	thunk.push_count = MANY;
	/* It is longer than a region of this space. */
	CHECK(jitfd_space_publish_thunk(space, NULL, &thunk, &entry) == -1);
	CHECK(entry == NULL);
	free(pushes);
	jitfd_space_destroy(space);
}

static void look(struct jitfd_registers *registers, void *data)
{
	double first, second;

	memcpy(&first, &registers->vectors[0][0], sizeof(first));
	memcpy(&second, &registers->vectors[7][0], sizeof(second));
	first += second + (double)registers->vector_count;
	*(uint64_t *)data += registers->integers[0] + 10 * registers->integers[5] +
			     100 * registers->stack[0];
	registers->returned[0] = *(uint64_t *)data;
	memcpy(&registers->returned_vectors[0][0], &first, sizeof(first));
}

static void closures_see_registers(void)
{
	typedef long (*integers)(long, long, long, long, long, long, long);
	typedef double (*reals)(double, double, double, double, double, double, double, double,
				...);
	uint64_t sum = 0;
	jitfd_closure *closure;
	jitfd_function entry;

	CHECK(jitfd_allow_fallback(only_backend()) == 0);
	CHECK((closure = jitfd_closure_create(look, &sum, &entry)) != NULL && entry != NULL);
	CHECK(((integers)entry)(1, 0, 0, 0, 0, 6, 7) == 761);
	CHECK(((integers)entry)(2, 0, 0, 0, 0, 0, 0) == 763 && sum == 763);
	/* A variadic call says how many vector registers it uses. */
	CHECK(((reals)entry)(1.5, 0, 0, 0, 0, 0, 0, 2.25) == 11.75);
	jitfd_closure_destroy(closure);
	jitfd_closure_destroy(NULL);
	REFUSED_NULL(jitfd_closure_create(NULL, NULL, &entry), EINVAL);
	REFUSED_NULL(jitfd_closure_create(look, NULL, NULL), EINVAL);
}

static void visit(struct jitfd_saved_registers *saved, void *data)
{
	const uint64_t first = saved->general[JITFD_REG_RDI];

	CHECK(saved->general[JITFD_REG_RSP] % 16 == 8 && saved->jump == NULL);
	/* It stays what it is. */
	saved->general[JITFD_REG_RSP] = 1;
	saved->general[JITFD_REG_RAX] = first + *(uint64_t *)data;
	if (first >= 1000) {
		saved->general[JITFD_REG_RDI] = 3;
		saved->jump = (jitfd_function)weighed;
	}
	if (first >= 2000)
		saved->jump = NULL;
}

static void save_all_trampolines_change_registers(void)
{
	uint64_t more = 40;
	jitfd_save_all *made;
	jitfd_function function = NULL;
	six entry;

	CHECK(jitfd_allow_fallback(only_backend()) == 0);
	CHECK((made = jitfd_save_all_create(visit, &more, &function)) != NULL);
	CHECK((entry = (six)function) != NULL);
	CHECK(entry(2, 0, 0, 0, 0, 0) == 42);
	CHECK(entry(1000, 4, 5, 6, 7, 8) == 876543);
	CHECK(entry(2000, 0, 0, 0, 0, 0) == 2040);
	jitfd_save_all_destroy(made);
	jitfd_save_all_destroy(NULL);
	REFUSED_NULL(jitfd_save_all_create(NULL, NULL, &function), EINVAL);
	REFUSED_NULL(jitfd_save_all_create(visit, NULL, NULL), EINVAL);
}

static void add_reals(struct jitfd_saved_registers *saved, void *data)
{
	double first, last;

	(void)data;
	memcpy(&last, &saved->vectors[7][0], sizeof(last));
	memcpy(&first, &saved->vectors[0][0], sizeof(first));
	first += last;
	memcpy(&saved->vectors[0][0], &first, sizeof(first));
}

/* Adds to xmm15, and inverts the carry flag. */
static void change_all(struct jitfd_saved_registers *saved, void *data)
{
	const uint64_t number = saved->general[JITFD_REG_RSI];

	CHECK(saved->trampoline == *(jitfd_function *)data);
	CHECK(saved->return_address == (void *)called);
	CHECK(saved->vectors[15][0] == number && saved->vectors[15][1] == number);
	saved->vectors[15][0] += 1;
	saved->vectors[15][1] += 2;
	CHECK((saved->flags & 1) == (number == 0));
	saved->flags ^= 1;
}

static void save_all_trampolines_change_vectors_and_flags(void)
{
	typedef double (*reals)(double, double, double, double, double, double, double, double);
	uint64_t halves[2];
	jitfd_function entry = NULL;
	jitfd_save_all *made;

	CHECK(jitfd_allow_fallback(only_backend()) == 0);
	CHECK((made = jitfd_save_all_create(add_reals, NULL, &entry)) != NULL);
	CHECK(((reals)entry)(1.5, 0, 0, 0, 0, 0, 0, 2.25) == 3.75);
	jitfd_save_all_destroy(made);

	CHECK((made = jitfd_save_all_create(change_all, &entry, &entry)) != NULL);
	CHECK(with_all(entry, 0, halves) == 0 && halves[0] == 1 && halves[1] == 2);
	CHECK(with_all(entry, 40, halves) == 1 && halves[0] == 41 && halves[1] == 42);
	jitfd_save_all_destroy(made);
}

/* What libffi does with the memory is tested with libffi, in tests/ffi. */
static void closures_of_libffi_get_memory(void)
{
	enum { MANY = 100 };
	long *closures[MANY];
	void *codes[MANY];
	long (*destination)(void) = prepared;

	CHECK(jitfd_allow_fallback(only_backend()) == 0);
	REFUSED_NULL(jitfd_ffi_closure_alloc(56, NULL), EINVAL);
	REFUSED_NULL(jitfd_ffi_closure_alloc(55, codes), EINVAL);
	REFUSED_NULL(jitfd_ffi_closure_alloc(SIZE_MAX, codes), EINVAL);
	jitfd_ffi_closure_free(NULL);
	for (int i = 0; i < MANY; i++) {
		closures[i] = jitfd_ffi_closure_alloc(56 + (size_t)i, &codes[i]);
		CHECK(closures[i] != NULL && (uintptr_t)closures[i] % 16 == 0);
		memcpy(&closures[i][3], &destination, sizeof(destination));
		closures[i][6] = i;
	}
	for (int i = 0; i < MANY; i++)
		CHECK(call(codes[i]) == i);
	for (int i = 0; i < MANY; i++)
		jitfd_ffi_closure_free(closures[i]);
}

static void threads_share_a_region(void)
{
	static struct work work[THREADS];
	jitfd_region *region = new_region(THREADS * EACH * 16, 0);
	pthread_t threads[THREADS];

	for (uint32_t i = 0; i < THREADS; i++) {
		work[i].region = region;
		work[i].first = i * EACH;
		CHECK(pthread_create(&threads[i], NULL, compile, &work[i]) == 0);
	}
	for (int i = 0; i < THREADS; i++)
		CHECK(pthread_join(threads[i], NULL) == 0);
	for (int i = 0; i < THREADS * EACH; i++)
		CHECK(call(work[i / EACH].places[i % EACH].address) == i);
	CHECK(stats_of(region).publications == THREADS * EACH);
	jitfd_region_destroy(region);
}

#define TEST(function) { "c::" #function, function, NOTHING }
#define PUBLISHES(function) { "c::" #function, function, CODE }
#define KERNEL_S(function) { "c::" #function, function, KERNEL }

static const struct test tests[] = {
	TEST(version_is_known),
	TEST(chunk_tells_what_it_is),
	TEST(chunk_has_its_own_copy),
	TEST(fault_says_where_and_why),
	TEST(lengths_are_checked_first),
	TEST(faults_of_data_are_told),
	TEST(data_is_declared),
	TEST(lock_skips_are_allowed_if_asked_for),
	TEST(rules_can_be_tightened),
	TEST(instructions_are_forbidden_by_name),
	TEST(lines_and_entries_are_checked),
	TEST(code_is_laid_out_in_lines),
	TEST(assumed_code_is_not_looked_at),
	TEST(bad_rules_are_refused),
	TEST(structs_carry_their_size),
	TEST(null_is_refused_everywhere),
	TEST(bad_code_is_refused_before_any_call),
	TEST(bad_capacities_and_options_are_refused),
	TEST(backends_have_names),
	TEST(foreign_descriptors_are_found_out),
	TEST(errors_are_of_the_thread),
	TEST(without_the_module_it_says_so),
	PUBLISHES(the_mail_s_call_makes_code),
	PUBLISHES(munmap_is_enough),
	PUBLISHES(own_pages_are_replaced),
	PUBLISHES(own_pages_are_code_and_back),
	KERNEL_S(the_kernel_looks_after_pages),
	PUBLISHES(data_can_be_loaded_at_once),
	PUBLISHES(code_is_appended),
	PUBLISHES(batches_are_published_as_a_whole),
	PUBLISHES(code_is_made_for_its_place),
	PUBLISHES(reserved_ranges_are_filled_later),
	PUBLISHES(branches_between_chunks_are_checked),
	PUBLISHES(branches_leave_to_what_is_declared),
	TEST(foreign_code_is_recognised),
	PUBLISHES(a_full_region_says_so),
	PUBLISHES(sealing_is_the_end),
	PUBLISHES(regions_come_to_lie_near),
	{ "c::fallbacks_are_told_once", fallbacks_are_told_once, HOOK },
	PUBLISHES(zero_is_what_the_process_allows),
	PUBLISHES(fallbacks_have_no_descriptors),
	PUBLISHES(children_do_not_publish),
	PUBLISHES(probes_say_what_works),
	PUBLISHES(children_adopt_regions),
	PUBLISHES(children_adopt_spaces),
	KERNEL_S(regions_are_cloned),
	KERNEL_S(children_publish_if_they_may),
	KERNEL_S(rights_are_given_to_other_processes),
	PUBLISHES(a_region_is_split),
	PUBLISHES(functions_are_found_by_address),
	PUBLISHES(spaces_grow_up_to_their_bound),
	PUBLISHES(slots_are_filled_or_given_up),
	PUBLISHES(code_is_moved_to_its_place),
	PUBLISHES(functions_are_linked),
	PUBLISHES(rules_hold_for_linked_and_moved_code),
	PUBLISHES(regions_begin_with_trap_bytes),
	PUBLISHES(functions_are_listed),
	PUBLISHES(unwinders_go_through_code),
	PUBLISHES(gdb_is_told_of_code),
	PUBLISHES(tools_are_told_of_code),
	PUBLISHES(listeners_are_told_of_code),
	PUBLISHES(each_register_carries),
	PUBLISHES(trampolines_come_and_go),
	PUBLISHES(released_trampolines_trap),
	PUBLISHES(a_trampoline_released_twice_has_one_owner),
	PUBLISHES(bad_tables_are_refused),
	PUBLISHES(thunks_are_published),
	PUBLISHES(registers_have_one_number),
	PUBLISHES(thunks_take_many_pushes),
	PUBLISHES(closures_see_registers),
	PUBLISHES(save_all_trampolines_change_registers),
	PUBLISHES(save_all_trampolines_change_vectors_and_flags),
	PUBLISHES(closures_of_libffi_get_memory),
	PUBLISHES(threads_share_a_region),
};

int main(int argc, char **argv)
{
	return run_all(tests, sizeof(tests) / sizeof(tests[0]), argc, argv);
}
