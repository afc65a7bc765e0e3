//! What tells series apart: colour, sign and dashes, each enough by itself, on light and on dark ground.

use std::fmt::Write as _;

/// Red, green and blue.
pub(super) type Rgb = [u8; 3];

/// How many series look different; more of them would begin again.
pub(super) const SERIES_MAX: usize = 8;

/// What a stroke or a text is painted with: a role, so that a dark page can paint it otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Paint {
    /// The sheet itself.
    Paper,
    /// A range behind the data.
    Band,
    /// Rules of the ground.
    Rule,
    /// What others published, and asides.
    Faint,
    /// Text, axes, whiskers.
    Ink,
    /// A series, by its place.
    Series(usize),
}

/// Light and dark of paper, band, rule, faint and ink.
const GROUND: [(Rgb, Rgb); 5] = [
    ([255, 255, 255], [29, 32, 36]),
    ([236, 236, 236], [45, 49, 55]),
    ([218, 218, 218], [62, 66, 73]),
    ([92, 92, 92], [172, 176, 182]),
    ([28, 28, 28], [232, 232, 232]),
];

/// Light and dark of each series: the hues of M. Okabe and K. Ito, moved apart until they stand out from the paper and
/// from each other with any cones (the tests say how far).
const SERIES: [(Rgb, Rgb); SERIES_MAX] = [
    ([156, 61, 8], [227, 152, 75]),
    ([212, 125, 0], [252, 205, 39]),
    ([31, 63, 147], [31, 142, 255]),
    ([75, 164, 98], [114, 250, 183]),
    ([27, 146, 236], [144, 254, 250]),
    ([106, 20, 81], [192, 170, 246]),
    ([104, 54, 48], [183, 119, 96]),
    ([195, 110, 163], [199, 110, 152]),
];

impl Paint {
    fn place(self) -> usize {
        match self {
            Self::Paper => 0,
            Self::Band => 1,
            Self::Rule => 2,
            Self::Faint => 3,
            Self::Ink => 4,
            Self::Series(index) => GROUND.len() + index % SERIES_MAX,
        }
    }

    fn both(self) -> (Rgb, Rgb) {
        let place = self.place();
        if place < GROUND.len() { GROUND[place] } else { SERIES[place - GROUND.len()] }
    }

    /// Its colour in files, whose paper is white.
    pub(super) fn light(self) -> Rgb {
        self.both().0
    }

    /// Its colour in files, as SVG writes it.
    pub(super) fn hex(self) -> String {
        hex(self.light())
    }

    /// The ending of its classes in SVG: `f` before it for what is filled, `s` for what is stroked.
    pub(super) fn class(self) -> usize {
        self.place()
    }
}

fn hex([red, green, blue]: Rgb) -> String {
    format!("#{red:02x}{green:02x}{blue:02x}")
}

/// The rules by which a dark page paints charts that are drawn in it.
pub(crate) fn dark_style() -> String {
    let grounds = [Paint::Paper, Paint::Band, Paint::Rule, Paint::Faint, Paint::Ink];
    let mut style = String::new();
    for paint in grounds.into_iter().chain((0..SERIES_MAX).map(Paint::Series)) {
        let (class, color) = (paint.class(), hex(paint.both().1));
        let _ = write!(style, "svg .f{class}{{fill:{color}}} svg .s{class}{{stroke:{color}}} ");
    }
    style
}

/// A sign that stands for a series, where colours do not print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Sign {
    Round,
    Triangle,
    Square,
    Diamond,
    Wedge,
    Plus,
    Star,
    Bar,
}

/// The look of one series.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Look {
    pub(super) paint: Paint,
    pub(super) sign: Sign,
    /// Lengths of dashes and gaps by turns; none is a whole line.
    pub(super) dashes: &'static [f64],
}

/// The look of the series at a place.
pub(super) fn look(index: usize) -> Look {
    const SIGNS: [Sign; SERIES_MAX] =
        [Sign::Round, Sign::Wedge, Sign::Square, Sign::Triangle, Sign::Diamond, Sign::Plus, Sign::Star, Sign::Bar];
    const DASHES: [&[f64]; SERIES_MAX] = [
        &[2.0, 2.0],
        &[6.0, 3.0],
        &[],
        &[3.0, 4.0],
        &[12.0, 4.0],
        &[8.0, 3.0, 2.0, 3.0],
        &[8.0, 3.0, 2.0, 3.0, 2.0, 3.0],
        &[16.0, 3.0, 4.0, 3.0],
    ];
    let place = index % SERIES_MAX;
    Look { paint: Paint::Series(place), sign: SIGNS[place], dashes: DASHES[place] }
}

