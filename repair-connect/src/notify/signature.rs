//! How a receiver knows that a message comes from whoever has the secret, and when it was sent.
//!
//! The header [`HEADER`] is `t=TIME,v1=SIGNATURE`: the time in seconds since 1970, and the HMAC-SHA256, in hexadecimal, of `TIME.BODY` with the secret
//! as its key. A receiver computes it anew from the bytes of the body as they came, compares the two in constant time, and refuses a message whose
//! time is far from its own clock's: it may be one that somebody recorded. Another signature beside `v1` may come later.

use std::time::Duration;

use aws_lc_rs::hmac;
use jiff::Timestamp;

use crate::secret::Secret;

/// The name of the header with the signature.
pub const HEADER: &str = "Repair-Signature";

/// How far the time of a message may be from the receiver's clock.
pub const TOLERANCE: Duration = Duration::from_secs(300);

fn signed(at_s: i64, body: &[u8]) -> Vec<u8> {
    [format!("{at_s}.").as_bytes(), body].concat()
}

/// The value of the header for a body that is sent at a time.
pub fn of(secret: &Secret, at: Timestamp, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.reveal().as_bytes());
    let tag = hmac::sign(&key, &signed(at.as_second(), body));
    let digits: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("t={},v1={digits}", at.as_second())
}

/// Whether a header is the signature of a body, and was made within [`TOLERANCE`] of `now`.
///
/// ```
/// use repair_connect::notify::signature;
/// use repair_connect::secret::Secret;
/// use repair_core::plugin::{Clock, SystemClock};
///
/// let (secret, now) = (Secret::new("of both sides"), SystemClock.now());
/// let header = signature::of(&secret, now, b"{}");
/// assert!(signature::is_of(&header, &secret, b"{}", now));
/// assert!(!signature::is_of(&header, &secret, b"{ }", now));
/// assert!(!signature::is_of(&header, &Secret::new("another one"), b"{}", now));
/// ```
pub fn is_of(header: &str, secret: &Secret, body: &[u8], now: Timestamp) -> bool {
    let part = |name: &str| header.split(',').find_map(|part| part.trim().strip_prefix(name)?.strip_prefix('='));
    let (Some(at), Some(digits)) = (part("t").and_then(|at| at.parse::<i64>().ok()), part("v1")) else { return false };
    let digit = |at: usize| digits.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    let Some(tag) = (0..digits.len()).step_by(2).map(digit).collect::<Option<Vec<u8>>>() else { return false };
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.reveal().as_bytes());
    let is_near = now.as_second().abs_diff(at) <= TOLERANCE.as_secs();
    is_near && hmac::verify(&key, &signed(at, body), &tag).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed by `openssl dgst -sha256 -hmac`, which is another implementation.
    #[test]
    fn the_signature_is_that_of_other_programs() {
        let at = Timestamp::from_second(1_709_542_800).unwrap();
        let header = of(&Secret::new("Jefe"), at, b"{\"what\":\"failed\"}");
        assert_eq!(header, "t=1709542800,v1=48e2575e3afc12e43d27e923d2fd3d7a7e92470811cb59351004e14d5e088f23");
    }

    #[test]
    fn what_is_old_cut_off_or_not_a_signature_is_refused() {
        let (secret, at) = (Secret::new("s"), Timestamp::from_second(1_709_542_800).unwrap());
        let header = of(&secret, at, b"body");
        let later = |seconds: i64| Timestamp::from_second(1_709_542_800 + seconds).unwrap();
        assert!(is_of(&header, &secret, b"body", later(300)) && is_of(&header, &secret, b"body", later(-300)));
        assert!(!is_of(&header, &secret, b"body", later(301)) && !is_of(&header, &secret, b"body", later(-301)));
        let moved = header.replace("t=1709542800", "t=1709542801");
        for odd in ["", "t=1", "v1=00", "t=x,v1=00", "t=1709542800,v1=é0", "t=1709542800,v1=0", &header[..header.len() - 2], moved.as_str()]
        {
            assert!(!is_of(odd, &secret, b"body", at), "{odd}");
        }
        assert!(is_of(&format!("{header},v2=later"), &secret, b"body", at));
    }
}
