// SPDX-License-Identifier: GPL-2.0
/* Every function of jitfd.h from C++: objects that give themselves back, and
 * threads. What each errno means is tested from C. */

#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "harness.h"

namespace {

constexpr size_t page = 4096;

/* The functions that give objects back, as types. */
template <auto function> struct Free {
	template <typename T> void operator()(T *object) const { function(object); }
};
using Chunk = std::unique_ptr<jitfd_chunk, Free<jitfd_chunk_free>>;
using Lines = std::unique_ptr<jitfd_lines, Free<jitfd_lines_free>>;
using Region = std::unique_ptr<jitfd_region, Free<jitfd_destroy>>;
using Probe = std::unique_ptr<jitfd_probe, Free<jitfd_probe_free>>;
using Frames = std::unique_ptr<jitfd_eh_frame, Free<jitfd_eh_frame_free>>;
using Unwind = std::unique_ptr<jitfd_unwind_table, Free<jitfd_unwind_table_free>>;
using Gdb = std::unique_ptr<jitfd_gdb, Free<jitfd_gdb_free>>;
using Space = std::unique_ptr<jitfd_space, Free<jitfd_space_destroy>>;
using Mapper = std::unique_ptr<jitfd_mapper, Free<jitfd_mapper_free>>;
using Mapping = std::unique_ptr<jitfd_mapping, Free<jitfd_mapping_free>>;
using Appender = std::unique_ptr<jitfd_appender, Free<jitfd_appender_free>>;
using Table = std::unique_ptr<jitfd_table, Free<jitfd_table_destroy>>;

std::vector<unsigned char> answer_code(uint32_t number)
{
	std::vector<unsigned char> code(ANSWER_SIZE);
	put_answer(code.data(), number);
	return code;
}

Chunk checked(const std::vector<unsigned char> &code, const jitfd_rules *rules = nullptr)
{
	Chunk chunk(jitfd_validate(code.data(), code.size(), rules, nullptr));
	CHECK(chunk);
	return chunk;
}

Region new_region(size_t capacity, uint32_t flags = 0)
{
	jitfd_options options = options_with(flags);
	jitfd_region *region = nullptr;
	CHECK(jitfd_create(capacity, &options, &region) == 0);
	return Region(region);
}

/* Counters, from whichever handle. */
template <typename T> jitfd_stats counters(int (*get)(const T *, jitfd_stats *), const T *of)
{
	jitfd_stats stats = {};
	stats.size = sizeof(stats);
	CHECK(get(of, &stats) == 0);
	return stats;
}

void chunks()
{
	CHECK(std::string(jitfd_version()).find('.') != std::string::npos);
	Chunk chunk = checked(answer_code(42));
	size_t len = 0, count = 1;
	CHECK(jitfd_chunk_bytes(chunk.get(), &len) != nullptr && len == ANSWER_SIZE);
	CHECK(jitfd_chunk_is_boundary(chunk.get(), 5) == 1);
	CHECK(jitfd_chunk_is_entry(chunk.get(), 5) == 1);
	CHECK(jitfd_chunk_holds_data(chunk.get()) == 0);
	CHECK(jitfd_chunk_lock_skips(chunk.get(), nullptr, 0, &count) == 0 && count == 0);
	Chunk assumed(jitfd_assume_valid("\x06", 1, nullptr));
	CHECK(assumed);
}

void lines()
{
	Lines lines(jitfd_lines_new());
	size_t offset = 1, len = 0;
	CHECK(jitfd_lines_place(lines.get(), 3, &offset) == 0 && offset == 0);
	CHECK(jitfd_lines_push(lines.get(), "\xb0\x00", 2, nullptr) == 0);
	CHECK(jitfd_lines_patch(lines.get(), 1, "\x05", 1) == 0);
	CHECK(jitfd_lines_align(lines.get(), 64, &offset) == 0 && offset == 64);
	auto *bytes = static_cast<const unsigned char *>(jitfd_lines_bytes(lines.get(), &len));
	CHECK(len == 64 && bytes[1] == 5);
}

void faults()
{
	jitfd_fault fault = {};
	fault.size = sizeof(fault);
	const std::vector<unsigned char> code = { 0x90, 0xeb, 0xff };
	REFUSED_NULL(jitfd_validate(code.data(), code.size(), nullptr, &fault), EILSEQ);
	CHECK(fault.reason == JITFD_REASON_INTO_INSTRUCTION && fault.offset == 1);
	CHECK(std::string(jitfd_error()) == fault.message);
}

void adopting_nothing()
{
	REFUSED_NULL(jitfd_mapper_adopt(-1), EBADF);
	REFUSED_NULL(jitfd_appender_adopt(-1), EBADF);
}

std::string told;

void fallbacks()
{
	CHECK(jitfd_allow_fallback(JITFD_FALLBACK_ONLY | backend) == 0);
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
	Probe probe(jitfd_probe_new());
	CHECK(probe);
	CHECK(jitfd_probe_works(probe.get(), backend) == 1);
	CHECK(std::string(jitfd_probe_trial(probe.get(), backend)) == "works");
	CHECK(jitfd_probe_choice(probe.get(), JITFD_FALLBACK_ANY) != 0);
	jitfd_finding finding = {};
	finding.size = sizeof(finding);
	CHECK(jitfd_probe_finding(probe.get(), 0, &finding) == 1 && finding.text != nullptr);
}

void finished_code()
{
	const auto code = answer_code(42);
	void *made = jit_create_code(code.data(), code.size());
	CHECK(made != nullptr && call(made) == 42);
	CHECK(jit_destroy_code(made, code.size()) == 0);
	Chunk chunk = checked(answer_code(43));
	int used = 0;
	void *other = jitfd_create_code(chunk.get(), nullptr, &used);
	CHECK(other != nullptr && call(other) == 43 && used == backend);
	CHECK(munmap(other, page) == 0);
	void *own = mmap(nullptr, page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(own != MAP_FAILED);
	CHECK(jitfd_create_code_at(chunk.get(), own, nullptr) == 0 && call(own) == 43);
	CHECK(munmap(own, page) == 0);
}

void growing_code()
{
	Region region = new_region(page);
	CHECK(jitfd_backend(region.get()) == backend);
	Chunk one = checked(answer_code(1)), two = checked(answer_code(2));
	jitfd_place place = {}, places[2] = {};
	CHECK(jitfd_append(region.get(), one.get(), &place) == 0 && call(place.address) == 1);
	const jitfd_chunk *both[] = { one.get(), two.get() };
	CHECK(jitfd_append_batch(region.get(), both, 2, places) == 0);
	CHECK(call(places[0].address) == 1 && call(places[1].address) == 2);
	CHECK(jitfd_next(region.get(), 16, &place) == 0);
	CHECK(jitfd_append_at(region.get(), place.offset, two.get(), &place) == 0);
	CHECK(call(place.address) == 2);
	jitfd_place range = {};
	CHECK(jitfd_reserve(region.get(), 64, 64, &range) == 0);
	CHECK(jitfd_fill(region.get(), &range, 32, one.get(), &place) == 0);
	CHECK(place.address == static_cast<char *>(range.address) + 32);
	CHECK(call(place.address) == 1);
	CHECK(jitfd_seal(region.get()) == 0);
	REFUSED(jitfd_append(region.get(), one.get(), nullptr), EROFS);
	CHECK(counters(jitfd_get_stats, std::as_const(region).get()).sealed == 1);
}

void shared_handles()
{
	Region region = new_region(page, JITFD_ANY_PROCESS);
	Mapper mapper(jitfd_mapper_adopt(dup(jitfd_map_fd(region.get()))));
	Appender appender(jitfd_appender_adopt(dup(jitfd_append_fd(region.get()))));
	CHECK(mapper && appender);
	CHECK(jitfd_mapper_fd(mapper.get()) >= 0 && jitfd_appender_fd(appender.get()) >= 0);
	Chunk chunk = checked(answer_code(8));
	const jitfd_chunk *chunks[] = { chunk.get() };
	size_t offset = 0;
	CHECK(jitfd_appender_append(appender.get(), chunks, 1, JITFD_ANY_OFFSET, &offset) == 0);
	Mapping mapping(jitfd_mapper_map(mapper.get(), page));
	auto *mapped = static_cast<char *>(jitfd_mapping_base(mapping.get(), nullptr));
	CHECK(mapped != nullptr && call(mapped + offset) == 8);
	CHECK(jitfd_appender_reserve(appender.get(), 16, 16, &offset) == 0);
	CHECK(jitfd_appender_fill(appender.get(), offset, chunk.get()) == 0);
	CHECK(call(static_cast<char *>(jitfd_base(region.get(), nullptr)) + offset) == 8);
	jitfd_mapper *new_mapper = nullptr;
	jitfd_appender *new_appender = nullptr;
	CHECK(jitfd_mapper_clone(mapper.get(), 0, &new_mapper, &new_appender) == 0);
	Mapper cloned_mapper(new_mapper);
	Appender cloned_appender(new_appender);
	CHECK(counters<jitfd_appender>(jitfd_appender_stats, new_appender).publications == 0);
	CHECK(jitfd_appender_seal(appender.get()) == 0);
	CHECK(counters<jitfd_mapper>(jitfd_mapper_stats, mapper.get()).sealed == 1);
	CHECK(counters<jitfd_appender>(jitfd_appender_stats, appender.get()).publications == 2);
}

void forked_child()
{
	Region region = new_region(page);
	Chunk chunk = checked(answer_code(14));
	pid_t child = fork();
	if (child == 0) {
		CHECK(jitfd_adopt(region.get()) == 0);
		CHECK(jitfd_append(region.get(), chunk.get(), nullptr) == 0);
		CHECK(call(jitfd_base(region.get(), nullptr)) == 14);
		_exit(0);
	}
	CHECK(exit_status(child) == 0);
}

void split_region()
{
	Region region = new_region(page);
	jitfd_mapper *mapper = nullptr;
	jitfd_appender *appender = nullptr;
	jitfd_mapping *mapping = nullptr;
	CHECK(jitfd_split(region.release(), &mapper, &appender, &mapping) == 0);
	Mapper own_mapper(mapper);
	Appender own_appender(appender);
	Mapping own_mapping(mapping);
	Chunk chunk = checked(answer_code(13));
	const jitfd_chunk *chunks[] = { chunk.get() };
	CHECK(jitfd_appender_append(appender, chunks, 1, 0, nullptr) == 0);
	CHECK(call(jitfd_mapping_base(mapping, nullptr)) == 13);
}

void code_space()
{
	jitfd_options region = options_with(0);
	jitfd_space_options options = {};
	options.size = sizeof(options);
	options.region = &region;
	jitfd_space *made = nullptr;
	CHECK(jitfd_space_create(&options, &made) == 0);
	Space space(made);
	Chunk chunk = checked(answer_code(50));
	void *address = nullptr;
	CHECK(jitfd_space_publish(space.get(), "fifty", chunk.get(), &address) == 0);
	jitfd_symbol symbol = {};
	CHECK(jitfd_space_lookup(space.get(), address, &symbol) == 1);
	CHECK(std::string(symbol.name, symbol.name_len) == "fifty" && call(symbol.address) == 50);
	const jitfd_chunk *chunks[] = { chunk.get() };
	CHECK(jitfd_space_publish_batch(space.get(), nullptr, chunks, 1, &address) == 0);
	jitfd_request request = {};
	request.size = sizeof(request);
	request.len = 32;
	jitfd_slot *slot = nullptr;
	CHECK(jitfd_space_reserve(space.get(), &request, &slot, &address) == 0);
	CHECK(jitfd_space_fill(space.get(), slot, chunk.get()) == 0 && call(address) == 50);
	CHECK(jitfd_space_reserve(space.get(), &request, &slot, nullptr) == 0);
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
	jitfd_space_stats stats = {};
	stats.size = sizeof(stats);
	CHECK(jitfd_space_get_stats(space.get(), &stats) == 0 && stats.functions == 5);
}

/* An exception goes through generated code, of which gdb knows, too. */
void exceptions()
{
	jitfd_options region = options_with(0);
	jitfd_space_options options = {};
	options.size = sizeof(options);
	options.region = &region;
	jitfd_space *made = nullptr;
	CHECK(jitfd_space_create(&options, &made) == 0);
	Space space(made);
	std::vector<unsigned char> code(FRAMED_SIZE);
	put_framed(code.data(), []() -> int { throw std::string("through"); });
	Chunk chunk = checked(code);
	CHECK(jitfd_space_publish(space.get(), "framed", chunk.get(), nullptr) == 0);
	jitfd_symbol symbol = {};
	size_t total = 0, len = 0;
	CHECK(jitfd_space_symbols(space.get(), &symbol, 1, &total) == 0 && total == 1);
	Frames frames(jitfd_eh_frame_new());
	const jitfd_frame_step step = { 0, JITFD_FRAME_POINTER, 0, 0, 0 };
	CHECK(jitfd_eh_frame_add(frames.get(), symbol.address, symbol.len, &step, 1) == 0);
	const void *bytes = jitfd_eh_frame_bytes(frames.get(), &len);
	Unwind table(jitfd_eh_frame_register(bytes, len));
	CHECK(table);
	Gdb gdb(jitfd_gdb_new());
	CHECK(jitfd_gdb_add(gdb.get(), &symbol, 1, bytes, len) == 0);
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
	jitfd_table_options options = {};
	options.size = sizeof(options);
	options.fallback = static_cast<uint32_t>(JITFD_FALLBACK_ONLY | backend);
	jitfd_table *made = nullptr;
	CHECK(jitfd_table_create(JITFD_CARRIER_RSI, &options, &made) == 0);
	Table table(made);
	CHECK(jitfd_table_backend(table.get()) == backend);

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
	jitfd_table_stats stats = {};
	stats.size = sizeof(stats);
	CHECK(jitfd_table_get_stats(table.get(), &stats) == 0 && stats.copies == 1);
}

/* Throws what it was called with, past the trampoline that called it. */
void throw_first(jitfd_registers *registers, void *data)
{
	++*static_cast<int *>(data);
	throw registers->integers[0];
}

void throw_saved(jitfd_saved *saved, void *data)
{
	uint64_t first = 0;
	CHECK(jitfd_saved_get(saved, JITFD_GPR_RDI, &first) == 0);
	CHECK(jitfd_saved_set(saved, JITFD_GPR_RAX, first) == 0);
	CHECK(jitfd_saved_jump(saved, nullptr) == 0);
	++*static_cast<int *>(data);
	throw first;
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
	CHECK(jitfd_allow_fallback(static_cast<uint32_t>(JITFD_FALLBACK_ONLY | backend)) == 0);
	int calls = 0;
	std::unique_ptr<jitfd_closure, Free<jitfd_closure_free>> closure(
		jitfd_closure_new(throw_first, &calls));
	CHECK(closure && thrown_by(jitfd_closure_function(closure.get())) == 42 && calls == 1);
	std::unique_ptr<jitfd_return, Free<jitfd_return_free>> made(
		jitfd_return_new(throw_saved, &calls));
	CHECK(made && thrown_by(jitfd_return_function(made.get())) == 42 && calls == 2);
}

/* Returns twice its argument, with the carry flag set. */
void double_it(jitfd_saved *saved, void *data)
{
	const jitfd_function itself = *static_cast<jitfd_function *>(data);
	CHECK(jitfd_saved_trampoline(saved) == itself);
	CHECK(jitfd_saved_return_address(saved) != nullptr);
	uint64_t halves[2] = {}, flags = 0;
	CHECK(jitfd_saved_vector(saved, 0, halves) == 0);
	double number = 0;
	memcpy(&number, halves, sizeof(number));
	number *= 2;
	memcpy(halves, &number, sizeof(number));
	CHECK(jitfd_saved_set_vector(saved, 0, halves) == 0);
	CHECK(jitfd_saved_flags(saved, &flags) == 0);
	CHECK(jitfd_saved_set_flags(saved, flags | 1) == 0);
	CHECK(jitfd_saved_flags(saved, &flags) == 0 && (flags & 1) == 1);
}

void saved_vectors()
{
	CHECK(jitfd_allow_fallback(static_cast<uint32_t>(JITFD_FALLBACK_ONLY | backend)) == 0);
	jitfd_function entry = nullptr;
	std::unique_ptr<jitfd_return, Free<jitfd_return_free>> made(
		jitfd_return_new(double_it, &entry));
	CHECK(made && (entry = jitfd_return_function(made.get())));
	CHECK(reinterpret_cast<double (*)(double)>(entry)(1.5) == 3.0);
}

int twice(int number) { return 2 * number; }

void settings()
{
	jitfd_space_options space_options = {};
	jitfd_options region_options = options_with(0);
	space_options.size = sizeof(space_options);
	space_options.region = &region_options;
	space_options.region_capacity = 1 << 16;
	jitfd_space *space_made = nullptr;
	CHECK(jitfd_space_create(&space_options, &space_made) == 0);
	Space space(space_made);
	std::unique_ptr<jitfd_setting, Free<jitfd_setting_free>> setting(
		jitfd_setting_new(reinterpret_cast<jitfd_function>(twice)));
	CHECK(setting && jitfd_setting_set(setting.get(), JITFD_GPR_RDI, 21) == 0);
	jitfd_function entry = nullptr;
	CHECK(jitfd_setting_publish(setting.get(), space.get(), "42", &entry) == 0);
	CHECK(reinterpret_cast<int (*)()>(entry)() == 42);
	CHECK(jitfd_setting_push(setting.get(), 1) == 0);
}

void memory_for_libffi()
{
	CHECK(jitfd_allow_fallback(static_cast<uint32_t>(JITFD_FALLBACK_ONLY | backend)) == 0);
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
		CHECK(jitfd_append(region, chunk.get(), &place) == 0);
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
	CHECK(counters<jitfd_region>(jitfd_get_stats, region.get()).publications == 800);
}

const test tests[] = {
	{ "c++::chunks", chunks, NOTHING },
	{ "c++::lines", lines, NOTHING },
	{ "c++::faults", faults, NOTHING },
	{ "c++::adopting_nothing", adopting_nothing, NOTHING },
	{ "c++::fallbacks", fallbacks, HOOK },
	{ "c++::probe", probe, CODE },
	{ "c++::finished_code", finished_code, CODE },
	{ "c++::growing_code", growing_code, CODE },
	{ "c++::shared_handles", shared_handles, KERNEL },
	{ "c++::forked_child", forked_child, CODE },
	{ "c++::split_region", split_region, CODE },
	{ "c++::code_space", code_space, CODE },
	{ "c++::exceptions", exceptions, CODE },
	{ "c++::trampolines", trampolines, CODE },
	{ "c++::handlers_throw", handlers_throw, CODE },
	{ "c++::saved_vectors", saved_vectors, CODE },
	{ "c++::settings", settings, CODE },
	{ "c++::memory_for_libffi", memory_for_libffi, CODE },
	{ "c++::threads", threads, CODE },
};

} // namespace

int main(int argc, char **argv)
{
	return run_all(tests, sizeof(tests) / sizeof(tests[0]), argc, argv);
}
