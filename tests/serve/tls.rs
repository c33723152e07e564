//! TLS on both ports, with certificates made here.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion};
use sharedline::client::{self, Client, Options};
use sharedline::config::TokenHash;
use sharedline::wire::frame::Encoding;
use sharedline::wire::message::requests::Hello;
use sharedline::wire::message::{DeliverMode, Private, Who};

use crate::stage::{NUMBER, Peer, Serving, Stage, hello, plain, usual};

/// An authority, and what it signs for.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for a name and its key, both PEM.
    fn sign(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }

    fn write(&self, stage: &Stage, name: &str) {
        let (cert, key) = self.sign("127.0.0.1");
        fs::write(stage.path(&format!("{name}.pem")), cert).unwrap();
        fs::write(stage.path(&format!("{name}.key")), key).unwrap();
    }
}

/// `server.pem` and `server.key`, which nobody needs to believe.
pub(crate) fn own_certificate(stage: &Stage) {
    Authority::new().write(stage, "server");
}

const TLS: &str = "tls = { cert = \"server.pem\", key = \"server.key\" }";
const MUTUAL: &str = "tls = { cert = \"server.pem\", key = \"server.key\", client_ca = \"clients.pem\" }";

type Secure = StreamOwned<ClientConnection, TcpStream>;

fn roots(authority: &Authority) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(authority.0.der().clone()).unwrap();
    roots
}

fn over(address: std::net::SocketAddr, config: ClientConfig) -> Secure {
    let name = ServerName::IpAddress(address.ip().into());
    StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), plain(address))
}

fn secure(
    address: std::net::SocketAddr,
    authority: &Authority,
    versions: &[&'static SupportedProtocolVersion],
) -> Secure {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
    over(address, builder.with_root_certificates(roots(authority)).with_no_client_auth())
}

const BOTH: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];

fn served(stage: &Stage, authority: &Authority) -> Serving {
    authority.write(stage, "server");
    let admin = format!("{TLS}\nadmin_token_sha256 = \"{}\"", TokenHash::of("admin"));
    stage.configure(TLS, &admin, &usual());
    stage.serve()
}

