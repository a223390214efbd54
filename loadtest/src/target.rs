//! A URL under load, as it is written on the command line: `URL[,rate=N][,connections=C]`.
//!
//! Only `http://`: the bid listener speaks nothing else, and TLS would measure the cipher. The address is looked up
//! once, before the run.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::str::FromStr;

use http::Uri;

/// Where requests go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// As it was given, without its own rate and connections.
    pub url: String,
    /// The `host` header.
    pub host: String,
    /// Path and query.
    pub path: String,
    /// Its first address.
    pub address: SocketAddr,
}

/// A target, and what it asks for itself.
#[derive(Clone, Debug, PartialEq)]
pub struct TargetArg {
    /// Where.
    pub target: Target,
    /// Requests a second of its own.
    pub rate: Option<f64>,
    /// Connections of its own.
    pub connections: Option<usize>,
}

/// Why a URL cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// Not a URL with host and path.
    #[error("{0:?} is no URL: {1}")]
    Url(String, String),
    /// Another scheme.
    #[error("{0:?}: only http:// is loaded")]
    Scheme(String),
    /// The name is not known.
    #[error("{0}: no address: {1}")]
    Address(String, String),
    /// A setting after the URL that is not a number in range.
    #[error("{0}: {1}")]
    Setting(String, String),
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(url: &str) -> Result<Self, TargetError> {
        let bad = |why: &str| TargetError::Url(url.to_owned(), why.to_owned());
        let uri: Uri = url.parse().map_err(|why| bad(&format!("{why}")))?;
        if uri.scheme_str() != Some("http") {
            return Err(TargetError::Scheme(url.to_owned()));
        }
        let authority = uri.authority().ok_or_else(|| bad("no host"))?;
        if authority.as_str().contains('@') {
            return Err(bad("a user name in it"));
        }
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let unknown = |why: String| TargetError::Address(authority.to_string(), why);
        let address = (host, uri.port_u16().unwrap_or(80))
            .to_socket_addrs()
            .map_err(|why| unknown(why.to_string()))?
            .next()
            .ok_or_else(|| unknown("none found".to_owned()))?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Ok(Self {
            url: url.to_owned(),
            host: authority.to_string(),
            path: path.to_owned(),
            address,
        })
    }
}

impl FromStr for TargetArg {
    type Err = TargetError;

    /// Settings are taken off the end, so that a comma in a path stays one.
    fn from_str(text: &str) -> Result<Self, TargetError> {
        let (mut url, mut rate, mut connections) = (text, None, None);
        while let Some((rest, setting)) = url.rsplit_once(',') {
            if let Some(value) = setting.strip_prefix("rate=") {
                rate = Some(
                    number_of_rate(value)
                        .map_err(|why| TargetError::Setting(setting.to_owned(), why))?,
                );
            } else if let Some(value) = setting.strip_prefix("connections=") {
                let count = value
                    .parse()
                    .ok()
                    .filter(|count| *count > 0)
                    .ok_or_else(|| {
                        TargetError::Setting(setting.to_owned(), "not a number from 1".to_owned())
                    })?;
                connections = Some(count);
            } else {
                break;
            }
            url = rest;
        }
        Ok(Self {
            target: url.parse()?,
            rate,
            connections,
        })
    }
}

/// A rate: requests a second, more than none.
pub(crate) fn number_of_rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if rate > 0.0 && rate <= 10_000_000.0 {
        Ok(rate)
    } else {
        Err("not a rate of more than 0 requests a second".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_with_and_without_settings() {
        let plain: TargetArg = "http://127.0.0.1:8080/bid/a".parse().expect("a URL");
        assert_eq!(plain.target.path, "/bid/a");
        assert_eq!(plain.target.host, "127.0.0.1:8080");
        assert_eq!((plain.rate, plain.connections), (None, None));
        let own: TargetArg = "http://127.0.0.1/b,c?d=1,connections=3,rate=1.5"
            .parse()
            .expect("a URL");
        assert_eq!(own.target.path, "/b,c?d=1");
        assert_eq!(own.target.address.port(), 80);
        assert_eq!((own.rate, own.connections), (Some(1.5), Some(3)));
        let six: TargetArg = "http://[::1]:9/".parse().expect("a URL");
        assert!(six.target.address.is_ipv6());
    }

    #[test]
    fn what_cannot_be_loaded_is_told() {
        for (text, why) in [
            ("https://127.0.0.1/", "only http:// is loaded"),
            ("127.0.0.1:80", "only http:// is loaded"),
            ("http://a b/", "is no URL"),
            ("http://u@127.0.0.1/", "user name"),
            ("http://127.0.0.1/,rate=0", "more than 0"),
            ("http://127.0.0.1/,rate=x", "not a number"),
            ("http://127.0.0.1/,connections=0", "from 1"),
        ] {
            let error = text.parse::<TargetArg>().expect_err(text).to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
