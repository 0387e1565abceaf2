// SPDX-License-Identifier: GPL-2.0
/*
 * A TCG plugin that counts the guest's instructions between two marks (see
 * benches/src/profile.rs), on the CPU that met the first mark.
 *
 * Each instruction is booked under three addresses: the block it is in; the
 * block of module code that was executed last; and the first block executed
 * outside the module since then, which is the function the module called. String
 * instructions count once for each element they store. Interrupts, and what
 * runs before they return, are not counted.
 *
 * The declarations are those of qemu-plugin.h, API version 4, which Debian does
 * not package.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef uint64_t plugin_id;
typedef void (*exec_cb)(unsigned int cpu, void *data);
typedef void (*mem_cb)(unsigned int cpu, uint32_t info, uint64_t addr, void *data);
typedef void (*trans_cb)(plugin_id id, struct qemu_plugin_tb *tb);
enum { NO_REGS = 0 };
enum { WRITES = 2 };

void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id id, trans_cb cb);
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *tb, exec_cb cb, int flags, void *data);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *insn, exec_cb cb, int flags, void *data);
void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *insn, mem_cb cb, int flags, int rw, void *data);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *tb);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb, size_t index);
size_t qemu_plugin_insn_data(const struct qemu_plugin_insn *insn, void *to, size_t len);

int qemu_plugin_version = 4;
int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv);

#define MAX_CPUS	64
#define BUCKETS		(1u << 18)
#define MODULES		0xffffffffc0000000ull
#define MARK_END	0
#define MARK_WRITE	255

struct block {
	uint64_t addr;
	uint64_t insns;
	bool interrupt;		/* the entry of one */
};

static struct cpu {
	int section;
	uint64_t module;	/* block of module code executed last */
	uint64_t callee;	/* first block after it */
	uint64_t addr;		/* block being executed */
	enum { COUNTING, INTERRUPTED, RETURNING } state;
} cpus[MAX_CPUS];

static struct count {
	int section;
	uint64_t module, callee, addr;
	uint64_t insns, elements, times;
} counts[BUCKETS];

static uint64_t starts[256];
static const char *out_path = "/dev/stdout";

static struct count *find(const struct cpu *cpu)
{
	uint64_t hash = cpu->module * 31 + cpu->callee * 1000003 + cpu->addr * 7919 + cpu->section;

	for (hash *= 0x9e3779b97f4a7c15ull, hash >>= 40;; hash++) {
		struct count *count = &counts[hash % BUCKETS];

		if (!count->section) {
			count->section = cpu->section;
			count->module = cpu->module;
			count->callee = cpu->callee;
			count->addr = cpu->addr;
		}
		if (count->section == cpu->section && count->addr == cpu->addr &&
		    count->callee == cpu->callee && count->module == cpu->module)
			return count;
	}
}

/*
 * Whether an interrupt is served. One ends with an IRETQ to the mode that it came
 * in; one in the kernel may also end in another task first, which is rare.
 */
static bool is_interrupted(struct cpu *cpu, const struct block *block)
{
	if (cpu->state == COUNTING && block->interrupt)
		cpu->state = INTERRUPTED;
	else if (cpu->state == RETURNING)
		cpu->state = block->addr >> 63 == cpu->addr >> 63 ? COUNTING : INTERRUPTED;
	return cpu->state != COUNTING;
}

static void on_return(unsigned int index, void *data)
{
	struct cpu *cpu = &cpus[index % MAX_CPUS];

	(void)data;
	if (cpu->state == INTERRUPTED)
		cpu->state = RETURNING;
}

static void on_block(unsigned int index, void *data)
{
	const struct block *block = data;
	struct cpu *cpu = &cpus[index % MAX_CPUS];
	struct count *count;

	if (!cpu->section || is_interrupted(cpu, block))
		return;
	cpu->addr = block->addr;
	if (block->addr >= MODULES && block->addr < 0xffffffffff000000ull) {
		cpu->module = block->addr;
		cpu->callee = 0;
	} else if (!cpu->callee) {
		cpu->callee = block->addr;
	}
	count = find(cpu);
	count->insns += block->insns;
	count->times++;
}

static void on_element(unsigned int index, uint32_t info, uint64_t addr, void *data)
{
	struct cpu *cpu = &cpus[index % MAX_CPUS];

	(void)info, (void)addr, (void)data;
	if (cpu->section && cpu->state == COUNTING)
		find(cpu)->elements++;
}

