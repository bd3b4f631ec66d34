// Plays a GPU for `crc32c.cu`, which is included below as it is: threads are coroutines that take turns; warps meet in
// shuffles, blocks of threads in __syncthreads. For `tests/kernel.rs`.
//
// In, as words of 32 bits: blocks of threads, threads of each, the number of constants, and they; then the numbers of
// `Block`s, of pages, and of bytes of memory (a multiple of 16); then the `Block`s, whose starts are offsets, and the
// memory. Out: the remainders of the pages.

#include <sys/mman.h>
#include <ucontext.h>

#include <cstdio>
#include <cstdlib>
#include <vector>

struct Vector3 {
    unsigned x, y, z;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};

Vector3 threadIdx, blockIdx, blockDim, gridDim;

namespace gpu {

constexpr unsigned WARP = 32;
constexpr std::size_t STACK_BYTES = 64 << 10;

/// Where so many meet before any goes on.
struct Meeting {
    unsigned there = 0, turn = 0;
};

struct Thread {
    ucontext_t context;
    std::vector<char> stack;
    bool done = false;
};

ucontext_t scheduler;
std::vector<Thread> threads;
Meeting block;
std::vector<Meeting> warps;
/// What each thread shows the others of its warp.
std::vector<unsigned> shown;
unsigned current;

void meet(Meeting &meeting, unsigned expected) {
    const unsigned turn = meeting.turn;
    if (++meeting.there == expected) {
        meeting.there = 0;
        ++meeting.turn;
        return;
    }
    while (meeting.turn == turn) {
        swapcontext(&threads[current].context, &scheduler);
    }
}

} // namespace gpu

static void __syncthreads() {
    gpu::meet(gpu::block, blockDim.x);
}

static unsigned __shfl_xor_sync(unsigned mask, unsigned value, unsigned distance) {
    if (mask != 0xffffffffu) {
        std::abort();
    }
    const unsigned me = gpu::current;
    gpu::Meeting &warp = gpu::warps[me / gpu::WARP];
    gpu::shown[me] = value;
    gpu::meet(warp, gpu::WARP);
    const unsigned other = gpu::shown[me ^ distance];
    gpu::meet(warp, gpu::WARP);
    return other;
}

static unsigned atomicXor(unsigned *at, unsigned value) {
    const unsigned before = *at;
    *at ^= value;
    return before;
}

#define __global__
#define __device__
#define __shared__
#define __forceinline__ inline
#define __launch_bounds__(threads)
#define __isGlobal(pointer) ((pointer) != nullptr)
#define __builtin_assume(holds) ((void)(holds))

#include "../../src/checksum/crc32c.cu"

u32 tables[DIGITS * TABLE_BYTES / 4u];

namespace {

std::vector<u32> read_words(std::size_t count) {
    std::vector<u32> words(count);
    if (std::fread(words.data(), 4, count, stdin) != count) {
        std::abort();
    }
    return words;
}

struct Launch {
    const Block *blocks;
    u32 count;
    const u32 *constants;
    u32 *remainders;
} launch;

void run_thread() {
    crc32c(launch.blocks, launch.count, launch.constants, launch.remainders);
    gpu::threads[gpu::current].done = true;
}

void run_block_of_threads() {
    gpu::threads.assign(blockDim.x, {});
    gpu::warps.assign(blockDim.x / gpu::WARP, {});
    gpu::shown.assign(blockDim.x, 0);
    // Shared memory begins as anything.
    for (u32 &word : tables) {
        word = 0xdeadbeefu;
    }
    for (gpu::Thread &thread : gpu::threads) {
        thread.stack.resize(gpu::STACK_BYTES);
        getcontext(&thread.context);
        thread.context.uc_stack.ss_sp = thread.stack.data();
        thread.context.uc_stack.ss_size = thread.stack.size();
        thread.context.uc_link = &gpu::scheduler;
        makecontext(&thread.context, run_thread, 0);
    }
    for (bool any = true; any;) {
        any = false;
        for (unsigned i = 0; i < blockDim.x; ++i) {
            if (!gpu::threads[i].done) {
                any = true;
                gpu::current = threadIdx.x = i;
                swapcontext(&gpu::scheduler, &gpu::threads[i].context);
            }
        }
    }
}

/// Memory that ends where a page of the machine does: a read beyond it is the end of this program.
unsigned char *guarded(std::size_t bytes) {
    const std::size_t page = 4096, room = (bytes + page - 1) / page * page;
    void *mapped = mmap(nullptr, room + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED || mprotect((char *)mapped + room, page, PROT_NONE) != 0) {
        std::abort();
    }
    return (unsigned char *)mapped + (room - bytes);
}

} // namespace

int main() {
    const std::vector<u32> head = read_words(3);
    gridDim.x = head[0];
    blockDim.x = head[1];
    const std::vector<u32> constants = read_words(head[2]);
    if (constants.size() != DIGITS * ENTRIES + gpu::WARP) {
        std::abort();
    }
    const std::vector<u32> sizes = read_words(3);
    std::vector<Block> blocks(sizes[0]);
    unsigned char *memory = guarded(sizes[2]);
    if (std::fread(blocks.data(), sizeof(Block), blocks.size(), stdin) != blocks.size() ||
        std::fread(memory, 1, sizes[2], stdin) != sizes[2]) {
        std::abort();
    }
    for (Block &block : blocks) {
        block.start += (u64)memory;
        if (block.start % 16 != 0) {
            std::abort();
        }
    }
    std::vector<u32> remainders(sizes[1], 0);
    launch = {blocks.data(), (u32)blocks.size(), constants.data(), remainders.data()};
    for (blockIdx.x = 0; blockIdx.x < gridDim.x; ++blockIdx.x) {
        run_block_of_threads();
    }
    const bool told = std::fwrite(remainders.data(), 4, remainders.size(), stdout) == remainders.size();
    return told && std::fflush(stdout) == 0 ? 0 : 1;
}
