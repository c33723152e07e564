//! The configuration: what the documented file says is what holds, and whatever is wrong is named with its key, its value
//! and what is accepted, never with a secret.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test: a panic is its report")]
#![allow(clippy::indexing_slicing, reason = "a test: a panic is its report")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sharedline::config::{Config, Durability, LoadError, MaskedEcho, Overrides, Problem, TokenHash, Way};
use sharedline::domain::portal::{PickUpRule, Plan, RosterSource};
use sharedline::domain::view::Masking;

const DOCUMENTED: &str = include_str!("../config/sharedline.toml");

fn load(text: &str) -> Result<Config, LoadError> {
    load_with(text, &[])
}

fn load_with(text: &str, environment: &[(&str, &str)]) -> Result<Config, LoadError> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("sharedline.toml");
    fs::write(&file, text).unwrap();
    let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::load(Some(&file), &Overrides { environment: environment.collect(), data_dir: None })
}

fn problems(text: &str) -> Vec<Problem> {
    match load(text) {
        Err(LoadError::Problems(problems)) => problems,
        other => panic!("{text}: {other:?}"),
    }
}

/// The documented file with every key that is commented out taken in, but for the files of secrets, which can not stand
/// beside the secrets themselves.
fn everything() -> String {
    let hash = TokenHash::of("a").to_string();
    let mut hashes = 0;
    let lines = DOCUMENTED.lines().filter(|line| !line.contains("_file"));
    let lines = lines.map(|line| {
        let line = line.strip_prefix("#:").unwrap_or(line);
        hashes += usize::from(line.contains("sha256 = "));
        // Every identity has a token of its own.
        let own = TokenHash::of(&hashes.to_string()).to_string();
        line.replace("[\"...\"]", &format!("[\"{own}\"]"))
            .replace("sha256 = \"...\"", &format!("sha256 = \"{hash}\""))
    });
    lines.collect::<Vec<_>>().join("\n").replace("\"adapter\" ", "\"config\" ")
}

#[test]
fn the_documented_file_is_the_default() {
    let (documented, default) = (load(DOCUMENTED).unwrap(), Config::default());
    assert_eq!(format!("{documented:?}"), format!("{default:?}"));
    let nothing = Config::load(None, &Overrides::default()).unwrap();
    assert_eq!(format!("{nothing:?}"), format!("{default:?}"));
}

#[test]
fn every_key_that_there_is_stands_in_the_documented_file() {
    let raw = include_str!("../src/config/raw.rs");
    let keys = raw.lines().filter_map(|line| line.trim().strip_prefix("pub(super) ")?.split_once(": "));
    let keys: Vec<&str> = keys.map(|(key, _)| key).filter(|key| !key.contains(' ')).collect();
    assert!(keys.len() > 50, "the keys are not read any more: {}", keys.len());
    for key in keys {
        let stands = DOCUMENTED.lines().any(|line| {
            let line = line.trim_start_matches("#:").trim_start();
            line.starts_with(&format!("{key} ="))
                || line == format!("[{key}]")
                || line.starts_with(&format!("[{key}] "))
                || line == format!("[[{key}]]")
                || line == format!("[[portals.{key}]]")
                || line.contains(&format!("{{ {key} ="))
                || line.contains(&format!(", {key} ="))
        });
        assert!(stands, "{key} does not stand in config/sharedline.toml");
    }
}

#[test]
fn every_setting_stands_in_the_operators_guide() {
    let guide = include_str!("../docs/operating.md");
    let table: toml::Table = DOCUMENTED.parse().unwrap();
    let mut settings = 0;
    for (section, keys) in &table {
        // What is a portal's or WhatsApp's is explained in the file itself.
        let Some(keys) = keys.as_table().filter(|_| section != "whatsapp") else { continue };
        for key in keys.keys() {
            settings += 1;
            assert!(guide.contains(&format!("`{section}.{key}`")), "{section}.{key}");
        }
    }
    assert!(settings > 10, "{settings}");
}

