//! Many calls to a backing whose calls travel, made at once instead of one after the other.

use std::sync::atomic::{AtomicUsize, Ordering};

/// At once. What a client of NFS or Lustre has under way towards one server is of this order.
const TOGETHER: usize = 16;

/// Does `ask` for each of `what`, several at a time, and returns when all are done.
pub fn together<T: Sync>(what: &[T], ask: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(one) = what.get(next.fetch_add(1, Ordering::Relaxed)) {
            ask(one);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..what.len().min(TOGETHER) {
            // A machine that has no thread for it has the caller's.
            if std::thread::Builder::new().name("together".into()).spawn_scoped(scope, work).is_err() {
                break;
            }
        }
        work();
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;

    #[test]
    fn each_is_asked_for_once_and_several_at_a_time() {
        let what: Vec<AtomicUsize> = (0..1000).map(|_| AtomicUsize::new(0)).collect();
        let count = |one: &AtomicUsize| {
            one.fetch_add(1, Ordering::Relaxed);
        };
        together(&what, count);
        assert!(what.iter().all(|one| one.load(Ordering::Relaxed) == 1));
        together::<u8>(&[], |_| unreachable!("there are none"));
        // Nobody gets past it alone.
        let all_there = Barrier::new(TOGETHER);
        let meet = |_: &u8| {
            all_there.wait();
        };
        together(&[0; TOGETHER], meet);
    }
}
