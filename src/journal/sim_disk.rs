//! A disk that fails as disks do, the same way for the same seed: what the journal's promises are tested on.
//!
//! It keeps two states of every file: what programs see (the cache) and what is on the platter. A write changes the
//! cache; a sync carries it over. When the power fails, each sector that was written and not synced is on the platter
//! or not, by the seed; a directory entry likewise. A sync that fails marks what it should have written as clean, as
//! Linux does: programs go on seeing it, and only writing it again puts it on the platter.
//!
//! Not for production; it stands here, beside the real one, so that all tests of all folders can have it.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::disk::{Disk, DiskFile, DiskLock};

/// What is written at once or not at all, in bytes.
const SECTOR: usize = 512;

/// What is to go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The operation fails once; a write has written an unknown part of what it should.
    Error,
    /// The operation finds no room, once; a write has written an unknown part of what it should.
    Full,
    /// This and every later operation fails: the machine stops here.
    Stop,
}

/// A simulated disk. Clones are the same disk.
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<State>>);

struct State {
    random: Random,
    files: Vec<File>,
    /// The directory as programs see it.
    names: BTreeMap<String, usize>,
    /// The directory on the platter.
    platter_names: BTreeMap<String, usize>,
    /// Changes of the directory since it was last synced; each is kept or lost as a whole.
    changes: Vec<Change>,
    locked: bool,
    /// Operations that change something, so far.
    operations: u64,
    fault_at: Option<(u64, Fault)>,
    stopped: bool,
}

/// Names, and the files that they mean from then on.
type Change = Vec<(String, Option<usize>)>;

/// How much of an operation is done.
enum Done {
    All,
    Part(io::Error),
    Nothing(io::Error),
}

impl Done {
    fn or_fail(self) -> io::Result<()> {
        match self {
            Self::All => Ok(()),
            Self::Part(error) | Self::Nothing(error) => Err(error),
        }
    }
}

#[derive(Default)]
struct File {
    cache: Vec<u8>,
    platter: Vec<u8>,
    /// Sectors that the next sync carries over.
    dirty: Vec<bool>,
    /// Whether the length in the cache is not the platter's.
    resized: bool,
}

impl SimDisk {
    /// An empty disk; all that it does by chance follows from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            random: Random(seed),
            files: Vec::new(),
            names: BTreeMap::new(),
            platter_names: BTreeMap::new(),
            changes: Vec::new(),
            locked: false,
            operations: 0,
            fault_at: None,
            stopped: false,
        })))
    }

    /// Operations that change something, so far: what [`fail_at`](Self::fail_at) counts.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Lets the `after`-th changing operation from now on (0: the next) fail.
    pub fn fail_at(&self, after: u64, fault: Fault) {
        let mut state = self.state();
        state.fault_at = Some((state.operations + after, fault));
    }

    /// Lets nothing fail any more.
    pub fn heal(&self) {
        let mut state = self.state();
        state.fault_at = None;
        state.stopped = false;
    }

    /// The process ends: the lock is free, the cache stays.
    pub fn kill(&self) {
        let mut state = self.state();
        state.locked = false;
        state.fault_at = None;
        state.stopped = false;
    }

    /// The power fails: what was not synced is kept, torn or lost by chance.
    pub fn cut_power(&self) {
        self.kill();
        let mut state = self.state();
        let state = &mut *state;
        let mut kept = std::mem::take(&mut state.platter_names);
        for change in state.changes.drain(..) {
            if state.random.chance(1, 2) {
                apply(&mut kept, change);
            }
        }
        state.names = kept.clone();
        state.platter_names = kept;
        for file in &mut state.files {
            file.lose_power(&mut state.random);
        }
    }

    /// Flips a bit of a file, on the platter and in the cache.
    pub fn flip(&self, name: &str, byte: u64, bit: u8) {
        let mut state = self.state();
        let Some(index) = state.names.get(name).copied() else { return };
        let Some(file) = state.files.get_mut(index) else { return };
        let Ok(byte) = usize::try_from(byte) else { return };
        for side in [&mut file.cache, &mut file.platter] {
            if let Some(byte) = side.get_mut(byte) {
                *byte ^= 1 << (bit % 8);
            }
        }
    }

    /// A copy of what programs see, by name.
    #[must_use]
    pub fn snapshot(&self) -> BTreeMap<String, Vec<u8>> {
        let state = self.state();
        let file = |index: &usize| state.files.get(*index).map(|file| file.cache.clone()).unwrap_or_default();
        state.names.iter().map(|(name, index)| (name.clone(), file(index))).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("SimDisk").field("files", &state.names).field("operations", &state.operations).finish()
    }
}