#[test]
fn both_ports_speak_tls_and_nothing_else() {
    let (stage, authority) = (Stage::new(), Authority::new());
    let serving = served(&stage, &authority);
    for version in BOTH {
        let mut peer = Peer::over(secure(serving.tcp, &authority, &[version]));
        assert_eq!(peer.ask(&hello("crm", "crm"))["type"], "welcome", "{version:?}");
        assert_eq!(peer.ask(r#"{"type":"ping","id":2}"#)["type"], "pong");
    }
    let mut http = secure(serving.http, &authority, BOTH);
    http.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    let _ = http.read_to_string(&mut answer);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let mut in_the_clear = Peer::over(plain(serving.tcp));
    assert!(in_the_clear.ask(&hello("crm", "crm")).is_null());
    serving.logs("the peer does not speak tls", 1);
    let mut in_the_clear = plain(serving.http);
    in_the_clear.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = in_the_clear.read_to_end(&mut answer);
    assert!(!String::from_utf8_lossy(&answer).contains("HTTP/1.1"));
    let stranger = Authority::new();
    let mut unbelieved = Peer::over(secure(serving.tcp, &stranger, BOTH));
    assert!(unbelieved.ask(&hello("crm", "crm")).is_null());
    assert!(!serving.log().contains("panicked"));
}

#[test]
fn large_messages_travel_whole_over_tls() {
    let (stage, authority) = (Stage::new(), Authority::new());
    let serving = served(&stage, &authority);
    let mut crm = Peer::over(secure(serving.tcp, &authority, BOTH));
    crm.ask(&hello("crm", "crm"));
    crm.ask(&format!(r#"{{"type":"create_channel","id":2,"number":"{NUMBER}"}}"#));
    assert_eq!(crm.next()["type"], "membership");
    let mut gateway = Peer::over(secure(serving.tcp, &authority, BOTH));
    gateway.ask(&hello("", "whatsapp").replace("\"service\":\"\"", "\"gateway\":\"whatsapp\""));
    let body = "x".repeat(900_000);
    for at in 1..4 {
        let inbound = format!(
            r#"{{"type":"inbound","id":{at},"number":"{NUMBER}","message_id":"wamid.{at}","customer":{{"id":"16505551234","wa_id":"16505551234"}},"at":1795604791773,"content":{{"type":"text","text":{{"body":"{body}"}}}}}}"#
        );
        let accepted = gateway.ask(&inbound);
        assert_eq!(accepted["type"], "accepted", "{accepted}");
        assert_eq!(crm.next()["content"]["text"]["body"].as_str().map(str::len), Some(body.len()));
    }
}

#[test]
fn where_clients_need_a_certificate_one_of_the_authority_is_let_in_and_no_other() {
    let (stage, authority, clients) = (Stage::new(), Authority::new(), Authority::new());
    authority.write(&stage, "server");
    fs::write(stage.path("clients.pem"), clients.pem()).unwrap();
    stage.configure(MUTUAL, "", &usual());
    let serving = stage.serve();
    let with = |(cert, key): (String, String)| {
        let tls =
            client::Tls::new(authority.pem().as_bytes(), Some((cert.as_bytes(), key.as_bytes()))).unwrap();
        greet(&serving, Some(tls))
    };
    assert!(with(clients.sign("adapter")));
    assert!(!with(authority.sign("adapter")), "signed by another authority");
    let bare = client::Tls::new(authority.pem().as_bytes(), None).unwrap();
    assert!(!greet(&serving, Some(bare)));
    // Other clients from now on, with no restart; and nothing is resumed.
    let others = Authority::new();
    fs::write(stage.path("clients.pem"), others.pem()).unwrap();
    serving.reload(1);
    assert!(with(others.sign("adapter")));
    assert!(!with(clients.sign("adapter")));
}

/// Whether the crate's own client is let in.
fn greet(serving: &Serving, tls: Option<client::Tls>) -> bool {
    let hello = Hello {
        version: 1,
        who: Who::Service("crm".parse().unwrap()),
        portal: "acme".parse().unwrap(),
        token: Private::from("crm"),
        adapter: Some("client".parse().unwrap()),
        window: 16,
        deliver: DeliverMode::Share,
        from: Default::default(),
        heartbeat_ms: None,
    };
    let options = Options { address: serving.tcp, encoding: Encoding::Binary, hello };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { Client::connect_over(tls, options).await.is_ok() })
}

#[test]
fn a_reload_takes_new_certificates_for_new_connections_and_ends_none() {
    let (stage, authority) = (Stage::new(), Authority::new());
    let serving = served(&stage, &authority);
    let mut before = Peer::over(secure(serving.tcp, &authority, BOTH));
    assert_eq!(before.ask(&hello("crm", "crm"))["type"], "welcome");
    let next = Authority::new();
    next.write(&stage, "server");
    serving.reload(1);
    assert_eq!(before.ask(r#"{"type":"ping","id":2}"#)["type"], "pong");
    for port in [serving.tcp, serving.http] {
        let mut new = secure(port, &next, BOTH);
        assert!(new.conn.complete_io(&mut new.sock).is_ok(), "the new certificate");
        let mut old = secure(port, &authority, BOTH);
        assert!(old.conn.complete_io(&mut old.sock).is_err());
    }
    // A key of another certificate is refused whole.
    fs::write(stage.path("server.key"), authority.sign("127.0.0.1").1).unwrap();
    serving.signal("-HUP");
    serving.logs("tcp.tls.key", 1);
    serving.logs("the reload is refused", 1);
    let mut still = secure(serving.tcp, &next, BOTH);
    assert!(still.conn.complete_io(&mut still.sock).is_ok());
}

#[test]
fn beyond_loopback_there_is_no_plain_text_unless_it_is_asked_for() {
    let (stage, authority) = (Stage::new(), Authority::new());
    authority.write(&stage, "server");
    let check = |tcp: &str| {
        stage.configure(tcp, "", &usual());
        let text = fs::read_to_string(stage.path("sharedline.toml")).unwrap();
        fs::write(stage.path("sharedline.toml"), text.replacen("127.0.0.1:0", "0.0.0.0:0", 1)).unwrap();
        let output = stage.command(&["check-config"]).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, said) = check("");
    assert!(code == 78 && said.contains("tcp.listen") && said.contains("plain text"), "{code} {said}");
    assert_eq!(check("insecure = true").0, 0);
    assert_eq!(check(TLS).0, 0);
    let (code, said) = check("tls = { cert = \"server.key\", key = \"server.pem\" }");
    assert!(code == 78 && said.contains("tcp.tls.cert") && said.contains("tcp.tls.key"), "{said}");
}

#[test]
fn a_handshake_that_goes_nowhere_is_ended_and_holds_up_nobody() {
    let (stage, authority) = (Stage::new(), Authority::new());
    let serving = served(&stage, &authority);
    let mut stuck: Vec<TcpStream> = (0..300).map(|_| plain(serving.tcp)).collect();
    for stream in stuck.iter_mut().take(150) {
        stream.write_all(&[0x16, 3, 1, 2]).unwrap();
    }
    let mut peer = Peer::over(secure(serving.tcp, &authority, BOTH));
    assert_eq!(peer.ask(&hello("crm", "crm"))["type"], "welcome");
    let mut rest = Vec::new();
    let _ = stuck[0].read_to_end(&mut rest);
    serving.logs("the handshake took too long", 1);
}

#[test]
fn the_verbs_speak_tls() {
    let (stage, authority) = (Stage::new(), Authority::new());
    let serving = served(&stage, &authority);
    fs::write(stage.path("ca.pem"), authority.pem()).unwrap();
    let mut crm = Peer::over(secure(serving.tcp, &authority, BOTH));
    crm.ask(&hello("crm", "crm"));
    crm.ask(&format!(r#"{{"type":"create_channel","id":2,"number":"{NUMBER}"}}"#));
    let send = |tls: &[&str]| {
        let mut send =
            stage.command(&["send", "--portal", "acme", "--number", NUMBER, "--from", "16505551234"]);
        send.args(["--tcp", &serving.tcp.to_string()])
            .args(tls)
            .arg("hello")
            .env("SHAREDLINE_TOKEN", "whatsapp");
        send.output().unwrap()
    };
    let ca = stage.path("ca.pem");
    let sent = send(&["--tls-ca", ca.to_str().unwrap()]);
    assert_eq!(sent.status.code(), Some(0), "{}", String::from_utf8_lossy(&sent.stderr));
    assert_eq!(send(&[]).status.code(), Some(74), "in plain text it is not let in");
    assert_eq!(send(&["--tls-cert", "x"]).status.code(), Some(64));
    let list = |tls: &[&str]| {
        let mut list = stage.command(&["channel", "list", "--http", &serving.http.to_string()]);
        list.args(tls).env("SHAREDLINE_TOKEN", "admin").output().unwrap()
    };
    let listed = list(&["--tls-ca", ca.to_str().unwrap()]);
    assert!(String::from_utf8_lossy(&listed.stdout).contains(NUMBER), "{listed:?}");
    assert_eq!(list(&[]).status.code(), Some(74));
    fs::write(stage.path("stranger.pem"), Authority::new().pem()).unwrap();
    assert_eq!(list(&["--tls-ca", stage.path("stranger.pem").to_str().unwrap()]).status.code(), Some(74));
}
