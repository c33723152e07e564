//! Holds the layers: who may import whom, what the pure core may not know, and that every file says what it is.
//!
//! Walks the sources, takes them apart into tokens (comments and literals fall away, so that a link in a text is no
//! import), resolves every path that begins with `crate` or climbs with `super`, and compares its first step below the
//! crate with the table. The scanner itself is tried on text that breaks each rule.

#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test: a panic is its report")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Each folder (or file) in `src`, and what of ours it may name beside itself.
///
/// Whoever may name `wire` or `actors` meets the domain's types in their signatures, so `net` may name `domain` too:
/// a session's deliveries come from `domain::view`.
const LAYERS: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("wire", &["domain"]),
    ("journal", &["domain"]),
    ("config", &["domain"]),
    ("actors", &["domain", "journal", "config"]),
    ("net", &["wire", "actors", "domain", "config"]),
    ("gateway", &["wire", "actors", "domain", "config"]),
    ("admin", &["actors"]),
    ("console", &[]),
    ("client", &["wire", "domain"]),
    (
        "cli",
        &["domain", "wire", "journal", "config", "actors", "net", "gateway", "admin", "console", "client"],
    ),
];

/// What the domain may not name: I/O, clocks, randomness, runtimes, encodings.
const UNKNOWN_TO_DOMAIN: &[&str] = &[
    "actix",
    "actix_rt",
    "actix_web",
    "bincode",
    "dashmap",
    "getrandom",
    "reqwest",
    "serde",
    "serde_json",
    "socket2",
    "tokio",
    "toml",
    "tracing",
    "Instant",
    "SystemTime",
    "UNIX_EPOCH",
];

/// What of `std` the domain may not name.
const STD_UNKNOWN_TO_DOMAIN: &[&str] = &["env", "fs", "io", "net", "os", "process", "thread"];

/// A piece of source text that matters for paths.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Name(String),
    /// `::`
    Step,
    Other(char),
}

fn tokens(source: &str) -> Vec<Token> {
    let text: Vec<char> = source.chars().collect();
    let at = |i: usize| text.get(i).copied().unwrap_or('\0');
    let in_name = |c: char| c.is_alphanumeric() || c == '_';
    let mut found = Vec::new();
    let mut i = 0;
    while i < text.len() {
        let c = at(i);
        if c == '/' && at(i + 1) == '/' {
            while i < text.len() && at(i) != '\n' {
                i += 1;
            }
        } else if c == '/' && at(i + 1) == '*' {
            i = after_block_comment(&text, i);
        } else if c == '"' {
            i = after_string(&text, i);
        } else if c == '\'' {
            i = after_quote(&text, i);
        } else if in_name(c) {
            let start = i;
            while in_name(at(i)) {
                i += 1;
            }
            let name: String = text[start..i].iter().collect();
            let raw = matches!(name.as_str(), "r" | "br" | "cr");
            let hashes = (i..).take_while(|i| at(*i) == '#').count();
            if raw && at(i + hashes) == '"' {
                i = after_raw_string(&text, i + hashes + 1, hashes);
            } else if raw && hashes == 1 {
                i += 1; // A raw identifier: its name follows.
            } else {
                found.push(Token::Name(name));
            }
        } else if c == ':' && at(i + 1) == ':' {
            found.push(Token::Step);
            i += 2;
        } else {
            if !c.is_whitespace() {
                found.push(Token::Other(c));
            }
            i += 1;
        }
    }
    found
}