#[test]
fn every_file_in_config_is_valid() {
    let mut files = 0;
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("config")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "json") {
            // The dashboard, whose queries are looked at by `operator`.
            let text = fs::read_to_string(&path).unwrap();
            serde_json::from_str::<serde_json::Value>(&text)
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            continue;
        }
        if path.extension().is_none_or(|ending| ending != "toml") {
            continue;
        }
        Config::load(Some(&path), &Overrides::default())
            .unwrap_or_else(|error| panic!("{}: {error:?}", path.display()));
        files += 1;
    }
    assert!(files > 0);
}

#[test]
fn all_that_is_commented_out_is_understood_too() {
    let directory = tempfile::tempdir().unwrap();
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let mut text = everything();
    for (name, pem) in [("server.key", own.signing_key.serialize_pem()), ("server.pem", own.cert.pem())] {
        let file = directory.path().join(name);
        fs::write(&file, pem).unwrap();
        text = text.replace(&format!("{name:?}"), &format!("{file:?}"));
    }
    let config =
        load(&text.replace("clients.pem", directory.path().join("server.pem").to_str().unwrap())).unwrap();
    assert!(config.tcp.tls.is_some_and(|tls| tls.client_ca().is_some()));
    let portal = &config.portals[0];
    assert_eq!((portal.rules.plan, portal.rules.rosters), (Plan::Bundle, RosterSource::Config));
    let service = &portal.rules.services[0];
    assert_eq!((service.masking, service.pick_up), (Masking::Broker, PickUpRule::Exclusive));
    assert_eq!(service.claim_ttl_ms, Some(1_800_000));
    assert_eq!(portal.rules.fixed_rosters[&service.service].len(), 1);
    let number = &portal.numbers[0];
    assert_eq!(number.way, Way::Tcp("whatsapp".parse().unwrap()));
    assert_eq!((number.send_ttl, number.messages_per_second), (Duration::from_secs(3_600), 80));
    assert!(config.http.admin_token.is_some());
}

#[test]
fn the_environment_stands_over_the_file_and_a_flag_over_both() {
    let text = "data_dir = \"of-file\"\n[journal]\ndurability = \"os\"\n";
    let config = load_with(text, &[("SHAREDLINE__TCP__ACK_TIMEOUT", "5s")]).unwrap();
    assert_eq!(config.tcp.ack_timeout, Duration::from_secs(5));
    assert_eq!((config.data_dir, config.journal.durability), (PathBuf::from("of-file"), Durability::Os));
    let over =
        load_with(text, &[("SHAREDLINE__JOURNAL__DURABILITY", "fsync"), ("SHAREDLINE__DATA_DIR", "of-env")]);
    let over = over.unwrap();
    assert_eq!((over.data_dir, over.journal.durability), (PathBuf::from("of-env"), Durability::Fsync));
    let environment = BTreeMap::from([("SHAREDLINE__DATA_DIR".to_owned(), "of-env".to_owned())]);
    let flag = Config::load(None, &Overrides { environment, data_dir: Some("of-flag".into()) }).unwrap();
    assert_eq!(flag.data_dir, PathBuf::from("of-flag"));
}

#[test]
fn an_unknown_key_is_an_error_that_names_it_wherever_it_stands() {
    for text in ["dta_dir = \"x\"", "[tcp]\nlisten_on = \"x\"", "[[portals]]\nid = \"a\"\nplann = \"bundle\""]
    {
        let key = text.rsplit('\n').next().unwrap().split(' ').next().unwrap();
        match load(text) {
            Err(LoadError::Syntax(said)) => assert!(said.contains(key), "{said}"),
            other => panic!("{text}: {other:?}"),
        }
    }
    match load_with("", &[("SHAREDLINE__TCP__LISTEN_ON", "x")]) {
        Err(LoadError::Syntax(said)) => assert!(said.contains("listen_on"), "{said}"),
        other => panic!("{other:?}"),
    }
    assert!(matches!(load("tcp ="), Err(LoadError::Syntax(_))));
}

