//! How a master says that a request is one that it forwards, and how the other makes sure of it.
//!
//! `Mesophyll-Hop` names the master that forwards, `Mesophyll-Peer` proves it: a time, a number
//! that is used once, and the signature of both with the whole request under the secret that all
//! masters have. So a request that was overheard can neither be changed nor be sent again. Pure:
//! the time is passed in.

use std::collections::BTreeSet;
use std::fmt;

use super::super::token::{self, Secret};
use crate::base::limits::{PEER_CLOCKS_APART, PEER_NONCES_MAX};
use crate::base::sync::Lock;

/// The header of a forwarded request: `1; epoch=E; from=NAME`.
pub(in crate::api) const HOP: &str = "Mesophyll-Hop";

/// The header that proves it: `UNIX MS.NONCE.SIGNATURE`; in an answer it says `refused`.
pub(in crate::api) const PEER: &str = "Mesophyll-Peer";

/// What [`PEER`] says in the answer to a request whose proof is none.
pub(in crate::api) const REFUSED: &str = "refused";

/// Which master forwards a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::api) struct PeerHop<'h> {
    /// At which epoch the sender believes the tenant's shard to be held.
    pub(in crate::api) epoch: i64,
    /// The sender's name.
    pub(in crate::api) from: &'h str,
}

impl<'h> PeerHop<'h> {
    pub(super) fn parse(text: &'h str) -> Option<Self> {
        let (epoch, from) = text.strip_prefix("1; epoch=")?.split_once("; from=")?;
        Some(Self { epoch: epoch.parse().ok()?, from })
    }
}

impl fmt::Display for PeerHop<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "1; epoch={}; from={}", self.epoch, self.from)
    }
}

/// A request as it is signed.
#[derive(Debug, Clone, Copy)]
pub(in crate::api) struct ForwardedRequest<'r> {
    pub(in crate::api) method: &'r str,
    /// The path and its query, as the request line has them.
    pub(in crate::api) target: &'r str,
    pub(in crate::api) hop: PeerHop<'r>,
    pub(in crate::api) body: &'r [u8],
}

impl ForwardedRequest<'_> {
    fn signed_text(&self, unix_ms: u64, nonce: u64) -> String {
        let Self { method, target, hop: PeerHop { epoch, from }, body } = self;
        let request = format!("{method}\n{target}\n1\n{epoch}\n{from}");
        let hash = token::sha256(body);
        format!("mesophyll-peer\n{request}\n{unix_ms}\n{nonce:016x}\n{hash}")
    }

    /// The proof of the sender.
    pub(in crate::api) fn sign(&self, secret: &Secret, now_unix_ms: u64, nonce: u64) -> String {
        let signature = token::mac(secret, &self.signed_text(now_unix_ms, nonce));
        format!("{now_unix_ms}.{nonce:016x}.{signature}")
    }
}

/// What proofs were accepted already, so that none is a second time.
#[derive(Debug, Default)]
pub(in crate::api) struct PeerNonces(Lock<SeenNonces>);

#[derive(Debug, Default)]
struct SeenNonces {
    /// By their time. Those that are too old to be accepted are not kept.
    seen: BTreeSet<(u64, u64)>,
    /// Nothing up to this time is accepted: some of it was forgotten for want of room.
    floor_ms: u64,
}

impl PeerNonces {
    /// Checks the proof of a request.
    ///
    /// # Errors
    /// What is wrong with it, for the operator of the sender.
    pub(super) fn check(
        &self,
        secret: &Secret,
        request: &ForwardedRequest<'_>,
        proof: &str,
        now_unix_ms: u64,
    ) -> Result<(), &'static str> {
        let mut parts = proof.splitn(3, '.');
        let time = parts.next().and_then(|text| text.parse::<u64>().ok());
        let nonce = parts.next().and_then(|text| u64::from_str_radix(text, 16).ok());
        let (Some(time), Some(nonce), Some(signature)) = (time, nonce, parts.next()) else {
            return Err("the Mesophyll-Peer header is malformed");
        };
        if !token::is_signed(secret, &request.signed_text(time, nonce), signature) {
            return Err("the sender has another MESOPHYLL_API_SECRET");
        }
        let apart = PEER_CLOCKS_APART.as_millis() as u64;
        if time.abs_diff(now_unix_ms) > apart {
            return Err("the sender's clock and this master's differ too much");
        }
        match self.0.lock().accept(time, nonce, now_unix_ms.saturating_sub(apart)) {
            true => Ok(()),
            false => Err("the request was forwarded before, or too long ago"),
        }
    }
}

