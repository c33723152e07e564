//! File, environment and flags, one over the other, before anything is looked at.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Value;

use super::raw::Raw;
use super::validate::validate;
use super::{Config, Problem};

/// What every variable of the environment that is a key begins with.
pub(super) const ENVIRONMENT_PREFIX: &str = "SHAREDLINE__";

/// What stands over the file: the environment, and the flags over that.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// Variables, `SHAREDLINE__SECTION__KEY`; others are not looked at.
    pub environment: BTreeMap<String, String>,
    /// `--data-dir`.
    pub data_dir: Option<PathBuf>,
}

impl Overrides {
    /// With the process's environment.
    #[must_use]
    pub fn of_process(data_dir: Option<PathBuf>) -> Self {
        let known = |(name, _): &(String, String)| name.starts_with(ENVIRONMENT_PREFIX);
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self { environment: std::env::vars_os().filter_map(text).filter(known).collect(), data_dir }
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file can not be read.
    #[error("configuration file {} can not be read", .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// It is no TOML, or has a key that does not exist.
    #[error("configuration is not understood: {0}")]
    Syntax(String),
    /// Values that can not be.
    #[error("configuration is wrong: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Problems(Vec<Problem>),
}

pub(super) fn load(file: Option<&Path>, overrides: &Overrides) -> Result<Config, LoadError> {
    let mut root = match file {
        Some(path) => read(path)?,
        None => toml::Table::new(),
    };
    for (name, value) in &overrides.environment {
        put(&mut root, name, value)?;
    }
    if let Some(data_dir) = &overrides.data_dir {
        root.insert("data_dir".to_owned(), Value::String(data_dir.display().to_string()));
    }
    let raw = Raw::deserialize(Value::Table(root)).map_err(|error| LoadError::Syntax(error.to_string()))?;
    // Secrets in files are looked for beside the configuration, not beside whoever starts the broker.
    let beside = file.and_then(Path::parent).unwrap_or(Path::new(""));
    validate(raw, beside).map_err(LoadError::Problems)
}

/// What a text says, with nothing over it.
pub(super) fn parse(text: &str) -> Result<Config, LoadError> {
    let table = table(Path::new("the text"), text)?;
    let raw = Raw::deserialize(Value::Table(table)).map_err(|error| LoadError::Syntax(error.to_string()))?;
    validate(raw, Path::new("")).map_err(LoadError::Problems)
}

fn read(path: &Path) -> Result<toml::Table, LoadError> {
    let text =
        std::fs::read_to_string(path).map_err(|error| LoadError::Read { path: path.to_owned(), error })?;
    table(path, &text)
}

/// With the line and the key, for people; the text of the line is left out, since it may hold a secret.
fn table(path: &Path, text: &str) -> Result<toml::Table, LoadError> {
    let table: toml::Table = toml::from_str(text).map_err(|error| syntax(path, text, &error))?;
    toml::from_str::<Raw>(text).map_err(|error| syntax(path, text, &error))?;
    Ok(table)
}

fn syntax(path: &Path, text: &str, error: &toml::de::Error) -> LoadError {
    let line = error
        .span()
        .map_or(0, |span| text.get(..span.start).map_or(0, |before| before.lines().count().max(1)));
    LoadError::Syntax(format!("{}, line {line}: {}", path.display(), error.message()))
}

/// Puts a variable's value where its name says. Lists of portals can not be named.
fn put(root: &mut toml::Table, name: &str, value: &str) -> Result<(), LoadError> {
    let path = name.strip_prefix(ENVIRONMENT_PREFIX).unwrap_or(name).to_ascii_lowercase();
    let mut keys: Vec<&str> = path.split("__").collect();
    let Some(last) = keys.pop().filter(|last| !last.is_empty()) else {
        return Err(LoadError::Syntax(format!("{name} names no key")));
    };
    let mut table = root;
    for key in keys {
        let section = table.entry(key).or_insert_with(|| Value::Table(toml::Table::new()));
        table = section
            .as_table_mut()
            .ok_or_else(|| LoadError::Syntax(format!("{name} names a key within a list or a value")))?;
    }
    let value = match value {
        "true" => Value::Boolean(true),
        "false" => Value::Boolean(false),
        text => Value::String(text.to_owned()),
    };
    table.insert(last.to_owned(), value);
    Ok(())
}
