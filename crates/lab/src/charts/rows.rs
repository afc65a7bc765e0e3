//! The ground of charts with one row a series: names to the left, figures to the right, a scale between.

use super::canvas::{Anchor, BODY, MARGIN, SMALL, Sheet, WIDTH};
use super::letters;
use super::look::{Look, Paint, Sign};
use super::scale::Scale;

/// Names longer than this are cut.
const NAME_WIDEST: f64 = 210.0;
/// Between columns of figures.
const GAP: f64 = 20.0;

/// One row's name and figures.
pub(super) struct Row {
    pub(super) name: String,
    /// None for what others measured.
    pub(super) look: Option<Look>,
    pub(super) cells: Vec<String>,
}

/// A value of others, or a limit, that every row is held against.
pub(super) struct Reference {
    pub(super) at: f64,
    pub(super) label: String,
    /// Its 95 % interval.
    pub(super) band: Option<(f64, f64)>,
    pub(super) dashes: &'static [f64],
}

/// Where the rows lie.
pub(super) struct Ground {
    pub(super) left: f64,
    pub(super) right: f64,
    pub(super) top: f64,
    pub(super) bottom: f64,
    step: f64,
}

/// Writes names and figures, and leaves the room between them, less a `gutter` at its left, to the scale.
pub(super) fn lay(sheet: &mut Sheet, heads: &[&str], rows: &[Row], step: f64, gutter: f64) -> Ground {
    // References are labelled above the heads of the columns.
    let heads_at = sheet.top + 28.0;
    let top = heads_at + 14.0;
    let names: Vec<String> = rows.iter().map(|row| letters::fitted(&row.name, BODY, NAME_WIDEST)).collect();
    let widest = |texts: &mut dyn Iterator<Item = f64>| texts.fold(0.0, f64::max);
    let name_width = widest(&mut names.iter().map(|name| letters::width(name, BODY)));
    let y = |index: usize| top + step * (index as f64 + 0.5);
    for (index, (row, name)) in rows.iter().zip(&names).enumerate() {
        let (sign, paint, radius) =
            row.look.map_or((Sign::Round, Paint::Faint, 4.5), |look| (look.sign, look.paint, 6.0));
        sheet.sign((MARGIN + 7.0, y(index)), radius, sign, paint);
        let paint = if row.look.is_some() { Paint::Ink } else { Paint::Faint };
        sheet.text((MARGIN + 22.0, y(index)), name, BODY, paint, Anchor::Start);
    }
    let mut end = WIDTH - MARGIN;
    for (column, head) in heads.iter().enumerate().rev() {
        sheet.text((end, heads_at), head, SMALL, Paint::Faint, Anchor::End);
        let mut width = letters::width(head, SMALL);
        for (index, row) in rows.iter().enumerate() {
            let Some(cell) = row.cells.get(column) else { continue };
            let paint = if row.look.is_some() { Paint::Ink } else { Paint::Faint };
            sheet.text((end, y(index)), cell, BODY, paint, Anchor::End);
            width = width.max(letters::width(cell, BODY));
        }
        end -= width + GAP;
    }
    let left = (MARGIN + 22.0 + name_width + 18.0 + gutter).round();
    Ground { left, right: end.round(), top, bottom: top + step * rows.len() as f64, step }
}

impl Ground {
    /// The middle of a row.
    pub(super) fn row(&self, index: usize) -> f64 {
        self.top + self.step * (index as f64 + 0.5)
    }

    /// How high a sheet is that ends below the scale.
    pub(super) fn height(&self) -> f64 {
        self.bottom + 62.0
    }

    /// The scale's ticks below, and its unit.
    pub(super) fn ticks(&self, sheet: &mut Sheet, scale: &Scale, unit: &str) {
        for (x, label) in scale.ticks() {
            sheet.text((x, self.bottom + 15.0), &label, SMALL, Paint::Ink, Anchor::Middle);
        }
        let middle = f64::midpoint(self.left, self.right);
        sheet.text((middle, self.bottom + 39.0), unit, BODY, Paint::Ink, Anchor::Middle);
    }

    /// A rule at each tick, and lines for what the rows are held against; of two labels the lower value's is to the
    /// left, so that they never meet.
    pub(super) fn rule(&self, sheet: &mut Sheet, scale: &Scale, references: &[Reference]) {
        for (low, high) in references.iter().filter_map(|reference| reference.band) {
            sheet.bar((scale.place(low), self.top), (scale.place(high), self.bottom), Paint::Band);
        }
        for (x, label) in scale.ticks() {
            let paint = if label == "0" { Paint::Faint } else { Paint::Rule };
            sheet.line(&[(x, self.top), (x, self.bottom + 4.0)], paint, 1.0);
        }
        let y = self.top - 34.0;
        for (index, reference) in references.iter().enumerate() {
            let x = scale.place(reference.at);
            sheet.dashed(&[(x, self.bottom), (x, y - 7.0)], reference.dashes, Paint::Faint, 1.5);
            let width = letters::width(&reference.label, SMALL);
            let to_the_left = index + 1 < references.len() || x + 6.0 + width > WIDTH - MARGIN;
            let (x, anchor) = if to_the_left { (x - 6.0, Anchor::End) } else { (x + 6.0, Anchor::Start) };
            sheet.text((x, y), &reference.label, SMALL, Paint::Faint, anchor);
        }
    }
}