#[test]
fn every_problem_is_named_with_key_value_and_what_is_accepted() {
    let text = r#"
[tcp]
listen = "nowhere"
ack_timeout = "1 minute"
[journal]
durability = "sometimes"
retention = "10ms"
[limits]
dedup_bytes_max = "1MiB"
[[portals]]
id = "a b"
plan = "shared"
"#;
    let found = problems(text);
    let keys: Vec<&str> = found.iter().map(|problem| problem.key.as_str()).collect();
    assert_eq!(
        keys,
        [
            "tcp.listen",
            "tcp.ack_timeout",
            "journal.durability",
            "journal.retention",
            "limits.dedup_bytes_max",
            "portals[0].id",
            "portals[0].plan"
        ]
    );
    assert_eq!(found[2].value, "\"sometimes\"");
    assert_eq!(found[2].accepted, "fsync, os");
    assert!(found[3].accepted.contains("1s"), "{:?}", found[3]);
}

#[test]
fn a_secret_may_stand_in_a_file_and_in_no_problem() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("secret"), "s3cret\n").unwrap();
    let file = directory.path().join("c.toml");
    fs::write(&file, "[whatsapp]\napp_secret_file = \"secret\"\n").unwrap();
    let config = Config::load(Some(&file), &Overrides::default()).unwrap();
    assert_eq!(config.whatsapp.app_secret.as_ref().unwrap().expose(), "s3cret");
    assert!(!format!("{config:?}").contains("s3cret"));
    fs::write(&file, "[whatsapp]\napp_secret_file = \"secret\"\napp_secret = \"s3cret\"\n").unwrap();
    let said = format!("{:?}", Config::load(Some(&file), &Overrides::default()).unwrap_err());
    assert!(said.contains("app_secret_file") && !said.contains("s3cret"), "{said}");
    let said = format!("{:?}", problems("[http]\nadmin_token_sha256 = \"a plain token\"\n"));
    assert!(!said.contains("plain"), "{said}");
}

#[test]
fn what_a_reload_can_not_take_is_named() {
    let with = |number: &str, more: &str| {
        let service =
            "[[portals.services]]\nid = \"bot\"\nwebhook = { url = \"http://a/b\", app_secret = \"s\" }\n";
        let builtin = "gateway = \"builtin\"\nphone_number_id = \"1\"\naccess_token = \"t\"\n";
        load(&format!(
            "{more}\n[[portals]]\nid = \"acme\"\n{service}[[portals.numbers]]\nnumber = \"+15550783881\"\n{builtin}{number}"
        ))
        .unwrap()
    };
    let before = with("", "");
    let named = |number: &str, more: &str| before.needs_restart(&with(number, more));
    assert_eq!(named("", ""), [""; 0]);
    assert_eq!(
        named("send_ttl = \"2h\"\nmessages_per_second = 9\n", ""),
        [""; 0],
        "that holds from the reload on"
    );
    for holds_at_once in [
        "[whatsapp]\ngraph_url = \"http://127.0.0.1:1/v23.0\"",
        "[http]\npublic_url = \"https://a.example\"",
        "[media]\ncache_ttl = \"2h\"",
    ] {
        assert_eq!(named("", holds_at_once), [""; 0], "{holds_at_once}");
    }
    for (changed, key) in [
        ("data_dir = \"elsewhere\"", "data_dir"),
        ("[tcp]\nlisten = \"127.0.0.1:1\"", "tcp.listen"),
        ("[http]\nlisten = \"127.0.0.1:1\"", "http.listen"),
        ("[journal]\ndurability = \"os\"", "journal.durability"),
        ("[limits]\nrecent_bytes_max = \"1MiB\"", "limits.recent_bytes_max"),
        ("[limits]\ndrain_timeout = \"1s\"", "limits.drain_timeout"),
        ("[limits]\narbiters = 2", "limits.arbiters"),
    ] {
        assert_eq!(named("", changed), [key]);
    }
}

#[test]
fn a_services_weight_is_1_unless_it_says_another_from_1_to_100() {
    let weight =
        |line: &str| load(&format!("[[portals]]\nid = \"acme\"\n[[portals.services]]\nid = \"crm\"\n{line}"));
    let of = |line: &str| weight(line).unwrap().portals[0].rules.services[0].weight;
    assert_eq!((of(""), of("weight = 1"), of("weight = 100")), (1, 1, 100));
    for wrong in ["0", "101"] {
        let Err(LoadError::Problems(found)) = weight(&format!("weight = {wrong}")) else { panic!("{wrong}") };
        assert_eq!(found[0].key, "portals[0].services[0].weight");
        assert_eq!((found[0].value.as_str(), found[0].accepted.as_str()), (wrong, "1 to 100"));
    }
}

