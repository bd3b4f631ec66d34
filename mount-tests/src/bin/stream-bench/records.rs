//! Records, and text that compresses as logs do.

use aimss_mount_tests::bytes::pattern;
use std::fmt::Write as _;

/// One record of `length` bytes, the last of which is the newline that ends a `line`.
pub fn line(length: usize) -> Vec<u8> {
    let mut record: Vec<u8> = (0..length).map(|at| b'a' + (at * 7 % 26) as u8).collect();
    record[length - 1] = b'\n';
    record
}

/// As many `lines` of `length` as fit `bytes`, one after the other.
pub fn lines(length: usize, bytes: usize) -> Vec<u8> {
    line(length).repeat((bytes / length).max(1))
}

/// Whether `bytes` are whole records of `length`. Looks at each: a consumer that doesn't has consumed
/// nothing.
pub fn are_whole(bytes: &[u8], length: usize) -> bool {
    bytes.len().is_multiple_of(length) && bytes.chunks_exact(length).all(|record| record[length - 1] == b'\n')
}

/// At least `bytes` of lines as a web server logs them, the same for the same seed. LZ4 makes them a third to
/// a quarter: times, addresses and sizes differ, the rest comes from short lists.
pub fn log_text(seed: u64, bytes: usize) -> Vec<u8> {
    const PATHS: [&str; 6] = [
        "/api/v1/jobs",
        "/index.html",
        "/static/app.js",
        "/api/v1/checkpoints/latest",
        "/health",
        "/data/part",
    ];
    const AGENTS: [&str; 3] =
        ["Mozilla/5.0 (X11; Linux x86_64) Firefox/128.0", "python-requests/2.32.3", "curl/8.9.1"];
    let mut text = String::with_capacity(bytes + 256);
    let random = pattern(seed, 1 << 16);
    let mut words = random.chunks_exact(8).cycle();
    let mut number = 0_u64;
    while text.len() < bytes {
        let word = words.next().expect("it goes round");
        let mixed = u64::from_le_bytes(word.try_into().expect("eight bytes")).wrapping_add(number << 7);
        number += 1;
        writeln!(
            text,
            "10.{}.{}.{} - - [25/Nov/2026:{:02}:{:02}:{:02} +0000] \"GET {}/{} HTTP/1.1\" 200 {} \"-\" \
             \"{}\" id={:08x}",
            mixed & 3,
            mixed >> 2 & 63,
            mixed >> 8 & 255,
            number / 3_600_000 % 24,
            number / 60_000 % 60,
            number / 1000 % 60,
            PATHS[(mixed >> 16) as usize % PATHS.len()],
            mixed >> 24 & 0xfff,
            mixed >> 36 & 0xffff,
            AGENTS[(mixed >> 52) as usize % AGENTS.len()],
            mixed >> 32 & 0xffff_ffff,
        )
        .expect("a String takes all");
    }
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_whole_or_not() {
        let bytes = lines(100, 4096);
        assert_eq!(bytes.len(), 4000);
        assert!(are_whole(&bytes, 100));
        assert!(!are_whole(&bytes[1..], 100) && !are_whole(&bytes[1..1001], 100));
    }

    #[test]
    fn the_text_compresses_as_logs_do() {
        let text = log_text(1, 256 << 10);
        let ratio = text.len() as f64 / lz4_flex::block::compress(&text).len() as f64;
        assert!((3.0..4.0).contains(&ratio), "{ratio}");
        assert_eq!(text, log_text(1, 256 << 10));
    }
}
