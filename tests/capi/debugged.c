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
	options.fallback = JITFD_FALLBACK_ANY;
	if (jitfd_table_create(JITFD_CARRIER_RDI, &options, &table))
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
	jitfd_chunk *chunk = jitfd_validate(code, 7, NULL, NULL);
	jitfd_eh_frame *table = jitfd_eh_frame_new();
	jitfd_gdb *gdb = jitfd_gdb_new();
	struct jitfd_options options = { 0 };
	struct jitfd_symbol symbol = { "stopped_here", 12, NULL, 7 };
	struct jitfd_place place;
	jitfd_region *region;
	const void *bytes;
	size_t len;

	if (argc > 1 && strcmp(argv[1], "table") == 0) {
		if (stop_in_trampoline())
			goto failed;
		return 0;
	}
	options.size = sizeof(options);
	options.fallback = JITFD_FALLBACK_ANY;
	if (jitfd_create(4096, &options, &region) || jitfd_append(region, chunk, &place))
		goto failed;
	symbol.address = place.address;
	if (jitfd_eh_frame_add(table, symbol.address, symbol.len, &step, 1))
		goto failed;
	bytes = jitfd_eh_frame_bytes(table, &len);
	if (jitfd_gdb_add(gdb, &symbol, 1, bytes, len))
		goto failed;
	((void (*)(void))symbol.address)();
	return 0;
failed:
	puts(jitfd_error());
	return 1;
}