static void write_counts(void)
{
	FILE *out = fopen(out_path, "w");

	if (!out)
		return;
	for (int section = 1; section < 255; section++)
		if (starts[section])
			fprintf(out, "calls %d %lu\n", section, starts[section]);
	for (size_t i = 0; i < BUCKETS; i++)
		if (counts[i].section)
			fprintf(out, "count %d %lx %lx %lx %lu %lu %lu\n", counts[i].section,
				counts[i].module, counts[i].callee, counts[i].addr,
				counts[i].insns, counts[i].elements, counts[i].times);
	fclose(out);
}

static void on_mark(unsigned int index, void *data)
{
	int mark = (int)(intptr_t)data;
	struct cpu *cpu = &cpus[index % MAX_CPUS];

	memset(cpu, 0, sizeof(*cpu));
	if (mark == MARK_WRITE)
		write_counts();
	else if (mark != MARK_END) {
		cpu->section = mark;
		starts[mark]++;
	}
}

static bool stores_string(const uint8_t *code, size_t len)
{
	size_t i = 0;
	bool repeats = false;

	for (; i < len && (code[i] == 0xf3 || code[i] == 0xf2 || (code[i] & 0xf0) == 0x40); i++)
		repeats |= (code[i] & 0xf0) == 0xf0;
	return repeats && i < len && (code[i] == 0xa4 || code[i] == 0xa5 || code[i] == 0xaa || code[i] == 0xab);
}

/* ENDBR64? CLAC CLD? PUSH imm8: an entry of the IDT without an error code. */
static bool is_interrupt_entry(const uint8_t *code)
{
	static const uint8_t endbr64[] = { 0xf3, 0x0f, 0x1e, 0xfa };
	static const uint8_t clac[] = { 0x0f, 0x01, 0xca };

	if (!memcmp(code, endbr64, sizeof(endbr64)))
		code += sizeof(endbr64);
	if (!memcmp(code, clac, sizeof(clac)))
		code += sizeof(clac);
	if (*code == 0xfc)
		code++;
	return code[0] == 0x6a;
}

static void read_block(const struct qemu_plugin_tb *tb, uint8_t *code, size_t size)
{
	size_t len = 0;

	for (size_t i = 0; i < qemu_plugin_tb_n_insns(tb) && len + 16 <= size; i++)
		len += qemu_plugin_insn_data(qemu_plugin_tb_get_insn(tb, i), code + len, 16);
}

static void on_translation(plugin_id id, struct qemu_plugin_tb *tb)
{
	static const uint8_t mark[] = { 0x54, 0x49, 0x4a };
	struct block *block = malloc(sizeof(*block));
	size_t n = qemu_plugin_tb_n_insns(tb);
	uint8_t start[64] = { 0 };

	(void)id;
	block->addr = qemu_plugin_tb_vaddr(tb);
	block->insns = n;
	read_block(tb, start, sizeof(start));
	block->interrupt = block->addr >> 63 && is_interrupt_entry(start);
	qemu_plugin_register_vcpu_tb_exec_cb(tb, on_block, NO_REGS, block);
	for (size_t i = 0; i < n; i++) {
		struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
		uint8_t code[16] = { 0 };
		size_t len = qemu_plugin_insn_data(insn, code, sizeof(code));

		if (len == 7 && code[0] == 0x0f && code[1] == 0x1f && code[2] == 0x80 &&
		    !memcmp(code + 4, mark, sizeof(mark)))
			qemu_plugin_register_vcpu_insn_exec_cb(insn, on_mark, NO_REGS,
							       (void *)(intptr_t)code[3]);
		else if (len == 2 && code[0] == 0x48 && code[1] == 0xcf)
			qemu_plugin_register_vcpu_insn_exec_cb(insn, on_return, NO_REGS, NULL);
		else if (stores_string(code, len))
			qemu_plugin_register_vcpu_mem_cb(insn, on_element, NO_REGS, WRITES, NULL);
	}
}

int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv)
{
	(void)info;
	for (int i = 0; i < argc; i++)
		if (!strncmp(argv[i], "out=", 4))
			out_path = strdup(argv[i] + 4);
	qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
	return 0;
}
