//! Areas on a bitmap with smooth edges, and the bitmap as PNG.

use ab_glyph_rasterizer::{Rasterizer, point};

use super::look::Rgb;

/// Rows of red, green and blue.
pub(super) struct Bitmap {
    columns: u32,
    rows: u32,
    pixels: Vec<u8>,
}

impl Bitmap {
    pub(super) fn new((columns, rows): (u32, u32), color: Rgb) -> Self {
        Self { columns, rows, pixels: color.repeat((columns * rows) as usize) }
    }

    #[cfg(test)]
    pub(super) fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// Paints so much of a pixel; what lies beyond the edge is left out.
    pub(super) fn blend(&mut self, column: i64, row: i64, cover: f32, color: Rgb) {
        if !(0..i64::from(self.columns)).contains(&column) || !(0..i64::from(self.rows)).contains(&row) {
            return;
        }
        let (first, cover) = (((row * i64::from(self.columns) + column) * 3) as usize, cover.clamp(0.0, 1.0));
        for (pixel, ink) in self.pixels[first..first + 3].iter_mut().zip(color) {
            *pixel = (f32::from(*pixel) * (1.0 - cover) + f32::from(ink) * cover).round() as u8;
        }
    }

    /// Fills areas at once: where they meet or lie on each other no seam shows. All must turn the same way round.
    pub(super) fn fill(&mut self, areas: &[Vec<(f64, f64)>], color: Rgb) {
        let corners = || areas.iter().flatten();
        if corners().next().is_none() || corners().any(|(x, y)| !x.is_finite() || !y.is_finite()) {
            return;
        }
        let floor = |low: f64, value: f64| low.min(value.floor());
        let (left, top) = corners().fold((f64::MAX, f64::MAX), |(x, y), at| (floor(x, at.0), floor(y, at.1)));
        let (right, bottom) =
            corners().fold((f64::MIN, f64::MIN), |(x, y), at| (x.max(at.0.ceil()), y.max(at.1.ceil())));
        let (width, height) = ((right - left) as usize + 1, (bottom - top) as usize + 1);
        let mut rasterizer = Rasterizer::new(width, height);
        for area in areas {
            for (from, to) in area.iter().zip(area.iter().cycle().skip(1)) {
                let moved = |at: &(f64, f64)| point((at.0 - left) as f32, (at.1 - top) as f32);
                rasterizer.draw_line(moved(from), moved(to));
            }
        }
        rasterizer.for_each_pixel_2d(|x, y, cover| {
            if cover > 0.0 {
                self.blend(i64::from(x) + left as i64, i64::from(y) + top as i64, cover, color);
            }
        });
    }

    /// The bitmap as PNG.
    pub(super) fn png(&self) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, self.columns, self.rows);
        encoder.set_color(png::ColorType::Rgb);
        // Flat areas are shorter as they are than as differences.
        encoder.set_compression(png::Compression::Best);
        encoder.set_filter(png::FilterType::NoFilter);
        let mut writer = encoder.write_header().map_err(|error| error.to_string())?;
        writer.write_image_data(&self.pixels).and_then(|()| writer.finish()).map_err(|error| error.to_string())?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edge_between_pixels_is_grey_and_areas_that_overlap_are_not() {
        let mut bitmap = Bitmap::new((4, 1), [255; 3]);
        let half = vec![(0.5, 0.0), (2.0, 0.0), (2.0, 1.0), (0.5, 1.0)];
        let whole = vec![(1.0, 0.0), (3.0, 0.0), (3.0, 1.0), (1.0, 1.0)];
        bitmap.fill(&[half, whole], [0; 3]);
        let reds: Vec<u8> = bitmap.pixels().chunks(3).map(|pixel| pixel[0]).collect();
        assert_eq!(reds, [128, 0, 0, 255]);
    }
}
