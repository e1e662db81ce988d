//! Tokens of the internal API: a user id and an expiry, signed with the master's secret. Pure: the
//! time is passed in.
//!
//! `{user_id}.{expiry unix seconds}.{hex HMAC-SHA256 of "user_id.expiry"}`
//! (docs/operations.md: "The internal API"); `{user_id}*` in both places where the caller may name
//! any user as an event's author (docs/decisions/0021). The only file that knows `hmac` and `sha2`.
//! Deliberately without a list of revoked tokens: a new secret revokes all, and expiries are short.

use std::fmt;

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use super::InternalEndpoint;
use crate::base::random;

/// Shorter secrets could be guessed offline from one token.
const SECRET_MIN_BYTES: usize = 32;

/// The secret that signs tokens. Never printed.
#[derive(Clone)]
pub struct Secret(Vec<u8>);

/// A secret of less than 32 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SecretTooShort;

impl fmt::Display for SecretTooShort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the secret must have at least {SECRET_MIN_BYTES} bytes")
    }
}

impl std::error::Error for SecretTooShort {}

impl Secret {
    /// A secret that the operator chose.
    ///
    /// # Errors
    /// It is shorter than 32 bytes.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, SecretTooShort> {
        let bytes = bytes.into();
        if bytes.len() < SECRET_MIN_BYTES { Err(SecretTooShort) } else { Ok(Self(bytes)) }
    }

    /// A fresh secret, for a master that was given none.
    pub fn random() -> Self {
        Self(random::token().into_bytes())
    }

    fn mac(&self, signed: &str) -> Hmac<Sha256> {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes a key of any length");
        mac.update(signed.as_bytes());
        mac
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// Why a token is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenError {
    /// It is not a token, or another secret signed it.
    Invalid,
    /// It is genuine, but its time has passed.
    Expired,
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TokenError::Invalid => "the token is not valid",
            TokenError::Expired => "the token has expired",
        })
    }
}

impl std::error::Error for TokenError {}

/// A token for a user, good until `expiry_unix` (seconds).
pub fn mint(secret: &Secret, user_id: u64, expiry_unix: u64) -> String {
    sign(secret, format!("{user_id}.{expiry_unix}"))
}

/// The same for a service that may also name any other user as an event's author.
pub fn mint_acting(secret: &Secret, user_id: u64, expiry_unix: u64) -> String {
    sign(secret, format!("{user_id}*.{expiry_unix}"))
}

/// A token for a host process that serves these names, which is good for nothing else
/// (`GET /i/host`).
pub fn mint_serving(secret: &Secret, user_id: u64, names: &[String], expiry_unix: u64) -> String {
    sign(secret, format!("{user_id}{SERVES}{}.{expiry_unix}", names.join(",")))
}

/// Stands between a user's id and the names that its host process serves.
const SERVES: &str = "+serve:";

fn sign(secret: &Secret, signed: String) -> String {
    let signature = mac(secret, &signed);
    format!("{signed}.{signature}")
}

/// The signature of a text, in hex. A text that is no token must not look like what one signs.
pub(super) fn mac(secret: &Secret, text: &str) -> String {
    HEXLOWER.encode(&secret.mac(text).finalize().into_bytes())
}

/// Whether this is a text's signature; compared in constant time.
pub(super) fn is_signed(secret: &Secret, text: &str, signature: &str) -> bool {
    let signature = HEXLOWER_PERMISSIVE.decode(signature.as_bytes());
    signature.is_ok_and(|signature| secret.mac(text).verify_slice(&signature).is_ok())
}

/// The SHA-256 of bytes, in hex.
pub(super) fn sha256(bytes: &[u8]) -> String {
    HEXLOWER.encode(&Sha256::digest(bytes))
}

/// The caller that a token was made for. The signature is compared in constant time.
///
/// # Errors
/// Why it is not accepted.
pub fn verify(secret: &Secret, token: &str, now_unix: u64) -> Result<InternalEndpoint, TokenError> {
    verified(secret, token, now_unix, |user| {
        let (user_id, acts_as_any) =
            user.strip_suffix('*').map_or((user, false), |user_id| (user_id, true));
        Ok(InternalEndpoint { user_id: decimal(user_id)?, acts_as_any })
    })
}

/// The user whose host process a token was made for, and the names that it may serve.
///
/// # Errors
/// Why it is not accepted.
pub fn verify_serving(
    secret: &Secret,
    token: &str,
    now_unix: u64,
) -> Result<(u64, Vec<String>), TokenError> {
    verified(secret, token, now_unix, |user| {
        let (user_id, names) = user.split_once(SERVES).ok_or(TokenError::Invalid)?;
        Ok((decimal(user_id)?, names.split(',').map(str::to_owned).collect()))
    })
}

/// What `read` finds in the part of a token before its expiry, if the token is good.
fn verified<T>(
    secret: &Secret,
    token: &str,
    now_unix: u64,
    read: impl FnOnce(&str) -> Result<T, TokenError>,
) -> Result<T, TokenError> {
    let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Invalid)?;
    // From the right: there are dots in names that are served.
    let (user, expiry) = signed.rsplit_once('.').ok_or(TokenError::Invalid)?;
    let (found, expiry) = (read(user)?, decimal(expiry)?);
    if !is_signed(secret, signed, signature) {
        return Err(TokenError::Invalid);
    }
    // Only a genuine token learns that it was good once.
    if now_unix >= expiry { Err(TokenError::Expired) } else { Ok(found) }
}

