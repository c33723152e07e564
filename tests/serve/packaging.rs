//! What packages are made of: the manual, the unit, the image.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use crate::stage::Stage;

#[test]
fn every_verb_has_a_page_in_the_manual() {
    let stage = Stage::new();
    let made =
        Command::new(env!("CARGO_BIN_EXE_sharedline")).arg("man").arg(stage.path("man")).status().unwrap();
    assert!(made.success());
    let pages = fs::read_dir(stage.path("man")).unwrap();
    let pages: BTreeSet<String> =
        pages.map(|page| page.unwrap().file_name().into_string().unwrap()).collect();
    for verb in ["serve", "check-config", "send", "tail", "store-verify", "token-new"] {
        assert!(pages.contains(&format!("sharedline-{verb}.1")), "{verb}: {pages:?}");
    }
    let serve = fs::read_to_string(stage.path("man/sharedline-serve.1")).unwrap();
    assert!(serve.contains("log\\-format"), "{serve}");
}

#[test]
fn the_unit_and_the_image_start_the_program_by_arguments_that_it_knows() {
    let unit = include_str!("../../config/sharedline.service");
    let image = include_str!("../../Containerfile");
    let commands =
        unit.lines().filter_map(|line| line.split_once("=/usr/bin/sharedline ")).map(|(_, of)| of.to_owned());
    // What it runs, and its health check, which names the program as well.
    let words = image.lines().filter_map(|line| line.trim_start().strip_prefix("CMD "));
    let words = words.map(|words| serde_json::from_str::<Vec<String>>(words).unwrap().join(" "));
    let words = words.map(|words| words.trim_start_matches("/usr/bin/sharedline ").to_owned());
    let all: Vec<String> = commands.chain(words).collect();
    assert_eq!(all.len(), 4, "{all:?}");
    for arguments in all {
        let run = Command::new(env!("CARGO_BIN_EXE_sharedline")).args(arguments.split(' ')).output().unwrap();
        // The configuration is not there: that is all that is wrong.
        assert_eq!(run.status.code(), Some(74), "{arguments}: {}", String::from_utf8_lossy(&run.stderr));
    }
}

#[test]
fn the_proxies_of_the_example_let_through_what_adapters_and_programs_call_and_nothing_of_the_operators() {
    let proxies = ["Caddyfile", "nginx.conf"].map(|name| {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/deployment").join(name);
        std::fs::read_to_string(path).unwrap()
    });
    for proxy in proxies {
        for called in ["/webhooks/whatsapp", "/v1/ws", r"^/(v[0-9]+\.[0-9]+|facade/media)/"] {
            assert!(proxy.contains(called), "{called}: {proxy}");
        }
        assert!(!proxy.contains("/v1/admin") && !proxy.contains("/metrics"), "{proxy}");
    }
}
