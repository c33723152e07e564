//! Another configuration for a running broker, through the `Broker` handle: who stays connected, who is ended, what is
//! refused whole.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test: a panic is its report")]

mod world;

use std::sync::Arc;
use std::time::Duration;

use sharedline::actors::adapter::{Peer, Request};
use sharedline::actors::batch::BatchEntry;
use sharedline::actors::broker::{Breaks, ConnectError, Connected, Hello, PortalSetup, Setup, TokenSha256};
use sharedline::actors::port::{Answered, EndReason, Outgoing, Refusal};
use sharedline::actors::{Ask, Broker, Deliver, Limits, ReloadError};
use sharedline::domain::event::Event;
use sharedline::domain::ids::{ChannelId, Number};
use sharedline::domain::portal::Plan;
use sharedline::domain::view::Masking;
use sharedline::journal::Options;
use tempfile::TempDir;

const NUMBER: &str = "+15550783881";
const OTHER: &str = "+15550783882";
const WAIT: Duration = Duration::from_secs(20);

fn acme(services: &[&str], numbers: &[(&str, Option<&str>)]) -> PortalSetup {
    world::portal("acme", Plan::Bundle, services, numbers)
}

fn usual() -> PortalSetup {
    acme(&["crm", "desk"], &[(NUMBER, Some(world::GATEWAY))])
}

/// Segments that are made in no time.
fn small() -> Options {
    Options { segment_bytes: 256 << 10, ..Options::default() }
}

fn setup(portals: Vec<PortalSetup>) -> Setup {
    Setup { portals, limits: Limits::default() }
}

fn start(portals: Vec<PortalSetup>) -> (TempDir, Broker) {
    let directory = tempfile::tempdir().unwrap();
    let broker = world::start(directory.path(), &small(), setup(portals));
    (directory, broker)
}

fn sha(token: &str) -> TokenSha256 {
    use sha2::{Digest, Sha256};
    Sha256::digest(token).into()
}

struct Connection {
    connected: Connected,
    taken: Vec<Outgoing>,
    last_id: u64,
}

fn connect(broker: &Broker, portal: &str, peer: Peer, token: &str) -> Result<Connection, ConnectError> {
    let hello = Hello {
        portal: portal.parse().unwrap(),
        peer,
        token: token.to_owned(),
        adapter: Some(token.parse().unwrap()),
        window: 1_024,
        deliver: Deliver::Share,
    };
    Ok(Connection { connected: broker.connect(hello)?, taken: Vec::new(), last_id: 0 })
}

fn service(broker: &Broker, id: &str) -> Connection {
    connect(broker, "acme", Peer::Service(id.parse().unwrap()), id).unwrap()
}

impl Connection {
    /// The first thing that comes and that `pick` takes.
    async fn find<T>(&mut self, mut pick: impl FnMut(&Outgoing) -> Option<T>) -> T {
        loop {
            if let Some(found) = self.taken.iter().find_map(&mut pick) {
                return found;
            }
            let outlet = Arc::clone(self.connected.session.outlet());
            let mut more = Vec::new();
            if !outlet.take(&mut more) {
                tokio::time::timeout(WAIT, outlet.ready()).await.expect("something comes");
            }
            self.taken.extend(more);
        }
    }

    async fn ask(&mut self, request: Request) -> String {
        self.last_id += 1;
        let id = self.last_id;
        self.connected.session.ask(vec![(id, request)], 100).await.unwrap();
        self.find(|outgoing| match outgoing {
            Outgoing::Answers(answers) => {
                answers.iter().find(|(of, _)| *of == id).map(|(_, answered)| match answered {
                    Answered::Channel { seen, .. } => seen.channel.to_string(),
                    Answered::Refused(refusal) => format!("{refusal:?}"),
                    other => format!("{other:?}"),
                })
            }
            _ => None,
        })
        .await
    }