impl State {
    /// Counts an operation that changes something, and says how much of it is to be done.
    fn operation(&mut self) -> Done {
        let now = self.operations;
        self.operations += 1;
        if self.stopped {
            return Done::Nothing(io::Error::other("the machine has stopped"));
        }
        match self.fault_at {
            Some((at, fault)) if at == now => {
                self.stopped = fault == Fault::Stop;
                Done::Part(match fault {
                    Fault::Full => io::Error::from(io::ErrorKind::StorageFull),
                    Fault::Error | Fault::Stop => io::Error::other("an input/output error, as was asked for"),
                })
            }
            _ => Done::All,
        }
    }

    fn index(&self, name: &str) -> io::Result<usize> {
        self.names.get(name).copied().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    fn change(&mut self, change: Change) {
        apply(&mut self.names, change.clone());
        self.changes.push(change);
    }
}

fn apply(names: &mut BTreeMap<String, usize>, change: Change) {
    for (name, file) in change {
        match file {
            Some(file) => names.insert(name, file),
            None => names.remove(&name),
        };
    }
}

/// Cuts, or grows with zeros: as one piece, because the campaign's speed in a debug build depends on it.
fn set_length(bytes: &mut Vec<u8>, length: usize) {
    match length.checked_sub(bytes.len()) {
        Some(more) => bytes.extend_from_slice(&vec![0; more]),
        None => bytes.truncate(length),
    }
}

impl File {
    fn resize(&mut self, length: usize) {
        if length != self.cache.len() {
            set_length(&mut self.cache, length);
            self.dirty.resize(length.div_ceil(SECTOR), true);
            self.resized = true;
        }
    }

    fn write(&mut self, bytes: &[u8], position: usize) {
        let end = position + bytes.len();
        if end > self.cache.len() {
            self.resize(end);
        }
        if let Some(place) = self.cache.get_mut(position..end) {
            place.copy_from_slice(bytes);
        }
        for sector in position / SECTOR..end.div_ceil(SECTOR) {
            if let Some(dirty) = self.dirty.get_mut(sector) {
                *dirty = true;
            }
        }
    }

    fn carry_over(&mut self, sector: usize) {
        let range = sector * SECTOR..((sector + 1) * SECTOR).min(self.cache.len());
        if self.platter.len() < range.end {
            set_length(&mut self.platter, range.end);
        }
        if let (Some(from), Some(to)) = (self.cache.get(range.clone()), self.platter.get_mut(range)) {
            to.copy_from_slice(from);
        }
    }

    fn sync(&mut self) {
        if self.resized {
            set_length(&mut self.platter, self.cache.len());
            self.resized = false;
        }
        for sector in 0..self.dirty.len() {
            if self.dirty.get(sector) == Some(&true) {
                self.carry_over(sector);
            }
        }
        self.dirty.fill(false);
    }

    /// A sync that failed: some of it is on the platter, and all of it counts as clean.
    fn fail_to_sync(&mut self, random: &mut Random) {
        for sector in 0..self.dirty.len() {
            if self.dirty.get(sector) == Some(&true) && random.chance(1, 2) {
                self.carry_over(sector);
            }
        }
        self.dirty.fill(false);
        self.resized = false;
    }

