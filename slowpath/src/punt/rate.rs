//! How often ICMP errors are sent (RFC 1812 §4.3.2.8, RFC 4443 §2.4 (f)).
//!
//! Token buckets, of each port and of all together, and two of each: what tells a sender the path's MTU has a budget of
//! its own, so that a scan that asks for "no route" a thousand times a second can't blind path-MTU discovery. Linux never
//! limits those either. Not by destination as Linux has it: that takes memory for every address a stranger may invent, and
//! what one port can make us send is bounded already.

use std::time::Instant;

use ahash::AHashMap;
use model::PortId;
use packet::icmp::Problem;

/// For all ports together: the kernel's own `icmp_msgs_per_sec` and `icmp_msgs_burst`.
const RATE_OF_ALL: Rate = Rate { per_second: 1000, burst: 50 };
/// For one port, so that one workload can't use up everybody's.
const RATE_OF_PORT: Rate = Rate { per_second: 100, burst: 20 };

/// Whose budget an error is paid from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Budget {
    /// ICMP errors that tell the path's MTU.
    PathMtu,
    /// TCP resets: a flood of connections can't keep the router from telling anything else.
    Resets,
    /// Packets that the kernel receives after all: each takes a system call.
    Deliveries,
    /// All other ICMP errors.
    Others,
}

impl Budget {
    pub(super) fn of(problem: Problem) -> Budget {
        match problem {
            Problem::TooBig { .. } => Budget::PathMtu,
            _ => Budget::Others,
        }
    }
}

/// What was sent of late.
#[derive(Debug, Default)]
pub(super) struct Limiter {
    path_mtu: Bucket,
    resets: Bucket,
    deliveries: Bucket,
    others: Bucket,
    /// At most four for each row of the table of ports. A port that takes over another's row takes over its buckets, which
    /// are full again in a fifth of a second.
    ports: AHashMap<(PortId, Budget), Bucket>,
}

impl Limiter {
    /// May an answer of this kind be sent now? Then it counts as sent. `port` is where its cause came in; `None` is ourselves.
    pub(super) fn may_send(&mut self, budget: Budget, port: Option<PortId>, now: Instant) -> bool {
        let all = match budget {
            Budget::PathMtu => &mut self.path_mtu,
            Budget::Resets => &mut self.resets,
            Budget::Deliveries => &mut self.deliveries,
            Budget::Others => &mut self.others,
        };
        let Some(port) = port else { return all.take(RATE_OF_ALL, now) };
        let bucket = self.ports.entry((port, budget)).or_default();
        // The port's first: a port over its own rate must not drain what all share.
        bucket.take(RATE_OF_PORT, now) && all.take(RATE_OF_ALL, now)
    }
}

/// How often something may happen.
#[derive(Clone, Copy, Debug)]
struct Rate {
    per_second: u32,
    burst: u32,
}

/// A token bucket; full when new. RFC 4443 §2.4 (f) recommends one.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    /// Tokens when last looked at, and when that was.
    last: Option<(f64, Instant)>,
}

impl Bucket {
    fn take(&mut self, rate: Rate, now: Instant) -> bool {
        let burst = f64::from(rate.burst);
        let tokens = match self.last {
            None => burst,
            Some((tokens, then)) => {
                let gained = now.saturating_duration_since(then).as_secs_f64() * f64::from(rate.per_second);
                burst.min(tokens + gained)
            }
        };
        let granted = tokens >= 1.0;
        self.last = Some((if granted { tokens - 1.0 } else { tokens }, now));
        granted
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_bucket_never_grants_more_than_its_burst_and_rate(
            gaps in prop::collection::vec(0u64..50, 1..300)
        ) {
            let rate = Rate { per_second: 100, burst: 20 };
            let start = Instant::now();
            let (mut bucket, mut elapsed, mut granted) = (Bucket::default(), 0, 0);
            for gap in gaps {
                elapsed += gap;
                granted += u64::from(bucket.take(rate, start + Duration::from_millis(elapsed)));
            }
            prop_assert!(granted <= 20 + elapsed / 10 + 1);
        }
    }
}
