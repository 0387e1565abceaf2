/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the C and the C++ program of the tests share: a test is a function that
 * returns; each runs in a process of its own, so that a crash is one failure.
 *
 *   every            what can be tested where nothing publishes
 *   every --kernel   all of it, by /dev/jit
 *   every --dual     what a program can do by dual mapping
 *   every --flips    and by mprotect flips
 */
#ifndef HARNESS_H
#define HARNESS_H

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "jitfd.h"

/* Fails the test, and says where and why. */
#define CHECK(condition)                                                       \
	do {                                                                   \
		if (!(condition)) {                                            \
			int number = errno;                                    \
			printf("%s:%d: %s (errno %d, %s; \"%s\")\n", __FILE__, \
			       __LINE__, #condition, number, strerror(number), \
			       jitfd_error());                                 \
			fflush(stdout);                                        \
			_exit(1);                                              \
		}                                                              \
	} while (0)

/* The call fails, with this errno, and there is a text about it. */
#define REFUSED(call, wanted)                       \
	do {                                        \
		errno = 0;                          \
		CHECK((call) == -1);                \
		CHECK(errno == (wanted));           \
		CHECK(jitfd_error()[0] != '\0');    \
	} while (0)

#define REFUSED_NULL(call, wanted)                  \
	do {                                        \
		errno = 0;                          \
		CHECK((call) == NULL);              \
		CHECK(errno == (wanted));           \
		CHECK(jitfd_error()[0] != '\0');    \
	} while (0)

enum needs {
	NOTHING,
	/* It publishes. */
	CODE,
	/* It publishes, and sets a hook. */
	HOOK,
	/* It does what only the kernel's regions can do. */
	KERNEL
};

struct test {
	const char *name;
	void (*run)(void);
	enum needs needs;
};

/* By what code is made: JITFD_BACKEND_, or 0 if none is made. */
static int backend;

/* That backend and no other. */
static inline uint32_t only_backend(void)
{
	return (uint32_t)(JITFD_FALLBACK_ONLY | backend);
}

/* Options for it. */
static inline struct jitfd_region_options options_with(uint32_t flags)
{
	struct jitfd_region_options options;

	memset(&options, 0, sizeof(options));
	options.size = sizeof(options);
	options.flags = flags;
	options.fallback = only_backend();
	return options;
}

typedef int (*answer)(void);

/* mov eax, NUMBER; ret */
#define ANSWER_SIZE 6
static inline void put_answer(unsigned char code[ANSWER_SIZE], uint32_t number)
{
	code[0] = 0xb8;
	memcpy(code + 1, &number, sizeof(number));
	code[5] = 0xc3;
}

/* push rbp; mov rbp, rsp; mov rax, FUNCTION; call rax; pop rbp; ret */
#define FRAMED_SIZE 18
static inline void put_framed(unsigned char code[FRAMED_SIZE], answer function)
{
	memcpy(code, "\x55\x48\x89\xe5\x48\xb8", 6);
	memcpy(code + 6, &function, sizeof(function));
	memcpy(code + 14, "\xff\xd0\x5d\xc3", 4);
}

/* Calls the code at an address. */
static inline int call(const void *address)
{
	answer function;

	memcpy(&function, &address, sizeof(function));
	return function();
}

static inline int exit_status(pid_t child)
{
	int status = -1;

	if (waitpid(child, &status, 0) != child)
		return -1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* That a fallback is in use is what these tests are about, and no news. */
static inline void say_nothing(int used, const char *text)
{
	(void)used;
	(void)text;
}

static inline int passes(const struct test *test)
{
	pid_t child;

	fflush(stdout);
	child = fork();
	if (child == 0) {
		alarm(120);
		if (test->needs != HOOK)
			CHECK(jitfd_set_fallback_hook(say_nothing) == 0);
		test->run();
		fflush(stdout);
		_exit(0);
	}
	return child > 0 && exit_status(child) == 0;
}

static inline int backend_of(const char *word)
{
	static const char *const words[] = { "--kernel", "--dual", "--flips" };

	for (int i = 0; i < 3; i++)
		if (word && strcmp(word, words[i]) == 0)
			return JITFD_BACKEND_KERNEL + i;
	return 0;
}

/* Says why nothing publishes that way, if that is so. */
static inline void try_to_publish(void)
{
	struct jitfd_region_options options = options_with(0);
	jitfd_region *region = jitfd_region_create(1, &options);

	CHECK(region != NULL);
	jitfd_region_destroy(region);
}

static inline int applies(enum needs needs)
{
	switch (needs) {
	case CODE:
	case HOOK:
		return backend != 0;
	case KERNEL:
		return backend == JITFD_BACKEND_KERNEL;
	default:
		return 1;
	}
}

static inline int run_all(const struct test *tests, size_t count, int argc, char **argv)
{
	static const struct test attempt = { "", try_to_publish, NOTHING };
	int passed = 0, failed = 0;

	backend = backend_of(argc > 1 ? argv[1] : NULL);
	if (backend != 0) {
		jitfd_allow_fallback(only_backend());
		/* A system may refuse fallbacks, but /dev/jit was asked for. */
		if (!passes(&attempt)) {
			printf("skipped what publishes\n");
			failed = backend == JITFD_BACKEND_KERNEL;
			backend = 0;
		}
	}
	for (size_t i = 0; i < count; i++) {
		if (!applies(tests[i].needs))
			continue;
		if (passes(&tests[i])) {
			printf("ok %s\n", tests[i].name);
			passed++;
		} else {
			printf("FAILED %s\n", tests[i].name);
			failed++;
		}
	}
	printf("suite: %d passed, %d failed\n", passed, failed);
	return failed != 0 || passed == 0;
}

#endif
