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
    let words = image.lines().find_map(|line| line.strip_prefix("CMD ")).unwrap();
    let words: Vec<String> = serde_json::from_str(words).unwrap();
    let all: Vec<String> = commands.chain([words.join(" ")]).collect();
    assert_eq!(all.len(), 3, "{all:?}");
    for arguments in all {
        let run = Command::new(env!("CARGO_BIN_EXE_sharedline")).args(arguments.split(' ')).output().unwrap();
        // The configuration is not there: that is all that is wrong.
        assert_eq!(run.status.code(), Some(74), "{arguments}: {}", String::from_utf8_lossy(&run.stderr));
    }
}