fn after_block_comment(text: &[char], mut i: usize) -> usize {
    let mut depth = 0;
    while i < text.len() {
        match (text[i], text.get(i + 1)) {
            ('/', Some('*')) => (depth, i) = (depth + 1, i + 2),
            ('*', Some('/')) => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
        if depth == 0 {
            break;
        }
    }
    i
}

fn after_string(text: &[char], mut i: usize) -> usize {
    i += 1;
    while i < text.len() && text[i] != '"' {
        i += if text[i] == '\\' { 2 } else { 1 };
    }
    i + 1
}

fn after_raw_string(text: &[char], mut i: usize, hashes: usize) -> usize {
    while i < text.len() {
        if text[i] == '"' && text[i + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes {
            return i + 1 + hashes;
        }
        i += 1;
    }
    i
}

/// Behind a character literal, or behind the quote of a lifetime.
fn after_quote(text: &[char], i: usize) -> usize {
    match (text.get(i + 1), text.get(i + 2)) {
        (Some('\\'), _) => {
            (i + 3..text.len()).find(|end| text[*end] == '\'').map_or(text.len(), |end| end + 1)
        }
        (Some(_), Some('\'')) => i + 3,
        _ => i + 1,
    }
}

/// The module that a file is, from the crate's root: `src/domain/ids.rs` is `domain`, `ids`.
fn module_of(file: &str) -> Vec<String> {
    let path = file.trim_end_matches(".rs");
    let path = path.strip_suffix("/mod").unwrap_or(path);
    if matches!(path, "lib" | "main") { Vec::new() } else { path.split('/').map(str::to_owned).collect() }
}

/// The first steps below the crate's root of every path in the source that begins at the root or climbs to it.
fn reached(module: &[String], tokens: &[Token]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    // How deep in braces we are, and at which depths a module of this file began.
    let mut depth = 0;
    let mut inline: Vec<usize> = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        match token {
            Token::Other('{') => {
                depth += 1;
                let opens_module = at >= 2
                    && matches!(&tokens[at - 1], Token::Name(_))
                    && tokens[at - 2] == Token::Name("mod".to_owned());
                if opens_module {
                    inline.push(depth);
                }
            }
            Token::Other('}') => {
                inline.pop_if(|opened| *opened == depth);
                depth = depth.saturating_sub(1);
            }
            Token::Name(name) if at == 0 || tokens[at - 1] != Token::Step => {
                let rest = &tokens[at + 1..];
                if name == "crate" {
                    found.extend(first_names(rest));
                } else if name == "super" {
                    let step = [Token::Step, Token::Name("super".to_owned())];
                    let climbs = 1 + rest.chunks(2).take_while(|pair| **pair == step).count();
                    match (module.len() + inline.len()).checked_sub(climbs) {
                        Some(0) => found.extend(first_names(&rest[2 * (climbs - 1)..])),
                        Some(_) => {}
                        None => drop(found.insert("super beyond the root".to_owned())),
                    }
                }
            }
            _ => {}
        }
    }
    found
}

/// The names that may follow a path's beginning: one, or those of a group.
fn first_names(rest: &[Token]) -> Vec<String> {
    match rest {
        [Token::Step, Token::Name(name), ..] => vec![name.clone()],
        [Token::Step, Token::Other('*'), ..] => vec!["everything".to_owned()],
        [Token::Step, Token::Other('{'), group @ ..] => {
            let mut names = Vec::new();
            let mut depth = 1;
            let mut begins = true;
            for token in group {
                match token {
                    Token::Other('{') => depth += 1,
                    Token::Other('}') if depth == 1 => break,
                    Token::Other('}') => depth -= 1,
                    Token::Other(',') if depth == 1 => begins = true,
                    Token::Name(name) if begins => {
                        names.push(name.clone());
                        begins = false;
                    }
                    _ => {}
                }
            }
            names
        }
        _ => Vec::new(),
    }
}

/// What a file in `src` does against the rules, in words.
fn offences(file: &str, source: &str) -> Vec<String> {
    let mut offences = Vec::new();
    if !source.starts_with("//!") {
        offences.push(format!("{file} does not open with //!"));
    }
    let module = module_of(file);
    let tokens = tokens(source);
    let Some(layer) = module.first() else { return offences };
    let Some((_, may)) = LAYERS.iter().find(|(name, _)| name == layer) else {
        offences.push(format!("{file}: {layer} has no place in the table of layers"));
        return offences;
    };
    for name in reached(&module, &tokens) {
        if name != *layer && !may.contains(&name.as_str()) {
            offences.push(format!("{file}: {layer} must not name {name}"));
        }
    }
    let names: BTreeSet<&str> = tokens
        .iter()
        .filter_map(|token| if let Token::Name(name) = token { Some(name.as_str()) } else { None })
        .collect();
    if layer != "wire" && names.contains("bincode") {
        offences.push(format!("{file}: only wire names the binary codec"));
    }
    if layer == "domain" {
        let unknown = UNKNOWN_TO_DOMAIN.iter().filter(|name| names.contains(**name));
        offences.extend(unknown.map(|name| format!("{file}: the domain must not know {name}")));
        for (at, token) in tokens.iter().enumerate() {
            if matches!(token, Token::Name(name) if name == "std" || name == "core") {
                let unknown = first_names(&tokens[at + 1..]).into_iter();
                let unknown = unknown.filter(|name| STD_UNKNOWN_TO_DOMAIN.contains(&name.as_str()));
                offences.extend(unknown.map(|name| format!("{file}: the domain must not know std::{name}")));
            }
        }
    }
    offences
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            found.push(path);
        }
    }
}

