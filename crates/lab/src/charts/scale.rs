//! From values to places on the sheet, and the ticks between.

/// A scale from values to units of the sheet.
#[derive(Debug, Clone)]
pub(super) struct Scale {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
    logarithmic: bool,
    ticks: Vec<f64>,
}

impl Scale {
    /// Even steps that have no more than `steps` parts. The ends are widened to whole ticks.
    pub(super) fn linear(low: f64, high: f64, steps: u32, (from, to): (f64, f64)) -> Self {
        let mut step = round_step((high - low) / f64::from(steps));
        // Widening both ends may add a part.
        while ((high / step).ceil() - (low / step).floor()) > f64::from(steps) + 1.0 {
            step = round_step(step * 1.5);
        }
        let (first, last) = ((low / step).floor() as i64, ((high / step).ceil() as i64));
        let last = last.max(first + 1);
        let ticks = (first..=last).map(|tick| tick as f64 * step).collect();
        Self { low: first as f64 * step, high: last as f64 * step, from, to, logarithmic: false, ticks }
    }

    /// Even steps from zero that have no more than `steps` parts; the upper end is the value itself.
    pub(super) fn from_zero(high: f64, steps: u32, (from, to): (f64, f64)) -> Self {
        let step = round_step(high / f64::from(steps));
        let ticks = (0..=(high / step + 1e-9).floor() as i64).map(|tick| tick as f64 * step).collect();
        Self { low: 0.0, high, from, to, logarithmic: false, ticks }
    }

    /// Numbers of things that are counted from one, with half a place free at either end.
    pub(super) fn counted(last: usize, (from, to): (f64, f64)) -> Self {
        let step = round_step(last as f64 / 8.0).max(1.0) as usize;
        // The first is worth a tick where it does not crowd the next.
        let first = (step > 2).then_some(1);
        let ticks = first.into_iter().chain((1..=last / step).map(|tick| tick * step));
        let ticks = ticks.map(|tick| tick as f64).collect();
        Self { low: 0.5, high: last.max(1) as f64 + 0.5, from, to, logarithmic: false, ticks }
    }

