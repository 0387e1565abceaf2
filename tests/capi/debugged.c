// SPDX-License-Identifier: GPL-2.0
/* Stops in generated code that gdb has been told of: run.sh looks at what gdb says. With
 * the word "table" that is a trampoline. */

#include <stdio.h>
#include <string.h>

#include "jitfd.h"

/* push rbp; mov rbp, rsp; int3; pop rbp; ret */
static const char code[] = "\x55\x48\x89\xe5\xcc\x5d\xc3";

/* A trampoline that was released stops whoever calls it. */
static int stop_in_trampoline(void)
{
	struct jitfd_table_options options = { 0 };
	jitfd_table *table;
	jitfd_function entry;

	options.size = sizeof(options);
	options.flags = JITFD_TABLE_DEBUGGERS;
	table = jitfd_table_create(JITFD_REG_RDI, &options);
	if (!table)
		return -1;
	entry = jitfd_table_bind(table, (jitfd_function)stop_in_trampoline, NULL);
	if (!entry)
		return -1;
	jitfd_table_release(table, entry);
	entry();
	return 0;
}

int main(int argc, char **argv)
{
	static const struct jitfd_frame_step step = { 0, JITFD_FRAME_POINTER, 0, 0, 0 };
	struct jitfd_symbol symbol = { "stopped_here", 12, NULL, 7 };
	struct jitfd_frame frame = { NULL, 7, &step, 1 };
	jitfd_eh_frame *table;

	jitfd_allow_fallback(JITFD_FALLBACK_ANY);
	if (argc > 1 && strcmp(argv[1], "table") == 0) {
		if (stop_in_trampoline())
			goto failed;
		return 0;
	}
	symbol.address = jit_create_code(code, 7);
	if (!symbol.address)
		goto failed;
	frame.address = symbol.address;
	table = jitfd_eh_frame_create(&frame, 1);
	if (!table || !jitfd_gdb_register(&symbol, 1, table->bytes, table->len))
		goto failed;
	((void (*)(void))symbol.address)();
	return 0;
failed:
	puts(jitfd_error());
	return 1;
}
