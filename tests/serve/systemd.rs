//! What a service manager hears.

use std::os::unix::net::UnixDatagram;
use std::time::Instant;

use crate::stage::{Stage, WITHIN, usual};

fn heard(socket: &UnixDatagram, but: &str) -> String {
    let until = Instant::now() + WITHIN;
    loop {
        assert!(Instant::now() < until, "it is told in time");
        let mut text = [0; 256];
        let read = socket.recv(&mut text).unwrap();
        let text = String::from_utf8(text[..read].to_vec()).unwrap();
        if text != but {
            return text;
        }
    }
}

#[test]
fn a_service_manager_is_told_ready_reloading_alive_and_stopping() {
    let stage = Stage::new();
    stage.configure("", "", &usual());
    let path = stage.path("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(WITHIN)).unwrap();
    let mut command = stage.command(&["serve"]);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "200000").env_remove("WATCHDOG_PID");
    let mut serving = stage.serve_by(command);
    let alive = "WATCHDOG=1";
    assert_eq!(heard(&socket, alive), "READY=1");
    assert_eq!((heard(&socket, ""), heard(&socket, "")), (alive.to_owned(), alive.to_owned()));
    serving.reload(1);
    let reloading = heard(&socket, alive);
    let at = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
    assert!(at.parse::<u64>().unwrap() > 0);
    assert_eq!(heard(&socket, alive), "READY=1");
    // A reload that is refused is over as well.
    stage.configure("colour = \"red\"", "", "");
    serving.signal("-HUP");
    assert!(heard(&socket, alive).starts_with("RELOADING=1"));
    assert_eq!(heard(&socket, alive), "READY=1");
    serving.signal("-TERM");
    assert_eq!(heard(&socket, alive), "STOPPING=1");
    assert_eq!(serving.ended(), 0);
}

#[test]
fn the_log_is_lines_of_json_where_that_is_asked_for() {
    let stage = Stage::new();
    stage.configure("", "", &usual());
    let serving = stage.serve_by(stage.command(&["serve", "--log-format", "json"]));
    serving.reload(1);
    let log = serving.log();
    let lines: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().any(|line| line["fields"]["message"] == "the configuration is reloaded"), "{log}");
}
