//! Draws a row of bars for each of several pools.

use std::path::Path;

use crate::svg::{Anchor, GREY, RIGHT, Svg, WIDTH};

const LEFT: f64 = 64.0;
const TOP: f64 = 64.0;
const BARS: f64 = 64.0;
const PANEL: f64 = 110.0;
const BOTTOM: f64 = 40.0;

/// The scale is logarithmic, from 0.1 ms to 100 s.
const DECADES: f64 = 6.0;
const LEAST: f64 = 0.1;

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
    let mut svg = Svg::new(height, LEFT, title);
    let grey = format!("font-size=\"12\" fill=\"{GREY}\"");
    svg.label(LEFT, 48.0, &Anchor::Start, &grey, subtitle);
    let seconds = panels.iter().map(|panel| panel.milliseconds.len()).max();
    let seconds = seconds.unwrap_or(1);
    let step = (WIDTH - LEFT - RIGHT) / seconds as f64;
    for (number, panel) in panels.iter().enumerate() {
        let base = TOP + PANEL * number as f64 + 28.0 + BARS;
        let colour = match panel.has_failures {
            true => "#c2410c",
            false => "#1d4ed8",
        };
        let label = base - BARS - 8.0;
        let bold = "font-weight=\"bold\"";
        svg.label(LEFT, label, &Anchor::Start, bold, &panel.label);
        let coloured = format!("fill=\"{colour}\"");
        let right = WIDTH - RIGHT;
        svg.label(right, label, &Anchor::End, &coloured, &panel.note);
        for (decade, text) in [(1.0, "1 ms"), (4.0, "1 s"), (DECADES, "100 s")] {
            svg.grid_line(base - decade / DECADES * BARS, text);
        }
        for (second, took) in panel.milliseconds.iter().enumerate() {
            // No checkout began in this second.
            if *took == 0.0 {
                continue;
            }
            let bar = ((took / LEAST).log10() / DECADES).clamp(0.02, 1.0) * BARS;
            let at = (LEFT + second as f64 * step + 1.0, base - bar);
            svg.area(at, step - 2.0, bar, colour);
        }
    }
    for second in (0..seconds).step_by(5) {
        let x = LEFT + second as f64 * step;
        let small = "font-size=\"11\"";
        let text = second.to_string();
        svg.label(x, height - 26.0, &Anchor::Middle, small, &text);
    }
    let middle = (LEFT + WIDTH - RIGHT) / 2.0;
    svg.label(middle, height - 10.0, &Anchor::Middle, &grey, "seconds");
    svg.write(path);
}
