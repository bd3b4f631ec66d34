//! The kernel that takes checksums, played by the processor: `kernel/lanes.cpp` compiles it as C++ and runs its threads,
//! with random content of random lengths. Needs a C++ compiler.

mod support;

use aimss_engine::dice::Dice;
use aimss_gpu::checksum::{Block, Cutter, Digits, finish};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

/// In the order in which they are tried.
const COMPILERS: [&str; 3] = ["c++", "g++", "clang++"];

/// Compiles the kernel and what plays the GPU; without a compiler it says so.
fn compiled(digits: Digits) -> Option<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!(
        "lanes-{}-{}",
        digits.bits(),
        std::process::id()
    ));
    for compiler in COMPILERS {
        let ran = Command::new(compiler)
            .args(["-std=c++17", "-O1", "-Wall", "-Wno-unknown-pragmas", "-Werror"])
            .arg(format!("-DDIGIT_BITS={}", digits.bits()))
            .arg("-o")
            .arg(&program)
            .arg(here.join("tests/kernel/lanes.cpp"))
            .output();
        if let Ok(ran) = ran {
            assert!(ran.status.success(), "{compiler}: {}", String::from_utf8_lossy(&ran.stderr));
            return Some(program);
        }
    }
    let needed = "skipped: a C++ compiler (c++, g++ or clang++) is needed";
    assert!(
        std::env::var_os("AIMSS_NO_SKIPS").is_none(),
        "{needed}, and skipped layers count as failures here"
    );
    support::say(needed);
    None
}

/// Extents one behind another, each at a multiple of 16 bytes, in random memory.
fn extents(dice: &Dice) -> (Vec<(u64, u64)>, Vec<u8>) {
    // Around a load, a row, as many rows as are loaded ahead, and a block.
    let edges = [16, 512, 4 * 512, 8 * 512, 128 << 10].map(|edge: u64| [edge - 1, edge, edge + 1]);
    let lengths = edges.into_iter().flatten().chain([1, (256 << 10) + 777]).collect::<Vec<_>>();
    let random_lengths: Vec<_> = (0..20).map(|_| 1 + dice.roll() % 20_000).collect();
    let mut end = 0;
    let place = |length: u64| {
        let at = end;
        end = (end + length).next_multiple_of(16);
        (at, length)
    };
    // Long ones first: what a warp begins with needs all of the tables.
    let extents: Vec<_> = lengths.into_iter().rev().chain(random_lengths).map(place).collect();
    let memory = (0..end / 8).flat_map(|_| dice.roll().to_le_bytes()).collect();
    (extents, memory)
}

/// Has the program sum up the blocks of so many pages.
fn played(program: &Path, digits: Digits, blocks: &[Block], pages: usize, memory: &[u8]) -> Vec<u32> {
    // Fewer warps than blocks, and several blocks of threads.
    let (grid, threads) = (3_u32, 64_u32);
    let constants = digits.constants();
    let mut told: Vec<u8> = [grid, threads, constants.len() as u32]
        .into_iter()
        .chain(constants)
        .chain([blocks.len() as u32, pages as u32, memory.len() as u32])
        .flat_map(u32::to_ne_bytes)
        .collect();
    told.extend(blocks.iter().flat_map(|block| block.to_bytes()));
    told.extend(memory);
    let mut running = Command::new(program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it was compiled just now");
    running.stdin.take().expect("it is piped").write_all(&told).expect("it reads all before it writes");
    let ran = running.wait_with_output().expect("it ends");
    assert!(ran.status.success(), "{}: it read what it must not, or was told nonsense", ran.status);
    ran.stdout.as_chunks::<4>().0.iter().map(|word| u32::from_ne_bytes(*word)).collect()
}

fn agrees_with_the_processor(digits: Digits) {
    let Some(program) = compiled(digits) else { return };
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").subsec_nanos();
    let seed =
        std::env::var("AIMSS_SEED").map_or_else(|_| u64::from(now()), |seed| seed.parse().expect("a number"));
    println!("AIMSS_SEED={seed}");
    let (extents, memory) = extents(&Dice::new(seed));
    let (mut cutter, mut blocks) = (Cutter::default(), Vec::new());
    for (page, (at, bytes)) in extents.iter().enumerate() {
        cutter.cut(*at, *bytes, page as u32, &mut blocks);
    }
    let sums = played(&program, digits, &blocks, extents.len(), &memory);
    assert_eq!(sums.len(), extents.len());
    for ((at, bytes), sum) in extents.into_iter().zip(sums) {
        let expected = crc32c::crc32c(&memory[at as usize..][..bytes as usize]);
        assert_eq!(finish(sum, bytes), expected, "{bytes} bytes at {at}");
    }
    let _ = std::fs::remove_file(program);
}

#[test]
fn the_kernel_with_tables_of_bytes_agrees_with_the_processor() {
    agrees_with_the_processor(Digits::Bytes);
}

#[test]
fn the_kernel_with_tables_of_nibbles_agrees_with_the_processor() {
    agrees_with_the_processor(Digits::Nibbles);
}
