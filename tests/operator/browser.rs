//! A real browser, driven as a person would drive it.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fantoccini::{Client, ClientBuilder, Locator};
use serde_json::json;

/// How long a page may take to show what it must.
const WITHIN: Duration = Duration::from_secs(30);

/// The driver's process, ended with the test.
struct Driver(Child);

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A browser with one tab and a profile of its own.
pub(crate) struct Browser {
    tab: Client,
    _driver: Driver,
    _profile: tempfile::TempDir,
}

impl Browser {
    pub(crate) async fn start() -> Self {
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .spawn()
            .map(Driver)
            .expect("chromedriver is there: ./test installs it");
        let lines = BufReader::new(driver.0.stdout.take().unwrap()).lines();
        // "ChromeDriver was started successfully on port 41231."
        let port = lines
            .map_while(Result::ok)
            .find_map(|line| {
                line.strip_suffix('.')?.rsplit_once("successfully on port ")?.1.parse::<u16>().ok()
            })
            .expect("the driver says its port");
        let profile = tempfile::tempdir().unwrap();
        let arguments = json!([
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            format!("--user-data-dir={}", profile.path().display()),
        ]);
        let wanted =
            json!({"goog:chromeOptions": {"args": arguments}, "goog:loggingPrefs": {"browser": "ALL"}});
        let serde_json::Value::Object(wanted) = wanted else { unreachable!() };
        let address = format!("http://127.0.0.1:{port}");
        let tab = ClientBuilder::new(hyper_util::client::legacy::connect::HttpConnector::new())
            .capabilities(wanted)
            .connect(&address)
            .await
            .unwrap();
        Self { tab, _driver: driver, _profile: profile }
    }

    pub(crate) async fn go(&self, address: &str) {
        self.tab.goto(address).await.unwrap();
    }

    /// Waits until the page shows this text.
    pub(crate) async fn shows(&self, text: &str) {
        let path = format!("//body//*[text()[contains(., \"{text}\")] and not(self::script)]");
        let found = self.tab.wait().at_most(WITHIN).for_element(Locator::XPath(&path)).await;
        if found.is_err() {
            panic!("{text} is not shown, but: {}", self.text().await);
        }
    }

    /// Waits until the page does not show this text.
    pub(crate) async fn hides(&self, text: &str) {
        let until = tokio::time::Instant::now() + WITHIN;
        while self.text().await.contains(text) {
            assert!(tokio::time::Instant::now() < until, "{text} is shown: {}", self.text().await);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// All the text that a person sees.
    pub(crate) async fn text(&self) -> String {
        self.tab.find(Locator::Css("body")).await.unwrap().text().await.unwrap()
    }

    /// All that the page is made of.
    pub(crate) async fn source(&self) -> String {
        self.tab.source().await.unwrap()
    }

    /// Presses the button or follows the link with this text.
    pub(crate) async fn press(&self, text: &str) {
        let path = format!("//*[(self::button or self::a) and normalize-space()=\"{text}\"]");
        let found = self.tab.wait().at_most(WITHIN).for_element(Locator::XPath(&path)).await.unwrap();
        found.click().await.unwrap();
    }

    /// Says yes to the question that stands.
    pub(crate) async fn confirm(&self) {
        let yes =
            self.tab.wait().at_most(WITHIN).for_element(Locator::Css("dialog[open] #yes")).await.unwrap();
        yes.click().await.unwrap();
    }

    /// Writes into the field with this id.
    pub(crate) async fn write(&self, id: &str, text: &str) {
        let field = self.tab.wait().at_most(WITHIN).for_element(Locator::Id(id)).await.unwrap();
        field.send_keys(text).await.unwrap();
    }

    /// What a script gives.
    pub(crate) async fn run(&self, script: &str) -> serde_json::Value {
        self.tab.execute(script, Vec::new()).await.unwrap()
    }

    pub(crate) async fn end(self) {
        self.tab.close().await.unwrap();
    }
}
