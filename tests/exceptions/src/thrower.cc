// SPDX-License-Identifier: GPL-2.0
// The C++ part: who throws, and who catches.

namespace {

int destroyed;

struct Guard {
	~Guard() { destroyed++; }
};

} // namespace

extern "C" {

// How many objects were destroyed on the way of exceptions.
int jitfd_test_destroyed()
{
	return destroyed;
}

void jitfd_test_throw(int value)
{
	Guard guard;
	throw value;
}

// The target of a table's trampoline.
void jitfd_test_throw_sum(int value, const int *context)
{
	Guard guard;
	throw value + *context;
}

// What the function throws; -1 if it throws nothing.
int jitfd_test_catch(void (*function)(int), int value)
{
	try {
		Guard guard;
		function(value);
	} catch (int thrown) {
		return thrown;
	}
	return -1;
}

// The same with more arguments than there are registers for them.
int jitfd_test_catch_many(void (*function)(int, int, int, int, int, int, int, double), int value)
{
	try {
		Guard guard;
		function(value, 2, 3, 4, 5, 6, 7, 8.0);
	} catch (int thrown) {
		return thrown;
	}
	return -1;
}

}
