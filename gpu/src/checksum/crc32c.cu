// CRC32C (Castagnoli) of memory as it lies on the GPU; compiled by NVRTC when it is needed (`checksum/kernel.rs`), and
// by a C++ compiler for a test that plays the GPU (`tests/kernel/lanes.cpp`).
//
// A remainder is a polynomial over GF(2), reflected: bit 31 is the coefficient of 1, bit 0 that of x^31. The CRC of
// words w[0] .. w[n-1] that begins with zero is the sum of w[i] * x^(32 (n-i)) mod P, which can be taken in any order.
//
// 1. A warp takes a block of memory (`Block`), row after row of 512 bytes: each lane loads 16 bytes, side by side. It
//    keeps four remainders, one a word, of the 128 streams that are the columns of the rows. A row further is
//    s = s * x^4096 + w.
// 2. The product by x^4096 is looked up digit by digit, a digit being DIGIT_BITS bits of s, in tables in shared memory.
//    Each lane has its own copy of them, in the bank of its number, so that no lookup waits for another's: 128 KiB with
//    8 bits (4 lookups a word), 16 KiB with 4 bits (8 lookups).
// 3. The last row may be a part of one: what isn't there counts as zeros, and isn't read.
// 4. The words of a lane are put together (a word further is * x^32), the lanes are shifted to their places
//    (`constants`), summed up, and the sum is shifted to the block's place in its page (`Block::shift`) and added to
//    the remainder of that page. Products here are made bit by bit; there are few.
//
// Host and kernel agree on `Block` and on the layout of `constants` (`plan.rs`).

#ifndef DIGIT_BITS
#error "DIGIT_BITS is 8, or 4 where a block of threads can't have 128 KiB of shared memory"
#endif

typedef unsigned int u32;
typedef unsigned long long u64;

static_assert(DIGIT_BITS == 4 || DIGIT_BITS == 8, "digits divide a word, and an entry's place fits one mask");

#define LANES 32u
#define ROW_BYTES (LANES * 16u)
/// Rows that are on their way while as many are worked on. With 32 warps a multiprocessor 64 KiB are under way, more
/// than twice what an H200's bandwidth and a latency of 800 ns make necessary.
#define ROWS_AHEAD 4u
#define DIGITS (32u / DIGIT_BITS)
#define ENTRIES (1u << DIGIT_BITS)
#define TABLE_BYTES (ENTRIES * LANES * 4u)
/// Entries of one lane are 128 bytes apart.
#define ENTRY_SHIFT 7u
#define ENTRY_MASK ((ENTRIES - 1u) << ENTRY_SHIFT)
/// x^32 mod P without its x^32, reflected.
#define POLYNOMIAL 0x82F63B78u

/// Memory that one warp takes: a part of a page.
struct Block {
    /// A multiple of 16.
    u64 start;
    /// At least one.
    u32 bytes;
    /// What the remainder is multiplied by: 1, shifted by what follows in the page, less what is missing to whole rows.
    u32 shift;
    /// To whose remainder it is added.
    u32 page;
    u32 unused;
};

/// Of digit d, entry e, lane l: at d * TABLE_BYTES + e * 128 + l * 4.
extern __shared__ u32 tables[];

static __device__ __forceinline__ u32 rotated(u32 s, u32 bits) {
    return bits == 0u ? s : (s >> bits) | (s << (32u - bits));
}

/// s * x^4096. Digits are cut out where they are a multiple of an entry's size, which saves a shift: digit d has the
/// bits from 7 + d * DIGIT_BITS on, around the word's end.
static __device__ __forceinline__ u32 a_row_further(u32 s, u32 lane_bytes) {
    u32 product = 0u;
#pragma unroll
    for (u32 d = 0u; d < DIGITS; ++d) {
        const u32 entry = (rotated(s, d * DIGIT_BITS) & ENTRY_MASK) | lane_bytes;
        product ^= *(const u32 *)((const char *)tables + entry + d * TABLE_BYTES);
    }
    return product;
}

/// s * x^32.
static __device__ __forceinline__ u32 a_word_further(u32 s) {
#pragma unroll
    for (u32 bit = 0u; bit < 32u; ++bit) {
        s = (s >> 1) ^ ((s & 1u) * POLYNOMIAL);
    }
    return s;
}

/// a * b.
static __device__ __forceinline__ u32 multiplied(u32 a, u32 b) {
    u32 product = 0u;
#pragma unroll
    for (u32 bit = 0u; bit < 32u; ++bit) {
        product ^= b & (0u - ((a >> (31u - bit)) & 1u));
        b = (b >> 1) ^ ((b & 1u) * POLYNOMIAL);
    }
    return product;
}

