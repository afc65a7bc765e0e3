//! Pauses between tries.

use std::time::Duration;

use mutext_contract::Deadline;

const FIRST: Duration = Duration::from_millis(5);

/// A pause that grows, and is never the same for two who wait.
#[derive(Debug)]
pub struct Pause {
    longest: Duration,
    most: Duration,
    next: Duration,
}

impl Pause {
    /// The first of them; none is longer than `longest`.
    pub fn up_to(longest: Duration) -> Self {
        let most = FIRST.min(longest);
        Self { longest, most, next: spread(most) }
    }

    /// Whether it is over before `deadline`.
    pub fn fits(&self, deadline: Deadline) -> bool {
        deadline.remaining() > self.next
    }

    /// Waits; the next time it takes longer.
    pub async fn wait(&mut self) {
        let pause = self.next;
        self.most = (self.most * 2).min(self.longest);
        self.next = spread(self.most);
        tokio::time::sleep(pause).await;
    }
}

/// Those who failed at the same moment come back at different ones.
fn spread(most: Duration) -> Duration {
    most.mul_f64(rand::random_range(0.5..1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_grows_up_to_the_longest_and_is_spread() {
        let longest = Duration::from_millis(20);
        let mut pause = Pause::up_to(longest);
        for most in [5, 10, 20, 20].map(Duration::from_millis) {
            assert!((most / 2..=most).contains(&pause.next), "{pause:?}");
            assert!(!pause.fits(Deadline::after(most / 2)) && pause.fits(Deadline::after(Duration::from_secs(600))));
            pause.wait().await;
        }
    }
}
