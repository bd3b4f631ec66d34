//! What became of each prediction, and how much each predictor may still give.
//!
//! 1. A prediction is asked for, then fetched, then used (opened) or wasted (evicted). One that is opened before it
//!    is fetched is late; when it arrives, it is used.
//! 2. The last [`DECIDED_MAX`] used or wasted ones of a predictor are looked at with each waste. If more than a
//!    quarter of their bytes is wasted, the limit of the predictor is halved, down to 0. It doubles with each use
//!    while the share is smaller.
//! 3. At 0 nothing is given. What would have been is kept here, silently. If [`SILENT_RIGHT_MIN`] of these are
//!    opened before one is found wrong, the predictor may give again. One is wrong if its predictor says so
//!    ([`Ledger::refuted`]), if [`SILENT_MAX`] newer ones push it out, or after [`STALE_OPENS`].
//! 4. What a predictor that was refuted or turned down to nothing had asked for is called off
//!    ([`Ledger::called_off`]): it counts as neither used nor wasted, if it had not come yet.
//!
//! A fetched file that is neither opened nor evicted for [`STALE_OPENS`] no longer takes room from others: its
//! reader is gone. It is still accounted.

use super::By;
use crate::ids::Ino;
use rustc_hash::FxHashMap;
use std::collections::VecDeque;

/// Predictions whose end tells what the next ones are worth.
const DECIDED_MAX: usize = 256;

/// One in so many bytes may be wasted.
const WASTED_ONE_IN: u64 = 4;

/// What an epoch may have ahead, in what others may.
const EPOCH_SHARES: u64 = 2;

/// Predictions that are kept silently.
const SILENT_MAX: usize = 256;

/// Files ahead of a reader, or new at one open, that are predicted silently. Cheap, and enough to be counted.
const SILENT_WINDOW: usize = 16;

/// So many right ones in a row turn a predictor up again.
const SILENT_RIGHT_MIN: usize = 32;

/// Opens after which nobody will come for a prediction: several epochs of an ordinary data set.
const STALE_OPENS: u64 = 1 << 16;

/// Predictions that are outstanding at once: 64 bytes each.
const OUTSTANDING_MAX: usize = 1 << 20;

/// What one predictor did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Account {
    /// Files it gave.
    pub predicted_files: u64,
    /// Bytes of those that came into memory.
    pub fetched_bytes: u64,
    /// Bytes of those that were opened then, or were waited for.
    pub used_bytes: u64,
    /// Files that were opened before they came.
    pub late_files: u64,
    /// Bytes that left memory without having been opened.
    pub wasted_bytes: u64,
    /// How often it was turned down to nothing.
    pub refused: u64,
    /// Files ahead that it may give now; 0 while it is turned down.
    pub window: usize,
}

/// How much may be given.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// Files.
    pub files: usize,
    /// Bytes of all of them.
    pub bytes: u64,
}

impl Room {
    /// Whether there is any for a file of this size.
    pub fn has(self, bytes: u64) -> bool {
        self.files > 0 && self.bytes >= bytes
    }

    /// Takes it.
    pub fn take(&mut self, bytes: u64) {
        self.files = self.files.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Asked,
    /// Opened since, and still to come.
    Late,
    Fetched,
}

/// A prediction that isn't decided yet.
#[derive(Debug)]
struct Outstanding {
    by: By,
    /// What is expected, then what came.
    bytes: u64,
    state: State,
    /// The open at which it was made: tells it from an earlier one of the same file.
    made: u64,
    /// Takes room from others.
    counted: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Ledger {
    ahead_bytes_max: u64,
    outstanding: FxHashMap<Ino, Outstanding>,
    books: [Book; 4],
    opens: u64,
    called_off: Vec<Ino>,
}

impl Ledger {
    /// An empty one.
    pub fn new(ahead_files_max: usize, ahead_bytes_max: u64) -> Ledger {
        Ledger {
            ahead_bytes_max,
            outstanding: FxHashMap::default(),
            books: By::ALL.map(|_| Book::new(ahead_files_max)),
            opens: 0,
            called_off: Vec::new(),
        }
    }

    /// Bytes that a predictor may have ahead.
    pub fn ahead_bytes_max(&self) -> u64 {
        self.ahead_bytes_max
    }

