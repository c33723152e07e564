//! The way to the first message, as the page has it: its commands are run word for word against a real `serve` and a
//! simulated Graph API, and print what the page says that they print.
//!
//! Left out are the commands that ask Meta (`sh meta`). Changed are the ports, which others may have, and what leaves for
//! Meta.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use sharedline::gateway::simulated::{Graph, Settings};

const PAGE: &str = include_str!("../../docs/first-message.md");
/// What stands between the blocks' output.
const MARK: &str = "==== block";

/// The page's blocks: commands, and the lines that they are said to print.
fn blocks(page: &str) -> Vec<(String, Vec<String>)> {
    let mut blocks: Vec<(String, Vec<String>)> = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let Some(kind) = line.strip_prefix("```") else { continue };
        let block: Vec<String> =
            lines.by_ref().take_while(|line| *line != "```").map(str::to_owned).collect();
        match kind {
            "sh" => blocks.push((block.join("\n"), Vec::new())),
            "text" => blocks.last_mut().unwrap().1.extend(block),
            "sh meta" => {}
            other => panic!("a block of an unknown kind: {other}"),
        }
    }
    blocks
}

/// Whether a line is what the page says, where `…` stands for anything.
fn is_like(line: &str, pattern: &str) -> bool {
    let mut parts = pattern.split('…');
    let Some(mut rest) = parts.next().and_then(|first| line.strip_prefix(first)) else { return false };
    let mut last = "";
    for part in parts {
        let Some(at) = (if part.is_empty() { Some(rest.len()) } else { rest.find(part) }) else {
            return false;
        };
        rest = &rest[at + part.len()..];
        last = part;
    }
    rest.is_empty() || (!last.is_empty() && line.ends_with(last))
}

#[test]
fn a_pattern_is_told_from_what_is_not_like_it() {
    assert!(is_like("created: ch-12  active", "created: ch-…  active"));
    assert!(is_like("{\"a\":1,\"b\":[2]}", "{…\"b\":[…]}"));
    assert!(!is_like("created: ch-12  dormant", "created: ch-…  active"));
    assert!(!is_like("403 Forbidden", "403"));
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A directory in which the page's commands find what they name.
fn place(directory: &Path) {
    symlink(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples"), directory.join("examples")).unwrap();
    fs::create_dir(directory.join("bin")).unwrap();
    symlink(env!("CARGO_BIN_EXE_sharedline"), directory.join("bin/sharedline")).unwrap();
}

#[tokio::test]
async fn the_way_to_the_first_message_is_as_the_page_has_it() {
    let settings = Settings {
        phone_number_id: "106540352242922".to_owned(),
        access_token: "THE-TOKEN-OF-THE-SYSTEM-USER".to_owned(),
    };
    let graph = Graph::start(0, settings).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    place(directory.path());
    let (tcp, http) = (free_port(), free_port());
    let blocks = blocks(PAGE);
    // The background's processes end with the script, whatever happens in it.
    let mut script =
        "set -eu\nPATH=$PWD/bin:$PATH\ntrap 'kill $(jobs -p) 2> /dev/null; wait' EXIT\n".to_owned();
    for (commands, _) in &blocks {
        script.push_str(&format!("echo '{MARK}'\n{commands}\n"));
    }
    let copy = "cp -r examples/deployment etc";
    let ports = format!(
        "cp -rL examples/deployment etc; sed -i 's/:7411/:{tcp}/; s/:7412/:{http}/' etc/sharedline.toml"
    );
    assert!(script.contains(copy));
    let script = script.replace(":7412", &format!(":{http}")).replace(copy, &ports);
    let mut command = Command::new("timeout");
    command.args(["60", "bash", "-c", &script]).current_dir(&directory).stdin(Stdio::null());
    command.env("SHAREDLINE__WHATSAPP__GRAPH_URL", graph.url()).env_remove("SHAREDLINE_TOKEN");
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let log = fs::read_to_string(directory.path().join("log")).unwrap_or_default();
    let whole = format!("{said}\n{}\n{log}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{whole}");
    let said = said.replace(&format!(":{tcp}"), ":7411").replace(&format!(":{http}"), ":7412");
    for ((commands, expected), said) in blocks.iter().zip(said.split(MARK).skip(1)) {
        let said: Vec<&str> = said.trim().lines().collect();
        let is_so = |expected: &String| said.iter().any(|line| is_like(line, expected));
        let missing: Vec<_> = expected.iter().filter(|expected| !is_so(expected)).collect();
        assert!(missing.is_empty(), "{commands}\nprints\n{said:#?}\nand not {missing:?}\n{whole}");
        assert!(expected.is_empty() || said.len() <= expected.len() + 2, "{commands}\nprints\n{said:#?}");
    }
    assert_eq!(graph.taken(), 1, "one reply left, once");
    assert!(!log.contains(" WARN "), "{log}");
}

#[test]
fn a_new_token_is_saved_for_the_owner_alone_and_nothing_is_written_over() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let save = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sharedline"));
        command.args(["token", "new", "--save", "crm"]).current_dir(&directory).output().unwrap()
    };
    assert_eq!(save().status.code(), Some(0));
    let read = |what: &str| fs::read_to_string(directory.path().join(what)).unwrap();
    let (token, hash) = (read("crm.token"), read("crm.sha256"));
    assert_eq!(sharedline::config::TokenHash::of(token.trim_end()).to_string(), hash.trim_end());
    let mode = fs::metadata(directory.path().join("crm.token")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(save().status.code(), Some(74));
    assert_eq!((read("crm.token"), read("crm.sha256")), (token, hash));
}