    async fn create(&mut self, number: &str) -> String {
        let number: Number = number.parse().unwrap();
        self.ask(Request::Create { number, backfill: false }).await
    }

    /// Waits until it hears that the service has left.
    async fn hears_of_leaving(&mut self, service: &str) {
        self.find(|outgoing| match outgoing {
            Outgoing::Deliveries(slice) => slice.entries().iter().find_map(|entry| match entry {
                BatchEntry::Record(record) => match &record.event {
                    Event::Membership(of) if of.action.as_str() == "deactivated" => {
                        (of.service.as_str() == service).then_some(())
                    }
                    _ => None,
                },
                BatchEntry::Gap { .. } => None,
            }),
            _ => None,
        })
        .await;
    }

    async fn ended(&mut self) -> EndReason {
        self.find(|outgoing| match outgoing {
            Outgoing::End(reason) => Some(*reason),
            _ => None,
        })
        .await
    }

    fn goes_on(&self) -> bool {
        !self.connected.session.outlet().is_ended()
    }
}

/// Stops it; connections that a test still has are of no interest any more.
async fn end(broker: Broker) {
    broker.stop(Duration::from_millis(200)).await.unwrap();
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

#[test]
fn a_token_that_is_gone_ends_its_sessions_and_no_other() {
    run(async {
        let mut portal = usual();
        portal.service_tokens.insert("crm".parse().unwrap(), vec![sha("crm"), sha("crm-2")]);
        let (_directory, broker) = start(vec![portal.clone()]);
        let mut old = service(&broker, "crm");
        let new = connect(&broker, "acme", Peer::Service("crm".parse().unwrap()), "crm-2").unwrap();
        let desk = service(&broker, "desk");
        let gateway =
            connect(&broker, "acme", Peer::Gateway("whatsapp".parse().unwrap()), "whatsapp").unwrap();
        let same = broker.reload(setup(vec![portal.clone()])).await.unwrap();
        assert_eq!(same.revoked, 0, "what changes nothing ends nobody");
        portal.service_tokens.insert("crm".parse().unwrap(), vec![sha("crm-2"), sha("crm-3")]);
        assert_eq!(broker.reload(setup(vec![portal])).await.unwrap().revoked, 1);
        assert_eq!(old.ended().await, EndReason::Revoked);
        assert!(new.goes_on() && desk.goes_on() && gateway.goes_on());
        let again = connect(&broker, "acme", Peer::Service("crm".parse().unwrap()), "crm");
        assert_eq!(again.err(), Some(ConnectError::Unauthenticated));
        assert!(connect(&broker, "acme", Peer::Service("crm".parse().unwrap()), "crm-3").is_ok());
        end(broker).await;
    });
}

#[test]
fn a_service_that_vanishes_is_deactivated_and_what_is_new_can_be_used() {
    run(async {
        let (_directory, broker) = start(vec![usual()]);
        let (mut crm, mut desk) = (service(&broker, "crm"), service(&broker, "desk"));
        let channel = crm.create(NUMBER).await;
        assert_eq!(desk.create(NUMBER).await, channel);
        assert!(crm.create(OTHER).await.contains("NotFound"));
        let next = acme(&["crm", "salesiq"], &[(NUMBER, Some(world::GATEWAY)), (OTHER, None)]);
        let globex = world::portal("globex", Plan::Isolated, &["crm"], &[("+15550783883", None)]);
        assert_eq!(broker.reload(setup(vec![next.clone(), globex])).await.unwrap().revoked, 1);
        assert_eq!(desk.ended().await, EndReason::Revoked);
        crm.hears_of_leaving("desk").await;
        assert!(crm.goes_on());
        assert!(crm.create(OTHER).await.starts_with("ch-"));
        assert!(crm.create("+15550783883").await.contains("NumberTaken"));
        assert_eq!(service(&broker, "salesiq").create(NUMBER).await, channel);
        let mut theirs = connect(&broker, "globex", Peer::Service("crm".parse().unwrap()), "crm").unwrap();
        assert!(theirs.create("+15550783883").await.starts_with("ch-"));
        end(broker).await;
    });
}

#[test]
fn what_breaks_what_exists_is_refused_whole() {
    run(async {
        let (_directory, broker) = start(vec![usual()]);
        let mut crm = service(&broker, "crm");
        let mut desk = service(&broker, "desk");
        let channel = crm.create(NUMBER).await;
        // Each takes Desk away as well, which must not happen either.
        let isolated = world::portal("acme", Plan::Isolated, &["crm"], &[(NUMBER, None)]);
        let elsewhere = world::portal("globex", Plan::Bundle, &["crm"], &[(NUMBER, None)]);
        let refused = async |portals| match broker.reload(setup(portals)).await {
            Err(ReloadError::Breaks(breaks)) => breaks,
            other => panic!("{other:?}"),
        };
        assert!(matches!(refused(vec![acme(&["crm"], &[])]).await, Breaks::NumberGone { .. }));
        assert!(matches!(refused(vec![isolated]).await, Breaks::PlanChanged { .. }));
        assert!(matches!(refused(vec![elsewhere.clone()]).await, Breaks::PortalGone { .. }));
        let gone_to_another = vec![acme(&["crm"], &[]), elsewhere.clone()];
        assert!(matches!(refused(gone_to_another).await, Breaks::NumberGone { .. }));
        let twice = broker.reload(setup(vec![acme(&["crm"], &[(NUMBER, None)]), elsewhere])).await;
        assert!(matches!(twice, Err(ReloadError::NumberTwice(_))), "{twice:?}");
        assert_eq!(desk.create(NUMBER).await, channel, "everything goes on as before");
        assert!(crm.goes_on() && desk.goes_on());
        let unknown = connect(&broker, "globex", Peer::Service("crm".parse().unwrap()), "crm");
        assert_eq!(unknown.err(), Some(ConnectError::Unauthenticated));
        end(broker).await;
    });
}

#[test]
fn a_number_without_a_channel_may_go_to_another_portal_and_a_portal_may_come_back() {
    run(async {
        let (directory, broker) = start(vec![usual()]);
        let globex = world::portal("globex", Plan::Bundle, &["crm"], &[(NUMBER, None)]);
        broker.reload(setup(vec![acme(&["crm"], &[]), globex.clone()])).await.unwrap();
        let mut theirs = connect(&broker, "globex", Peer::Service("crm".parse().unwrap()), "crm").unwrap();
        assert!(theirs.create(NUMBER).await.starts_with("ch-"));
        assert!(service(&broker, "crm").create(NUMBER).await.contains("NumberTaken"));
        // Gone, and back with another number.
        let mut ours = service(&broker, "crm");
        broker.reload(setup(vec![globex.clone()])).await.unwrap();
        assert_eq!(ours.ended().await, EndReason::Revoked);
        broker.reload(setup(vec![acme(&["crm"], &[(OTHER, None)]), globex.clone()])).await.unwrap();
        assert!(service(&broker, "crm").create(OTHER).await.starts_with("ch-"));
        assert!(theirs.goes_on());
        drop((ours, theirs));
        end(broker).await;
        let after = vec![acme(&["crm"], &[(OTHER, None)]), globex];
        let broker = world::start(directory.path(), &small(), setup(after));
        end(broker).await;
    });
}

#[test]
fn rules_change_under_open_connections() {
    run(async {
        let (_directory, broker) = start(vec![usual()]);
        let desk = service(&broker, "desk");
        let masking = || desk.connected.session.outlet().masking();
        assert_eq!(masking(), Masking::Broker);
        let mut trusted = usual();
        trusted.rules.services[1].masking = Masking::Service;
        broker.reload(setup(vec![trusted])).await.unwrap();
        assert_eq!(masking(), Masking::Service);
        let mut setup = setup(vec![usual()]);
        setup.limits.arbiters = 3;
        assert_eq!(broker.reload(setup).await.unwrap().at_next_start, ["limits.arbiters"]);
        assert_eq!(masking(), Masking::Broker, "trust that is taken away is gone at once");
        end(broker).await;
    });
}

#[test]
fn replies_go_the_way_that_their_number_has_now() {
    run(async {
        let with_two = |way: &str| {
            let mut portal = acme(&["crm"], &[(NUMBER, Some(way))]);
            portal.gateway_tokens.insert("second".parse().unwrap(), vec![sha("second")]);
            portal
        };
        let (_directory, broker) = start(vec![with_two("whatsapp")]);
        let mut crm = service(&broker, "crm");
        let channel: ChannelId = crm.create(NUMBER).await.parse().unwrap();
        let mut first =
            connect(&broker, "acme", Peer::Gateway("whatsapp".parse().unwrap()), "whatsapp").unwrap();
        let mut second =
            connect(&broker, "acme", Peer::Gateway("second".parse().unwrap()), "second").unwrap();
        let sent = |connection: &Outgoing| match connection {
            Outgoing::Send(send) => Some((send.reply_id.as_str().to_owned(), send.offset)),
            _ => None,
        };
        let accepted = crm.ask(template(channel, "16505551234", "r1")).await;
        assert!(accepted.starts_with("Accepted"), "{accepted}");
        let (reply, offset) = first.find(sent).await;
        assert_eq!(reply, "r1");
        broker.reload(setup(vec![with_two("second")])).await.unwrap();
        crm.ask(template(channel, "16505551235", "r2")).await;
        assert_eq!(second.find(sent).await.0, "r2");
        let outcome = sharedline::domain::command::SendOutcome::Sent("wamid.1".parse().unwrap());
        let late =
            first.ask(Request::Of(channel, Ask::Outcome { reply: offset, outcome: Box::new(outcome) })).await;
        assert_eq!(late, "Ok", "what the first one was handed it may still answer for");
        drop(first);
        assert!(crm.goes_on());
        end(broker).await;
    });
}

fn template(channel: ChannelId, to: &str, reply_id: &str) -> Request {
    use sharedline::domain::command::{Addressee, Command, ReplyCommand};
    use sharedline::domain::ids::CustomerName;
    let content = bytes::Bytes::from_static(br#"{"type":"template","template":{"name":"hello"}}"#);
    let reply = ReplyCommand {
        service: "crm".parse().unwrap(),
        agent: None,
        to: Addressee::Customer(CustomerName::read(to).unwrap()),
        reply_id: reply_id.parse().unwrap(),
        content: sharedline::wire::content::check_reply(&content).unwrap().content,
        callback_data: None,
        seen: None,
        confirm: None,
    };
    Request::Of(channel, Ask::from(Command::Reply(reply)))
}

#[test]
fn a_channel_that_is_opened_while_a_reload_is_asked_is_never_lost() {
    run(async {
        for round in 0..20 {
            let (directory, broker) = start(vec![usual()]);
            let mut crm = service(&broker, "crm");
            let reload = broker.reload(setup(vec![acme(&["crm"], &[])]));
            let (created, reloaded) = tokio::join!(crm.create(NUMBER), reload);
            let has_channel = created.starts_with("ch-");
            assert_eq!(has_channel, reloaded.is_err(), "round {round}: {created} {reloaded:?}");
            let fits = [Refusal::NotFound, Refusal::Unavailable].map(|refusal| format!("{refusal:?}"));
            assert!(has_channel || fits.contains(&created), "{created}");
            drop(crm);
            end(broker).await;
            let after = if has_channel { usual() } else { acme(&["crm"], &[]) };
            let broker = world::start(directory.path(), &small(), setup(vec![after]));
            end(broker).await;
        }
    });
}
