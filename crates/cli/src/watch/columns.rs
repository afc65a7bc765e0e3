//! Aligned columns in a given width: what gives way first when there is too little of it.

use ratatui::text::Span;

use crate::output::printable;

/// From this rank on a column is shown only where the others need not be cut for it.
pub(super) const LUXURY: u8 = 5;
/// What counts as uncut: names are longer than that at times, reasons often.
const AMPLE: usize = 24;

/// One column of a table.
#[derive(Debug)]
pub(super) struct Column {
    pub(super) title: &'static str,
    /// The column of the highest rank is left out first; one of rank 0 never. From [`LUXURY`] on, before another
    /// column is cut.
    pub(super) rank: u8,
    /// Narrower than this it says too little.
    pub(super) width_min: usize,
}

/// The heading and the rows as lines, none of them wider than `width`.
pub(super) fn lines(columns: &[Column], rows: &[Vec<String>], width: usize) -> (String, Vec<String>) {
    // Only what can be seen is worth measuring: other people's words may be long.
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|text| cut(&one_line(text), width)).collect()).collect();
    let gap = if width < 60 { 1 } else { 2 };
    let chosen = choose(columns, &rows, width, gap);
    let line = |cell: &dyn Fn(usize) -> String| {
        let mut line = String::new();
        for (place, (index, room)) in chosen.iter().enumerate() {
            let text = cut(&cell(*index), *room);
            let padding = if place + 1 == chosen.len() { 0 } else { room - measure(&text) + gap };
            line.push_str(&text);
            line.extend(std::iter::repeat_n(' ', padding));
        }
        cut(line.trim_end(), width)
    };
    let heading = line(&|index| columns[index].title.to_owned());
    (heading, rows.iter().map(|row| line(&|index| row[index].clone())).collect())
}

/// Which columns are shown, and how wide.
fn choose(columns: &[Column], rows: &[Vec<String>], width: usize, gap: usize) -> Vec<(usize, usize)> {
    let wanted = |index: usize| {
        let cells = rows.iter().map(|row| measure(&row[index]));
        cells.max().unwrap_or(0).max(measure(columns[index].title))
    };
    let mut chosen: Vec<(usize, usize)> = (0..columns.len()).map(|index| (index, wanted(index))).collect();
    let total = |widths: &mut dyn Iterator<Item = usize>| widths.map(|width| width + gap).sum::<usize>() - gap;
    // What they need must fit.
    while let Some(last) = (0..chosen.len()).max_by_key(|place| columns[chosen[*place].0].rank) {
        let rank = columns[chosen[last].0].rank;
        let least = |column: &Column| if rank >= LUXURY { AMPLE } else { column.width_min };
        let needed = total(&mut chosen.iter().map(|(index, wanted)| least(&columns[*index]).min(*wanted)));
        if needed <= width || rank == 0 {
            break;
        }
        chosen.remove(last);
    }
    // Whoever has most above its least gives first.
    while total(&mut chosen.iter().map(|(_, width)| *width)) > width {
        let spare = |(index, width): &(usize, usize)| (width.saturating_sub(columns[*index].width_min), *width);
        match chosen.iter_mut().max_by_key(|column| spare(column)).filter(|column| column.1 > 1) {
            Some(widest) => widest.1 -= 1,
            None => break,
        }
    }
    chosen
}

/// As wide as a terminal shows it.
pub(super) fn measure(text: &str) -> usize {
    Span::raw(text).width()
}

/// The text, or as much of its beginning as fits, with a mark that there was more.
pub(super) fn cut(text: &str, width: usize) -> String {
    if measure(text) <= width {
        return text.to_owned();
    }
    let mut short = String::new();
    for character in text.chars() {
        short.push(character);
        if measure(&short) >= width {
            short.pop();
            break;
        }
    }
    if width > 0 {
        short.push('…');
    }
    short
}

/// Other people's words in one line, unable to move the cursor or to turn the direction of what follows.
pub(super) fn one_line(text: &str) -> String {
    let turns = |character: char| matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let text = printable(&text.replace('\n', " "));
    text.chars().map(|character| if turns(character) { '\u{fffd}' } else { character }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 3] = [
        Column { title: "resource", rank: 0, width_min: 6 },
        Column { title: "mode", rank: 1, width_min: 4 },
        Column { title: "reason", rank: LUXURY, width_min: 6 },
    ];

    fn at(width: usize) -> Vec<String> {
        let row = ["a/long/path.md", "exclusive", "re-ordering"].map(str::to_owned).to_vec();
        let (heading, mut rows) = lines(&COLUMNS, &[row], width);
        rows.insert(0, heading);
        rows
    }

    #[test]
    fn what_there_is_no_room_for_gives_way_in_turn() {
        assert_eq!(at(60), ["resource        mode       reason", "a/long/path.md  exclusive  re-ordering"]);
        assert_eq!(at(30), ["resource       mode", "a/long/path.md exclusive"], "a luxury goes first");
        assert_eq!(at(14), ["resour… mode", "a/long… exclu…"], "then columns are cut");
        assert_eq!(at(9), ["resource", "a/long/p…"], "then left out");
        assert_eq!(at(5), ["reso…", "a/lo…"]);
        assert_eq!(at(0), ["", ""]);
    }

    #[test]
    fn a_wide_character_is_never_cut_in_two() {
        assert_eq!(cut("計画書", 6), "計画書");
        assert_eq!(cut("計画書", 5), "計画…");
        assert_eq!(cut("計画書", 4), "計…");
    }

    #[test]
    fn anothers_words_stay_in_their_cell() {
        assert_eq!(one_line("a\nb\x1b[2J\u{202e}c"), "a b\\u{1b}[2J\u{fffd}c");
    }
}
