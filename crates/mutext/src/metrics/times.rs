//! How long this process's locks took to be had of late: a small histogram in which old samples fade.
//!
//! A request that gave up shows only that it would have taken longer than that. Left out, such requests would make
//! locks look fast exactly where they are slow; counted as if they had been granted, the same. So quantiles are
//! estimated as survival times are, with the product-limit estimator of Kaplan and Meier (1958).

use std::time::Duration;

use tokio::time::Instant;

/// A sample counts for so long at least, and twice as long at most.
const FADING: Duration = Duration::from_secs(5 * 60);
/// Below so many samples a 99th percentile is an anecdote.
const ENOUGH: u64 = 100;
/// How often the p99 is computed anew.
const LOOK: Duration = Duration::from_secs(1);
/// How often a wait that is too short is worth a word.
const QUIET: Duration = Duration::from_secs(60);

/// Sixteen buckets for each doubling: a bucket is at most a sixteenth wider than its lower end.
const STEPS: u64 = 16;
/// From a microsecond to the longest wait, a day.
const BUCKETS: usize = 544;

/// How long locks took to be had through one [`Mutext`](crate::Mutext) in the last five to ten minutes.
///
/// Requests that do not wait are left out: they tell nothing about waiting. A request that timed out counts as one
/// that would have taken longer than it waited; where so many did that a percentile lies among them, what is told is
/// the longest time seen, and the truth is longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AcquisitionTimes {
    /// How many requests were seen: granted, timed out or given up by their caller.
    pub count: u64,
    /// Half of them took so long at most.
    pub p50: Duration,
    /// Nine of ten took so long at most.
    pub p90: Duration,
    /// 99 of 100 took so long at most.
    pub p99: Duration,
    /// The longest time that any of them took, whatever came of it.
    pub max: Duration,
    /// How many of them timed out.
    pub timed_out: u64,
}

/// How a request that waited came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Granted,
    TimedOut,
    GivenUp,
}

/// What was seen in one stretch of time.
#[derive(Debug)]
struct Generation {
    /// For each bucket, how many were granted in it, and how many went without.
    buckets: Vec<(u32, u32)>,
    count: u64,
    timed_out: u64,
    longest_granted: Duration,
    longest: Duration,
}

impl Generation {
    fn new() -> Self {
        let zero = Duration::ZERO;
        Self { buckets: vec![(0, 0); BUCKETS], count: 0, timed_out: 0, longest_granted: zero, longest: zero }
    }

    fn add(&mut self, took: Duration, end: End) {
        let (granted, without) = &mut self.buckets[bucket(took)];
        if end == End::Granted {
            *granted = granted.saturating_add(1);
            self.longest_granted = self.longest_granted.max(took);
        } else {
            *without = without.saturating_add(1);
        }
        self.timed_out += u64::from(end == End::TimedOut);
        self.longest = self.longest.max(took);
        self.count += 1;
    }
}

/// The samples of this stretch of time and of the one before.
#[derive(Debug)]
pub(crate) struct Times {
    current: Generation,
    previous: Generation,
    since: Instant,
    p99: Duration,
    look_at: Instant,
    quiet_until: Instant,
}

impl Times {
    pub(crate) fn new(now: Instant) -> Self {
        let (current, previous) = (Generation::new(), Generation::new());
        Self { current, previous, since: now, p99: Duration::ZERO, look_at: now, quiet_until: now }
    }

    /// Adds a request that was ready to wait for `wait`. Tells what was seen where that is less than the observed
    /// p99 and it has not been said in the last minute.
    pub(crate) fn add(&mut self, took: Duration, end: End, wait: Duration, now: Instant) -> Option<AcquisitionTimes> {
        self.fade(now);
        self.current.add(took, end);
        if self.current.count + self.previous.count < ENOUGH {
            return None;
        }
        if now >= self.look_at {
            self.look_at = now + LOOK;
            [self.p99] = self.quantiles([0.99]);
        }
        if wait >= self.p99 || now < self.quiet_until {
            return None;
        }
        self.quiet_until = now + QUIET;
        Some(self.read(now))
    }

    pub(crate) fn read(&mut self, now: Instant) -> AcquisitionTimes {
        self.fade(now);
        let [p50, p90, p99] = self.quantiles([0.5, 0.9, 0.99]);
        AcquisitionTimes {
            count: self.current.count + self.previous.count,
            p50,
            p90,
            p99,
            max: self.current.longest.max(self.previous.longest),
            timed_out: self.current.timed_out + self.previous.timed_out,
        }
    }

    fn fade(&mut self, now: Instant) {
        let age = now.saturating_duration_since(self.since);
        if age < FADING {
            return;
        }
        let ended = std::mem::replace(&mut self.current, Generation::new());
        self.previous = if age < 2 * FADING { ended } else { Generation::new() };
        self.since = now;
    }

    /// `wanted` in ascending order. Each is the first bucket's end by which so large a part had been granted.
    fn quantiles<const N: usize>(&self, wanted: [f64; N]) -> [Duration; N] {
        let mut found = [self.current.longest.max(self.previous.longest); N];
        let longest_granted = self.current.longest_granted.max(self.previous.longest_granted);
        let mut still_waiting = self.current.count + self.previous.count;
        let (mut without_yet, mut next) = (1.0, 0);
        for (index, (one, other)) in self.current.buckets.iter().zip(&self.previous.buckets).enumerate() {
            let granted = u64::from(one.0) + u64::from(other.0);
            if granted > 0 {
                without_yet *= 1.0 - granted as f64 / still_waiting as f64;
                // A product of many factors is a little off where the exact share is meant.
                while next < N && without_yet <= 1.0 - wanted[next] + 1e-9 {
                    found[next] = end_of(index).min(longest_granted);
                    next += 1;
                }
            }
            still_waiting = still_waiting.saturating_sub(granted + u64::from(one.1) + u64::from(other.1));
        }
        found
    }
}