impl SeenNonces {
    fn accept(&mut self, time: u64, nonce: u64, oldest: u64) -> bool {
        while self.seen.first().is_some_and(|(time, _)| *time < oldest) {
            self.seen.pop_first();
        }
        if time <= self.floor_ms || !self.seen.insert((time, nonce)) {
            return false;
        }
        if self.seen.len() > PEER_NONCES_MAX
            && let Some((time, _)) = self.seen.pop_first()
        {
            self.floor_ms = time;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000_000;

    fn secret() -> Secret {
        Secret::new(*b"0123456789abcdef0123456789abcdef").expect("32 bytes")
    }

    fn request() -> ForwardedRequest<'static> {
        ForwardedRequest {
            method: "POST",
            target: "/i/kv/guild/1?x=1",
            hop: PeerHop { epoch: 7, from: "a" },
            body: b"{}",
        }
    }

    #[test]
    fn a_proof_is_what_any_other_hmac_makes() {
        // (printf 'mesophyll-peer\nPOST\n/i/kv/guild/1?x=1\n1\n7\na\n1700000000000\n'
        //     printf '0000000000000009\n%s' "$(printf '{}' | sha256sum | cut -d' ' -f1)"
        // ) | openssl dgst -sha256 -hmac 0123456789abcdef0123456789abcdef
        let expected = "1700000000000.0000000000000009.\
            a61f748554321a74530c1d9fff136160d23fee8dc495358b2669c90644a737dc";
        assert_eq!(request().sign(&secret(), NOW, 9), expected);
    }

    #[test]
    fn a_hop_reads_back_what_it_says() {
        let hop = PeerHop { epoch: -1, from: "a b" };
        assert_eq!(PeerHop::parse(&hop.to_string()), Some(hop));
        for text in ["", "1", "2; epoch=1; from=a", "1; epoch=x; from=a", "1; epoch=1", "1;epoch=1"]
        {
            assert_eq!(PeerHop::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_proof_is_good_once_in_its_time_and_for_its_request() {
        let nonces = PeerNonces::default();
        let proof = request().sign(&secret(), NOW, 9);
        let check = |request: &ForwardedRequest<'_>, proof: &str, now| {
            nonces.check(&secret(), request, proof, now)
        };
        for other in [
            ForwardedRequest { method: "GET", ..request() },
            ForwardedRequest { target: "/i/kv/guild/2?x=1", ..request() },
            ForwardedRequest { hop: PeerHop { epoch: 8, from: "a" }, ..request() },
            ForwardedRequest { hop: PeerHop { epoch: 7, from: "b" }, ..request() },
            ForwardedRequest { body: b"{ }", ..request() },
        ] {
            assert!(check(&other, &proof, NOW).is_err(), "{other:?}");
        }
        for changed in ["", ".", "..", "1700000000000", &proof.replacen('9', "8", 1)] {
            assert!(check(&request(), changed, NOW).is_err(), "{changed}");
        }
        assert!(nonces.check(&Secret::random(), &request(), &proof, NOW).is_err());
        assert!(check(&request(), &proof, NOW + 30_001).is_err(), "too old");
        assert!(check(&request(), &proof, NOW - 30_001).is_err(), "of the future");
        assert_eq!(check(&request(), &proof, NOW + 30_000), Ok(()));
        assert!(check(&request(), &proof, NOW + 30_000).is_err(), "again");
        assert_eq!(check(&request(), &request().sign(&secret(), NOW, 10), NOW), Ok(()));
    }

    #[test]
    fn what_is_forgotten_is_not_accepted_either() {
        let mut nonces = SeenNonces::default();
        for nonce in 0..PEER_NONCES_MAX as u64 {
            assert!(nonces.accept(100 + nonce, nonce, 0));
        }
        assert!(nonces.accept(1_000_000, 1, 0), "the oldest one makes room");
        assert!(!nonces.accept(100, 0, 0), "and is no longer new");
        assert!(nonces.accept(2_000_000, 1, 1_500_000));
        assert_eq!(nonces.seen.len(), 1, "what is too old goes");
    }
}