    /// A file was opened. Returns who had predicted it.
    pub fn opened(&mut self, ino: Ino) -> Option<By> {
        self.opens += 1;
        for book in &mut self.books {
            book.opened_silently(ino);
        }
        let entry = self.outstanding.get_mut(&ino)?;
        let (by, bytes) = (entry.by, entry.bytes);
        let book = &mut self.books[by.index()];
        match entry.state {
            State::Late => return None,
            State::Asked => {
                book.release(entry);
                entry.state = State::Late;
                book.account.late_files += 1;
            }
            State::Fetched => {
                book.release(entry);
                book.used(bytes);
                self.outstanding.remove(&ino);
            }
        }
        Some(by)
    }

    /// A file came into memory.
    pub fn fetched(&mut self, ino: Ino, bytes: u64) {
        let Some(entry) = self.outstanding.get_mut(&ino) else { return };
        let book = &mut self.books[entry.by.index()];
        match entry.state {
            State::Fetched => {}
            State::Asked => {
                book.account.fetched_bytes += bytes;
                if entry.counted {
                    book.in_flight -= 1;
                    book.ahead_bytes = book.ahead_bytes - entry.bytes + bytes;
                }
                (entry.state, entry.bytes) = (State::Fetched, bytes);
            }
            State::Late => {
                book.account.fetched_bytes += bytes;
                book.used(bytes);
                self.outstanding.remove(&ino);
            }
        }
    }

    /// A fetch was dropped.
    pub fn failed(&mut self, ino: Ino) {
        if let Some(mut entry) = self.outstanding.remove(&ino) {
            self.books[entry.by.index()].release(&mut entry);
        }
    }

    /// A file left memory.
    pub fn evicted(&mut self, ino: Ino) {
        if let Some(mut entry) = self.outstanding.remove(&ino) {
            let book = &mut self.books[entry.by.index()];
            book.release(&mut entry);
            if entry.state == State::Fetched {
                book.wasted(entry.bytes);
                if book.limit == 0 {
                    self.call_off_all(entry.by);
                }
            }
        }
    }

    /// A file will not be opened after all, says who predicted it.
    pub fn call_off(&mut self, by: By, ino: Ino) {
        let asked = |entry: &Outstanding| entry.by == by && entry.state == State::Asked;
        if self.outstanding.get(&ino).is_some_and(asked) {
            self.called_off.push(ino);
        }
    }

    /// The same of all that a predictor asked for.
    pub fn call_off_all(&mut self, by: By) {
        if self.books[by.index()].in_flight > 0 {
            let asked = |(_, entry): &(&Ino, &Outstanding)| entry.by == by && entry.state == State::Asked;
            self.called_off.extend(self.outstanding.iter().filter(asked).map(|(ino, _)| *ino));
        }
    }

    /// Files whose fetches are not wanted any more, since this was asked last. Each is told as failed if that could
    /// still be done.
    pub fn called_off(&mut self) -> Vec<Ino> {
        std::mem::take(&mut self.called_off)
    }

    /// A predictor found that what it predicts is wrong. Counts only while it is silent: what it gave is judged by
    /// what becomes of it.
    pub fn refuted(&mut self, by: By) {
        self.books[by.index()].silent_wrong();
    }

    /// Whether a file is outstanding, or silently predicted by this predictor.
    pub fn is_predicted(&self, by: By, ino: Ino) -> bool {
        self.outstanding.contains_key(&ino)
            || self.books[by.index()].silent.iter().any(|(silent, _)| *silent == ino)
    }

    /// Files ahead of a reader that a predictor may give.
    pub fn limit(&self, by: By) -> usize {
        match self.books[by.index()].limit {
            0 => SILENT_WINDOW,
            limit => limit,
        }
    }

    /// How much a predictor may give now, with `window` fetches under way at most.
    pub fn room(&mut self, by: By, window: usize) -> Room {
        let ahead_bytes_max = match by {
            // Each of its files will be opened, if not soon.
            By::Epoch => self.ahead_bytes_max * EPOCH_SHARES,
            _ => self.ahead_bytes_max,
        };
        let book = &mut self.books[by.index()];
        book.release_stale(self.opens, &mut self.outstanding);
        if book.limit == 0 {
            // An epoch's predictions come true late, and none of them may push out another. Those of the others
            // come true soon or never, and push out what will not.
            let free = if by == By::Epoch { SILENT_MAX - book.silent.len() } else { SILENT_MAX };
            return Room { files: free.min(SILENT_WINDOW), bytes: u64::MAX };
        }
        Room {
            files: book.limit.min(window).saturating_sub(book.in_flight),
            bytes: ahead_bytes_max.saturating_sub(book.ahead_bytes),
        }
    }

