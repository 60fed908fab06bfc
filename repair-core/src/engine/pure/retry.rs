//! Retry, as in the Amazon States Language: rules are tried in order and the first that names the error applies; each rule counts its own
//! attempts for one visit of the step; the n-th wait is `interval × backoff^(n−1)`, capped by `max_interval`. Unlike there, a repair step
//! retries only the units that failed.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::error::ErrorKind;
use crate::workflow::{Jitter, RetryRule};

/// The longest wait that is computed. A longer one is a mistake in the rule, and dates would overflow.
const LONGEST_WAIT: Duration = Duration::from_secs(366 * 86_400);

/// The index of the rule that applies to an error: the first that names it, unless its attempts are used up.
pub fn applicable(rules: &[RetryRule], used: &[u32], kind: ErrorKind) -> Option<usize> {
    let index = rules.iter().position(|rule| rule.on.matches(kind))?;
    (used.get(index).copied().unwrap_or(0) < rules[index].attempts).then_some(index)
}

/// The wait before a rule's next attempt, when `used` of its attempts are used up. Jitter is drawn from `seed`, so that deciding twice
/// gives the same result.
pub fn wait(rule: &RetryRule, used: u32, seed: u64) -> Duration {
    let longest = rule.max_interval.unwrap_or(LONGEST_WAIT).min(LONGEST_WAIT);
    let factor = rule.backoff.max(1.0).powi(i32::try_from(used).unwrap_or(i32::MAX));
    let seconds = (rule.interval.as_secs_f64() * factor).min(longest.as_secs_f64());
    let full = Duration::try_from_secs_f64(seconds).unwrap_or(longest).min(longest);
    match rule.jitter {
        Jitter::None => full,
        Jitter::Full => full.mul_f64(SmallRng::seed_from_u64(seed).random_range(0.0..=1.0)),
    }
}

/// The seed for one draw of jitter. It differs for each run, step (or unit), visit, rule and attempt, and is the same in every version of
/// this program.
pub fn seed(run: u64, of: &str, visit: u32, rule: usize, used: u32) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&run.to_le_bytes()).update(of.as_bytes()).update(&[0]);
    hasher.update(&visit.to_le_bytes()).update(&(rule as u64).to_le_bytes()).update(&used.to_le_bytes());
    u64::from_le_bytes(*hasher.finalize().as_bytes().first_chunk().unwrap_or(&[0; 8]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workflow::ErrorMatch;
    use ErrorKind::{Denied, Invalid, Throttled, Transient};

    fn rule(kinds: &[ErrorKind], attempts: u32) -> RetryRule {
        RetryRule {
            on: ErrorMatch::Kinds(kinds.to_vec()),
            attempts,
            interval: Duration::from_secs(1),
            backoff: 2.0,
            max_interval: Some(Duration::from_secs(3)),
            jitter: Jitter::None,
        }
    }

    /// The example of the States Language's specification: each rule counts for itself, and the first that names an error decides.
    #[test]
    fn each_rule_counts_its_own_attempts() {
        let rules = [rule(&[Transient, Throttled], 2), rule(&[Invalid], 3)];
        let mut used = [0, 0];
        let mut waits = Vec::new();
        for kind in [Transient, Throttled, Invalid, Throttled] {
            let Some(index) = applicable(&rules, &used, kind) else {
                waits.push(None);
                continue;
            };
            waits.push(Some(wait(&rules[index], used[index], 0).as_secs()));
            used[index] += 1;
        }
        assert_eq!(waits, [Some(1), Some(2), Some(1), None]);
        assert_eq!(applicable(&rules, &used, Denied), None);
    }

    #[test]
    fn waits_grow_to_their_cap_and_jitter_stays_below() {
        let mut capped = rule(&[Transient], 9);
        assert_eq!((0..4).map(|used| wait(&capped, used, 0).as_secs()).collect::<Vec<_>>(), [1, 2, 3, 3]);
        capped.jitter = Jitter::Full;
        for seed in 0..200 {
            assert!(wait(&capped, 5, seed) <= Duration::from_secs(3));
            assert_eq!(wait(&capped, 5, seed), wait(&capped, 5, seed));
        }
        capped.max_interval = None;
        assert!(wait(&capped, u32::MAX, 1) <= LONGEST_WAIT);
    }
}
