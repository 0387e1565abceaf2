/* SPDX-License-Identifier: GPL-2.0 */
/*
 * For tcc -run: recursion, doubles, function pointers, a sort by the C library. All that
 * it writes to is on the stack and the heap: see statics.c.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int fib(int n)
{
	return n < 2 ? n : fib(n - 1) + fib(n - 2);
}

static int by_text(const void *one, const void *other)
{
	return strcmp(*(char *const *)one, *(char *const *)other);
}

static double half(double x)
{
	return x / 2;
}

static double square(double x)
{
	return x * x;
}

enum { LIMIT = 200000 };
static double (*const functions[])(double) = { half, square, sqrt };

int main(void)
{
	char *composite = calloc(LIMIT, 1);
	char texts[1000][12];
	char *words[1000];
	double sum = 0;
	int primes = 0;

	for (int i = 2; i < LIMIT; i++) {
		if (composite[i])
			continue;
		primes++;
		for (long j = (long)i * i; j < LIMIT; j += i)
			composite[j] = 1;
	}
	for (int i = 0; i < 1000; i++) {
		sprintf(texts[i], "%x", i * i % 65537);
		words[i] = texts[i];
	}
	qsort(words, 1000, sizeof(*words), by_text);
	for (int i = 0; i < 100000; i++)
		sum += functions[i % 3](i % 100);
	printf("%d\n%d\n%s %s\n%.6f\n", fib(24), primes, words[1], words[999], sum);
	return 0;
}