static __device__ __forceinline__ void take_row(uint4 &s, uint4 row, u32 lane_bytes) {
    s.x = a_row_further(s.x, lane_bytes) ^ row.x;
    s.y = a_row_further(s.y, lane_bytes) ^ row.y;
    s.z = a_row_further(s.z, lane_bytes) ^ row.z;
    s.w = a_row_further(s.w, lane_bytes) ^ row.w;
}

/// What is there of 16 bytes of which there are fewer, followed by zeros.
static __device__ __forceinline__ uint4 part_of(const unsigned char *from, u32 bytes) {
    u32 words[4] = {0u, 0u, 0u, 0u};
#pragma unroll
    for (u32 at = 0u; at < 16u; ++at) {
        if (at < bytes) {
            words[at / 4u] |= (u32)from[at] << (at % 4u * 8u);
        }
    }
    uint4 row;
    row.x = words[0];
    row.y = words[1];
    row.z = words[2];
    row.w = words[3];
    return row;
}

/// This lane's four remainders of a block.
static __device__ __forceinline__ uint4 columns_of(const Block &block, u32 lane) {
    u32 lane_bytes = lane * 4u;
    // From here on the compiler knows nothing of its value. If it knew the bits that are zero it would make an
    // instruction of its own of adding a table's offset, which is free in a load.
    asm("" : "+r"(lane_bytes));
    const uint4 *rows = (const uint4 *)block.start + lane;
    __builtin_assume(__isGlobal(rows));
    const u32 whole = block.bytes / ROW_BYTES;
    uint4 s = part_of(0, 0u);
    uint4 next[ROWS_AHEAD];
    u32 taken = 0u;
    if (whole >= ROWS_AHEAD) {
#pragma unroll
        for (u32 i = 0u; i < ROWS_AHEAD; ++i) {
            next[i] = rows[i * LANES];
        }
        for (; taken + 2u * ROWS_AHEAD <= whole; taken += ROWS_AHEAD) {
            rows += ROWS_AHEAD * LANES;
            uint4 now[ROWS_AHEAD];
#pragma unroll
            for (u32 i = 0u; i < ROWS_AHEAD; ++i) {
                now[i] = next[i];
                next[i] = rows[i * LANES];
            }
#pragma unroll
            for (u32 i = 0u; i < ROWS_AHEAD; ++i) {
                take_row(s, now[i], lane_bytes);
            }
        }
#pragma unroll
        for (u32 i = 0u; i < ROWS_AHEAD; ++i) {
            take_row(s, next[i], lane_bytes);
        }
        taken += ROWS_AHEAD;
        rows += ROWS_AHEAD * LANES;
    }
    for (; taken < whole; ++taken, rows += LANES) {
        take_row(s, *rows, lane_bytes);
    }
    const u32 left = block.bytes % ROW_BYTES;
    if (left != 0u) {
        const u32 before = lane * 16u;
        const u32 mine = left > before ? left - before : 0u;
        take_row(s, mine >= 16u ? *rows : part_of((const unsigned char *)rows, mine), lane_bytes);
    }
    return s;
}

/// Adds the remainder of each block to that of its page. `constants`: of digit d and entry e its product by x^4096, at
/// d * ENTRIES + e; then of each lane x^(128 (31 - lane) + 32), which is how far its last word is from a row's end.
/// Threads of a block: a multiple of 32. Shared memory of a block: DIGITS * TABLE_BYTES.
extern "C" __global__ void __launch_bounds__(1024)
    crc32c(const Block *__restrict__ blocks, u32 count, const u32 *__restrict__ constants, u32 *remainders) {
    for (u32 i = threadIdx.x; i < DIGITS * ENTRIES * LANES; i += blockDim.x) {
        tables[i] = constants[i / LANES];
    }
    __syncthreads();
    const u32 lane = threadIdx.x % LANES;
    const u32 place = constants[DIGITS * ENTRIES + lane];
    // Neighbours on different multiprocessors: few blocks have all of those, too.
    const u32 warps = gridDim.x * (blockDim.x / LANES);
    for (u32 n = threadIdx.x / LANES * gridDim.x + blockIdx.x; n < count; n += warps) {
        const Block block = blocks[n];
        const uint4 s = columns_of(block, lane);
        u32 sum = a_word_further(s.x) ^ s.y;
        sum = a_word_further(sum) ^ s.z;
        sum = a_word_further(sum) ^ s.w;
        sum = multiplied(place, sum);
        for (u32 distance = LANES / 2u; distance > 0u; distance /= 2u) {
            sum ^= __shfl_xor_sync(0xffffffffu, sum, distance);
        }
        sum = multiplied(block.shift, sum);
        if (lane == 0u) {
            atomicXor(&remainders[block.page], sum);
        }
    }
}
