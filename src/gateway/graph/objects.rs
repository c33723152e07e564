//! What is read from the Graph API on behalf of services, with the number's own access token: media, and what may be
//! known of a number and its account. Nothing is sent to customers here.

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, Response, StatusCode, Url};
use serde_json::Value;

use super::{Graph, Token, Unread, read};

/// How long Meta may take for an answer that is JSON.
const ANSWERED_WITHIN: Duration = Duration::from_secs(15);
/// How long media may take to come or to go.
const MEDIA_WITHIN: Duration = Duration::from_secs(120);
/// Largest answer that is JSON, in bytes.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// Where Meta keeps media, beside the Graph API's own host.
const MEDIA_HOSTS: [&str; 4] = [".facebook.com", ".fbsbx.com", ".fbcdn.net", ".whatsapp.net"];
/// The code of a token that is not, or no longer, one.
const BAD_TOKEN: i64 = 190;

/// Why there is nothing to read.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ObjectError {
    /// It could not be reached, or its answer makes no sense.
    #[error("WhatsApp gave no answer")]
    NoAnswer,
    /// It says more than is read.
    #[error("WhatsApp's answer is too long")]
    TooLong,
    /// It does not know the number's token, which is the operator's to mend and no service's.
    #[error("WhatsApp does not take the number's access token")]
    Token,
    /// The media are on a host that is none of Meta's.
    #[error("the media are where the broker does not look")]
    Elsewhere,
    /// The media are not given.
    #[error("WhatsApp does not give the media")]
    NoMedia,
    /// It refuses, in its own words.
    #[error("WhatsApp refuses with {code}")]
    Refused {
        /// Its number.
        code: i64,
        /// What it says, without the number.
        message: String,
        /// What it says beside that.
        details: Option<String>,
    },
}

impl Graph {
    /// Asks for an object or an edge of one.
    ///
    /// # Errors
    /// What WhatsApp says against it, or that it says nothing.
    pub async fn ask(
        &self,
        token: &Token,
        method: Method,
        path: &[&str],
        parameters: &[(String, String)],
    ) -> Result<Value, ObjectError> {
        let mut url = self.at(path);
        if !parameters.is_empty() {
            url.query_pairs_mut().extend_pairs(parameters);
        }
        answer(self.ask_at(method, url, token, ANSWERED_WITHIN).send().await).await
    }

    /// Uploads a body as it came.
    ///
    /// # Errors
    /// What WhatsApp says against it, or that it says nothing.
    pub async fn upload(
        &self,
        token: &Token,
        path: &[&str],
        content_type: &str,
        body: Bytes,
    ) -> Result<Value, ObjectError> {
        let request = self.ask_at(Method::POST, self.at(path), token, MEDIA_WITHIN);
        answer(request.header(CONTENT_TYPE, content_type).body(body).send().await).await
    }

    /// Fetches media from where the Graph API says that they are.
    ///
    /// # Errors
    /// When they are nowhere of Meta's, or not given.
    pub async fn media(&self, token: &Token, url: &str) -> Result<Response, ObjectError> {
        let url = Url::parse(url).ok().filter(|url| self.is_metas(url)).ok_or(ObjectError::Elsewhere)?;
        match self.ask_at(Method::GET, url, token, MEDIA_WITHIN).send().await {
            Ok(answer) if answer.status() == StatusCode::OK => Ok(answer),
            Ok(_) => Err(ObjectError::NoMedia),
            Err(_) => Err(ObjectError::NoAnswer),
        }
    }

    fn is_metas(&self, url: &Url) -> bool {
        let Some(host) = url.host_str() else { return false };
        let is_here = url.host_str() == self.base.host_str() && url.port() == self.base.port();
        let is_safe = url.scheme() == "https" || (is_here && url.scheme() == self.base.scheme());
        is_safe && (is_here || MEDIA_HOSTS.iter().any(|end| host.ends_with(end)))
    }
}

/// An answer that is JSON; Meta's own error, as it said it, where it is one.
async fn answer(answer: Result<Response, reqwest::Error>) -> Result<Value, ObjectError> {
    let mut answer = answer.map_err(|_| ObjectError::NoAnswer)?;
    let status = answer.status();
    let body = read(&mut answer, ANSWER_BYTES_MAX).await.map_err(|unread| match unread {
        Unread::TooLong => ObjectError::TooLong,
        Unread::BrokenOff => ObjectError::NoAnswer,
    })?;
    let value: Value = serde_json::from_slice(&body).map_err(|_| ObjectError::NoAnswer)?;
    if status.is_success() { Ok(value) } else { Err(metas(&value)) }
}

fn metas(value: &Value) -> ObjectError {
    let error = value.get("error");
    let of = |key: &str| error.and_then(|error| error.get(key));
    let code = of("code").and_then(Value::as_i64).unwrap_or(131_016);
    if code == BAD_TOKEN {
        return ObjectError::Token;
    }
    let message = of("message").and_then(Value::as_str).unwrap_or("WhatsApp refused");
    let message = message.strip_prefix(&format!("(#{code}) ")).unwrap_or(message).to_owned();
    let details = of("error_data").and_then(|data| data.get("details")).and_then(Value::as_str);
    ObjectError::Refused { code, message, details: details.map(str::to_owned) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_goes_to_meta_alone() {
        let graph = Graph::new("https://graph.facebook.com/v23.0").unwrap();
        let is_metas = |url: &str| graph.is_metas(&Url::parse(url).unwrap());
        assert!(is_metas("https://lookaside.fbsbx.com/whatsapp_business/attachments/?mid=1"));
        assert!(is_metas("https://graph.facebook.com/v23.0/x"));
        for wrong in [
            "http://lookaside.fbsbx.com/x",
            "https://fbsbx.com.evil.example/x",
            "https://evilfbsbx.com/x",
            "https://169.254.169.254/x",
            "http://127.0.0.1/x",
        ] {
            assert!(!is_metas(wrong), "{wrong}");
        }
        let here = Graph::new("http://127.0.0.1:1234/v23.0/").unwrap();
        assert!(here.is_metas(&Url::parse("http://127.0.0.1:1234/media/1").unwrap()));
        assert!(!here.is_metas(&Url::parse("http://127.0.0.1:1235/media/1").unwrap()));
    }
}