    /// Enters a prediction. False if it is a silent one, or if there are too many.
    pub fn predict(&mut self, by: By, ino: Ino, bytes: u64) -> bool {
        let book = &mut self.books[by.index()];
        book.release_stale(self.opens, &mut self.outstanding);
        if book.limit == 0 {
            book.predict_silently(ino, self.opens);
            return false;
        }
        if self.outstanding.len() >= OUTSTANDING_MAX {
            return false;
        }
        book.account.predicted_files += 1;
        book.in_flight += 1;
        book.ahead_bytes += bytes;
        book.made.push_back((ino, self.opens));
        let entry = Outstanding { by, bytes, state: State::Asked, made: self.opens, counted: true };
        self.outstanding.insert(ino, entry);
        true
    }

    /// What a predictor did.
    pub fn account(&self, by: By) -> Account {
        let book = &self.books[by.index()];
        Account { window: book.limit, ..book.account }
    }
}

/// One predictor's part.
#[derive(Debug)]
struct Book {
    account: Account,
    limit_max: usize,
    limit: usize,
    /// Bytes of the last ones that were decided, and whether they were wasted.
    decided: VecDeque<(u64, bool)>,
    decided_bytes: u64,
    decided_wasted_bytes: u64,
    /// Files asked for that have not come yet.
    in_flight: usize,
    /// Bytes predicted and not opened yet.
    ahead_bytes: u64,
    /// Predictions in the order in which they were made, also some that are decided.
    made: VecDeque<(Ino, u64)>,
    /// What would have been predicted, and when; only while the limit is 0.
    silent: VecDeque<(Ino, u64)>,
    silent_right: usize,
}

impl Book {
    fn new(limit_max: usize) -> Book {
        Book {
            account: Account::default(),
            limit_max,
            limit: limit_max,
            decided: VecDeque::new(),
            decided_bytes: 0,
            decided_wasted_bytes: 0,
            in_flight: 0,
            ahead_bytes: 0,
            made: VecDeque::new(),
            silent: VecDeque::new(),
            silent_right: 0,
        }
    }

    fn used(&mut self, bytes: u64) {
        self.account.used_bytes += bytes;
        self.decide(bytes, false);
        if self.limit > 0 && !self.wastes() {
            self.limit = self.limit.saturating_mul(2).min(self.limit_max);
        }
    }

    fn wasted(&mut self, bytes: u64) {
        self.account.wasted_bytes += bytes;
        self.decide(bytes, true);
        if self.limit > 0 && self.wastes() {
            self.limit /= 2;
            self.account.refused += u64::from(self.limit == 0);
        }
    }

    fn decide(&mut self, bytes: u64, wasted: bool) {
        // An empty file counts for something too.
        let bytes = bytes.max(1);
        self.decided.push_back((bytes, wasted));
        self.decided_bytes += bytes;
        self.decided_wasted_bytes += if wasted { bytes } else { 0 };
        if self.decided.len() > DECIDED_MAX
            && let Some((bytes, wasted)) = self.decided.pop_front()
        {
            self.decided_bytes -= bytes;
            self.decided_wasted_bytes -= if wasted { bytes } else { 0 };
        }
    }

    /// Whether more than its share was wasted.
    fn wastes(&self) -> bool {
        self.decided_wasted_bytes.saturating_mul(WASTED_ONE_IN) > self.decided_bytes
    }

    /// It takes no room any more.
    fn release(&mut self, entry: &mut Outstanding) {
        if entry.counted {
            entry.counted = false;
            self.ahead_bytes -= entry.bytes;
            self.in_flight -= usize::from(entry.state == State::Asked);
        }
    }

    fn release_stale(&mut self, opens: u64, outstanding: &mut FxHashMap<Ino, Outstanding>) {
        while let Some((ino, made)) = self.made.front() {
            let entry = outstanding.get_mut(ino).filter(|entry| entry.made == *made && entry.counted);
            let stale = opens - made > STALE_OPENS || self.made.len() > OUTSTANDING_MAX;
            if entry.is_some() && !stale {
                break;
            }
            self.made.pop_front();
            if let Some(entry) = entry {
                self.release(entry);
            }
        }
        if self.silent.front().is_some_and(|(_, made)| opens - made > STALE_OPENS) {
            self.silent_wrong();
        }
    }

