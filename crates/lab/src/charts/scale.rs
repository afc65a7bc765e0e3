//! From values to places on the sheet, and the ticks between.

/// A scale from values to units of the sheet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
    logarithmic: bool,
}

impl Scale {
    /// Even steps. The ends are widened to whole ticks.
    pub(super) fn linear(low: f64, high: f64, from: f64, to: f64) -> Self {
        let step = step(high - low);
        Self { low: (low / step).floor() * step, high: (high / step).ceil() * step, from, to, logarithmic: false }
    }

    /// Equal ratios; both ends above zero.
    pub(super) fn logarithmic(low: f64, high: f64, from: f64, to: f64) -> Self {
        Self { low, high: high.max(low * 10.0), from, to, logarithmic: true }
    }

    pub(super) fn place(&self, value: f64) -> f64 {
        let value = value.clamp(self.low, self.high);
        let share = if self.logarithmic {
            (value / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        self.from + share * (self.to - self.from)
    }

    /// Values worth a label, with it.
    pub(super) fn ticks(&self) -> Vec<(f64, String)> {
        if self.logarithmic {
            let decades = (-6..=9).flat_map(|decade: i32| [1.0, 2.0, 5.0].map(|digit| digit * 10_f64.powi(decade)));
            let inside = decades.filter(|value| (self.low..=self.high).contains(value));
            let ticks: Vec<f64> = inside.collect();
            // Too many to stand side by side: the powers of ten alone.
            let sparse = ticks.len() > 14;
            let is_power = |value: f64| (value.log10() - value.log10().round()).abs() < 1e-9;
            return ticks.into_iter().filter(|value| !sparse || is_power(*value)).map(|v| (v, label(v))).collect();
        }
        let step = step(self.high - self.low);
        let count = ((self.high - self.low) / step).round() as u32;
        (0..=count).map(|tick| self.low + f64::from(tick) * step).map(|value| (value, label(value))).collect()
    }
}

/// 1, 2 or 5 times a power of ten, so that there are five to ten steps or so.
fn step(range: f64) -> f64 {
    let rough = (range / 6.0).max(f64::MIN_POSITIVE);
    let power = 10_f64.powf(rough.log10().floor());
    let digit = [1.0, 2.0, 5.0, 10.0].into_iter().find(|digit| digit * power >= rough).unwrap_or(10.0);
    digit * power
}

fn label(value: f64) -> String {
    let rounded = (value * 1e6).round() / 1e6;
    // Negative zero reads as a mistake.
    format!("{}", if rounded == 0.0 { 0.0 } else { rounded })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_numbers_that_hold_both_ends() {
        let scale = Scale::linear(-0.7, 24.0, 0.0, 100.0);
        let labels: Vec<String> = scale.ticks().into_iter().map(|(_, label)| label).collect();
        assert_eq!(labels, ["-5", "0", "5", "10", "15", "20", "25"]);
        assert!((scale.place(25.0) - 100.0).abs() < 1e-9 && scale.place(-5.0).abs() < 1e-9);
    }

    #[test]
    fn a_logarithmic_scale_gives_each_decade_the_same_room() {
        let scale = Scale::logarithmic(0.1, 1000.0, 0.0, 400.0);
        for (value, place) in [(0.1, 0.0), (1.0, 100.0), (100.0, 300.0)] {
            assert!((scale.place(value) - place).abs() < 1e-9);
        }
    }
}
