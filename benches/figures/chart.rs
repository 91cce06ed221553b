//! Draws lines over time.

use std::path::Path;

use crate::figure::grouped;
use crate::svg::{Anchor, GREY, RIGHT, Svg, WIDTH};

const HEIGHT: f64 = 400.0;
const LEFT: f64 = 70.0;
const TOP: f64 = 84.0;
const BOTTOM: f64 = 56.0;

pub(crate) struct Chart {
    pub(crate) title: &'static str,
    /// What the seconds count from.
    pub(crate) horizontal: &'static str,
    pub(crate) vertical: &'static str,
    pub(crate) series: Vec<Series>,
    pub(crate) band: Band,
}

pub(crate) struct Series {
    pub(crate) label: &'static str,
    pub(crate) colour: &'static str,
    /// Seconds and values.
    pub(crate) points: Vec<(f64, f64)>,
}

/// A span of time with a label.
pub(crate) struct Band {
    pub(crate) label: &'static str,
    pub(crate) from: f64,
    pub(crate) to: f64,
}

impl Chart {
    pub(crate) fn draw(&self, path: &Path) {
        let points = || self.series.iter().flat_map(|series| &series.points);
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
        let y = |value: f64| HEIGHT - BOTTOM - value / top * (HEIGHT - TOP - BOTTOM);

        let mut svg = Svg::new(HEIGHT, LEFT, self.title);
        let (left, right) = (x(self.band.from), x(self.band.to));
        let band = HEIGHT - BOTTOM - TOP;
        svg.area((left, TOP), right - left, band, "#eff6ff");
        let middle = (left + right) / 2.0;
        let blue = "font-size=\"12\" fill=\"#1d4ed8\"";
        svg.label(middle, TOP + 16.0, &Anchor::Middle, blue, self.band.label);
        for number in 0..=steps {
            let value = step * f64::from(number);
            svg.grid_line(y(value), &grouped(value));
        }
        let step = round_step((end - begin) / 16.0).max(1.0);
        let mut second = (begin / step).ceil() * step;
        while second <= end {
            let below = HEIGHT - BOTTOM + 20.0;
            svg.label(x(second), below, &Anchor::Middle, "", &second.to_string());
            second += step;
        }
        let grey = format!("fill=\"{GREY}\"");
        let middle = (LEFT + WIDTH - RIGHT) / 2.0;
        svg.label(
            middle,
            HEIGHT - 14.0,
            &Anchor::Middle,
            &grey,
            self.horizontal,
        );
        let height = (HEIGHT + TOP - BOTTOM) / 2.0;
        let turned = format!("{grey} transform=\"rotate(-90 20 {height})\"");
        svg.label(20.0, height, &Anchor::Middle, &turned, self.vertical);
        let mut at = LEFT;
        for series in &self.series {
            svg.label(at + 26.0, 56.0, &Anchor::Start, "", series.label);
            svg.line(&[(at, 52.0), (at + 20.0, 52.0)], 3.0, series.colour);
            at += 60.0 + 6.6 * series.label.len() as f64;
        }
        for series in &self.series {
            let points = series.points.iter();
            let points: Vec<_> = points.map(|point| (x(point.0), y(point.1))).collect();
            svg.line(&points, 1.8, series.colour);
        }
        svg.write(path);
    }
}

/// The smallest of 1, 2, 5, 10, 20 and so on that is at least `value`.
fn round_step(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 5.0].map(|step| step * power);
    let enough = steps.into_iter().find(|step| *step >= value);
    enough.unwrap_or(10.0 * power)
}
