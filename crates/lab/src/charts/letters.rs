//! Letters of the built-in font: measured before they are placed, and set on bitmaps to the fraction of a pixel.

use ab_glyph::{Font, FontRef, Glyph, PxScale, ScaleFont, point};

use super::bitmap::Bitmap;
use super::look::Rgb;

/// A text's size and weight.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Type {
    /// The size, in units of the sheet or in pixels.
    pub(super) em: f64,
    pub(super) bold: bool,
}

/// The font, or why it cannot be read.
fn font(bold: bool) -> Result<FontRef<'static>, String> {
    let bytes: &'static [u8] = if bold {
        include_bytes!("../../assets/DejaVuSans-Bold-subset.ttf")
    } else {
        include_bytes!("../../assets/DejaVuSans-subset.ttf")
    };
    FontRef::try_from_slice(bytes).map_err(|error| format!("the built-in font cannot be read: {error}"))
}

/// The glyphs of a text whose base line begins at `(x, y)`, and the text's width.
fn glyphs(font: &FontRef<'static>, text: &str, em: f64, (x, y): (f64, f64)) -> (Vec<Glyph>, f64) {
    let units = f64::from(font.units_per_em().unwrap_or(1000.0));
    let scale = PxScale::from((em * f64::from(font.height_unscaled()) / units) as f32);
    let scaled = font.as_scaled(scale);
    let mut width = 0.0_f64;
    let mut placed = Vec::new();
    for letter in text.chars() {
        let id = scaled.glyph_id(letter);
        placed.push(id.with_scale_and_position(scale, point((x + width) as f32, y as f32)));
        width += f64::from(scaled.h_advance(id));
    }
    (placed, width)
}

/// How wide a text stands.
pub(super) fn width(text: &str, Type { em, bold }: Type) -> f64 {
    // Without its font no bitmap is drawn, and that says why: a guess does until then.
    font(bold).map_or(0.6 * em * text.chars().count() as f64, |font| glyphs(&font, text, em, (0.0, 0.0)).1)
}

/// A text in lines that are at most so wide, broken between words.
pub(super) fn lines(text: &str, set: Type, widest: f64) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if width(&format!("{line} {word}"), set) <= widest => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// A text that is at most so wide: its end is left out where it is longer.
pub(super) fn fitted(text: &str, set: Type, widest: f64) -> String {
    if width(text, set) <= widest {
        return text.to_owned();
    }
    let mut kept: Vec<char> = text.chars().collect();
    while !kept.is_empty() {
        kept.pop();
        let short = format!("{}…", kept.iter().collect::<String>().trim_end());
        if width(&short, set) <= widest {
            return short;
        }
    }
    String::new()
}

/// Sets a text whose base line begins at `at`, in pixels.
pub(super) fn set(bitmap: &mut Bitmap, text: &str, at: (f64, f64), size: Type, color: Rgb) -> Result<(), String> {
    let font = font(size.bold)?;
    for glyph in glyphs(&font, text, size.em, at).0 {
        // A space has no outline.
        let Some(outline) = font.outline_glyph(glyph) else { continue };
        let corner = outline.px_bounds().min;
        outline.draw(|x, y, cover| {
            bitmap.blend(i64::from(x) + corner.x as i64, i64::from(y) + corner.y as i64, cover, color);
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Type = Type { em: 20.0, bold: false };

    #[test]
    fn every_sign_that_charts_use_is_in_the_font() {
        for bold in [false, true] {
            let font = font(bold).unwrap();
            for sign in (' '..='~').chain("–—−×≤≥±µ“”…→é".chars()) {
                assert_ne!(font.glyph_id(sign).0, 0, "{sign:?}, bold: {bold}");
            }
        }
    }

    #[test]
    fn a_text_is_as_wide_as_its_letters() {
        let (one, two) = (width("i", PLAIN), width("im", PLAIN));
        assert!(0.0 < one && 2.0 * one < two, "{one} {two}");
        assert!(width("im", Type { bold: true, ..PLAIN }) > two);
    }

    #[test]
    fn a_long_text_is_broken_between_words_and_none_is_lost() {
        let text = "one sign a trial, and the line at the median of all of them";
        let broken = lines(text, PLAIN, 220.0);
        assert!(broken.len() > 1 && broken.iter().all(|line| width(line, PLAIN) <= 220.0), "{broken:?}");
        assert_eq!(broken.join(" "), text);
    }

    #[test]
    fn a_name_that_is_too_long_ends_in_dots() {
        assert_eq!(fitted("locking", PLAIN, 200.0), "locking");
        let short = fitted("a name without an end, or nearly", PLAIN, 200.0);
        assert!(short.ends_with('…') && width(&short, PLAIN) <= 200.0 && short.len() > 10, "{short}");
    }

    #[test]
    fn what_lies_beyond_the_edge_is_left_out() {
        let mut bitmap = Bitmap::new((20, 10), [255; 3]);
        set(&mut bitmap, "MMMM", (-8.0, 9.0), Type { em: 12.0, bold: false }, [0; 3]).unwrap();
        assert!(bitmap.pixels().contains(&0));
    }
}
