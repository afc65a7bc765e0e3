//! A sheet to draw on: the same strokes and the same letters go to SVG and to PNG.

use super::bitmap::Bitmap;
use super::letters::{self, Type};
use super::look::{Paint, Sign};
use super::{Chart, ChartError, svg};

/// Every sheet is as wide; its height is its own.
pub(super) const WIDTH: f64 = 900.0;
/// What stays free at the sides.
pub(super) const MARGIN: f64 = 24.0;
/// PNGs have so many pixels for each unit, for print and sharp screens.
pub(super) const PNG_SCALE: u32 = 2;

/// Sizes of text.
const TITLE: Type = Type { em: 20.0, bold: true };
pub(super) const BODY: Type = Type { em: 14.0, bold: false };
pub(super) const SMALL: Type = Type { em: 12.5, bold: false };

/// A point, in units of the sheet.
pub(super) type Point = (f64, f64);

/// Where a text stands to its point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// One stroke.
#[derive(Debug, Clone)]
pub(super) enum Stroke {
    /// Dashes and gaps by turns, as long as `dashes` says; none is a whole line.
    Line { points: Vec<Point>, dashes: &'static [f64], paint: Paint, width: f64 },
    /// A filled area.
    Area { corners: Vec<Point>, paint: Paint },
}

/// One text: always above the strokes.
#[derive(Debug, Clone)]
pub(super) struct Label {
    pub(super) text: String,
    /// Half of a capital's height is above and below it.
    at: Point,
    pub(super) size: Type,
    pub(super) paint: Paint,
    pub(super) anchor: Anchor,
}

impl Label {
    /// Where its base line begins, lies in the middle, or ends.
    pub(super) fn base(&self) -> Point {
        (self.at.0, self.at.1 + 0.36 * self.size.em)
    }

    /// Where its first letter begins on the base line, and its width.
    fn place(&self) -> (Point, f64) {
        let (width, base) = (letters::width(&self.text, self.size), self.base());
        let share = match self.anchor {
            Anchor::Start => 0.0,
            Anchor::Middle => 0.5,
            Anchor::End => 1.0,
        };
        ((base.0 - share * width, base.1), width)
    }
}

/// A sheet under way.
#[derive(Debug)]
pub(super) struct Sheet {
    pub(super) title: String,
    /// Where the heading ends and the chart may begin.
    pub(super) top: f64,
    pub(super) strokes: Vec<Stroke>,
    pub(super) labels: Vec<Label>,
}

impl Sheet {
    /// A sheet with a title that asks what the chart answers; below it what was run, and how the chart is read.
    pub(super) fn new(title: &str, setting: &str, reading: &str) -> Self {
        let mut sheet = Self { title: title.to_owned(), top: 32.0, strokes: Vec::new(), labels: Vec::new() };
        sheet.text((MARGIN, sheet.top), title, TITLE, Paint::Ink, Anchor::Start);
        sheet.top += 8.0;
        for part in [setting, reading] {
            for line in letters::lines(part, SMALL, WIDTH - 2.0 * MARGIN) {
                sheet.top += 18.0;
                sheet.text((MARGIN, sheet.top), &line, SMALL, Paint::Faint, Anchor::Start);
            }
        }
        sheet.top += 14.0;
        sheet
    }

    pub(super) fn line(&mut self, points: &[Point], paint: Paint, width: f64) {
        self.dashed(points, &[], paint, width);
    }

    pub(super) fn dashed(&mut self, points: &[Point], dashes: &'static [f64], paint: Paint, width: f64) {
        self.strokes.push(Stroke::Line { points: points.to_vec(), dashes, paint, width });
    }

    /// A filled box.
    pub(super) fn bar(&mut self, from: Point, to: Point, paint: Paint) {
        self.strokes.push(Stroke::Area { corners: vec![from, (to.0, from.1), to, (from.0, to.1)], paint });
    }

    /// A series' sign, on a white ground that sets it off from what lies below.
    pub(super) fn sign(&mut self, at: Point, radius: f64, sign: Sign, paint: Paint) {
        let halo = if radius > 4.0 { 1.6 } else { 0.8 };
        self.strokes.push(Stroke::Area { corners: sign.corners(at, radius + halo), paint: Paint::Paper });
        self.strokes.push(Stroke::Area { corners: sign.corners(at, radius), paint });
    }

