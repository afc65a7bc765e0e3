//! The report as Markdown.

use super::{Block, Table};

/// `diagrams` is where the pictures lie, below the root.
pub(super) fn render(blocks: &[Block<'_>], diagrams: &str) -> String {
    let parts: Vec<String> = blocks.iter().map(|found| block(found, diagrams)).collect();
    parts.join("\n\n") + "\n"
}

fn block(block: &Block<'_>, diagrams: &str) -> String {
    match block {
        Block::Heading(level, text) => format!("{} {text}", "#".repeat(usize::from(*level))),
        Block::Paragraph(text) => text.clone(),
        Block::List(items) => items.iter().map(|item| format!("- {item}")).collect::<Vec<_>>().join("\n"),
        Block::Table(found) => table(found),
        Block::Code(text) => format!("```sh\n{text}\n```"),
        Block::Figure(chart) => format!("![{}](../../../{diagrams}/{}.svg)", chart.caption, chart.name),
        Block::Details { summary, text } => format!("**{summary}**\n\n{}", indented(text)),
    }
}

fn table(table: &Table) -> String {
    let row = |cells: &[String]| {
        let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
        format!("| {} |", cells.join(" | "))
    };
    let rule = format!("|{}", "---|".repeat(table.header.len()));
    let mut lines = vec![row(&table.header), rule];
    lines.extend(table.rows.iter().map(|cells| row(cells)));
    lines.join("\n")
}

/// A block of code whatever the text holds.
fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}
