//! A sheet to draw on: the same strokes go to SVG and to PNG. Opaque white, so that it reads on dark pages too.

use std::sync::Once;

use plotters::coord::Shift;
use plotters::prelude::{
    BitMapBackend, Circle, Color, DrawingArea, DrawingBackend, FontStyle, IntoDrawingArea, IntoFont, PathElement,
    RGBColor, Rectangle, SVGBackend, Text, TextStyle, WHITE,
};
use plotters::style::register_font;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::{Chart, ChartError};

pub(super) const INK: RGBColor = RGBColor(34, 34, 34);
pub(super) const FAINT: RGBColor = RGBColor(110, 110, 110);
pub(super) const RULE: RGBColor = RGBColor(215, 215, 215);

const WIDTH: u32 = 900;
const HEIGHT: u32 = 500;
/// PNGs have this many pixels for each unit, for print and sharp screens.
const PNG_SCALE: u32 = 2;

/// Where a text stands to its point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// One stroke, in units of the sheet.
enum Stroke {
    Line { points: Vec<(f64, f64)>, color: RGBColor, width: f64 },
    Box { from: (f64, f64), to: (f64, f64), color: RGBColor, filled: bool },
    Dot { at: (f64, f64), radius: f64, color: RGBColor, filled: bool },
    Text { at: (f64, f64), text: String, size: f64, color: RGBColor, anchor: Anchor },
}

/// A sheet under way.
pub(super) struct Sheet {
    strokes: Vec<Stroke>,
}

impl Sheet {
    /// A sheet with a title that asks what the chart answers, and a line of detail below it.
    pub(super) fn new(title: &str, detail: &str) -> Self {
        let mut sheet = Self { strokes: Vec::new() };
        sheet.text((24.0, 30.0), title, 20.0, INK, Anchor::Start);
        sheet.text((24.0, 54.0), detail, 13.0, FAINT, Anchor::Start);
        sheet
    }

    pub(super) fn line(&mut self, points: &[(f64, f64)], color: RGBColor, width: f64) {
        self.strokes.push(Stroke::Line { points: points.to_vec(), color, width });
    }

    pub(super) fn dashed(&mut self, from: (f64, f64), to: (f64, f64), color: RGBColor) {
        let (dx, dy) = (to.0 - from.0, to.1 - from.1);
        let length = dx.hypot(dy);
        let mut at = 0.0;
        while at < length {
            let point = |along: f64| (from.0 + dx * along / length, from.1 + dy * along / length);
            self.line(&[point(at), point((at + 6.0).min(length))], color, 1.5);
            at += 10.0;
        }
    }

    pub(super) fn bar(&mut self, from: (f64, f64), to: (f64, f64), color: RGBColor, filled: bool) {
        self.strokes.push(Stroke::Box { from, to, color, filled });
    }

    pub(super) fn dot(&mut self, at: (f64, f64), radius: f64, color: RGBColor, filled: bool) {
        self.strokes.push(Stroke::Dot { at, radius, color, filled });
    }

    pub(super) fn text(&mut self, at: (f64, f64), text: &str, size: f64, color: RGBColor, anchor: Anchor) {
        self.strokes.push(Stroke::Text { at, text: text.to_owned(), size, color, anchor });
    }

    /// A horizontal whisker with ends.
    pub(super) fn whisker(&mut self, low: f64, high: f64, y: f64, color: RGBColor) {
        self.line(&[(low, y), (high, y)], color, 2.0);
        for x in [low, high] {
            self.line(&[(x, y - 6.0), (x, y + 6.0)], color, 2.0);
        }
    }

    /// The finished chart.
    pub(super) fn finish(self, name: &'static str, caption: String) -> Result<Chart, ChartError> {
        install_font();
        let fail = |error: &dyn std::fmt::Display| ChartError { name, what: error.to_string() };
        let mut svg = String::new();
        {
            let area = SVGBackend::with_string(&mut svg, (WIDTH, HEIGHT)).into_drawing_area();
            self.paint(&area, 1.0).map_err(|error| fail(&error))?;
            area.present().map_err(|error| fail(&error))?;
        }
        // The backend names a size only; with a view box the chart also scales.
        let svg = svg.replacen("<svg ", "<svg role=\"img\" font-family=\"DejaVu Sans, Verdana, sans-serif\" ", 1);
        let (width, height) = (WIDTH * PNG_SCALE, HEIGHT * PNG_SCALE);
        let mut pixels = vec![0; (width * height * 3) as usize];
        {
            let area = BitMapBackend::with_buffer(&mut pixels, (width, height)).into_drawing_area();
            self.paint(&area, f64::from(PNG_SCALE)).map_err(|error| fail(&error))?;
            area.present().map_err(|error| fail(&error))?;
        }
        let mut png = Vec::new();
        let encoder = image::codecs::png::PngEncoder::new(&mut png);
        image::ImageEncoder::write_image(encoder, &pixels, width, height, image::ColorType::Rgb8)
            .map_err(|error| fail(&error))?;
        Ok(Chart { name, caption, svg, png })
    }

    fn paint<DB: DrawingBackend>(
        &self,
        area: &DrawingArea<DB, Shift>,
        scale: f64,
    ) -> Result<(), plotters::drawing::DrawingAreaErrorKind<DB::ErrorType>> {
        area.fill(&WHITE)?;
        let at = |point: (f64, f64)| ((point.0 * scale).round() as i32, (point.1 * scale).round() as i32);
        for stroke in &self.strokes {
            match stroke {
                Stroke::Line { points, color, width } => {
                    let style = color.stroke_width((width * scale).round().max(1.0) as u32);
                    area.draw(&PathElement::new(points.iter().copied().map(at).collect::<Vec<_>>(), style))?;
                }
                Stroke::Box { from, to, color, filled } => {
                    let style = if *filled { color.filled() } else { color.stroke_width((1.5 * scale) as u32) };
                    area.draw(&Rectangle::new([at(*from), at(*to)], style))?;
                }
                Stroke::Dot { at: point, radius, color, filled } => {
                    let style = if *filled { color.filled() } else { color.stroke_width((1.5 * scale) as u32) };
                    area.draw(&Circle::new(at(*point), radius * scale, style))?;
                }
                Stroke::Text { at: point, text, size, color, anchor } => {
                    let horizontal = match anchor {
                        Anchor::Start => HPos::Left,
                        Anchor::Middle => HPos::Center,
                        Anchor::End => HPos::Right,
                    };
                    let font = ("sans-serif", size * scale).into_font();
                    let style = TextStyle::from(font).color(color).pos(Pos::new(horizontal, VPos::Center));
                    area.draw(&Text::new(text.as_str(), at(*point), style))?;
                }
            }
        }
        Ok(())
    }
}

/// The one font, built in: charts look the same on a machine without any.
fn install_font() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let font: &'static [u8] = include_bytes!("../../assets/DejaVuSans-subset.ttf");
        // A font that cannot be read shows as an error at the first text that is drawn with it.
        let _ = register_font("sans-serif", FontStyle::Normal, font);
    });
}