    /// A cross on its side, for what went wrong.
    pub(super) fn cross(&mut self, (x, y): Point, radius: f64) {
        for (paint, width, reach) in [(Paint::Paper, 4.5, radius + 1.5), (Paint::Ink, 2.0, radius)] {
            self.line(&[(x - reach, y - reach), (x + reach, y + reach)], paint, width);
            self.line(&[(x - reach, y + reach), (x + reach, y - reach)], paint, width);
        }
    }

    /// A horizontal whisker with ends that reach up and down so far, on a white ground.
    pub(super) fn whisker(&mut self, (low, high): (f64, f64), y: f64, reach: f64) {
        for (reach, paint, width) in [(reach + 1.0, Paint::Paper, 4.5), (reach, Paint::Ink, 1.5)] {
            self.line(&[(low, y), (high, y)], paint, width);
            for x in [low, high] {
                self.line(&[(x, y - reach), (x, y + reach)], paint, width);
            }
        }
    }

    pub(super) fn text(&mut self, at: Point, text: &str, size: Type, paint: Paint, anchor: Anchor) {
        self.labels.push(Label { text: text.to_owned(), at, size, paint, anchor });
    }

    /// The finished chart, on so high a sheet.
    pub(super) fn finish(self, name: &'static str, caption: String, height: f64) -> Result<Chart, ChartError> {
        let height = height.round();
        #[cfg(test)]
        assert_eq!(self.flaws(height), Vec::<String>::new(), "{name}");
        let svg = svg::draw(&self, height, &caption);
        let png = self.png(height).map_err(|what| ChartError { name, what })?;
        Ok(Chart { name, caption, svg, png })
    }

    fn png(&self, height: f64) -> Result<Vec<u8>, String> {
        let scale = f64::from(PNG_SCALE);
        let size = (WIDTH as u32 * PNG_SCALE, height as u32 * PNG_SCALE);
        let mut bitmap = Bitmap::new(size, Paint::Paper.light());
        let scaled =
            |corners: &[Point]| -> Vec<Point> { corners.iter().map(|(x, y)| (x * scale, y * scale)).collect() };
        for stroke in &self.strokes {
            match stroke {
                Stroke::Area { corners, paint } => bitmap.fill(&[scaled(corners)], paint.light()),
                Stroke::Line { points, dashes, paint, width } => {
                    let parts = cut(points, dashes).into_iter().flat_map(|dash| boxes(&dash, *width));
                    bitmap.fill(&parts.map(|part| scaled(&part)).collect::<Vec<_>>(), paint.light());
                }
            }
        }
        for label in &self.labels {
            let ((x, y), _) = label.place();
            let size = Type { em: label.size.em * scale, ..label.size };
            letters::set(&mut bitmap, &label.text, (x * scale, y * scale), size, label.paint.light())?;
        }
        bitmap.png()
    }

