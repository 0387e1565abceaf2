// SPDX-License-Identifier: GPL-2.0
/*
 * A TCG plugin that counts the guest's instructions between two marks (see
 * src/marks.rs), on the CPU that met the first one: user's and kernel's. One line
 * for each pair, in order. Until a third mark asks for it nothing is instrumented
 * but the marks, so that the same boot can be timed before.
 *
 * Interrupts are counted like all else: whoever reads the lines takes the median.
 *
 * The declarations are those of qemu-plugin.h, API version 4, which Debian does
 * not package.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef uint64_t plugin_id;
typedef void (*exec_cb)(unsigned int cpu, void *data);
typedef void (*trans_cb)(plugin_id id, struct qemu_plugin_tb *tb);
typedef void (*reset_cb)(plugin_id id);
enum { NO_REGS = 0 };

void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id id, trans_cb cb);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *insn, exec_cb cb, int flags, void *data);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb, size_t index);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *insn);
size_t qemu_plugin_insn_data(const struct qemu_plugin_insn *insn, void *to, size_t len);
void qemu_plugin_reset(plugin_id id, reset_cb cb);

int qemu_plugin_version = 4;
int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv);

#define MAX_CPUS	64

enum mark { NONE, BEGIN, END, ARM };

static struct cpu {
	int counting;
	uint64_t user, kernel;
} cpus[MAX_CPUS];

static plugin_id self;
static int armed;
static FILE *out;

static void on_user(unsigned int index, void *data)
{
	(void)data;
	cpus[index % MAX_CPUS].user++;
}

static void on_kernel(unsigned int index, void *data)
{
	(void)data;
	cpus[index % MAX_CPUS].kernel++;
}

static void on_translation(plugin_id id, struct qemu_plugin_tb *tb);

static void on_reset(plugin_id id)
{
	qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
}

static void on_mark(unsigned int index, void *data)
{
	struct cpu *cpu = &cpus[index % MAX_CPUS];

	switch ((enum mark)(intptr_t)data) {
	case BEGIN:
		cpu->user = 0;
		cpu->kernel = 0;
		cpu->counting = 1;
		break;
	case END:
		if (armed && cpu->counting && out) {
			fprintf(out, "%lu %lu\n", cpu->user, cpu->kernel);
			fflush(out);
		}
		cpu->counting = 0;
		break;
	case ARM:
		/* What was translated before is translated again. */
		if (!__sync_lock_test_and_set(&armed, 1))
			qemu_plugin_reset(self, on_reset);
		break;
	case NONE:
		break;
	}
}

/* nop dword [rax + mark] */
static enum mark mark_of(const uint8_t *code, size_t len)
{
	static const uint8_t start[] = { 0x0f, 0x1f, 0x80 };
	static const uint8_t end[] = { 0x50, 0x4d, 0x54 };

	if (len != 7 || memcmp(code, start, sizeof(start)) || memcmp(code + 4, end, sizeof(end)))
		return NONE;
	return code[3] <= ARM ? code[3] : NONE;
}

static void on_translation(plugin_id id, struct qemu_plugin_tb *tb)
{
	size_t n = qemu_plugin_tb_n_insns(tb);

	(void)id;
	for (size_t i = 0; i < n; i++) {
		struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
		uint8_t code[16] = { 0 };
		enum mark mark = mark_of(code, qemu_plugin_insn_data(insn, code, sizeof(code)));

		if (mark)
			qemu_plugin_register_vcpu_insn_exec_cb(insn, on_mark, NO_REGS,
							       (void *)(intptr_t)mark);
		else if (armed)
			qemu_plugin_register_vcpu_insn_exec_cb(insn,
				qemu_plugin_insn_vaddr(insn) >> 63 ? on_kernel : on_user,
				NO_REGS, NULL);
	}
}

int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv)
{
	(void)info;
	self = id;
	for (int i = 0; i < argc; i++)
		if (!strncmp(argv[i], "out=", 4))
			out = fopen(argv[i] + 4, "w");
	qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
	return out ? 0 : -1;
}