#[test]
fn who_is_who_must_be_clear() {
    let hash = TokenHash::of("t");
    let portal = |rest: &str| format!("[[portals]]\nid = \"acme\"\n{rest}");
    let twice = portal(&format!(
        "[[portals.services]]\nid = \"crm\"\ntoken_sha256 = \"{hash}\"\n[[portals.gateways]]\nid = \"g\"\ntoken_sha256 = [\"{hash}\"]\n"
    ));
    assert_eq!(problems(&twice)[0].key, "portals[0].gateways[0].token_sha256[0]");
    let service = "[[portals.services]]\nid = \"crm\"\n";
    assert_eq!(problems(&portal(&[service, service].concat()))[0].key, "portals[0].services[1].id");
    let gateway = "[[portals.numbers]]\nnumber = \"+15550783881\"\ngateway = \"nobody\"\n";
    assert_eq!(problems(&portal(gateway))[0].key, "portals[0].numbers[0].gateway");
    let number = "[[portals.numbers]]\nnumber = \"+15550783881\"\nphone_number_id = \"1\"\n";
    let other = format!("{}[[portals]]\nid = \"other\"\n{number}", portal(number));
    let keys: Vec<String> = problems(&other).into_iter().map(|problem| problem.key).collect();
    assert_eq!(keys, ["portals[1].numbers[0].phone_number_id", "portals[1].numbers[0].number"]);
    let agents = "[[portals.services]]\nid = \"crm\"\nagents = [{ agent = \"ann\", name = \"Ann\" }]\n";
    assert_eq!(problems(&portal(agents))[0].key, "portals[0].services[0].agents");
}

#[test]
fn beyond_loopback_needs_a_word_and_what_is_not_there_is_refused() {
    assert_eq!(problems("[tcp]\nlisten = \"0.0.0.0:7411\"\n")[0].key, "tcp.listen");
    assert!(load("[tcp]\nlisten = \"0.0.0.0:7411\"\ninsecure = true\n").is_ok());
    assert!(load("[http]\nlisten = \"[::1]:0\"\n").is_ok());
    let half = problems("[http]\ntls = { cert = \"no-such.pem\" }\n");
    assert_eq!(
        half.iter().map(|problem| &*problem.key).collect::<Vec<_>>(),
        ["http.tls.cert", "http.tls.key"]
    );
}

#[test]
fn a_callback_url_needs_its_secret_and_what_others_say_there_is_one_of_three() {
    let service = |keys: &str| format!("[[portals]]\nid = \"a\"\n[[portals.services]]\nid = \"s\"\n{keys}\n");
    let hook = "webhook = { url = \"https://bot.example/hook\", app_secret = \"s3cret\" }";
    let config = load(&service(hook)).unwrap();
    let (id, callback) = &config.portals[0].callbacks[0];
    assert_eq!((id.as_str(), callback.url.as_str()), ("s", "https://bot.example/hook"));
    assert_eq!(callback.masked_echo, MaskedEcho::Echo);
    assert_eq!(callback.masked_echo_text, "A reply was sent from another service.");
    assert!(!format!("{config:?}").contains("s3cret"));
    let with =
        load(&service(&format!("{hook}\nmasked_echo = \"standby\"\nmasked_echo_text = \"x\""))).unwrap();
    let callback = &with.portals[0].callbacks[0].1;
    assert_eq!((callback.masked_echo, callback.masked_echo_text.as_str()), (MaskedEcho::Standby, "x"));
    let keys = |keys: &str| -> Vec<String> {
        problems(&service(keys)).into_iter().map(|problem| problem.key).collect()
    };
    let key = |name: &str| format!("portals[0].services[0].{name}");
    assert_eq!(keys("webhook = { url = \"https://x\" }"), [key("webhook.app_secret")]);
    assert_eq!(keys("webhook = { app_secret = \"x\" }"), [key("webhook.url")]);
    for wrong in ["u", "ftp://x/y", "http://"] {
        let text = format!("webhook = {{ url = \"{wrong}\", app_secret = \"x\" }}");
        assert_eq!(keys(&text), [key("webhook.url")], "{wrong}");
    }
    assert_eq!(keys("masked_echo = \"loud\""), [key("masked_echo")]);
    assert_eq!(keys("masked_echo_text = \"\""), [key("masked_echo_text")]);
    let waba = "[[portals]]\nid = \"a\"\n[[portals.numbers]]\nnumber = \"+15550783881\"\nwaba_id = \"x\"\n";
    assert_eq!(problems(waba)[0].key, "portals[0].numbers[0].waba_id");
    assert_eq!(problems("[http]\npublic_url = \"x\"\n")[0].key, "http.public_url");
    assert_eq!(problems("[media]\ncache_ttl = \"0s\"\n")[0].key, "media.cache_ttl");
}

