//! The report as one page: charts inline, light and dark, from a phone's width to print.

use super::{Block, Table};

const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1c1c1c; --faint: #5a5a5a; --page: #fff; --rule: #d8d8d8; --code: #f3f3f1; --bad: #b3261e; --good: #1b6e3c; }
@media screen and (prefers-color-scheme: dark) { :root { --ink: #e6e6e6; --faint: #a8a8a8; --page: #16181b; --rule: #3a3d42; --code: #23262a; --bad: #ff8a80; --good: #7fd6a0; } }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 62rem; background: var(--page); color: var(--ink); font: 16px/1.55 system-ui, sans-serif; }
h1 { font-size: 1.8rem; line-height: 1.2; } h2 { margin-top: 2.2rem; border-bottom: 1px solid var(--rule); }
.table { overflow-x: auto; margin: 1rem 0; } table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: .35rem .8rem .35rem 0; border-bottom: 1px solid var(--rule); min-width: 5rem; }
th { color: var(--faint); font-weight: 600; }
code, pre { background: var(--code); border-radius: 4px; font: .88rem/1.45 ui-monospace, monospace; } code { padding: .05rem .3rem; }
pre { padding: .8rem; overflow-x: auto; } pre code { padding: 0; background: none; }
figure { margin: 1.5rem 0; border: 1px solid var(--rule); border-radius: 6px; overflow: hidden; }
.chart { overflow-x: auto; } .chart svg { display: block; width: 100%; min-width: 44rem; height: auto; }
figcaption { padding: .5rem .8rem .6rem; border-top: 1px solid var(--rule); color: var(--faint); font-size: .88rem; }
details { margin: .6rem 0; } summary { cursor: pointer; } .pass { color: var(--good); font-weight: 600; } .fail { color: var(--bad); font-weight: 700; }
@media print { body { max-width: none; font-size: 11pt; } figure, tr { break-inside: avoid; } .chart svg { min-width: 0; } details > pre { white-space: pre-wrap; } }
";

pub(super) fn render(blocks: &[Block<'_>]) -> String {
    let title = blocks.iter().find_map(|block| match block {
        Block::Heading(1, text) => Some(escape(text)),
        _ => None,
    });
    let body: String = blocks.iter().map(block).collect();
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{}</title>\n\
         <style>{STYLE}@media screen and (prefers-color-scheme: dark) {{ {}}}</style>\n</head>\n<body>\n{body}</body>\n</html>\n",
        title.unwrap_or_default(),
        // Paper is white, whatever the screen prefers.
        crate::charts::dark_style()
    )
}

fn block(block: &Block<'_>) -> String {
    match block {
        Block::Heading(level, text) => format!("<h{level}>{}</h{level}>\n", inline(text)),
        Block::Paragraph(text) => format!("<p>{}</p>\n", inline(text)),
        Block::List(items) => {
            let items: Vec<String> = items.iter().map(|item| format!("<li>{}</li>\n", inline(item))).collect();
            format!("<ul>\n{}</ul>\n", items.concat())
        }
        Block::Table(found) => table(found),
        Block::Code(text) => format!("<pre><code>{}</code></pre>\n", escape(text)),
        // A phone scrolls a chart rather than shrink its letters; the keyboard reaches what scrolls.
        Block::Figure(chart) => format!(
            "<figure id=\"{}\"><div class=\"chart\" tabindex=\"0\">{}</div><figcaption>{}</figcaption></figure>\n",
            chart.name,
            chart.svg,
            escape(&chart.caption)
        ),
        Block::Details { summary, text } => {
            format!("<details><summary>{}</summary><pre>{}</pre></details>\n", escape(summary), escape(text))
        }
    }
}

fn table(table: &Table) -> String {
    let header: Vec<String> = table.header.iter().map(|cell| format!("<th>{}</th>", inline(cell))).collect();
    let header = header.concat();
    let cell = |text: &String| match text.as_str() {
        "pass" => "<td class=\"pass\">pass</td>".to_owned(),
        "FAIL" => "<td class=\"fail\">FAIL</td>".to_owned(),
        text => format!("<td>{}</td>", inline(text)),
    };
    let row = |cells: &Vec<String>| format!("<tr>{}</tr>\n", cells.iter().map(cell).collect::<String>());
    let rows: String = table.rows.iter().map(row).collect();
    format!("<div class=\"table\"><table>\n<thead><tr>{header}</tr></thead>\n<tbody>\n{rows}</tbody></table></div>\n")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Escaped, with `code` and **strong** marked.
fn inline(text: &str) -> String {
    let marked = between(&escape(text), "**", "strong");
    between(&marked, "`", "code")
}

fn between(text: &str, mark: &str, tag: &str) -> String {
    let parts: Vec<&str> = text.split(mark).collect();
    if parts.len().is_multiple_of(2) {
        return text.to_owned();
    }
    let wrap = |(index, part): (usize, &&str)| {
        if index % 2 == 1 { format!("<{tag}>{part}</{tag}>") } else { (*part).to_owned() }
    };
    parts.iter().enumerate().map(wrap).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::charts;
    use crate::results::Treatment;
    use crate::results_sample::sample;
    use crate::summary::Summary;

    #[test]
    fn charts_take_the_colours_of_a_dark_screen_and_stay_light_on_paper() {
        let results = sample(&Treatment::ALL, 4, 1);
        let drawn = charts::draw(&results, &Summary::of(&results)).unwrap();
        let page = render(&drawn.iter().map(Block::Figure).collect::<Vec<_>>());
        let dark = page
            .rsplit_once("@media screen and (prefers-color-scheme: dark)")
            .unwrap()
            .1
            .split_once("</style>")
            .unwrap()
            .0;
        // Every role that a chart is painted in has a dark colour.
        for part in page.split("class=\"").skip(1) {
            let class = part.split('"').next().unwrap();
            assert!(class == "chart" || dark.contains(&format!(" .{class}{{")), "{class}");
        }
        let (asked, of_screens) =
            (page.matches("prefers-color-scheme"), page.matches("screen and (prefers-color-scheme"));
        assert_eq!(asked.count(), of_screens.count());
        for chart in &drawn {
            assert!(
                page.contains(&format!("<figure id=\"{}\">", chart.name)) && page.contains(&escape(&chart.caption))
            );
        }
    }
}