    /// Equal ratios; both ends above zero, and widened to ticks.
    pub(super) fn logarithmic(low: f64, high: f64, (from, to): (f64, f64)) -> Self {
        let digits = |powers: &[f64]| -> Vec<f64> {
            (-9..=12).flat_map(|power: i32| powers.iter().map(move |digit| digit * 10_f64.powi(power))).collect()
        };
        let between = |values: Vec<f64>| {
            let first = values.iter().rposition(|value| *value <= low * (1.0 + 1e-9)).unwrap_or(0);
            let last = values.iter().position(|value| *value >= high * (1.0 - 1e-9)).unwrap_or(values.len() - 1);
            values[first..=last.max(first + 1).min(values.len() - 1)].to_vec()
        };
        // Too many to stand side by side: the powers of ten alone.
        let mut ticks = between(digits(&[1.0, 2.0, 5.0]));
        if ticks.len() > 13 {
            ticks = between(digits(&[1.0]));
        }
        Self { low: ticks[0], high: ticks[ticks.len() - 1], from, to, logarithmic: true, ticks }
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

    /// Where each tick stands, and its label. A rule one unit wide fills whole pixels where its middle is half a one.
    pub(super) fn ticks(&self) -> Vec<(f64, String)> {
        let at = |value: f64| (self.place(value) - 0.5).round() + 0.5;
        self.ticks.iter().map(|value| (at(*value), number(*value))).collect()
    }
}

/// The next of 1, 2, 5 and 10 times a power of ten.
fn round_step(rough: f64) -> f64 {
    let rough = rough.max(1e-9);
    let power = 10_f64.powf(rough.log10().floor());
    let digit = [1.0, 2.0, 5.0].into_iter().find(|digit| digit * power >= rough * (1.0 - 1e-9)).unwrap_or(10.0);
    digit * power
}

/// A number as it is written: no more places than it has, thousands apart, and a true minus.
pub(super) fn number(value: f64) -> String {
    decimals(value, (0..9).find(|places| is_whole(value * 10_f64.powi(*places))).unwrap_or(9) as usize)
}

fn is_whole(value: f64) -> bool {
    (value - value.round()).abs() < 1e-6
}

/// A number with so many decimal places.
pub(super) fn decimals(value: f64, places: usize) -> String {
    let written = format!("{:.places$}", value.abs());
    let (whole, rest) = written.split_at(written.find('.').unwrap_or(written.len()));
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    // Negative zero reads as a mistake.
    let is_zero = written.chars().all(|sign| matches!(sign, '0' | '.'));
    let minus = if value < 0.0 && !is_zero { "−" } else { "" };
    format!("{minus}{grouped}{rest}")
}

/// A time in milliseconds, to about three figures.
pub(super) fn milliseconds(value: f64) -> String {
    let places = match value {
        value if value < 0.0995 => 3,
        value if value < 9.95 => 2,
        value if value < 99.5 => 1,
        _ => 0,
    };
    decimals(value, places)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(scale: &Scale) -> Vec<String> {
        scale.ticks().into_iter().map(|(_, label)| label).collect()
    }

    #[test]
    fn ticks_are_round_numbers_that_hold_both_ends() {
        let scale = Scale::linear(-0.7, 24.0, 6, (0.0, 100.0));
        assert_eq!(labels(&scale), ["−5", "0", "5", "10", "15", "20", "25"]);
        assert!((scale.place(25.0) - 100.0).abs() < 1e-9 && scale.place(-5.0).abs() < 1e-9);
    }

    #[test]
    fn zero_is_a_tick_wherever_it_lies_between_the_ends() {
        for low in [-310.0, -42.0, -9.9, -0.5, 0.0] {
            for high in [0.3, 5.4, 24.0, 60.0, 314.0, 9000.0] {
                let scale = Scale::linear(low, high, 6, (0.0, 100.0));
                let labels = labels(&scale);
                assert!(labels.contains(&"0".to_owned()) && (2..=8).contains(&labels.len()), "{low} {high} {labels:?}");
                assert!(scale.low <= low && high <= scale.high, "{low} {high} {scale:?}");
            }
        }
    }

    #[test]
    fn a_logarithmic_scale_gives_each_decade_the_same_room_and_ends_at_ticks() {
        let scale = Scale::logarithmic(0.11, 998.0, (0.0, 400.0));
        for (value, place) in [(0.1, 0.0), (1.0, 100.0), (100.0, 300.0), (1000.0, 400.0)] {
            assert!((scale.place(value) - place).abs() < 1e-9);
        }
        assert_eq!(labels(&scale).first().zip(labels(&scale).last()), Some((&"0.1".into(), &"1,000".into())));
        assert_eq!(labels(&Scale::logarithmic(0.3, 0.3, (0.0, 400.0))), ["0.2", "0.5"]);
        assert_eq!(labels(&Scale::logarithmic(1e-4, 1e5, (0.0, 400.0))).len(), 10, "powers of ten alone");
    }

    #[test]
    fn a_scale_from_zero_wastes_no_room_and_has_a_tick_besides_zero() {
        for (high, expected) in [(76.0, ["0", "50"].as_slice()), (40.0, &["0", "20", "40"]), (0.7, &["0", "0.5"])] {
            let scale = Scale::from_zero(high, 3, (0.0, 100.0));
            assert_eq!(labels(&scale), expected);
            assert!((scale.place(high) - 100.0).abs() < 1e-9);
        }
    }

    #[test]
    fn what_is_counted_has_whole_ticks_from_one() {
        assert_eq!(labels(&Scale::counted(1, (0.0, 9.0))), ["1"]);
        assert_eq!(labels(&Scale::counted(2, (0.0, 9.0))), ["1", "2"]);
        assert_eq!(labels(&Scale::counted(12, (0.0, 9.0))), ["2", "4", "6", "8", "10", "12"]);
        assert_eq!(labels(&Scale::counted(100, (0.0, 9.0))), ["1", "20", "40", "60", "80", "100"]);
    }

    #[test]
    fn numbers_are_written_as_people_read_them() {
        assert_eq!([number(-0.0), number(0.25), number(-12_500.0)], ["0", "0.25", "−12,500"]);
        assert_eq!([decimals(-0.04, 1), decimals(-0.06, 1), decimals(1_234.5, 0)], ["0.0", "−0.1", "1,234"]);
        let times = [0.012_34, 0.1, 2.345, 17.62, 99.96, 1234.0].map(milliseconds);
        assert_eq!(times, ["0.012", "0.10", "2.35", "17.6", "100", "1,234"]);
    }
}
