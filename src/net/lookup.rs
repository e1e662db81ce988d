//! Where a peer is, for ureq: a numeric address is never looked up, and a name seldom.
//!
//! ureq asks before each request, also when it has a connection, and to keep the deadline its own
//! resolver starts a thread each time, which costs more than the rest of a request. Runs on the
//! thread that has the request.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

use crate::base::limits::LOOKUP_NAMES_MAX;
use crate::base::sync::Lock;

/// See the module's description.
#[derive(Debug)]
pub struct Lookup {
    /// Those of every peer.
    fixed: Option<Vec<SocketAddr>>,
    /// So long a name's addresses are used.
    age: Duration,
    by_name: DefaultResolver,
    found: Lock<HashMap<String, (Instant, ResolvedSocketAddrs)>>,
}

impl Lookup {
    /// Goes by a name's addresses for so long.
    pub fn new(age: Duration) -> Self {
        Self { fixed: None, age, by_name: DefaultResolver::default(), found: Lock::default() }
    }

    /// Looks nothing up: every peer is here.
    pub fn fixed(addresses: Vec<SocketAddr>) -> Self {
        Self { fixed: Some(addresses), ..Self::new(Duration::MAX) }
    }
}

impl Resolver for Lookup {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let name = uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
        let mut addresses = self.empty();
        if let Some(fixed) = &self.fixed {
            // There is room for sixteen.
            fixed.iter().take(16).for_each(|address| addresses.push(*address));
            return Ok(addresses);
        }
        if let Ok(address) = name.parse() {
            addresses.push(address);
            return Ok(addresses);
        }
        let lately = |(at, _): &&(Instant, _)| at.elapsed() < self.age;
        if let Some((_, addresses)) = self.found.lock().get(name).filter(lately) {
            return Ok(addresses.clone());
        }
        let addresses = self.by_name.resolve(uri, config, timeout)?;
        let mut found = self.found.lock();
        if found.len() >= LOOKUP_NAMES_MAX {
            found.clear();
        }
        found.insert(name.to_owned(), (Instant::now(), addresses.clone()));
        Ok(addresses)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(lookup: &Lookup, uri: &str) -> Vec<SocketAddr> {
        let uri = uri.parse().expect("a URI");
        lookup.resolve(&uri, &Config::default(), NextTimeout::default()).expect("known").to_vec()
    }

    #[test]
    fn only_a_name_is_looked_up_and_then_kept() {
        let lookup = Lookup::new(Duration::from_secs(60));
        let told = resolve(&lookup, "http://[::1]:7451/x");
        assert_eq!(told, ["[::1]:7451".parse().expect("an address")]);
        assert!(lookup.found.lock().is_empty());
        let told = resolve(&lookup, "http://localhost:7451/");
        assert!(told.iter().all(|one| one.ip().is_loopback() && one.port() == 7451), "{told:?}");
        let at = |name| lookup.found.lock().get(name).map(|(at, _)| *at);
        let first = at("localhost:7451").expect("kept");
        assert_eq!(resolve(&lookup, "http://localhost:7451/y"), told);
        assert_eq!(at("localhost:7451"), Some(first), "it was not looked up again");
        for port in 1..=LOOKUP_NAMES_MAX {
            resolve(&lookup, &format!("http://localhost:{port}/"));
        }
        assert_eq!(at("localhost:7451"), None);
        assert!(lookup.found.lock().len() <= LOOKUP_NAMES_MAX);
    }

    #[test]
    fn an_old_answer_is_looked_up_anew_and_a_fixed_one_never() {
        let lookup = Lookup::new(Duration::ZERO);
        let at = || lookup.found.lock().get("localhost:1").map(|(at, _)| *at);
        resolve(&lookup, "http://localhost:1/");
        let first = at();
        resolve(&lookup, "http://localhost:1/");
        assert!(at() > first);
        let here: Vec<SocketAddr> = vec!["127.0.0.1:9".parse().expect("an address")];
        assert_eq!(resolve(&Lookup::fixed(here.clone()), "http://nowhere:1/"), here);
    }
}
