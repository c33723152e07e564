//! The one small trait that every disk operation of the journal goes through, and the real disk behind it.
//!
//! **Invariant:** nothing else in `journal` touches a file. So every crash, error and lost write that a disk can think
//! of can be played by the simulated disk ([`super::sim_disk`]), against the very code that runs in production.

use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::FallocateFlags;

/// Files and the directory are the broker's own: they hold customers' messages and keys.
const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;
const LOCK_FILE: &str = "LOCK";

/// One flat directory of files. An entry that was made, renamed or removed is sure to stay so only after
/// [`sync_directory`](Self::sync_directory).
pub trait Disk: Send + Sync + fmt::Debug {
    /// Takes the directory for this process; none if another has it. Held until the guard is dropped.
    ///
    /// # Errors
    /// When the disk refuses.
    fn lock(&self) -> io::Result<Option<DiskLock>>;

    /// The names of all files, in any order.
    ///
    /// # Errors
    /// When the disk refuses.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Opens a file that is there.
    ///
    /// # Errors
    /// When it is not, or the disk refuses.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Makes an empty file.
    ///
    /// # Errors
    /// When there is one of that name, or the disk refuses.
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Gives a file another name, in one step; a file that had it is gone.
    ///
    /// # Errors
    /// When there is no such file, or the disk refuses.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file. Who has it open reads on.
    ///
    /// # Errors
    /// When there is no such file, or the disk refuses.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes all that was made, renamed and removed before it stay so.
    ///
    /// # Errors
    /// When the disk refuses; then nothing is known.
    fn sync_directory(&self) -> io::Result<()>;

    /// Fills `bytes` with what nobody can guess, for a new store's id and keys.
    ///
    /// # Errors
    /// When there is no source of it.
    fn entropy(&self, bytes: &mut [u8]) -> io::Result<()>;

    /// The file's name as an operator would look for it.
    fn place(&self, name: &str) -> String;
}

/// What holds a directory for this process.
pub type DiskLock = Box<dyn Send + Sync>;

/// An open file. Positions are bytes from its beginning.
pub trait DiskFile: Send + Sync + fmt::Debug {
    /// Its length, in bytes.
    ///
    /// # Errors
    /// When the disk refuses.
    fn length(&self) -> io::Result<u64>;

    /// Fills `bytes` from `position`.
    ///
    /// # Errors
    /// When the file ends before, or the disk refuses.
    fn read_at(&self, bytes: &mut [u8], position: u64) -> io::Result<()>;

    /// Writes all of `bytes` at `position`, growing the file where need be.
    ///
    /// # Errors
    /// When the disk refuses; then any part of it may be written.
    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()>;

    /// Grows a file to a length and takes the room for it, without writing it; it reads as zeros.
    ///
    /// # Errors
    /// When there is no room, when it can not be taken without writing (`Unsupported`), or the disk refuses.
    fn reserve(&self, length: u64) -> io::Result<()>;

    /// Makes all that was written before it, and the length, stay.
    ///
    /// # Errors
    /// When the disk refuses; then nothing is known, and a second call proves nothing.
    fn sync(&self) -> io::Result<()>;

    /// Cuts the file, or grows it with zeros.
    ///
    /// # Errors
    /// When the disk refuses.
    fn set_length(&self, length: u64) -> io::Result<()>;
}

/// A directory of the operating system.
#[derive(Debug)]
pub struct RealDisk {
    directory: PathBuf,
}

impl RealDisk {
    /// Uses `directory`, which is made, with those above it, where it is not there.
    ///
    /// # Errors
    /// When it can not be made.
    pub fn at(directory: &Path) -> io::Result<Self> {
        let missing = !directory.try_exists()?;
        fs::DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(directory)?;
        let directory = directory.canonicalize()?;
        if let (true, Some(above)) = (missing, directory.parent()) {
            File::open(above)?.sync_all()?;
        }
        Ok(Self { directory })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

impl Disk for RealDisk {
    fn lock(&self) -> io::Result<Option<DiskLock>> {
        let path = self.path(LOCK_FILE);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            if let (true, Ok(name)) = (entry.file_type()?.is_file(), entry.file_name().into_string()) {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).open(self.path(name))?;
        Ok(Arc::new(RealFile(file)))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let path = self.path(name);
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(FILE_MODE).open(path)?;
        Ok(Arc::new(RealFile(file)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path(from), self.path(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path(name))
    }

    fn sync_directory(&self) -> io::Result<()> {
        File::open(&self.directory)?.sync_all()
    }

    fn entropy(&self, bytes: &mut [u8]) -> io::Result<()> {
        getrandom::fill(bytes).map_err(io::Error::other)
    }

    fn place(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }
}

#[derive(Debug)]
struct RealFile(File);

impl DiskFile for RealFile {
    fn length(&self) -> io::Result<u64> {
        self.0.metadata().map(|metadata| metadata.len())
    }

    fn read_at(&self, bytes: &mut [u8], position: u64) -> io::Result<()> {
        self.0.read_exact_at(bytes, position)
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, position)
    }

    fn reserve(&self, length: u64) -> io::Result<()> {
        Ok(rustix::fs::fallocate(&self.0, FallocateFlags::empty(), 0, length)?)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }
}