fn files_below(folder: &str) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut paths = Vec::new();
    if root.is_dir() {
        rust_files(&root, &mut paths);
    }
    paths.sort();
    let name = |path: &Path| path.strip_prefix(&root).unwrap().to_str().unwrap().replace('\\', "/");
    paths.iter().map(|path| (name(path), fs::read_to_string(path).unwrap())).collect()
}

#[test]
fn every_layer_names_only_what_it_may() {
    let files = files_below("src");
    assert!(files.iter().any(|(file, _)| file == "domain/view.rs"), "the sources are found");
    // What a domain file tests of itself may read its own process's memory; the code before it may not.
    let judged = |file: &str, source: &str| match source.find("#[cfg(test)]\nmod tests {") {
        Some(tests) if file.starts_with("domain/") => source[..tests].to_owned(),
        _ => source.to_owned(),
    };
    let found: Vec<String> =
        files.iter().flat_map(|(file, source)| offences(file, &judged(file, source))).collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn every_file_says_what_it_is() {
    for folder in ["tests", "benches", "examples"] {
        for (file, source) in files_below(folder) {
            assert!(source.starts_with("//!"), "{folder}/{file} does not open with //!");
        }
    }
}

#[test]
fn the_program_is_a_shell_around_the_command_line() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/main.rs");
    let tokens = tokens(&fs::read_to_string(path).unwrap());
    let of_ours: BTreeSet<String> = tokens
        .iter()
        .enumerate()
        .filter(|(_, token)| **token == Token::Name("sharedline".to_owned()))
        .flat_map(|(at, _)| first_names(&tokens[at + 1..]))
        .collect();
    assert_eq!(of_ours, BTreeSet::from(["cli".to_owned()]));
}

#[test]
fn the_scanner_sees_what_breaks_the_rules() {
    let breaks: &[(&str, &str)] = &[
        ("domain/x.rs", "use crate::journal::Head;"),
        ("domain/x.rs", "use crate::{domain::ids, wire::{Frame, Kind}};"),
        ("domain/x.rs", "fn f() { crate::actors::go(); }"),
        ("domain/x.rs", "use super::super::net;"),
        ("domain/mod.rs", "use super::net;"),
        ("domain/mod.rs", "mod tests { use super::super::net; }"),
        ("domain/x.rs", "use crate::*;"),
        ("domain/x.rs", "fn f() -> std::time::Instant { now() }"),
        ("domain/x.rs", "use std::{fmt, fs::File};"),
        ("domain/x.rs", "#[derive(serde::Serialize)] struct X;"),
        ("wire/x.rs", "use crate::journal;"),
        ("journal/x.rs", "use crate::wire;"),
        ("journal/x.rs", "use bincode::encode;"),
        ("config/mod.rs", "use crate::actors;"),
        ("gateway/x.rs", "use crate::net;"),
        ("client.rs", "use super::net;"),
        ("net/a/b.rs", "mod x {} use super::super::super::gateway;"),
        ("net/x.rs", "const A: char = '\"'; use crate::gateway; const B: char = '\"';"),
        ("net/x.rs", "fn f<'a>(x: &'a str) { crate::gateway::g(r#\"\"\"#) }"),
        ("actors/x.rs", "macro_rules! m { () => { $crate::net::x() } }"),
        ("helpers/x.rs", ""),
    ];
    for (file, source) in breaks {
        let found = offences(file, &format!("//! Text.\n{source}"));
        assert_eq!(found.len(), 1, "{file}: {source}: {found:?}");
    }
    assert_eq!(offences("domain/x.rs", "use std::fmt;").len(), 1, "no //!");
}

#[test]
fn the_scanner_takes_no_text_for_an_import() {
    let keeps: &[(&str, &str)] = &[
        ("domain/x.rs", "/// See [`crate::journal`].\nuse super::ids; use crate::domain::view;"),
        (
            "domain/x.rs",
            "/* crate::net /* crate::net */ crate::net */ const A: &str = \"crate::net \\\" crate::net\";",
        ),
        ("domain/x.rs", "const A: &str = r#\"crate::net \" crate::net\"#; use std::time::Duration;"),
        (
            "domain/mod.rs",
            "mod tests { use super::*; mod deeper { use super::super::ids; } } use self::x::net;",
        ),
        ("domain/x.rs", "pub(crate) fn f() { let net = x::net::y(); }"),
        ("cli/serve.rs", "use crate::{net, gateway, actors};"),
        ("lib.rs", "pub mod net;"),
    ];
    for (file, source) in keeps {
        assert_eq!(offences(file, &format!("//! Text.\n{source}")), Vec::<String>::new(), "{source}");
    }
}
