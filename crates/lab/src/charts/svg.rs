//! A sheet as SVG: text stays text, to be searched, copied and read aloud.

use std::fmt::Write as _;

use super::canvas::{Anchor, Label, Sheet, Stroke, WIDTH};
use super::look::Paint;

/// The built-in font's own name, then one as wide: what others take is narrower, and so never too long.
const FONTS: &str = "'DejaVu Sans', Verdana, sans-serif";

/// Every part names its colour, for files, and its role, by which a page can paint it otherwise.
pub(super) fn draw(sheet: &Sheet, height: f64, caption: &str) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{}\" font-family=\"{FONTS}\">\n\
         <desc>{}</desc>\n<rect class=\"f{}\" width=\"{WIDTH}\" height=\"{height}\" fill=\"{}\"/>\n",
        escape(&sheet.title),
        escape(caption),
        Paint::Paper.class(),
        Paint::Paper.hex(),
    );
    for stroke in &sheet.strokes {
        let _ = match stroke {
            Stroke::Area { corners, paint } => writeln!(
                svg,
                "<polygon class=\"f{}\" points=\"{}\" fill=\"{}\"/>",
                paint.class(),
                places(corners),
                paint.hex()
            ),
            Stroke::Line { points, dashes, paint, width } => writeln!(
                svg,
                "<polyline class=\"s{}\" points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"{width}\"{}/>",
                paint.class(),
                places(points),
                paint.hex(),
                dashing(dashes)
            ),
        };
    }
    for label in &sheet.labels {
        text(&mut svg, label);
    }
    svg + "</svg>\n"
}

fn dashing(dashes: &[f64]) -> String {
    if dashes.is_empty() {
        return String::new();
    }
    let lengths: Vec<String> = dashes.iter().map(f64::to_string).collect();
    format!(" stroke-dasharray=\"{}\"", lengths.join(" "))
}

/// Points to a hundredth of a unit; those that fall on one place are written once.
fn places(points: &[(f64, f64)]) -> String {
    let mut places: Vec<String> = points.iter().map(|(x, y)| format!("{},{}", short(*x), short(*y))).collect();
    places.dedup();
    places.join(" ")
}

fn short(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

fn text(svg: &mut String, label: &Label) {
    let (x, y) = label.base();
    let anchor = match label.anchor {
        Anchor::Start => "",
        Anchor::Middle => " text-anchor=\"middle\"",
        Anchor::End => " text-anchor=\"end\"",
    };
    let bold = if label.size.bold { " font-weight=\"bold\"" } else { "" };
    let _ = writeln!(
        svg,
        "<text class=\"f{}\" x=\"{}\" y=\"{}\" font-size=\"{}\"{bold}{anchor} fill=\"{}\">{}</text>",
        label.paint.class(),
        short(x),
        short(y),
        label.size.em,
        label.paint.hex(),
        escape(&label.text)
    );
}

pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::charts::canvas::BODY;

    #[test]
    fn what_is_drawn_is_written_with_its_role_and_its_colour() {
        let mut sheet = Sheet::new("Is a < b?", "set so", "read so");
        sheet.dashed(&[(1.0, 200.0), (1.001, 200.0), (9.0, 200.0)], &[6.0, 4.0], Paint::Series(0), 2.0);
        sheet.text((50.0, 150.0), "a & b", BODY, Paint::Faint, Anchor::End);
        let svg = draw(&sheet, 240.0, "say \"so\"");
        for part in [
            "width=\"900\" height=\"240\" viewBox=\"0 0 900 240\"",
            "aria-label=\"Is a &lt; b?\"",
            "<desc>say &quot;so&quot;</desc>",
            "<polyline class=\"s5\" points=\"1,200 9,200\" fill=\"none\" stroke=\"#9c3d08\" stroke-width=\"2\" stroke-dasharray=\"6 4\"/>",
            "text-anchor=\"end\" fill=\"#5c5c5c\">a &amp; b</text>",
        ] {
            assert!(svg.contains(part), "{part}: {svg}");
        }
    }
}