impl Sign {
    /// The corners around a point. All signs cover about as much.
    pub(super) fn corners(self, (x, y): (f64, f64), radius: f64) -> Vec<(f64, f64)> {
        let around = |n: usize, reach: fn(usize) -> f64, first: f64| -> Vec<(f64, f64)> {
            let corner = |index: usize| {
                let angle = first + std::f64::consts::TAU * index as f64 / n as f64;
                (x + radius * reach(index) * angle.cos(), y + radius * reach(index) * angle.sin())
            };
            (0..n).map(corner).collect()
        };
        let moved =
            |corners: &[(f64, f64)]| corners.iter().map(|(dx, dy)| (x + radius * dx, y + radius * dy)).collect();
        match self {
            Self::Round => around(24, |_| 1.0, 0.0),
            Self::Triangle => moved(&[(-1.2, 0.95), (0.0, -1.2), (1.2, 0.95)]),
            Self::Square => moved(&[(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)]),
            Self::Diamond => moved(&[(-1.25, 0.0), (0.0, -1.25), (1.25, 0.0), (0.0, 1.25)]),
            Self::Wedge => moved(&[(-1.2, -0.95), (0.0, 1.2), (1.2, -0.95)]),
            Self::Plus => {
                let (arm, half) = (1.2, 0.42);
                moved(&[
                    (-half, -arm),
                    (half, -arm),
                    (half, -half),
                    (arm, -half),
                    (arm, half),
                    (half, half),
                    (half, arm),
                    (-half, arm),
                    (-half, half),
                    (-arm, half),
                    (-arm, -half),
                    (-half, -half),
                ])
            }
            Self::Star => {
                let reach = |index: usize| if index.is_multiple_of(2) { 1.4 } else { 0.6 };
                around(10, reach, -std::f64::consts::FRAC_PI_2)
            }
            Self::Bar => moved(&[(-1.35, -0.55), (1.35, -0.55), (1.35, 0.55), (-1.35, 0.55)]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Contrast after WCAG 2.1, from 1 to 21.
    fn contrast(one: Rgb, other: Rgb) -> f64 {
        let (one, other) = (luminance(one), luminance(other));
        (one.max(other) + 0.05) / (one.min(other) + 0.05)
    }

    fn luminance(color: Rgb) -> f64 {
        let [red, green, blue] = linear(color);
        0.2126 * red + 0.7152 * green + 0.0722 * blue
    }

    fn linear(color: Rgb) -> [f64; 3] {
        color.map(|part| {
            let part = f64::from(part) / 255.0;
            if part <= 0.04045 { part / 12.92 } else { ((part + 0.055) / 1.055).powf(2.4) }
        })
    }

    type View = fn([f64; 3]) -> [f64; 3];

    /// As people without the cones for long waves see it (F. Viénot, H. Brettel and J. D. Mollon 1999), linear.
    fn without_red([red, green, blue]: [f64; 3]) -> [f64; 3] {
        [0.11238 * red + 0.88762 * green, 0.11238 * red + 0.88762 * green, 0.00401 * red - 0.00401 * green + blue]
    }

    /// As people without the cones for middle waves see it.
    fn without_green([red, green, blue]: [f64; 3]) -> [f64; 3] {
        [0.29275 * red + 0.70725 * green, 0.29275 * red + 0.70725 * green, -0.02234 * red + 0.02234 * green + blue]
    }

    /// How far apart two linear colours look: CIE 1976.
    fn apart(one: [f64; 3], other: [f64; 3]) -> f64 {
        let lab = |[red, green, blue]: [f64; 3]| {
            let xyz = [
                (0.4124 * red + 0.3576 * green + 0.1805 * blue) / 0.9505,
                0.2126 * red + 0.7152 * green + 0.0722 * blue,
                (0.0193 * red + 0.1192 * green + 0.9505 * blue) / 1.089,
            ];
            let [x, y, z] = xyz.map(|v| if v > 0.008_856 { v.cbrt() } else { 7.787 * v + 16.0 / 116.0 });
            [116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)]
        };
        lab(one).into_iter().zip(lab(other)).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt()
    }

    #[test]
    fn text_and_series_stand_out_from_the_paper_in_light_and_dark() {
        for (paint, least) in [(Paint::Ink, 7.0), (Paint::Faint, 4.5)].into_iter().chain(
            // The least that WCAG asks of graphics.
            (0..SERIES_MAX).map(|index| (Paint::Series(index), 3.0)),
        ) {
            let ((light, dark), (paper, black)) = (paint.both(), Paint::Paper.both());
            assert!(contrast(light, paper) >= least, "{paint:?} on white: {:.2}", contrast(light, paper));
            assert!(contrast(dark, black) >= least, "{paint:?} on black: {:.2}", contrast(dark, black));
        }
        let ((faint, pale), (band, dim)) = (Paint::Faint.both(), Paint::Band.both());
        assert!(contrast(faint, band) >= 4.5 && contrast(pale, dim) >= 4.5, "a line is seen on its band");
    }

    #[test]
    fn series_differ_for_the_colour_blind_too() {
        let views: [(&str, View); 3] =
            [("all cones", |color| color), ("no red", without_red), ("no green", without_green)];
        for one in 0..SERIES_MAX {
            for other in 0..one {
                for (who, seen) in views {
                    let shades = [one, other].map(|index| Paint::Series(index).both());
                    for [a, b] in [shades.map(|shade| shade.0), shades.map(|shade| shade.1)] {
                        let apart = apart(seen(linear(a)), seen(linear(b)));
                        assert!(apart > 25.0, "{who}: {one} and {other} are {apart:.1} apart");
                    }
                }
            }
        }
    }

    #[test]
    fn each_series_has_a_sign_and_dashes_of_its_own() {
        for one in 0..SERIES_MAX {
            for other in 0..one {
                assert_ne!(look(one).sign, look(other).sign, "{one} {other}");
                assert_ne!(look(one).dashes, look(other).dashes, "{one} {other}");
            }
        }
    }

    #[test]
    fn a_dark_page_repaints_every_role() {
        let style = dark_style();
        for class in 0..GROUND.len() + SERIES_MAX {
            assert!(style.contains(&format!(".f{class}{{")) && style.contains(&format!(".s{class}{{")), "{class}");
        }
    }
}
