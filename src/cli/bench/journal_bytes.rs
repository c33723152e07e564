//! How large a journal is: its files up to the zeros at their ends.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// What is read at once, from a file's end towards its beginning, in bytes.
const READ_BYTES: u64 = 64 << 10;

/// Bytes of all files of a directory, without the zeros at their ends. A file that goes meanwhile is none.
pub(super) fn journal_bytes(directory: &Path) -> io::Result<u64> {
    let mut sum = 0;
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        sum += match File::open(&path).and_then(|file| written(&file)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            bytes => bytes.unwrap_or_default(),
        };
    }
    Ok(sum)
}

fn written(file: &File) -> io::Result<u64> {
    let metadata = file.metadata()?;
    let mut end = if metadata.is_file() { metadata.len() } else { 0 };
    let mut buffer = Vec::new();
    while end > 0 {
        let begin = end.saturating_sub(READ_BYTES);
        buffer.resize(usize::try_from(end - begin).unwrap_or_default(), 0);
        file.read_exact_at(&mut buffer, begin)?;
        if let Some(last) = buffer.iter().rposition(|byte| *byte != 0) {
            return Ok(begin + last as u64 + 1);
        }
        end = begin;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_at_a_files_end_do_not_count_and_those_within_it_do() {
        let directory = tempfile::tempdir().unwrap();
        let large = usize::try_from(READ_BYTES).unwrap() + 17;
        let whole = [vec![1; 10], vec![0; large], vec![2; 3]].concat();
        std::fs::write(directory.path().join("a"), [whole.clone(), vec![0; 3 * large]].concat()).unwrap();
        std::fs::write(directory.path().join("zeros"), vec![0; large]).unwrap();
        std::fs::write(directory.path().join("empty"), "").unwrap();
        std::fs::create_dir(directory.path().join("inner")).unwrap();
        assert_eq!(journal_bytes(directory.path()).unwrap(), whole.len() as u64);
    }
}
