//! What is printed: chapters, who says what, and what each service sees, side by side.

use anstyle::{AnsiColor, Style};

use super::cast::Rows;
use super::stage::{GATEWAY, NUMBER, PHONE_NUMBER_ID, PORTAL, SERVICES, Stage};
use crate::cli::out;

/// Width of a service's column, in characters.
const COLUMN: usize = 34;

/// Prints the story.
pub(super) struct Screen {
    title: Style,
    faint: Style,
    good: Style,
    bad: Style,
    columns: [Style; 3],
}

impl Screen {
    pub(super) fn new() -> Self {
        let colour = |colour: AnsiColor| colour.on_default();
        Self {
            title: Style::new().bold(),
            faint: Style::new().dimmed(),
            good: colour(AnsiColor::Green),
            bad: colour(AnsiColor::Red).bold(),
            columns: [colour(AnsiColor::Cyan), colour(AnsiColor::Yellow), colour(AnsiColor::Magenta)],
        }
    }

    fn line(&self, style: Style, text: &str) {
        out::line(&format!("{style}{text}{style:#}"));
    }

    pub(super) fn opening(&self, stage: &Stage) {
        self.line(self.title, "sharedline: one WhatsApp number, shared by CRM, Desk and SalesIQ");
        let process = stage.process_id().map_or_else(String::new, |id| format!(", process {id}"));
        out::line(&format!("  broker   tcp {}, http {}{process}", stage.tcp, stage.http));
        out::line(&format!("  journal  {} (fsync)", stage.data_dir().display()));
        out::line(&format!("  number   {NUMBER} of portal {PORTAL}"));
        out::line(&format!("  WhatsApp {} (a simulated Graph API)", stage.whatsapp.graph.url()));
    }

    pub(super) fn chapter(&self, number: usize, title: &str) {
        out::line("");
        self.line(self.title, &format!("{number}. {title}"));
    }

    /// Somebody does something, and what is answered.
    pub(super) fn says(&self, who: &str, what: &str, answer: &str) {
        let (good, faint) = (self.good, self.faint);
        out::line(&format!("  {who:<9} {what} {faint}→{faint:#} {good}{answer}{good:#}"));
    }

    /// A sentence of the story.
    pub(super) fn tells(&self, text: &str) {
        self.line(self.faint, &format!("  {text}"));
    }

    /// Something that was checked.
    pub(super) fn checked(&self, text: &str) {
        let good = self.good;
        out::line(&format!("  {good}✓{good:#} {text}"));
    }

    /// What each service saw, in the order of the offsets.
    pub(super) fn table(&self, rows: &Rows) {
        let heads: Vec<String> = SERVICES
            .iter()
            .zip(self.columns)
            .map(|(name, style)| cell(&name.to_uppercase(), style.bold()))
            .collect();
        out::line(&format!("  {}  {}", " ".repeat(4), heads.join(" ")));
        for (offset, cells) in rows {
            let cells: Vec<String> = SERVICES
                .iter()
                .zip(self.columns)
                .map(|(name, style)| match cells.get(name) {
                    Some(text) => cell(text, style),
                    None => cell("·", self.faint),
                })
                .collect();
            let faint = self.faint;
            out::line(&format!("  {faint}{:>4}{faint:#}  {}", offset.0, cells.join(" ")));
        }
    }

    pub(super) fn played(&self, stage: &Stage) {
        out::line("");
        self.line(self.good.bold(), "The story is played, and every check held.");
        if stage.is_kept() {
            out::line(&format!("The store stays in {}", stage.data_dir().display()));
        }
    }

    /// The commands for the user's own messages, ready to paste.
    pub(super) fn invite(&self, stage: &Stage) {
        let program = std::env::current_exe()
            .map_or_else(|_| "sharedline".to_owned(), |path| path.display().to_string());
        let config = stage.config().display().to_string();
        out::line("");
        self.line(self.title, "The broker stays open for you. Write as a customer, from another terminal:");
        out::line(&format!(
            "  {program} send --config {config} --token-file {} --portal {PORTAL} --number {NUMBER} --from 16505550000 \"Is anybody there?\"",
            stage.token_file(GATEWAY).display()
        ));
        self.line(
            self.title,
            "or send as a program written for WhatsApp's Cloud API does, with Desk's token:",
        );
        out::line(&format!(
            "  curl -s http://{}/v23.0/{PHONE_NUMBER_ID}/messages -H \"Authorization: Bearer $(cat '{}')\" \
             -H 'Content-Type: application/json' -d '{{\"messaging_product\":\"whatsapp\",\"to\":\"16505550000\",\
             \"type\":\"text\",\"text\":{{\"body\":\"Hello from curl\"}}}}'",
            stage.http,
            stage.token_file("desk").display()
        ));
        self.line(self.title, "or watch what a service sees:");
        out::line(&format!(
            "  {program} tail --config {config} --token-file {} --portal {PORTAL} --service desk",
            stage.token_file("desk").display()
        ));
        self.tells("What comes is shown here, and customers answer what they are sent. Ctrl-C ends it.");
    }

    pub(super) fn failed(&self, error: &anyhow::Error, log: &[String]) {
        self.line(self.bad, &format!("✗ {error:#}"));
        if !log.is_empty() {
            self.tells("the broker's log ends with:");
            for line in log {
                self.tells(line);
            }
        }
    }
}

/// A text in a column: cut or filled up to its width.
fn cell(text: &str, style: Style) -> String {
    let short: String = if text.chars().count() > COLUMN {
        text.chars().take(COLUMN - 1).chain(['…']).collect()
    } else {
        text.to_owned()
    };
    let filling = " ".repeat(COLUMN.saturating_sub(short.chars().count()));
    format!("{style}{short}{style:#}{filling}")
}