    fn predict_silently(&mut self, ino: Ino, opens: u64) {
        if self.silent.len() >= SILENT_MAX {
            self.silent.pop_front();
            self.silent_right = 0;
        }
        self.silent.push_back((ino, opens));
    }

    fn opened_silently(&mut self, ino: Ino) {
        let Some(place) = self.silent.iter().position(|(silent, _)| *silent == ino) else { return };
        self.silent.remove(place);
        self.silent_right += 1;
        if self.silent_right >= SILENT_RIGHT_MIN {
            self.silent_wrong();
            self.limit = SILENT_RIGHT_MIN.min(self.limit_max);
            // What it did before is no measure any more.
            self.decided.clear();
            (self.decided_bytes, self.decided_wasted_bytes) = (0, 0);
        }
    }

    /// Begins to count anew.
    fn silent_wrong(&mut self) {
        self.silent.clear();
        self.silent_right = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prediction_is_used_late_or_wasted() {
        let mut ledger = Ledger::new(8, 1000);
        for ino in 1..=4 {
            assert!(ledger.predict(By::Order, Ino(ino), 100));
        }
        assert_eq!(ledger.room(By::Order, 8).files, 4);
        ledger.fetched(Ino(1), 110);
        ledger.fetched(Ino(2), 120);
        let room = ledger.room(By::Order, 8);
        assert_eq!((room.files, room.bytes), (6, 570));
        assert_eq!(ledger.opened(Ino(1)), Some(By::Order));
        assert_eq!(ledger.opened(Ino(1)), None);
        assert_eq!(ledger.opened(Ino(3)), Some(By::Order), "late");
        assert_eq!(ledger.opened(Ino(3)), None);
        ledger.fetched(Ino(3), 130);
        ledger.evicted(Ino(2));
        ledger.failed(Ino(4));
        ledger.evicted(Ino(4));
        let room = ledger.room(By::Order, 8);
        assert_eq!((room.files, room.bytes), (4, 1000), "one of three is wasted, so half");
        let account = Account {
            predicted_files: 4,
            fetched_bytes: 360,
            used_bytes: 240,
            late_files: 1,
            wasted_bytes: 120,
            refused: 0,
            window: 4,
        };
        assert_eq!(ledger.account(By::Order), account);
        assert_eq!(ledger.account(By::Epoch), Account { window: 8, ..Account::default() });
    }

    #[test]
    fn one_that_is_turned_down_must_be_right_in_a_row() {
        let mut ledger = Ledger::new(2, 1000);
        for ino in 1..=2 {
            ledger.predict(By::Transition, Ino(ino), 1);
            ledger.fetched(Ino(ino), 1);
            ledger.evicted(Ino(ino));
        }
        assert_eq!(ledger.account(By::Transition).window, 0);
        let right = |ledger: &mut Ledger, count: u64| {
            for ino in 100..100 + count {
                assert!(!ledger.predict(By::Transition, Ino(ino), 1));
                assert_eq!(ledger.opened(Ino(ino)), None);
            }
        };
        right(&mut ledger, SILENT_RIGHT_MIN as u64 - 1);
        ledger.refuted(By::Transition);
        right(&mut ledger, SILENT_RIGHT_MIN as u64 - 1);
        assert_eq!(ledger.account(By::Transition).window, 0);
        right(&mut ledger, 1);
        assert_eq!(ledger.account(By::Transition).window, 2);
        assert!(ledger.predict(By::Transition, Ino(1), 1));
    }

    #[test]
    fn what_nobody_comes_for_takes_no_room_for_ever() {
        let mut ledger = Ledger::new(8, 1000);
        ledger.predict(By::Epoch, Ino(1), 1000);
        ledger.fetched(Ino(1), 1000);
        assert_eq!(ledger.room(By::Epoch, 8).bytes, 1000, "an epoch has two shares");
        for _ in 0..=STALE_OPENS {
            ledger.opened(Ino(2));
        }
        assert_eq!(ledger.room(By::Epoch, 8).bytes, 2000);
        ledger.evicted(Ino(1));
        assert_eq!(ledger.account(By::Epoch).wasted_bytes, 1000, "and is accounted");
    }
}
