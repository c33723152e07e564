//! Media that were fetched, for a while, on disk: `media/` in the data directory.
//!
//! Begins empty with each start, since what lies there is only a copy. A file is written under another name and renamed
//! when it is whole. What is too old or too much goes with each new file and with time, so that media count for
//! retention like everything else; a file that is being served stays readable until it is.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, mpsc};
use std::thread;
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;

/// Its folder in the data directory.
const FOLDER: &str = "media";
/// How often it is looked whether something is too old, at most and at least.
const LOOK_EVERY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(60));

/// Media on disk.
#[derive(Debug)]
pub(in crate::gateway::facade) struct Cache {
    store: Arc<Store>,
    files: AtomicU64,
    /// When it is dropped, nobody looks any more.
    _looking: mpsc::Sender<()>,
}

#[derive(Debug)]
struct Store {
    directory: PathBuf,
    limits: RwLock<Limits>,
}

/// What is kept; a reload may change it.
#[derive(Debug, Clone, Copy)]
struct Limits {
    keep: Duration,
    bytes_max: u64,
}

/// A file that is being written.
pub(super) struct Growing {
    file: tokio::fs::File,
    path: PathBuf,
    digest: Sha256,
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
        let store = Arc::new(Store { directory, limits });
        let (looking, gone) = mpsc::channel::<()>();
        let looked_after = Arc::clone(&store);
        thread::Builder::new().name("media".to_owned()).spawn(move || {
            while gone.recv_timeout(looked_after.look_every()) == Err(mpsc::RecvTimeoutError::Timeout) {
                looked_after.sweep();
            }
        })?;
        Ok(Self { store, files: AtomicU64::new(0), _looking: looking })
    }

    /// Keeps so long and so much from now on; what is too old or too much now goes at once.
    pub(in crate::gateway::facade) fn set(&self, keep: Duration, bytes_max: u64) {
        *self.store.limits.write().unwrap_or_else(PoisonError::into_inner) = Limits { keep, bytes_max };
        self.store.sweep();
    }

    /// A file of before, if it is still there.
    pub(super) fn find(&self, number: &str, media_id: &str) -> Option<File> {
        let path = self.path_of(number, media_id);
        let file = File::open(path).ok()?;
        let is_young =
            file.metadata().ok().is_some_and(|found| self.store.age(&found) < self.store.limits().keep);
        is_young.then_some(file)
    }

    /// Begins a file.
    pub(super) fn begin(&self) -> io::Result<Growing> {
        let number = self.files.fetch_add(1, Ordering::Relaxed);
        let path = self.store.directory.join(format!("{number}.part"));
        Ok(Growing { file: tokio::fs::File::from_std(File::create(&path)?), path, digest: Sha256::new() })
    }

    /// The file is whole: it is found from now on, if it fits. Gives it to be read.
    pub(super) async fn keep(&self, mut grown: Growing, number: &str, media_id: &str) -> io::Result<File> {
        grown.file.flush().await?;
        let read = File::open(&grown.path)?;
        fs::rename(&grown.path, self.path_of(number, media_id))?;
        self.store.sweep();
        Ok(read)
    }

    fn path_of(&self, number: &str, media_id: &str) -> PathBuf {
        let digest = Sha256::new().chain_update(number).chain_update([0]).chain_update(media_id).finalize();
        let name: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        self.store.directory.join(name)
    }
}

impl Store {
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
        self.digest.clone().finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// One that is given up leaves nothing; one that was kept is not there under this name any more.
impl Drop for Growing {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn put(cache: &Cache, media_id: &str, bytes: &[u8]) -> String {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut file = runtime.block_on(async {
            let mut growing = cache.begin().unwrap();
            growing.write(bytes).await.unwrap();
            cache.keep(growing, "1", media_id).await.unwrap()
        });
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn what_is_too_much_or_too_old_goes_and_what_was_begun_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(directory.path(), Duration::from_secs(3_600), 10).unwrap();
        assert_eq!(put(&cache, "a", b"123456"), "123456");
        assert!(cache.find("1", "a").is_some() && cache.find("2", "a").is_none());
        assert_eq!(put(&cache, "b", b"123456"), "123456", "it is served though it pushes another out");
        assert!(cache.find("1", "a").is_none() || cache.find("1", "b").is_none());
        drop(cache.begin().unwrap());
        let cache = Cache::open(directory.path(), Duration::from_millis(1), 10).unwrap();
        assert_eq!(fs::read_dir(directory.path().join(FOLDER)).unwrap().count(), 0, "it begins empty");
        put(&cache, "c", b"1");
        let until = std::time::Instant::now() + Duration::from_secs(10);
        while fs::read_dir(directory.path().join(FOLDER)).unwrap().count() > 0 {
            assert!(std::time::Instant::now() < until, "time takes it");
            std::thread::yield_now();
        }
        assert!(cache.find("1", "c").is_none());
    }
}