#[test]
fn b18_a_role_is_one_services() {
    let portal = |roles: [&str; 2]| {
        let service =
            |id: &str, role: &str| format!("[[portals.services]]\nid = \"{id}\"\nthread_role = \"{role}\"\n");
        format!("[[portals]]\nid = \"a\"\n{}{}", service("crm", roles[0]), service("desk", roles[1]))
    };
    let config = load(&portal(["ai_agent", "escalation"])).unwrap();
    let roles =
        config.portals[0].thread_roles.iter().map(|(service, role)| (service.as_str(), role.as_str()));
    assert_eq!(roles.collect::<Vec<_>>(), [("crm", "ai_agent"), ("desk", "escalation")]);
    let role_of_all = "x".repeat(65);
    for wrong in ["escalation", "", "two words", &role_of_all] {
        let found = problems(&portal(["escalation", wrong]));
        assert_eq!(found[0].key, "portals[0].services[1].thread_role", "{wrong}");
    }
    let other = portal(["escalation", "utility"]).replace("id = \"a\"", "id = \"b\"");
    assert!(load(&(portal(["escalation", "utility"]) + &other)).is_ok(), "in each portal anew");
}

#[test]
fn a_number_without_a_gateway_takes_the_one_that_there_is() {
    let number = "[[portals.numbers]]\nnumber = \"+15550783881\"\n";
    let gateway = |id: &str| format!("[[portals.gateways]]\nid = \"{id}\"\n");
    let way = |text: String| load(&text).unwrap().portals[0].numbers[0].way.clone();
    let portal = "[[portals]]\nid = \"a\"\n";
    assert_eq!(way(format!("{portal}{number}")), Way::None);
    assert_eq!(way(format!("{portal}{}{number}", gateway("g"))), Way::Tcp("g".parse().unwrap()));
    assert_eq!(way(format!("{portal}{}{}{number}", gateway("g"), gateway("h"))), Way::None);
    let with_token = format!("[whatsapp]\naccess_token = \"t\"\n{portal}{}{number}", gateway("g"));
    assert_eq!(way(format!("{with_token}phone_number_id = \"1\"\n")), Way::Builtin);
    // It sends by Meta's id of the number, with a token; neither can be guessed.
    assert_eq!(problems(&with_token)[0].key, "portals[0].numbers[0].phone_number_id");
    let no_token = format!("{portal}{number}phone_number_id = \"1\"\ngateway = \"builtin\"\n");
    assert_eq!(problems(&no_token)[0].key, "portals[0].numbers[0].access_token");
    let of_its_own = format!("{no_token}access_token = \"t\"\n");
    assert_eq!(way(of_its_own.clone()), Way::Builtin);
    assert!(load(&of_its_own).unwrap().cannot_send().is_empty());
    let split = format!("{no_token}access_token = \"t s\"\n");
    assert_eq!(problems(&split)[0].key, "portals[0].numbers[0].access_token");
    assert!(!format!("{:?}", problems(&split)).contains("t s"), "a secret is in no problem");
    let config = load(&format!("{portal}{number}")).unwrap();
    assert_eq!(config.cannot_send().len(), 1);
}
