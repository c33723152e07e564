//! The segments that are open: readers share them, and only so many stay open at a time.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use super::disk::{Disk, DiskFile};
use super::segment::file_name;

/// Segments kept open at a time; well below the 1,024 files that a process may open on many systems.
const OPEN_SEGMENTS_MAX: usize = 64;

/// Open segments by number.
#[derive(Debug)]
pub(super) struct Files {
    disk: Arc<dyn Disk>,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    /// Each with the count of uses when it was last used.
    files: HashMap<u64, (Arc<dyn DiskFile>, u64)>,
    uses: u64,
}

impl Files {
    pub(super) fn new(disk: Arc<dyn Disk>) -> Self {
        Self { disk, open: Mutex::default() }
    }

    /// The segment's file, opened if need be.
    pub(super) fn get(&self, number: u64) -> io::Result<Arc<dyn DiskFile>> {
        {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            open.uses += 1;
            let now = open.uses;
            if let Some((file, used)) = open.files.get_mut(&number) {
                *used = now;
                return Ok(Arc::clone(file));
            }
        }
        let file = self.disk.open(&file_name(number))?;
        self.opened(number, &file);
        Ok(file)
    }

    /// Takes in a segment that is open already.
    pub(super) fn opened(&self, number: u64, file: &Arc<dyn DiskFile>) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.uses += 1;
        let now = open.uses;
        open.files.insert(number, (Arc::clone(file), now));
        if open.files.len() > OPEN_SEGMENTS_MAX {
            let oldest = open.files.iter().min_by_key(|(_, (_, used))| *used).map(|(number, _)| *number);
            if let Some(oldest) = oldest {
                open.files.remove(&oldest);
            }
        }
    }

    /// Closes the segments up to a number: they were given up.
    pub(super) fn close_through(&self, through: u64) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.files.retain(|number, _| *number > through);
    }

    /// The segment's file as an operator would look for it.
    pub(super) fn place(&self, number: u64) -> String {
        self.disk.place(&file_name(number))
    }
}