fn bucket(took: Duration) -> usize {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    if micros < STEPS {
        return micros as usize;
    }
    let doublings = u64::from(micros.ilog2() - STEPS.ilog2());
    let index = (doublings + 1) * STEPS + (micros >> doublings) % STEPS;
    (index as usize).min(BUCKETS - 1)
}

/// Where the bucket ends and the next begins.
fn end_of(index: usize) -> Duration {
    let (doublings, step) = (index as u64 / STEPS, index as u64 % STEPS);
    let micros = if doublings == 0 { step + 1 } else { (STEPS + step + 1) << (doublings - 1) };
    Duration::from_micros(micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Duration = Duration::from_millis(100);

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn every_duration_lies_in_its_bucket_and_buckets_leave_no_gap() {
        let mut micros = 0_u64;
        while micros < 24 * 3600 * 1_000_000 {
            let took = Duration::from_micros(micros);
            let index = bucket(took);
            assert!(took < end_of(index) && (index == 0 || took >= end_of(index - 1)), "{took:?}");
            assert!(end_of(index) <= took + took / 16 + Duration::from_micros(1), "{took:?} is told too roughly");
            micros += micros / 50 + 1;
        }
        assert_eq!(bucket(Duration::MAX), BUCKETS - 1);
    }

    #[test]
    fn percentiles_are_those_of_the_samples() {
        let now = Instant::now();
        let mut times = Times::new(now);
        assert_eq!(times.read(now), AcquisitionTimes::default());
        for took in 1..=1000 {
            times.add(ms(took), End::Granted, ms(5000), now);
        }
        let seen = times.read(now);
        for (told, exact) in [(seen.p50, ms(500)), (seen.p90, ms(900)), (seen.p99, ms(990))] {
            assert!(told >= exact && told <= exact + exact / 16, "{told:?} for {exact:?}");
        }
        assert_eq!((seen.count, seen.timed_out, seen.max), (1000, 0, ms(1000)));
    }

    #[test]
    fn a_request_that_timed_out_counts_as_longer_than_its_wait_and_no_more() {
        let now = Instant::now();
        let mut times = Times::new(now);
        for _ in 0..90 {
            times.add(ms(150), End::Granted, ms(500), now);
        }
        // Impatient ones say nothing against those who wait for longer.
        for _ in 0..910 {
            times.add(ms(10), End::TimedOut, ms(500), now);
        }
        let seen = times.read(now);
        assert_eq!((seen.p50, seen.p99, seen.timed_out), (ms(150), ms(150), 910));
        // Ten who waited longer than everybody else: now one in a hundred of those who were granted takes longer.
        for _ in 0..10 {
            times.add(ms(200), End::TimedOut, ms(500), now);
        }
        assert_eq!((times.read(now).p50, times.read(now).p99), (ms(150), ms(200)));
    }

    #[test]
    fn a_short_wait_is_told_once_a_minute_and_only_on_good_evidence() {
        let start = Instant::now();
        let mut times = Times::new(start);
        let mut told = Vec::new();
        // Three in a hundred time out at 100 ms, as the published experiment met it; one every 100 ms, for 130 s.
        for number in 0..1300_u32 {
            let now = start + ms(100) * number;
            let (took, end) = if number % 33 == 32 { (WAIT, End::TimedOut) } else { (ms(20), End::Granted) };
            let patient = times.add(took, end, WAIT * 5, now);
            assert_eq!(patient, None, "a wait of 500 ms is long enough");
            if let Some(seen) = times.add(took + Duration::from_micros(1), end, WAIT, now) {
                assert!(seen.p99 > WAIT && seen.count >= 100, "{seen:?}");
                told.push(now - start);
            }
        }
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(told.windows(2).all(|pair| pair[1].saturating_sub(pair[0]) >= QUIET), "{told:?}");
    }

    #[test]
    fn a_wait_that_is_long_enough_is_never_told() {
        let start = Instant::now();
        let mut times = Times::new(start);
        for number in 0..10_000_u32 {
            // One in two hundred times out: the p99 lies among those that were granted.
            let (took, end) =
                if number % 200 == 199 { (ms(101), End::TimedOut) } else { (ms(u64::from(number % 99)), End::Granted) };
            assert_eq!(times.add(took, end, WAIT, start + ms(10) * number), None);
        }
    }

    #[test]
    fn old_samples_fade() {
        let start = Instant::now();
        let mut times = Times::new(start);
        times.add(ms(10), End::Granted, WAIT, start);
        assert_eq!(times.read(start + FADING - ms(1)).count, 1);
        assert_eq!(times.read(start + FADING).count, 1);
        assert_eq!(times.read(start + 2 * FADING).count, 0);
        times.add(ms(10), End::Granted, WAIT, start + 2 * FADING);
        assert_eq!(times.read(start + 9 * FADING), AcquisitionTimes::default());
    }
}
