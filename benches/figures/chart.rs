//! Lines over time, as an SVG that is readable on a light and on a dark page: it has a ground of its
//! own.

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

pub(crate) fn draw(path: &Path, all: &[Series]) {
    fs::write(path, svg(all)).unwrap();
}

fn svg(all: &[Series]) -> String {
    let points = || all.iter().flat_map(|series| &series.points);
    let begin = points()
        .map(|point| point.0)
        .fold(f64::MAX, f64::min)
        .floor();
    let end = points().map(|point| point.0).fold(0.0, f64::max);
    // Whole powers of ten around what there is.
    let least = points().map(|point| point.1).filter(|value| *value > 0.0);
    let least = least.fold(f64::MAX, f64::min).log10().floor();
    let most = points()
        .map(|point| point.1)
        .fold(0.0, f64::max)
        .log10()
        .ceil();
    let x = |seconds: f64| LEFT + (seconds - begin) / (end - begin) * (WIDTH - LEFT - RIGHT);
    let y = |milliseconds: f64| {
        let part = (milliseconds.max(10_f64.powf(least)).log10() - least) / (most - least);
        HEIGHT - BOTTOM - part * (HEIGHT - TOP - BOTTOM)
    };

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
    for exponent in least as i32..=most as i32 {
        let value = 10_f64.powi(exponent);
        label(
            &mut svg,
            LEFT - 8.0,
            y(value) + 4.0,
            " text-anchor=\"end\"",
            &value.to_string(),
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
    for exponent in least as i32..=most as i32 {
        let y = y(10_f64.powi(exponent));
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#e5e5e5\"/>",
            WIDTH - RIGHT
        );
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