    fn lose_power(&mut self, random: &mut Random) {
        if self.resized && random.chance(1, 2) {
            set_length(&mut self.platter, self.cache.len());
        }
        for sector in 0..self.dirty.len() {
            if self.dirty.get(sector) != Some(&true) {
                continue;
            }
            match random.below(4) {
                0 | 1 => self.carry_over(sector),
                // Torn within the sector: the disk got some bytes of it, from its beginning on.
                2 => {
                    let torn = sector * SECTOR + random.below_usize(SECTOR);
                    let range = sector * SECTOR..torn.min(self.cache.len()).min(self.platter.len());
                    if let (Some(from), Some(to)) =
                        (self.cache.get(range.clone()), self.platter.get_mut(range))
                    {
                        to.copy_from_slice(from);
                    }
                }
                _ => {}
            }
        }
        self.cache = self.platter.clone();
        self.dirty = vec![false; self.cache.len().div_ceil(SECTOR)];
        self.resized = false;
    }
}

impl Disk for SimDisk {
    fn lock(&self) -> io::Result<Option<DiskLock>> {
        let mut state = self.state();
        if state.locked {
            return Ok(None);
        }
        state.locked = true;
        Ok(Some(Box::new(SimLock(self.clone()))))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.state().names.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let index = self.state().index(name)?;
        Ok(Arc::new(SimFile { disk: self.clone(), index }))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        state.operation().or_fail()?;
        if state.names.contains_key(name) {
            return Err(io::Error::from(io::ErrorKind::AlreadyExists));
        }
        let index = state.files.len();
        state.files.push(File::default());
        state.change(vec![(name.to_owned(), Some(index))]);
        Ok(Arc::new(SimFile { disk: self.clone(), index }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.operation().or_fail()?;
        let index = state.index(from)?;
        state.change(vec![(to.to_owned(), Some(index)), (from.to_owned(), None)]);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.operation().or_fail()?;
        state.index(name)?;
        state.change(vec![(name.to_owned(), None)]);
        Ok(())
    }

    fn sync_directory(&self) -> io::Result<()> {
        let mut state = self.state();
        state.operation().or_fail()?;
        state.platter_names = state.names.clone();
        state.changes.clear();
        Ok(())
    }

    fn entropy(&self, bytes: &mut [u8]) -> io::Result<()> {
        let mut state = self.state();
        for byte in bytes {
            *byte = state.random.number().to_le_bytes()[0];
        }
        Ok(())
    }

    fn place(&self, name: &str) -> String {
        format!("simulated disk, {name}")
    }
}

struct SimLock(SimDisk);

impl Drop for SimLock {
    fn drop(&mut self) {
        self.0.state().locked = false;
    }
}

struct SimFile {
    disk: SimDisk,
    index: usize,
}

impl fmt::Debug for SimFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimFile").field("index", &self.index).finish()
    }
}

impl SimFile {
    fn with<T>(&self, run: impl FnOnce(&mut State, usize) -> io::Result<T>) -> io::Result<T> {
        run(&mut self.disk.state(), self.index)
    }
}

fn gone() -> io::Error {
    io::Error::from(io::ErrorKind::NotFound)
}

impl DiskFile for SimFile {
    fn length(&self) -> io::Result<u64> {
        self.with(|state, index| state.files.get(index).map(|file| file.cache.len() as u64).ok_or_else(gone))
    }

    fn read_at(&self, bytes: &mut [u8], position: u64) -> io::Result<()> {
        self.with(|state, index| {
            let file = state.files.get(index).ok_or_else(gone)?;
            let from = usize::try_from(position).map_err(io::Error::other)?;
            let source = file.cache.get(from..from + bytes.len());
            bytes.copy_from_slice(source.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?);
            Ok(())
        })
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.with(|state, index| {
            let done = state.operation();
            let written = match &done {
                Done::All => bytes.len(),
                Done::Part(_) => state.random.below_usize(bytes.len() + 1),
                Done::Nothing(_) => 0,
            };
            let from = usize::try_from(position).map_err(io::Error::other)?;
            if let (Some(file), Some(bytes)) = (state.files.get_mut(index), bytes.get(..written)) {
                file.write(bytes, from);
            }
            done.or_fail()
        })
    }

