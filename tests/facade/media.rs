//! Media and what is read of numbers and accounts: by whom, with whose token, and what nobody gets.

use std::io::{BufReader, ErrorKind, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::stand::{Broker, CUSTOMER, Callback, ID, Lines, WAIT, http, pause, read_message, webhook};

pub(crate) const WABA: &str = "102290129340398";
/// For how long the broker waits for a body.
const BODY_WITHIN: Duration = Duration::from_secs(10);
const PICTURE: &[u8] = b"\x89PNG, as good as one";
/// The SHA-256 of [`PICTURE`], from elsewhere than the code under test.
pub(crate) const PICTURE_SHA256: &str = "989ca2d84e8d3b492d6ff17e54a6bec35a9caaef3ffd3df0f4ade74bb25a8eff";

/// Meta's Graph API, as far as the facade reads it.
pub(crate) struct Meta {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Meta {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&heads);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let log = Arc::clone(&log);
                thread::spawn(move || {
                    let mut reader = BufReader::new(stream.try_clone().unwrap());
                    let mut stream = stream;
                    while let Some((head, body)) = read_message(&mut reader) {
                        let (status, body) = answer(&head, &body, address);
                        log.lock().unwrap().push(head);
                        let head = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n\r\n", body.len());
                        if stream.write_all(&[head.as_bytes(), &body].concat()).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { address, heads }
    }

    pub(crate) fn config(&self) -> String {
        format!("graph_url = \"http://{}/v23.0\"\n[media]\ncache_ttl = \"1h\"\n", self.address)
    }

    fn asked(&self, of: &str) -> usize {
        self.heads.lock().unwrap().iter().filter(|head| head.contains(of)).count()
    }
}

fn answer(head: &str, body: &[u8], address: SocketAddr) -> (u16, Vec<u8>) {
    let line = head.lines().next().unwrap();
    let (method, target) = (line.split(' ').next().unwrap(), line.split(' ').nth(1).unwrap());
    let path = target.split('?').next().unwrap();
    assert!(head.contains("Bearer the-numbers-own-token"), "with the number's own token: {head}");
    assert!(!head.contains("access_token") && !head.contains("Bearer bot"), "and nobody else's: {head}");
    let of = |value: Value| (200, value.to_string().into_bytes());
    match (method, path) {
        ("GET", "/v23.0/777") => of(json!({
            "url": format!("http://{address}/files/777"), "mime_type": "image/png", "sha256": PICTURE_SHA256,
            "file_size": PICTURE.len(), "id": "777", "messaging_product": "whatsapp",
        })),
        ("GET", "/files/777") => (200, PICTURE.to_vec()),
        ("DELETE", "/v23.0/888") => of(json!({ "success": true })),
        ("POST", "/v23.0/106540352242922/media") => {
            assert!(
                String::from_utf8_lossy(body).contains("name=\"file\"")
                    && head.contains("multipart/form-data")
            );
            of(json!({ "id": "888" }))
        }
        ("GET", "/v23.0/888") => of(json!({
            "url": "http://169.254.169.254/secrets", "mime_type": "image/png", "id": "888",
        })),
        ("GET", "/v23.0/106540352242922") => {
            of(json!({ "id": ID, "display_phone_number": "+1 555-078-3881", "certificate": "secret" }))
        }
        ("GET", "/v23.0/102290129340398/message_templates") => of(json!({ "data": [{ "name": target }] })),
        ("GET", "/v23.0/102290129340398/phone_numbers") => {
            of(json!({ "data": [{ "id": "999" }, { "id": ID, "verified_name": "Acme" }], "paging": {} }))
        }
        _ => (404, json!({ "error": { "code": 100, "message": "(#100) no" } }).to_string().into_bytes()),
    }
}

fn get(broker: &Broker, token: &str, path: &str) -> (u16, Value) {
    let token = format!("Bearer {token}");
    broker.request("GET", path, &[("authorization", &token)], b"")
}

fn image(bringer: &mut Lines, message_id: &str) {
    let content = json!({ "type": "image", "image": { "id": "777", "mime_type": "image/png" } });
    bringer.inbound(message_id, CUSTOMER, content);
}

#[test]
fn media_that_a_service_was_shown_come_with_the_numbers_token_and_for_nobody_else() {
    let meta = Meta::start();
    let services = [("crm", String::new()), ("bot", String::new()), ("late", String::new())];
    let broker = Broker::start_with(&services, &meta.config());
    Lines::service(&broker, "crm").create();
    Lines::service(&broker, "bot").create();
    let mut bringer = Lines::bringer(&broker);
    image(&mut bringer, "wamid.1");
    let path = "/v23.0/777";
    assert_eq!(get(&broker, "nobody", path).0, 401);
    assert_eq!(get(&broker, "spy", path).0, 400, "another portal's");
    assert_eq!(get(&broker, "late", path).0, 400, "it was shown nothing");
    let (status, known) = get(&broker, "bot", path);
    assert_eq!(status, 200, "{known}");
    assert_eq!((&known["mime_type"], &known["id"]), (&json!("image/png"), &json!("777")));
    let url = known["url"].as_str().unwrap();
    let own = format!("http://{}", broker.http);
    let link = url.strip_prefix(&own).unwrap_or_else(|| panic!("{url} is not the broker's"));
    // By its signature alone, or by a token alone.
    let (status, head, body) = http(broker.http, "GET", link, &[], b"");
    assert_eq!((status, body.as_slice()), (200, PICTURE));
    assert!(head.contains("image/png") && head.contains("nosniff") && head.contains("sandbox"), "{head}");
    let bare = link.split('?').next().unwrap();
    assert_eq!(http(broker.http, "GET", bare, &[], b"").0, 401);
    assert_eq!(http(broker.http, "GET", bare, &[("authorization", "Bearer bot")], b"").2, PICTURE);
    assert_eq!(http(broker.http, "GET", bare, &[("authorization", "Bearer late")], b"").0, 400);
    let forged = link.replace("service=bot", "service=late");
    assert_eq!(http(broker.http, "GET", &forged, &[], b"").0, 401);
    assert_eq!(meta.asked("/files/777"), 1, "fetched once and kept");
    // The media are a customer's: nobody deletes them.
    let delete = broker.request("DELETE", path, &[("authorization", "Bearer bot")], b"");
    assert_eq!((delete.0, &delete.1["error"]["code"]), (403, &json!(10)));
    // What history shows is known after a restart too.
    let broker = broker.kill_and_restart();
    assert_eq!(get(&broker, "bot", path).0, 200);
    assert_eq!(get(&broker, "late", path).0, 400);
}

/// Fetches the picture as the bot; it must come.
fn fetch(broker: &Broker) {
    let (status, _, body) =
        http(broker.http, "GET", "/facade/media/777", &[("authorization", "Bearer bot")], b"");
    assert_eq!((status, body.as_slice()), (200, PICTURE));
}

/// Waits until so many media lie on disk.
fn until_kept(broker: &Broker, count: usize) {
    let until = Instant::now() + WAIT;
    while broker.media_kept() != count {
        assert!(Instant::now() < until, "{} media lie on disk, not {count}", broker.media_kept());
        pause(5);
    }
}

/// A broker whose bot was shown the picture.
fn shown(meta: &Meta) -> Broker {
    let broker = Broker::start_with(&[("bot", String::new())], &meta.config());
    Lines::service(&broker, "bot").create();
    image(&mut Lines::bringer(&broker), "wamid.1");
    broker
}

#[test]
fn how_much_is_kept_and_for_how_long_changes_with_a_reload_and_with_0_bytes_nothing_is() {
    let meta = Meta::start();
    let broker = shown(&meta);
    let fetched = || meta.asked("/files/777");
    fetch(&broker);
    fetch(&broker);
    assert_eq!((fetched(), broker.media_kept()), (1, 1), "kept");
    let limits = |ttl: &str, bytes: &str| format!("cache_ttl = \"{ttl}\"\ncache_bytes = \"{bytes}\"\n");
    broker.reload("cache_ttl = \"1h\"\n", &limits("1h", "0"));
    until_kept(&broker, 0);
    fetch(&broker);
    fetch(&broker);
    assert_eq!(fetched(), 3, "each time anew, and whole all the same");
    until_kept(&broker, 0);
    broker.reload(&limits("1h", "0"), &limits("1h", "1MiB"));
    fetch(&broker);
    fetch(&broker);
    assert_eq!((fetched(), broker.media_kept()), (4, 1), "kept again");
    broker.reload(&limits("1h", "1MiB"), &limits("1s", "1MiB"));
    until_kept(&broker, 0);
    fetch(&broker);
    assert_eq!(fetched(), 5, "too old");
}

/// A service over TCP, and one with a callback URL that has joined its channel.
fn with_a_callback() -> (Meta, Callback, Broker) {
    let (meta, server) = (Meta::start(), Callback::start(|_| 200));
    let services = [("crm", String::new()), ("bot", webhook(&server))];
    let broker = Broker::start_with(&services, &meta.config());
    let mut crm = Lines::service(&broker, "crm");
    let channel = crm.create();
    crm.until_joined(&channel, 2);
    (meta, server, broker)
}

#[test]
fn addresses_of_media_begin_with_the_public_url_where_there_is_one_and_webhooks_have_none() {
    let (_meta, server, broker) = with_a_callback();
    let mut bringer = Lines::bringer(&broker);
    let url = || get(&broker, "bot", "/v23.0/777").1["url"].as_str().unwrap().to_owned();
    let mut told = 0;
    let mut no_address_is_told = |message_id: &str| {
        let picture =
            json!({ "id": "777", "mime_type": "image/png", "url": "https://lookaside.example/777" });
        bringer.inbound(message_id, CUSTOMER, json!({ "type": "image", "image": picture }));
        told += 1;
        let change = server.taken(told).pop().unwrap();
        let image = &change["value"]["messages"][0]["image"];
        assert_eq!(*image, json!({ "id": "777", "mime_type": "image/png" }));
    };
    no_address_is_told("wamid.1");
    let called = format!("http://{}", broker.http);
    assert!(url().starts_with(&format!("{called}/facade/media/777?")), "as it was called: {}", url());
    let public = "[http]\npublic_url = \"https://broker.example/wa/\"\n";
    broker.reload("[http]\n", public);
    no_address_is_told("wamid.2");
    let link = url();
    let path = link.strip_prefix("https://broker.example/wa").unwrap_or_else(|| panic!("{link}"));
    assert!(path.starts_with("/facade/media/777?"), "{path}");
    // What stands before the broker takes its own part of the path away.
    assert_eq!(http(broker.http, "GET", path, &[], b"").2, PICTURE);
    broker.reload(public, "[http]\n");
    assert!(url().starts_with(&called), "{}", url());
}

#[test]
fn of_uploads_two_go_at_once_and_who_comes_later_is_told_so_in_metas_shape() {
    let meta = Meta::start();
    let broker = Broker::start_with(&[("bot", String::new())], &meta.config());
    Lines::service(&broker, "bot").create();
    let path = format!("/v23.0/{ID}/media");
    let dawdle = || {
        let mut stream = TcpStream::connect(broker.http).unwrap();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer bot\r\n\
             content-type: multipart/form-data; boundary=x\r\ncontent-length: 100\r\n\r\n--x"
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream
    };
    let form = b"--x\r\ncontent-disposition: form-data; name=\"file\"\r\n\r\nabc\r\n--x--\r\n";
    let headers = [("authorization", "Bearer bot"), ("content-type", "multipart/form-data; boundary=x")];
    let upload = || broker.request("POST", &path, &headers, form);
    assert_eq!(upload().0, 200);
    let mut dawdlers = vec![dawdle(), dawdle()];
    let until = Instant::now() + WAIT;
    let refused = loop {
        let answer = upload();
        if answer.0 != 200 {
            break answer;
        }
        assert!(Instant::now() < until, "there is always room for one more");
        // One of them may have come while this one had its place.
        dawdlers.push(dawdle());
    };
    let error = &refused.1["error"];
    assert_eq!((refused.0, &error["code"]), (400, &json!(130_429)), "{error}");
    assert_eq!(
        (&error["type"], &error["message"]),
        (&json!("OAuthException"), &json!("(#130429) Rate limit hit"))
    );
    let details = error["error_data"]["details"].as_str().unwrap();
    assert!(details.contains("as many uploads as there may be"), "{details}");
    // Who is not let in is answered at once, though his body has not come.
    let waits = |stream: &TcpStream| {
        stream.set_nonblocking(true).unwrap();
        stream.peek(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    };
    // Well before the first of them is given up because his body does not come.
    let soon = Instant::now() + BODY_WITHIN / 2;
    while dawdlers.iter().filter(|stream| waits(stream)).count() != 2 {
        assert!(Instant::now() < soon, "two have a place, of {}", dawdlers.len());
    }
    drop(dawdlers);
    while upload().0 != 200 {
        assert!(Instant::now() < until, "who has gone makes room");
    }
}

#[test]
fn media_told_at_a_callback_url_may_be_fetched_at_once() {
    let (_meta, server, broker) = with_a_callback();
    image(&mut Lines::bringer(&broker), "wamid.1");
    let change = &server.taken(1)[0];
    let id = change["value"]["messages"][0]["image"]["id"].as_str().unwrap();
    assert_eq!(get(&broker, "bot", &format!("/v21.0/{id}?phone_number_id={ID}")).0, 200);
}

#[test]
fn media_sent_from_the_phone_are_the_parents_to_fetch() {
    let meta = Meta::start();
    let services = [("crm", String::new()), ("bot", String::new())];
    let broker = Broker::start_with(&services, &meta.config());
    Lines::service(&broker, "crm").create();
    Lines::service(&broker, "bot").create();
    let echo = json!({ "from": "15550783881", "to": CUSTOMER, "id": "wamid.phone", "timestamp": "1790000000",
        "type": "image", "image": { "id": "777", "mime_type": "image/png" } });
    let value = json!({ "messaging_product": "whatsapp", "message_echoes": [echo],
        "metadata": { "display_phone_number": "15550783881", "phone_number_id": ID } });
    broker.webhook(&json!({ "object": "whatsapp_business_account", "entry": [{ "id": WABA,
        "changes": [{ "field": "smb_message_echoes", "value": value }] }] }));
    assert_eq!(get(&broker, "bot", "/v23.0/777").0, 400, "to the others it is masked");
    assert_eq!(get(&broker, "crm", "/v23.0/777").0, 200);
}

#[test]
fn who_uploads_may_fetch_and_delete_and_no_other_may() {
    let meta = Meta::start();
    let services = [("crm", String::new()), ("bot", String::new())];
    let broker = Broker::start_with(&services, &meta.config());
    Lines::service(&broker, "crm").create();
    let form = b"--x\r\ncontent-disposition: form-data; name=\"file\"\r\n\r\nabc\r\n--x--\r\n";
    let headers = [("authorization", "Bearer bot"), ("content-type", "multipart/form-data; boundary=x")];
    let path = format!("/v23.0/{ID}/media");
    assert_eq!(broker.request("POST", &path, &headers, form), (200, json!({ "id": "888" })));
    assert_eq!(get(&broker, "crm", "/v23.0/888").0, 400);
    let broker = broker.kill_and_restart();
    let (status, known) = get(&broker, "bot", "/v23.0/888");
    assert_eq!(status, 200, "it is remembered: {known}");
    // Meta's word on where they are is not taken for more than it may be.
    let link = known["url"].as_str().unwrap().strip_prefix(&format!("http://{}", broker.http)).unwrap();
    assert_eq!(http(broker.http, "GET", link, &[], b"").0, 500);
    let crm = broker.request("DELETE", "/v23.0/888", &[("authorization", "Bearer crm")], b"");
    assert_eq!(crm.0, 400);
    let bot = broker.request("DELETE", "/v23.0/888", &[("authorization", "Bearer bot")], b"");
    assert_eq!(bot, (200, json!({ "success": true })));
}

#[test]
fn of_a_number_and_its_account_only_what_is_listed_is_read_and_nothing_changed() {
    let meta = Meta::start();
    let services = [("crm", String::new()), ("bot", String::new())];
    let broker = Broker::start_with(&services, &meta.config());
    Lines::service(&broker, "crm").create();
    let number = format!("/v23.0/{ID}");
    let known = json!({ "id": ID, "display_phone_number": "+1 555-078-3881" });
    assert_eq!(
        get(&broker, "bot", &format!("{number}?fields=id,display_phone_number")),
        (200, known.clone())
    );
    assert_eq!(get(&broker, "bot", &number), (200, known), "what is not listed is left out");
    assert_eq!(get(&broker, "bot", &format!("{number}?fields=certificate")).0, 400);
    assert_eq!(get(&broker, "spy", &number).0, 400);
    let account = format!("/v14.0/{WABA}");
    let (status, templates) =
        broker.request("GET", &format!("{account}/message_templates?limit=5&access_token=bot"), &[], b"");
    assert_eq!(status, 200, "{templates}");
    assert_eq!(templates["data"][0]["name"], format!("/v23.0/{WABA}/message_templates?limit=5"));
    let numbers = get(&broker, "bot", &format!("{account}/phone_numbers"));
    assert_eq!(numbers, (200, json!({ "data": [{ "id": ID, "verified_name": "Acme" }] })));
    assert_eq!(get(&broker, "bot", &format!("{account}/subscribed_apps")).0, 200);
    assert_eq!(get(&broker, "spy", &format!("{account}/subscribed_apps")).0, 400);
    assert_eq!(get(&broker, "bot", &format!("{account}/assigned_users")).0, 400);
    let change = |token: &str, method: &str, path: &str| {
        let token = format!("Bearer {token}");
        broker.request(method, path, &[("authorization", &token)], b"{}").1["error"]["code"].clone()
    };
    assert_eq!(change("bot", "POST", &number), 10, "only the parent manages the number");
    assert_eq!(change("bot", "POST", &format!("{number}/register")), 10);
    assert_eq!(change("bot", "DELETE", &format!("{account}/subscribed_apps")), 10);
    assert_eq!(change("crm", "POST", &number), 100, "and the broker does not do it for it either");
    assert_eq!(change("spy", "POST", &number), 100);
    // Subscribing is joining, as a program knows it.
    let mut crm = Lines::service(&broker, "crm");
    let channel = crm.create();
    assert_eq!(crm.subscribers(&channel), ["crm"]);
    let (status, _) = broker.request(
        "POST",
        &format!("{account}/subscribed_apps"),
        &[("authorization", "Bearer bot")],
        b"",
    );
    assert_eq!((status, crm.subscribers(&channel)), (200, vec!["crm".to_owned(), "bot".to_owned()]));
}
