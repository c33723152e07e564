//! What is asked: path, query, body. A name that is not known and one that stands twice are errors, so that a slip is
//! told and not passed over.

use std::fmt::Display;
use std::str::FromStr;
use std::sync::Arc;

use actix_web::{HttpRequest, web};
use serde::de::DeserializeOwned;

use super::Desk;
use super::reply::Refused;
use crate::actors::Broker;

/// One call.
pub(super) struct Call {
    desk: Arc<Desk>,
    request: HttpRequest,
    body: web::Bytes,
}

impl Call {
    pub(super) fn new(desk: Arc<Desk>, request: HttpRequest, body: web::Bytes) -> Self {
        Self { desk, request, body }
    }

    pub(super) fn desk(&self) -> &Desk {
        &self.desk
    }

    pub(super) fn broker(&self) -> &Broker {
        &self.desk.broker
    }

    /// A part of the path.
    pub(super) fn part<T: FromStr>(&self, name: &str) -> Result<T, Refused>
    where
        T::Err: Display,
    {
        let text = self.request.match_info().get(name).unwrap_or_default();
        // An id that can not be is one that nobody has.
        text.parse().map_err(|_| Refused::not_found())
    }

    /// The query; only these names may stand in it, each once.
    pub(super) fn query(&self, known: &[&str]) -> Result<Query, Refused> {
        let pairs = web::Query::<Vec<(String, String)>>::from_query(self.request.query_string())
            .map_err(|_| Refused::bad("the query can not be read"))?
            .into_inner();
        for (at, (name, _)) in pairs.iter().enumerate() {
            if !known.contains(&name.as_str()) {
                return Err(Refused::bad(format!("the query may have {}", list(known))));
            }
            if pairs.iter().take(at).any(|(other, _)| other == name) {
                return Err(Refused::bad(format!("{name} stands twice")));
            }
        }
        Ok(Query(pairs))
    }

    /// The body, one JSON object.
    pub(super) fn body<T: DeserializeOwned>(&self) -> Result<T, Refused> {
        serde_json::from_slice(&self.body).map_err(|error| Refused::bad(format!("the body: {error}")))
    }
}

fn list(known: &[&str]) -> String {
    if known.is_empty() { "no parameters".to_owned() } else { known.join(", ") }
}

/// A query, checked for names.
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// A value that may be there.
    pub(super) fn find<T: FromStr>(&self, name: &str) -> Result<Option<T>, Refused>
    where
        T::Err: Display,
    {
        let text = self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value);
        text.map(|text| read(name, text)).transpose()
    }

    /// A value that must be there.
    pub(super) fn get<T: FromStr>(&self, name: &str) -> Result<T, Refused>
    where
        T::Err: Display,
    {
        self.find(name)?.ok_or_else(|| Refused::bad(format!("{name} is needed")))
    }
}

/// Reads a value; what is wrong with it is said, and not what it is.
pub(super) fn read<T: FromStr>(name: &str, text: &str) -> Result<T, Refused>
where
    T::Err: Display,
{
    text.parse().map_err(|error| Refused::bad(format!("{name}: {error}")))
}
