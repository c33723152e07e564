//! Media that were fetched, for a while, on disk: `media/` in the data directory.
//!
//! Begins empty with each start, since what lies there is only a copy: so nothing in it is synced. A file is written under
//! a name of its own and renamed when it is whole. What is too old or too much goes with each new file and with time, so
//! that media count for retention like everything else; a file that is being served stays readable until it is.
//!
//! # Invariants
//! - What is found is whole, whoever fetches the same media at the same time and whoever gives up half-way.
//! - The thread that asks never waits for the disk.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, mpsc};
use std::thread;
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;

use crate::gateway::text::hex;

/// Its folder in the data directory.
const FOLDER: &str = "media";
/// How often it is looked whether something is too old, at most and at least.
const LOOK_EVERY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(60));

/// Media on disk.
#[derive(Debug)]
pub(in crate::gateway::facade) struct Cache {
    store: Arc<Store>,
    files: AtomicU64,
    /// Wakes who looks after it. When it is dropped, nobody looks any more.
    looking: mpsc::Sender<()>,
}

#[derive(Debug)]
struct Store {
    directory: PathBuf,
    limits: RwLock<Limits>,
    /// Held while files come and go, so that no new file goes in the place of an old one that was looked at. Only threads
    /// that may wait for the disk wait for it.
    changing: Mutex<()>,
}

/// What is kept; a reload may change it.
#[derive(Debug, Clone, Copy)]
struct Limits {
    keep: Duration,
    bytes_max: u64,
}

/// A file that is whole, to be read from its beginning. It stays readable though it goes meanwhile.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) file: File,
    pub(super) bytes: u64,
}

/// A file that is being written.
pub(super) struct Growing {
    file: tokio::fs::File,
    part: Part,
    digest: Sha256,
}

/// The name of a file that is being written. One that is given up leaves nothing.
struct Part {
    path: PathBuf,
    is_kept: bool,
}

impl Cache {
    /// An empty cache, and a thread that looks after it.
    pub(in crate::gateway::facade) fn open(
        data_dir: &Path,
        keep: Duration,
        bytes_max: u64,
    ) -> io::Result<Self> {
        let directory = data_dir.join(FOLDER);
        match fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => fs::create_dir_all(&directory)?,
        }
        let limits = RwLock::new(Limits { keep, bytes_max });
        let store = Arc::new(Store { directory, limits, changing: Mutex::default() });
        let (looking, look) = mpsc::channel::<()>();
        let looked_after = Arc::clone(&store);
        thread::Builder::new().name("media".to_owned()).spawn(move || {
            let gone = Err(mpsc::RecvTimeoutError::Disconnected);
            while look.recv_timeout(looked_after.look_every()) != gone {
                looked_after.sweep();
            }
        })?;
        Ok(Self { store, files: AtomicU64::new(0), looking })
    }

    /// Keeps so long and so much from now on; what is too old or too much now goes at once. Does not wait until it has.
    pub(in crate::gateway::facade) fn set(&self, keep: Duration, bytes_max: u64) {
        *self.store.limits.write().unwrap_or_else(PoisonError::into_inner) = Limits { keep, bytes_max };
        // Who looks goes with this end.
        let _ = self.looking.send(());
    }

    /// A file of before, if it is still there.
    pub(super) async fn find(&self, number: &str, media_id: &str) -> Option<Kept> {
        let (store, path) = (Arc::clone(&self.store), self.path_of(number, media_id));
        on_disk(move || store.find(&path)).await.ok()?
    }

    /// Begins a file.
    pub(super) async fn begin(&self) -> io::Result<Growing> {
        let number = self.files.fetch_add(1, Ordering::Relaxed);
        let path = self.store.directory.join(format!("{number}.part"));
        // What is made is dropped, and so leaves nothing, where nobody waits for it any more.
        on_disk(move || {
            let file = tokio::fs::File::from_std(File::create(&path)?);
            Ok(Growing { file, part: Part { path, is_kept: false }, digest: Sha256::new() })
        })
        .await
    }

    /// The file is whole: it is found from now on, if it fits. Gives it to be read. Done to its end or not at all, whether
    /// or not somebody waits for it.
    pub(super) async fn keep(&self, mut grown: Growing, number: &str, media_id: &str) -> io::Result<Kept> {
        // All of it is written before it gets its name.
        grown.file.flush().await?;
        let (store, path) = (Arc::clone(&self.store), self.path_of(number, media_id));
        on_disk(move || store.keep(grown.part, &path)).await
    }

    fn path_of(&self, number: &str, media_id: &str) -> PathBuf {
        let digest = Sha256::new().chain_update(number).chain_update([0]).chain_update(media_id).finalize();
        self.store.directory.join(hex(&digest))
    }
}

