//! The report as Markdown.

use super::{Block, Table};
use crate::files::DIAGRAMS;

pub(super) fn render(blocks: &[Block<'_>]) -> String {
    let parts: Vec<String> = blocks.iter().map(block).collect();
    parts.join("\n\n") + "\n"
}

fn block(block: &Block<'_>) -> String {
    match block {
        Block::Heading(level, text) => format!("{} {text}", "#".repeat(usize::from(*level))),
        Block::Paragraph(text) => text.clone(),
        Block::List(items) => items.iter().map(|item| format!("- {item}")).collect::<Vec<_>>().join("\n"),
        Block::Table(found) => table(found),
        Block::Code(text) => format!("```sh\n{text}\n```"),
        Block::Figure(chart) => format!("![{}](../../../{DIAGRAMS}/{}.svg)", chart.caption, chart.name),
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
