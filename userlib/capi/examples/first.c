// SPDX-License-Identifier: MIT OR Apache-2.0
/* The smallest program: cc first.c $(pkg-config --cflags --libs jitfd) */

#include <jitfd.h>
#include <stdio.h>

int main(void)
{
	/* mov eax, 42; ret */
	static const unsigned char bytes[] = { 0xb8, 42, 0, 0, 0, 0xc3 };
	int (*answer)(void);

	/* Go on without the kernel module; without this line, /dev/jit or an error. */
	jitfd_allow_fallback(JITFD_FALLBACK_ANY);
	answer = (int (*)(void))jit_create_code(bytes, sizeof(bytes));
	if (!answer) {
		fprintf(stderr, "%s\n", jitfd_error());
		return 1;
	}
	printf("the code returns %d\n", answer());
	return 0;
}
