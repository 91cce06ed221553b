//! An SVG with a background of its own, so that it is readable on light and dark pages.

use std::fmt::Write;
use std::fs;
use std::path::Path;

pub(crate) const WIDTH: f64 = 860.0;
pub(crate) const RIGHT: f64 = 20.0;

pub(crate) const GREY: &str = "#525252";
const GRID: &str = "#e5e5e5";

pub(crate) enum Anchor {
    Start,
    Middle,
    End,
}

pub(crate) struct Svg {
    text: String,
    left: f64,
}

impl Svg {
    /// With the title at `left`, where all lines across begin.
    pub(crate) fn new(height: f64, left: f64, title: &str) -> Svg {
        let text = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
             font-family=\"Helvetica, Arial, sans-serif\" font-size=\"13\" fill=\"#1f2937\">\n\
             <title>{title}</title>\n\
             <rect width=\"{WIDTH}\" height=\"{height}\" rx=\"8\" fill=\"#ffffff\" stroke=\"#d4d4d4\"/>\n\
             <text x=\"{left}\" y=\"28\" font-size=\"16\" font-weight=\"bold\">{title}</text>\n"
        );
        Svg { text, left }
    }

    /// Adds a text. `attributes` are more of its attributes.
    pub(crate) fn label(&mut self, x: f64, y: f64, anchor: &Anchor, attributes: &str, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let _ = writeln!(
            self.text,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" {attributes}>{text}</text>"
        );
    }

    /// Adds a line across, with its value on the left.
    pub(crate) fn grid_line(&mut self, y: f64, value: &str) {
        let (left, right) = (self.left, WIDTH - RIGHT);
        let _ = writeln!(
            self.text,
            "<line x1=\"{left}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"{GRID}\"/>"
        );
        let small = format!("font-size=\"11\" fill=\"{GREY}\"");
        self.label(left - 8.0, y + 4.0, &Anchor::End, &small, value);
    }

    pub(crate) fn area(&mut self, (x, y): (f64, f64), width: f64, height: f64, colour: &str) {
        let _ = writeln!(
            self.text,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{colour}\"/>"
        );
    }

    pub(crate) fn line(&mut self, points: &[(f64, f64)], width: f64, colour: &str) {
        let points: Vec<String> = points
            .iter()
            .map(|(x, y)| format!("{x:.1},{y:.1}"))
            .collect();
        let _ = writeln!(
            self.text,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width}\" stroke-linejoin=\"round\" \
             points=\"{}\"/>",
            points.join(" ")
        );
    }

    pub(crate) fn write(self, path: &Path) {
        fs::write(path, self.text + "</svg>\n").unwrap();
    }
}