/// Does what waits for the disk where that holds up nobody.
async fn on_disk<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

impl Store {
    fn find(&self, path: &Path) -> io::Result<Option<Kept>> {
        let file = File::open(path)?;
        let found = file.metadata()?;
        let is_young = self.age(&found) < self.limits().keep;
        Ok(is_young.then_some(Kept { file, bytes: found.len() }))
    }

    /// Opened before it has its name, since it may go as soon as it has it.
    fn keep(&self, mut part: Part, path: &Path) -> io::Result<Kept> {
        let file = File::open(&part.path)?;
        let bytes = file.metadata()?.len();
        {
            let _alone = self.alone();
            fs::rename(&part.path, path)?;
        }
        part.is_kept = true;
        self.sweep();
        Ok(Kept { file, bytes })
    }

    fn alone(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn limits(&self) -> Limits {
        *self.limits.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn look_every(&self) -> Duration {
        (self.limits().keep / 4).clamp(LOOK_EVERY.0, LOOK_EVERY.1)
    }

    fn age(&self, found: &fs::Metadata) -> Duration {
        let written = found.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        SystemTime::now().duration_since(written).unwrap_or_default()
    }

    /// Removes what is too old, and the oldest of what is too much. What is being written is left alone.
    fn sweep(&self) {
        let _alone = self.alone();
        let Ok(listed) = fs::read_dir(&self.directory) else { return };
        let Limits { keep, bytes_max } = self.limits();
        let mut files: Vec<(Duration, u64, PathBuf)> = listed
            .filter_map(|entry| {
                let (entry, path) = entry.map(|entry| (entry.metadata(), entry.path())).ok()?;
                let found = entry.ok().filter(|_| path.extension().is_none())?;
                Some((self.age(&found), found.len(), path))
            })
            .collect();
        files.sort_unstable();
        let mut bytes = 0_u64;
        for (age, size, path) in files {
            bytes = bytes.saturating_add(size);
            if age >= keep || bytes > bytes_max {
                // One that is gone already is gone.
                let _ = fs::remove_file(path);
            }
        }
    }
}

impl Growing {
    pub(super) async fn write(&mut self, chunk: &[u8]) -> io::Result<()> {
        self.digest.update(chunk);
        self.file.write_all(chunk).await
    }

    /// The SHA-256 of what was written, in hexadecimal.
    pub(super) fn sha256(&self) -> String {
        hex(&self.digest.clone().finalize())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        // One that is gone already is gone; one that stays goes with the next start.
        let path = std::mem::take(&mut self.path);
        let remove = move || drop(fs::remove_file(path));
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(remove)),
            Err(_) => remove(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::process::Command;
    use std::time::Instant;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);
    const WITHIN: Duration = Duration::from_secs(10);

    /// One thread, as the HTTP server has.
    fn on_one_thread<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
    }

    fn text(mut kept: Kept) -> String {
        let mut text = String::new();
        kept.file.read_to_string(&mut text).unwrap();
        assert_eq!(kept.bytes, text.len() as u64);
        text
    }

    async fn put(cache: &Cache, media_id: &str, bytes: &[u8]) -> String {
        let mut growing = cache.begin().await.unwrap();
        growing.write(bytes).await.unwrap();
        text(cache.keep(growing, "1", media_id).await.unwrap())
    }

    fn names(directory: &Path) -> Vec<String> {
        let listed = fs::read_dir(directory.join(FOLDER)).unwrap();
        listed.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    fn until(what: &str, holds: impl Fn() -> bool) {
        let until = Instant::now() + WITHIN;
        while !holds() {
            assert!(Instant::now() < until, "{what}");
            thread::yield_now();
        }
    }

    #[test]
    fn what_is_too_much_or_too_old_goes_and_what_was_begun_leaves_nothing() {
        on_one_thread(async {
            let directory = tempfile::tempdir().unwrap();
            let cache = Cache::open(directory.path(), HOUR, 10).unwrap();
            assert_eq!(put(&cache, "a", b"123456").await, "123456");
            assert!(cache.find("1", "a").await.is_some() && cache.find("2", "a").await.is_none());
            assert_eq!(
                put(&cache, "b", b"123456").await,
                "123456",
                "it is served though it pushes another out"
            );
            assert!(cache.find("1", "a").await.is_none() || cache.find("1", "b").await.is_none());
            drop(cache.begin().await.unwrap());
            until("what was given up goes", || names(directory.path()).len() == 1);
            let cache = Cache::open(directory.path(), Duration::from_millis(1), 10).unwrap();
            assert_eq!(names(directory.path()), [""; 0], "it begins empty");
            put(&cache, "c", b"1").await;
            until("time takes it", || names(directory.path()).is_empty());
            assert!(cache.find("1", "c").await.is_none());
        });
    }

    #[test]
    fn other_limits_hold_at_once_and_with_0_bytes_nothing_stays() {
        on_one_thread(async {
            let directory = tempfile::tempdir().unwrap();
            let cache = Cache::open(directory.path(), HOUR, 10).unwrap();
            put(&cache, "a", b"123456").await;
            cache.set(HOUR, 0);
            until("it is too much now", || names(directory.path()).is_empty());
            assert_eq!(put(&cache, "b", b"1").await, "1", "it is served");
            assert!(cache.find("1", "b").await.is_none());
            cache.set(HOUR, 10);
            put(&cache, "c", b"1").await;
            cache.set(Duration::from_millis(1), 10);
            // Long before it would be looked at by itself.
            until("it is too old now", || names(directory.path()).is_empty());
        });
    }

    #[test]
    fn who_fetches_the_same_at_once_or_gives_up_half_way_leaves_one_whole_file() {
        on_one_thread(async {
            let directory = tempfile::tempdir().unwrap();
            let cache = Cache::open(directory.path(), HOUR, 1_000).unwrap();
            let whole = "whole".repeat(20);
            let (one, other) =
                tokio::join!(put(&cache, "a", whole.as_bytes()), put(&cache, "a", whole.as_bytes()));
            assert_eq!((&one, &other), (&whole, &whole));
            // Nobody waits for the end of any of these.
            for polls in 0..6 {
                let mut putting = Box::pin(put(&cache, "a", whole.as_bytes()));
                for _ in 0..polls {
                    tokio::select! {
                        biased;
                        _ = &mut putting => break,
                        () = tokio::task::yield_now() => {}
                    }
                }
            }
            until("parts go", || names(directory.path()).iter().all(|name| !name.ends_with(".part")));
            assert_eq!(names(directory.path()).len(), 1);
            assert_eq!(text(cache.find("1", "a").await.unwrap()), whole);
        });
    }

    #[test]
    fn a_disk_that_does_not_answer_holds_up_nobody_else() {
        on_one_thread(async {
            let directory = tempfile::tempdir().unwrap();
            let cache = Cache::open(directory.path(), HOUR, 1_000).unwrap();
            // Who opens it waits until somebody writes to it.
            let path = cache.path_of("1", "a");
            assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
            let (others, went_on) = mpsc::channel::<()>();
            let writer = thread::spawn(move || {
                let is_free = went_on.recv_timeout(WITHIN).is_ok();
                drop(fs::OpenOptions::new().write(true).open(path).unwrap());
                is_free
            });
            let other = async move { others.send(()).unwrap() };
            let (found, ()) = tokio::join!(biased; cache.find("1", "a"), other);
            assert!(found.is_some());
            assert!(writer.join().unwrap(), "the thread waited for the disk");
        });
    }
}