    fn reserve(&self, length: u64) -> io::Result<()> {
        self.set_length(length)
    }

    fn sync(&self) -> io::Result<()> {
        self.with(|state, index| {
            let done = state.operation();
            let State { files, random, stopped, .. } = state;
            match (&done, files.get_mut(index)) {
                (Done::All, Some(file)) => file.sync(),
                (Done::Part(_), Some(file)) if !*stopped => file.fail_to_sync(random),
                _ => {}
            }
            done.or_fail()
        })
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.with(|state, index| {
            state.operation().or_fail()?;
            let length = usize::try_from(length).map_err(io::Error::other)?;
            state.files.get_mut(index).ok_or_else(gone)?.resize(length);
            Ok(())
        })
    }
}

/// Chance that repeats: splitmix64.
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`; 0 if that is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.number().checked_rem(end).unwrap_or(0)
    }

    /// A length or index below `end`; 0 if that is 0.
    pub fn below_usize(&mut self, end: usize) -> usize {
        usize::try_from(self.below(end as u64)).unwrap_or(0)
    }

    /// True `of` times out of `all`.
    pub fn chance(&mut self, of: u64, all: u64) -> bool {
        self.below(all) < of
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_synced_outlives_the_power_and_what_is_not_may_be_lost() {
        let (mut lost, mut kept) = (0, 0);
        for seed in 0..200 {
            let disk = SimDisk::new(seed);
            let file = disk.create("a").unwrap();
            file.write_at(&[1; 600], 0).unwrap();
            file.sync().unwrap();
            disk.sync_directory().unwrap();
            file.write_at(&[2; 600], 600).unwrap();
            disk.cut_power();
            let bytes = disk.snapshot().remove("a").unwrap();
            assert_eq!(&bytes[..600], &[1; 600]);
            match bytes.get(600..) {
                Some(rest) if rest == [2; 600] => kept += 1,
                _ => lost += 1,
            }
        }
        assert!(lost > 20 && kept > 20, "{lost} lost, {kept} kept");
    }

    #[test]
    fn a_name_that_was_not_synced_may_be_lost() {
        let there = (0..100).filter(|seed| {
            let disk = SimDisk::new(*seed);
            disk.create("a").unwrap().sync().unwrap();
            disk.cut_power();
            disk.open("a").is_ok()
        });
        assert!((20..80).contains(&there.count()));
    }

    #[test]
    fn what_a_failed_sync_left_is_seen_until_the_power_fails_however_often_it_is_synced() {
        let lost = (0..100).filter(|seed| {
            let disk = SimDisk::new(*seed);
            let file = disk.create("a").unwrap();
            file.write_at(&[0; 1024], 0).unwrap();
            file.sync().unwrap();
            disk.sync_directory().unwrap();
            file.write_at(&[1; 1024], 0).unwrap();
            disk.fail_at(0, Fault::Error);
            assert!(file.sync().is_err());
            file.sync().unwrap();
            disk.kill();
            assert_eq!(disk.snapshot()["a"], [1; 1024]);
            disk.cut_power();
            disk.snapshot()["a"] != [1; 1024]
        });
        assert!(lost.count() > 50);
    }

    #[test]
    fn a_machine_that_has_stopped_changes_nothing_any_more() {
        let disk = SimDisk::new(1);
        let file = disk.create("a").unwrap();
        disk.fail_at(1, Fault::Stop);
        file.write_at(&[1; 10], 0).unwrap();
        assert!(file.sync().is_err());
        assert!(file.write_at(&[2; 10], 0).is_err());
        assert_eq!(disk.snapshot()["a"], [1; 10]);
    }
}
