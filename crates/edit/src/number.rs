//! JSON numbers as they are written: comparing values by what they mean, and adding without rounding.

use serde_json::{Number, Value};

/// Digits and where their decimal point stands: `digits * 10^-scale`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Decimal {
    digits: i128,
    scale: u32,
}

impl Decimal {
    /// The number as it is written, where it fits.
    fn parse(text: &str) -> Option<Self> {
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
            None => (text, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits: i128 = [whole, fraction].concat().parse().ok()?;
        let scale = i32::try_from(fraction.len()).ok()?.checked_sub(exponent)?;
        if scale >= 0 {
            return Some(Self { digits, scale: scale.unsigned_abs() });
        }
        Some(Self { digits: digits.checked_mul(10_i128.checked_pow(scale.unsigned_abs())?)?, scale: 0 })
    }

    fn at_scale(self, scale: u32) -> Option<i128> {
        self.digits.checked_mul(10_i128.checked_pow(scale.checked_sub(self.scale)?)?)
    }

    fn add(self, other: Self) -> Option<Self> {
        let scale = self.scale.max(other.scale);
        Some(Self { digits: self.at_scale(scale)?.checked_add(other.at_scale(scale)?)?, scale })
    }

    fn number(self) -> Option<Number> {
        let sign = if self.digits < 0 { "-" } else { "" };
        let scale = self.scale as usize;
        let digits = format!("{:0>width$}", self.digits.unsigned_abs(), width = scale + 1);
        let (whole, fraction) = digits.split_at(digits.len() - scale);
        let point = if scale == 0 { "" } else { "." };
        format!("{sign}{whole}{point}{fraction}").parse().ok()
    }
}

fn is_integer(number: &Number) -> bool {
    !number.as_str().contains(['.', 'e', 'E'])
}

/// The sum: exact for integers within 128 bits and decimals of like size, rounded for decimals beyond; `None` where it
/// does not fit.
pub(crate) fn sum(left: &Number, right: &Number) -> Option<Number> {
    let exact = Decimal::parse(left.as_str())
        .zip(Decimal::parse(right.as_str()))
        .and_then(|(left, right)| left.add(right)?.number());
    if exact.is_some() || (is_integer(left) && is_integer(right)) {
        return exact;
    }
    Number::from_f64(left.as_f64()? + right.as_f64()?)
}

/// Whether it is 0, however it is written.
pub(crate) fn is_zero(number: &Number) -> bool {
    Decimal::parse(number.as_str()).is_some_and(|number| number.digits == 0)
}

/// Whether two numbers are equal: 1 and 1.0 are, two large integers that one double stands for are not.
fn equal_numbers(left: &Number, right: &Number) -> bool {
    if left.as_str() == right.as_str() {
        return true;
    }
    if is_integer(left) && is_integer(right) {
        let zeros = |number: &Number| matches!(number.as_str(), "0" | "-0");
        return zeros(left) && zeros(right);
    }
    // Adding 0 makes -0 of no account; no JSON number is NaN.
    let value = |number: &Number| number.as_f64().map(|value| (value + 0.0).to_bits());
    value(left).is_some() && value(left) == value(right)
}

/// Whether two values mean the same: numbers by value, objects whatever the order of their members.
pub(crate) fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => equal_numbers(left, right),
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| same(left, right))
        }
        (Value::Object(left), Value::Object(right)) => {
            left.len() == right.len()
                && left.iter().all(|(key, left)| right.get(key).is_some_and(|right| same(left, right)))
        }
        (left, right) => left == right,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Number {
        serde_json::from_str(text).unwrap()
    }

    fn added(left: &str, right: &str) -> Option<String> {
        sum(&number(left), &number(right)).map(|sum| sum.to_string())
    }

    #[test]
    fn sums_are_exact() {
        for (left, right, sum) in [
            ("1", "2", "3"),
            ("0.1", "0.2", "0.3"),
            ("-0.05", "0.04", "-0.01"),
            ("1.50", "1", "2.50"),
            ("1e3", "1", "1001"),
            ("12345678901234567890123", "1", "12345678901234567890124"),
            ("-170141183460469231731687303715884105728", "1", "-170141183460469231731687303715884105727"),
        ] {
            assert_eq!(added(left, right).as_deref(), Some(sum), "{left} + {right}");
        }
    }

    #[test]
    fn what_does_not_fit_is_no_sum_and_huge_decimals_round() {
        assert_eq!(added("170141183460469231731687303715884105727", "1"), None);
        assert_eq!(added("1e300", "0.5"), Some(Number::from_f64(1e300).unwrap().to_string()));
        assert_eq!(added("1.7e308", "1.7e308"), None);
        assert_eq!(added("1e-2147483648", "1e2147483647"), None);
    }

    #[test]
    fn values_are_compared_by_what_they_mean() {
        let same = |left: &str, right: &str| {
            super::same(&serde_json::from_str(left).unwrap(), &serde_json::from_str(right).unwrap())
        };
        assert!(same("1", "1.0") && same("100", "1e2") && same("0", "-0") && same("0.0", "-0"));
        assert!(!same("9007199254740992", "9007199254740993"));
        assert!(!same("1", "\"1\"") && !same("1", "2") && !same("1", "1.5"));
        assert!(same(r#"{"a":[1],"b":2}"#, r#"{"b":2.0,"a":[1.0]}"#));
        assert!(!same(r#"{"a":null}"#, "{}") && !same("[1]", "[1,1]") && !same("[1,2]", "[2,1]"));
    }
}