/// Digits only: u64's parser would accept a leading plus sign.
pub(super) fn decimal(text: &str) -> Result<u64, TokenError> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(TokenError::Invalid);
    }
    text.parse().map_err(|_| TokenError::Invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verify(secret: &Secret, token: &str, now_unix: u64) -> Result<u64, TokenError> {
        let caller = super::verify(secret, token, now_unix)?;
        assert!(!caller.acts_as_any);
        Ok(caller.user_id)
    }

    fn secret() -> Secret {
        Secret::new(*b"0123456789abcdef0123456789abcdef").expect("32 bytes")
    }

    #[test]
    fn a_token_is_what_any_other_hmac_makes() {
        // printf '123.1700000000' | openssl dgst -sha256 -hmac 0123456789abcdef0123456789abcdef
        let expected =
            "123.1700000000.ee291f16e7c11196603788db04409babd546a81743aa5cef1c2257a431de1b13";
        assert_eq!(mint(&secret(), 123, 1_700_000_000), expected);
        assert_eq!(verify(&secret(), expected, 1_699_999_999), Ok(123));
        let (signed, signature) = expected.rsplit_once('.').expect("two dots");
        assert_eq!(
            verify(&secret(), &format!("{signed}.{}", signature.to_uppercase()), 0),
            Ok(123)
        );
    }

    #[test]
    fn only_a_token_that_was_signed_with_its_star_acts_as_any() {
        // printf '7*.1700000000' | openssl dgst -sha256 -hmac 0123456789abcdef0123456789abcdef
        let expected =
            "7*.1700000000.3da2c2cca6d7f5c82c75ddb5d4176db8113af72c6387296e654e617098514806";
        assert_eq!(mint_acting(&secret(), 7, 1_700_000_000), expected);
        assert_eq!(
            super::verify(&secret(), expected, 0),
            Ok(InternalEndpoint { user_id: 7, acts_as_any: true })
        );
        let own = mint(&secret(), 7, 1_700_000_000);
        for token in [
            own.replacen("7.", "7*.", 1),
            expected.replacen('*', "", 1),
            expected.replacen('*', "**", 1),
        ] {
            assert_eq!(super::verify(&secret(), &token, 0), Err(TokenError::Invalid), "{token}");
        }
    }

    #[test]
    fn a_token_that_serves_is_good_for_its_names_only() {
        let names = ["discord.send".to_owned(), "mail".to_owned()];
        // printf '7+serve:discord.send,mail.1700000000' | openssl dgst -sha256 -hmac 01234…
        let token = mint_serving(&secret(), 7, &names, 1_700_000_000);
        assert!(token.starts_with("7+serve:discord.send,mail.1700000000."), "{token}");
        assert_eq!(verify_serving(&secret(), &token, 0), Ok((7, names.to_vec())));
        assert_eq!(verify_serving(&secret(), &token, 1_700_000_000), Err(TokenError::Expired));
        assert_eq!(super::verify(&secret(), &token, 0), Err(TokenError::Invalid));
        let more = token.replacen("mail", "mail,other", 1);
        assert_eq!(verify_serving(&secret(), &more, 0), Err(TokenError::Invalid));
        let plain = mint(&secret(), 7, 1_700_000_000);
        assert_eq!(verify_serving(&secret(), &plain, 0), Err(TokenError::Invalid));
    }

    #[test]
    fn a_token_is_good_until_its_expiry_and_not_a_second_longer() {
        let token = mint(&secret(), u64::MAX, 100);
        assert_eq!(verify(&secret(), &token, 99), Ok(u64::MAX));
        assert_eq!(verify(&secret(), &token, 100), Err(TokenError::Expired));
    }

    #[test]
    fn a_changed_token_is_invalid_wherever_it_was_changed() {
        let token = mint(&secret(), 123, 1_700_000_000);
        for at in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[at] = if changed[at] == b'7' { b'8' } else { b'7' };
            let changed = String::from_utf8(changed).expect("ASCII");
            assert_eq!(verify(&secret(), &changed, 0), Err(TokenError::Invalid), "{changed}");
        }
    }

    #[test]
    fn what_is_not_a_token_is_invalid() {
        let mac = "a".repeat(64);
        for token in [
            String::new(),
            "..".to_owned(),
            "1.2".to_owned(),
            mac.clone(),
            format!("1.{mac}"),
            format!("+1.2.{mac}"),
            format!("1.-2.{mac}"),
            format!("1.2.3.{mac}"),
            format!("18446744073709551616.2.{mac}"),
            format!("1.2.{}", "é".repeat(32)),
            format!("1.2.{mac}a"),
        ] {
            assert_eq!(verify(&secret(), &token, 0), Err(TokenError::Invalid), "{token}");
        }
    }

    #[test]
    fn another_secret_signs_nothing_for_us() {
        let token = mint(&Secret::random(), 123, u64::MAX);
        assert_eq!(verify(&secret(), &token, 0), Err(TokenError::Invalid));
    }

    #[test]
    fn short_secrets_are_refused_and_no_secret_is_printed() {
        assert_eq!(Secret::new("0123456789abcdef0123456789abcde").map(drop), Err(SecretTooShort));
        assert_eq!(format!("{:?}", secret()), "Secret");
    }
}
