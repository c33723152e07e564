//! The world that tests of the running broker share: a portal whose tokens are its names, and a broker on a directory.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use sharedline::actors::Broker;
use sharedline::actors::broker::{NumberSetup, PortalSetup, Setup};
use sharedline::domain::portal::{BotWhenClaimed, PickUpRule, Plan, PortalRules, RosterSource, ServiceRules};
use sharedline::domain::view::Masking;
use sharedline::journal::disk::RealDisk;
use sharedline::journal::{EmbeddedJournal, Options};

/// Where every test's replies leave, where they leave at all.
pub(crate) const GATEWAY: &str = "whatsapp";

fn rules(id: &&str) -> ServiceRules {
    ServiceRules {
        service: id.parse().unwrap(),
        family: (*id).to_owned(),
        masking: Masking::Broker,
        pick_up: PickUpRule::Exclusive,
        claim_ttl_ms: None,
        bot_when_claimed: BotWhenClaimed::Send,
        weight: 1,
    }
}

/// A portal with these services and numbers, and [`GATEWAY`]; everybody's token is his name.
pub(crate) fn portal(
    id: &str,
    plan: Plan,
    services: &[&str],
    numbers: &[(&str, Option<&str>)],
) -> PortalSetup {
    let sha = |token: &str| vec![Sha256::digest(token.as_bytes()).into()];
    let number = |(number, gateway): &(&str, Option<&str>)| NumberSetup {
        number: number.parse().unwrap(),
        gateway: gateway.map(|gateway| gateway.parse().unwrap()),
        built_in: None,
        send_ttl_ms: 3_600_000,
    };
    PortalSetup {
        rules: PortalRules {
            portal: id.parse().unwrap(),
            plan,
            rosters: RosterSource::Adapter,
            services: services.iter().map(rules).collect(),
            fixed_rosters: BTreeMap::new(),
        },
        numbers: numbers.iter().map(number).collect(),
        service_tokens: services.iter().map(|id| (id.parse().unwrap(), sha(id))).collect(),
        gateway_tokens: BTreeMap::from([(GATEWAY.parse().unwrap(), sha(GATEWAY))]),
    }
}

/// Starts a broker on the journal in `directory`.
#[allow(dead_code, reason = "not every test has a directory of the operating system")]
pub(crate) fn start(directory: &Path, options: &Options, setup: Setup) -> Broker {
    let opened = EmbeddedJournal::open(Arc::new(RealDisk::at(directory).unwrap()), options).unwrap();
    Broker::start_on(Arc::new(opened.journal), &opened.keys, setup).unwrap()
}
