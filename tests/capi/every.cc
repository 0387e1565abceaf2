// SPDX-License-Identifier: GPL-2.0
/* Every function of jitfd.h from C++: objects that give themselves back, and
 * threads. What each errno means is tested from C. */

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "harness.h"

namespace {

constexpr size_t page = 4096;

/* The functions that give objects back, as types. */
template <auto function> struct Free {
	template <typename T> void operator()(T *object) const { function(object); }
};
template <typename T, auto function> using Owned = std::unique_ptr<T, Free<function>>;
using Chunk = Owned<jitfd_chunk, jitfd_chunk_destroy>;
using Region = Owned<jitfd_region, jitfd_region_destroy>;
using Probe = Owned<jitfd_probe, jitfd_probe_destroy>;
using Frames = Owned<jitfd_eh_frame, jitfd_eh_frame_destroy>;
using Registration = Owned<jitfd_registration, jitfd_unregister>;
using Space = Owned<jitfd_space, jitfd_space_destroy>;
using Table = Owned<jitfd_table, jitfd_table_destroy>;
using Closure = Owned<jitfd_closure, jitfd_closure_destroy>;
using SaveAll = Owned<jitfd_save_all, jitfd_save_all_destroy>;

/* A struct that begins with its size. */
template <typename T> T sized()
{
	T made = {};
	made.size = sizeof(made);
	return made;
}

std::vector<unsigned char> answer_code(uint32_t number)
{
	std::vector<unsigned char> code(ANSWER_SIZE);
	put_answer(code.data(), number);
	return code;
}

Chunk checked(const std::vector<unsigned char> &code, const jitfd_rules *rules = nullptr)
{
	Chunk chunk(jitfd_validate(code.data(), code.size(), rules));
	CHECK(chunk);
	return chunk;
}

Region new_region(size_t capacity, uint32_t flags = 0)
{
	jitfd_region_options options = options_with(flags);
	Region region(jitfd_region_create(capacity, &options));
	CHECK(region);
	return region;
}

Space new_space(size_t region_capacity = 0)
{
	auto options = sized<jitfd_space_options>();
	options.fallback = only_backend();
	options.region_capacity = region_capacity;
	Space space(jitfd_space_create(&options));
	CHECK(space);
	return space;
}

jitfd_stats counters(const Region &region)
{
	auto stats = sized<jitfd_stats>();
	CHECK(jitfd_region_get_stats(region.get(), &stats) == 0);
	return stats;
}

jitfd_region_info info_of(const Region &region)
{
	auto info = sized<jitfd_region_info>();
	CHECK(jitfd_region_get_info(region.get(), &info) == 0);
	return info;
}

char *base_of(const Region &region)
{
	return static_cast<char *>(info_of(region).address);
}

void chunks()
{
	CHECK(std::string(jitfd_version()).find('.') != std::string::npos);
	Chunk chunk = checked(answer_code(42));
	auto info = sized<jitfd_chunk_info>();
	CHECK(jitfd_chunk_get_info(chunk.get(), &info) == 0 && info.len == ANSWER_SIZE);
	CHECK(info.lock_skip_count == 0 && info.holds_data == 0);
	CHECK(jitfd_chunk_at(chunk.get(), 5) == (JITFD_CHUNK_INSTRUCTION | JITFD_CHUNK_ENTRY));
	Chunk assumed(jitfd_assume_valid("\x06", 1, nullptr));
	CHECK(assumed);
}

void lines()
{
	std::vector<unsigned char> code(64);
	CHECK(jitfd_line_padding(62, 3) == 2 && jitfd_line_padding(61, 3) == 0);
	CHECK(jitfd_line_nops(code.data(), 0, code.size()) == 0);
	auto rules = sized<jitfd_rules>();
	rules.flags = JITFD_RULE_WITHIN_LINES;
	checked(code, &rules);
}

void errors_in_code()
{
	const std::vector<unsigned char> code = { 0x90, 0xeb, 0xff };
	REFUSED_NULL(jitfd_validate(code.data(), code.size(), nullptr), EILSEQ);
	const jitfd_code_error *error = jitfd_get_code_error();
	CHECK(error && error->reason == JITFD_REASON_INTO_INSTRUCTION && error->offset == 1);
	CHECK(std::string(jitfd_error()).find(error->disassembly) != std::string::npos);
}

void opening_nothing() { REFUSED_NULL(jitfd_region_open(-1, -1), EBADF); }

std::string told;

void fallbacks()
{
	CHECK(jitfd_allow_fallback(only_backend()) == 0);
	CHECK(jitfd_set_fallback_hook([](int used, const char *text) {
		told = text;
		CHECK(told.find(jitfd_backend_name(used)) != std::string::npos);
	}) == 0);
	const auto code = answer_code(3);
	void *made = jit_create_code(code.data(), code.size());
	CHECK(made != nullptr && call(made) == 3);
	CHECK(told.empty() == (backend == JITFD_BACKEND_KERNEL));
}

void probe()
{
	Probe probe(jitfd_probe_create());
	CHECK(probe && probe->finding_count > 0 && probe->findings[0].text != nullptr);
	bool works = false;
	for (size_t i = 0; i < probe->trial_count; i++) {
		const jitfd_trial &trial = probe->trials[i];
		works |= trial.backend == backend && std::string(trial.text) == "works";
	}
	CHECK(works);
}

void finished_code()
{
	const auto code = answer_code(42);
	void *made = jit_create_code(code.data(), code.size());
	CHECK(made != nullptr && call(made) == 42);
	CHECK(jit_destroy_code(made, code.size()) == 0);
	Chunk chunk = checked(answer_code(43));
	void *other = jitfd_create_code(chunk.get(), JITFD_FALLBACK_DEFAULT);
	CHECK(other != nullptr && call(other) == 43);
	CHECK(jitfd_backend(JITFD_FALLBACK_DEFAULT) == backend);
	CHECK(munmap(other, page) == 0);
	void *own = mmap(nullptr, page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(own != MAP_FAILED);
	CHECK(jitfd_create_code_at(chunk.get(), own, JITFD_FALLBACK_DEFAULT) == 0 && call(own) == 43);
	CHECK(jitfd_make_writable(own, page, JITFD_FALLBACK_DEFAULT) == 0);
	static_cast<unsigned char *>(own)[1] = 44;
	CHECK(jitfd_make_executable(own, page, JITFD_FALLBACK_DEFAULT) == 0 && call(own) == 44);
	CHECK(munmap(own, page) == 0);
}

void growing_code()
{
	Region region = new_region(page);
	CHECK(info_of(region).backend == backend);
	Chunk one = checked(answer_code(1)), two = checked(answer_code(2));
	jitfd_place place = {}, places[2] = {};
	CHECK(jitfd_region_publish(region.get(), one.get(), &place) == 0);
	CHECK(call(place.address) == 1);
	const jitfd_chunk *both[] = { one.get(), two.get() };
	CHECK(jitfd_region_publish_all(region.get(), both, 2, places) == 0);
	CHECK(call(places[0].address) == 1 && call(places[1].address) == 2);
	int number = 5;
	auto emit = [](void *data, const jitfd_place *) {
		return checked(answer_code(*static_cast<int *>(data))).release();
	};
	CHECK(jitfd_region_publish_with(region.get(), 16, emit, &number, &place) == 0);
	CHECK(call(place.address) == 5);
	jitfd_place range = {};
	CHECK(jitfd_region_reserve(region.get(), 64, 64, &range) == 0);
	CHECK(jitfd_region_fill(region.get(), &range, 32, one.get(), &place) == 0);
	CHECK(place.address == static_cast<char *>(range.address) + 32);
	CHECK(call(place.address) == 1);
	CHECK(jitfd_region_seal(region.get()) == 0);
	REFUSED(jitfd_region_publish(region.get(), one.get(), nullptr), EROFS);
	CHECK(counters(region).sealed == 1);
}

void shared_descriptors()
{
	Region region = new_region(page, JITFD_REGION_ANY_PROCESS);
	const auto info = info_of(region);
	Region other(jitfd_region_open(dup(info.map_fd), dup(info.append_fd)));
	CHECK(other && base_of(other) == nullptr);
	Chunk chunk = checked(answer_code(8));
	jitfd_place place = {};
	CHECK(jitfd_region_publish(other.get(), chunk.get(), &place) == 0);
	Region mapping(jitfd_region_map(other.get(), page));
	CHECK(mapping && call(base_of(mapping) + place.offset) == 8);
	Region copy(jitfd_region_clone(other.get(), 0));
	CHECK(copy && counters(copy).publications == 0);
	CHECK(jitfd_region_seal(other.get()) == 0);
	CHECK(counters(other).sealed == 1 && counters(region).publications == 1);
}

void forked_child()
{
	Region region = new_region(page);
	Chunk chunk = checked(answer_code(14));
	pid_t child = fork();
	if (child == 0) {
		CHECK(jitfd_region_adopt(region.get()) == 0);
		CHECK(jitfd_region_publish(region.get(), chunk.get(), nullptr) == 0);
		CHECK(call(base_of(region)) == 14);
		_exit(0);
	}
	CHECK(exit_status(child) == 0);
}

void split_region()
{
	Region region = new_region(page);
	jitfd_region *mapping = nullptr, *mapper = nullptr, *publisher = nullptr;
	CHECK(jitfd_region_split(region.release(), &mapping, &mapper, &publisher) == 0);
	Region executes(mapping), maps(mapper), publishes(publisher);
	Chunk chunk = checked(answer_code(13));
	CHECK(jitfd_region_publish(publishes.get(), chunk.get(), nullptr) == 0);
	CHECK(call(base_of(executes)) == 13);
}

void code_space()
{
	Space space = new_space();
	Chunk chunk = checked(answer_code(50));
	void *address = nullptr;
	CHECK(jitfd_space_publish(space.get(), "fifty", chunk.get(), &address) == 0);
	jitfd_symbol symbol = {};
	CHECK(jitfd_space_lookup(space.get(), address, &symbol) == 1);
	CHECK(std::string(symbol.name, symbol.name_len) == "fifty" && call(symbol.address) == 50);
	const jitfd_chunk *chunks[] = { chunk.get() };
	CHECK(jitfd_space_publish_all(space.get(), nullptr, chunks, 1, &address) == 0);
	auto request = sized<jitfd_request>();
	request.len = 32;
	jitfd_slot *slot = jitfd_space_reserve(space.get(), &request, &address);
	CHECK(slot != nullptr);
	CHECK(jitfd_space_fill(space.get(), slot, chunk.get()) == 0 && call(address) == 50);
	CHECK((slot = jitfd_space_reserve(space.get(), &request, nullptr)) != nullptr);
	pid_t child = fork();
	if (child == 0) {
		CHECK(jitfd_space_adopt(space.get()) == 0);
		CHECK(jitfd_space_publish(space.get(), "own", chunk.get(), &address) == 0);
		_exit(call(address));
	}
	CHECK(exit_status(child) == 50);
	jitfd_space_abandon(space.get(), slot);
	const auto code = answer_code(51);
	CHECK(jitfd_space_publish_moved(space.get(), &request, code.data(), code.size(), nullptr,
					&address) == 0);
	CHECK(call(address) == 51);
	jitfd_item item = {};
	item.bytes = code.data();
	item.len = code.size();
	CHECK(jitfd_space_link(space.get(), &item, 1, &address) == 0 && call(address) == 51);
	auto stats = sized<jitfd_space_stats>();
	CHECK(jitfd_space_get_stats(space.get(), &stats) == 0 && stats.functions == 5);
}

/* An exception goes through generated code, of which gdb knows, too. */
void exceptions()
{
	Space space = new_space();
	std::vector<unsigned char> code(FRAMED_SIZE);
	put_framed(code.data(), []() -> int { throw std::string("through"); });
	Chunk chunk = checked(code);
	CHECK(jitfd_space_publish(space.get(), "framed", chunk.get(), nullptr) == 0);
	jitfd_symbol symbol = {};
	size_t total = 0;
	CHECK(jitfd_space_symbols(space.get(), &symbol, 1, &total) == 0 && total == 1);
	const jitfd_frame_step step = { 0, JITFD_FRAME_POINTER, 0, 0, 0 };
	const jitfd_frame frame = { symbol.address, symbol.len, &step, 1 };
	Frames frames(jitfd_eh_frame_create(&frame, 1));
	CHECK(frames);
	Registration unwinder(jitfd_eh_frame_register(frames->bytes, frames->len));
	Registration gdb(jitfd_gdb_register(&symbol, 1, frames->bytes, frames->len));
	CHECK(unwinder && gdb);
	std::string caught;
	try {
		call(symbol.address);
	} catch (const std::string &what) {
		caught = what;
	}
	CHECK(caught == "through");
}

/* An object as a C function pointer. */
class Counter {
public:
	explicit Counter(jitfd_table *table) : table(table)
	{
		entry = jitfd_table_bind(table, reinterpret_cast<jitfd_function>(called), this);
		CHECK(entry);
	}
	~Counter() { jitfd_table_release(table, entry); }
	Counter(const Counter &) = delete;

	using Function = int (*)(int);
	Function function() const { return reinterpret_cast<Function>(entry); }
	int calls = 0;

private:
	static int called(int number, void *context)
	{
		Counter *self = static_cast<Counter *>(context);
		self->calls++;
		if (number < 0)
			throw std::string("through a trampoline");
		return number + self->calls;
	}

	jitfd_table *table;
	jitfd_function entry;
};

void trampolines()
{
	auto options = sized<jitfd_table_options>();
	options.fallback = only_backend();
	Table table(jitfd_table_create(JITFD_REG_RSI, &options));
	CHECK(table);

	Counter one(table.get()), other(table.get());
	CHECK(one.function()(40) == 41 && one.function()(40) == 42);
	CHECK(other.function()(0) == 1);
	std::string caught;
	try {
		other.function()(-1);
	} catch (const std::string &what) {
		caught = what;
	}
	CHECK(caught == "through a trampoline" && other.calls == 2);

	void *context = nullptr;
	jitfd_function entry = reinterpret_cast<jitfd_function>(one.function());
	CHECK(jitfd_table_context(table.get(), entry, &context) == 0 && context == &one);
	auto stats = sized<jitfd_table_stats>();
	CHECK(jitfd_table_get_stats(table.get(), &stats) == 0 && stats.copies == 1);
	CHECK(stats.backend == static_cast<uint64_t>(backend));
}

/* Throws what it was called with, past the trampoline that called it. */
void throw_first(jitfd_registers *registers, void *data)
{
	++*static_cast<int *>(data);
	throw registers->integers[0];
}

void throw_saved(jitfd_saved_registers *saved, void *data)
{
	++*static_cast<int *>(data);
	throw saved->general[JITFD_REG_RDI];
}

uint64_t thrown_by(jitfd_function entry)
{
	try {
		reinterpret_cast<void (*)(uint64_t)>(entry)(42);
	} catch (uint64_t number) {
		return number;
	}
	return 0;
}

void handlers_throw()
{
	CHECK(jitfd_allow_fallback(only_backend()) == 0);
	int calls = 0;
	jitfd_function entry = nullptr;
	Closure closure(jitfd_closure_create(throw_first, &calls, &entry));
	CHECK(closure && thrown_by(entry) == 42 && calls == 1);
	SaveAll made(jitfd_save_all_create(throw_saved, &calls, &entry));
	CHECK(made && thrown_by(entry) == 42 && calls == 2);
}

/* Returns twice its argument. */
void double_it(jitfd_saved_registers *saved, void *data)
{
	CHECK(saved->trampoline == *static_cast<jitfd_function *>(data));
	CHECK(saved->return_address != nullptr);
	double number = 0;
	memcpy(&number, saved->vectors[0], sizeof(number));
	number *= 2;
	memcpy(saved->vectors[0], &number, sizeof(number));
}

void saved_vectors()
{
	CHECK(jitfd_allow_fallback(only_backend()) == 0);
	jitfd_function entry = nullptr;
	SaveAll made(jitfd_save_all_create(double_it, &entry, &entry));
	CHECK(made && reinterpret_cast<double (*)(double)>(entry)(1.5) == 3.0);
}

int twice(int number) { return 2 * number; }

void thunks()
{
	Space space = new_space(1 << 16);
	const jitfd_register_value value = { 21, JITFD_REG_RDI, 0 };
	auto thunk = sized<jitfd_thunk>();
	thunk.target = reinterpret_cast<jitfd_function>(twice);
	thunk.registers = &value;
	thunk.register_count = 1;
	jitfd_function entry = nullptr;
	CHECK(jitfd_space_publish_thunk(space.get(), "42", &thunk, &entry) == 0);
	CHECK(reinterpret_cast<int (*)()>(entry)() == 42);
}

void memory_for_libffi()
{
	CHECK(jitfd_allow_fallback(only_backend()) == 0);
	void *code = nullptr;
	std::unique_ptr<void, Free<jitfd_ffi_closure_free>> closure(
		jitfd_ffi_closure_alloc(56, &code));
	CHECK(closure && code && code != closure.get());
}

void compile(jitfd_region *region, uint32_t first)
{
	for (uint32_t number = first; number < first + 200; number++) {
		Chunk chunk = checked(answer_code(number));
		jitfd_place place = {};
		CHECK(jitfd_region_publish(region, chunk.get(), &place) == 0);
		CHECK(call(place.address) == static_cast<int>(number));
	}
}

void threads()
{
	Region region = new_region(1 << 16);
	std::vector<std::thread> running;
	for (uint32_t i = 0; i < 4; i++)
		running.emplace_back(compile, region.get(), 1000 * i);
	for (auto &thread : running)
		thread.join();
	CHECK(counters(region).publications == 800);
}

const test tests[] = {
	{ "c++::chunks", chunks, NOTHING },
	{ "c++::lines", lines, NOTHING },
	{ "c++::errors_in_code", errors_in_code, NOTHING },
	{ "c++::opening_nothing", opening_nothing, NOTHING },
	{ "c++::fallbacks", fallbacks, HOOK },
	{ "c++::probe", probe, CODE },
	{ "c++::finished_code", finished_code, CODE },
	{ "c++::growing_code", growing_code, CODE },
	{ "c++::shared_descriptors", shared_descriptors, KERNEL },
	{ "c++::forked_child", forked_child, CODE },
	{ "c++::split_region", split_region, CODE },
	{ "c++::code_space", code_space, CODE },
	{ "c++::exceptions", exceptions, CODE },
	{ "c++::trampolines", trampolines, CODE },
	{ "c++::handlers_throw", handlers_throw, CODE },
	{ "c++::saved_vectors", saved_vectors, CODE },
	{ "c++::thunks", thunks, CODE },
	{ "c++::memory_for_libffi", memory_for_libffi, CODE },
	{ "c++::threads", threads, CODE },
};

} // namespace

int main(int argc, char **argv)
{
	return run_all(tests, sizeof(tests) / sizeof(tests[0]), argc, argv);
}