    /// Text that is cut off at the sheet's edge, or that stands on other text or on a stroke.
    #[cfg(test)]
    pub(super) fn flaws(&self, height: f64) -> Vec<String> {
        let placed = |label: &Label| {
            let ((x, y), width) = label.place();
            // Letters nearer to each other than a space read as one text.
            [x - 2.0, y - 0.76 * label.size.em, x + width + 2.0, y + 0.22 * label.size.em]
        };
        let boxes: Vec<(&str, [f64; 4])> = self.labels.iter().map(|label| (&*label.text, placed(label))).collect();
        let mut flaws = Vec::new();
        for (index, (text, own)) in boxes.iter().enumerate() {
            let [left, top, right, bottom] = *own;
            if left < 8.0 || top < 8.0 || right > WIDTH - 8.0 || bottom > height - 8.0 {
                flaws.push(format!("{text:?} is cut off"));
            }
            for (other, [from, above, to, below]) in &boxes[index + 1..] {
                if right >= *from && left <= *to && bottom >= *above && top <= *below {
                    flaws.push(format!("{text:?} stands on {other:?}"));
                }
            }
            if self.strokes.iter().any(|stroke| stroke.touches(*own)) {
                flaws.push(format!("{text:?} stands on a stroke"));
            }
        }
        flaws
    }
}

#[cfg(test)]
impl Stroke {
    /// Whether it leaves ink in a box: left, top, right, bottom.
    fn touches(&self, [left, top, right, bottom]: [f64; 4]) -> bool {
        let inside = |(x, y): Point| left < x && x < right && top < y && y < bottom;
        let meets = |points: &[Point]| {
            let walk = |ends: &[Point]| {
                let [from, to] = [ends[0], ends[1]];
                let near = from.0.min(to.0) < right && from.0.max(to.0) > left;
                if !near || from.1.min(to.1) >= bottom || from.1.max(to.1) <= top {
                    return false;
                }
                (0..=200)
                    .map(f64::from)
                    .map(move |step| step / 200.0)
                    .any(|share| inside((from.0 + (to.0 - from.0) * share, from.1 + (to.1 - from.1) * share)))
            };
            points.windows(2).any(walk)
        };
        match self {
            // A range is a ground to write on.
            Self::Area { paint: Paint::Band | Paint::Paper, .. } | Self::Line { paint: Paint::Paper, .. } => false,
            Self::Area { corners, .. } => meets(corners),
            Self::Line { points, .. } => meets(points),
        }
    }
}

/// The dashes of a line.
fn cut(points: &[Point], dashes: &[f64]) -> Vec<Vec<Point>> {
    let Some(first) = dashes.first() else { return vec![points.to_vec()] };
    let (mut turn, mut left, mut cut) = (0, *first, Vec::new());
    let mut dash: Vec<Point> = points.first().copied().into_iter().collect();
    for ends in points.windows(2) {
        let (mut from, to) = (ends[0], ends[1]);
        let mut length = (to.0 - from.0).hypot(to.1 - from.1);
        while length > left {
            let share = left / length;
            from = (from.0 + (to.0 - from.0) * share, from.1 + (to.1 - from.1) * share);
            length -= left;
            dash.push(from);
            if turn % 2 == 0 {
                cut.push(dash);
            }
            dash = vec![from];
            turn += 1;
            left = dashes[turn % dashes.len()];
        }
        left -= length;
        dash.push(to);
    }
    if turn % 2 == 0 {
        cut.push(dash);
    }
    cut
}

/// One box for each part of a line, reaching a little further where the line goes on, so that corners are whole.
fn boxes(points: &[Point], width: f64) -> Vec<Vec<Point>> {
    let parts: Vec<[Point; 2]> =
        points.windows(2).map(|ends| [ends[0], ends[1]]).filter(|[from, to]| from != to).collect();
    let last = parts.len().saturating_sub(1);
    let boxed = |(index, [from, to]): (usize, &[Point; 2])| {
        let length = (to.0 - from.0).hypot(to.1 - from.1);
        let (x, y) = ((to.0 - from.0) / length * width / 2.0, (to.1 - from.1) / length * width / 2.0);
        let (before, after) = (f64::from(u8::from(index > 0)), f64::from(u8::from(index < last)));
        let (from, to) = ((from.0 - x * before, from.1 - y * before), (to.0 + x * after, to.1 + y * after));
        vec![(from.0 - y, from.1 + x), (from.0 + y, from.1 - x), (to.0 + y, to.1 - x), (to.0 - y, to.1 + x)]
    };
    parts.iter().enumerate().map(boxed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dashes_go_around_corners_and_cover_their_share() {
        let cut = cut(&[(0.0, 0.0), (5.0, 0.0), (5.0, 5.0)], &[4.0, 2.0]);
        assert_eq!(cut, [vec![(0.0, 0.0), (4.0, 0.0)], vec![(5.0, 1.0), (5.0, 5.0)]]);
    }

    #[test]
    fn text_that_cannot_be_read_is_found() {
        let mut sheet = Sheet::new("Is it legible?", "set so", "read so");
        let height = sheet.top + 100.0;
        assert_eq!(sheet.flaws(height), Vec::<String>::new());
        sheet.text((400.0, sheet.top + 20.0), "one", BODY, Paint::Ink, Anchor::Start);
        sheet.text((410.0, sheet.top + 25.0), "other", BODY, Paint::Ink, Anchor::Start);
        sheet.text((895.0, sheet.top + 50.0), "beyond", BODY, Paint::Ink, Anchor::Start);
        sheet.text((400.0, sheet.top + 50.0), "struck", BODY, Paint::Ink, Anchor::Start);
        sheet.line(&[(0.0, sheet.top + 50.0), (900.0, sheet.top + 50.0)], Paint::Rule, 1.0);
        let flaws = sheet.flaws(height).join(", ");
        for part in ["\"one\" stands on \"other\"", "\"beyond\" is cut off", "\"struck\" stands on a stroke"] {
            assert!(flaws.contains(part), "{part}: {flaws}");
        }
    }
}
