//! Whose number a webhook is about, and whether who signed it may speak for that number.
//!
//! A number with an app secret of its own is believed only under that one; all others only under the default secret.
//! What fails this is treated in every way like a number that nobody has.

use std::collections::HashMap;
use std::sync::Arc;

use super::Route;
use super::signature::{Matched, SecretId, Secrets};

/// A number, as the configuration tells the gateway of it.
pub struct WebhookNumber {
    /// The number and its portal.
    pub to: Route,
    /// Meta's id of it, by which webhooks name it.
    pub phone_number_id: Option<String>,
    /// Meta's id of its account, by which webhooks name what is about all numbers of it.
    pub waba_id: Option<String>,
    /// The secret of the app that its webhooks come from, where it is not the default one.
    pub app_secret: Option<Vec<u8>>,
}

/// All numbers, and the secrets that sign for them.
#[derive(Debug, Default)]
pub struct Numbers {
    secrets: Secrets,
    entries: Vec<Entry>,
    by_phone_number_id: HashMap<Box<str>, usize>,
    by_digits: HashMap<Box<str>, usize>,
}

#[derive(Debug)]
struct Entry {
    to: Arc<Route>,
    waba_id: Option<Box<str>>,
    secret: Option<SecretId>,
}

impl Numbers {
    /// Takes the numbers of a configuration that was checked: no number and no `phone_number_id` stands there twice.
    #[must_use]
    pub fn new(default_secret: Option<&[u8]>, numbers: impl IntoIterator<Item = WebhookNumber>) -> Self {
        let mut all = Self::default();
        let default_secret = default_secret.map(|secret| all.secrets.add(secret));
        for number in numbers {
            let secret = number.app_secret.map(|secret| all.secrets.add(&secret)).or(default_secret);
            let index = all.entries.len();
            if let Some(id) = number.phone_number_id {
                all.by_phone_number_id.insert(id.into(), index);
            }
            all.by_digits.insert(digits(number.to.number.as_str()), index);
            let waba_id = number.waba_id.map(Into::into);
            all.entries.push(Entry { to: Arc::new(number.to), waba_id, secret });
        }
        all
    }

    /// The secrets to try on a webhook.
    #[must_use]
    pub fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// The number with this id, if one of the secrets that matched speaks for it.
    #[must_use]
    pub fn by_phone_number_id(&self, id: &str, matched: &Matched) -> Option<&Arc<Route>> {
        self.entry(*self.by_phone_number_id.get(id)?, matched)
    }

    /// The number that is written so, in whatever way, if one of the secrets that matched speaks for it.
    #[must_use]
    pub fn by_display_number(&self, display: &str, matched: &Matched) -> Option<&Arc<Route>> {
        self.entry(*self.by_digits.get(&digits(display))?, matched)
    }

    /// The numbers of this account that one of the secrets that matched speaks for.
    pub fn of_account<'n>(
        &'n self,
        waba_id: &'n str,
        matched: &'n Matched,
    ) -> impl Iterator<Item = &'n Arc<Route>> {
        let of_it = self.entries.iter().filter(move |entry| entry.waba_id.as_deref() == Some(waba_id));
        of_it.filter(|entry| entry.secret.is_some_and(|secret| matched.has(secret))).map(|entry| &entry.to)
    }

    fn entry(&self, index: usize, matched: &Matched) -> Option<&Arc<Route>> {
        let entry = self.entries.get(index)?;
        matched.has(entry.secret?).then_some(&entry.to)
    }
}

fn digits(number: &str) -> Box<str> {
    number.chars().filter(char::is_ascii_digit).collect()
}

#[cfg(test)]
mod tests {
    use super::super::signature::sign;
    use super::*;

    fn number(number: &str, id: &str, secret: Option<&str>) -> WebhookNumber {
        WebhookNumber {
            to: Route { portal: "acme".parse().unwrap(), number: number.parse().unwrap() },
            phone_number_id: Some(id.to_owned()),
            waba_id: Some("9".to_owned()),
            app_secret: secret.map(|secret| secret.as_bytes().to_vec()),
        }
    }

    fn signed_by(numbers: &Numbers, secret: &[u8]) -> Matched {
        numbers.secrets().check(Some(sign(secret, b"{}").as_bytes()), b"{}").unwrap()
    }

    #[test]
    fn a_secret_speaks_for_its_own_numbers_only() {
        let numbers = Numbers::new(
            Some(b"default"),
            [number("+15550783881", "1", None), number("+15550783882", "2", Some("own"))],
        );
        let by_default = signed_by(&numbers, b"default");
        assert!(numbers.by_phone_number_id("1", &by_default).is_some());
        assert!(numbers.by_phone_number_id("2", &by_default).is_none());
        let by_own = signed_by(&numbers, b"own");
        assert!(numbers.by_phone_number_id("1", &by_own).is_none());
        assert!(numbers.by_phone_number_id("2", &by_own).is_some());
        assert!(numbers.by_phone_number_id("3", &by_own).is_none());
        let of_account = |account: &str, matched: &Matched| -> Vec<String> {
            numbers.of_account(account, matched).map(|to| to.number.as_str().to_owned()).collect()
        };
        assert_eq!(of_account("9", &by_default), ["+15550783881"]);
        assert_eq!(of_account("9", &by_own), ["+15550783882"]);
        assert!(of_account("8", &by_own).is_empty());
    }

    #[test]
    fn without_any_secret_nobody_speaks_for_a_number() {
        let numbers =
            Numbers::new(None, [number("+15550783881", "1", None), number("+15550783882", "2", Some("own"))]);
        let by_own = signed_by(&numbers, b"own");
        assert!(numbers.by_phone_number_id("1", &by_own).is_none());
    }

    #[test]
    fn a_number_is_found_however_it_is_written() {
        let numbers = Numbers::new(Some(b"s"), [number("+15550783881", "1", None)]);
        let matched = signed_by(&numbers, b"s");
        for display in ["15550783881", "+15550783881", "+1 555-078-3881"] {
            assert!(numbers.by_display_number(display, &matched).is_some(), "{display}");
        }
        assert!(numbers.by_display_number("15550783882", &matched).is_none());
    }
}
