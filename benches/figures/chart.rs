//! Draws lines over time as an SVG. It has a background of its own, so it is readable on light and dark pages.

use std::fmt::Write;
use std::fs;
use std::path::Path;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 400.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 84.0;
const BOTTOM: f64 = 56.0;

pub(crate) struct Series {
    pub(crate) label: &'static str,
    pub(crate) colour: &'static str,
    /// Seconds and milliseconds.
    pub(crate) points: Vec<(f64, f64)>,
}

/// A span of time with a label.
pub(crate) struct Band {
    pub(crate) label: &'static str,
    pub(crate) from: f64,
    pub(crate) to: f64,
}

pub(crate) fn draw(path: &Path, all: &[Series], band: &Band) {
    fs::write(path, svg(all, band)).unwrap();
}

fn svg(all: &[Series], band: &Band) -> String {
    let points = || all.iter().flat_map(|series| &series.points);
    let begin = points()
        .map(|point| point.0)
        .fold(f64::MAX, f64::min)
        .floor();
    let end = points().map(|point| point.0).fold(0.0, f64::max);
    let most = points().map(|point| point.1).fold(0.0, f64::max);
    let step = round_step(most / 4.0);
    let steps = (most / step).ceil() as u32;
    let top = step * f64::from(steps);
    let x = |seconds: f64| LEFT + (seconds - begin) / (end - begin) * (WIDTH - LEFT - RIGHT);
    let y = |milliseconds: f64| HEIGHT - BOTTOM - milliseconds / top * (HEIGHT - TOP - BOTTOM);

    let mut svg = String::new();
    let _ = write!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"Helvetica, Arial, sans-serif\" font-size=\"13\" fill=\"#1f2937\">\n\
         <title>How long a checkout takes while a pool's connections are replaced</title>\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" rx=\"8\" fill=\"#ffffff\" stroke=\"#d4d4d4\"/>\n\
         <text x=\"{LEFT}\" y=\"28\" font-size=\"16\" font-weight=\"bold\">How long a checkout takes \
         while a pool's connections are replaced</text>\n"
    );
    let (left, right) = (x(band.from), x(band.to));
    let _ = writeln!(
        svg,
        "<rect x=\"{left:.1}\" y=\"{TOP}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"#eff6ff\"/>",
        right - left,
        HEIGHT - BOTTOM - TOP
    );
    let middle = (left + right) / 2.0;
    let attributes = " text-anchor=\"middle\" font-size=\"12\" fill=\"#1d4ed8\"";
    label(&mut svg, middle, TOP + 16.0, attributes, band.label);
    for step_number in 0..=steps {
        let value = step * f64::from(step_number);
        label(
            &mut svg,
            LEFT - 8.0,
            y(value) + 4.0,
            " text-anchor=\"end\"",
            &value.to_string(),
        );
        let y = y(value);
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#e5e5e5\"/>",
            WIDTH - RIGHT
        );
    }
    for second in begin as i32..=end as i32 {
        let below = HEIGHT - BOTTOM + 20.0;
        label(
            &mut svg,
            x(second.into()),
            below,
            " text-anchor=\"middle\"",
            &second.to_string(),
        );
    }
    let middle = (LEFT + WIDTH - RIGHT) / 2.0;
    let time = "seconds since a pool's connections were opened; they live for 10 s";
    label(
        &mut svg,
        middle,
        HEIGHT - 14.0,
        " text-anchor=\"middle\"",
        time,
    );
    let height = (HEIGHT + TOP - BOTTOM) / 2.0;
    let turned = format!(" text-anchor=\"middle\" transform=\"rotate(-90 20 {height})\"");
    label(
        &mut svg,
        20.0,
        height,
        &turned,
        "slowest get() in 50 ms, milliseconds",
    );
    let mut at = LEFT;
    for series in all {
        label(&mut svg, at + 26.0, 56.0, "", series.label);
        let _ = writeln!(
            svg,
            "<line x1=\"{at}\" x2=\"{}\" y1=\"52\" y2=\"52\" stroke=\"{}\" stroke-width=\"3\"/>",
            at + 20.0,
            series.colour
        );
        at += 60.0 + 7.0 * series.label.len() as f64;
    }
    for series in all {
        let points = series.points.iter();
        let points: Vec<String> = points
            .map(|(seconds, value)| format!("{:.1},{:.1}", x(*seconds), y(*value)))
            .collect();
        let _ = writeln!(
            svg,
            "<polyline fill=\"none\" stroke=\"{}\" stroke-width=\"1.8\" stroke-linejoin=\"round\" \
             points=\"{}\"/>",
            series.colour,
            points.join(" ")
        );
    }
    svg + "</svg>\n"
}

fn label(svg: &mut String, x: f64, y: f64, attributes: &str, text: &str) {
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\"{attributes}>{text}</text>"
    );
}

/// The smallest of 1, 2, 5, 10, 20 and so on that is at least `value`.
fn round_step(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 5.0].map(|step| step * power);
    let enough = steps.into_iter().find(|step| *step >= value);
    enough.unwrap_or(10.0 * power)
}
