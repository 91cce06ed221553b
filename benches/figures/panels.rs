//! Draws a row of bars for each of several pools as an SVG. It has a background of its own, so it is readable on
//! light and dark pages.

use std::fmt::Write;
use std::fs;
use std::path::Path;

const WIDTH: f64 = 860.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 64.0;
const BARS: f64 = 64.0;
const PANEL: f64 = 110.0;
const BOTTOM: f64 = 40.0;

/// The scale is logarithmic, from 1 ms to 100 s.
const DECADES: f64 = 5.0;

/// One pool: the slowest checkout in each second.
pub(crate) struct Panel {
    pub(crate) label: String,
    pub(crate) note: String,
    pub(crate) milliseconds: Vec<f64>,
    /// Whether checkouts failed, which changes the colour.
    pub(crate) has_failures: bool,
}

pub(crate) fn draw(path: &Path, title: &str, subtitle: &str, panels: &[Panel]) {
    let height = TOP + PANEL * panels.len() as f64 + BOTTOM;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"Helvetica, Arial, sans-serif\" font-size=\"13\" fill=\"#1f2937\">\n\
         <title>{title}</title>\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" rx=\"8\" fill=\"#ffffff\" stroke=\"#d4d4d4\"/>\n\
         <text x=\"{LEFT}\" y=\"28\" font-size=\"16\" font-weight=\"bold\">{title}</text>\n\
         <text x=\"{LEFT}\" y=\"48\" font-size=\"12\" fill=\"#525252\">{subtitle}</text>\n"
    );
    let seconds = panels.iter().map(|panel| panel.milliseconds.len()).max();
    let seconds = seconds.unwrap_or(1);
    let step = (WIDTH - LEFT - RIGHT) / seconds as f64;
    for (number, panel) in panels.iter().enumerate() {
        let base = TOP + PANEL * number as f64 + 28.0 + BARS;
        let colour = if panel.has_failures {
            "#c2410c"
        } else {
            "#1d4ed8"
        };
        let label = base - BARS - 8.0;
        let _ = writeln!(
            svg,
            "<text x=\"{LEFT}\" y=\"{label:.1}\" font-weight=\"bold\">{}</text>\n\
             <text x=\"{}\" y=\"{label:.1}\" text-anchor=\"end\" fill=\"{colour}\">{}</text>",
            panel.label,
            WIDTH - RIGHT,
            panel.note
        );
        for (decade, text) in [(0.0, "1 ms"), (3.0, "1 s"), (DECADES, "100 s")] {
            let y = base - decade / DECADES * BARS;
            let _ = writeln!(
                svg,
                "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#e5e5e5\"/>\n\
                 <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\" font-size=\"11\" fill=\"#525252\">{text}</text>",
                WIDTH - RIGHT,
                LEFT - 8.0,
                y + 4.0
            );
        }
        for (second, took) in panel.milliseconds.iter().enumerate() {
            let bar = (took.max(1.0).log10() / DECADES).min(1.0) * BARS;
            let _ = writeln!(
                svg,
                "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{bar:.1}\" fill=\"{colour}\"/>",
                LEFT + second as f64 * step + 1.0,
                base - bar,
                step - 2.0
            );
        }
    }
    for second in (0..seconds).step_by(5) {
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" font-size=\"11\">{second}</text>",
            LEFT + second as f64 * step,
            height - 26.0
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"middle\" font-size=\"12\">seconds</text>\n</svg>",
        (LEFT + WIDTH - RIGHT) / 2.0,
        height - 10.0
    );
    fs::write(path, svg).unwrap();
}
