/* SPDX-License-Identifier: GPL-2.0 */
/* For tcc -run, which puts the variable on the page of the code that writes to it. */
#include <stdio.h>

static int calls;

static void call(void)
{
	calls++;
}

int main(void)
{
	for (int i = 0; i < 1000; i++)
		call();
	printf("%d\n", calls);
	return 0;
}
