//! The campaign's own test: each of these leaves out one thing that the journal's promise rests on, and the campaign
//! must then find a broken promise. Never set outside of tests.

/// What to leave out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sabotage {
    /// The sync of a commit.
    DataSync,
    /// The sync of the directory after a segment was made.
    DirectorySync,
    /// The check of a record's checksum when it is read.
    RecordCheck,
    /// The rewriting of what lies past `synced through` after an unclean stop.
    Rewriting,
    /// The sync of a run, and of its name, before the base that names it.
    RunSync,
    /// The holding of answers until what they answer is durable.
    Holding,
}
