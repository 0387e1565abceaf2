// SPDX-License-Identifier: MIT OR Apache-2.0
/* What an engine does with libjitfd: named functions that call each other, one of them
 * before it is compiled; and what it learns of code that is refused.
 *
 *     cc engine.c $(pkg-config --cflags --libs jitfd)
 */

#include <jitfd.h>
#include <stdio.h>

/* No function of this engine makes system calls itself. */
static const struct jitfd_rules rules = {
	.size = sizeof(rules),
	.flags = JITFD_FORBID_SYSTEM_CALLS | JITFD_FORBID_PRIVILEGED,
};

/* A function that calls the code at an address, and adds 1 to what that returns. */
static void *compile_caller(jitfd_space *space, const void *callee)
{
	/* sub rsp, 8; call callee; add rsp, 8; add eax, 1; ret */
	static const unsigned char bytes[] = {
		0x48, 0x83, 0xec, 8,    0xe8, 0,   0,    0,    0,
		0x48, 0x83, 0xc4, 8,    0x83, 0xc0, 1,   0xc3,
	};
	const struct jitfd_reloc call = {
		.at = 5, .kind = JITFD_RELOC_CALL32, .target = (size_t)callee, .addend = -4,
	};
	const struct jitfd_item item = {
		.name = "caller", .bytes = bytes, .len = sizeof(bytes),
		.relocs = &call, .reloc_count = 1,
	};
	void *address;

	return jitfd_space_link(space, &item, 1, &address) == 0 ? address : NULL;
}

/* Fills the room that was set aside for the callee. */
static int compile_callee(jitfd_space *space, jitfd_slot *slot)
{
	/* mov eax, 41; ret */
	static const unsigned char bytes[] = { 0xb8, 41, 0, 0, 0, 0xc3 };
	jitfd_chunk *chunk = jitfd_validate(bytes, sizeof(bytes), &rules);
	int failed = chunk == NULL || jitfd_space_fill(space, slot, chunk) != 0;

	jitfd_chunk_destroy(chunk);
	return failed;
}

static void show_what_is_refused(void)
{
	/* nop; syscall; ret */
	static const unsigned char bytes[] = { 0x90, 0x0f, 0x05, 0xc3 };

	if (jitfd_validate(bytes, sizeof(bytes), &rules) == NULL)
		printf("refused at %zu: %s\n", jitfd_get_code_error()->offset, jitfd_error());
}

int main(void)
{
	const struct jitfd_space_options options = {
		.size = sizeof(options),
		.flags = JITFD_SPACE_TOGETHER,
		.rules = &rules,
	};
	const struct jitfd_request request = {
		.size = sizeof(request), .len = 64, .name = "callee",
	};
	struct jitfd_symbol found;
	jitfd_space *space;
	jitfd_slot *slot;
	void *callee, *caller;

	jitfd_allow_fallback(JITFD_FALLBACK_ANY); /* go on without the kernel module */
	space = jitfd_space_create(&options);
	if (space == NULL)
		goto failed;
	slot = jitfd_space_reserve(space, &request, &callee);
	if (slot == NULL)
		goto failed;
	caller = compile_caller(space, callee);
	if (caller == NULL || compile_callee(space, slot))
		goto failed;
	printf("the caller returns %d\n", ((int (*)(void))caller)());
	if (jitfd_space_lookup(space, callee, &found) == 1)
		printf("it called %.*s\n", (int)found.name_len, found.name);
	show_what_is_refused();
	jitfd_space_destroy(space);
	return 0;
failed:
	fprintf(stderr, "%s\n", jitfd_error());
	return 1;
}
